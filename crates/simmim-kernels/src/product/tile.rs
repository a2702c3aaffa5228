//! Which instructions compute products, and the layouts of operands that they read.

use super::amx_model::AmxModel;
use super::{TileKernel, portable, tiles};
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512};
use crate::dtype::{Dtype, DtypeKind};
use crate::instructions::Instructions;
use crate::pack::PackedLayout;

/// A size of tiles, and the instructions that compute them.
///
/// Only detection makes one that needs special instructions, so having it proves that the CPU has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile(Instructions);

impl Tile {
    /// The fastest that this CPU can run.
    pub fn detect() -> Self {
        Self::all_available()[0]
    }

    /// All that this CPU can run, the fastest first.
    pub fn all_available() -> Vec<Self> {
        Instructions::available().into_iter().map(Tile).collect()
    }

    /// AMX as computed by a model of its instructions, which every CPU can run. It is slow, and there for tests.
    pub fn model_of_amx() -> Self {
        Tile(Instructions::AmxModel)
    }

    /// The one that every CPU can run.
    pub fn portable() -> Self {
        Tile(Instructions::Portable)
    }

    /// Whether bf16 operands are multiplied without conversion to f32, twice as many at a time.
    pub fn multiplies_bf16(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx | Instructions::Avx512Bf16 => true,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 | Instructions::Avx2 => false,
            Instructions::AmxModel => true,
            Instructions::Portable => false,
        }
    }

    /// Whether bf16 is multiplied clearly faster than f32, as measured on the CPUs of the table in `docs/LOG.md`: by tiles
    /// many times as fast; by `vdpbf16ps` twice as fast on AMD's cores and half as fast on Intel's.
    pub fn prefers_bf16(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => true,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Bf16 => crate::instructions::is_made_by_amd(),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 | Instructions::Avx2 => false,
            Instructions::AmxModel | Instructions::Portable => false,
        }
    }

    /// The common name of the instructions.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => "AMX with BF16",
            Instructions::AmxModel => "model of AMX",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Bf16 => "AVX-512 with BF16",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "AVX2",
            Instructions::Portable => "portable",
        }
    }

    /// The layout of a `[depth, columns]` operand on the right side of a product.
    pub fn panels<T: Dtype>(self, depth: usize, columns: usize) -> PackedLayout {
        match self.unit(T::KIND) {
            Unit::Vectors(_) => PackedLayout::new::<T>(depth, columns, self.vector_width()),
            _ => PackedLayout::new::<T>(depth, columns, tiles::WIDTH).with_whole_squares(),
        }
    }

    /// The layout of a `[depth, rows]` operand, the transpose of the left side of [`super::product_of_packed`].
    pub fn blocks<T: Dtype>(self, depth: usize, rows: usize) -> PackedLayout {
        match self.unit(T::KIND) {
            Unit::Vectors(kernels) => PackedLayout::new::<T>(depth, rows, kernels.len()),
            _ => PackedLayout::new::<T>(depth, rows, tiles::HEIGHT).in_squares(),
        }
    }

    /// Rows of a block of the left side that a product computes at its best speed.
    pub fn height<T: Dtype>(self) -> usize {
        match self.unit(T::KIND) {
            Unit::Vectors(kernels) => kernels.len(),
            _ => tiles::HEIGHT,
        }
    }

    /// Whether a unit for tiles computes the sums of products of a type.
    pub fn multiplies_tiles<T: Dtype>(self) -> bool {
        !matches!(self.unit(T::KIND), Unit::Vectors(_))
    }

    /// Values of the depth that [`super::product`] multiplies with all rows before it goes on to the next ones. So many
    /// columns of A should stay in the second-level cache, together with two panels of as many rows.
    pub fn depth_of_pass<T: Dtype>(self) -> usize {
        self.steps_of_pass().saturating_mul(T::PER_LANE)
    }

    /// [`Self::depth_of_pass`] in steps. Two panels of 1,536 steps take 192 KiB, which with A fit into a second-level cache of
    /// 512 KiB. With AVX-512 that cache has 1 MiB and more, and passes gained nothing where they were tried (`docs/LOG.md`).
    pub(super) fn steps_of_pass(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx | Instructions::Avx512Bf16 | Instructions::Avx512 => usize::MAX,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => 1536,
            Instructions::AmxModel => usize::MAX,
            Instructions::Portable => 1536,
        }
    }

    /// Columns of a panel of `B`, if vectors compute the sums.
    fn vector_width(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx | Instructions::Avx512Bf16 | Instructions::Avx512 => 48,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => avx2::WIDTH,
            Instructions::AmxModel | Instructions::Portable => portable::WIDTH,
        }
    }

    /// What computes the sums of products of a type.
    pub(super) fn unit(self, kind: DtypeKind) -> Unit {
        match (self.0, kind) {
            #[cfg(target_arch = "x86_64")]
            (Instructions::Amx, DtypeKind::Bf16) => match amx::Amx::detect() {
                Some(unit) => Unit::Amx(unit),
                None => unreachable!("only detection makes this value"),
            },
            (Instructions::AmxModel, DtypeKind::Bf16) => Unit::AmxModel(AmxModel),
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512Bf16, DtypeKind::Bf16) => Unit::Vectors(&avx512::BF16),
            #[cfg(target_arch = "x86_64")]
            (Instructions::Amx | Instructions::Avx512Bf16 | Instructions::Avx512, DtypeKind::F32) => {
                Unit::Vectors(&avx512::F32)
            }
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512, DtypeKind::Bf16) => Unit::Vectors(&avx512::WIDENED),
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx2, DtypeKind::F32) => Unit::Vectors(&avx2::F32),
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx2, DtypeKind::Bf16) => Unit::Vectors(&avx2::BF16),
            (Instructions::AmxModel | Instructions::Portable, DtypeKind::F32) => Unit::Vectors(&portable::F32),
            (Instructions::Portable, DtypeKind::Bf16) => Unit::Vectors(&portable::BF16),
        }
    }
}

/// What computes sums.
pub(super) enum Unit {
    /// Vector instructions: the functions for tiles of 1, 2, … rows.
    Vectors(&'static [TileKernel]),
    #[cfg(target_arch = "x86_64")]
    Amx(amx::Amx),
    AmxModel(AmxModel),
}
