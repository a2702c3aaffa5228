//! The report of a pre-training run: its state, curves, pictures and recipe.

use super::{Chart, Number, Page, Scale, Section, Series, Shown, Style};
use crate::run::{LogEntry, Resolved};

/// Decay of the exponential moving average of the loss.
const SMOOTHING: f64 = 0.9;

/// Width in pixels at which pictures are shown.
const PICTURE_WIDTH_PX: usize = 900;

/// The report of a run after `steps` of `total` steps, with its last `predictions`.
pub fn run_page(
    log: &[LogEntry],
    resolved: &Resolved,
    steps: u64,
    total: u64,
    predictions: Shown,
    is_held_out: bool,
) -> Page {
    let run = &resolved.run;
    let points = |key: &str| points(log, key);
    let loss = points("loss");
    let held_out = points("val_loss");
    let baseline = points("baseline_loss");
    let number = |label: &str, value: String, note: Option<String>| Number { label: label.into(), value, note };
    let last = |points: &[(f64, f64)]| points.last().map_or("–".into(), |p| format!("{:.4}", p.1));
    let mut numbers = vec![
        number("steps", format!("{steps}"), Some(format!("of {total}"))),
        number("loss", last(&loss), Some("last logged".into())),
    ];
    if is_held_out {
        numbers.push(number("held-out loss", last(&held_out), Some("with fixed masks".into())));
        if !baseline.is_empty() {
            let note = "loss of predicting the mean of the visible pixels";
            numbers.push(number("visible mean", last(&baseline), Some(note.into())));
        }
    }
    let speed = points("images_per_second");
    numbers.push(number(
        "images/s",
        speed.last().map_or("–".into(), |p| format!("{:.0}", p.1)),
        Some(format!("{} threads, {}", run.threads, run.precision)),
    ));

    let mut series = vec![
        Series { name: "training, raw".into(), points: loss.clone(), style: Style::ThinLine },
        Series { name: "training".into(), points: smoothed(&loss), style: Style::Line },
    ];
    if is_held_out {
        series.push(Series { name: "held out".into(), points: held_out, style: Style::Points });
        if !baseline.is_empty() {
            series.push(Series { name: "visible mean".into(), points: baseline, style: Style::Dashed });
        }
    }
    let beginning = run.from.as_ref().map_or(String::new(), |from| format!(" · continued from {from}"));
    let which = if is_held_out { "held-out images" } else { "training images, center-cropped" };
    let mut sections = vec![Section::Numbers(numbers)];
    sections.extend(monitor_sections(log));
    sections.extend([
        Section::Heading("Predictions".into()),
        Section::Image {
            caption: format!(
                "After {} steps, on {which}: original, masked, prediction, prediction pasted into the visible pixels.",
                predictions.step
            ),
            png: predictions.png.to_vec(),
            width_px: PICTURE_WIDTH_PX,
        },
        Section::Heading("Curves".into()),
        step_chart("Loss", "loss", series),
        step_chart("Learning rate", "learning rate", line("learning rate", points("lr"))),
        step_chart("Gradient norm before clipping", "norm", line("gradient norm", points("gradient_norm"))),
        Section::Code { caption: "resolved.toml".into(), text: resolved.to_toml() },
    ]);
    Page {
        title: "Masked pre-training".into(),
        subtitle: format!("{} images of {}{beginning} · simmim {}", run.images, run.data, run.version),
        sections,
    }
}

/// The results of the monitor, if the run has one.
fn monitor_sections(log: &[LogEntry]) -> Vec<Section> {
    let points = |key: &str| points(log, key);
    let last = |key: &str| points(key).last().map(|(_, value)| *value);
    let (Some(knn), Some(rank_me)) = (last("knn_top1"), last("rank_me")) else {
        return Vec::new();
    };
    let number =
        |label: &str, value: String, note: &str| Number { label: label.into(), value, note: Some(note.into()) };
    let dots = |name: &str, key: &str| Series { name: name.into(), points: points(key), style: Style::Points };
    // null if the probe diverged at every rate
    let probe = log.iter().rev().find_map(|entry| entry.get("probe_top1")).and_then(|top1| top1.as_f64());
    let share = last("monitor_time_share").map_or("–".into(), |share| format!("{:.1} %", 100.0 * share));
    vec![
        Section::Heading("Do the features get better?".into()),
        Section::Numbers(vec![
            number("nearest neighbors", format!("{knn:.1} %"), "top-1 of frozen features"),
            number("linear probe", probe.map_or("–".into(), |top1| format!("{top1:.1} %")), "top-1 of frozen features"),
            number("effective rank", format!("{rank_me:.1}"), "RankMe"),
            number("cost", share, "of the run's time"),
        ]),
        step_chart(
            "Accuracy of frozen features on a labeled data set",
            "percent",
            vec![dots("linear probe", "probe_top1"), dots("nearest neighbors", "knn_top1")],
        ),
        step_chart("Effective rank of the features (RankMe)", "rank", vec![dots("effective rank", "rank_me")]),
        step_chart("Variance of the features", "variance", vec![dots("variance", "feature_variance")]),
    ]
}

/// The values of a key of the log, by step.
pub(crate) fn points(log: &[LogEntry], key: &str) -> Vec<(f64, f64)> {
    let point = |entry: &LogEntry| Some((entry.get("step")?.as_f64()?, entry.get(key)?.as_f64()?));
    log.iter().filter_map(point).collect()
}

/// A chart over steps.
pub(crate) fn step_chart(title: &str, y_label: &str, series: Vec<Series>) -> Section {
    Section::Chart(Chart {
        title: title.into(),
        x_label: "step".into(),
        y_label: y_label.into(),
        y_scale: Scale::Linear,
        series,
    })
}

/// A single curve.
pub(super) fn line(name: &str, points: Vec<(f64, f64)>) -> Vec<Series> {
    vec![Series { name: name.into(), points, style: Style::Line }]
}

/// Exponential moving average, starting with the first value.
pub(super) fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut mean = None;
    points
        .iter()
        .map(|(x, y)| {
            let value = mean.map_or(*y, |m: f64| SMOOTHING * m + (1.0 - SMOOTHING) * y);
            mean = Some(value);
            (*x, value)
        })
        .collect()
}
