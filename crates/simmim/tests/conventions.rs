//! Weights of timm and transformers: those in `testdata/weights` give the features that their own programs computed,
//! and files that do not fit are refused by name.

#![allow(clippy::unwrap_used, reason = "a broken fixture may well panic, and says where")]

use serde_json::json;
use simmim::Error;
use simmim::classifier::Classifier;
use simmim::encoders::{
    Encode, Encoder, EncoderConfig, ForwardContext, Mlp, NeededFeatures, Role, VisibleTokens, VitConfig,
};
use simmim::masks::{Grid, Mask};
use simmim::model::SimMim;
use simmim::recipe::{AnyRecipe, Recipe};
use simmim::targets::Colors;
use simmim::weights::{Builder, Format, LoadedWeights, Pretrained, WeightsFile, adapt, export};
use simmim_cpu::CpuDevice;
use simmim_engine::{Backend, Images, Operations, Precision};
use std::path::{Path, PathBuf};

const DEVICE: CpuDevice = CpuDevice { threads: 1 };

/// Tolerance of features relative to the largest: sums in another order, and an `ε` of layer norms that differs by 1e-6.
const NEAR: f32 = 1e-4;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/weights").join(name)
}

/// What the program of a fixture computed.
struct Expected {
    file: WeightsFile,
    input: Vec<f32>,
}

impl Expected {
    fn of(name: &str) -> Self {
        let file = WeightsFile::read(&folder(name).join("expected.safetensors")).unwrap();
        let (shape, input) = file.tensor("input").unwrap().unwrap();
        assert_eq!(shape, [2, 3, 16, 16]);
        Self { file, input }
    }

    fn images(&self) -> Images<'_> {
        Images { pixels: &self.input, count: 2, channels: 3, height: 16, width: 16 }
    }

    fn get(&self, name: &str) -> Option<Vec<f32>> {
        self.file.tensor(name).unwrap().map(|(_, values)| values)
    }

    #[track_caller]
    fn compare(&self, name: &str, found: &[f32]) {
        let expected = self.get(name).unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(largest > 0.1, "{name} are all near zero");
        for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
            assert!((a - b).abs() <= NEAR * largest, "{name} at {i}: got {a}, expected {b}, largest {largest}");
        }
    }
}

/// Loads a fixture, compares what it computes, and returns its report's left-out names.
#[track_caller]
fn check(name: &str, convention: &str, edits: &[&str], left_out: usize) -> LoadedWeights {
    let edits: Vec<String> = edits.iter().map(|edit| (*edit).to_owned()).collect();
    let weights = LoadedWeights::with(&folder(name), &edits).unwrap_or_else(|error| panic!("{name}: {error}"));
    let expected = Expected::of(name);
    match &weights.resolved.as_ref().unwrap_or_else(|| panic!("{name}: {:?}", weights.undecided)).0 {
        AnyRecipe::Pretrain(recipe) if expected.get("loss").is_some() => pretrained(&weights, recipe, &expected),
        AnyRecipe::Pretrain(recipe) => {
            let mut builder = Builder::default();
            let encoder = Encoder::new(&recipe.encoder, Role::Pretrain, (16, 16), 3, &mut builder).unwrap();
            let b = weights.open(&DEVICE, builder.finish().0, Precision::F32).unwrap();
            b.start(false);
            let tokens = encoder.embed(&b, &expected.images());
            let features =
                encoder.encode(&b, tokens, VisibleTokens::All, NeededFeatures::All, &mut ForwardContext::evaluate());
            expected.compare("features", &b.read(&features));
        }
        AnyRecipe::Finetune(recipe) => {
            let classes = weights.resolved.as_ref().unwrap().1.classes.len();
            let mut builder = Builder::default();
            let model = Classifier::new(recipe, classes, &mut builder).unwrap();
            let b = weights.open(&DEVICE, builder.finish().0, Precision::F32).unwrap();
            b.start(false);
            expected.compare("logits", &b.read(&model.logits(&b, &expected.images(), &mut ForwardContext::evaluate())));
        }
        AnyRecipe::Tokenizer(_) => panic!("{name} is no tokenizer"),
    }
    let import = weights.import.as_ref().unwrap();
    assert_eq!(import.convention, convention, "{name}");
    assert_eq!(import.left_out.len(), left_out, "{name}: {:?}", import.left_out);
    weights
}

