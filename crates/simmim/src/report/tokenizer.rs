//! The report of the training of a tokenizer: reconstructions, tokens in use, curves and recipe.

use super::run::{line, points, step_chart};
use super::{Number, Page, Section, Series, Shown, Style};
use crate::recipe::TokenizerRecipe;
use crate::run::{LogEntry, Resolved};

/// Width in pixels at which pictures are shown.
const PICTURE_WIDTH_PX: usize = 1000;

/// The report after `steps` of `total` steps, with the last `reconstructions`.
pub fn tokenizer_page(
    log: &[LogEntry],
    resolved: &Resolved<TokenizerRecipe>,
    steps: u64,
    total: u64,
    reconstructions: Shown,
    is_held_out: bool,
) -> Page {
    let run = &resolved.run;
    let points = |key: &str| points(log, key);
    let number = |label: &str, value: String, note: String| Number { label: label.into(), value, note: Some(note) };
    let last = |key: &str, digits: usize| points(key).last().map_or("–".into(), |p| format!("{:.digits$}", p.1));
    let which = if is_held_out { "held-out images" } else { "training images, center-cropped" };
    let vocabulary = resolved.recipe.tokenizer.vocabulary;
    let dots = |name: &str, key: &str| vec![Series { name: name.into(), points: points(key), style: Style::Points }];
    Page {
        title: "Tokenizer".into(),
        subtitle: format!("{} images of {} · simmim {}", run.images, run.data, run.version),
        sections: vec![
            Section::Numbers(vec![
                number("steps", format!("{steps}"), format!("of {total}")),
                number("L1 error", last("l1", 4), "mean over pixel values from 0 to 1".into()),
                number("tokens in use", last("tokens_in_use", 0), format!("of {vocabulary}")),
                number("perplexity", last("perplexity", 0), "of the token frequencies".into()),
                number("images/s", last("images_per_second", 0), format!("{} threads, {}", run.threads, run.precision)),
            ]),
            Section::Heading("Reconstructions".into()),
            Section::Image {
                caption: format!(
                    "After {} steps, on {which}: each next to its reconstruction from tokens.",
                    reconstructions.step
                ),
                png: reconstructions.png.to_vec(),
                width_px: PICTURE_WIDTH_PX,
            },
            Section::Heading("Curves".into()),
            step_chart("Loss", "per pixel value", line("loss", points("loss"))),
            step_chart("Error of reconstructions", "pixel value, 0 to 1", dots("mean absolute error", "l1")),
            step_chart("Tokens", "perplexity", dots("perplexity", "perplexity")),
            step_chart("Temperature", "temperature", dots("temperature", "temperature")),
            step_chart("Learning rate", "learning rate", line("learning rate", points("lr"))),
            Section::Code { caption: "resolved.toml".into(), text: resolved.to_toml() },
        ],
    }
}
