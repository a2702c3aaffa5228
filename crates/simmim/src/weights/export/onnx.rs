//! Models as ONNX graphs: the encoder with its features, or the classifier with its logits.

use super::transformers::preprocessor;
use super::{Exported, JsonFiles, Model};
use crate::classifier::Classifier;
use crate::encoders::{Encode, Encoder, ForwardContext, NeededFeatures, Role, VisibleTokens};
use crate::error::{Error, Result};
use crate::memory;
use crate::recipe::AnyRecipe;
use crate::run::files::{replace, write_atomically};
use crate::weights::{Builder, WeightsFile};
use serde_json::json;
use simmim_engine::{Images, ParameterTable};
use simmim_onnx::messages::{ModelProto, StringStringEntryProto};
use simmim_onnx::{Files, IMAGES, MOST_BYTES, OPSET, Recorded, Recorder};
use std::fs::File;
use std::io::Write;
use std::path::Path;

const MODEL_FILE: &str = "model.onnx";

/// The values of a model that one file cannot hold.
const DATA_FILE: &str = "model.onnx.data";

/// Writes the graph of a model; returns also what goes beside it and how it is used.
///
/// # Errors
/// If a tensor is missing or has another shape, there is no memory, or the files cannot be written.
pub(super) fn write(file: &WeightsFile, model: &Model, out: &Path) -> Result<(Exported, JsonFiles, String)> {
    let mut graph = graph(file, model)?;
    graph.doc_string = about(model);
    graph.metadata_props = facts(model);
    let mut exported = Exported { model: format!("ONNX graph, opset {OPSET}"), ..Exported::default() };
    exported.tensors = graph.graph.as_ref().map_or(0, |graph| graph.initializer.len());
    let outputs: Vec<String> = graph.graph.iter().flat_map(|graph| &graph.output).map(|o| o.name.clone()).collect();
    let Files { model: bytes, data } = simmim_onnx::files(graph, MOST_BYTES, DATA_FILE);
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    if !data.is_empty() {
        let path = out.join(DATA_FILE);
        replace(&path, |partial| {
            let mut file = File::create(partial)?;
            data.iter().try_for_each(|piece| file.write_all(piece))
        })?;
        exported.files.push(path);
        exported
            .notes
            .push(format!("{DATA_FILE} holds the weights, which are too many for one file, and belongs beside it"));
    }
    let path = out.join(MODEL_FILE);
    write_atomically(&path, &bytes)?;
    exported.files.push(path);
    let files = match model.image_px.0 == model.image_px.1 {
        true => vec![("preprocessor_config.json", preprocessor(model))],
        false => {
            let what =
                "there is no preprocessor_config.json: it describes square images only; README.md has the values";
            exported.notes.push(what.into());
            Vec::new()
        }
    };
    let usage = usage(model, &outputs);
    Ok((exported, files, usage))
}

/// What a model computes, recorded by running it.
fn graph(file: &WeightsFile, model: &Model) -> Result<ModelProto> {
    let (height, width) = model.image_px;
    let one_image = Images { pixels: &[], count: 1, channels: model.channels, height, width };
    let (mut builder, mut context) = (Builder::default(), ForwardContext::evaluate());
    match model.recipe {
        AnyRecipe::Finetune(recipe) => {
            let classifier = Classifier::new(recipe, model.run.classes.len(), &mut builder)?;
            let b = recorder(file, builder.finish().0)?;
            let logits = classifier.logits(&b, &one_image, &mut context); // [B, K]
            Ok(b.finish(&[("logits", logits)]))
        }
        AnyRecipe::Pretrain(_) | AnyRecipe::Tokenizer(_) => {
            let encoder = Encoder::new(model.encoder, Role::Pretrain, model.image_px, model.channels, &mut builder)?;
            let b = recorder(file, builder.finish().0)?;
            let tokens: Recorded = encoder.embed(&b, &one_image); // [B, N, D]
            let tokens = encoder.encode(&b, tokens, VisibleTokens::All, NeededFeatures::All, &mut context); // [B, h·w, D']
            let features = encoder.pool(&b, &tokens); // [B, D']
            Ok(b.finish(&[("features", features), ("tokens", tokens)]))
        }
    }
}

fn recorder(file: &WeightsFile, table: ParameterTable) -> Result<Recorder> {
    // the parameters, those of the graph, and its bytes
    let bytes = memory::of_values(table.len()).saturating_mul(3);
    memory::check(|| format!("a graph of {} parameters", table.len()), bytes)?;
    let values = file.flat(&table, "")?;
    Ok(Recorder::new(table, values))
}

/// What the model reads and computes, in a sentence.
fn about(model: &Model) -> String {
    let ((height, width), channels, (h, w)) = (model.image_px, model.channels, model.grid);
    let outputs = match model.classifier() {
        Some(_) => format!("logits [batch, {}] of the classes", model.run.classes.len()),
        None => format!("tokens [batch, {h}·{w}, D] of the patches, row by row, and features [batch, D], their mean"),
    };
    format!(
        "opset {OPSET}; reads {IMAGES} [batch, {channels}, {height}, {width}], values from 0 to 1 less the mean, divided by \
         the standard deviation of their channel; computes {outputs}"
    )
}

/// What a program that uses the graph has to know.
fn facts(model: &Model) -> Vec<StringStringEntryProto> {
    let mut facts = vec![
        ("simmim.mean", json!(super::digits(&model.run.mean))),
        ("simmim.std", json!(super::digits(&model.run.std))),
    ];
    match model.classifier() {
        Some(_) => facts.push(("simmim.classes", json!(model.run.classes))),
        None => facts.push(("simmim.grid", json!([model.grid.0, model.grid.1]))),
    }
    let entry =
        |(key, value): (&str, serde_json::Value)| StringStringEntryProto { key: key.into(), value: value.to_string() };
    facts.into_iter().map(entry).collect()
}

/// Lines of Python that compute the outputs.
fn usage(model: &Model, outputs: &[String]) -> String {
    let ((height, width), channels) = (model.image_px, model.channels);
    let names = outputs.join(", ");
    format!(
        "import numpy\nimport onnxruntime\n\n\
         # {}\n\
         session = onnxruntime.InferenceSession(\"FOLDER/{MODEL_FILE}\")\n\
         images = numpy.zeros((2, {channels}, {height}, {width}), numpy.float32)\n\
         {names}{} = session.run({outputs:?}, {{\"{IMAGES}\": images}})\n",
        about(model).replace("; ", "\n# "),
        if outputs.len() == 1 { "," } else { "" },
    )
}