/// Compares features, reconstruction and loss of a whole pre-training model.
fn pretrained(weights: &LoadedWeights, recipe: &Recipe, expected: &Expected) {
    let mut builder = Builder::default();
    let model = SimMim::new(recipe, &Colors::unknown(3), &DEVICE, &mut builder).unwrap();
    let b = weights.open(&DEVICE, builder.finish().0, Precision::F32).unwrap();
    let cells = expected.get("mask").unwrap();
    let side = (cells.len() / 2).isqrt();
    let of_image =
        |cells: &[f32]| Mask::new(Grid { rows: side, columns: side }, cells.iter().map(|v| *v != 0.0).collect());
    let masks: Vec<Mask> = cells.chunks(side * side).map(of_image).collect();
    let (mask, images) = (model.batch_mask(&masks), expected.images());
    b.start(false);
    let visible = vec![false; cells.len()];
    let features = model.features(&b, &images, &visible, &mut ForwardContext::evaluate());
    expected.compare("features", &b.read(&features));
    let view = mask.all();
    expected.compare("reconstruction", &model.predictions(&b, &images, view.patches));
    let loss = model.loss(&b, &images, &view, &mut ForwardContext::evaluate());
    expected.compare("loss", &[(b.read(&loss.sum)[0] as f64 / model.denominator(loss.weight)) as f32]);
}

#[test]
fn transformers_vit_gives_equal_features() {
    let whole = check("hf-vit", "Hugging Face ViT", &[], 1);
    assert_eq!(whole.import.as_ref().unwrap().left_out[0].0, "the bias of keys");
    check("hf-vit-later", "Hugging Face ViT", &[], 3); // and the two tensors of its pooler
    check("hf-vit-sharded", "Hugging Face ViT", &[], 3);
}

#[test]
fn the_epsilon_of_layer_norms_is_that_of_the_configuration() {
    for (name, convention, left_out) in [("hf-vit-eps", "Hugging Face ViT", 3), ("hf-swin-eps", "Hugging Face Swin", 0)]
    {
        let (recipe, _) = check(name, convention, &[], left_out).resolved.unwrap();
        assert_eq!(recipe.encoder().unwrap().norm_eps(), 0.03125, "{name}");
    }
    // an `ε` that the recipe to start does not have is told
    let weights = LoadedWeights::at(&folder("hf-vit-eps")).unwrap();
    let (recipe, _) = weights.resolved.clone().unwrap();
    let Some(EncoderConfig::Vit(mut config)) = recipe.encoder().cloned() else { panic!("it is a ViT") };
    config.norm_eps = 1e-6;
    let notes = Pretrained::new(weights, &EncoderConfig::Vit(config), &[]).unwrap().notes;
    assert!(notes[0].contains("add 3.125e-2") && notes[0].contains("recipe 1e-6: `--set encoder.norm_eps=3.125e-2`"));
}

#[test]
fn dinov2_gives_equal_features_and_class_tokens() {
    for (name, convention, edits, registers) in [
        ("hf-dinov2", "Hugging Face DINOv2", &[][..], 0),
        ("hf-dinov2-registers", "Hugging Face DINOv2", &[], 3),
        ("timm-dinov2", "timm ViT", &[], 0),
        ("timm-dinov2-registers", "timm ViT", &[], 4),
    ] {
        let weights = check(name, convention, edits, 1); // the bias of keys
        let (recipe, _) = weights.resolved.clone().unwrap();
        let Some(EncoderConfig::Vit(config)) = recipe.encoder() else { panic!("{name} is a ViT") };
        assert_eq!(config.registers, registers, "{name}");
        class_token(name, edits);
        let has_mask_token = weights.file.shapes().contains(&("encoder.mask_token".into(), vec![1, 1, 16]));
        assert_eq!(has_mask_token, convention == "Hugging Face DINOv2", "{name}");
        let other = EncoderConfig::Vit(VitConfig { registers: registers + 1, ..config.clone() });
        let error = Pretrained::new(weights, &other, &[]).err().unwrap();
        assert_eq!(error.hint().unwrap(), format!("--set encoder.registers={registers}"));
    }
}

