//! Pre-trains a small ViT on a folder of images: `cargo run --example pretrain_folder -- my-images my-run`.

use simmim::precision::PrecisionChoice;
use simmim::recipe::resolve;
use simmim::train::{Event, Input, Options, pretrain};
use simmim::weights::InitFrom;
use simmim_cpu::CpuDevice;
use simmim_engine::Alone;
use std::sync::atomic::AtomicBool;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let photos = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/images").to_owned();
    let folder = arguments.next().unwrap_or(photos);
    let out = arguments.next().map_or(std::env::temp_dir().join(format!("simmim-{}", std::process::id())), Into::into);

    let edits = ["train.batch_size=2", "train.max_steps=4", "encoder.depth=2"].map(str::to_owned);
    let recipe = resolve("pretrain-vit-cifar", &edits)?;
    let source = simmim_data::open(&folder, recipe.data.decoding())?;
    let options = Options {
        recipe,
        given: "# an example\n".into(),
        data: Input { source, description: folder },
        val: None,
        out,
        seed: 0,
        precision: PrecisionChoice::Auto,
        workers: 1,
    };
    let mut observe = |event: Event| {
        if let Event::Stepped { steps, loss, .. } = event {
            println!("step {steps}: loss {loss:.4}");
        }
    };
    let outcome = pretrain(
        &CpuDevice { threads: 2 },
        &mut Alone,
        &options,
        &InitFrom::Scratch,
        &mut observe,
        &AtomicBool::new(false),
    )?;
    println!("open {}", outcome.report.display());
    Ok(())
}
