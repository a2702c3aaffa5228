//! Which arithmetic to use, and why.

use serde::{Deserialize, Serialize};
use simmim_engine::{Precision, Tile};

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrecisionChoice {
    /// The faster one here.
    #[default]
    Auto,
    /// f32 operands.
    F32,
    /// bf16 operands, f32 sums.
    Bf16,
}

/// The precision to use and the reason, to be printed and written to the run.
pub fn choose(choice: PrecisionChoice) -> (Precision, &'static str) {
    let multiplies_bf16 = Tile::detect().multiplies_bf16();
    match (choice, multiplies_bf16) {
        (PrecisionChoice::Auto, true) => (Precision::Bf16, "auto: this CPU multiplies bf16 at twice the speed of f32"),
        (PrecisionChoice::Auto, false) => {
            (Precision::F32, "auto: this CPU has no instructions for bf16, so f32 is faster")
        }
        (PrecisionChoice::F32, _) => (Precision::F32, "as asked"),
        (PrecisionChoice::Bf16, true) => (Precision::Bf16, "as asked"),
        (PrecisionChoice::Bf16, false) => {
            (Precision::Bf16, "as asked; this CPU has no instructions for bf16, so operands are widened to f32")
        }
    }
}

/// The name of a precision on the command line and in files.
pub fn name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    }
}
