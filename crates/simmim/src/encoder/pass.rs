//! One forward pass through an encoder: whether it trains, and the randomness of its drop path.

use simmim_data::rng::{rng, uniform};
use simmim_data::{Purpose, Rng};
use simmim_engine::Operations;

/// Drop path of one forward pass (stochastic depth, arXiv:1603.09382).
///
/// Each image has a generator of its own, so what is dropped does not depend on how a batch was cut
/// into micro-batches.
pub struct Pass {
    images: Vec<Rng>,
    recomputes_blocks: bool,
}

impl Pass {
    /// Nothing is dropped.
    pub fn evaluate() -> Self {
        Self { images: Vec::new(), recomputes_blocks: false }
    }

    /// Branches are dropped, one generator per image of the batch.
    pub fn train(images: Vec<Rng>) -> Self {
        Self { images, recomputes_blocks: false }
    }

    /// Branches are dropped, for each image of a batch as its number in the source and the epoch say.
    pub fn of_samples(seed: u64, epoch: u64, samples: &[usize]) -> Self {
        Self::train(samples.iter().map(|sample| rng(seed, Purpose::DropPath, epoch, *sample as u64)).collect())
    }

    /// Whether activations within blocks are computed again in the backward pass rather than kept.
    pub fn recomputing_blocks(self, recomputes_blocks: bool) -> Self {
        Self { recomputes_blocks, ..self }
    }

    /// Takes `x` through a block.
    pub(super) fn through<B: Operations>(
        &self,
        b: &B,
        x: &B::Tensor,
        block: impl Fn(&B, &B::Tensor) -> B::Tensor + 'static,
    ) -> B::Tensor {
        match self.recomputes_blocks {
            true => b.recompute(x, Box::new(block)),
            false => block(b, x),
        }
    }

    /// The factor of each image's branch, 0 or `1 / (1 − rate)`; none where nothing is dropped.
    pub fn keep(&mut self, rate: f32) -> Option<Vec<f32>> {
        if self.images.is_empty() || rate == 0.0 {
            return None;
        }
        let factor = |rng| if uniform(rng) < rate as f64 { 0.0 } else { 1.0 / (1.0 - rate) };
        Some(self.images.iter_mut().map(factor).collect())
    }
}

/// The drop rate of block `i` of `depth`: linear from 0 to `rate`.
pub(super) fn drop_rate(rate: f32, i: usize, depth: usize) -> f32 {
    if depth < 2 { 0.0 } else { rate * i as f32 / (depth - 1) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_kept_with_their_probability_and_rescaled() {
        let mut pass = Pass::train((0..2000).map(|i| rng(0, Purpose::DropPath, 0, i)).collect());
        let keep = pass.keep(0.25).unwrap();
        let dropped = keep.iter().filter(|k| **k == 0.0).count();
        assert!(dropped.abs_diff(500) < 97, "{dropped}"); // five standard deviations
        assert!(keep.iter().all(|k| *k == 0.0 || *k == 1.0 / 0.75));
    }

    #[test]
    fn nothing_is_dropped_in_evaluation() {
        assert_eq!(Pass::evaluate().keep(0.5), None);
    }

    #[test]
    fn rates_rise_linearly_from_zero() {
        assert_eq!([0, 1, 2].map(|i| drop_rate(0.2, i, 3)), [0.0, 0.1, 0.2]);
    }
}
