//! `simmim knn`.

use super::frozen::{Frozen, features};
use super::print_result;
use crate::cli::{Common, KnnArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::Error;
use simmim::evaluation::{Neighbors, knn_on_ranks};
use simmim_engine::{Collective, Device};

pub(crate) fn run(
    common: &Common,
    args: &KnnArgs,
    device: &impl Device,
    ranks: &mut dyn Collective,
) -> anyhow::Result<Exit> {
    if !(args.temperature > 0.0 && args.temperature.is_finite()) {
        let hint = Some("the default is 0.07".into());
        return Err(Error::Input { what: format!("--temperature `{}` is not above 0", args.temperature), hint }.into());
    }
    let Frozen { train, val, classes: _, skipped } = features(common, &args.frozen, device, ranks)?;
    let neighbors = Neighbors { count: args.k as usize, temperature: args.temperature };
    let accuracy = knn_on_ranks(&train, &val, neighbors, device, ranks).map_err(Error::from)?;
    if !ranks.is_first() {
        return Ok(Exit::Done);
    }
    let json = json!({
        "top1": accuracy.top1(),
        "top5": accuracy.top5(),
        "images": accuracy.images,
        "k": neighbors.count,
        "temperature": neighbors.temperature,
        "features": train.width,
        "train_images": train.len(),
        "skipped_images": skipped,
    });
    let prose = format!(
        "top-1 {:.2} %, top-5 {:.2} % of {} images by {} neighbors among {}",
        accuracy.top1(),
        accuracy.top5(),
        accuracy.images,
        neighbors.count,
        train.len()
    );
    print_result(common.json, &prose, &json)?;
    Ok(Exit::Done)
}
