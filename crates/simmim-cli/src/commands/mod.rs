//! One file per command.

pub(crate) mod demo;
pub(crate) mod inspect;
pub(crate) mod pretrain;
pub(crate) mod recipes;
pub(crate) mod reconstruct;

use serde_json::Value;

/// Prints a result: JSON if asked for, else `prose`.
fn print_result(is_json: bool, prose: &str, json: &Value) {
    if is_json { println!("{json}") } else { println!("{prose}") }
}
