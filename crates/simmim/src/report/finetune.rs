//! The report of a fine-tuning run: accuracy, accuracy per class, confusion matrix, curves and recipe.

use super::run::{line, points, smoothed, step_chart};
use super::{Number, Page, Section, Series, Style};
use crate::evaluation::ClassificationReport;
use crate::pictures::Picture;
use crate::recipe::FinetuneRecipe;
use crate::run::checkpoint::State;
use crate::run::{LogEntry, Resolved};

/// Largest number of classes for which the confusion matrix is also shown as a table.
const MAX_CLASSES_IN_TABLE: usize = 20;

/// Width in pixels at which the confusion matrix is shown.
const CONFUSION_WIDTH_PX: usize = 480;

/// The report of a run of `total` steps in its current state; `last` is the last evaluation of the held-out images.
pub fn finetune_page(
    log: &[LogEntry],
    resolved: &Resolved<FinetuneRecipe>,
    state: &State,
    total: u64,
    last: Option<&ClassificationReport>,
) -> Page {
    let run = &resolved.run;
    let beginning = run.from.as_ref().map_or("from scratch".into(), |from| format!("from {from}"));
    let mut sections = vec![Section::Numbers(numbers(log, resolved, state, total))];
    if let Some(last) = last {
        let percent = |key: &str| points(log, key);
        sections.push(Section::Heading("Accuracy".into()));
        let mut series = vec![("top-5", "top5"), ("top-1", "top1")];
        if last.mean_average_precision.is_some() {
            series.push(("mAP", "mean_average_precision"));
        }
        let series = series.into_iter().map(|(name, key)| Series {
            name: name.into(),
            points: percent(key),
            style: Style::Points,
        });
        sections.push(step_chart("Held-out accuracy", "percent", series.collect()));
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
        step_chart("Loss (training: with mixed and smoothed labels)", "loss", series),
        step_chart("Learning rate", "learning rate", line("learning rate", points(log, "lr"))),
        step_chart("Gradient norm before clipping", "norm", line("gradient norm", points(log, "gradient_norm"))),
        Section::Code { caption: "resolved.toml".into(), text: resolved.to_toml() },
    ]);
    Page {
        title: "Fine-tuning".into(),
        subtitle: format!("{} images of {} · {beginning} · simmim {}", run.images, run.data, run.version),
        sections,
    }
}

fn numbers(log: &[LogEntry], resolved: &Resolved<FinetuneRecipe>, state: &State, total: u64) -> Vec<Number> {
    let number = |label: &str, value: String, note: Option<String>| Number { label: label.into(), value, note };
    let percent = |value: f64| format!("{value:.2} %");
    let mut numbers = vec![number("steps", state.steps.to_string(), Some(format!("of {total}")))];
    let metric = |name: &str| state.metrics.get(name).copied();
    if let (Some(top1), Some(top5), Some(loss)) = (metric("top1"), metric("top5"), metric("val_loss")) {
        let of = match metric("mean_average_precision") {
            Some(_) => "of held-out images that have a class",
            None => "of held-out images",
        };
        numbers.push(number("top-1", percent(top1), Some(of.into())));
        numbers.push(number("top-5", percent(top5), None));
        numbers.push(number("held-out loss", format!("{loss:.4}"), None));
    }
    if let Some(mean) = metric("mean_average_precision") {
        numbers.push(number("mean average precision", percent(mean), Some("over the classes".into())));
    }
    let best = ["best_mean_average_precision", "best_top1"].into_iter().find_map(|name| Some((name, metric(name)?)));
    if let (Some((name, best)), Some(step)) = (best, metric("best_step")) {
        let label = if name == "best_top1" { "best top-1" } else { "best mean average precision" };
        numbers.push(number(label, percent(best), Some(format!("after step {step}"))));
    }
    let run = &resolved.run;
    let speed = points(log, "images_per_second").last().map_or("–".into(), |p| format!("{:.0}", p.1));
    numbers.push(number("images/s", speed, Some(format!("{} threads, {}", run.threads, run.precision))));
    numbers
}

