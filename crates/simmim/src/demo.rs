//! The demonstration: pre-training on images inside the binary, then fine-tuning on few of their labels from the
//! encoder and from scratch, in minutes.

use crate::error::{Error, Result};
use crate::report::{Chart, Number, Scale, Section, Series, Style, run_page};
use crate::run::{read_log, read_resolved};
use crate::train::{Finetuned, Input, Outcome};
use serde_json::{Map, Value};
use simmim_data::idx_from_bytes;
use std::path::{Path, PathBuf};

/// The recipe of the pre-training.
pub const RECIPE: &str = "demo";

/// The recipe of the fine-tuning.
pub const FINETUNE_RECIPE: &str = "finetune-demo";

// Fashion-MNIST (arXiv:1708.07747), MIT, Copyright 2017 Zalando SE: 8,000 and 1,000 of its images.
const TRAIN: &[u8] = include_bytes!("../../../assets/fashion-mnist/train-images-idx3-ubyte.gz");
const TRAIN_LABELS: &[u8] = include_bytes!("../../../assets/fashion-mnist/train-labels-idx1-ubyte.gz");
const TEST: &[u8] = include_bytes!("../../../assets/fashion-mnist/test-images-idx3-ubyte.gz");
const TEST_LABELS: &[u8] = include_bytes!("../../../assets/fashion-mnist/test-labels-idx1-ubyte.gz");

/// Training and held-out images, with labels.
///
/// # Errors
/// If the embedded files are damaged.
pub fn inputs() -> Result<(Input, Input)> {
    let input = |images: &[u8], labels: &[u8], description: &str| -> Result<Input> {
        Ok(Input { source: idx_from_bytes(images, Some(labels), 1)?, description: description.into() })
    };
    Ok((
        input(TRAIN, TRAIN_LABELS, "the embedded Fashion-MNIST")?,
        input(TEST, TEST_LABELS, "the embedded Fashion-MNIST test images")?,
    ))
}

/// Edits of the demonstration that its fine-tuning takes over: the encoder has to be the same.
pub fn shared_edits(edits: &[String]) -> Vec<String> {
    let is_shared = |edit: &&String| edit.starts_with("encoder.") || edit.starts_with("train.max_updates");
    edits.iter().filter(is_shared).cloned().collect()
}

/// Run folders of the two fine-tunings in that of the pre-training: from the encoder, and from scratch.
pub fn finetune_folders(out: &Path) -> [PathBuf; 2] {
    ["finetune-pretrained", "finetune-scratch"].map(|name| out.join(name))
}

/// Rewrites the page of the pre-training with the two fine-tunings on top.
///
/// # Errors
/// If files of the runs cannot be read, or the page cannot be written.
pub fn write_report(out: &Path, pretrained: &Outcome, finetuned: &[Finetuned; 2]) -> Result<()> {
    let resolved = read_resolved(out)?;
    let picture = out.join("pictures").join(format!("update-{:07}.png", pretrained.updates));
    let png = std::fs::read(&picture).map_err(Error::io(&picture))?;
    let mut page = run_page(&read_log(out)?, &resolved, pretrained.updates, pretrained.total_updates, &png, true);
    let [of_encoder, of_scratch] = finetune_folders(out);
    let sections = fine_tuning(finetuned, &read_log(&of_encoder)?, &read_log(&of_scratch)?);
    page.title = "A demonstration of SimMIM".into();
    page.sections =
        sections.into_iter().chain([Section::Heading("Pre-training".into())]).chain(page.sections).collect();
    Ok(page.write(&out.join("report.html"))?)
}

fn fine_tuning(
    runs: &[Finetuned; 2],
    of_encoder: &[Map<String, Value>],
    of_scratch: &[Map<String, Value>],
) -> Vec<Section> {
    let percent = |run: &Finetuned| run.top1.map_or("–".into(), |top1| format!("{top1:.1} %"));
    let points = |log: &[Map<String, Value>]| -> Vec<(f64, f64)> {
        let point = |entry: &Map<String, Value>| Some((entry.get("update")?.as_f64()?, entry.get("top1")?.as_f64()?));
        log.iter().filter_map(point).collect()
    };
    let series = |name: &str, log| Series { name: name.into(), points: points(log), style: Style::Points };
    let number = |label: &str, run: &Finetuned, note: &str| Number {
        label: label.into(),
        value: percent(run),
        note: Some(note.into()),
    };
    vec![
        Section::Heading("What the encoder is good for".into()),
        Section::Numbers(vec![
            number("from the encoder", &runs[0], "top-1 of held-out images"),
            number("from scratch", &runs[1], "the same network, labels and updates"),
        ]),
        Section::Chart(Chart {
            title: "Held-out top-1 as few labels are learnt".into(),
            x_label: "update".into(),
            y_label: "percent".into(),
            y_scale: Scale::Linear,
            series: vec![series("from scratch", of_scratch), series("from the encoder", of_encoder)],
        }),
        Section::Text(
            "Both learn from the same few labelled images; the one has seen thousands without labels before. \
             Their own pages, with every class and the confusion, are finetune-pretrained/report.html and \
             finetune-scratch/report.html."
                .into(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_images_are_whole() {
        let (train, test) = inputs().unwrap();
        assert_eq!((train.source.len(), test.source.len()), (8000, 1000));
        assert_eq!(train.source.get(7999).unwrap().image.height, 28);
        assert_eq!((train.source.classes().len(), test.source.classes().len()), (10, 10));
    }

    #[test]
    fn fine_tuning_takes_over_what_is_of_the_encoder() {
        let edits = ["encoder.width=16", "mask.ratio=0.5", "train.max_updates=3"].map(str::to_owned);
        assert_eq!(shared_edits(&edits), ["encoder.width=16", "train.max_updates=3"]);
    }
}
