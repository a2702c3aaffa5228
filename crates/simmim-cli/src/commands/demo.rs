//! `simmim demo`.

use super::pretrain::{given, train};
use super::print_result;
use crate::cli::{Common, DemoArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::train::Options;
use simmim::{demo, recipe};

pub(crate) fn run(common: &Common, args: &DemoArgs) -> anyhow::Result<Exit> {
    let (data, val) = demo::inputs()?;
    let options = Options {
        recipe: recipe::resolve(demo::RECIPE, &common.set)?,
        given: given(demo::RECIPE, &common.set)?,
        data,
        val: Some(val),
        out: args.out.clone(),
        seed: common.seed,
        precision: common.precision.into(),
        threads: common.threads(),
        workers: 1,
    };
    if !common.quiet {
        eprintln!("Pre-training a small vision transformer on grey 28×28 images, most of each hidden;");
        eprintln!("Ctrl-C saves, and the same command goes on.");
    }
    let outcome = train(common, &options)?;
    // an edited recipe may have a loss in other units
    let l1 = |loss: Option<f64>| loss.filter(|_| options.recipe.is_masked_l1());
    let json = json!({
        "masked_l1": l1(outcome.val_loss),
        "mean_colour_l1": l1(outcome.baseline_loss),
        "report": outcome.report,
        "updates": outcome.updates,
        "images_per_second": outcome.images_per_second,
    });
    let number = |value: Option<f64>| value.map_or("–".into(), |v| format!("{v:.4}"));
    let prose = format!(
        "masked L1 on held-out images: {} (predicting the mean colour: {})\nopen {}",
        number(l1(outcome.val_loss)),
        number(l1(outcome.baseline_loss)),
        outcome.report.display()
    );
    print_result(common.json, &prose, &json)?;
    Ok(if outcome.is_finished() { Exit::Done } else { Exit::Interrupted })
}
