//! The inverse Swin head: the stages of Swin in reverse order, from coarse to fine, with patch splitting in place of
//! patch merging (arXiv:2111.09886, ablation of prediction heads).
//!
//! Patch splitting doubles the width of a token and splits it into 2×2 tokens of half its former width. There are four
//! stages with three splits between them. If the target has too few sub-patches per feature for all splits (a coarse
//! target, or a small patch), the remaining splits only halve the width. A linear layer predicts the sub-patches of
//! each of the finest tokens.
//!
//! The input is the features of any encoder. If their width is not that of the first stage, a linear layer changes it.

use crate::encoders::{EncoderSpec, SwinBlocks};
use crate::targets::Layout;
use crate::weights::{Builder, Init};
use simmim_engine::{LayerNorm, Linear, Operations};

/// `ε` of every layer norm: PyTorch's default, as in [`encoders`](crate::encoders).
const NORM_EPS: f32 = 1e-5;

/// Width of an attention head (arXiv:2103.14030, section 3.3).
const HEAD_WIDTH: usize = 32;

/// Sides of windows: at most Swin's (arXiv:2103.14030, section 3.3), and at least 4, below which padding is preferred.
const WINDOW: std::ops::RangeInclusive<usize> = 4..=7;

/// Width and depth of the stages, in Swin's order: from fine to coarse.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Width of the finest stage; it doubles in each coarser one.
    pub width: usize,
    /// Blocks of each stage, the finest first.
    pub depths: [usize; 4],
}

impl Sizes {
    /// Those of Swin-T (arXiv:2103.14030, section 3.3).
    pub const TINY: Self = Self { width: 96, depths: [2, 2, 6, 2] };
    /// Those of Swin-B (arXiv:2103.14030, section 3.3).
    pub const BASE: Self = Self { width: 128, depths: [2, 2, 18, 2] };
}

/// Stages of Swin blocks, coarse to fine.
#[derive(Clone, Debug)]
pub struct InverseSwinHead {
    input: Option<Linear>,
    stages: Vec<Stage>,
    norm: LayerNorm,
    output: Linear,
    encoder: EncoderSpec,
    layout: Layout,
    /// Finest tokens along each side of a feature's patch.
    split: usize,
    width: usize,
}

#[derive(Clone, Debug)]
struct Stage {
    blocks: SwinBlocks,
    to_next: Option<Split>,
    grid: (usize, usize),
    width: usize,
}

/// Patch splitting into 2×2 tokens of half the width, or only halving the width where tokens are as fine as the target.
#[derive(Clone, Debug)]
struct Split {
    norm: LayerNorm,
    expansion: Linear,
    /// Tokens along each axis that one token is split into, 1 or 2.
    factor: usize,
}

impl InverseSwinHead {
    /// Builds the head and adds its parameters under `decoder`.
    pub fn new(sizes: Sizes, encoder: &EncoderSpec, layout: &Layout, builder: &mut Builder) -> Self {
        builder.scope("decoder", |b| {
            let mut grid = encoder.feature_grid();
            let mut width = sizes.width << (sizes.depths.len() - 1);
            let input = (encoder.out_width != width).then(|| b.linear("input", width, encoder.out_width, weight()));
            let mut split = 1;
            let mut stages = Vec::new();
            for (i, depth) in sizes.depths.into_iter().rev().enumerate() {
                let is_last = i + 1 == sizes.depths.len();
                let factor = if layout.side.is_multiple_of(2 * split) { 2 } else { 1 };
                stages.push(b.scope(&format!("layers.{i}"), |b| Stage {
                    blocks: SwinBlocks::new(grid, width, depth, heads(width), window(grid), b),
                    to_next: (!is_last).then(|| b.scope("upsample", |b| Split::new(width, factor, b))),
                    grid,
                    width,
                }));
                if !is_last {
                    split *= factor;
                    grid = (grid.0 * factor, grid.1 * factor);
                    width /= 2;
                }
            }
            let side = layout.side / split;
            let outputs = layout.outputs() / (split * split);
            debug_assert_eq!(outputs, layout.channels * side * side * layout.classes.unwrap_or(1));
            let norm = b.layer_norm("norm", width, NORM_EPS);
            let output = b.linear("output", outputs, width, weight());
            Self { input, stages, norm, output, encoder: *encoder, layout: *layout, split, width }
        })
    }

