//! Annealing of a tokenizer's loss: half cosines of the Gumbel-softmax temperature and of the weight of the KL
//! divergence (arXiv:2102.12092, appendix A.2).

use crate::recipe::TokenizerRecipe;

/// The two annealed values as functions of the number of steps done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Annealing {
    temperature: HalfCosine,
    divergence_weight: HalfCosine,
}

impl Annealing {
    /// The annealing of a recipe over `total` steps; durations are scaled with the length of the run.
    pub(super) fn new(recipe: &TokenizerRecipe, total: u64) -> Self {
        let steps = |epochs: f64| epochs / recipe.train.epochs * total as f64;
        let vae = &recipe.tokenizer;
        Self {
            temperature: HalfCosine {
                from: vae.temperature,
                to: vae.min_temperature,
                steps: steps(vae.temperature_epochs),
            },
            divergence_weight: HalfCosine { from: 0.0, to: vae.divergence_weight, steps: steps(vae.divergence_epochs) },
        }
    }

    /// Temperature of the Gumbel-softmax after `done` steps.
    pub(super) fn temperature(&self, done: u64) -> f64 {
        self.temperature.at(done)
    }

    /// Weight of the KL divergence after `done` steps.
    pub(super) fn divergence_weight(&self, done: u64) -> f64 {
        self.divergence_weight.at(done)
    }
}

/// Half a cosine from one value to another over `steps` steps, then constant.
#[derive(Clone, Copy, Debug, PartialEq)]
struct HalfCosine {
    from: f64,
    to: f64,
    steps: f64,
}

impl HalfCosine {
    fn at(&self, done: u64) -> f64 {
        let progress = if self.steps > 0.0 { (done as f64 / self.steps).min(1.0) } else { 1.0 };
        self.to + 0.5 * (self.from - self.to) * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::resolve_as;

    #[test]
    fn values_go_from_first_to_last_and_stay() {
        let curve = HalfCosine { from: 1.0, to: 0.0625, steps: 100.0 };
        for (done, expected) in [(0, 1.0), (50, 0.53125), (100, 0.0625), (1000, 0.0625)] {
            assert!((curve.at(done) - expected).abs() < 1e-12, "{done}");
        }
        assert_eq!(HalfCosine { steps: 0.0, ..curve }.at(0), 0.0625);
    }

    #[test]
    fn durations_are_squeezed_with_the_run() {
        let edits = ["train.epochs=5", "tokenizer.temperature_epochs=4", "tokenizer.divergence_epochs=1"];
        let edits = edits.map(|e| e.replace("=", " = ") + ".0");
        let recipe: TokenizerRecipe = resolve_as("tokenizer-cifar", &edits).unwrap();
        let vae = recipe.tokenizer;
        let annealing = Annealing::new(&recipe, 50);
        assert_eq!((annealing.temperature(0), annealing.divergence_weight(0)), (vae.temperature, 0.0));
        assert_eq!(annealing.divergence_weight(10), vae.divergence_weight);
        assert_eq!(annealing.temperature(40), vae.min_temperature);
        assert!(annealing.temperature(39) > vae.min_temperature);
    }
}
