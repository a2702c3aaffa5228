//! The SimMIM model (arXiv:2111.09886): replace hidden patches with the mask token, encode, predict, and compute the
//! loss.

use crate::encoders::{Encode, Encoder, EncoderSpec, ForwardContext, NeededFeatures, Role, VisibleTokens};
use crate::error::Result;
use crate::heads::Head;
use crate::masks::Mask;
use crate::recipe::{LossRecipe, Recipe};
use crate::targets::{Colors, Layout, PatchGrid, PictureKind, Target, TargetValues, averaged, enlarged, target};
use crate::weights::Builder;
use simmim_engine::{CrossEntropy, Device, Images, Operations, ParameterId, Regression};
use std::ops::Range;

/// Added to the sum of weights that a loss is divided by (microsoft/SimMIM, `models/simmim.py`).
const DENOMINATOR_EPS: f64 = 1e-5;

/// An encoder with a mask token and a prediction head.
pub struct SimMim {
    encoder: Encoder,
    mask_token: ParameterId,
    head: Head,
    target: Box<dyn Target>,
    layout: Layout,
    loss: LossRecipe,
    grid: PatchGrid,
}

/// A loss as a weighted sum and its weight. Both can be added over micro-batches and ranks before they are divided.
pub struct WeightedSum<T> {
    /// `Σ weight·distance`, `[1]`.
    pub sum: T,
    /// `Σ weight`.
    pub weight: f64,
}

/// The masks of a batch in the form that encoder and loss need, prepared once per step.
///
/// A *feature* is one vector of the encoder's output `[B, h·w, D']`. It predicts a square of the encoder's stride,
/// which consists of `S` sub-patches, one per predicted value and channel.
pub struct BatchMask {
    /// Mask per patch, `[B, N]`, `true` = hidden.
    patches: Vec<bool>,
    /// Patches per image, `N`.
    tokens: usize,
    /// Features with a sub-patch of nonzero weight in the loss, `[R]`, numbered from 0 in each image.
    features: Vec<u32>,
    /// Index in `features` at which each image begins, and the total, `[B + 1]`.
    starts: Vec<usize>,
    /// Weight of each sub-patch of those features, `[R, S]`.
    weights: Vec<f32>,
    /// Features per image, `h·w`.
    features_per_image: usize,
}

/// The part of a [`BatchMask`] for a range of images.
pub struct MaskView<'a> {
    /// Mask per patch, `[B, N]`, `true` = hidden.
    pub patches: &'a [bool],
    /// Rows of the features `[B·h·w]` that have a weight in the loss, `[R]`.
    rows: Vec<u32>,
    /// Weight of each sub-patch of those rows, `[R, S]`.
    weights: &'a [f32],
}

impl BatchMask {
    /// The masks of a range of images.
    pub fn range(&self, images: Range<usize>) -> MaskView<'_> {
        let of = |image: usize| self.features[self.starts[image]..self.starts[image + 1]].iter();
        let first = images.start;
        let row =
            |image: usize| of(image).map(move |feature| ((image - first) * self.features_per_image) as u32 + feature);
        let per_feature = self.weights.len() / self.features.len().max(1);
        let features = self.starts[images.start]..self.starts[images.end];
        MaskView {
            patches: &self.patches[images.start * self.tokens..images.end * self.tokens],
            rows: images.flat_map(row).collect(),
            weights: &self.weights[features.start * per_feature..features.end * per_feature],
        }
    }

    /// The masks of all images.
    pub fn all(&self) -> MaskView<'_> {
        self.range(0..self.starts.len() - 1)
    }
}

impl MaskView<'_> {
    /// `Σ weight` of the loss.
    pub fn weight(&self) -> f64 {
        self.weights.iter().map(|weight| *weight as f64).sum()
    }
}

