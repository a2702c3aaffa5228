//! Parity with the official implementations on any device: reproduces every fixture in `testdata/parity` and in the folder
//! that the environment variable `SIMMIM_PARITY_DIR` names.
//!
//! A fixture of a kind that is not implemented is listed as ignored, with the reason.

#![allow(clippy::unwrap_used, reason = "a broken fixture may well panic, and says where")]

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use simmim::classifier::Classifier;
use simmim::encoders::{
    EncoderConfig, ForwardContext, Mlp, PositionBias, SwinConfig, SwinV2Config, VitConfig, WeightInit,
    resize_bias_table,
};
use simmim::masks::{self, Grid, Mask};
use simmim::model::{BatchMask, SimMim};
use simmim::recipe::{self, DecayGroups, FinetuneRecipe, ImageSize, Recipe, ScheduleKind, TargetKind, TargetRecipe};
use simmim::targets::{Colors, most_likely};
use simmim::tokenizer::{self, TokenizerConfig};
use simmim::train::{Schedule, groups};
use simmim::weights::Builder;
use simmim::weights::WeightsFile;
use simmim_engine::{
    Backend, Device, Images, Labels, Operations, OptimizerStep, ParameterTable, Precision, Slot, SoftLabels, StepSize,
};
use std::path::{Path, PathBuf};

/// Relative tolerance of losses; f64 runs of the official code differ by up to 1e-7.
const LOSS: f64 = 1e-5;
/// Tolerance of features and reconstruction, relative to the largest magnitude.
const OUTPUT: f64 = 5e-5;
/// Tolerance of a gradient tensor, relative to its largest magnitude.
const GRADIENT: f64 = 1e-4;
/// Smallest absolute tolerance of a gradient.
const GRADIENT_FLOOR: f64 = 1e-6;
/// Relative tolerance of losses and gradient norms over several steps.
const TRAJECTORY: f64 = 1e-4;

