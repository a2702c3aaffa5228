//! `simmim evaluate`.

use super::{open_data, print_result, say_import, warn_of_damaged, warn_of_unreadable};
use crate::cli::{Common, EvaluateArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::evaluation::FinetunedModel;
use simmim::precision;
use simmim_engine::Device;

pub(crate) fn run(common: &Common, args: &EvaluateArgs, device: &impl Device) -> anyhow::Result<Exit> {
    let (precision, _) = precision::choose(common.precision(), device);
    let model = FinetunedModel::load(&args.from, &common.set, device, precision)?;
    warn_of_damaged(model.damaged());
    say_import(common, model.import());
    let source = open_data(&args.data, model.resolved().recipe.data.channels)?;
    let report = model.evaluate(source, &args.data, args.workers.count(common))?;
    let skipped = warn_of_unreadable(&report.skipped);
    let classes: serde_json::Map<String, serde_json::Value> = model
        .resolved()
        .run
        .classes
        .iter()
        .zip(report.per_class())
        .map(|(name, (images, top1))| (name.clone(), json!({ "images": images, "top1": top1 })))
        .collect();
    let json = json!({
        "top1": report.accuracy.top1(),
        "top5": report.accuracy.top5(),
        "loss": report.loss,
        "mean_average_precision": report.mean_average_precision,
        "images": report.accuracy.images,
        "images_per_second": report.images_per_second,
        "skipped_images": skipped,
        "classes": classes,
    });
    let prose = format!(
        "top-1 {:.2} %, top-5 {:.2} %, loss {:.4} on {} images ({:.0} images/s)",
        report.accuracy.top1(),
        report.accuracy.top5(),
        report.loss,
        report.accuracy.images,
        report.images_per_second
    );
    print_result(common.json, &prose, &json)?;
    Ok(Exit::Done)
}
