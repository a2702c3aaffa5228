//! The choice of the precision of matrix products.

use serde::{Deserialize, Serialize};
use simmim_engine::{Device, Precision};

/// The precision that the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrecisionChoice {
    /// The one that is faster on the device.
    #[default]
    Auto,
    /// f32 operands and sums.
    F32,
    /// bf16 operands, f32 sums.
    Bf16,
}

/// The precision to use, and the reason for it, which is printed and recorded in the run.
pub fn choose(choice: PrecisionChoice, device: &impl Device) -> (Precision, String) {
    let as_asked = |precision| {
        let note = device.precision_note(precision).map_or(String::new(), |note| format!("; {note}"));
        (precision, format!("as asked{note}"))
    };
    match choice {
        PrecisionChoice::Auto => device.fastest_precision(),
        PrecisionChoice::F32 => as_asked(Precision::F32),
        PrecisionChoice::Bf16 => as_asked(Precision::Bf16),
    }
}

/// The name of a precision on the command line and in files.
pub fn name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    }
}

/// The precision of a name: the inverse of [`name`].
pub(crate) fn of_name(name: &str) -> Option<Precision> {
    [Precision::F32, Precision::Bf16].into_iter().find(|precision| self::name(*precision) == name)
}