/// Reproduces all fixtures on a device.
pub(crate) fn run(device: impl Device + Send + 'static) {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/parity")];
    folders.extend(std::env::var_os("SIMMIM_PARITY_DIR").map(PathBuf::from));
    let trials = folders.iter().flat_map(|folder| trials(folder, &device)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// One test per fixture of a folder.
fn trials(folder: &Path, device: &(impl Device + Send + 'static)) -> Vec<Trial> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let is_fixture = |path: &PathBuf| path.extension().is_some_and(|e| e == "safetensors" || e == "json");
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).filter(is_fixture).collect();
    paths.sort();
    paths.into_iter().map(|path| trial(path, device.clone())).collect()
}

fn trial(path: PathBuf, device: impl Device + Send + 'static) -> Trial {
    let part = |p: Option<&std::ffi::OsStr>| p.unwrap_or_default().to_string_lossy().into_owned();
    let name = format!("{}/{}", part(path.parent().and_then(Path::file_name)), part(path.file_name()));
    match kind(&path) {
        Kind::Pretrain(config) => Trial::test(name, move || pretrain(&path, &config, &device)),
        Kind::Classify(config) => Trial::test(name, move || classify(&path, &config, &device)),
        Kind::BiasTables => Trial::test(name, move || bias_tables(&path)),
        Kind::Tokenizer(config) => Trial::test(name, move || tokenizer(&path, &config, &device)),
        Kind::Schedules => Trial::test(name, move || schedules(&path)),
        Kind::AvgDist => Trial::test(name, move || avg_dist(&path)),
        Kind::NotImplemented(what) => {
            let what = format!("{what} is not implemented");
            Trial::test(format!("{name}: {what}"), || Err(what.into())).with_ignored_flag(true)
        }
    }
}

enum Kind {
    Pretrain(Value),
    Classify(Value),
    BiasTables,
    Tokenizer(Value),
    Schedules,
    AvgDist,
    NotImplemented(String),
}

fn kind(path: &Path) -> Kind {
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    if path.extension().is_some_and(|e| e == "json") {
        return match stem {
            "avg_dist" => Kind::AvgDist,
            _ if stem.starts_with("rel_pos_bias_interpolation") => Kind::BiasTables,
            _ if stem.starts_with("lr_schedules") => Kind::Schedules,
            _ => Kind::NotImplemented(format!("`{stem}`")),
        };
    }
    let file = WeightsFile::read(path).unwrap_or_else(|e| panic!("{e}"));
    let config: Value = serde_json::from_str(&file.metadata()["config"]).expect("the config is JSON");
    let of = |key: &str| config[key].as_str().unwrap_or("?").to_owned();
    match (of("kind").as_str(), of("encoder").as_str()) {
        ("pretrain", "vit" | "swin" | "swinv2") => Kind::Pretrain(config),
        ("classify", "vit" | "swin" | "swinv2") => Kind::Classify(config),
        ("tokenizer", _) => Kind::Tokenizer(config),
        (kind, encoder) => Kind::NotImplemented(format!("kind `{kind}` with encoder `{encoder}`")),
    }
}

fn integer(config: &Value, key: &str) -> usize {
    config[key].as_u64().unwrap_or_else(|| panic!("`{key}` is {}", config[key])) as usize
}

fn integers(config: &Value, key: &str) -> Vec<usize> {
    config[key].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect()
}

fn number(config: &Value, key: &str) -> f64 {
    config[key].as_f64().unwrap_or_else(|| panic!("`{key}` is {}", config[key]))
}

/// The recipe of the model of a fixture.
fn recipe_of(config: &Value) -> Recipe {
    let mut recipe = recipe::resolve("pretrain-vit-cifar", &[]).unwrap();
    recipe.encoder = encoder_of(config);
    assert_eq!(integer(config, "encoder_stride"), recipe.encoder.stride_px());
    recipe.data.image_size = ImageSize::Square(integer(config, "img_size"));
    recipe.mask.unit_px = integer(config, "patch_size");
    if let Some(window_px @ 1..) = config["norm_target_patch"].as_u64() {
        recipe.target =
            TargetRecipe { window_px: Some(window_px as usize), ..TargetRecipe::of(TargetKind::NormalizedPixels) };
    }
    recipe
}

fn encoder_of(config: &Value) -> EncoderConfig {
    match config["encoder"].as_str().unwrap() {
        "vit" => vit(config),
        "swin" => EncoderConfig::Swin(swin(config)),
        "swinv2" => swin_v2(config),
        other => panic!("encoder `{other}` is not implemented"),
    }
}

fn vit(config: &Value) -> EncoderConfig {
    let is = |key: &str| config[key].as_bool().unwrap_or(false);
    EncoderConfig::Vit(VitConfig {
        registers: 0,
        norm_eps: 1e-6,
        patch_px: integer(config, "patch_size"),
        width: integer(config, "embed_dim"),
        depth: integer(config, "depth"),
        heads: integer(config, "num_heads"),
        mlp_ratio: number(config, "mlp_ratio"),
        mlp: Mlp::Gelu,
        rotary_base: 0.0,
        qkv_bias: config["qkv_bias"].as_bool().unwrap(),
        layer_scale: config["init_values"].as_f64().unwrap_or(0.0) as f32,
        init: WeightInit::Normal,
        absolute_positions: config["use_abs_pos_emb"].as_bool().unwrap(),
        position_bias: match (is("use_shared_rel_pos_bias"), is("use_rel_pos_bias")) {
            (true, _) => PositionBias::Shared,
            (false, true) => PositionBias::PerBlock,
            (false, false) => PositionBias::None,
        },
        drop_path: 0.0,
    })
}

fn swin(config: &Value) -> SwinConfig {
    SwinConfig {
        norm_eps: 1e-5,
        patch_px: integer(config, "patch_size"),
        width: integer(config, "embed_dim"),
        depths: integers(config, "depths"),
        heads: integers(config, "num_heads"),
        window: integer(config, "window_size"),
        mlp_ratio: number(config, "mlp_ratio"),
        qkv_bias: config["qkv_bias"].as_bool().unwrap(),
        patch_norm: config["patch_norm"].as_bool().unwrap(),
        absolute_positions: config["ape"].as_bool().unwrap(),
        drop_path: 0.0,
        init: WeightInit::Normal,
    }
}

fn swin_v2(config: &Value) -> EncoderConfig {
    let SwinConfig { patch_px, width, depths, heads, window, .. } = swin(config);
    let SwinConfig { mlp_ratio, qkv_bias, patch_norm, absolute_positions, drop_path, init, .. } = swin(config);
    EncoderConfig::SwinV2(SwinV2Config {
        norm_eps: 1e-5,
        pretrained_window_size: match config["pretrained_window_size"].as_u64() {
            Some(side) => vec![side as usize; depths.len()],
            None => Vec::new(),
        },
        patch_px,
        width,
        depths,
        heads,
        window,
        mlp_ratio,
        qkv_bias,
        patch_norm,
        absolute_positions,
        extra_norm_every: 0,
        drop_path,
        init,
    })
}

/// The model of a fixture, with the fixture's parameters, input and mask.
struct Fixture<B> {
    file: WeightsFile,
    model: SimMim,
    backend: B,
    input: Vec<f32>,
    shape: Vec<usize>,
    mask: BatchMask,
}

/// Loss and gradients of a step.
struct Found {
    loss: f64,
    /// One over the denominator of the loss and of all gradients.
    scale: f64,
    gradients: Vec<f32>,
}

impl Found {
    fn norm(&self) -> f64 {
        self.gradients.iter().map(|g| (*g as f64).powi(2)).sum::<f64>().sqrt()
    }
}

impl<B: Backend> Fixture<B> {
    fn new<D: Device<Backend = B>>(path: &Path, recipe: &Recipe, device: &D, precision: Precision) -> Self {
        let file = WeightsFile::read(path).unwrap();
        let mut builder = Builder::default();
        let colors = Colors::unknown(recipe.data.channels);
        let model = SimMim::new(recipe, &colors, device, &mut builder).unwrap();
        let backend = open(&file, builder, device, precision);
        let (shape, input) = file.tensor("input").unwrap().unwrap();
        let (mask_shape, mask) = file.tensor("mask").unwrap().unwrap();
        let grid = Grid { rows: mask_shape[1], columns: mask_shape[2] };
        let mask_of = |m: &[f32]| Mask::new(grid, m.iter().map(|v| *v != 0.0).collect());
        let masks: Vec<Mask> = mask.chunks(grid.cells()).map(mask_of).collect();
        let mask = model.batch_mask(&masks);
        Self { file, model, backend, input, shape, mask }
    }

    fn images(&self) -> Images<'_> {
        let [count, channels, height, width] = self.shape[..] else { panic!("input is {:?}", self.shape) };
        Images { pixels: &self.input, count, channels, height, width }
    }

    fn expected(&self, name: &str) -> Vec<f32> {
        self.file.tensor(name).unwrap().unwrap_or_else(|| panic!("the fixture has no `{name}`")).1
    }

    /// Computes loss and gradients; the backend keeps the gradients of the undivided sum.
    fn backward(&self) -> Found {
        self.backend.clear_gradients();
        self.backend.start(true);
        let mask = self.mask.all();
        let loss = self.model.loss(&self.backend, &self.images(), &mask, &mut ForwardContext::evaluate());
        let scale = 1.0 / self.model.denominator(loss.weight);
        self.backend.backward(&loss.sum);
        let gradients = scaled(&self.backend.read_slot(Slot::Gradients), scale);
        Found { loss: self.backend.read(&loss.sum)[0] as f64 * scale, scale, gradients }
    }
}

/// A backend with the parameters of a fixture.
fn open<D: Device>(file: &WeightsFile, builder: Builder, device: &D, precision: Precision) -> D::Backend {
    let (table, _) = builder.finish();
    let theirs = file.shapes().iter().filter(|(name, _)| name.starts_with("param.")).count();
    assert_eq!(table.iter().len(), theirs, "both models have the same number of parameters");
    let backend = device.open(table, precision);
    file.load(backend.table(), "param.", |id, values| backend.write_parameter(Slot::Values, id, values)).unwrap();
    backend
}

fn scaled(gradients: &[f32], scale: f64) -> Vec<f32> {
    gradients.iter().map(|g| (*g as f64 * scale) as f32).collect()
}

/// Compares every gradient of a model with the fixture.
fn gradients_are_near(file: &WeightsFile, table: &ParameterTable, gradients: &[f32]) -> Result<(), Failed> {
    for p in table.iter() {
        let name = format!("grad.{}", p.name);
        let (_, expected) = file.tensor(&name).unwrap().unwrap_or_else(|| panic!("the fixture has no `{name}`"));
        near(&name, &gradients[p.range.clone()], &expected, GRADIENT, GRADIENT_FLOOR)?;
    }
    Ok(())
}

fn pretrain(path: &Path, config: &Value, device: &impl Device) -> Result<(), Failed> {
    let recipe = recipe_of(config);
    let f = Fixture::new(path, &recipe, device, Precision::F32);

    f.backend.start(false);
    let (mask, images) = (f.mask.all(), f.images());
    let features = f.model.features(&f.backend, &images, mask.patches, &mut ForwardContext::evaluate());
    let features = channels_first(&f.backend.read(&features), &f.backend.shape(&features));
    near("features", &features, &f.expected("features"), OUTPUT, 0.0)?;
    let reconstruction = f.model.predictions(&f.backend, &images, mask.patches);
    near("reconstruction", &reconstruction, &f.expected("reconstruction"), OUTPUT, 0.0)?;

    let found = f.backward();
    relative("loss", found.loss, f.expected("loss")[0] as f64, LOSS)?;
    relative("gradient norm", found.norm(), f.expected("grad_norm")[0] as f64, TRAJECTORY)?;
    gradients_are_near(&f.file, f.backend.table(), &found.gradients)?;
    decay_groups(&f, config)?;
    trajectory(&f, config)?;
    half_precision(path, &recipe, device, &found)
}

/// Compares the parameters without weight decay with the official list.
fn decay_groups<B: Backend>(f: &Fixture<B>, config: &Value) -> Result<(), Failed> {
    let decays = groups::decays(f.backend.table(), f.model.encoder(), DecayGroups::Official);
    let exempt = f.backend.table().iter().zip(&decays).filter(|(_, d)| !**d);
    let mut ours: Vec<&str> = exempt.map(|(p, _)| p.name.as_str()).collect();
    let listed = config["no_weight_decay"].as_array().unwrap();
    let mut theirs: Vec<&str> = listed.iter().map(|v| v.as_str().unwrap()).collect();
    ours.sort_unstable();
    theirs.sort_unstable();
    if ours != theirs {
        return Err(format!("parameters without decay: {ours:?}, officially {theirs:?}").into());
    }
    Ok(())
}

/// Compares losses and gradient norms over several AdamW steps on the same batch.
fn trajectory<B: Backend>(f: &Fixture<B>, config: &Value) -> Result<(), Failed> {
    let optimizer = &config["optimizer"];
    let (losses, norms) = (f.expected("trajectory.loss"), f.expected("trajectory.grad_norm"));
    let decays = groups::decays(f.backend.table(), f.model.encoder(), DecayGroups::Official);
    let (lr, decay) = (number(optimizer, "lr") as f32, number(optimizer, "weight_decay") as f32);
    let step = |d: &bool| StepSize { lr, weight_decay: if *d { decay } else { 0.0 } };
    let step_sizes: Vec<StepSize> = decays.iter().map(step).collect();
    for i in 0..integer(optimizer, "steps") {
        let found = f.backward();
        relative(&format!("loss of step {}", i + 1), found.loss, losses[i] as f64, TRAJECTORY)?;
        let norm = f.backend.step(&OptimizerStep {
            number: i as u64 + 1,
            betas: (0.9, 0.999),
            eps: number(optimizer, "eps") as f32,
            gradient_scale: found.scale,
            clip_norm: Some(number(optimizer, "clip_grad")),
            step_sizes: &step_sizes,
        });
        let norm = f.backend.read(&norm)[0] as f64;
        // if a residual is zero within rounding, the sign of its L1 gradient is arbitrary: in the fifth step of SwinV2,
        // a difference of 8e-7 in one pixel changes the norm by 6e-3 and the loss not at all
        relative(&format!("gradient norm of step {}", i + 1), norm, norms[i] as f64, 2e-2)?;
    }
    Ok(())
}

/// Compares bf16 with f32: the loss is within 1 %, and the cosine similarity of the gradients is at least 0.99.
fn half_precision(path: &Path, recipe: &Recipe, device: &impl Device, whole: &Found) -> Result<(), Failed> {
    let rounded = Fixture::new(path, recipe, device, Precision::Bf16).backward();
    relative("loss in bf16", rounded.loss, whole.loss, 0.01)?;
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>();
    let cosine = dot(&whole.gradients, &rounded.gradients) / (whole.norm() * rounded.norm());
    if cosine < 0.99 {
        return Err(format!("the bf16 gradient's cosine to the f32 one is {cosine}").into());
    }
    Ok(())
}

/// Compares logits and tokens of the encoder of a discrete VAE.
fn tokenizer(path: &Path, config: &Value, device: &impl Device) -> Result<(), Failed> {
    let file = WeightsFile::read(path).unwrap();
    let expected = |name: &str| file.tensor(name).unwrap().unwrap_or_else(|| panic!("the fixture has no `{name}`"));
    let (shape, input) = expected("input");
    let [count, channels, height, width] = shape[..] else { panic!("input is {shape:?}") };
    let images = Images { pixels: &input, count, channels, height, width };
    let vocabulary = integer(config, "vocab_size");
    let sizes = TokenizerConfig {
        channels,
        vocabulary,
        width: integer(config, "n_hid"),
        groups: integer(config, "group_count"),
        blocks_per_group: integer(config, "n_blk_per_group"),
        token_width: 1, // the fixture has no decoder
    };
    let mut builder = Builder::default();
    let encoder = tokenizer::Encoder::new(&sizes, &mut builder);
    let backend = open(&file, builder, device, Precision::F32);
    let scores = encoder.scores(&backend, &tokenizer::mapped(&backend, &images));
    let shape = backend.shape(&scores);
    assert_eq!(shape, [count, height / sizes.stride_px(), width / sizes.stride_px(), vocabulary]);
    let scores = backend.read(&scores);
    let planes = channels_first(&scores, &[count, shape[1] * shape[2], vocabulary]);
    near("logits", &planes, &expected("logits").1, OUTPUT, 0.0)?;
    let tokens = most_likely(&scores, vocabulary);
    let theirs: Vec<u32> = expected("tokens").1.iter().map(|token| *token as u32).collect();
    if tokens != theirs {
        return Err(format!("tokens are {tokens:?}, officially {theirs:?}").into());
    }
    Ok(())
}

/// `[B, N, D]` to `[B, D, N]`.
fn channels_first(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let (tokens, width) = (shape[1], shape[2]);
    let image = |image: &[f32]| (0..tokens * width).map(|i| image[i % tokens * width + i / tokens]).collect::<Vec<_>>();
    values.chunks(tokens * width).flat_map(image).collect()
}

/// Compares logits, loss, gradients and parameter groups of a classifier.
fn classify(path: &Path, config: &Value, device: &impl Device) -> Result<(), Failed> {
    let file = WeightsFile::read(path).unwrap();
    let expected = |name: &str| file.tensor(name).unwrap().unwrap_or_else(|| panic!("the fixture has no `{name}`"));
    let (shape, input) = expected("input");
    let [count, channels, height, width] = shape[..] else { panic!("input is {shape:?}") };
    let images = Images { pixels: &input, count, channels, height, width };
    let ((_, target), (_, loss)) = (expected("target"), expected("loss"));

    let mut builder = Builder::default();
    let classes = integer(config, "num_classes");
    let mut recipe: FinetuneRecipe = recipe::resolve_as("finetune-vit-cifar", &[]).unwrap();
    recipe.encoder = encoder_of(config);
    recipe.data.image_size = ImageSize::HeightWidth(height, width);
    recipe.data.channels = channels;
    let model = Classifier::new(&recipe, classes, &mut builder).unwrap();
    let b = open(&file, builder, device, Precision::F32);

    b.start(false);
    let logits = b.read(&model.logits(&b, &images, &mut ForwardContext::evaluate()));
    near("logits", &logits, &expected("logits").1, OUTPUT, 0.0)?;
    b.start(true);
    let weight = vec![1.0; target.len()];
    let labels = SoftLabels { labels: Labels::One, target: &target, weight: &weight };
    let ours = model.loss(&b, &images, &labels, &mut ForwardContext::evaluate());
    relative("loss", b.read(&ours.sum)[0] as f64 / ours.weight, loss[0] as f64, LOSS)?;
    b.backward(&ours.sum);
    let gradients = scaled(&b.read_slot(Slot::Gradients), 1.0 / ours.weight);
    gradients_are_near(&file, b.table(), &gradients)?;

    let decays = groups::decays(b.table(), model.encoder(), DecayGroups::Official);
    let scales = groups::lr_scales(b.table(), model.encoder(), number(config, "layer_decay"));
    for ((p, decays), scale) in b.table().iter().zip(decays).zip(scales) {
        let official = &config["param_groups"][&p.name];
        relative(&format!("rate of {}", p.name), scale, number(official, "lr_scale"), 1e-12)?;
        if decays != (number(official, "weight_decay") > 0.0) {
            return Err(format!("{} decays: {decays}, officially {official}", p.name).into());
        }
    }
    Ok(())
}

/// Compares relative position bias tables resized to another window.
fn bias_tables(path: &Path) -> Result<(), Failed> {
    let text = std::fs::read_to_string(path).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let rows = |table: &Value| -> Vec<f32> {
        let rows = table.as_array().unwrap().iter();
        rows.flat_map(|row| row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32)).collect()
    };
    for case in &cases {
        let offsets = |key: &str| 2 * integer(case, key) - 1;
        let (from, to) = (offsets("src_window"), offsets("dst_window"));
        let resized = resize_bias_table(&rows(&case["table"]), (from, from), (to, to));
        near(&format!("{from} to {to} offsets"), &resized, &rows(&case["expected"]), 1e-5, 0.0)?;
    }
    Ok(())
}

