//! Every head with every target on ViT and Swin: gradients, and training on photos.

#![allow(clippy::unwrap_used, reason = "a test says where it fails")]

use simmim::encoders::ForwardContext;
use simmim::masks::{Grid, Mask, strategy};
use simmim::model::{BatchMask, SimMim};
use simmim::recipe::{HeadKind, Recipe, resolve};
use simmim::targets::{Colors, Palette};
use simmim::tokenizer::{DiscreteVae, TOKENIZER_FILE, TokenizerConfig};
use simmim::weights;
use simmim::weights::{Builder, initial_values, initialize};
use simmim_cpu::{Cpu, CpuDevice};
use simmim_data::rng::{rng, uniform_between};
use simmim_data::{Augmentation, Image, Normalization, Purpose, RandomResizedCrop, Source, Transform};
use simmim_engine::{Backend, Device, Images, Operations, OptimizerStep, Precision, Reference, Slot, StepSize};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::LazyLock;
use tempfile::TempDir;

const DEVICE: CpuDevice = CpuDevice { threads: 1 };
const IMAGES: usize = 6;
const SIDE_PX: usize = 16;

/// A name for each target, and its edits.
const TARGETS: &[(&str, &[&str])] = &[
    ("pixels", &[]),
    ("pixels in l2", &["loss.kind=l2"]),
    ("coarse pixels in smooth l1", &["target.resolution=4", "loss.kind=smooth-l1"]),
    ("pixels of everything", &["loss.scope=all", "loss.visible_weight=0.25"]),
    ("pixels normalized by window", &["target.kind=normalized-pixels", "target.window_px=15"]),
    ("pixels normalized by patch", &["target.kind=normalized-pixels", "target.normalize=patch"]),
    ("color bins", &["target.kind=color-bins", "target.resolution=8"]),
    ("color clusters", &["target.kind=color-clusters", "target.clusters=16", "target.resolution=4"]),
    ("mean color", &["target.kind=mean-color"]),
    ("hog", &["target.kind=hog"]),
    ("tokens", &["target.kind=tokens", "target.resolution=4"]),
];

/// A run folder with an untrained tokenizer of 4 px, whose tokens can be learned as well as any.
static TOKENIZER: LazyLock<TempDir> = LazyLock::new(|| {
    let config =
        TokenizerConfig { channels: 3, vocabulary: 16, width: 8, groups: 3, blocks_per_group: 1, token_width: 8 };
    let mut builder = Builder::default();
    DiscreteVae::new(config, &mut builder);
    let (table, inits) = builder.finish();
    let folder = tempfile::tempdir().unwrap();
    let values = initial_values(&table, &inits, 3);
    weights::save(&folder.path().join(TOKENIZER_FILE), &table, &[("", &values)], HashMap::new()).unwrap();
    folder
});

/// The photos, decoded once.
static PHOTOS: LazyLock<Vec<Image>> = LazyLock::new(|| {
    let source = photos();
    (0..source.len()).map(|i| source.get(i).unwrap().image).collect()
});

fn photos() -> Arc<dyn Source> {
    simmim_data::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/images"), 3).unwrap()
}

const ENCODERS: &[(&str, &[&str])] = &[
    (
        "pretrain-vit-cifar",
        &["encoder.width=16", "encoder.depth=1", "encoder.heads=2", "encoder.patch_px=8", "mask.unit_px=8"],
    ),
    (
        "pretrain-swin-cifar",
        &["encoder.width=8", "encoder.depths=[1, 1]", "encoder.heads=[1, 2]", "encoder.patch_px=4"],
    ),
];

/// A small model with initial parameters, images and masks.
struct Case {
    model: SimMim,
    recipe: Recipe,
    backend: Cpu,
    pixels: Vec<f32>,
    mask: BatchMask,
}

impl Case {
    fn new(encoder: &(&str, &[&str]), head: HeadKind, target: &[&str]) -> Self {
        let inverse = matches!(head, HeadKind::InverseSwinT | HeadKind::InverseSwinB);
        let sizes = [format!("data.image_size={SIDE_PX}"), format!("head.kind={}", head.name())];
        let small = inverse.then(|| "head.width=4".to_owned());
        let edits: Vec<String> = encoder.1.iter().chain(target).map(|edit| (*edit).to_owned()).collect();
        let tokenizer = target
            .contains(&"target.kind=tokens")
            .then(|| format!("target.tokenizer={:?}", TOKENIZER.path().to_str().unwrap()));
        let edits: Vec<String> = sizes.into_iter().chain(small).chain(tokenizer).chain(edits).collect();
        let recipe = resolve(encoder.0, &edits).unwrap();
        let palette = Palette::for_recipe(&recipe, photos().as_ref(), 0).unwrap();
        let colors = Colors { normalization: Normalization::imagenet(), palette };

        let mut builder = Builder::default();
        let model = SimMim::new(&recipe, &colors, &DEVICE, &mut builder).unwrap();
        let (table, inits) = builder.finish();
        let backend = DEVICE.open(table, Precision::F32);
        initialize(&backend, &inits, 0);

        let crop = RandomResizedCrop { scale: (0.3, 1.0), ratio: (0.75, 1.33), hflip: 0.5 };
        let augmentation = Augmentation::RandomResizedCrop(crop);
        let transform =
            Transform { height: SIDE_PX, width: SIDE_PX, augmentation, normalization: colors.normalization };
        let mut pixels = vec![0.0; IMAGES * transform.values()];
        for (i, image) in pixels.chunks_exact_mut(transform.values()).enumerate() {
            transform.apply(&PHOTOS[i % PHOTOS.len()], &mut rng(0, Purpose::Augment, 0, i as u64), image);
        }
        let grid = Grid { rows: SIDE_PX / recipe.mask.unit_px, columns: SIDE_PX / recipe.mask.unit_px };
        let mask = strategy(&recipe.mask);
        let masks: Vec<Mask> =
            (0..IMAGES).map(|i| mask.sample(&mut rng(0, Purpose::Mask, 0, i as u64), grid)).collect();
        let mask = model.batch_mask(&masks);
        Self { model, recipe, backend, pixels, mask }
    }

