//! `simmim tokenizer`.

use super::training::{Run, print_end, watched};
use crate::cli::{Common, TokenizerArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::train::train_tokenizer;

pub(crate) fn run(common: &Common, args: &TokenizerArgs) -> anyhow::Result<Exit> {
    let run =
        Run { common, recipe: &args.recipe, edits: &common.set, out: &args.out, workers: common.workers(args.workers) };
    let options = run.on(&args.data, args.val.as_deref())?;
    let outcome = watched(common, &options, |observe, stop| train_tokenizer(&options, observe, stop))?;
    let measured = outcome.reconstructed.as_ref();
    let json = json!({
        "updates": outcome.updates,
        "loss": outcome.loss,
        "l1": measured.map(|m| m.l1),
        "tokens_in_use": measured.map(|m| m.tokens_in_use),
        "perplexity": measured.map(|m| m.perplexity),
        "images_per_second": outcome.images_per_second,
        "skipped_images": outcome.skipped,
        "checkpoint": outcome.checkpoint,
        "tokenizer": outcome.tokenizer,
        "report": outcome.report,
    });
    let done = format!("done: {}; pictures: open {}", outcome.tokenizer.display(), outcome.report.display());
    print_end(common, (outcome.updates, outcome.total_updates), &done, &json)
}
