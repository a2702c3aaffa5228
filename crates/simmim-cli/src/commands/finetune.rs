//! `simmim finetune`.

use super::pretrain::given;
use super::print_result;
use crate::cli::{Common, FinetuneArgs};
use crate::exit::Exit;
use crate::progress::Progress;
use serde_json::json;
use simmim::recipe::FinetuneRecipe;
use simmim::train::{Beginning, Finetuned, Input, Options, finetune};
use simmim::{Error, recipe};

pub(crate) fn run(common: &Common, args: &FinetuneArgs) -> anyhow::Result<Exit> {
    let recipe: FinetuneRecipe = recipe::resolve_as(&args.recipe, &common.set)?;
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
    let beginning = match args.from.as_str() {
        "scratch" => Beginning::Scratch,
        path => Beginning::Weights(path.into()),
    };
    let outcome = train(common, &options, &beginning)?;
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
    if outcome.is_finished() {
        let accuracy = match (outcome.top1, outcome.best_top1) {
            (Some(top1), Some(best)) => format!("top-1 {top1:.2} % (best {best:.2} %)\n"),
            (_, _) => String::new(),
        };
        print_result(common.json, &format!("{accuracy}done: open {}", outcome.report.display()), &json)?;
        return Ok(Exit::Done);
    }
    let prose =
        format!("stopped after update {} of {}; the same command goes on", outcome.updates, outcome.total_updates);
    print_result(common.json, &prose, &json)?;
    Ok(Exit::Interrupted)
}

/// Fine-tunes with progress and Ctrl-C.
pub(super) fn train(
    common: &Common,
    options: &Options<FinetuneRecipe>,
    beginning: &Beginning,
) -> anyhow::Result<Finetuned> {
    let stop = crate::interrupt::flag()?;
    let mut progress = Progress::new(common.quiet, options.recipe.train.batch_size);
    let outcome = finetune(options, beginning, &mut |event| progress.on(&event), &stop);
    progress.finish();
    Ok(outcome?)
}
