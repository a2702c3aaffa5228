//! The parameter builder of models, and all initialization rules in one place.
//!
//! | rule | used for | source |
//! | --- | --- | --- |
//! | zeros | biases, relative position tables of ViT | microsoft/SimMIM `models/vision_transformer.py` |
//! | zeros | scales of SwinV2's post-norms | microsoft/Swin-Transformer `models/swin_transformer_v2.py` |
//! | ones | scales of other layer norms | microsoft/SimMIM `models/vision_transformer.py` |
//! | constant | layer scale, 0.1 | the same |
//! | truncated normal times 0.001 | ViT's classification head | the same |
//! | constant | SwinV2's logit scale, ln 10 | microsoft/Swin-Transformer `models/swin_transformer_v2.py` |
//! | normal, truncated at ±cut | weights and tokens, Swin's position tables, std 0.02 | timm `trunc_normal_` |
//! | uniform ±√(6/(fan-in + fan-out)) | an encoder's weights if `init = "xavier"` | facebookresearch/mae `models_mae.py` |
//! | uniform ±1/√fan-in | prediction head, Swin's patch embedding | PyTorch `Conv2d` |

use simmim_data::rng::{normal, rng, uniform_between};
use simmim_data::{Purpose, Rng};
use simmim_engine::{Backend, LayerNorm, Linear, Parameter, ParameterId, ParameterTable, Slot};

/// The initialization of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// A constant.
    Constant(f32),
    /// Normal with standard deviation `std`, truncated at `±cut` by redrawing, then multiplied by `factor`.
    Normal {
        /// Standard deviation before truncation.
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
    /// This initialization with all values multiplied by `by`.
    pub fn scaled(self, by: f32) -> Self {
        match self {
            Init::Constant(value) => Init::Constant(value * by),
            Init::Normal { std, cut, factor } => Init::Normal { std, cut, factor: factor * by },
            Init::Uniform { bound } => Init::Uniform { bound: bound * by },
        }
    }

    /// Initial values of the parameter with this index in its table.
    fn values(self, parameter: &Parameter, index: usize, seed: u64) -> Vec<f32> {
        let mut rng = rng(seed, Purpose::Initialize, 0, index as u64);
        (0..parameter.range.len()).map(|_| self.draw(&mut rng)).collect()
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

/// Collects the parameters of a model. Names get the prefixes of the scopes in which parameters are added.
#[derive(Default)]
pub struct Builder {
    table: ParameterTable,
    inits: Vec<Init>,
    prefix: String,
}

impl Builder {
    /// Runs `build` with `name.` as prefix of every parameter name; an empty name adds no prefix.
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

    /// Adds a linear layer: `name.weight` `[outputs, inputs]` and `name.bias` `[outputs]`, which is zero.
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

    /// The parameter table, and the initialization of each parameter.
    pub fn finish(self) -> (ParameterTable, Vec<Init>) {
        (self.table, self.inits)
    }
}

/// Initializes all parameters of a backend, each from its own random stream.
pub fn initialize<B: Backend>(backend: &B, inits: &[Init], seed: u64) {
    for (index, (parameter, init)) in backend.table().iter().zip(inits).enumerate() {
        backend.write_parameter(Slot::Values, ParameterId(index), &init.values(parameter, index, seed));
    }
}

/// The values of [`initialize`] in one flat buffer, in the order of the table.
pub fn initial_values(table: &ParameterTable, inits: &[Init], seed: u64) -> Vec<f32> {
    let each = table.iter().zip(inits).enumerate();
    each.flat_map(|(index, (parameter, init))| init.values(parameter, index, seed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_normal_stays_within_its_cut_and_fills_it() {
        let mut rng = rng(0, Purpose::Initialize, 0, 0);
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
