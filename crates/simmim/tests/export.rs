//! Exported weights: they have the names that other programs' own files have, and come back as the same model.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is what it claims")]

use simmim::encoders::{Encode, Encoder, ForwardContext, NeededFeatures, Role, VisibleTokens};
use simmim::recipe::AnyRecipe;
use simmim::weights::{Builder, Exported, Format, LoadedWeights, WeightsFile, adapt, export, save_atomically};
use simmim_cpu::CpuDevice;
use simmim_engine::{Backend, Images, Operations, ParameterTable, Precision};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

const DEVICE: CpuDevice = CpuDevice { threads: 1 };

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/weights").join(name)
}

/// Tensors by name, of our names or of a file's.
fn tensors(file: &WeightsFile) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    file.shapes().into_iter().map(|(name, _)| (name.clone(), file.tensor(&name).unwrap().unwrap())).collect()
}

/// Exports a fixture and compares names and values with its own file, and its model with what comes back.
#[track_caller]
fn check_round_trip(name: &str, format: Format, model: &str) -> Exported {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let exported = export(&fixture(name), format, &out).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(exported.model, model, "{name}");
    let theirs = tensors(&WeightsFile::read(&fixture(name).join("model.safetensors")).unwrap());
    let written = tensors(&WeightsFile::read(&out.join("model.safetensors")).unwrap());
    let is_key_bias = |name: &String| name.ends_with("key.bias") || name.ends_with("qkv.bias");
    for (name, values) in &written {
        let own = theirs.get(name).unwrap_or_else(|| panic!("`{name}` is not a name of its own file"));
        assert!(own == values || is_key_bias(name), "`{name}` has other values");
    }
    let left_out: Vec<&String> = theirs.keys().filter(|name| !written.contains_key(*name)).collect();
    assert!(left_out.is_empty(), "{left_out:?}");
    let (before, after) = (LoadedWeights::at(&fixture(name)).unwrap(), LoadedWeights::at(&out).unwrap());
    assert_eq!(tensors(&before.file), tensors(&after.file), "{name}");
    let (before, after) = (before.resolved.unwrap(), after.resolved.unwrap());
    assert_eq!(before.0.encoder(), after.0.encoder(), "{name}");
    assert_eq!((before.1.mean, before.1.std, before.1.classes), (after.1.mean, after.1.std, after.1.classes));
    for file in ["README.md", "recipe.toml", "config.json"] {
        assert!(out.join(file).is_file(), "{file}");
    }
    exported
}

#[test]
fn files_of_transformers_come_back_as_they_were() {
    check_round_trip("hf-vit", Format::Transformers, "ViTForMaskedImageModeling");
    check_round_trip("hf-beit", Format::Transformers, "BeitForImageClassification");
    check_round_trip("hf-beit-shared", Format::Transformers, "BeitModel");
    check_round_trip("hf-swin", Format::Transformers, "SwinForMaskedImageModeling");
    check_round_trip("hf-swinv2", Format::Transformers, "Swinv2ForMaskedImageModeling");
}

#[test]
fn files_of_timm_come_back_as_they_were() {
    check_round_trip("timm-vit-mean", Format::Timm, "vit_base_patch16_224");
    check_round_trip("timm-swin", Format::Timm, "swin_tiny_patch4_window7_224");
    check_round_trip("timm-swinv2", Format::Timm, "swinv2_tiny_window8_256");
}

#[test]
fn the_head_is_left_out_by_name_where_the_other_program_has_none() {
    let scratch = tempfile::tempdir().unwrap();
    let exported = export(&fixture("hf-swin"), Format::Timm, &scratch.path().join("out")).unwrap();
    let mut names: Vec<&str> = exported.left_out.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["decoder.0.bias", "decoder.0.weight", "mask_token"]);
    let error = export(&fixture("hf-swin"), Format::Timm, &scratch.path().join("out")).unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
    let error = export(&fixture("hf-swin-later"), Format::Timm, &scratch.path().join("other")).unwrap_err();
    assert!(error.to_string().contains("no absolute positions") && error.hint().is_some(), "{error}");
    assert!(!scratch.path().join("other").exists());
}

/// Features of the encoder of some weights.
fn features(weights: &LoadedWeights) -> Vec<f32> {
    let Some((AnyRecipe::Pretrain(recipe), _)) = &weights.resolved else { panic!("it is pre-trained") };
    let mut builder = Builder::default();
    let encoder = Encoder::new(&recipe.encoder, Role::Pretrain, (16, 16), 3, &mut builder).unwrap();
    let b = weights.open(&DEVICE, builder.finish().0, Precision::F32).unwrap();
    let pixels: Vec<f32> = (0..3 * 256).map(|i| (i * 7 % 31) as f32 / 16.0 - 1.0).collect();
    b.start(false);
    let tokens = encoder.embed(&b, &Images { pixels: &pixels, count: 1, channels: 3, height: 16, width: 16 });
    b.read(&encoder.encode(&b, tokens, VisibleTokens::All, NeededFeatures::All, &mut ForwardContext::evaluate()))
}

#[test]
fn layer_scale_is_folded_for_a_model_that_has_none() {
    let scratch = tempfile::tempdir().unwrap();
    let (plain, ours, out) = ("plain.safetensors", "ours.safetensors", "out");
    let [plain, ours, out] = [plain, ours, out].map(|name| scratch.path().join(name));
    let mut all = tensors(&LoadedWeights::at(&fixture("hf-vit")).unwrap().file);
    for (block, gamma) in [(0, 1), (0, 2), (1, 1), (1, 2)] {
        let values = (0..16).map(|i| 0.2 + 0.1 * ((i * gamma + block) % 7) as f32).collect();
        all.insert(format!("encoder.blocks.{block}.gamma_{gamma}"), (vec![16], values));
    }
    let (mut table, mut flat) = (ParameterTable::default(), Vec::new());
    for (name, (shape, values)) in &all {
        table.add(name, shape);
        flat.extend(values);
    }
    save_atomically(&plain, &table, &flat, HashMap::new()).unwrap();
    adapt(&plain, &["encoder.heads=4".into()], None, &ours).unwrap();
    let exported = export(&ours, Format::Transformers, &out).unwrap();
    assert_eq!(exported.model, "ViTForMaskedImageModeling");
    assert!(exported.notes[0].contains("layer scale"), "{:?}", exported.notes);
    let (before, after) = (features(&LoadedWeights::at(&ours).unwrap()), features(&LoadedWeights::at(&out).unwrap()));
    let largest = before.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5 * largest), "features differ");
    let without = features(&LoadedWeights::at(&fixture("hf-vit")).unwrap());
    assert!(before.iter().zip(&without).any(|(a, b)| (a - b).abs() > 0.01 * largest), "layer scale changes nothing");
}

#[test]
fn our_own_form_carries_its_recipe_and_every_tensor() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    export(&fixture("hf-swinv2"), Format::Safetensors, &out).unwrap();
    let (before, after) = (LoadedWeights::at(&fixture("hf-swinv2")).unwrap(), LoadedWeights::at(&out).unwrap());
    assert!(after.import.is_none(), "it is ours");
    assert_eq!(tensors(&before.file), tensors(&after.file));
    assert_eq!(before.resolved.unwrap().0, after.resolved.unwrap().0);
}
