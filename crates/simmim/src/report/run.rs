//! The page of one run: where it stands, its curves, its pictures, its recipe.

use serde_json::{Map, Value};

use super::{Chart, Number, Page, Scale, Section, Series, Style};
use crate::run::Resolved;

/// Weight of the past in the smoothed loss.
const SMOOTHING: f64 = 0.9;

/// Width at which pictures are shown.
const PICTURE_WIDTH_PX: usize = 900;

/// The page of a run after `updates` of `total`; `predictions` is a PNG of [`Sheet`](crate::picture::Sheet) rows.
pub fn run_page(
    log: &[Map<String, Value>],
    resolved: &Resolved,
    updates: u64,
    total: u64,
    predictions: &[u8],
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
        number("updates", format!("{updates}"), Some(format!("of {total}"))),
        number("loss", last(&loss), Some("last logged".into())),
    ];
    if is_held_out {
        numbers.push(number("held-out loss", last(&held_out), Some("same masks every time".into())));
        if !baseline.is_empty() {
            let note = "loss of predicting the mean of what is visible";
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
    let which = if is_held_out { "held-out images" } else { "training images, uncropped" };
    Page {
        title: "Masked pre-training".into(),
        subtitle: format!("{} images of {} · simmim {}", run.images, run.data, run.version),
        sections: vec![
            Section::Numbers(numbers),
            Section::Heading("Predictions".into()),
            Section::Image {
                caption: format!(
                    "After {updates} updates, on {which}: original, masked, prediction, prediction pasted into the visible pixels."
                ),
                png: predictions.to_vec(),
                width_px: PICTURE_WIDTH_PX,
            },
            Section::Heading("Curves".into()),
            update_chart("Loss", "loss", series),
            update_chart("Learning rate", "learning rate", line("learning rate", points("lr"))),
            update_chart("Gradient norm before clipping", "norm", line("gradient norm", points("gradient_norm"))),
            Section::Code { caption: "resolved.toml".into(), text: resolved.to_toml() },
        ],
    }
}

/// A number of the log by update.
pub(super) fn points(log: &[Map<String, Value>], key: &str) -> Vec<(f64, f64)> {
    let point = |entry: &Map<String, Value>| Some((entry.get("update")?.as_f64()?, entry.get(key)?.as_f64()?));
    log.iter().filter_map(point).collect()
}

/// A chart over updates.
pub(super) fn update_chart(title: &str, y_label: &str, series: Vec<Series>) -> Section {
    Section::Chart(Chart {
        title: title.into(),
        x_label: "update".into(),
        y_label: y_label.into(),
        y_scale: Scale::Linear,
        series,
    })
}

/// A single curve.
pub(super) fn line(name: &str, points: Vec<(f64, f64)>) -> Vec<Series> {
    vec![Series { name: name.into(), points, style: Style::Line }]
}

/// Exponential moving average, started at the first value.
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