fn schedules(path: &Path) -> Result<(), Failed> {
    let text = std::fs::read_to_string(path).unwrap();
    let curves: Vec<Value> = serde_json::from_str(&text).unwrap();
    for curve in &curves {
        let per_epoch = integer(curve, "iters_per_epoch") as u64;
        let epochs = |key: &str| integer(curve, key) as u64 * per_epoch;
        let milestones = curve["multisteps"].as_array().unwrap().iter().map(|m| m.as_u64().unwrap() * per_epoch);
        let (kind, factor) = match curve["name"].as_str().unwrap() {
            "cosine" => (ScheduleKind::Cosine, "gamma"),
            "linear" => (ScheduleKind::Linear, "gamma"),
            "step" => (ScheduleKind::Step, "decay_rate"),
            "multistep" => (ScheduleKind::Multistep, "gamma"),
            other => return Err(format!("schedule `{other}` is not implemented").into()),
        };
        let schedule = Schedule {
            kind,
            peak_lr: number(curve, "base_lr"),
            warmup_lr: number(curve, "warmup_lr"),
            min_lr: number(curve, "min_lr"),
            warmup_steps: epochs("warmup_epochs"),
            total_steps: epochs("epochs"),
            milestones: milestones.collect(),
            decay_every_steps: epochs("decay_epochs"),
            decay_factor: number(curve, factor),
        };
        let rows = curve["updates_done"].as_array().unwrap().iter().zip(curve["lr"].as_array().unwrap());
        for (t, lr) in rows {
            let what = format!("{} at {t}", curve["name"]);
            relative(&what, schedule.lr(t.as_u64().unwrap()), lr.as_f64().unwrap(), 1e-12)?;
        }
    }
    Ok(())
}

