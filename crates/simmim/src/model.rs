//! SimMIM itself: hide tokens, encode, predict the hidden pixels (arXiv:2111.09886).

use crate::build::Builder;
use crate::encoder::{Encode, Encoder, Pass, Role};
use crate::error::Result;
use crate::head::Head;
use crate::mask::Mask;
use crate::recipe::{LossRecipe, Recipe};
use crate::target::{Cells, Colours, Layout, Shows, Target, Truth, averaged, target};
use simmim_engine::{CrossEntropy, Images, Operations, ParameterId, Regression};

/// An encoder with mask token and prediction head.
pub struct SimMim {
    encoder: Encoder,
    mask_token: ParameterId,
    head: Head,
    target: Box<dyn Target>,
    layout: Layout,
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
    ///
    /// # Errors
    /// If a file that its target needs cannot be used.
    pub fn new(recipe: &Recipe, colours: &Colours, builder: &mut Builder) -> Result<Self> {
        let image_px = recipe.data.image_size.height_and_width();
        let encoder = Encoder::new(&recipe.encoder, Role::Pretrain, image_px, recipe.data.channels, builder);
        let spec = encoder.spec();
        let token = encoder.mask_token_init();
        let mask_token = builder.add("encoder.mask_token", &[1, 1, spec.width], token);
        let (height, width) = spec.image_px;
        let cells = Cells { channels: spec.channels, height, width, side: spec.stride_px };
        let target = target(recipe, colours)?;
        let layout = target.layout(&cells);
        let head = Head::new(&recipe.head, &spec, &layout, builder);
        Ok(Self { encoder, mask_token, head, target, layout, loss: recipe.loss, cells })
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Operations of one image's forward pass.
    pub fn flops(&self) -> f64 {
        self.encoder.flops() + self.head.flops(&self.encoder.spec(), 1.0)
    }

    /// Operations of one update over a batch masked like `hidden`, forward and backward: a backward pass is two
    /// products for each of the forward pass, but pixels need no gradient, and unweighted cells are not predicted.
    pub fn training_flops(&self, hidden: &Hidden) -> f64 {
        let spec = self.encoder.spec();
        let images = hidden.pixels.len() / (self.cells.height * self.cells.width);
        let predicted = self.weighted_cells(&hidden.pixels).0.len() as f64 / (images * self.cells.count()) as f64;
        images as f64 * (3.0 * self.encoder.flops() - spec.embed_flops() + 3.0 * self.head.flops(&spec, predicted))
    }

    /// Operations of one image's forward pass if the head were linear.
    pub fn flops_with_linear_head(&self) -> f64 {
        let spec = self.encoder.spec();
        let (h, w) = spec.feature_grid();
        self.encoder.flops() + 2.0 * (h * w * spec.out_width * self.layout.outputs()) as f64
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

    /// Lets the target compute on so many threads.
    pub fn use_threads(&mut self, threads: usize) {
        self.target.use_threads(threads);
    }

    /// What pictures of its predictions show.
    pub fn shows(&self) -> Shows {
        self.target.shows()
    }

    /// Side in pixels of the square that a position predicts.
    fn position_px(&self) -> usize {
        self.cells.side / self.layout.side
    }

    /// Sum of the loss's weights: what the losses of all parts of one update are divided by.
    pub fn weight_sum(&self, hidden: &Hidden) -> f64 {
        let pixels: f64 = hidden.pixels.iter().map(|h| self.loss.weight(*h) as f64).sum();
        pixels / (self.position_px() * self.position_px()) as f64
    }

    /// The loss of a batch: `Σ weight·distance / ((Σ weight + 1e-5)·C)` as in the official code
    /// (microsoft/SimMIM, `models/simmim.py`), with `weight_sum` taken over all that one update sees.
    ///
    /// The weight of a position is the mean of its pixels'; the distance of classes is cross-entropy.
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
        let (rows, weight) = self.weighted_cells(&hidden.pixels);
        let prediction = self.head.predict(b, &features, &rows); // [R, C·S] or [R, C·S·K]
        self.compare(b, &prediction, &self.target.truth(images), &rows, &weight, weight_sum)
    }

    /// The loss of predicting everywhere the mean of what an image's visible positions hold, channel by
    /// channel: what a model has to beat; none where classes have no mean.
    pub fn baseline<B: Operations>(&self, b: &B, images: &Images, hidden: &Hidden, weight_sum: f64) -> Option<f64> {
        let truth = self.target.truth(images);
        let Truth::Values(values) = &truth else { return None };
        let (rows, weight) = self.weighted_cells(&hidden.pixels);
        let is_visible: Vec<f32> = hidden.pixels.iter().map(|h| (!*h).into()).collect();
        let is_visible = averaged(&is_visible, self.cells.width, self.position_px()); // [B, h, w]
        let plane = is_visible.len() / images.count;
        let mean = |i: usize, values: &[f32]| {
            let visible = &is_visible[i / self.layout.channels * plane..][..plane];
            let sum: f64 = values.iter().zip(visible).map(|(v, share)| *v as f64 * *share as f64).sum();
            let shares: f64 = visible.iter().map(|share| *share as f64).sum();
            if shares > 0.0 { (sum / shares) as f32 } else { 0.0 }
        };
        let means: Vec<f32> = values.chunks_exact(plane).enumerate().map(|(i, v)| mean(i, v)).collect(); // [B, C]
        let cell = |row: &u32| {
            let of_image = &means[*row as usize / self.cells.count() * self.layout.channels..][..self.layout.channels];
            of_image.iter().flat_map(|mean| std::iter::repeat_n(*mean, self.layout.positions()))
        };
        let prediction: Vec<f32> = rows.iter().flat_map(cell).collect();
        let prediction = b.tensor(&[rows.len(), self.layout.outputs()], &prediction);
        Some(b.read(&self.compare(b, &prediction, &truth, &rows, &weight, weight_sum))[0] as f64)
    }

    /// How far predictions of the cells in `rows` are off.
    fn compare<B: Operations>(
        &self,
        b: &B,
        prediction: &B::Tensor,
        truth: &Truth,
        rows: &[u32],
        weight: &[f32],
        weight_sum: f64,
    ) -> B::Tensor {
        let Layout { channels, side, .. } = self.layout;
        let denominator = (weight_sum + 1e-5) * channels as f64;
        match truth {
            Truth::Values(values) => {
                let target = &self.cells.pick(channels, side, values, rows);
                let distance = self.loss.distance();
                b.regression(prediction, &Regression { distance, target, weight, channels, denominator })
            }
            Truth::Classes(classes) => {
                let ids = &self.cells.pick(channels, side, classes, rows);
                let classes = self.layout.classes.expect("a target of classes says how many there are");
                b.cross_entropy(prediction, &CrossEntropy { ids, weight, channels, classes, denominator })
            }
        }
    }

    /// Cells in which the loss looks at a position at all, as indices into `[B·h·w]`, and the weights of
    /// their positions, `[R, S]`.
    fn weighted_cells(&self, hidden_pixels: &[bool]) -> (Vec<u32>, Vec<f32>) {
        let pixels: Vec<f32> = hidden_pixels.iter().map(|h| self.loss.weight(*h)).collect();
        let positions = averaged(&pixels, self.cells.width, self.position_px()); // [B, h, w]
        let cells = positions.len() / self.layout.positions();
        let all = self.cells.pick(1, self.layout.side, &positions, &(0..cells as u32).collect::<Vec<_>>());
        let weights = all.chunks_exact(self.layout.positions()).enumerate();
        let (rows, weights): (Vec<u32>, Vec<&[f32]>) =
            weights.filter(|(_, w)| w.iter().any(|w| *w != 0.0)).map(|(row, w)| (row as u32, w)).unzip();
        (rows, weights.concat())
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

    /// Pictures of what is predicted, normalised as the input is.
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → `[B, C, H, W]`.
    pub fn reconstruct<B: Operations>(&self, b: &B, images: &Images, hidden: &Hidden) -> Vec<f32> {
        let predictions = self.predictions(b, images, hidden);
        let each = predictions.chunks_exact(self.cells.count() * self.layout.outputs()).enumerate();
        each.flat_map(|(i, prediction)| self.target.picture(&self.cells, images.image(i), prediction)).collect()
    }

    /// Predictions of every position, in the target's own units or as scores of classes.
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → `[B, C', h, w]` or `[B, C', h, w, K]`.
    pub fn predictions<B: Operations>(&self, b: &B, images: &Images, hidden: &Hidden) -> Vec<f32> {
        let features = self.features(b, images, &hidden.patches, &mut Pass::evaluate());
        let rows: Vec<u32> = (0..(images.count * self.cells.count()) as u32).collect();
        let predictions = b.read(&self.head.predict(b, &features, &rows));
        let of_image = predictions.chunks_exact(self.cells.count() * self.layout.outputs());
        of_image.flat_map(|prediction| self.cells.map(&self.layout, prediction)).collect()
    }
}
