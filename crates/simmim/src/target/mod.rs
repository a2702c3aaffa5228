//! What is predicted for each feature cell, and how a prediction becomes a picture again.
//!
//! A target is one file with one type that implements [`Target`], and one arm in [`target`].

mod cells;
mod colour_bins;
mod colour_clusters;
mod colours;
mod hog;
mod mean_colour;
mod normalized_pixels;
pub(crate) mod palette;
mod patch_normalized_pixels;
mod pixels;
mod tokens;

pub use cells::{Cells, Layout, averaged};
pub use colour_bins::ColourBins;
pub use colour_clusters::ColourClusters;
pub use colours::Colours;
pub use hog::Hog;
pub use mean_colour::MeanColour;
pub use normalized_pixels::NormalizedPixels;
pub use palette::Palette;
pub use patch_normalized_pixels::PatchNormalizedPixels;
pub use pixels::Pixels;
pub use tokens::Tokens;

use crate::error::Result;
use crate::recipe::{NormalizeBy, Recipe, TargetKind};
use simmim_engine::Images;
use std::borrow::Cow;
use std::path::Path;

/// What is true of some images, at every position of every channel: a map `[B, C, h, w]`.
pub enum Truth<'a> {
    /// Values: the loss is a regression.
    Values(Cow<'a, [f32]>),
    /// Classes, each below the layout's `K`: the loss is a classification.
    Classes(Vec<u32>),
}

/// What a picture of a prediction shows, and so what an error of its pixels means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// Predicted pixels.
    Pixels,
    /// What was predicted, with brightness and contrast of the true image.
    Detail,
    /// Something drawn for the eye, whose pixels cannot be compared with an image's.
    Drawing,
    /// What a decoder makes of predicted tokens.
    Decoded,
}

impl Shows {
    /// In words, beside an error of the picture's pixels.
    pub fn describe(self) -> &'static str {
        match self {
            Shows::Pixels => "predicted pixels against true ones",
            Shows::Detail => {
                "predicted detail with the true image's own mean and deviation put back, against true pixels"
            }
            Shows::Drawing => "nothing: the picture is a drawing of what was predicted",
            Shows::Decoded => "what predicted tokens decode to, against true pixels",
        }
    }
}

/// What is predicted.
pub trait Target {
    /// What a head predicts of a cell.
    fn layout(&self, cells: &Cells) -> Layout;

    /// What is true of a batch.
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → a map `[B, C', h, w]` of the layout's channels.
    fn truth<'a>(&self, images: &Images<'a>) -> Truth<'a>;

    /// What a prediction looks like: an image, normalised as the true `image` is.
    ///
    /// # Shapes
    /// `image` `[C, H, W]`, `prediction` a map `[C', h, w]`, or `[C', h, w, K]` of scores → `[C, H, W]`.
    fn picture(&self, cells: &Cells, image: &[f32], prediction: &[f32]) -> Vec<f32>;

    /// What [`Target::picture`] shows.
    fn shows(&self) -> Shows {
        Shows::Pixels
    }

    /// How many threads it may compute on from here on; until then it is one.
    fn use_threads(&mut self, _threads: usize) {}
}

/// The target a recipe names.
///
/// # Errors
/// If a file that it needs cannot be used.
pub fn target(recipe: &Recipe, colours: &Colours) -> Result<Box<dyn Target>> {
    let (position_px, cell_px) = (recipe.position_px(), recipe.encoder.stride_px());
    let colours = colours.clone();
    Ok(match recipe.target.kind {
        TargetKind::Pixels => Box::new(Pixels { position_px }),
        TargetKind::NormalizedPixels => match recipe.target.normalize {
            NormalizeBy::Window => {
                Box::new(NormalizedPixels { window_px: recipe.target.window_px.expect("recipes are checked") })
            }
            NormalizeBy::Patch => Box::new(PatchNormalizedPixels { cell_px }),
        },
        TargetKind::ColourBins => Box::new(ColourBins { bins: recipe.target.bins, position_px, colours }),
        TargetKind::ColourClusters => {
            Box::new(ColourClusters { clusters: recipe.target.clusters, position_px, colours })
        }
        TargetKind::MeanColour => Box::new(MeanColour { cell_px, colours }),
        TargetKind::Hog => Box::new(Hog { position_px }),
        TargetKind::Tokens => {
            let path = recipe.target.tokenizer.as_ref().expect("recipes are checked");
            Box::new(Tokens::load(Path::new(path), &colours, position_px)?)
        }
    })
}

/// The class with the highest score of each prediction, `[.., K]` → `[..]`.
pub fn most_likely(scores: &[f32], classes: usize) -> Vec<u32> {
    let best = |scores: &[f32]| {
        let better = |best: usize, i: usize| if scores[i] > scores[best] { i } else { best };
        (1..classes).fold(0, better) as u32
    };
    scores.chunks_exact(classes).map(best).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_likely_class_is_the_first_of_the_best() {
        assert_eq!(most_likely(&[0.0, 2.0, 2.0, 5.0, -1.0, 0.0], 3), [1, 0]);
    }
}
