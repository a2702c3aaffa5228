//! Exported ONNX graphs: well formed, for any number of images, with the weights of the file and what a user has to know.
//!
//! What they compute is compared by `tests/interop`, with ONNX Runtime.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is what it claims")]

use prost::Message;
use simmim::weights::{Format, LoadedWeights, adapt, export};
use simmim_onnx::messages::{Dimension, GraphProto, ModelProto, ValueInfoProto};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/weights").join(name)
}

/// The axes of an input or output; the symbolic one by its name.
fn axes(value: &ValueInfoProto) -> Vec<String> {
    let tensor = value.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap();
    let axis = |dimension: &Dimension| match dimension {
        Dimension::Value(length) => length.to_string(),
        Dimension::Param(name) => name.clone(),
    };
    tensor.shape.as_ref().unwrap().dim.iter().map(|dimension| axis(dimension.value.as_ref().unwrap())).collect()
}

/// Checks that every operand is there before it is read, and that nothing is there for nothing.
#[track_caller]
fn is_well_formed(graph: &GraphProto) {
    let mut known: HashSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
    known.extend(graph.initializer.iter().map(|constant| constant.name.as_str()));
    assert_eq!(known.len(), graph.input.len() + graph.initializer.len(), "a name is taken twice");
    let mut read = HashSet::new();
    for node in &graph.node {
        for input in &node.input {
            assert!(known.contains(input.as_str()), "{} reads `{input}` too early", node.name);
            read.insert(input.as_str());
        }
        assert!(node.output.iter().all(|output| known.insert(output)), "{} computes what is there", node.name);
    }
    for output in &graph.output {
        assert!(known.contains(output.name.as_str()), "nothing computes `{}`", output.name);
        read.insert(&output.name);
    }
    let unread: Vec<_> = known.difference(&read).collect();
    assert!(unread.is_empty(), "nothing reads {unread:?}");
    for constant in &graph.initializer {
        let width = if constant.data_type == 1 { 4 } else { 8 };
        let values = constant.dims.iter().product::<i64>() as usize;
        assert_eq!(constant.raw_data.len(), width * values, "{}", constant.name);
    }
}

/// Exports a fixture and checks its graph, outputs, operators and weights.
#[track_caller]
fn check(name: &str, outputs: &[(&str, &[&str])], operators: &[&str]) {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let exported = export(&fixture(name), Format::Onnx, &out).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(exported.model, "ONNX graph, opset 17");
    for file in ["model.onnx", "README.md", "recipe.toml", "preprocessor_config.json"] {
        assert!(exported.files.contains(&out.join(file)) && out.join(file).is_file(), "{file}");
    }
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.contains("# opset 17\n") && card.contains("session.run([\""), "{card}");

    let model = ModelProto::decode(std::fs::read(out.join("model.onnx")).unwrap().as_slice()).unwrap();
    assert_eq!((model.ir_version, model.opset_import[0].version), (8, 17));
    let facts: HashMap<&str, &str> =
        model.metadata_props.iter().map(|fact| (fact.key.as_str(), fact.value.as_str())).collect();
    let weights = LoadedWeights::at(&fixture(name)).unwrap();
    let run = &weights.resolved.as_ref().unwrap().1;
    assert_eq!(serde_json::from_str::<Vec<f32>>(facts["simmim.mean"]).unwrap(), run.mean, "{name}");
    assert_eq!(serde_json::from_str::<Vec<f32>>(facts["simmim.std"]).unwrap(), run.std, "{name}");
    if let [("logits", _)] = outputs {
        assert_eq!(serde_json::from_str::<Vec<String>>(facts["simmim.classes"]).unwrap(), run.classes);
    }
    let graph = model.graph.unwrap();
    is_well_formed(&graph);
    assert_eq!(graph.input.len(), 1);
    assert_eq!((graph.input[0].name.as_str(), axes(&graph.input[0])), ("images", strings(&["batch", "3", "16", "16"])));
    let found: Vec<_> = graph.output.iter().map(|output| (output.name.as_str(), axes(output))).collect();
    let expected: Vec<_> = outputs.iter().map(|(name, axes)| (*name, strings(axes))).collect();
    assert_eq!(found, expected, "{name}");
    let used: HashSet<&str> = graph.node.iter().map(|node| node.op_type.as_str()).collect();
    assert!(operators.iter().all(|operator| used.contains(operator)), "{name}: {used:?}");

    // the weights: as they are, or transposed where a product reads them
    let mut compared = 0;
    for constant in &graph.initializer {
        let (plain, is_transposed) = match constant.name.strip_suffix(".transposed") {
            Some(plain) => (plain, true),
            None => (constant.name.as_str(), false),
        };
        let Some((shape, values)) = weights.file.tensor(plain).unwrap() else { continue };
        let values = match is_transposed {
            false => values,
            true => {
                let (rows, columns) = (shape[0], values.len() / shape[0]);
                assert_eq!(constant.dims, [columns as i64, rows as i64]);
                (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect()
            }
        };
        let found: Vec<f32> =
            constant.raw_data.chunks(4).map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]])).collect();
        assert_eq!(found, values, "{name}: {plain}");
        compared += 1;
    }
    assert!(compared > 20, "{name}: {compared} weights");
}

