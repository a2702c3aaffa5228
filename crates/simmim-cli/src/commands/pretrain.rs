//! `simmim pretrain`.

use super::init_from;
use super::training::{Run, print_end, with_progress};
use crate::cli::{Common, PretrainArgs};
use crate::exit::Exit;
use serde_json::{Value, json};
use simmim::run::{LogEntry, read_log};
use simmim::train::pretrain;
use simmim_engine::{Collective, Device};
use std::path::Path;

pub(crate) fn run(
    common: &Common,
    args: &PretrainArgs,
    device: &impl Device,
    ranks: &mut dyn Collective,
) -> anyhow::Result<Exit> {
    let run =
        Run { common, recipe: &args.recipe, edits: &common.set, out: &args.out, workers: args.workers.count(common) };
    let options = run.on(&args.data, args.val.as_deref())?;
    let init_from = init_from(args.from.as_deref().unwrap_or("scratch"), args.channels.map(Into::into));
    let outcome =
        with_progress(common, &options, |observe, stop| pretrain(device, ranks, &options, &init_from, observe, stop))?;
    let mut json = json!({
        "steps": outcome.steps,
        "loss": outcome.loss,
        "val_loss": outcome.metric("val_loss"),
        "baseline_loss": outcome.metric("baseline_loss"),
        "images_per_second": outcome.images_per_second,
        "skipped_images": outcome.skipped,
        "replaced_draws": outcome.replaced,
        "skipped_val_images": outcome.skipped_val,
        "checkpoint": outcome.checkpoint,
        "report": outcome.report,
    });
    if options.recipe.monitor.is_some() {
        json["monitor"] = monitor_entries(&options.out)?;
    }
    let done = format!("done: open {}", outcome.report.display());
    print_end(common, (outcome.steps, outcome.total_steps), &done, &json)
}

/// The results of the monitor by step, from the log.
fn monitor_entries(run: &Path) -> anyhow::Result<Value> {
    let numbers = |entry: LogEntry| {
        let number = |key: &str| entry.get(key).cloned();
        Some(json!({
            "step": number("step")?,
            "knn_top1": number("knn_top1")?,
            "probe_top1": number("probe_top1")?,
            "rank_me": number("rank_me")?,
        }))
    };
    Ok(read_log(run)?.into_iter().filter_map(numbers).collect())
}