    /// See [`Head::predict`](super::Head::predict). All features go through the stages; only the last layer is
    /// restricted to `rows`.
    pub fn predict<B: Operations>(&self, b: &B, features: &B::Tensor, rows: &[u32]) -> B::Tensor {
        let images = b.shape(features)[0];
        let mut x = match &self.input {
            None => features.clone(),
            Some(input) => b.linear(features, input),
        };
        for stage in &self.stages {
            x = stage.blocks.forward(b, x);
            if let Some(split) = &stage.to_next {
                x = split.forward(b, &x, images, stage.grid); // [B, 4N, D/2] or [B, N, D/2]
            }
        }
        let tokens = b.gather_rows(&x, &self.tokens_of(rows)); // [R·split², D]
        let parts = b.linear(&b.layer_norm(&tokens, &self.norm), &self.output); // [R·split², C·side²·K]
        self.joined(b, &parts, rows.len())
    }

    /// Indices of the finest tokens of the features in `rows`, in row-major order within each.
    fn tokens_of(&self, rows: &[u32]) -> Vec<u32> {
        let (h, w) = self.encoder.feature_grid();
        let columns = w * self.split;
        let token = |row: usize, i: usize| {
            let (image, y, x) = (row / (h * w), row % (h * w) / w, row % w);
            let (y, x) = (y * self.split + i / self.split, x * self.split + i % self.split);
            (image * h * w * self.split * self.split + y * columns + x) as u32
        };
        let tokens = self.split * self.split;
        rows.iter().flat_map(|row| (0..tokens).map(move |i| token(*row as usize, i))).collect()
    }

    /// Arranges the predictions of the finest tokens in the order of a feature: channel, row, column.
    ///
    /// # Shapes
    /// `[R·split², C·side²·K]` → `[R, C·S·K]`.
    fn joined<B: Operations>(&self, b: &B, parts: &B::Tensor, rows: usize) -> B::Tensor {
        let (split, side, channels) = (self.split, self.layout.side / self.split, self.layout.channels);
        if split == 1 {
            return parts.clone();
        }
        // a line is the side·K numbers of one row of sub-patches of one token and channel
        let line = side * self.layout.classes.unwrap_or(1);
        let lines_per_feature = split * split * channels * side;
        let order = (0..rows * lines_per_feature).map(|i| {
            let (row, channel) = (i / lines_per_feature, i % lines_per_feature / (split * side * split));
            let (y, x) = (i % (split * side * split) / split, i % split);
            let token = row * split * split + y / side * split + x;
            ((token * channels + channel) * side + y % side) as u32
        });
        let lines = b.reshape(parts, &[rows * lines_per_feature, line]);
        let lines = b.gather_rows(&lines, &order.collect::<Vec<_>>());
        b.reshape(&lines, &[rows, lines_per_feature * line])
    }

    /// See [`Head::flops`](super::Head::flops). All features go through the stages, whatever share is predicted.
    pub fn flops(&self, share: f64) -> f64 {
        let product = |tokens: usize, inputs: usize, outputs: usize| 2.0 * (tokens * inputs * outputs) as f64;
        let (h, w) = self.encoder.feature_grid();
        let first = self.stages[0].width;
        let input = self.input.map_or(0.0, |_| product(h * w, self.encoder.out_width, first));
        let stage = |stage: &Stage| {
            let tokens = stage.grid.0 * stage.grid.1;
            let outputs = stage.to_next.as_ref().map_or(0, |split| stage.width / 2 * split.factor * split.factor);
            stage.blocks.flops() + product(tokens, stage.width, outputs)
        };
        let output = share * product(h * w, self.width, self.layout.outputs());
        input + self.stages.iter().map(stage).sum::<f64>() + output
    }
}

