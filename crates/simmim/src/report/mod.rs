//! Reports: one self-contained HTML page per run, made from its log and pictures, per collection of images, or for images that are like each other.

mod axis;
mod bars;
mod chart;
mod collection;
mod finetune;
mod gallery;
mod map;
mod page;
mod run;
mod similar;
mod tokenizer;

pub use axis::Scale;
pub use bars::{Bar, Bars};
pub use chart::{Chart, Series, Style};
pub use collection::{Collection, collection_page};
pub use finetune::finetune_page;
pub use gallery::{Gallery, Thumbnail};
pub use map::{MAX_PICTURES, MapFigure, MapPicture, TILE_PX};
pub use page::{Number, Page, Section};
pub use run::run_page;
pub(crate) use run::{points, step_chart};
pub use similar::{SimilarImage, SimilarImages, similar_page, similar_sheet};
pub use tokenizer::tokenizer_page;

/// Pictures of a run, and the step at which they were made.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Number of steps done.
    pub step: u64,
    /// The PNG of a [`Sheet`](crate::pictures::Sheet).
    pub png: &'a [u8],
}

/// Escapes text for use between HTML tags and in quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_text_is_inert() {
        let check = |text: &str, expected: &str| assert_eq!(escape(text), expected);
        check("plain – é", "plain – é");
        check("<b>&\"'", "&lt;b&gt;&amp;&quot;&#39;");
    }
}
