//! Range checks of recipe values, with errors that name the key.

use crate::error::{Error, Result};
use std::fmt::Display;

/// The error for a key whose value does not fit.
pub(crate) fn wrong(key: &str, value: impl Display, expected: String, hint: Option<String>) -> Error {
    Error::Recipe { key: key.into(), value: value.to_string(), expected, hint }
}

/// Checks `value ≥ 1`.
pub(crate) fn at_least_one(key: &str, value: usize) -> Result<()> {
    if value == 0 { Err(wrong(key, value, "expected at least 1".into(), None)) } else { Ok(()) }
}

/// Checks `1 ≤ value ≤ most`.
pub(crate) fn size(key: &str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(wrong(key, value, format!("expected 1 to {most}"), None))
}

/// Checks `0 < value < ∞`.
pub(crate) fn positive(key: &str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(wrong(key, value, "expected more than 0".into(), None))
}

/// Checks `low ≤ value ≤ high`; NaN is an error.
pub(crate) fn within(key: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if value >= low && value <= high {
        return Ok(());
    }
    let expected =
        if high == f64::MAX { format!("expected at least {low}") } else { format!("expected {low} to {high}") };
    Err(wrong(key, value, expected, None))
}

/// Checks `0 < low ≤ high ≤ most`, `high < ∞`.
pub(crate) fn in_order(key: &str, (low, high): (f64, f64), most: f64) -> Result<()> {
    if low > 0.0 && low <= high && high <= most && high.is_finite() {
        return Ok(());
    }
    let bound = if most.is_finite() { format!(" and at most {most}") } else { String::new() };
    Err(wrong(key, format!("[{low}, {high}]"), format!("expected [low, high], above 0{bound}, with low ≤ high"), None))
}

/// Checks `0 < share ≤ 1`.
pub(crate) fn share_above_zero(key: &str, share: f64) -> Result<()> {
    if share > 0.0 && share <= 1.0 {
        return Ok(());
    }
    Err(wrong(key, share, "expected more than 0 and at most 1".into(), None))
}
