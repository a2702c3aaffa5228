//! Extracts feature maps of several blocks of an encoder in one pass. The encoder here is randomly initialized;
//! `FrozenEncoder::load(&InitFrom::Weights { path: "run".into(), channels: None }, …)` loads that of a run and has one feature vector per image.

use simmim::encoders::{Encode, Encoder, ForwardContext, Role};
use simmim::recipe::resolve;
use simmim::weights::{Builder, initialize};
use simmim_cpu::CpuDevice;
use simmim_data::rng::rng;
use simmim_data::{Augmentation, Normalization, Purpose};
use simmim_engine::{Backend, Device, Operations, Precision};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let recipe = resolve("pretrain-swin-t-192", &[])?;
    let (data, path) = (&recipe.data, concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/images/tools-plier1.jpg"));

    let mut builder = Builder::default();
    let image_px = data.image_size.height_and_width();
    let encoder = Encoder::new(&recipe.encoder, Role::Pretrain, image_px, data.channels, &mut builder)?;
    let (table, inits) = builder.finish();
    let b = CpuDevice { threads: 2 }.open(table, Precision::F32);
    initialize(&b, &inits, 0);

    let image = simmim_data::decode(&std::fs::read(path)?, path, data.decoding())?;
    let transform = data.transform(Augmentation::Center, Normalization::imagenet());
    let mut pixels = vec![0.0; transform.values()];
    transform.apply(&image, &mut rng(0, Purpose::Augment, 0, 0), &mut pixels); // a center crop is not random

    b.start(false);
    let tokens = encoder.embed(&b, &data.images(&pixels));
    let blocks = [2, 4, 10, 12]; // the last of each stage
    for (block, map) in blocks.iter().zip(encoder.features(&b, tokens, &blocks, &mut ForwardContext::evaluate())) {
        println!("block {block}: a map of {:?}", b.shape(&map)); // [B, h, w, D]
    }
    Ok(())
}