    fn loss<B: Operations>(&self, b: &B) -> B::Tensor {
        let pixels = &self.pixels;
        let images = Images { pixels, count: IMAGES, channels: 3, height: SIDE_PX, width: SIDE_PX };
        self.model.loss(b, &images, &self.mask.all(), &mut ForwardContext::evaluate()).sum
    }

    /// The denominator of the loss.
    fn denominator(&self) -> f64 {
        self.model.denominator(self.mask.all().weight())
    }

    /// Computes the loss; the gradients of its sum are in the backend.
    fn backward(&self) -> f64 {
        self.backend.clear_gradients();
        self.backend.start(true);
        let loss = self.loss(&self.backend);
        self.backend.backward(&loss);
        self.backend.read(&loss)[0] as f64 / self.denominator()
    }

    fn step(&self, number: u64) {
        self.backend.step(&OptimizerStep {
            number,
            betas: (0.9, 0.999),
            eps: 1e-8,
            gradient_scale: 1.0 / self.denominator(),
            clip_norm: Some(1.0),
            step_sizes: &vec![StepSize { lr: 3e-3, weight_decay: 0.0 }; self.backend.table().iter().len()],
        });
    }
}

/// Checks that the loss falls over 50 steps on the same photos.
fn trains(encoder: &(&str, &[&str]), head: HeadKind, target: &(&str, &[&str])) {
    let case = Case::new(encoder, head, target.1);
    let mut losses = Vec::new();
    for number in 1..=50 {
        losses.push(case.backward());
        case.step(number);
    }
    let what = format!("{} on {} with head {}", target.0, encoder.0, head.name());
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let parts: Vec<f64> = losses.chunks(10).map(mean).collect();
    assert!(losses.iter().all(|loss| loss.is_finite()), "{what}: {losses:?}");
    assert!(parts[4] < 0.95 * parts[0], "{what}: means of ten losses {parts:?}");
}

#[test]
fn every_head_learns_every_target_on_vit() {
    for head in HeadKind::ALL {
        TARGETS.iter().for_each(|target| trains(&ENCODERS[0], head, target));
    }
}

#[test]
fn every_head_learns_every_target_on_swin() {
    for head in HeadKind::ALL {
        TARGETS.iter().for_each(|target| trains(&ENCODERS[1], head, target));
    }
}

/// Compares the gradient with a finite difference of the f64 reference, along a random direction in the parameters of
/// the encoder and of the head.
fn has_the_slope_of_the_reference(encoder: &(&str, &[&str]), head: HeadKind, target: &(&str, &[&str])) {
    // L1 is not differentiable where an error is zero, where precisions differ, so it is checked only for plain pixels
    let edits = target.1.iter().copied().chain((target.0 != "pixels").then_some("loss.kind=l2"));
    let case = Case::new(encoder, head, &edits.collect::<Vec<_>>());
    case.backward();
    let scale = 1.0 / case.denominator();
    let gradients: Vec<f64> = case.backend.read_slot(Slot::Gradients).iter().map(|g| *g as f64 * scale).collect();
    let values: Vec<f64> = case.backend.read_slot(Slot::Values).iter().map(|v| *v as f64).collect();
    for part in ["encoder.", "decoder."] {
        let mut rng = rng(1, Purpose::Initialize, 0, 0);
        let mut direction = vec![0.0; values.len()];
        for parameter in case.backend.table().iter().filter(|p| p.name.starts_with(part)) {
            direction[parameter.range.clone()].fill_with(|| uniform_between(&mut rng, -1.0, 1.0));
        }
        let step = 1e-7; // small compared to the errors, so that none of them changes its sign
        let at = |by: f64| {
            let moved = values.iter().zip(&direction).map(|(v, d)| v + by * d).collect();
            let reference = Reference::new(case.backend.table().clone(), moved);
            case.loss(&reference).data()[0] * scale
        };
        let expected = (at(step) - at(-step)) / (2.0 * step);
        let products = gradients.iter().zip(&direction).map(|(g, d)| g * d);
        let (slope, size) = products.fold((0.0, 0.0), |(sum, squares), p| (sum + p, squares + p * p));
        let what = format!("{} on {} with head {}, {part}", target.0, encoder.0, case.recipe.head.kind.name());
        // rounding of f32, relative to the size of the terms of the sum
        assert!((slope - expected).abs() < 1e-3 * size.sqrt() + 1e-6, "{what}: {slope}, expected {expected}");
    }
}

#[test]
fn every_target_has_the_gradient_of_the_reference() {
    for encoder in ENCODERS {
        TARGETS.iter().for_each(|target| has_the_slope_of_the_reference(encoder, HeadKind::Linear, target));
    }
}

#[test]
fn every_head_has_the_gradient_of_the_reference() {
    for head in HeadKind::ALL {
        for target in [&TARGETS[0], &TARGETS[7]] {
            has_the_slope_of_the_reference(&ENCODERS[0], head, target);
        }
    }
}
