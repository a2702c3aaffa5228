//! The values of a tensor as f32: the one place where the bytes of a weights file become numbers.

use half::{bf16, f16};
use safetensors::Dtype;

/// Whether values of this type are numbers that [`to_f32`] reads.
pub(super) fn is_read(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
}

/// Little-endian numbers as f32: narrower ones keep their value, wider ones are rounded. `None` for other types.
pub(super) fn to_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    match dtype {
        Dtype::F16 => Some(numbers(bytes, |bytes| f16::from_le_bytes(bytes).to_f32())),
        Dtype::BF16 => Some(numbers(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32())),
        Dtype::F32 => Some(numbers(bytes, f32::from_le_bytes)),
        Dtype::F64 => Some(numbers(bytes, |bytes| f64::from_le_bytes(bytes) as f32)),
        _ => None,
    }
}

fn numbers<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| number(*bytes)).collect()
}

/// Index and value of the first value that is not finite.
pub(crate) fn first_not_finite(values: &[f32]) -> Option<(usize, f32)> {
    values.iter().copied().enumerate().find(|(_, value)| !value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_number_is_read_as_the_nearest_f32() {
        let check = |dtype: Dtype, bytes: &[u8], expected: &[f32]| {
            assert_eq!(to_f32(dtype, bytes).unwrap(), expected, "{dtype:?}");
        };
        // the bits are those of numpy.float16 and of the upper half of numpy.float32, written out by hand:
        // 1.5, −2, the largest and the smallest number above 0
        check(Dtype::F16, &[0x00, 0x3e, 0x00, 0xc0, 0xff, 0x7b, 0x01, 0x00], &[1.5, -2.0, 65504.0, 5.960_464_5e-8]);
        check(Dtype::BF16, &[0xc0, 0x3f, 0x00, 0xc0, 0x49, 0x40], &[1.5, -2.0, 3.140_625]);
        check(Dtype::F32, &1.1f32.to_le_bytes(), &[1.1]);
        check(Dtype::F64, &[1.1f64.to_le_bytes(), 1e300f64.to_le_bytes()].concat(), &[1.1, f32::INFINITY]);
        assert!(to_f32(Dtype::F16, &[0x00, 0x7e]).unwrap()[0].is_nan());
        assert_eq!(to_f32(Dtype::I64, &[0; 8]), None);
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_found() {
        assert_eq!(first_not_finite(&[1.0, f32::INFINITY, f32::NEG_INFINITY]), Some((1, f32::INFINITY)));
        assert!(first_not_finite(&[f32::NAN]).is_some());
        assert_eq!(first_not_finite(&[f32::MAX, -0.0]), None);
    }
}
