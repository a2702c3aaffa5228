//! SimMIM itself: hide tokens, encode, predict the hidden pixels (arXiv:2111.09886).

use crate::build::Builder;
use crate::encoder::{Encode, Encoder, Pass, Role};
use crate::head::Head;
use crate::mask::Mask;
use crate::recipe::{LossRecipe, Recipe, Scope};
use crate::target::{Cells, Target, target};
use simmim_engine::{Images, Operations, ParameterId, Regression};

/// An encoder with mask token and prediction head.
pub struct SimMim {
    encoder: Encoder,
    mask_token: ParameterId,
    head: Head,
    target: Box<dyn Target>,
    loss: LossRecipe,
    cells: Cells,
}

/// Masks of a batch at the two resolutions that matter.
pub struct Hidden {
    /// Per patch, for the encoder, `[B, N]`, `true` = hidden.
    pub patches: Vec<bool>,
    /// Per pixel, for the loss and for pictures, `[B, H, W]`, `true` = hidden.
    pub pixels: Vec<bool>,
}

impl SimMim {
    /// Adds the parameters of the model a recipe describes to `builder`.
    pub fn new(recipe: &Recipe, builder: &mut Builder) -> Self {
        let image_px = recipe.data.image_size.height_and_width();
        let encoder = Encoder::new(&recipe.encoder, Role::Pretrain, image_px, recipe.data.channels, builder);
        let spec = encoder.spec();
        let token = encoder.mask_token_init();
        let mask_token = builder.add("encoder.mask_token", &[1, 1, spec.width], token);
        let (height, width) = spec.image_px;
        let cells = Cells { channels: spec.channels, height, width, side: spec.stride_px };
        let target = target(&recipe.target);
        let head = Head::new(recipe.head.kind, &spec, target.outputs(&cells), builder);
        Self { encoder, mask_token, head, target, loss: recipe.loss, cells }
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Operations of one image's forward pass.
    pub fn flops(&self) -> f64 {
        self.encoder.flops() + self.head.flops(&self.encoder.spec())
    }

    /// Masks of any unit, brought to this model's patches and pixels.
    ///
    /// # Panics
    /// If a mask's cells are not whole patches.
    pub fn hidden(&self, masks: &[Mask]) -> Hidden {
        let spec = self.encoder.spec();
        let mut hidden = Hidden { patches: Vec::new(), pixels: Vec::new() };
        for mask in masks {
            let patches = mask.refined(spec.image_px.0 / spec.patch_px / mask.grid().rows);
            let pixels = patches.refined(spec.patch_px);
            let covered = (pixels.grid().rows, pixels.grid().columns);
            assert_eq!(covered, spec.image_px, "a mask of {:?} does not fit the image", mask.grid());
            hidden.patches.extend(patches.hidden());
            hidden.pixels.extend(pixels.hidden());
        }
        hidden
    }

    /// Sum of the loss's pixel weights: what the losses of all parts of one update are divided by.
    pub fn weight_sum(&self, hidden: &Hidden) -> f64 {
        hidden.pixels.iter().map(|h| self.weight(*h) as f64).sum()
    }

    fn weight(&self, hidden: bool) -> f32 {
        match self.loss.scope {
            Scope::Hidden => hidden as u8 as f32,
            Scope::All => 1.0,
        }
    }

    /// The loss of a batch: `Σ weight·distance / ((Σ weight + 1e-5)·C)` as in the official code
    /// (microsoft/SimMIM, `models/simmim.py`), with `weight_sum` taken over all that one update sees.
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → `[1]`.
    pub fn loss<B: Operations>(
        &self,
        b: &B,
        images: &Images,
        hidden: &Hidden,
        weight_sum: f64,
        pass: &mut Pass,
    ) -> B::Tensor {
        let features = self.features(b, images, &hidden.patches, pass); // [B, h·w, D']
        let pixel_weight: Vec<f32> = hidden.pixels.iter().map(|h| self.weight(*h)).collect();
        let rows = self.weighted_cells(images.count, &pixel_weight);
        let prediction = self.head.predict(b, &features, &rows); // [R, C·S]
        let outputs = self.target.outputs(&self.cells);
        let plane = self.cells.height * self.cells.width;
        let per_channel = outputs / self.cells.channels;
        let mut target = vec![0.0; rows.len() * outputs];
        let mut weight = vec![0.0; rows.len() * per_channel];
        let prepare = |image| self.target.prepare(&self.cells, images.image(image));
        let prepared: Vec<_> = (0..images.count).map(prepare).collect();
        for (i, row) in rows.iter().enumerate() {
            let (image, cell) = (*row as usize / self.cells.count(), *row as usize % self.cells.count());
            self.target.values(&self.cells, &prepared[image], cell, &mut target[i * outputs..][..outputs]);
            let pixels = &pixel_weight[image * plane..][..plane];
            self.target.weights(&self.cells, pixels, cell, &mut weight[i * per_channel..][..per_channel]);
        }
        let denominator = (weight_sum + 1e-5) * self.cells.channels as f64;
        let distance = self.loss.distance();
        b.regression(
            &prediction,
            &Regression { distance, target: &target, weight: &weight, channels: self.cells.channels, denominator },
        )
    }

    /// Encoder features of masked images.
    ///
    /// # Shapes
    /// images `[B, C, H, W]`, `hidden` `[B, N]` → `[B, h·w, D']`.
    pub fn features<B: Operations>(&self, b: &B, images: &Images, hidden: &[bool], pass: &mut Pass) -> B::Tensor {
        let tokens = self.encoder.embed(b, images); // [B, N, D]
        let tokens = b.hide(&tokens, hidden, self.mask_token);
        self.encoder.encode(b, tokens, pass)
    }

    /// Predicted images, normalised as the input is.
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → `[B, C, H, W]`.
    pub fn reconstruct<B: Operations>(&self, b: &B, images: &Images, hidden: &Hidden) -> Vec<f32> {
        let mut pictures = self.painted(b, images, hidden);
        for (i, picture) in pictures.chunks_exact_mut(images.image_len()).enumerate() {
            self.target.restore(&self.cells, images.image(i), picture);
        }
        pictures
    }

    /// Predicted values in their places, in the target's own units.
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → `[B, C, H, W]`.
    pub fn painted<B: Operations>(&self, b: &B, images: &Images, hidden: &Hidden) -> Vec<f32> {
        let features = self.features(b, images, &hidden.patches, &mut Pass::evaluate());
        let rows: Vec<u32> = (0..(images.count * self.cells.count()) as u32).collect();
        let prediction = b.read(&self.head.predict(b, &features, &rows));
        let mut pictures = vec![0.0; images.pixels.len()];
        for (row, prediction) in prediction.chunks_exact(self.target.outputs(&self.cells)).enumerate() {
            let (image, cell) = (row / self.cells.count(), row % self.cells.count());
            let picture = &mut pictures[image * images.image_len()..][..images.image_len()];
            self.target.paint(&self.cells, prediction, cell, picture);
        }
        pictures
    }

    /// Cells in which the loss looks at a pixel at all, as indices into `[B·h·w]`.
    fn weighted_cells(&self, images: usize, weight: &[f32]) -> Vec<u32> {
        let Cells { width, side, .. } = self.cells;
        let plane = self.cells.height * width;
        let is_weighted = |row: usize| {
            let (image, cell) = (row / self.cells.count(), row % self.cells.count());
            let (top, left) = (cell / self.cells.columns() * side, cell % self.cells.columns() * side);
            (top..top + side).any(|y| weight[image * plane + y * width + left..][..side].iter().any(|w| *w != 0.0))
        };
        (0..images * self.cells.count()).filter(|row| is_weighted(*row)).map(|row| row as u32).collect()
    }
}
