//! `simmim knn`.

use super::frozen::{Frozen, features};
use super::print_result;
use crate::cli::{Common, KnnArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::Error;
use simmim::knn::{Neighbours, knn};

pub(crate) fn run(common: &Common, args: &KnnArgs) -> anyhow::Result<Exit> {
    if !(args.temperature > 0.0 && args.temperature.is_finite()) {
        let hint = Some("0.07 is usual".into());
        return Err(Error::Input { what: format!("--temperature `{}` is not above 0", args.temperature), hint }.into());
    }
    let Frozen { train, val, classes } = features(common, &args.frozen)?;
    let neighbours = Neighbours { count: args.k as usize, temperature: args.temperature };
    let done = knn(&train, &val, classes, neighbours, common.threads());
    let json = json!({
        "top1": done.top1(),
        "top5": done.top5(),
        "images": done.images,
        "k": neighbours.count,
        "temperature": neighbours.temperature,
        "features": train.width,
        "train_images": train.len(),
    });
    let prose = format!(
        "top-1 {:.2} %, top-5 {:.2} % of {} images by {} neighbours among {}",
        done.top1(),
        done.top5(),
        done.images,
        neighbours.count,
        train.len()
    );
    print_result(common.json, &prose, &json)?;
    Ok(Exit::Done)
}
