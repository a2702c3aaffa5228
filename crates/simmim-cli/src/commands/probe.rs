//! `simmim probe`.

use super::frozen::{Frozen, features};
use super::print_result;
use crate::cli::{Common, ProbeArgs};
use crate::exit::Exit;
use serde_json::{Value, json};
use simmim::Error;
use simmim::evaluation::{Probe, probe};
use simmim_engine::Device;

pub(crate) fn run(common: &Common, args: &ProbeArgs, device: &impl Device) -> anyhow::Result<Exit> {
    if let Some(rate) = args.rates.iter().find(|rate| !(**rate > 0.0 && rate.is_finite())) {
        let hint = Some("for example --rates 1e-3,1e-2".into());
        return Err(Error::Input { what: format!("the learning rate `{rate}` is not above 0"), hint }.into());
    }
    let Frozen { train, val, classes, skipped } = features(common, &args.frozen, device)?;
    let default = Probe::default();
    let config = Probe {
        epochs: args.epochs as usize,
        rates: if args.rates.is_empty() { default.rates.clone() } else { args.rates.clone() },
        is_normalized: !args.no_norm,
        seed: common.seed(),
        ..default
    };
    let results = probe(&train, &val, classes, &config, device);
    let (rate, best) =
        results.iter().copied().max_by_key(|(_, accuracy)| accuracy.correct).expect("a probe has at least one rate");
    let rows: Vec<Value> =
        results.iter().map(|(rate, a)| json!({ "rate": rate, "top1": a.top1(), "top5": a.top5() })).collect();
    let json = json!({
        "top1": best.top1(),
        "top5": best.top5(),
        "images": best.images,
        "rate": rate,
        "rates": rows,
        "features": train.width,
        "train_images": train.len(),
        "skipped_images": skipped,
    });
    let lines: String = results
        .iter()
        .map(|(rate, a)| format!("rate {rate:.0e}: top-1 {:.2} %, top-5 {:.2} %\n", a.top1(), a.top5()))
        .collect();
    let prose = format!(
        "{lines}top-1 {:.2} %, top-5 {:.2} % of {} images by a linear classifier on {} features, trained on {} images",
        best.top1(),
        best.top5(),
        best.images,
        train.width,
        train.len()
    );
    print_result(common.json, &prose, &json)?;
    Ok(Exit::Done)
}
