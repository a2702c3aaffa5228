//! `simmim finetune`.

use super::init_from;
use super::training::{Run, print_end, with_progress};
use crate::cli::{Common, FinetuneArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::train::{BEST_FILE, finetune};
use simmim_engine::{Collective, Device};

pub(crate) fn run(
    common: &Common,
    args: &FinetuneArgs,
    device: &impl Device,
    ranks: &mut dyn Collective,
) -> anyhow::Result<Exit> {
    let run =
        Run { common, recipe: &args.recipe, edits: &common.set, out: &args.out, workers: args.workers.count(common) };
    let options = run.on(&args.data, args.val.as_deref())?;
    let init_from = init_from(&args.from, args.channels.map(Into::into));
    let outcome =
        with_progress(common, &options, |observe, stop| finetune(device, ranks, &options, &init_from, observe, stop))?;
    let metric = |name: &str| outcome.metric(name);
    let json = json!({
        "top1": metric("top1"),
        "top5": metric("top5"),
        "images": options.val.as_ref().map_or(0, |val| val.source.len()),
        "mean_average_precision": metric("mean_average_precision"),
        "best_top1": metric("best_top1"),
        "best_mean_average_precision": metric("best_mean_average_precision"),
        "best_step": metric("best_step").map(|step| step as u64),
        "val_loss": metric("val_loss"),
        "steps": outcome.steps,
        "loss": outcome.loss,
        "images_per_second": outcome.images_per_second,
        "skipped_images": outcome.skipped,
        "replaced_draws": outcome.replaced,
        "skipped_val_images": outcome.skipped_val,
        "checkpoint": outcome.checkpoint,
        "best": metric("best_top1").map(|_| options.out.join(BEST_FILE)),
        "report": outcome.report,
    });
    let scores = [
        ("mean average precision", "mean_average_precision", "best_mean_average_precision"),
        ("top-1", "top1", "best_top1"),
    ];
    let of = |(name, last, best): (&str, &str, &str)| {
        Some(format!("{name} {:.2} % (best {:.2} %)\n", metric(last)?, metric(best)?))
    };
    let accuracy = scores.into_iter().find_map(of).unwrap_or_default();
    let done = format!("{accuracy}done: open {}", outcome.report.display());
    print_end(common, (outcome.steps, outcome.total_steps), &done, &json)
}