impl Split {
    fn new(width: usize, factor: usize, b: &mut Builder) -> Self {
        let outputs = width / 2 * factor * factor;
        Self {
            norm: b.layer_norm("norm", width, NORM_EPS),
            expansion: Linear { weight: b.add("expansion.weight", &[outputs, width], weight()), bias: None },
            factor,
        }
    }

    /// # Shapes
    /// `[B, N, D]` → `[B, factor²·N, D/2]`.
    fn forward<B: Operations>(&self, b: &B, x: &B::Tensor, images: usize, (h, w): (usize, usize)) -> B::Tensor {
        let x = b.linear(&b.layer_norm(x, &self.norm), &self.expansion);
        if self.factor == 1 {
            return x;
        }
        let width = b.shape(&x)[2] / 4;
        let parts = b.reshape(&x, &[images * h * w * 4, width]); // the 2×2 tokens of each token in row-major order
        let part = |i: usize| {
            let (image, y, x) = (i / (4 * h * w), i % (4 * h * w) / (2 * w), i % (2 * w));
            (((image * h + y / 2) * w + x / 2) * 4 + y % 2 * 2 + x % 2) as u32
        };
        let order: Vec<u32> = (0..images * h * w * 4).map(part).collect();
        b.reshape(&b.gather_rows(&parts, &order), &[images, 4 * h * w, width])
    }
}

/// The initialization of Swin's weights.
fn weight() -> Init {
    Init::Normal { std: 0.02, cut: 2.0, factor: 1.0 }
}

/// The largest number of heads of at least [`HEAD_WIDTH`] that divides the width.
fn heads(width: usize) -> usize {
    (1..=(width / HEAD_WIDTH).max(1)).rev().find(|heads| width.is_multiple_of(*heads)).unwrap_or(1)
}