#[test]
fn dinov2_with_swiglu_gives_equal_features_and_class_tokens() {
    for (name, convention, registers) in [
        ("hf-dinov2-swiglu", "Hugging Face DINOv2 with SwiGLU", 0),
        ("hf-dinov2-swiglu-later", "Hugging Face DINOv2 with SwiGLU", 3),
        ("timm-dinov2-swiglu", "timm ViT", 0),
    ] {
        let config = vit(&check(name, convention, &[], 1)); // the bias of keys
        assert_eq!((config.mlp, config.registers, config.rotary_base), (Mlp::SwiGlu, registers, 0.0), "{name}");
        class_token(name, &[]);
    }
    let weights = LoadedWeights::at(&folder("timm-dinov2-swiglu")).unwrap();
    let other = VitConfig { mlp: Mlp::Gelu, ..vit(&weights) };
    let error = Pretrained::new(weights, &EncoderConfig::Vit(other), &[]).err().unwrap();
    assert_eq!(error.hint().unwrap(), "--set encoder.mlp=swiglu");
}

#[test]
fn dinov3_gives_equal_features_and_class_tokens() {
    let facebook = ["encoder.heads=2", "data.image_size=16", "encoder.rotary_base=100"];
    for (name, convention, edits, left_out, mlp, registers, base) in [
        ("hf-dinov3", "Hugging Face DINOv3", &[][..], 0, Mlp::Gelu, 2, 100.0),
        ("hf-dinov3-swiglu-later", "Hugging Face DINOv3 with SwiGLU", &[], 0, Mlp::SwiGlu, 0, 30.0),
        ("timm-dinov3", "timm DINOv3", &[], 0, Mlp::Gelu, 4, 100.0),
        ("timm-dinov3-swiglu", "timm DINOv3", &[], 0, Mlp::SwiGlu, 4, 100.0),
        ("facebook-dinov3-swiglu", "timm DINOv3", &facebook, 1, Mlp::SwiGlu, 4, 100.0), // the bias of keys
    ] {
        let weights = check(name, convention, edits, left_out);
        let config = vit(&weights);
        assert_eq!((config.mlp, config.registers, config.rotary_base), (mlp, registers, base), "{name}");
        assert!(!config.absolute_positions && config.norm_eps == 1e-5, "{name}");
        class_token(name, edits);
        let other = VitConfig { rotary_base: 0.0, ..config };
        let error = Pretrained::new(weights, &EncoderConfig::Vit(other), &[]).err().unwrap();
        assert_eq!(error.hint().unwrap(), format!("--set encoder.rotary_base={base}"));
    }
}

