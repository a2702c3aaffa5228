//! `simmim finetune`.

use super::beginning;
use super::training::{Run, print_end, watched};
use crate::cli::{Common, FinetuneArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::train::finetune;

pub(crate) fn run(common: &Common, args: &FinetuneArgs) -> anyhow::Result<Exit> {
    let run =
        Run { common, recipe: &args.recipe, edits: &common.set, out: &args.out, workers: common.workers(args.workers) };
    let options = run.on(&args.data, args.val.as_deref())?;
    let beginning = beginning(&args.from);
    let outcome = watched(common, &options, |observe, stop| finetune(&options, &beginning, observe, stop))?;
    let json = json!({
        "top1": outcome.top1,
        "top5": outcome.top5,
        "images": outcome.images,
        "best_top1": outcome.best_top1,
        "best_update": outcome.best_update,
        "val_loss": outcome.val_loss,
        "updates": outcome.updates,
        "loss": outcome.loss,
        "images_per_second": outcome.images_per_second,
        "skipped_images": outcome.skipped,
        "checkpoint": outcome.checkpoint,
        "best": outcome.best_top1.map(|_| &outcome.best),
        "report": outcome.report,
    });
    let accuracy = match (outcome.top1, outcome.best_top1) {
        (Some(top1), Some(best)) => format!("top-1 {top1:.2} % (best {best:.2} %)\n"),
        (_, _) => String::new(),
    };
    let done = format!("{accuracy}done: open {}", outcome.report.display());
    print_end(common, (outcome.updates, outcome.total_updates), &done, &json)
}