fn strings(axes: &[&str]) -> Vec<String> {
    axes.iter().map(|axis| (*axis).to_owned()).collect()
}

#[test]
fn encoders_of_every_architecture_give_features_and_tokens() {
    let outputs: &[(&str, &[&str])] = &[("features", &["batch", "16"]), ("tokens", &["batch", "16", "16"])];
    check("hf-vit", outputs, &["Conv", "Expand", "LayerNormalization", "Softmax", "Erf"]);
    check("hf-beit-shared", outputs, &["Gather", "LayerNormalization"]);
    check("hf-swin", outputs, &["Gather", "Softmax"]);
    check("hf-swinv2", outputs, &["ReduceL2", "Max"]);
}

#[test]
fn classifiers_give_logits() {
    let outputs: &[(&str, &[&str])] = &[("logits", &["batch", "3"])];
    check("hf-beit", outputs, &["Conv", "Gather"]);
    check("timm-vit-mean", outputs, &["Mul"]);
    check("timm-swin", outputs, &["Gather"]);
    check("timm-swinv2", outputs, &["ReduceL2"]);
}

#[test]
fn images_of_any_shape_are_read_and_what_cannot_describe_them_is_left_out() {
    let scratch = tempfile::tempdir().unwrap();
    let (ours, out) = (scratch.path().join("ours.safetensors"), scratch.path().join("out"));
    // windows of 4 over grids of 8 × 12 and 4 × 6: padded in the second stage
    adapt(&fixture("hf-swin"), &["data.image_size=[16, 24]".into()], None, &ours).unwrap();
    let exported = export(&ours, Format::Onnx, &out).unwrap();
    assert!(exported.notes.iter().any(|note| note.contains("square images only")), "{:?}", exported.notes);
    assert!(!out.join("preprocessor_config.json").exists());
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.contains("16 × 24 px, 3 channels, normalized with mean [0.485"), "{card}");
    let model = ModelProto::decode(std::fs::read(out.join("model.onnx")).unwrap().as_slice()).unwrap();
    let grid = model.metadata_props.iter().find(|fact| fact.key == "simmim.grid").unwrap();
    assert_eq!(grid.value, "[4,6]");
    let graph = model.graph.unwrap();
    is_well_formed(&graph);
    assert_eq!(axes(&graph.input[0]), strings(&["batch", "3", "16", "24"]));
    assert_eq!(axes(&graph.output[1]), strings(&["batch", "24", "16"]));
    assert!(graph.node.iter().any(|node| node.op_type == "Pad"), "windows are padded");
}