#[test]
fn other_rotary_positions_give_other_features() {
    let expected = Expected::of("hf-dinov3").get("features").unwrap();
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    for edit in ["encoder.rotary_base=99", "encoder.rotary_base=0"] {
        let found = features(&LoadedWeights::with(&folder("hf-dinov3"), &[edit.to_owned()]).unwrap(), "hf-dinov3");
        let off = found.iter().zip(&expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(off > NEAR * largest, "{edit}: the test of features would not see it, {off} of {largest}");
    }
}

#[test]
fn rotary_positions_that_are_not_dinov3s_are_refused() {
    let timm = |from: &'static str, to: &'static str| {
        error_of("timm-dinov3", move |folder: &Path| {
            let path = folder.join("config.json");
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(path, text.replace(from, to)).unwrap();
        })
    };
    for (from, to) in [
        ("vit_small_patch16_dinov3", "vit_small_patch16_rope_224"),
        ("\"img_size\": 16", "\"img_size\": 16, \"rope_type\": \"cat\", \"use_rot_pos_emb\": true"),
        ("\"img_size\": 16", "\"img_size\": 16, \"rope_type\": \"dinov3\", \"rope_rotate_half\": false"),
    ] {
        let error = timm(from, to);
        assert!(error.to_string().contains("rotary positions of another kind"), "{error}");
    }
    let error = timm("vit_small_patch16_dinov3", "vit_of_somebody");
    assert!(
        matches!(error, Error::Undecided { .. }) && error.hint().unwrap().contains("encoder.rotary_base=N"),
        "{error}"
    );
}

/// The ViT of weights.
fn vit(weights: &LoadedWeights) -> VitConfig {
    match weights.resolved.as_ref().unwrap().0.encoder() {
        Some(EncoderConfig::Vit(config)) => config.clone(),
        other => panic!("it is a ViT, not {other:?}"),
    }
}

/// The features of the images of a fixture.
fn features(weights: &LoadedWeights, name: &str) -> Vec<f32> {
    let (expected, mut builder) = (Expected::of(name), Builder::default());
    let encoder = Encoder::new(&EncoderConfig::Vit(vit(weights)), Role::Pretrain, (16, 16), 3, &mut builder).unwrap();
    let b = weights.open(&DEVICE, builder.finish().0, Precision::F32).unwrap();
    b.start(false);
    let tokens = encoder.embed(&b, &expected.images());
    b.read(&encoder.encode(&b, tokens, VisibleTokens::All, NeededFeatures::All, &mut ForwardContext::evaluate()))
}

#[test]
fn the_class_token_is_that_of_transformers() {
    class_token("hf-vit", &[]);
}

/// Compares the class token behind the last norm.
#[track_caller]
fn class_token(name: &str, edits: &[&str]) {
    let edits: Vec<String> = edits.iter().map(|edit| (*edit).to_owned()).collect();
    let (weights, expected) = (LoadedWeights::with(&folder(name), &edits).unwrap(), Expected::of(name));
    let recipe = weights.resolved.as_ref().unwrap().0.clone();
    let mut builder = Builder::default();
    let encoder = Encoder::new(recipe.encoder().unwrap(), Role::Pretrain, (16, 16), 3, &mut builder).unwrap();
    let b = weights.open(&DEVICE, builder.finish().0, Precision::F32).unwrap();
    b.start(false);
    let tokens = encoder.embed(&b, &expected.images());
    let found = encoder.class_token(&b, tokens, None, &mut ForwardContext::evaluate());
    expected.compare("class_token", &b.read(&found));
}

#[test]
fn the_encoder_of_mae_gives_equal_features_and_its_decoder_is_left_out_by_name() {
    let weights = LoadedWeights::at(&folder("hf-mae")).unwrap();
    let left_out = weights.import.unwrap().left_out;
    let of_decoder = left_out.iter().filter(|(name, _)| name.starts_with("decoder.")).count();
    assert!(of_decoder > 20 && left_out.iter().any(|(name, _)| name == "decoder.mask_token"), "{left_out:?}");
    check("hf-mae", "Hugging Face ViT", &[], of_decoder + 1);
}

#[test]
fn beit_gives_equal_features_with_tables_of_each_block_and_shared() {
    let weights = check("hf-beit", "Hugging Face BEiT", &[], 0);
    assert_eq!(weights.resolved.unwrap().1.classes, ["ant", "bee", "cat"]);
    check("hf-beit-shared", "Hugging Face BEiT", &[], 0);
}

#[test]
fn transformers_swin_and_swin_v2_give_equal_features() {
    check("hf-swin", "Hugging Face Swin", &[], 0);
    check("hf-swin-later", "Hugging Face Swin", &[], 0);
    let weights = check("hf-swinv2", "Hugging Face SwinV2", &[], 0);
    let (recipe, _) = weights.resolved.unwrap();
    let Some(EncoderConfig::SwinV2(config)) = recipe.encoder() else { panic!("it is a SwinV2") };
    assert_eq!(config.pretrained_window_size, [3, 3]);
}

#[test]
fn timm_gives_equal_features() {
    // the head of the class token, two tensors, and the bias of keys
    let weights = check("timm-vit", "timm ViT", &["encoder.heads=4"], 3);
    assert!(weights.import.unwrap().left_out.iter().any(|(name, _)| name == "head.weight"));
    let weights = check("timm-vit-mean", "timm ViT", &[], 1);
    assert_eq!(weights.resolved.unwrap().1.mean, [0.5; 3]);
    check("timm-swin", "timm Swin", &[], 0);
    check("timm-swinv2", "timm SwinV2", &[], 0);
}

#[test]
fn what_is_exported_prepares_images_as_the_imported_weights_said() {
    let scratch = tempfile::tempdir().unwrap();
    let cropped = json!({ "size": { "shortest_edge": 18 }, "do_center_crop": true, "crop_size": 16, "resample": 3,
        "image_mean": [0.5, 0.25, 0.125], "image_std": [0.5, 0.5, 0.25] });
    let whole = json!({ "size": { "height": 16, "width": 16 }, "resample": 2,
        "image_mean": [0.5, 0.25, 0.125], "image_std": [0.5, 0.5, 0.25] });
    for (kind, says, processor, timm_says) in [
        ("cropped", cropped, "CLIPImageProcessor", ("bicubic", "center", 16.0 / 18.0)),
        ("whole", whole, "ViTImageProcessor", ("bilinear", "squash", 1.0)),
    ] {
        let from = scratch.path().join(kind);
        std::fs::create_dir(&from).unwrap();
        for file in ["model.safetensors", "config.json"] {
            std::fs::copy(folder("hf-vit").join(file), from.join(file)).unwrap();
        }
        std::fs::write(from.join("preprocessor_config.json"), says.to_string()).unwrap();
        let ours = scratch.path().join(format!("{kind}.safetensors"));
        adapt(&from, &[], None, &ours).unwrap();
        for source in [&from, &ours] {
            let read = |out: &Path, file: &str| -> serde_json::Value {
                serde_json::from_slice(&std::fs::read(out.join(file)).unwrap()).unwrap()
            };
            let out = scratch.path().join("hf");
            export(source, Format::Transformers, &out).unwrap();
            let found = read(&out, "preprocessor_config.json");
            assert_eq!(found["image_processor_type"], processor, "{found}");
            for key in ["size", "resample", "image_mean", "image_std"] {
                assert_eq!(found[key], says[key], "{kind}: {key}");
            }
            assert_eq!(found["do_center_crop"], kind == "cropped");
            assert_eq!(found["crop_size"]["height"], 16);
            let timm = scratch.path().join("timm");
            export(source, Format::Timm, &timm).unwrap();
            let found = &read(&timm, "config.json")["pretrained_cfg"];
            assert_eq!(
                (found["interpolation"].as_str(), found["crop_mode"].as_str()),
                (Some(timm_says.0), Some(timm_says.1))
            );
            assert!((found["crop_pct"].as_f64().unwrap() - timm_says.2).abs() < 1e-9, "{found}");
            [out, timm].iter().for_each(|folder| std::fs::remove_dir_all(folder).unwrap());
        }
    }
}

#[test]
fn dinov2_and_dinov3_come_back_from_transformers_and_timm_as_they_went() {
    let scratch = tempfile::tempdir().unwrap();
    for (name, edits) in [
        ("hf-dinov2-registers", &[][..]),
        ("hf-dinov2-swiglu", &[]),
        ("timm-dinov2-registers", &[]),
        ("timm-dinov2-swiglu", &[]),
        ("hf-dinov3", &[]),
        ("hf-dinov3-swiglu-later", &[]),
        ("facebook-dinov3-swiglu", &["encoder.heads=2", "data.image_size=16", "encoder.rotary_base=100"]),
    ] {
        let edits: Vec<String> = edits.iter().map(|edit| (*edit).to_owned()).collect();
        let ours = scratch.path().join("ours.safetensors");
        adapt(&folder(name), &edits, None, &ours)
            .or_else(|_| adapt(&folder(name).join("model.safetensors"), &edits, None, &ours))
            .unwrap();
        let expected = Expected::of(name);
        for format in [Format::Transformers, Format::Timm] {
            let out = scratch.path().join("out");
            export(&ours, format, &out).unwrap_or_else(|error| panic!("{name} as {format:?}: {error}"));
            let back = LoadedWeights::at(&out).unwrap();
            expected.compare("features", &features(&back, name));
            // the names are those that the program itself wrote, and not others that are read too
            let own = if format == Format::Timm { "timm-" } else { "hf-" };
            if name.starts_with(own) && !name.ends_with("-later") {
                let [written, theirs] = [&out, &folder(name)].map(|folder| {
                    let file = WeightsFile::read(&folder.join("model.safetensors")).unwrap();
                    file.shapes().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
                });
                let unknown: Vec<&String> = written.iter().filter(|name| !theirs.contains(name)).collect();
                assert!(unknown.is_empty(), "{name}: {unknown:?} are no names of {own}");
            }
            std::fs::remove_dir_all(&out).unwrap();
        }
    }
}

/// Copies a fixture, changed, and returns the error of loading it.
fn error_of(name: &str, change: impl FnOnce(&Path)) -> Error {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    change(copy.path());
    match LoadedWeights::at(copy.path()) {
        Err(error) => error,
        Ok(weights) => weights.undecided.expect("it does not fit"),
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let config = |from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let path = folder.join("config.json");
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(path, text.replace(from, to)).unwrap();
        }
    };
    for (name, from, to, message) in [
        ("hf-vit", "\"hidden_size\": 16", "\"hidden_size\": 32", "`hidden_size` is 32, but that of the tensors is 16"),
        ("hf-vit", "\"image_size\": 16", "\"image_size\": 32", "`image_size` is 32"),
        ("hf-vit", "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"relu\"", "`hidden_act` is `relu`"),
        ("hf-vit", "{", "[", "is not JSON"),
        ("hf-beit", "\"num_attention_heads\": 4", "\"num_attention_heads\": 8", "`num_attention_heads` is 8"),
        ("hf-beit", "\"2\": \"cat\"", "\"2\": \"cat\", \"3\": \"dog\"", "names 4 classes, but the head has 3"),
        ("hf-swin", "\"embed_dim\": 8", "\"embed_dim\": 9", "`embed_dim` is 9"),
    ] {
        let error = error_of(name, config(from, to));
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.is_users_fault() && error.hint().is_some(), "{error}");
    }
    // nothing is said of sides, which the tensors tell too
    let copy = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(folder("hf-vit").join(name), copy.path().join(name)).unwrap();
    }
    config("\"image_size\": 16", "\"image_size\": []")(copy.path());
    LoadedWeights::at(copy.path()).unwrap();
    let error = error_of("timm-vit", |_| ());
    assert!(error.to_string().contains("how many heads"), "{error}");
    assert!(error.hint().unwrap().contains("--set encoder.heads=N"), "{error}");
    let truncated = |folder: &Path| {
        let path = folder.join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() - 8]).unwrap();
    };
    assert!(matches!(error_of("hf-swin", truncated), Error::NotWeights { .. }));
    let gone = |folder: &Path| std::fs::remove_file(folder.join("model-00002-of-00003.safetensors")).unwrap();
    assert!(error_of("hf-vit-sharded", gone).to_string().contains("model-00002-of-00003.safetensors"));
}
