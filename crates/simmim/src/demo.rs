//! The demo: pre-training on images embedded in the binary, then fine-tuning with a few of their labels, once from the
//! pre-trained encoder and once from scratch.

use crate::error::{Error, Result};
use crate::report::{Number, Section, Series, Shown, Style, points, run_page, step_chart};
use crate::run::{LogEntry, read_log, read_resolved};
use crate::train::{Input, Outcome, picture_path};
use simmim_data::idx_from_bytes;
use std::path::{Path, PathBuf};

/// Name of the pre-training recipe.
pub const RECIPE: &str = "demo";

/// Name of the fine-tuning recipe.
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

/// The edits of the pre-training that also apply to the fine-tuning, which must have the same encoder.
pub fn shared_edits(edits: &[String]) -> Vec<String> {
    let is_shared = |edit: &&String| edit.starts_with("encoder.") || edit.starts_with("train.max_steps");
    edits.iter().filter(is_shared).cloned().collect()
}

/// Run folders of the two fine-tunings, in that of the pre-training: from the encoder, and from scratch.
pub fn finetune_folders(out: &Path) -> [PathBuf; 2] {
    ["finetune-pretrained", "finetune-scratch"].map(|name| out.join(name))
}

/// Rewrites the report of the pre-training, with the results of the two fine-tunings on top.
///
/// # Errors
/// If files of the runs cannot be read, or the page cannot be written.
pub fn write_report(out: &Path, pretrained: &Outcome, finetuned: &[Outcome; 2]) -> Result<()> {
    let resolved = read_resolved(out)?;
    let picture = picture_path(out, pretrained.steps);
    let png = std::fs::read(&picture).map_err(Error::io(&picture))?;
    let shown = Shown { step: pretrained.steps, png: &png };
    let mut page = run_page(&read_log(out)?, &resolved, pretrained.steps, pretrained.total_steps, shown, true);
    let [of_encoder, of_scratch] = finetune_folders(out);
    let sections = finetune_sections(finetuned, &read_log(&of_encoder)?, &read_log(&of_scratch)?);
    page.title = "SimMIM demo".into();
    page.sections =
        sections.into_iter().chain([Section::Heading("Pre-training".into())]).chain(page.sections).collect();
    Ok(page.write(&out.join("report.html"))?)
}

fn finetune_sections(runs: &[Outcome; 2], of_encoder: &[LogEntry], of_scratch: &[LogEntry]) -> Vec<Section> {
    let percent = |run: &Outcome| run.metric("top1").map_or("–".into(), |top1| format!("{top1:.1} %"));
    let series = |name: &str, log| Series { name: name.into(), points: points(log, "top1"), style: Style::Points };
    let number = |label: &str, run: &Outcome, note: &str| Number {
        label: label.into(),
        value: percent(run),
        note: Some(note.into()),
    };
    vec![
        Section::Heading("Fine-tuning from the encoder and from scratch".into()),
        Section::Numbers(vec![
            number("from the encoder", &runs[0], "top-1 of held-out images"),
            number("from scratch", &runs[1], "the same network, labels and steps"),
        ]),
        step_chart(
            "Held-out top-1 as few labels are learned",
            "percent",
            vec![series("from scratch", of_scratch), series("from the encoder", of_encoder)],
        ),
        Section::Text(
            "Both were trained on the same few labeled images; the encoder was pre-trained on thousands without labels. \
             Their own reports, with every class and the confusion matrix, are finetune-pretrained/report.html and \
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
        let edits = ["encoder.width=16", "mask.ratio=0.5", "train.max_steps=3"].map(str::to_owned);
        assert_eq!(shared_edits(&edits), ["encoder.width=16", "train.max_steps=3"]);
    }
}
