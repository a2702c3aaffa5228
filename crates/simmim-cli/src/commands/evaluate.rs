//! `simmim evaluate`.

use super::{open_training_data, print_result, say_import, warn_of_damaged, warn_of_unreadable};
use crate::cli::{Common, EvaluateArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::evaluation::FinetunedModel;
use simmim::precision;
use simmim_data::without_secrets;
use simmim_engine::{Collective, Device};

pub(crate) fn run(
    common: &Common,
    args: &EvaluateArgs,
    device: &impl Device,
    ranks: &mut dyn Collective,
) -> anyhow::Result<Exit> {
    let (precision, _) = precision::choose(common.precision(), device);
    let model = FinetunedModel::load(&args.from, &common.set, device, precision)?;
    warn_of_damaged(model.damaged());
    say_import(common, model.import());
    let source = open_training_data(common, &args.data, &model.resolved().recipe.data)?;
    let data = without_secrets(&args.data);
    let report = model.evaluate_on_ranks(source, &data, args.workers.count(common), ranks)?;
    if !ranks.is_first() {
        return Ok(Exit::Done);
    }
    let skipped = warn_of_unreadable(&report.skipped);
    let names = &model.resolved().run.classes;
    let per_class = report.confusion.per_class();
    let classes: serde_json::Map<String, serde_json::Value> = names
        .iter()
        .zip(&per_class)
        .map(|(name, class)| (name.clone(), json!({ "images": class.images, "top1": class.top1 })))
        .collect();
    let absent: Vec<&String> =
        names.iter().zip(&per_class).filter(|(_, class)| class.images == 0).map(|(name, _)| name).collect();
    let json = json!({
        "top1": report.accuracy.top1(),
        "top5": report.accuracy.top5(),
        "loss": report.loss,
        "mean_average_precision": report.mean_average_precision,
        "images": report.images,
        "images_per_second": report.images_per_second,
        "skipped_images": skipped,
        "classes": classes,
        "classes_without_images": absent,
    });
    let mean = report.mean_average_precision.map_or(String::new(), |mean| {
        format!("\nmean average precision {mean:.2} % over the {} classes with images", names.len() - absent.len())
    });
    let without = match absent.as_slice() {
        [] => String::new(),
        [first, ..] => format!(
            "\n{} of {} classes have no images in `{}` and so no accuracy, the first is `{first}`",
            absent.len(),
            names.len(),
            data
        ),
    };
    let prose = format!(
        "top-1 {:.2} %, top-5 {:.2} %, loss {:.4} on {} images ({:.0} images/s){mean}{without}",
        report.accuracy.top1(),
        report.accuracy.top5(),
        report.loss,
        report.images,
        report.images_per_second
    );
    print_result(common.json, &prose, &json)?;
    Ok(Exit::Done)
}
