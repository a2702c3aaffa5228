//! The context of a forward pass: training or evaluation, the random streams of drop path, recomputation, and the blocks
//! that do not train.

use simmim_data::rng::{rng, uniform};
use simmim_data::{Purpose, Rng};
use simmim_engine::Operations;

/// Drop path (stochastic depth, arXiv:1603.09382), recomputation and frozen blocks of one forward pass.
///
/// Each image has its own random stream, so what is dropped does not depend on how a batch is split into micro-batches.
pub struct ForwardContext {
    images: Vec<Rng>,
    recomputes_blocks: bool,
    /// The first blocks, so many of them, have no backward pass.
    frozen_blocks: usize,
    /// Blocks that were applied so far.
    blocks_done: usize,
}

impl ForwardContext {
    /// Evaluation: nothing is dropped.
    pub fn evaluate() -> Self {
        Self::train(Vec::new())
    }

    /// Training: branches are dropped at random, with one random stream per image of the batch.
    pub fn train(images: Vec<Rng>) -> Self {
        Self { images, recomputes_blocks: false, frozen_blocks: 0, blocks_done: 0 }
    }

    /// Training: the random stream of each image is derived from seed, epoch and the number of the sample in the
    /// source.
    pub fn of_samples(seed: u64, epoch: u64, samples: &[usize]) -> Self {
        Self::train(samples.iter().map(|sample| rng(seed, Purpose::DropPath, epoch, *sample as u64)).collect())
    }

    /// Sets whether activations within blocks are recomputed in the backward pass rather than saved.
    pub fn recomputing_blocks(self, recomputes_blocks: bool) -> Self {
        Self { recomputes_blocks, ..self }
    }

    /// Sets how many of the first blocks have no backward pass, and with them all that comes before them.
    pub fn freezing_blocks(self, frozen_blocks: usize) -> Self {
        Self { frozen_blocks, ..self }
    }

    /// Applies the next block to `x`: without a backward pass or with recomputation in it, if the context says so.
    pub(super) fn through<B: Operations>(
        &mut self,
        b: &B,
        x: &B::Tensor,
        block: impl Fn(&B, &B::Tensor) -> B::Tensor + 'static,
    ) -> B::Tensor {
        self.blocks_done += 1;
        match (self.is_frozen(), self.recomputes_blocks) {
            (true, _) => b.frozen(x, Box::new(block)),
            (false, true) => b.recompute(x, Box::new(block)),
            (false, false) => block(b, x),
        }
    }

    /// Whether some blocks have no backward pass; what they share with the others has none either.
    pub(super) fn freezes(&self) -> bool {
        self.frozen_blocks > 0
    }

    /// Whether the block that was applied last has no backward pass; what follows it before the next one has none either.
    pub(super) fn is_frozen(&self) -> bool {
        (1..=self.frozen_blocks).contains(&self.blocks_done)
    }

    /// The factor on each image's branch, 0 or `1 / (1 − rate)`, `[B]`; `None` if nothing is dropped.
    pub fn drop_path_scale(&mut self, rate: f32) -> Option<Vec<f32>> {
        if self.images.is_empty() || rate == 0.0 {
            return None;
        }
        let factor = |rng| if uniform(rng) < rate as f64 { 0.0 } else { 1.0 / (1.0 - rate) };
        Some(self.images.iter_mut().map(factor).collect())
    }
}

/// Drop-path rate of block `i` of `depth`: linear from 0 to `rate`.
pub(super) fn drop_rate(rate: f32, i: usize, depth: usize) -> f32 {
    if depth < 2 { 0.0 } else { rate * i as f32 / (depth - 1) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_kept_with_their_probability_and_rescaled() {
        let mut context = ForwardContext::train((0..2000).map(|i| rng(0, Purpose::DropPath, 0, i)).collect());
        let scale = context.drop_path_scale(0.25).unwrap();
        let dropped = scale.iter().filter(|k| **k == 0.0).count();
        assert!(dropped.abs_diff(500) < 97, "{dropped}"); // five standard deviations
        assert!(scale.iter().all(|k| *k == 0.0 || *k == 1.0 / 0.75));
    }

    #[test]
    fn nothing_is_dropped_in_evaluation() {
        assert_eq!(ForwardContext::evaluate().drop_path_scale(0.5), None);
    }

    #[test]
    fn rates_rise_linearly_from_zero() {
        assert_eq!([0, 1, 2].map(|i| drop_rate(0.2, i, 3)), [0.0, 0.1, 0.2]);
    }
}
