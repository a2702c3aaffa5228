//! `simmim probe`.

use super::frozen::{Frozen, features};
use super::print_result;
use crate::cli::{Common, ProbeArgs};
use crate::exit::Exit;
use serde_json::{Value, json};
use simmim::Error;
use simmim::evaluation::{Accuracy, Probe, ProbedRate, best_rate, probe};
use simmim_engine::{Alone, Device};

pub(crate) fn run(common: &Common, args: &ProbeArgs, device: &impl Device) -> anyhow::Result<Exit> {
    if let Some(rate) = args.rates.iter().find(|rate| !(**rate > 0.0 && rate.is_finite())) {
        let hint = Some("for example --rates 1e-3,1e-2".into());
        return Err(Error::Input { what: format!("the learning rate `{rate}` is not above 0"), hint }.into());
    }
    let Frozen { train, val, classes, skipped } = features(common, &args.frozen, device, &mut Alone)?;
    let default = Probe::default();
    let config = Probe {
        epochs: args.epochs as usize,
        rates: if args.rates.is_empty() { default.rates.clone() } else { args.rates.clone() },
        is_normalized: !args.no_norm,
        seed: common.seed(),
        ..default
    };
    let results = probe(&train, &val, classes, &config, device);
    let Some((rate, best)) = best_rate(&results) else {
        let lowest = config.rates.iter().copied().fold(f64::INFINITY, f64::min);
        let what = format!("the probe diverged at every learning rate, also at the lowest, `{lowest:e}`");
        return Err(Error::Input { what, hint: Some("give lower ones, for example --rates 1e-3,1e-2".into()) }.into());
    };
    let row = |ProbedRate { rate, accuracy }: &ProbedRate| {
        json!({
            "rate": rate,
            "top1": accuracy.map(Accuracy::top1),
            "top5": accuracy.map(Accuracy::top5),
            "diverged": accuracy.is_none(),
        })
    };
    let rows: Vec<Value> = results.iter().map(row).collect();
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
    let line = |ProbedRate { rate, accuracy }: &ProbedRate| match accuracy {
        Some(accuracy) => format!("rate {rate:.0e}: top-1 {:.2} %, top-5 {:.2} %\n", accuracy.top1(), accuracy.top5()),
        None => format!("rate {rate:.0e}: diverged\n"),
    };
    let lines: String = results.iter().map(line).collect();
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
