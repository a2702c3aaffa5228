//! What the operands of a product are stored as: f32, or bf16 in half the memory.

use crate::bf16;
pub use half::bf16 as Bf16;

mod sealed {
    /// Kernels take [`super::Element::KIND`] for what lies in memory, so nobody else may say what it is.
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for super::Bf16 {}
}

use sealed::Sealed;

/// A stored operand value. Sums are f32 whatever the operands are.
pub trait Element: Sealed + Copy + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// Which of the two this is.
    const KIND: Kind;

    /// Neighbours along the depth of a product that share one 32-bit lane of a packed operand.
    const PER_LANE: usize;

    /// Stores `values`, rounded to nearest, ties to even; what is smaller than any normal number may become zero.
    fn narrow(values: &[f32], out: &mut [Self]);

    /// Reads `values` back.
    fn widen(values: &[Self], out: &mut [f32]);

    /// One value stored.
    fn of(value: f32) -> Self;

    /// One value read back.
    fn value(self) -> f32;

    /// An element of either kind stored as this one.
    fn convert<S: Element>(from: S) -> Self;

    /// The lane that `PER_LANE` neighbours share: the first of the two, or both.
    fn lane(neighbours: &[Self; 2]) -> u32;
}

/// The kinds of element, for a choice at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 32-bit floating point.
    F32,
    /// bfloat16: the upper half of an f32.
    Bf16,
}

/// `len` rounded up to whole lanes: the length of a stored row, filled up with zeros.
pub const fn padded<E: Element>(len: usize) -> usize {
    len.next_multiple_of(E::PER_LANE)
}

impl Element for f32 {
    const KIND: Kind = Kind::F32;
    const PER_LANE: usize = 1;

    fn narrow(values: &[f32], out: &mut [f32]) {
        out.copy_from_slice(values);
    }

    fn widen(values: &[f32], out: &mut [f32]) {
        out.copy_from_slice(values);
    }

    #[inline(always)]
    fn of(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    fn value(self) -> f32 {
        self
    }

    #[inline(always)]
    fn convert<S: Element>(from: S) -> f32 {
        from.value()
    }

    #[inline(always)]
    fn lane(neighbours: &[f32; 2]) -> u32 {
        neighbours[0].to_bits()
    }
}

impl Element for Bf16 {
    const KIND: Kind = Kind::Bf16;
    const PER_LANE: usize = 2;

    fn narrow(values: &[f32], out: &mut [Bf16]) {
        bf16::narrow(values, out);
    }

    fn widen(values: &[Bf16], out: &mut [f32]) {
        bf16::widen(values, out);
    }

    #[inline(always)]
    fn of(value: f32) -> Bf16 {
        Bf16::from_bits(bf16::to_bits(value))
    }

    #[inline(always)]
    fn value(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }

    #[inline(always)]
    fn convert<S: Element>(from: S) -> Bf16 {
        match S::KIND {
            Kind::F32 => Self::of(from.value()),
            Kind::Bf16 => Bf16::from_bits((from.value().to_bits() >> 16) as u16),
        }
    }

    #[inline(always)]
    fn lane(neighbours: &[Bf16; 2]) -> u32 {
        neighbours[0].to_bits() as u32 | (neighbours[1].to_bits() as u32) << 16
    }
}
