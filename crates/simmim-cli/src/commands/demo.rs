//! `simmim demo`.

use super::print_result;
use super::training::{Run, watched};
use crate::cli::{Common, DemoArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::demo;
use simmim::train::{Beginning, Finetuned, finetune, pretrain};
use std::path::Path;

pub(crate) fn run(common: &Common, args: &DemoArgs) -> anyhow::Result<Exit> {
    let run = Run { common, recipe: demo::RECIPE, edits: &common.set, out: &args.out, workers: 1 };
    let options = run.on_open(demo::inputs()?)?;
    let say = |line: &str| {
        if !common.quiet {
            eprintln!("{line}");
        }
    };
    say("Pre-training a small vision transformer on grey 28×28 images, most of each hidden;");
    say("Ctrl-C saves, and the same command goes on.");
    let outcome = watched(common, &options, |observe, stop| pretrain(&options, observe, stop))?;
    let mut finetuned = None;
    if outcome.is_finished() {
        let edits = demo::shared_edits(&common.set);
        let [from_encoder, from_scratch] = demo::finetune_folders(&args.out);
        let tune = |out: &Path, beginning: &Beginning| {
            let run = Run { common, recipe: demo::FINETUNE_RECIPE, edits: &edits, out, workers: 1 };
            let options = run.on_open(demo::inputs()?)?;
            watched(common, &options, |observe, stop| finetune(&options, beginning, observe, stop))
        };
        say("\nFine-tuning that encoder on few labels:");
        let pretrained = tune(&from_encoder, &Beginning::Weights(args.out.clone()))?;
        if pretrained.is_finished() {
            say("\nThe same network and labels from scratch:");
            let both = [pretrained, tune(&from_scratch, &Beginning::Scratch)?];
            if both[1].is_finished() {
                demo::write_report(&args.out, &outcome, &both)?;
                finetuned = Some(both);
            }
        }
    }
    // an edited recipe may have a loss in other units
    let l1 = |loss: Option<f64>| loss.filter(|_| options.recipe.is_masked_l1());
    let top1 = |which: usize| finetuned.as_ref().and_then(|both: &[Finetuned; 2]| both[which].top1);
    let json = json!({
        "masked_l1": l1(outcome.val_loss),
        "mean_colour_l1": l1(outcome.baseline_loss),
        "top1_pretrained": top1(0),
        "top1_scratch": top1(1),
        "report": outcome.report,
        "updates": outcome.updates,
        "images_per_second": outcome.images_per_second,
    });
    let number = |value: Option<f64>| value.map_or("–".into(), |v| format!("{v:.4}"));
    let percent = |value: Option<f64>| value.map_or("–".into(), |v| format!("{v:.1} %"));
    let prose = format!(
        "masked L1 on held-out images: {} (predicting the mean colour: {})\n\
         top-1 on held-out images after few labels: {} from the encoder, {} from scratch\nopen {}",
        number(l1(outcome.val_loss)),
        number(l1(outcome.baseline_loss)),
        percent(top1(0)),
        percent(top1(1)),
        outcome.report.display()
    );
    print_result(common.json, &prose, &json)?;
    Ok(if finetuned.is_some() { Exit::Done } else { Exit::Interrupted })
}
