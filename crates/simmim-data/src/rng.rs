//! Random numbers that depend on a seed, a purpose, an epoch and an index, and on nothing else.
//!
//! So a resumed run, or one with another number of threads or ranks, draws the same numbers as before. The draws below
//! are written out instead of taken from `rand`, because a release of `rand` may change how it turns bits into numbers.

use std::f64::consts::TAU;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// The generator of all random numbers in the workspace, ChaCha with eight rounds.
///
/// It gives the same bits on every machine, and its 256-bit key has room for a seed, a [`Purpose`], an epoch and an
/// index without hashing.
pub type Rng = ChaCha8Rng;

/// What a stream of random numbers is for.
///
/// The discriminants are part of the key: a new purpose takes a new number, and the number of a removed purpose is never
/// used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Purpose {
    /// The order of the samples in an epoch.
    Shuffle = 0,
    /// The random augmentation of one image.
    Augment = 1,
    /// Which patches of one image are hidden.
    Mask = 2,
    /// Which residual branches one image skips.
    DropPath = 3,
    /// The initial values of the parameters.
    Initialize = 4,
    /// Which sample replaces an unreadable one.
    Replace = 5,
    /// Which samples belong to a class-balanced subset of a source.
    Label = 6,
    /// How the images and labels of a batch are mixed.
    Mix = 7,
    /// The Gumbel noise in the relaxed choice of the tokens of one image.
    Relax = 8,
    /// Which pixels a palette is made from, and its initial colors.
    Palette = 9,
    /// Which tiles of one picture are used.
    Tile = 10,
    /// Which samples are shown of a collection.
    Show = 11,
    /// Where the points of a map begin.
    Map = 12,
}

/// Returns the generator for a seed, a purpose, an epoch and an index.
///
/// The four values are the four quarters of the ChaCha key, so two generators give the same stream only if all four
/// values are the same.
#[must_use]
pub fn rng(seed: u64, purpose: Purpose, epoch: u64, index: u64) -> Rng {
    let mut key = [0; 32];
    for (quarter, value) in key.chunks_exact_mut(8).zip([seed, purpose as u64, epoch, index]) {
        quarter.copy_from_slice(&value.to_le_bytes());
    }
    Rng::from_seed(key)
}

/// Draws from the uniform distribution over `[0, 1)`, in multiples of 2⁻⁵³.
pub fn uniform(rng: &mut Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (-53_f64).exp2()
}

/// Draws from the uniform distribution between `low` and `high`.
pub fn uniform_between(rng: &mut Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * uniform(rng)
}

/// Draws an integer in `0..n` without bias.
///
/// Multiplication with rejection, Lemire 2019 (arXiv:1805.10941, algorithm 5).
///
/// # Panics
///
/// Panics if `n` is 0.
pub fn below(rng: &mut Rng, n: usize) -> usize {
    assert!(n > 0, "a draw below 0 has no outcome");
    let n = n as u64;
    let threshold = n.wrapping_neg() % n;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(n);
        if product as u64 >= threshold {
            return (product >> 64) as usize;
        }
    }
}

/// Draws an order of `0..n`, where all orders are equally likely (Fisher–Yates shuffle).
pub fn permutation(rng: &mut Rng, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        order.swap(last, below(rng, last + 1));
    }
    order
}

/// Draws from the normal distribution with mean 0 and standard deviation 1.
pub fn normal(rng: &mut Rng) -> f64 {
    normal_pair(rng)[0]
}

/// Draws two independent numbers from the normal distribution with mean 0 and standard deviation 1 (Box–Muller).
pub fn normal_pair(rng: &mut Rng) -> [f64; 2] {
    let radius = (-2.0 * (1.0 - uniform(rng)).ln()).sqrt();
    let (sin, cos) = (TAU * uniform(rng)).sin_cos();
    [radius * cos, radius * sin]
}

/// Draws from the beta distribution with two shape parameters above 0.
///
/// The result is the first of two gamma variables with these shape parameters, divided by their sum. It is computed from
/// their logarithms, because with small shape parameters both variables may underflow to 0.
pub fn beta(rng: &mut Rng, first: f64, second: f64) -> f64 {
    let (first, second) = (log_gamma_variable(rng, first), log_gamma_variable(rng, second));
    1.0 / (1.0 + (second - first).exp())
}

/// Draws the logarithm of a gamma variable with a shape parameter above 0.
///
/// The method is that of Marsaglia and Tsang 2000: a transformed normal variable is cubed, and accepted or rejected.
/// It needs a shape of at least 1. For a smaller shape it draws with `shape + 1` and multiplies the result by a uniform
/// variable to the power of `1 / shape`, as the paper suggests.
fn log_gamma_variable(rng: &mut Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        return log_gamma_variable(rng, shape + 1.0) + (1.0 - uniform(rng)).ln() / shape;
    }
    let scale = shape - 1.0 / 3.0;
    loop {
        let normal = normal(rng);
        let root = 1.0 + normal / (9.0 * scale).sqrt();
        if root <= 0.0 {
            continue;
        }
        let log_cube = 3.0 * root.ln();
        let log_accepted = normal * normal / 2.0 + scale * (1.0 - root.powi(3) + log_cube);
        if (1.0 - uniform(rng)).ln() < log_accepted {
            return scale.ln() + log_cube;
        }
    }
}

