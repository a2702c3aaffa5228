//! What is predicted for each feature cell, and how a prediction becomes a picture again.
//!
//! A target is one file with one type that implements [`Target`], and one arm in [`target`].

mod normalized_pixels;
mod pixels;

pub use normalized_pixels::NormalizedPixels;
pub use pixels::Pixels;

use crate::recipe::{TargetKind, TargetRecipe};
use std::borrow::Cow;

/// The feature cells of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    /// Image channels.
    pub channels: usize,
    /// Image height in pixels.
    pub height: usize,
    /// Image width in pixels.
    pub width: usize,
    /// Side of a cell in pixels: the encoder's stride.
    pub side: usize,
}

impl Cells {
    /// Cells along the vertical axis.
    pub fn rows(&self) -> usize {
        self.height / self.side
    }

    /// Cells along the horizontal axis.
    pub fn columns(&self) -> usize {
        self.width / self.side
    }

    /// Cells of one image.
    pub fn count(&self) -> usize {
        self.rows() * self.columns()
    }
}

/// What is predicted.
pub trait Target: Send + Sync {
    /// Values predicted per cell, `C·S`.
    fn outputs(&self, cells: &Cells) -> usize;

    /// What [`Target::values`] reads, made once per image; the image itself unless a target says otherwise.
    ///
    /// # Shapes
    /// image `[C, H, W]` → `[C, H, W]`.
    fn prepare<'a>(&self, _cells: &Cells, image: &'a [f32]) -> Cow<'a, [f32]> {
        Cow::Borrowed(image)
    }

    /// True values of one cell of one prepared image.
    ///
    /// # Shapes
    /// prepared `[C, H, W]` → `values` `[C, S]`.
    fn values(&self, cells: &Cells, prepared: &[f32], cell: usize, values: &mut [f32]);

    /// Loss weight of each of a cell's values from a weight per pixel.
    ///
    /// # Shapes
    /// `pixel_weight` `[H, W]` → `weight` `[S]`, shared by channels.
    fn weights(&self, cells: &Cells, pixel_weight: &[f32], cell: usize, weight: &mut [f32]);

    /// Writes a cell's predicted values to its place in a picture.
    ///
    /// # Shapes
    /// `prediction` `[C, S]`, `picture` `[C, H, W]`.
    fn paint(&self, cells: &Cells, prediction: &[f32], cell: usize, picture: &mut [f32]);

    /// Turns a picture that all cells are painted on into an image, normalised as the true `image` is;
    /// nothing is left to do where predicted values are pixels.
    ///
    /// # Shapes
    /// `image`, `picture` `[C, H, W]`.
    fn restore(&self, _cells: &Cells, _image: &[f32], _picture: &mut [f32]) {}
}

/// The target a recipe names.
pub fn target(recipe: &TargetRecipe) -> Box<dyn Target> {
    match recipe.kind {
        TargetKind::Pixels => Box::new(Pixels),
        TargetKind::NormalizedPixels => {
            Box::new(NormalizedPixels { window_px: recipe.window_px.expect("recipes are checked") })
        }
    }
}
