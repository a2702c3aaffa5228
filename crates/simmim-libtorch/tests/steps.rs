//! What crosses between host and device in a training step, and what the host waits for: the copies that are named here, and
//! nothing else.

#![allow(clippy::unwrap_used, reason = "a recipe of the program's own is valid")]

use simmim::encoders::ForwardContext;
use simmim::masks::{Grid, Mask};
use simmim::model::SimMim;
use simmim::recipe;
use simmim::targets::Colors;
use simmim::weights::{Builder, initialize};
use simmim_engine::{Backend, Device, Images, Operations, OptimizerStep, Precision, StepSize};
use simmim_libtorch::{LibtorchDevice, Transfers, count_operators};

/// Operators of libtorch whose result the host waits for.
const WAITING: [&str; 6] =
    ["aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::unique2"];

/// What a step does.
#[derive(Debug, PartialEq)]
struct Counted {
    /// Copies of a forward and a backward pass.
    passes: Transfers,
    /// Copies of the optimizer's step.
    step: Transfers,
    /// Calls in the passes that the host waits for.
    waiting_in_passes: u64,
}

/// Counts what the second step of a recipe does; the first uploads what depends on the shape alone.
fn count(name: &str, edits: &[&str]) -> Counted {
    let edits: Vec<String> = edits.iter().map(|edit| (*edit).to_owned()).collect();
    let recipe = recipe::resolve(name, &edits).unwrap();
    let device = std::env::var("SIMMIM_LIBTORCH_DEVICE").unwrap_or("libtorch-cpu".into());
    let device = LibtorchDevice::new(&device, 1).unwrap();
    let mut builder = Builder::default();
    let model = SimMim::new(&recipe, &Colors::unknown(3), &device, &mut builder).unwrap();
    let (table, inits) = builder.finish();
    let step_sizes = vec![StepSize { lr: 1e-4, weight_decay: 0.05 }; table.iter().len()];
    let b = device.open(table, Precision::Bf16);
    initialize(&b, &inits, 0);
    let (height, width) = recipe.data.image_size.height_and_width();
    let pixels: Vec<f32> = (0..2 * 3 * height * width).map(|i| (i * 7 % 31) as f32 / 16.0 - 1.0).collect();
    let images = Images { pixels: &pixels, count: 2, channels: 3, height, width };
    let side = height / recipe.encoder.patch_px();
    let grid = Grid { rows: side, columns: side };
    let half = Mask::new(grid, (0..side * side).map(|cell| cell % 2 == 0).collect());
    let mask = model.batch_mask(&[half.clone(), half]);
    let passes = || {
        b.clear_gradients();
        b.start(true);
        let loss = model.loss(&b, &images, &mask.all(), &mut ForwardContext::evaluate());
        b.backward(&loss.sum);
        loss.sum
    };
    let step = |number| {
        b.step(&OptimizerStep {
            number,
            betas: (0.9, 0.999),
            eps: 1e-8,
            gradient_scale: 1e-3,
            clip_norm: Some(5.0),
            step_sizes: &step_sizes,
        })
    };
    passes();
    step(1);
    let between = |before: Transfers, after: Transfers| Transfers {
        uploads: after.uploads - before.uploads,
        downloads: after.downloads - before.downloads,
    };
    let start = b.transfers();
    let (loss, operators) = count_operators(passes);
    let passed = b.transfers();
    let norm = step(2);
    let stepped = b.transfers();
    assert!(b.read(&loss)[0].is_finite() && b.read(&norm)[0] > 0.0);
    assert!(operators.iter().any(|operator| operator.name == "aten::linear" && operator.count > 4), "{operators:?}");
    let waits =
        operators.iter().filter(|operator| WAITING.contains(&operator.name.as_str())).map(|operator| operator.count);
    Counted { passes: between(start, passed), step: between(passed, stepped), waiting_in_passes: waits.sum() }
}

// one test, since operators are counted in all threads
#[test]
fn a_step_copies_images_masks_and_targets_to_the_device_and_waits_for_nothing() {
    // images, hidden tokens, targets, weights of the loss; and for the predicted tokens the rows to pick, those that undo it,
    // and which of these are zeros
    let vit = count("pretrain-vit-cifar", &["encoder.depth=2", "encoder.width=48", "encoder.heads=2"]);
    let none = Transfers { uploads: 0, downloads: 0 };
    let uploads = |uploads| Transfers { uploads, downloads: 0 };
    assert_eq!(vit, Counted { passes: uploads(7), step: none, waiting_in_passes: 0 });

    let edits = ["encoder.depths=[1,1]", "encoder.heads=[2,4]", "encoder.width=24"];
    let swin = count("pretrain-swin-t-192", &edits);
    assert_eq!(swin.waiting_in_passes, 0);
    assert_eq!((swin.passes.downloads, swin.step), (0, none));
    // SwinV2 has the offsets of each block's windows too
    let swin_v2 = count("pretrain-swinv2-t-192", &edits);
    assert_eq!(swin_v2, Counted { passes: uploads(swin.passes.uploads + 2), ..swin });
}
