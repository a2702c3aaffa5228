//! `simmim pretrain`.

use super::training::{Run, print_end, watched};
use crate::cli::{Common, PretrainArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::train::pretrain;

pub(crate) fn run(common: &Common, args: &PretrainArgs) -> anyhow::Result<Exit> {
    let run =
        Run { common, recipe: &args.recipe, edits: &common.set, out: &args.out, workers: common.workers(args.workers) };
    let options = run.on(&args.data, args.val.as_deref())?;
    let outcome = watched(common, &options, |observe, stop| pretrain(&options, observe, stop))?;
    let json = json!({
        "updates": outcome.updates,
        "loss": outcome.loss,
        "val_loss": outcome.val_loss,
        "baseline_loss": outcome.baseline_loss,
        "images_per_second": outcome.images_per_second,
        "skipped_images": outcome.skipped,
        "checkpoint": outcome.checkpoint,
        "report": outcome.report,
    });
    let done = format!("done: open {}", outcome.report.display());
    print_end(common, (outcome.updates, outcome.total_updates), &done, &json)
}
