//! The types that operands of products are stored in: f32, or bf16 in half the memory.

use crate::bf16;
use crate::matrix::Matrix;
pub use half::bf16 as Bf16;
use std::borrow::Cow;

mod sealed {
    /// Kernels reinterpret memory by [`super::Dtype::KIND`], so no other crate may implement the trait.
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for super::Bf16 {}
}

use sealed::Sealed;

/// The type of a stored operand. Whatever it is, sums are f32.
pub trait Dtype: Sealed + Copy + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// Which of the two types this is.
    const KIND: DtypeKind;

    /// How many values that follow each other along the depth of a product share one 32-bit lane of a packed operand.
    const PER_LANE: usize;

    /// Rounds `values` to nearest, ties to even. A value whose magnitude is below that of any normal number may become
    /// zero.
    fn narrow(values: &[f32], out: &mut [Self]);

    /// The values in this type: themselves, or a rounded copy.
    fn stored(values: &[f32]) -> Cow<'_, [Self]>;

    /// Converts `values` to f32, which is exact.
    fn widen(values: &[Self], out: &mut [f32]);

    /// One value, rounded as by [`Dtype::narrow`].
    fn narrowed(value: f32) -> Self;

    /// One value as f32.
    fn widened(self) -> f32;

    /// A value of either type in this one.
    fn convert<S: Dtype>(from: S) -> Self;

    /// The matrix itself, if this type is bf16.
    fn as_bf16(matrix: Matrix<Self>) -> Option<Matrix<Bf16>>;

    /// The values themselves, if this type is bf16.
    fn bf16_values(values: &[Self]) -> Option<&[Bf16]>;

    /// The values themselves, if this type is bf16.
    fn bf16_values_mut(values: &mut [Self]) -> Option<&mut [Bf16]>;

    /// The lane of two values that follow each other along the depth: both where they share a lane, or else the first.
    fn lane(neighbors: &[Self; 2]) -> u32;
}

/// The types as values, for a choice at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtypeKind {
    /// 32-bit floating point.
    F32,
    /// bfloat16: the upper half of an f32.
    Bf16,
}

/// `len` rounded up to whole lanes: the length of a stored row with the zeros that fill its last lane.
pub const fn padded<T: Dtype>(len: usize) -> usize {
    len.next_multiple_of(T::PER_LANE)
}

impl Dtype for f32 {
    const KIND: DtypeKind = DtypeKind::F32;
    const PER_LANE: usize = 1;

    fn narrow(values: &[f32], out: &mut [f32]) {
        out.copy_from_slice(values);
    }

    fn stored(values: &[f32]) -> Cow<'_, [f32]> {
        Cow::Borrowed(values)
    }

    fn widen(values: &[f32], out: &mut [f32]) {
        out.copy_from_slice(values);
    }

    #[inline(always)]
    fn narrowed(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        self
    }

    #[inline(always)]
    fn convert<S: Dtype>(from: S) -> f32 {
        from.widened()
    }

    fn as_bf16(_: Matrix<f32>) -> Option<Matrix<Bf16>> {
        None
    }

    fn bf16_values(_: &[f32]) -> Option<&[Bf16]> {
        None
    }

    fn bf16_values_mut(_: &mut [f32]) -> Option<&mut [Bf16]> {
        None
    }

    #[inline(always)]
    fn lane(neighbors: &[f32; 2]) -> u32 {
        neighbors[0].to_bits()
    }
}

impl Dtype for Bf16 {
    const KIND: DtypeKind = DtypeKind::Bf16;
    const PER_LANE: usize = 2;

    fn narrow(values: &[f32], out: &mut [Bf16]) {
        bf16::narrow(values, out);
    }

    fn stored(values: &[f32]) -> Cow<'_, [Bf16]> {
        let mut stored = vec![Bf16::ZERO; values.len()];
        bf16::narrow(values, &mut stored);
        Cow::Owned(stored)
    }

    fn widen(values: &[Bf16], out: &mut [f32]) {
        bf16::widen(values, out);
    }

    #[inline(always)]
    fn narrowed(value: f32) -> Bf16 {
        Bf16::from_bits(bf16::to_bits(value))
    }

    #[inline(always)]
    fn widened(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }

    #[inline(always)]
    fn convert<S: Dtype>(from: S) -> Bf16 {
        match S::KIND {
            DtypeKind::F32 => Self::narrowed(from.widened()),
            DtypeKind::Bf16 => Bf16::from_bits((from.widened().to_bits() >> 16) as u16),
        }
    }

    fn as_bf16(matrix: Matrix<Bf16>) -> Option<Matrix<Bf16>> {
        Some(matrix)
    }

    fn bf16_values(values: &[Bf16]) -> Option<&[Bf16]> {
        Some(values)
    }

    fn bf16_values_mut(values: &mut [Bf16]) -> Option<&mut [Bf16]> {
        Some(values)
    }

    #[inline(always)]
    fn lane(neighbors: &[Bf16; 2]) -> u32 {
        neighbors[0].to_bits() as u32 | (neighbors[1].to_bits() as u32) << 16
    }
}
