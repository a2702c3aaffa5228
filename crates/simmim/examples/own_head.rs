//! Trains a custom head on an encoder: it predicts the mean brightness of each patch.

use simmim::encoders::{Encode, Encoder, ForwardContext, NeededFeatures, Role, VisibleTokens};
use simmim::recipe::resolve;
use simmim::weights::{Builder, Init, initialize};
use simmim_cpu::CpuDevice;
use simmim_data::Purpose;
use simmim_data::rng::{normal, rng};
use simmim_engine::{Backend, Device, Distance, Operations, OptimizerStep, Precision, Regression, StepSize};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let edits = ["encoder.depth=2", "encoder.width=48"].map(str::to_owned);
    let recipe = resolve("pretrain-vit-cifar", &edits)?;
    let data = &recipe.data;
    let (side, patch, images) = (32, recipe.encoder.patch_px(), 8);

    let mut builder = Builder::default();
    let encoder = Encoder::new(&recipe.encoder, Role::Pretrain, (side, side), data.channels, &mut builder)?;
    let head = builder.linear("brightness", 1, encoder.spec().out_width, Init::Uniform { bound: 0.1 });
    let (table, inits) = builder.finish();
    let step_sizes = vec![StepSize { lr: 1e-3, weight_decay: 0.0 }; table.iter().len()];
    let b = CpuDevice { threads: 2 }.open(table, Precision::F32);
    initialize(&b, &inits, 0);

    let mut noise = rng(0, Purpose::Augment, 0, 0);
    let pixels: Vec<f32> = (0..images * data.channels * side * side).map(|_| normal(&mut noise) as f32).collect();
    let brightness = |row: usize| {
        let patches = (side / patch).pow(2);
        let (image, top, left) = (row / patches, row % patches / (side / patch) * patch, row % (side / patch) * patch);
        let inside = (0..data.channels * patch * patch).map(|i| {
            let (channel, y, x) = (i / (patch * patch), top + i / patch % patch, left + i % patch);
            pixels[((image * data.channels + channel) * side + y) * side + x]
        });
        inside.sum::<f32>() / (data.channels * patch * patch) as f32
    };
    let target: Vec<f32> = (0..images * (side / patch).pow(2)).map(brightness).collect();
    let weight = vec![1.0; target.len()];

    for number in 1..=30 {
        b.clear_gradients();
        b.start(true);
        let tokens = encoder.embed(&b, &data.images(&pixels));
        let features =
            encoder.encode(&b, tokens, VisibleTokens::All, NeededFeatures::All, &mut ForwardContext::evaluate()); // [B, h·w, D']
        let prediction = b.reshape(&b.linear(&features, &head), &[target.len(), 1]);
        let loss = Regression { distance: Distance::L2, target: &target, weight: &weight, channels: 1 };
        let sum = b.regression(&prediction, &loss);
        b.backward(&sum);
        let gradient_scale = 1.0 / target.len() as f64;
        let betas = (0.9, 0.999);
        let norm = b.step(&OptimizerStep {
            number,
            betas,
            eps: 1e-8,
            gradient_scale,
            clip_norm: Some(5.0),
            step_sizes: &step_sizes,
        });
        if number % 10 == 0 {
            let loss = b.read(&sum)[0] as f64 * gradient_scale;
            println!("step {number}: mean squared error {loss:.5}, gradient norm {:.4}", b.read(&norm)[0]);
        }
    }
    Ok(())
}