fn per_class(classes: &[String], last: &ClassificationReport) -> Section {
    let rows = classes.iter().zip(last.confusion.per_class()).enumerate().map(|(class, (name, of_class))| {
        let correct = of_class.top1.map_or("–".into(), |top1| format!("{top1:.1} %"));
        vec![name.clone(), of_class.images.to_string(), correct, mistaken(classes, last.confusion.row(class), class)]
    });
    Section::Table {
        caption: "Every class: number of held-out images, accuracy, and the most frequent wrong prediction".into(),
        header: ["class", "images", "correct", "most frequent wrong prediction"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    }
}

/// The class that the images of a row are most often taken for wrongly; of several, the first, and how many others.
fn mistaken(classes: &[String], row: &[f64], class: usize) -> String {
    let wrong = || (0..classes.len()).filter(|other| *other != class && row[*other] > 0.0);
    let most = wrong().map(|other| row[other]).fold(0.0, f64::max);
    let equal: Vec<usize> = wrong().filter(|other| row[*other] == most).collect();
    match equal.split_first() {
        None => "–".into(),
        Some((first, [])) => format!("{} ({})", classes[*first], images(most)),
        Some((first, others)) => format!("{} ({}), and {} more as often", classes[*first], images(most), others.len()),
    }
}

/// A number of images. Where predictions are tied, it is not a whole number.
fn images(count: f64) -> String {
    let rounded = format!("{count:.2}");
    rounded.strip_suffix(".00").unwrap_or(&rounded).to_owned()
}

/// The confusion matrix: rows are labels, columns are predictions.
fn confusion(classes: &[String], last: &ClassificationReport) -> Vec<Section> {
    let count = classes.len();
    let shade = |label: usize| {
        let row = last.confusion.row(label);
        let sum = row.iter().sum::<f64>().max(1.0);
        row.iter().map(|images| (1.0 - images / sum) as f32).collect::<Vec<f32>>()
    };
    let pixels = (0..count).flat_map(shade).collect();
    let picture = Picture { channels: 1, height: count, width: count, pixels };
    let picture = picture.enlarged((CONFUSION_WIDTH_PX / count).max(1)).png_bytes().ok();
    let mut sections: Vec<Section> = picture
        .map(|png| Section::Image {
            caption: "Confusion matrix: a row per label, a column per predicted class; darker cells have more images."
                .into(),
            png,
            width_px: CONFUSION_WIDTH_PX,
        })
        .into_iter()
        .collect();
    if count <= MAX_CLASSES_IN_TABLE {
        let cells = |label: usize| last.confusion.row(label).iter().map(|count| images(*count));
        let rows = classes.iter().enumerate();
        let rows = rows.map(|(label, name)| [name.clone()].into_iter().chain(cells(label)).collect());
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
    use crate::evaluation::{Accuracy, Confusion};
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
            data_sample: None,
            val: None,
            val_sample: None,
            from: None,
            classes: ["cat", "dog", "emu"].map(str::to_owned).to_vec(),
            mean: vec![0.5],
            std: vec![0.25],
            palette: Vec::new(),
            tokenizer: None,
        };
        let resolved = Resolved { recipe: resolve_as("finetune-vit-cifar", &[]).unwrap(), run };
        let mut confusion = Confusion::new(3);
        for (predicted, label) in [(0, 0), (0, 0), (1, 0), (1, 1), (1, 1)] {
            confusion.count(&[0, 1, 2].map(|class| if class == predicted { 1.0 } else { 0.0 }), &[label]);
        }
        let last = ClassificationReport {
            images: 5,
            accuracy: Accuracy { images: 5, correct: 4.0, in_top5: 5.0 },
            loss: 0.5,
            mean_average_precision: None,
            confusion,
            skipped: Vec::new(),
            images_per_second: 1.0,
        };
        let metrics =
            [("top1", 80.0), ("top5", 100.0), ("val_loss", 0.5)].map(|(name, value)| (name.to_owned(), value));
        let state = State { metrics: metrics.into(), ..State::default() };
        let html = finetune_page(&[], &resolved, &state, 9, Some(&last)).render();
        for part in ["from scratch", "80.00 %", "66.7 %", "dog (1)", "Confusion", "fine-tuning"] {
            assert!(html.to_lowercase().contains(&part.to_lowercase()), "{part}");
        }
        let without_images = "<td>emu</td><td class=\"number\">0</td><td class=\"number\">–</td><td>–</td>";
        assert!(html.contains(without_images), "{html}");
    }

    #[test]
    fn wrong_predictions_that_are_as_frequent_are_counted() {
        let classes = ["a", "b", "c", "d"].map(str::to_owned);
        assert_eq!(mistaken(&classes, &[2.0, 1.0, 0.0, 3.0], 0), "d (3)");
        assert_eq!(mistaken(&classes, &[0.25; 4], 1), "a (0.25), and 2 more as often");
        assert_eq!(mistaken(&classes, &[0.0, 5.0, 0.0, 0.0], 1), "–");
    }
}
