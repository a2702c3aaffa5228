//! The model card: what was trained, on what, with which result, and how it is loaded.

use crate::recipe::AnyRecipe;
use crate::run::{LogEntry, RunInfo};
use serde_json::Value;

/// The text of `README.md`.
pub(super) fn text(model: &str, recipe: &AnyRecipe, run: &RunInfo, log: &[LogEntry], usage: &str) -> String {
    let (height, width) = recipe.data().image_size.height_and_width();
    let what = match recipe {
        AnyRecipe::Pretrain(_) => "pre-trained by masked image modeling (SimMIM, arXiv:2111.09886)",
        AnyRecipe::Finetune(_) => "a classifier, fine-tuned from a pre-trained encoder or trained from scratch",
        AnyRecipe::Tokenizer(_) => "a tokenizer",
    };
    let last = |key: &str| log.iter().rev().find_map(|entry| entry.get(key).and_then(Value::as_f64));
    let results: String = [
        ("step", "steps"),
        ("loss", "loss"),
        ("val_loss", "held-out loss"),
        ("top1", "top-1, percent"),
        ("mean_average_precision", "mean average precision, percent"),
    ]
    .into_iter()
    .filter_map(|(key, name)| Some(format!("| {name} | {} |\n", last(key)?)))
    .collect();
    let results = match results.is_empty() {
        true => "not recorded with these weights\n".to_owned(),
        false => format!("| result | value |\n| --- | --- |\n{results}"),
    };
    let classes = match run.classes.len() {
        0 => String::new(),
        count => format!("- {count} classes: {}\n", run.classes.join(", ")),
    };
    format!(
        "# {model}\n\n\
         An image encoder, {what}, by simmim {}.\n\n\
         ## Loading\n\n```python\n{usage}```\n\n\
         ## Images\n\n\
         - {height} × {width} px, {} channels, normalized with mean {:?} and standard deviation {:?}\n{classes}\
         - trained on {} images of `{}`, seed {}\n\n\
         ## Results\n\n{results}\n\
         ## Recipe\n\n```toml\n{}```\n",
        run.version,
        recipe.data().channels,
        run.mean,
        run.std,
        run.images,
        run.data,
        run.seed,
        recipe.to_toml(),
    )
}
