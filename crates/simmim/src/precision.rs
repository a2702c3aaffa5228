//! Which arithmetic to use, and why.

use serde::{Deserialize, Serialize};
use simmim_engine::Precision;

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
    match choice {
        PrecisionChoice::Auto => {
            (Precision::F32, "auto: bf16 operands are multiplied in f32 on every CPU so far, so f32 is faster")
        }
        PrecisionChoice::F32 => (Precision::F32, "as asked"),
        PrecisionChoice::Bf16 => (Precision::Bf16, "as asked; operands are rounded to bf16 and multiplied in f32"),
    }
}

/// The name of a precision on the command line and in files.
pub fn name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    }
}