/// Draws from the standard Gumbel distribution.
///
/// Adding one such draw to each of several scores and taking the largest sum chooses a score with the probabilities of
/// the softmax of the scores.
pub fn gumbel(rng: &mut Rng) -> f64 {
    // the middle of one of 2³² equal parts of (0, 1), so that it is never 0 or 1, where the result is infinite
    let share = (f64::from(rng.next_u32()) + 0.5) * (-32_f64).exp2();
    -(-share.ln()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(seed: u64, purpose: Purpose, epoch: u64, index: u64) -> [u64; 2] {
        let mut rng = rng(seed, purpose, epoch, index);
        [rng.next_u64(), rng.next_u64()]
    }

    #[test]
    fn a_stream_depends_on_all_four_values() {
        let base = stream(1, Purpose::Mask, 2, 3);
        assert_eq!(base, stream(1, Purpose::Mask, 2, 3));
        for other in [
            stream(2, Purpose::Mask, 2, 3),
            stream(1, Purpose::Augment, 2, 3),
            stream(1, Purpose::Mask, 3, 3),
            stream(1, Purpose::Mask, 3, 2),
            stream(1, Purpose::Mask, 2, 4),
        ] {
            assert_ne!(base, other);
        }
    }

    /// Checks that the mean of 40,000 draws is within `tolerance` of `expected`.
    fn check(what: &str, expected: f64, tolerance: f64, draw: impl Fn(&mut Rng) -> f64) {
        let draws = 40_000;
        let mut rng = rng(7, Purpose::Augment, 0, 0);
        let mean = (0..draws).map(|_| draw(&mut rng)).sum::<f64>() / f64::from(draws);
        assert!((mean - expected).abs() < tolerance, "{what}: {mean} is not {expected}");
    }

    #[test]
    fn moments_of_the_draws_are_those_of_their_distributions() {
        // tolerances: five standard errors, which with 40,000 draws is 5 / 200 of the standard deviation
        check("uniform", 0.5, 0.0073, uniform);
        check("uniform, squared", 1.0 / 3.0, 0.0075, |rng| uniform(rng).powi(2));
        check("between", -1.0, 0.0289, |rng| uniform_between(rng, -3.0, 1.0));
        check("below 5", 2.0, 0.036, |rng| below(rng, 5) as f64);
        check("below 1", 0.0, 1e-9, |rng| below(rng, 1) as f64);
        check("normal", 0.0, 0.025, normal);
        check("normal, squared", 1.0, 0.036, |rng| normal(rng).powi(2));
        // the mean is Euler's constant, the variance π² / 6, so the second moment is 1.978
        check("gumbel", 0.5772, 0.025, gumbel);
        check("gumbel, squared", 1.978, 0.08, |rng| gumbel(rng).powi(2));
        check("normal, fourth power", 3.0, 0.25, |rng| normal(rng).powi(4));
        check("second normal, squared", 1.0, 0.036, |rng| normal_pair(rng)[1].powi(2));
        check("product of a pair", 0.0, 0.025, |rng| normal_pair(rng).iter().product());
        // with shapes a and b: mean a / (a + b), second moment mean · (a + 1) / (a + b + 1)
        for (first, second) in [(0.8, 0.8), (1.0, 1.0), (0.3, 2.0), (5.0, 3.0)] {
            let mean = first / (first + second);
            let square = mean * (first + 1.0) / (first + second + 1.0);
            // standard deviations are at most one half
            check("beta", mean, 0.0125, |rng| beta(rng, first, second));
            check("beta, squared", square, 0.0125, |rng| beta(rng, first, second).powi(2));
        }
        check("beta of tiny shapes", 0.5, 0.0125, |rng| beta(rng, 1e-5, 1e-5));
    }

    #[test]
    fn uniform_never_leaves_its_interval() {
        let mut rng = rng(3, Purpose::Mask, 0, 0);
        assert!((0..100_000).all(|_| (0.0..1.0).contains(&uniform(&mut rng))));
    }

    #[test]
    fn permutation_holds_every_index_once() {
        for n in [0, 1, 2, 7, 1000] {
            let mut order = permutation(&mut rng(5, Purpose::Shuffle, 1, 0), n);
            order.sort_unstable();
            assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn all_orders_of_three_are_equally_likely() {
        let mut rng = rng(11, Purpose::Shuffle, 0, 0);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            *counts.entry(permutation(&mut rng, 3)).or_insert(0_i32) += 1;
        }
        assert_eq!(counts.len(), 6);
        // five standard deviations of a binomial with mean 1000
        assert!(counts.values().all(|count| (count - 1000).abs() < 145), "{counts:?}");
    }
}