impl SimMim {
    /// Builds the model of a recipe and adds its parameters to `builder`. A target that contains a network computes it
    /// on `device`.
    ///
    /// # Errors
    /// If a file that the target needs cannot be used, and those of [`Encoder::new`].
    pub fn new(recipe: &Recipe, colors: &Colors, device: &impl Device, builder: &mut Builder) -> Result<Self> {
        let image_px = recipe.data.image_size.height_and_width();
        let encoder = Encoder::new(&recipe.encoder, Role::Pretrain, image_px, recipe.data.channels, builder)?;
        let spec = encoder.spec();
        let token = encoder.mask_token_init();
        let mask_token = builder.add("encoder.mask_token", &[1, 1, spec.width], token);
        let (height, width) = spec.image_px;
        let grid = PatchGrid { channels: spec.channels, height, width, side: spec.stride_px };
        let target = target(recipe, colors, device)?;
        let layout = target.layout(&grid);
        let head = Head::new(&recipe.head, &spec, &layout, builder);
        Ok(Self { encoder, mask_token, head, target, layout, loss: recipe.loss, grid })
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// FLOPs of the forward pass of one image.
    pub fn flops(&self) -> f64 {
        self.encoder.flops() + self.head.flops(&self.encoder.spec(), 1.0)
    }

    /// FLOPs of one step over a batch with the mask `mask`, forward and backward. The backward pass has two matrix
    /// products for each one of the forward pass. Pixels need no gradient, features without weight are not predicted, and
    /// those that the head does not need do not pass through the last block's MLP.
    pub fn training_flops(&self, mask: &MaskView) -> f64 {
        let spec = self.encoder.spec();
        let (h, w) = (spec.image_px.0 / spec.patch_px, spec.image_px.1 / spec.patch_px);
        let images = mask.patches.len() / (h * w);
        let predicted = mask.rows.len() as f64 / (images * self.grid.count()) as f64;
        let not_needed = match self.head.needs(&mask.rows) {
            NeededFeatures::All => 0.0,
            NeededFeatures::Rows(rows) => self.encoder.flops_not_needed(images, rows.len()),
        };
        let of_image = 3.0 * self.encoder.flops() - spec.embed_flops() + 3.0 * self.head.flops(&spec, predicted);
        images as f64 * of_image - 3.0 * not_needed
    }

    /// FLOPs of the forward pass of one image with a linear head in place of the model's head.
    pub fn flops_with_linear_head(&self) -> f64 {
        let spec = self.encoder.spec();
        let (h, w) = spec.feature_grid();
        self.encoder.flops() + 2.0 * (h * w * spec.out_width * self.layout.outputs()) as f64
    }

    /// Prepares masks of any unit for this model: per patch for the encoder, per sub-patch for the loss.
    ///
    /// # Panics
    /// If a mask unit is not a whole number of patches.
    pub fn batch_mask(&self, masks: &[Mask]) -> BatchMask {
        let spec = self.encoder.spec();
        let (tokens, sub_patches) = (patches(&spec).0 * patches(&spec).1, self.layout.sub_patches());
        let features_per_image = self.grid.count();
        let every_feature: Vec<u32> = (0..features_per_image as u32).collect();
        let mut batch = BatchMask {
            patches: Vec::with_capacity(masks.len() * tokens),
            tokens,
            features: Vec::new(),
            starts: vec![0],
            weights: Vec::new(),
            features_per_image,
        };
        for mask in masks {
            let mask = mask.refined(patches(&spec).0 / mask.grid().rows);
            let covered = (mask.grid().rows, mask.grid().columns);
            assert_eq!(covered, patches(&spec), "a mask of {:?} does not fit the image", mask.grid());
            let of_patches: Vec<f32> = mask.hidden().iter().map(|h| self.loss.weight(*h)).collect();
            let of_sub_patches = resampled(of_patches, patches(&spec).1, spec.patch_px, self.sub_patch_px());
            let of_features = self.grid.pick(1, self.layout.side, &of_sub_patches, &every_feature);
            for (feature, weights) in of_features.chunks_exact(sub_patches).enumerate() {
                if weights.iter().any(|weight| *weight != 0.0) {
                    batch.features.push(feature as u32);
                    batch.weights.extend_from_slice(weights);
                }
            }
            batch.starts.push(batch.features.len());
            batch.patches.extend(mask.hidden());
        }
        batch
    }

    /// The mask per pixel, for pictures, `[H, W]`, `true` = hidden.
    pub fn hidden_pixels(&self, mask: &Mask) -> Vec<bool> {
        mask.refined(self.grid.height / mask.grid().rows).hidden().to_vec()
    }

    /// What pictures of predictions show.
    pub fn picture_kind(&self) -> PictureKind {
        self.target.picture_kind()
    }

    /// Side of a sub-patch in pixels.
    fn sub_patch_px(&self) -> usize {
        self.grid.side / self.layout.side
    }

    /// The denominator of the loss of a step, `(Σ weight + 1e-5)·C`, from the weight of all micro-batches of all ranks
    /// (microsoft/SimMIM, `models/simmim.py`).
    pub fn denominator(&self, weight: f64) -> f64 {
        (weight + DENOMINATOR_EPS) * self.layout.channels as f64
    }

    /// The loss of a batch: `Σ weight·distance` over sub-patches. The weight of a sub-patch is the mean weight of its
    /// pixels. The distance is that of the recipe, or cross-entropy if the target is classes.
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → `[1]`.
    pub fn loss<B: Operations>(
        &self,
        b: &B,
        images: &Images,
        mask: &MaskView,
        context: &mut ForwardContext,
    ) -> WeightedSum<B::Tensor> {
        let prediction = self.predict(b, images, mask.patches, &mask.rows, context); // [R, C·S] or [R, C·S·K]
        let sum = self.compare(b, &prediction, &self.target.values_of(images), mask);
        WeightedSum { sum, weight: mask.weight() }
    }

    /// The loss of a baseline that predicts the mean target of an image's visible sub-patches, per channel. `None` if
    /// the target is classes, which have no mean.
    pub fn baseline<B: Operations>(&self, b: &B, images: &Images, mask: &MaskView) -> Option<f64> {
        let target_values = self.target.values_of(images);
        let TargetValues::Values(values) = &target_values else { return None };
        let spec = self.encoder.spec();
        let visible: Vec<f32> = mask.patches.iter().map(|hidden| (!*hidden).into()).collect();
        let visible = resampled(visible, patches(&spec).1, spec.patch_px, self.sub_patch_px()); // [B, h, w]
        let plane = visible.len() / images.count;
        let mean = |i: usize, values: &[f32]| {
            let visible = &visible[i / self.layout.channels * plane..][..plane];
            let sum: f64 = values.iter().zip(visible).map(|(v, share)| *v as f64 * *share as f64).sum();
            let shares: f64 = visible.iter().map(|share| *share as f64).sum();
            if shares > 0.0 { (sum / shares) as f32 } else { 0.0 }
        };
        let means: Vec<f32> = values.chunks_exact(plane).enumerate().map(|(i, v)| mean(i, v)).collect(); // [B, C]
        let means_of = |row: &u32| {
            let of_image = &means[*row as usize / self.grid.count() * self.layout.channels..][..self.layout.channels];
            of_image.iter().flat_map(|mean| std::iter::repeat_n(*mean, self.layout.sub_patches()))
        };
        let prediction: Vec<f32> = mask.rows.iter().flat_map(means_of).collect();
        let prediction = b.tensor(&[mask.rows.len(), self.layout.outputs()], &prediction);
        Some(b.read(&self.compare(b, &prediction, &target_values, mask))[0] as f64)
    }

    /// `Σ weight·distance` of predictions `[R, C·S]` or `[R, C·S·K]` for the rows of the mask.
    fn compare<B: Operations>(
        &self,
        b: &B,
        prediction: &B::Tensor,
        target_values: &TargetValues,
        mask: &MaskView,
    ) -> B::Tensor {
        let Layout { channels, side, .. } = self.layout;
        let weight = mask.weights;
        match target_values {
            TargetValues::Values(values) => {
                let target = &self.grid.pick(channels, side, values, &mask.rows);
                b.regression(prediction, &Regression { distance: self.loss.distance(), target, weight, channels })
            }
            TargetValues::Classes(classes) => {
                let ids = &self.grid.pick(channels, side, classes, &mask.rows);
                let classes = self.layout.classes.expect("targets that are classes have a number of classes");
                b.cross_entropy(prediction, &CrossEntropy { ids, weight, channels, classes })
            }
        }
    }

    /// Encoder features of masked images.
    ///
    /// # Shapes
    /// images `[B, C, H, W]`, `hidden` `[B, N]` → `[B, h·w, D']`.
    pub fn features<B: Operations>(
        &self,
        b: &B,
        images: &Images,
        hidden: &[bool],
        context: &mut ForwardContext,
    ) -> B::Tensor {
        self.encode_masked(b, images, hidden, NeededFeatures::All, context)
    }

    /// [`Self::features`], of which only some may be needed.
    fn encode_masked<B: Operations>(
        &self,
        b: &B,
        images: &Images,
        hidden: &[bool],
        needed: NeededFeatures,
        context: &mut ForwardContext,
    ) -> B::Tensor {
        let tokens = self.encoder.embed(b, images); // [B, N, D]
        let tokens = b.mask_tokens(&tokens, hidden, self.mask_token);
        self.encoder.encode(b, tokens, VisibleTokens::All, needed, context)
    }

    /// Predictions for the features in `rows`, `[R, C·S]` or `[R, C·S·K]`.
    fn predict<B: Operations>(
        &self,
        b: &B,
        images: &Images,
        hidden: &[bool],
        rows: &[u32],
        context: &mut ForwardContext,
    ) -> B::Tensor {
        let features = self.encode_masked(b, images, hidden, self.head.needs(rows), context); // [R, D'] or [B, h·w, D']
        self.head.predict(b, &features, rows)
    }

    /// Pictures of the predictions, normalized like the input.
    ///
    /// # Shapes
    /// images `[B, C, H, W]`, `hidden` `[B, N]` → `[B, C, H, W]`.
    pub fn reconstruct<B: Operations>(&self, b: &B, images: &Images, hidden: &[bool]) -> Vec<f32> {
        let predictions = self.predictions(b, images, hidden);
        let each = predictions.chunks_exact(self.grid.count() * self.layout.outputs()).enumerate();
        each.flat_map(|(i, prediction)| self.target.picture(&self.grid, images.image(i), prediction)).collect()
    }

    /// Predictions of every sub-patch, as target values or as logits of classes.
    ///
    /// # Shapes
    /// images `[B, C, H, W]`, `hidden` `[B, N]` → `[B, C', h, w]` or `[B, C', h, w, K]`.
    pub fn predictions<B: Operations>(&self, b: &B, images: &Images, hidden: &[bool]) -> Vec<f32> {
        let rows: Vec<u32> = (0..(images.count * self.grid.count()) as u32).collect();
        let predictions = b.read(&self.predict(b, images, hidden, &rows, &mut ForwardContext::evaluate()));
        let of_image = predictions.chunks_exact(self.grid.count() * self.layout.outputs());
        of_image.flat_map(|prediction| self.grid.map(&self.layout, prediction)).collect()
    }
}

/// Number of patches of an image along its height and its width, `(h, w)`.
fn patches(spec: &EncoderSpec) -> (usize, usize) {
    (spec.image_px.0 / spec.patch_px, spec.image_px.1 / spec.patch_px)
}

/// Resamples a map whose cells are squares of `from_px` pixels to squares of `to_px` pixels, each the mean of the area
/// it covers; `columns` is the width of the map.
///
/// # Shapes
/// `[.., h, w]` → `[.., h·from/to, w·from/to]`.
fn resampled(map: Vec<f32>, columns: usize, from_px: usize, to_px: usize) -> Vec<f32> {
    let unit = gcd(from_px, to_px); // side of a square that divides both
    let finer = match from_px / unit {
        1 => map,
        times => enlarged(&map, columns, times),
    };
    match to_px / unit {
        1 => finer,
        times => averaged(&finer, columns * from_px / unit, times),
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::masks::Grid;
    use crate::recipe::resolve;
    use crate::testing::{DEVICE, TestBackend, open};
    use crate::weights::initialize;
    use simmim_engine::{Backend, Slot};

    #[test]
    fn maps_are_resampled_to_finer_coarser_and_unaligned_squares() {
        assert_eq!(resampled(vec![1.0, 0.0], 2, 4, 2), [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!(resampled(vec![1.0, 0.0, 1.0, 1.0], 2, 2, 4), [0.75]);
        // three squares of 4 px become two of 6 px: both cover half of the middle one
        let found = resampled([[1.0, 0.0, 0.0]; 3].concat(), 3, 4, 6);
        assert!(found.iter().zip([2.0 / 3.0, 0.0, 2.0 / 3.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
    }

    #[test]
    fn a_range_of_masks_is_that_of_its_images() {
        let recipe = resolve("pretrain-vit-cifar", &["loss.visible_weight=0.25".to_owned()]).unwrap();
        let model = SimMim::new(&recipe, &Colors::unknown(3), &DEVICE, &mut Builder::default()).unwrap();
        let mask = |seed: usize| {
            let grid = Grid { rows: 8, columns: 8 };
            Mask::new(grid, (0..64).map(|i| (i * 7 + seed).is_multiple_of(3)).collect())
        };
        let masks = [mask(0), mask(1), mask(2)];
        let (whole, last) = (model.batch_mask(&masks), model.batch_mask(&masks[1..]));
        let (a, b) = (whole.range(1..3), last.all());
        assert!(a.patches == b.patches && a.rows == b.rows && a.weights == b.weights);
        // patches of 4 × 4 pixels; the three channels share a weight
        let hidden = masks.iter().map(Mask::count).sum::<usize>() as f64;
        assert_eq!(whole.all().weight(), 16.0 * (hidden + 0.25 * (192.0 - hidden)));
        assert_eq!(model.hidden_pixels(&masks[0]).iter().filter(|h| **h).count(), 16 * masks[0].count());
    }

    /// Variants of small models: a recipe and its edits.
    const SMALL: [(&str, &[&str]); 5] = [
        ("pretrain-vit-cifar", &["encoder.depth=2", "encoder.heads=2", "encoder.layer_scale=0.5"]),
        (
            "pretrain-vit-cifar",
            &[
                "encoder.depth=2",
                "encoder.heads=2",
                "encoder.registers=3",
                "encoder.position_bias=none",
                "head.kind=mlp",
            ],
        ),
        ("pretrain-vit-cifar", &["encoder.depth=1", "encoder.heads=2", "encoder.mlp=swiglu"]),
        ("pretrain-swin-cifar", &["encoder.depths=[1,2]", "encoder.heads=[1,2]"]),
        (
            "pretrain-swinv2-t-192",
            &[
                "encoder.depths=[1,2]",
                "encoder.heads=[1,2]",
                "encoder.patch_px=2",
                "encoder.window=4",
                "encoder.extra_norm_every=1",
                "data.image_size=32",
                "mask.unit_px=8",
                "target.window_px=5",
            ],
        ),
    ];

    fn small(recipe: &str, edits: &[&str]) -> (SimMim, TestBackend) {
        let edits = edits.iter().chain(&["encoder.width=16", "encoder.drop_path=0.5"]).map(|edit| edit.to_string());
        let recipe = resolve(recipe, &edits.collect::<Vec<_>>()).unwrap();
        let mut builder = Builder::default();
        let model = SimMim::new(&recipe, &Colors::unknown(3), &DEVICE, &mut builder).unwrap();
        let (table, inits) = builder.finish();
        let b = open(table);
        initialize(&b, &inits, 3);
        (model, b)
    }

    #[test]
    fn features_that_are_not_needed_change_neither_loss_nor_gradients() {
        let pixels: Vec<f32> = (0..4 * 3 * 32 * 32).map(|i| (i * 7 % 31) as f32 / 16.0 - 1.0).collect();
        let images = Images { pixels: &pixels, count: 4, channels: 3, height: 32, width: 32 };
        let grid = Grid { rows: 4, columns: 4 };
        for (recipe, edits) in SMALL {
            let (model, b) = small(recipe, edits);
            // of the second image everything is hidden, and of the third nothing
            let hides = |image: usize, cell: usize| image == 1 || image != 2 && (cell * 7 + image).is_multiple_of(3);
            let masks = (0..4).map(|image| Mask::new(grid, (0..16).map(|cell| hides(image, cell)).collect()));
            let masks = model.batch_mask(&masks.collect::<Vec<_>>());
            let mask = masks.all();
            for recomputes in [false, true] {
                let run = |needs_all: bool| {
                    let mut context = ForwardContext::of_samples(1, 0, &[0, 1, 2, 3]).recomputing_blocks(recomputes);
                    b.start(true);
                    b.clear_gradients();
                    let loss = if needs_all {
                        let features = model.features(&b, &images, mask.patches, &mut context); // [B, h·w, D']
                        let prediction = model.head.predict(&b, &b.gather_rows(&features, &mask.rows), &mask.rows);
                        model.compare(&b, &prediction, &model.target.values_of(&images), &mask)
                    } else {
                        model.loss(&b, &images, &mask, &mut context).sum
                    };
                    let value = b.read(&loss)[0];
                    b.backward(&loss);
                    (value, b.read_slot(Slot::Gradients))
                };
                let ((all, of_all), (needed, of_needed)) = (run(true), run(false));
                assert!((all / needed - 1.0).abs() < 1e-6, "{edits:?}: {all} {needed}");
                for parameter in b.table().iter() {
                    let [all, needed] = [&of_all, &of_needed].map(|gradients| &gradients[parameter.range.clone()]);
                    let largest = all.iter().fold(0f32, |largest, d| largest.max(d.abs()));
                    let off = all.iter().zip(needed).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(off <= 1e-4 * largest.max(1e-2), "{edits:?}: {} {largest} off by {off}", parameter.name);
                }
            }
            // nothing is hidden at all
            let nothing = model.batch_mask(&[0; 4].map(|_| Mask::new(grid, vec![false; 16])));
            b.start(true);
            b.clear_gradients();
            let loss = model.loss(&b, &images, &nothing.all(), &mut ForwardContext::evaluate()).sum;
            b.backward(&loss);
            assert_eq!(b.read(&loss), [0.0]);
            assert!(b.read_slot(Slot::Gradients).iter().all(|d| *d == 0.0));
        }
    }

    #[test]
    fn operations_of_the_last_mlp_count_only_for_hidden_features() {
        // a Swin's last stage: width 32, hidden width 128, 64 features, 16 of each of 4 cells, of which one is hidden
        let (model, _) = small(SMALL[3].0, SMALL[3].1);
        let of = |hidden: [bool; 4]| {
            let masks = model.batch_mask(&[Mask::new(Grid { rows: 2, columns: 2 }, hidden.to_vec())]);
            model.training_flops(&masks.all())
        };
        let of_head = 2.0 * 48.0 * 32.0 * 48.0; // 48 features more, 32 × 48 weights
        let of_mlp = 2.0 * 48.0 * 2.0 * 32.0 * 128.0;
        assert_eq!(of([true; 4]) - of([true, false, false, false]), 3.0 * (of_head + of_mlp));
    }
}
