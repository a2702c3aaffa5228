//! `simmim tokenizer`.

use super::pretrain::given;
use super::print_result;
use crate::cli::{Common, TokenizerArgs};
use crate::exit::Exit;
use crate::progress::Progress;
use serde_json::json;
use simmim::recipe::TokenizerRecipe;
use simmim::train::{Input, Options, train_tokenizer};
use simmim::{Error, recipe};

pub(crate) fn run(common: &Common, args: &TokenizerArgs) -> anyhow::Result<Exit> {
    let recipe: TokenizerRecipe = recipe::resolve_as(&args.recipe, &common.set)?;
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
    let stop = crate::interrupt::flag()?;
    let mut progress = Progress::new(common.quiet, options.recipe.train.batch_size);
    let outcome = train_tokenizer(&options, &mut |event| progress.on(&event), &stop);
    progress.finish();
    let outcome = outcome?;
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
    if !outcome.is_finished() {
        let (updates, total) = (outcome.updates, outcome.total_updates);
        let prose = format!("stopped after update {updates} of {total}; the same command goes on");
        print_result(common.json, &prose, &json)?;
        return Ok(Exit::Interrupted);
    }
    let prose = format!("done: {}; pictures: open {}", outcome.tokenizer.display(), outcome.report.display());
    print_result(common.json, &prose, &json)?;
    Ok(Exit::Done)
}