fn avg_dist(path: &Path) -> Result<(), Failed> {
    let text = std::fs::read_to_string(path).unwrap();
    let masks: Vec<Value> = serde_json::from_str(&text).unwrap();
    for mask in &masks {
        let (width, unit_px) = (integer(mask, "width"), integer(mask, "mask_patch_size"));
        let grid = Grid { rows: integer(mask, "height") / unit_px, columns: width / unit_px };
        let cells = mask["cells"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
        let pixels = Mask::new(grid, cells.map(|cell| cell.as_u64() == Some(1)).collect()).refined(unit_px);
        let found = masks::avg_dist(pixels.hidden(), width).ok_or("the mask has no distance")?;
        relative(&format!("unit {unit_px} px, {grid:?}"), found, number(mask, "avg_dist"), 1e-12)?;
    }
    Ok(())
}

fn relative(what: &str, got: f64, expected: f64, tolerance: f64) -> Result<(), Failed> {
    if (got - expected).abs() <= tolerance * expected.abs() {
        return Ok(());
    }
    Err(format!("{what}: got {got}, expected {expected}").into())
}

/// Checks that every value is within `tolerance` times the largest expected magnitude, or within `floor`.
fn near(what: &str, got: &[f32], expected: &[f32], tolerance: f64, floor: f64) -> Result<(), Failed> {
    if got.len() != expected.len() {
        return Err(format!("{what}: {} values, expected {}", got.len(), expected.len()).into());
    }
    let largest = expected.iter().fold(0.0, |m: f64, v| m.max(v.abs() as f64));
    let allowed = (tolerance * largest).max(floor);
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let off = (*g as f64 - *e as f64).abs();
        if off.is_nan() || off > allowed {
            return Err(format!("{what} at {i}: got {g}, expected {e}, off by {off:.2e}, allowed {allowed:.2e}").into());
        }
    }
    Ok(())
}
