//! Collecting a model's parameters, and all initial distributions in one place.
//!
//! | rule | used for | source |
//! | --- | --- | --- |
//! | zeros | biases, relative position tables of ViT | microsoft/SimMIM `models/vision_transformer.py` |
//! | zeros | scales of SwinV2's norms behind a branch | microsoft/Swin-Transformer `models/swin_transformer_v2.py` |
//! | ones | scales of other layer norms | microsoft/SimMIM `models/vision_transformer.py` |
//! | constant | layer scale, 0.1 | the same |
//! | times 0.001 | ViT's classification head | the same |
//! | constant | SwinV2's logit scale, ln 10 | microsoft/Swin-Transformer `models/swin_transformer_v2.py` |
//! | normal cut at ±cut | weights and tokens, Swin's position tables, std 0.02 | timm `trunc_normal_` |
//! | uniform ±√(6/(fan-in + fan-out)) | an encoder's weights if `init = "xavier"` | facebookresearch/mae `models_mae.py` |
//! | uniform ±1/√fan-in | prediction head, Swin's patch embedding | PyTorch `Conv2d` |

use simmim_data::rng::{normal, rng, uniform_between};
use simmim_data::{Purpose, Rng};
use simmim_engine::{LayerNorm, Linear, ParameterId, ParameterTable};

/// How a parameter's first values are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All the same.
    Constant(f32),
    /// Normal with standard deviation `std`, redrawn outside `±cut`, then multiplied by `factor`.
    Normal {
        /// Standard deviation before the cut.
        std: f32,
        /// Bound on the absolute value.
        cut: f32,
        /// Factor on the result.
        factor: f32,
    },
    /// Uniform in `±bound`.
    Uniform {
        /// Bound on the absolute value.
        bound: f32,
    },
}

impl Init {
    /// The rule whose values are those of this one times `by`.
    pub fn scaled(self, by: f32) -> Self {
        match self {
            Init::Constant(value) => Init::Constant(value * by),
            Init::Normal { std, cut, factor } => Init::Normal { std, cut, factor: factor * by },
            Init::Uniform { bound } => Init::Uniform { bound: bound * by },
        }
    }

    fn draw(self, rng: &mut Rng) -> f32 {
        match self {
            Init::Constant(value) => value,
            Init::Normal { std, cut, factor } => loop {
                let value = normal(rng) as f32 * std;
                if value.abs() <= cut {
                    return value * factor;
                }
            },
            Init::Uniform { bound } => uniform_between(rng, -bound as f64, bound as f64) as f32,
        }
    }
}

/// Collects parameters; names get the prefix of the scope they are added in.
#[derive(Default)]
pub struct Builder {
    table: ParameterTable,
    inits: Vec<Init>,
    prefix: String,
}

impl Builder {
    /// Runs `build` with `name.` in front of every parameter name; an empty name adds nothing.
    pub fn scope<R>(&mut self, name: &str, build: impl FnOnce(&mut Self) -> R) -> R {
        let outer = self.prefix.len();
        if !name.is_empty() {
            self.prefix += name;
            self.prefix.push('.');
        }
        let result = build(self);
        self.prefix.truncate(outer);
        result
    }

    /// Adds a parameter.
    pub fn add(&mut self, name: &str, shape: &[usize], init: Init) -> ParameterId {
        self.inits.push(init);
        self.table.add(&format!("{}{name}", self.prefix), shape)
    }

    /// Adds a linear layer `name.weight` `[out, in]` and `name.bias` `[out]`, the bias zero.
    pub fn linear(&mut self, name: &str, outputs: usize, inputs: usize, weight: Init) -> Linear {
        self.scope(name, |b| Linear {
            weight: b.add("weight", &[outputs, inputs], weight),
            bias: Some(b.add("bias", &[outputs], Init::Constant(0.0))),
        })
    }

    /// Adds a layer norm `name.weight` (ones) and `name.bias` (zeros).
    pub fn layer_norm(&mut self, name: &str, width: usize, eps: f32) -> LayerNorm {
        self.scope(name, |b| LayerNorm {
            weight: b.add("weight", &[width], Init::Constant(1.0)),
            bias: b.add("bias", &[width], Init::Constant(0.0)),
            eps,
        })
    }

    /// The table, and every parameter's rule.
    pub fn finish(self) -> (ParameterTable, Vec<Init>) {
        (self.table, self.inits)
    }
}

/// Initial values of all parameters, each drawn from a generator of its own.
pub fn initial_values(table: &ParameterTable, inits: &[Init], seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; table.len()];
    initialise(table, inits, seed, &mut values);
    values
}

/// [`initial_values`] written where they are needed: a model of billions has no room for a copy.
pub fn initialise(table: &ParameterTable, inits: &[Init], seed: u64, values: &mut [f32]) {
    for (index, (parameter, init)) in table.iter().zip(inits).enumerate() {
        let mut rng = rng(seed, Purpose::Initialise, 0, index as u64);
        values[parameter.range.clone()].fill_with(|| init.draw(&mut rng));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_normal_stays_within_its_cut_and_fills_it() {
        let mut rng = rng(0, Purpose::Initialise, 0, 0);
        let init = Init::Normal { std: 0.02, cut: 0.02, factor: 0.5 };
        let values: Vec<f32> = (0..2000).map(|_| init.draw(&mut rng)).collect();
        let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(largest <= 0.01 && largest > 0.0099, "{largest}");
    }

    #[test]
    fn scopes_nest_and_end() {
        let mut b = Builder::default();
        b.scope("a", |b| b.scope("b", |b| b.add("w", &[1], Init::Constant(0.0))));
        b.add("c", &[2], Init::Constant(3.0));
        let (table, inits) = b.finish();
        let names: Vec<_> = table.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["a.b.w", "c"]);
        assert_eq!(initial_values(&table, &inits, 0), [0.0, 3.0, 3.0]);
    }
}
