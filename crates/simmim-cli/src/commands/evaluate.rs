//! `simmim evaluate`.

use super::{print_result, warn_of_damaged};
use crate::cli::{Common, EvaluateArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::evaluation::FinetunedModel;
use simmim::{Error, precision};

pub(crate) fn run(common: &Common, args: &EvaluateArgs) -> anyhow::Result<Exit> {
    let (precision, _) = precision::choose(common.precision.into());
    let model = FinetunedModel::load(&args.from, precision, common.threads())?;
    warn_of_damaged(model.damaged());
    let source = simmim_data::open(&args.data, model.resolved().recipe.data.channels).map_err(Error::from)?;
    let done = model.evaluate(source, &args.data, common.workers(args.workers))?;
    for skipped in &done.skipped {
        eprintln!("warning: skipped `{}`: {}", skipped.name, skipped.reason);
    }
    let classes: serde_json::Map<String, serde_json::Value> = model
        .resolved()
        .run
        .classes
        .iter()
        .zip(done.per_class())
        .map(|(name, (images, top1))| (name.clone(), json!({ "images": images, "top1": top1 })))
        .collect();
    let json = json!({
        "top1": done.accuracy.top1(),
        "top5": done.accuracy.top5(),
        "loss": done.loss,
        "mean_average_precision": done.mean_average_precision,
        "images": done.accuracy.images,
        "images_per_second": done.images_per_second,
        "skipped_images": done.skipped.len(),
        "classes": classes,
    });
    let prose = format!(
        "top-1 {:.2} %, top-5 {:.2} %, loss {:.4} on {} images ({:.0} images/s)",
        done.accuracy.top1(),
        done.accuracy.top5(),
        done.loss,
        done.accuracy.images,
        done.images_per_second
    );
    print_result(common.json, &prose, &json)?;
    Ok(Exit::Done)
}
