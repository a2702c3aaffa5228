//! Activations kept for the backward pass, in the precision of the products that will read them.

use super::buffers::{Buffer, Shelf};
use crate::backend::Precision;
use simmim_kernels::bf16;

/// Buffers of both storage types.
#[derive(Default)]
pub(super) struct Shelves {
    pub(super) f32: Shelf<f32>,
    pub(super) bf16: Shelf<u16>,
}

/// Values kept in f32, or in half the memory as bf16.
pub(super) enum Kept {
    F32(Buffer<f32>),
    Bf16(Buffer<u16>),
}

/// A group's part of a [`Kept`], to be filled by its worker.
pub(super) enum KeptPart<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [u16]),
}

impl Kept {
    /// Room for `len` values.
    pub(super) fn new(shelves: &Shelves, precision: Precision, len: usize) -> Self {
        match precision {
            Precision::F32 => Kept::F32(shelves.f32.take(len)),
            Precision::Bf16 => Kept::Bf16(shelves.bf16.take(len)),
        }
    }

    /// One part per group, `stride` values per item.
    pub(super) fn split(&mut self, groups: &[std::ops::Range<usize>], stride: usize) -> Vec<KeptPart<'_>> {
        use super::threads::split_mut;
        match self {
            Kept::F32(b) => split_mut(b, groups, stride).into_iter().map(KeptPart::F32).collect(),
            Kept::Bf16(b) => split_mut(b, groups, stride).into_iter().map(KeptPart::Bf16).collect(),
        }
    }

    /// All values, widened to f32 where they are not.
    pub(super) fn into_f32(self, shelves: &Shelves) -> Buffer<f32> {
        match self {
            Kept::F32(buffer) => buffer,
            Kept::Bf16(bits) => {
                let mut values = shelves.f32.take(bits.len());
                bf16::widen(&bits, &mut values);
                values
            }
        }
    }

    /// A view that workers can share.
    pub(super) fn view(&self) -> KeptView<'_> {
        match self {
            Kept::F32(b) => KeptView::F32(b),
            Kept::Bf16(b) => KeptView::Bf16(b),
        }
    }
}

/// A [`Kept`] to read from several threads.
#[derive(Clone, Copy)]
pub(super) enum KeptView<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
}

impl<'a> KeptView<'a> {
    /// `scratch.len()` values from `start` on: in place if they are f32, else widened into `scratch`.
    pub(super) fn read<'s>(self, start: usize, scratch: &'s mut [f32]) -> &'s [f32]
    where
        'a: 's,
    {
        match self {
            KeptView::F32(values) => &values[start..start + scratch.len()],
            KeptView::Bf16(bits) => {
                bf16::widen(&bits[start..start + scratch.len()], scratch);
                scratch
            }
        }
    }
}

impl KeptPart<'_> {
    /// Lets `compute` write the `scratch.len()` values from `start` on and returns them: in place if
    /// they are kept as f32, else in `scratch` and narrowed behind it.
    pub(super) fn fill<'s>(
        &'s mut self,
        start: usize,
        scratch: &'s mut [f32],
        compute: impl FnOnce(&mut [f32]),
    ) -> &'s [f32] {
        match self {
            KeptPart::F32(part) => {
                let values = &mut part[start..start + scratch.len()];
                compute(values);
                values
            }
            KeptPart::Bf16(part) => {
                compute(scratch);
                bf16::narrow(scratch, &mut part[start..start + scratch.len()]);
                scratch
            }
        }
    }
}
