//! `simmim demo`.

use super::training::{Run, print_end, with_progress};
use crate::cli::{Common, DemoArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::demo;
use simmim::train::{Outcome, finetune, pretrain};
use simmim::weights::InitFrom;
use simmim_engine::{Alone, Device};
use std::path::Path;

pub(crate) fn run(common: &Common, args: &DemoArgs, device: &impl Device) -> anyhow::Result<Exit> {
    let run = Run { common, recipe: demo::RECIPE, edits: &common.set, out: &args.out, workers: 1 };
    let options = run.on_open(demo::inputs()?)?;
    let say = |line: &str| {
        if !common.quiet {
            crate::terminal::line(line);
        }
    };
    say("Pre-training a small vision transformer on grayscale 28×28 images, with most of each image hidden.");
    say("Ctrl-C saves and stops; the same command resumes.");
    let outcome = with_progress(common, &options, |observe, stop| {
        pretrain(device, &mut Alone, &options, &InitFrom::Scratch, observe, stop)
    })?;
    let mut finetuned = Vec::new();
    if outcome.is_finished() {
        let edits = demo::shared_edits(&common.set);
        let [from_encoder, from_scratch] = demo::finetune_folders(&args.out);
        let tune = |out: &Path, init_from: &InitFrom| {
            let run = Run { common, recipe: demo::FINETUNE_RECIPE, edits: &edits, out, workers: 1 };
            let options = run.on_open(demo::inputs()?)?;
            with_progress(common, &options, |observe, stop| {
                finetune(device, &mut Alone, &options, init_from, observe, stop)
            })
        };
        say("");
        say("Fine-tuning the encoder on a few labels:");
        finetuned.push(tune(&from_encoder, &InitFrom::Weights { path: args.out.clone(), channels: None })?);
        if finetuned[0].is_finished() {
            say("");
            say("Training the same network from scratch on the same labels:");
            finetuned.push(tune(&from_scratch, &InitFrom::Scratch)?);
        }
    }
    let last = finetuned.last().unwrap_or(&outcome);
    let (steps, total) = (last.steps, last.total_steps);
    let finetuned: Option<[Outcome; 2]> = finetuned.try_into().ok().filter(|_| steps == total);
    if let Some(both) = &finetuned {
        demo::write_report(&args.out, &outcome, both)?;
    }
    // the loss of an edited recipe may have other units
    let l1 = |loss: Option<f64>| loss.filter(|_| options.recipe.is_masked_l1());
    let top1 = |which: usize| finetuned.as_ref().and_then(|both: &[Outcome; 2]| both[which].metric("top1"));
    let json = json!({
        "masked_l1": l1(outcome.metric("val_loss")),
        "mean_color_l1": l1(outcome.metric("baseline_loss")),
        "top1_pretrained": top1(0),
        "top1_scratch": top1(1),
        "report": outcome.report,
        "steps": outcome.steps,
        "images_per_second": outcome.images_per_second,
    });
    let number = |value: Option<f64>| value.map_or("–".into(), |v| format!("{v:.4}"));
    let percent = |value: Option<f64>| value.map_or("–".into(), |v| format!("{v:.1} %"));
    let prose = format!(
        "masked L1 on held-out images: {} (predicting the mean color: {})\n\
         top-1 on held-out images with a few labels: {} from the encoder, {} from scratch\nopen {}",
        number(l1(outcome.metric("val_loss"))),
        number(l1(outcome.metric("baseline_loss"))),
        percent(top1(0)),
        percent(top1(1)),
        outcome.report.display()
    );
    print_end(common, (steps, total), &prose, &json)
}
