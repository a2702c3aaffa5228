//! The page of one fine-tuning run: how well classes are told, which are taken for which, its curves, its recipe.

use serde_json::{Map, Value};

use super::run::{line, points, smoothed, update_chart};
use super::{Number, Page, Section, Series, Style};
use crate::checkpoint::State;
use crate::evaluation::Evaluation;
use crate::picture::Picture;
use crate::recipe::FinetuneRecipe;
use crate::run::Resolved;

/// More classes than these have their confusion as a picture only.
const MOST_IN_TABLE: usize = 20;

/// Width at which the picture of the confusion is shown.
const CONFUSION_WIDTH_PX: usize = 480;

/// The page of a run where it stands, of `total` updates; `last` is the last look at the held-out images.
pub fn finetune_page(
    log: &[Map<String, Value>],
    resolved: &Resolved<FinetuneRecipe>,
    state: &State,
    total: u64,
    last: Option<&Evaluation>,
) -> Page {
    let run = &resolved.run;
    let beginning = run.from.as_ref().map_or("from scratch".into(), |from| format!("from {from}"));
    let mut sections = vec![Section::Numbers(numbers(log, resolved, state, total))];
    if let Some(last) = last {
        let percent = |key: &str| points(log, key);
        sections.push(Section::Heading("Accuracy".into()));
        sections.push(update_chart(
            "Held-out accuracy",
            "percent",
            vec![
                Series { name: "top-5".into(), points: percent("top5"), style: Style::Points },
                Series { name: "top-1".into(), points: percent("top1"), style: Style::Points },
            ],
        ));
        sections.push(per_class(&run.classes, last));
        sections.extend(confusion(&run.classes, last));
    }
    let loss = points(log, "loss");
    let mut series = vec![
        Series { name: "training, raw".into(), points: loss.clone(), style: Style::ThinLine },
        Series { name: "training".into(), points: smoothed(&loss), style: Style::Line },
    ];
    if last.is_some() {
        series.push(Series { name: "held out".into(), points: points(log, "val_loss"), style: Style::Points });
    }
    sections.extend([
        Section::Heading("Curves".into()),
        update_chart("Loss (in training of mixed and smoothed labels)", "loss", series),
        update_chart("Learning rate", "learning rate", line("learning rate", points(log, "lr"))),
        update_chart("Gradient norm before clipping", "norm", line("gradient norm", points(log, "gradient_norm"))),
        Section::Code { caption: "resolved.toml".into(), text: resolved.to_toml() },
    ]);
    Page {
        title: "Fine-tuning".into(),
        subtitle: format!("{} images of {} · {beginning} · simmim {}", run.images, run.data, run.version),
        sections,
    }
}

fn numbers(log: &[Map<String, Value>], resolved: &Resolved<FinetuneRecipe>, state: &State, total: u64) -> Vec<Number> {
    let number = |label: &str, value: String, note: Option<String>| Number { label: label.into(), value, note };
    let percent = |value: f64| format!("{value:.2} %");
    let mut numbers = vec![number("updates", state.updates.to_string(), Some(format!("of {total}")))];
    if let (Some(top1), Some(top5), Some(loss)) = (state.top1, state.top5, state.val_loss) {
        numbers.push(number("top-1", percent(top1), Some("of held-out images".into())));
        numbers.push(number("top-5", percent(top5), None));
        numbers.push(number("held-out loss", format!("{loss:.4}"), None));
    }
    if let (Some(top1), Some(update)) = (state.best_top1, state.best_update) {
        numbers.push(number("best top-1", percent(top1), Some(format!("after update {update}"))));
    }
    let run = &resolved.run;
    let speed = points(log, "images_per_second").last().map_or("–".into(), |p| format!("{:.0}", p.1));
    numbers.push(number("images/s", speed, Some(format!("{} threads, {}", run.threads, run.precision))));
    numbers
}

fn per_class(classes: &[String], last: &Evaluation) -> Section {
    let rows = classes.iter().zip(last.per_class()).enumerate().map(|(class, (name, (images, right)))| {
        let row = &last.confusion[class * classes.len()..][..classes.len()];
        let other =
            (0..classes.len()).filter(|other| *other != class && row[*other] > 0).max_by_key(|other| row[*other]);
        let mistaken = other.map_or("–".into(), |other| format!("{} ({})", classes[other], row[other]));
        let right = if images == 0 { "–".into() } else { format!("{right:.1} %") };
        vec![name.clone(), images.to_string(), right, mistaken]
    });
    Section::Table {
        caption: "Every class: held-out images, those told rightly, and what the others are most often taken for"
            .into(),
        header: ["class", "images", "right", "most often taken for"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    }
}

/// Rows are the classes of images, columns what they were taken for.
fn confusion(classes: &[String], last: &Evaluation) -> Vec<Section> {
    let count = classes.len();
    let shade = |row: &[u32]| {
        let sum = row.iter().sum::<u32>().max(1) as f32;
        row.iter().map(|images| 1.0 - *images as f32 / sum).collect::<Vec<f32>>()
    };
    let pixels = last.confusion.chunks_exact(count).flat_map(shade).collect();
    let picture = Picture { channels: 1, height: count, width: count, pixels };
    let picture = picture.enlarged((CONFUSION_WIDTH_PX / count).max(1)).png_bytes().ok();
    let mut sections: Vec<Section> = picture
        .map(|png| Section::Image {
            caption:
                "Confusion: a row for each class, a column for what its images are taken for; the darker the more."
                    .into(),
            png,
            width_px: CONFUSION_WIDTH_PX,
        })
        .into_iter()
        .collect();
    if count <= MOST_IN_TABLE {
        let rows = classes.iter().zip(last.confusion.chunks_exact(count));
        let rows = rows.map(|(name, row)| [name.clone()].into_iter().chain(row.iter().map(u32::to_string)).collect());
        sections.push(Section::Table {
            caption: "The same in numbers".into(),
            header: [String::new()].into_iter().chain(classes.iter().cloned()).collect(),
            rows: rows.collect(),
        });
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accuracy::Accuracy;
    use crate::recipe::resolve_as;
    use crate::run::RunInfo;

    #[test]
    fn a_page_shows_each_class_and_what_it_is_taken_for() {
        let run = RunInfo {
            version: "1".into(),
            device: "cpu".into(),
            precision: "f32".into(),
            precision_reason: String::new(),
            threads: 2,
            seed: 0,
            data: "pets".into(),
            images: 10,
            val: None,
            from: None,
            classes: vec!["cat".into(), "dog".into()],
            mean: vec![0.5],
            std: vec![0.25],
            palette: Vec::new(),
        };
        let resolved = Resolved { recipe: resolve_as("finetune-vit-cifar", &[]).unwrap(), run };
        let last = Evaluation {
            accuracy: Accuracy { images: 5, right: 4, among_five: 5 },
            loss: 0.5,
            mean_average_precision: None,
            confusion: vec![2, 1, 0, 2],
            skipped: Vec::new(),
            images_per_second: 1.0,
        };
        let state = State { top1: Some(80.0), top5: Some(100.0), val_loss: Some(0.5), ..State::default() };
        let html = finetune_page(&[], &resolved, &state, 9, Some(&last)).render();
        for part in ["from scratch", "80.00 %", "66.7 %", "dog (1)", "Confusion", "fine-tuning"] {
            assert!(html.to_lowercase().contains(&part.to_lowercase()), "{part}");
        }
    }
}
