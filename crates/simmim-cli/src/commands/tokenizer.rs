//! `simmim tokenizer`.

use super::training::{Run, print_end, with_progress};
use crate::cli::{Common, TokenizerArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::tokenizer::TOKENIZER_FILE;
use simmim::train::train_tokenizer;
use simmim_engine::{Collective, Device};

pub(crate) fn run(
    common: &Common,
    args: &TokenizerArgs,
    device: &impl Device,
    ranks: &mut dyn Collective,
) -> anyhow::Result<Exit> {
    let run =
        Run { common, recipe: &args.recipe, edits: &common.set, out: &args.out, workers: args.workers.count(common) };
    let options = run.on(&args.data, args.val.as_deref())?;
    let outcome =
        with_progress(common, &options, |observe, stop| train_tokenizer(device, ranks, &options, observe, stop))?;
    let tokenizer = options.out.join(TOKENIZER_FILE);
    let json = json!({
        "steps": outcome.steps,
        "loss": outcome.loss,
        "l1": outcome.metric("l1"),
        "tokens_in_use": outcome.metric("tokens_in_use").map(|count| count as u64),
        "perplexity": outcome.metric("perplexity"),
        "images_per_second": outcome.images_per_second,
        "skipped_images": outcome.skipped,
        "replaced_draws": outcome.replaced,
        "skipped_val_images": outcome.skipped_val,
        "checkpoint": outcome.checkpoint,
        "tokenizer": tokenizer,
        "report": outcome.report,
    });
    let done = format!("done: {}; pictures: open {}", tokenizer.display(), outcome.report.display());
    print_end(common, (outcome.steps, outcome.total_steps), &done, &json)
}