/// The largest side in [`WINDOW`] that divides the grid, or else the largest one, with padding.
fn window((h, w): (usize, usize)) -> usize {
    let divides = |side: &usize| h.is_multiple_of(*side) && w.is_multiple_of(*side);
    WINDOW.rev().find(divides).unwrap_or(*WINDOW.end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::PatchGrid;
    use crate::testing::{TestBackend, open};
    use crate::weights::initial_values;
    use simmim_engine::{Backend, Slot};

    const SMALL: Sizes = Sizes { width: 8, depths: [1, 1, 2, 1] };

    fn encoder(image_px: (usize, usize), stride_px: usize, out_width: usize) -> EncoderSpec {
        EncoderSpec { image_px, channels: 3, patch_px: stride_px, stride_px, width: out_width, out_width, depth: 1 }
    }

    /// A head and a backend with its initial parameters.
    fn built(encoder: &EncoderSpec, layout: &Layout) -> (InverseSwinHead, TestBackend) {
        let mut builder = Builder::default();
        let head = InverseSwinHead::new(SMALL, encoder, layout, &mut builder);
        let (table, inits) = builder.finish();
        let values = initial_values(&table, &inits, 0);
        let b = open(table);
        b.write_slot(Slot::Values, &values);
        (head, b)
    }

    #[test]
    fn a_split_is_the_inverse_of_merging_neighbors() {
        // the outputs of a 1×2 grid are numbered, and must be in the right places of the 2×4 grid
        let mut builder = Builder::default();
        let split = Split::new(4, 2, &mut builder);
        let (table, _) = builder.finish();
        let b = open(table);
        // the scale of the norm is 0 and its shift selects one input, so the output is that column of the expansion
        let mut values = vec![0.0; b.table().len()];
        values[4] = 1.0;
        (0..8).for_each(|i| values[8 + 4 * i] = i as f32);
        b.write_slot(Slot::Values, &values);
        let x = b.tensor(&[1, 2, 4], &[1.0; 8]);
        let out = split.forward(&b, &x, 1, (1, 2));
        assert_eq!(b.shape(&out), [1, 8, 2]);
        let first: Vec<f32> = b.read(&out).chunks(2).map(|token| token[0]).collect();
        assert_eq!(first, [0.0, 2.0, 0.0, 2.0, 4.0, 6.0, 4.0, 6.0]);
    }

    #[test]
    fn a_feature_is_predicted_alone_as_among_all() {
        for (side, split, classes) in [(8, 8, None), (4, 4, Some(3)), (6, 2, None), (1, 1, Some(5)), (5, 1, None)] {
            let encoder = encoder((16, 32), 8, 24);
            let layout = Layout { channels: 2, side, classes };
            let (head, b) = built(&encoder, &layout);
            assert_eq!(head.split, split, "side {side}");
            let features: Vec<f32> = (0..2 * 8 * 24).map(|i| ((i * 29) % 31) as f32 / 15.0 - 1.0).collect();
            let features = b.tensor(&[2, 8, 24], &features);
            let all = b.read(&head.predict(&b, &features, &(0..16).collect::<Vec<_>>()));
            let some = head.predict(&b, &features, &[3, 12]);
            assert_eq!(b.shape(&some), [2, layout.outputs()]);
            let expected = [3, 12].map(|row| all[row * layout.outputs()..][..layout.outputs()].to_vec()).concat();
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5; // the order of summation may differ
            assert!(b.read(&some).iter().zip(&expected).all(near), "side {side}");
        }
    }

    #[test]
    fn predictions_of_the_finest_tokens_are_at_their_place() {
        // each token predicts its own number; the map of predictions must then be the map of tokens
        let (encoder, layout) = (encoder((16, 16), 8, 64), Layout { channels: 2, side: 8, classes: None });
        let grid = PatchGrid { channels: 2, height: 16, width: 16, side: 8 };
        let (head, b) = built(&encoder, &layout);
        let parts: Vec<f32> = (0..4 * 64).flat_map(|token| [token as f32, -(token as f32)]).collect();
        let rows: Vec<u32> = (0..4).collect();
        let parts = b.tensor(&[4 * 64, 2], &parts);
        let map = grid.map(&layout, &b.read(&head.joined(&b, &parts, 4)));
        // token `i` in the order of `tokens_of` must be at the place that it gives
        for (i, token) in head.tokens_of(&rows).into_iter().enumerate() {
            assert_eq!((map[token as usize], map[256 + token as usize]), (i as f32, -(i as f32)));
        }
    }

    #[test]
    fn it_is_as_large_as_the_swin_it_inverts() {
        // Swin-T's blocks and mergings have 27.5 M parameters less the norm and its patch embedding; ours
        // has the same blocks, and splits D → 2D (2D²) where Swin merges 4D' → 2D' (2D² with D = 2D')
        let layout = Layout { channels: 3, side: 32, classes: None };
        let count = |sizes: Sizes| {
            let encoder = encoder((224, 224), 32, 8 * sizes.width);
            let mut builder = Builder::default();
            InverseSwinHead::new(sizes, &encoder, &layout, &mut builder);
            builder.finish().0.len() as f64 / 1e6
        };
        assert_eq!([count(Sizes::TINY), count(Sizes::BASE)].map(|m| m.round()), [28.0, 87.0]);
    }

    #[test]
    fn windows_divide_the_grid_where_they_can() {
        assert_eq!([(14, 14), (12, 12), (8, 16), (11, 22), (3, 3)].map(window), [7, 6, 4, 7, 7]);
        assert_eq!([768, 96, 16, 352, 176].map(heads), [24, 3, 1, 11, 4]);
    }
}
