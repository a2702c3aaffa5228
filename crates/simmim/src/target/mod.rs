//! What is predicted for each feature cell, and how a prediction becomes a picture again.
//!
//! A target is one file with one type that implements [`Target`], and one arm in [`target`].

mod pixels;

pub use pixels::Pixels;

use crate::recipe::{TargetKind, TargetRecipe};

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

    /// True values of one cell of one image.
    ///
    /// # Shapes
    /// image `[C, H, W]` → `values` `[C, S]`.
    fn values(&self, cells: &Cells, image: &[f32], cell: usize, values: &mut [f32]);

    /// Loss weight of each of a cell's values from a weight per pixel.
    ///
    /// # Shapes
    /// `pixel_weight` `[H, W]` → `weight` `[S]`, shared by channels.
    fn weights(&self, cells: &Cells, pixel_weight: &[f32], cell: usize, weight: &mut [f32]);

    /// Writes a cell's predicted values to its place in a normalised image.
    ///
    /// # Shapes
    /// `prediction` `[C, S]`, `picture` `[C, H, W]`.
    fn paint(&self, cells: &Cells, prediction: &[f32], cell: usize, picture: &mut [f32]);
}

/// The target a recipe names.
pub fn target(recipe: &TargetRecipe) -> Box<dyn Target> {
    match recipe.kind {
        TargetKind::Pixels => Box::new(Pixels),
    }
}
