//! The page of a tokenizer's training: reconstructions, tokens in use, curves, recipe.

use serde_json::{Map, Value};

use super::run::{line, points, update_chart};
use super::{Number, Page, Section, Series, Style};
use crate::recipe::TokenizerRecipe;
use crate::run::Resolved;

/// Width at which pictures are shown.
const PICTURE_WIDTH_PX: usize = 1000;

/// The page after `updates` of `total`; `reconstructions` is a PNG of [`Sheet`](crate::picture::Sheet) rows.
pub fn tokenizer_page(
    log: &[Map<String, Value>],
    resolved: &Resolved<TokenizerRecipe>,
    updates: u64,
    total: u64,
    reconstructions: &[u8],
    is_held_out: bool,
) -> Page {
    let run = &resolved.run;
    let points = |key: &str| points(log, key);
    let number = |label: &str, value: String, note: String| Number { label: label.into(), value, note: Some(note) };
    let last = |key: &str, digits: usize| points(key).last().map_or("–".into(), |p| format!("{:.digits$}", p.1));
    let which = if is_held_out { "held-out images" } else { "training images, uncropped" };
    let vocabulary = resolved.recipe.tokenizer.vocabulary;
    let dots = |name: &str, key: &str| vec![Series { name: name.into(), points: points(key), style: Style::Points }];
    Page {
        title: "Tokenizer".into(),
        subtitle: format!("{} images of {} · simmim {}", run.images, run.data, run.version),
        sections: vec![
            Section::Numbers(vec![
                number("updates", format!("{updates}"), format!("of {total}")),
                number("error of a pixel", last("l1", 4), "mean, white being 1".into()),
                number("tokens in use", last("tokens_in_use", 0), format!("of {vocabulary}")),
                number("perplexity", last("perplexity", 0), "tokens, were all as frequent".into()),
                number("images/s", last("images_per_second", 0), format!("{} threads, {}", run.threads, run.precision)),
            ]),
            Section::Heading("Reconstructions".into()),
            Section::Image {
                caption: format!("After {updates} updates, on {which}: each beside what its tokens decode to."),
                png: reconstructions.to_vec(),
                width_px: PICTURE_WIDTH_PX,
            },
            Section::Heading("Curves".into()),
            update_chart("Loss", "per pixel value", line("loss", points("loss"))),
            update_chart("Error of reconstructions", "white being 1", dots("mean absolute error", "l1")),
            update_chart("Tokens", "perplexity", dots("perplexity", "perplexity")),
            update_chart("Temperature", "temperature", dots("temperature", "temperature")),
            update_chart("Learning rate", "learning rate", line("learning rate", points("lr"))),
            Section::Code { caption: "resolved.toml".into(), text: resolved.to_toml() },
        ],
    }
}
