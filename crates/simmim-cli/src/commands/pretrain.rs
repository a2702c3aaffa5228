//! `simmim pretrain`.

use super::print_result;
use crate::cli::{Common, PretrainArgs};
use crate::exit::Exit;
use crate::progress::Progress;
use serde_json::json;
use simmim::train::{Input, Options, Outcome, pretrain};
use simmim::{Error, recipe};

pub(crate) fn run(common: &Common, args: &PretrainArgs) -> anyhow::Result<Exit> {
    let recipe = recipe::resolve(&args.recipe, &common.set)?;
    let open = |spec: &String| -> anyhow::Result<Input> {
        let source = simmim_data::open(spec, recipe.data.channels).map_err(Error::from)?;
        Ok(Input { source, description: spec.clone() })
    };
    let options = Options {
        given: given(&args.recipe, &common.set)?,
        data: open(&args.data)?,
        val: args.val.as_ref().map(open).transpose()?,
        recipe,
        out: args.out.clone(),
        seed: common.seed,
        precision: common.precision.into(),
        threads: common.threads(),
        workers: common.workers(args.workers),
    };
    let outcome = train(common, &options)?;
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
    if outcome.is_finished() {
        print_result(common.json, &format!("done: open {}", outcome.report.display()), &json)?;
        return Ok(Exit::Done);
    }
    let prose =
        format!("stopped after update {} of {}; the same command goes on", outcome.updates, outcome.total_updates);
    print_result(common.json, &prose, &json)?;
    Ok(Exit::Interrupted)
}

/// Runs pre-training with progress and Ctrl-C.
pub(super) fn train(common: &Common, options: &Options) -> anyhow::Result<Outcome> {
    let stop = crate::interrupt::flag()?;
    let mut progress = Progress::new(common.quiet, options.recipe.train.batch_size);
    let outcome = pretrain(options, &mut |event| progress.on(&event), &stop);
    progress.finish();
    Ok(outcome?)
}

/// The recipe as typed: the text it starts from and the edits, as comments.
pub(super) fn given(name: &str, edits: &[String]) -> anyhow::Result<String> {
    let text = match recipe::BUILT_IN.iter().find(|r| r.name == name) {
        Some(built_in) => built_in.text.to_owned(),
        None => std::fs::read_to_string(name)?,
    };
    let edits: String = edits.iter().map(|edit| format!("# --set {edit}\n")).collect();
    Ok(format!("# --recipe {name}\n{edits}{text}"))
}
