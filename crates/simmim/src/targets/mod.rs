//! Prediction targets: what a head predicts for each feature, and how a prediction is shown as a picture.
//!
//! A target is one file with one type that implements [`Target`], and one arm in [`target`].

mod color_bins;
mod color_clusters;
mod colors;
mod hog;
mod mean_color;
mod normalized_pixels;
pub(crate) mod palette;
mod patch_grid;
mod patch_normalized_pixels;
mod pixels;
mod tokens;

pub use color_bins::ColorBins;
pub use color_clusters::ColorClusters;
pub use colors::Colors;
pub use hog::Hog;
pub use mean_color::MeanColor;
pub use normalized_pixels::NormalizedPixels;
pub use palette::Palette;
pub(crate) use patch_grid::enlarged;
pub use patch_grid::{Layout, PatchGrid, averaged};
pub use patch_normalized_pixels::PatchNormalizedPixels;
pub use pixels::Pixels;
pub use tokens::Tokens;

use crate::error::Result;
use crate::recipe::{NormalizeBy, Recipe, TargetKind};
use simmim_engine::{Device, Images};
use std::borrow::Cow;
use std::path::Path;

/// The target of a batch: a map `[B, C, h, w]` with one entry per channel and sub-patch.
pub enum TargetValues<'a> {
    /// Values, for a regression loss.
    Values(Cow<'a, [f32]>),
    /// Classes below the `K` of the layout, for cross-entropy.
    Classes(Vec<u32>),
}

/// What a picture of a prediction shows, and so what the error of its pixels means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureKind {
    /// Predicted pixels.
    Pixels,
    /// Predicted detail with the local mean and standard deviation of the original image.
    Detail,
    /// A drawing of the prediction, whose pixels cannot be compared with the image.
    Drawing,
    /// Predicted tokens, decoded to pixels.
    Decoded,
}

impl PictureKind {
    /// A description of the error of the picture's pixels.
    pub fn describe(self) -> &'static str {
        match self {
            PictureKind::Pixels => "predicted pixels, compared with the original",
            PictureKind::Detail => {
                "predicted detail with mean and standard deviation of the original, compared with the original"
            }
            PictureKind::Drawing => "no pixels: the picture is a drawing of the prediction",
            PictureKind::Decoded => "decoded predicted tokens, compared with the original",
        }
    }
}

/// A prediction target.
pub trait Target {
    /// What a head predicts per feature.
    fn layout(&self, grid: &PatchGrid) -> Layout;

    /// The target of a batch.
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → a map `[B, C', h, w]` with the channels of the layout.
    fn values_of<'a>(&self, images: &Images<'a>) -> TargetValues<'a>;

    /// A picture of a prediction, normalized like the original `image`.
    ///
    /// # Shapes
    /// `image` `[C, H, W]`, `prediction` a map of values `[C', h, w]` or of logits `[C', h, w, K]` → `[C, H, W]`.
    fn picture(&self, grid: &PatchGrid, image: &[f32], prediction: &[f32]) -> Vec<f32>;

    /// What [`Target::picture`] shows.
    fn picture_kind(&self) -> PictureKind {
        PictureKind::Pixels
    }
}

/// The target of a recipe; a target that contains a network computes it on `device`.
///
/// # Errors
/// If a file that it needs cannot be used.
///
/// # Panics
/// If the recipe was not checked.
pub fn target(recipe: &Recipe, colors: &Colors, device: &impl Device) -> Result<Box<dyn Target>> {
    let (sub_patch_px, stride_px) = (recipe.sub_patch_px(), recipe.encoder.stride_px());
    let colors = colors.clone();
    Ok(match recipe.target.kind {
        TargetKind::Pixels => Box::new(Pixels { sub_patch_px }),
        TargetKind::NormalizedPixels => match recipe.target.normalize {
            NormalizeBy::Window => {
                Box::new(NormalizedPixels { window_px: recipe.target.window_px.expect("recipes are checked") })
            }
            NormalizeBy::Patch => Box::new(PatchNormalizedPixels { stride_px }),
        },
        TargetKind::ColorBins => Box::new(ColorBins { bins: recipe.target.bins, sub_patch_px, colors }),
        TargetKind::ColorClusters => Box::new(ColorClusters { clusters: recipe.target.clusters, sub_patch_px, colors }),
        TargetKind::MeanColor => Box::new(MeanColor { stride_px, colors }),
        TargetKind::Hog => Box::new(Hog { sub_patch_px }),
        TargetKind::Tokens => {
            let path = recipe.target.tokenizer.as_ref().expect("recipes are checked");
            Box::new(Tokens::load(Path::new(path), &colors, sub_patch_px, device)?)
        }
    })
}

/// The class with the highest score of each prediction, the first one in a tie, `[.., K]` → `[..]`.
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
