//! Rounding to bfloat16 and back: the storage of activations and the operands of bf16 products.
//!
//! A CPU without bf16 instructions rounds an operand to bf16 and multiplies it in f32: the numbers
//! are those of a bf16 product with f32 accumulation, up to the order of the sums.

use multiversion::multiversion;

/// What the operands of a product are rounded to before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operands {
    /// Nothing is rounded.
    F32,
    /// Each operand is rounded to bf16; sums stay f32.
    Bf16,
}

impl Operands {
    /// Makes `values` an operand, in place.
    pub fn round(self, values: &mut [f32]) {
        match self {
            Operands::F32 => {}
            Operands::Bf16 => round(values),
        }
    }
}

/// The bf16 nearest to `x`, ties to even; NaN stays NaN.
#[inline(always)]
fn to_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    // NaN: the addition may carry it into infinity, so keep its upper half and set a quiet bit.
    if x.is_nan() { ((bits >> 16) | 0x40) as u16 } else { rounded as u16 }
}

#[inline(always)]
fn from_bits(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// Rounds each value to the nearest bf16, in place.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn round(values: &mut [f32]) {
    for v in values {
        *v = from_bits(to_bits(*v));
    }
}

/// Specification of [`round`].
pub fn round_naive(values: &mut [f32]) {
    for v in values {
        *v = half::bf16::from_f32(*v).to_f32();
    }
}

/// Stores `values` as bf16 bits.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn narrow(values: &[f32], out: &mut [u16]) {
    assert_eq!(values.len(), out.len());
    for (o, v) in out.iter_mut().zip(values) {
        *o = to_bits(*v);
    }
}

/// Reads bf16 bits back as f32.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn widen(bits: &[u16], out: &mut [f32]) {
    assert_eq!(bits.len(), out.len());
    for (o, b) in out.iter_mut().zip(bits) {
        *o = from_bits(*b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn rounding_equals_the_half_crate_on_every_kind_of_number() {
        let mut values = numbers(1000, 3);
        values.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE]);
        values.extend([1.003_906_2, 1.011_718_8, -1.003_906_2, 1e-40]);
        let mut expected = values.clone();
        let mut bits = vec![0; values.len()];
        narrow(&values, &mut bits);
        let mut widened = vec![0.0; values.len()];
        widen(&bits, &mut widened);
        round(&mut values);
        round_naive(&mut expected);
        assert_eq!(values, expected);
        assert_eq!(widened, expected);
    }

    #[test]
    fn nan_stays_nan() {
        let mut values = [f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)];
        round(&mut values);
        assert!(values.iter().all(|v| v.is_nan()));
    }
}
