//! f32 values in TOML and JSON with the digits that tell them apart, such as 0.1, and not with those of the f64 that they
//! become there, such as 0.10000000149011612. Use by `#[serde(serialize_with = …)]`.

use serde::{Serialize, Serializer};

/// The f64 with the digits of a value.
pub(crate) fn short(value: f32) -> f64 {
    value.to_string().parse().expect("a printed number is one")
}

/// Serializes a value.
pub(crate) fn one<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    short(*value).serialize(serializer)
}

/// Serializes a value that may be absent.
pub(crate) fn option<S: Serializer>(value: &Option<f32>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(short).serialize(serializer)
}

/// Serializes a list of values.
pub(crate) fn list<S: Serializer>(values: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
    values.iter().copied().map(short).collect::<Vec<f64>>().serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_number_is_read_as_the_same_value() {
        assert_eq!([0.1, 0.28604, -3e-9].map(short), [0.1, 0.28604, -3e-9]);
        for value in [0.1, 1.0 / 3.0, f32::MIN_POSITIVE, f32::MAX, 1e-45] {
            assert_eq!(short(value) as f32, value);
        }
        assert!(short(f32::NAN).is_nan() && short(f32::INFINITY) == f64::INFINITY);
    }
}
