//! Division of the rows of a batch into chunks, which are the tasks of residual branches and linear layers. The rows of
//! a chunk stay in the cache from the first layer of a branch to the last.
//!
//! A chunk is so many rows rather than so many images, so that chunks have the same size for any batch. Each chunk
//! becomes one segment of a packed operand, and all segments have the length of a full chunk.

use std::ops::Range;

/// How large chunks may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkLimits {
    /// Bytes that the widest operand of a chunk may take.
    pub(super) bytes: usize,
    /// The most rows. More gain nothing (`docs/LOG.md`).
    pub(super) rows: usize,
    /// A full chunk's rows are a multiple of this, unless it is of whole groups. They are the depth of weight gradients, whose
    /// operands are filled up to as many.
    pub(super) multiple: usize,
}

impl ChunkLimits {
    /// For vector instructions: a quarter of a second-level cache of 1 MiB, and whole lanes of an operand of either
    /// type.
    pub(super) const VECTORS: Self = Self { bytes: 256 << 10, rows: 128, multiple: 2 };

    /// For units that multiply tiles: a quarter of the cache of 2 MiB that the CPUs with such a unit have. They are so
    /// fast that reading the weights from the third-level cache takes as long, so each must serve more rows.
    pub(super) const TILES: Self = Self { bytes: 512 << 10, rows: 192, multiple: 32 };
}

impl ChunkLimits {
    /// The most rows of a chunk whose widest operand has `row_bytes` per row.
    fn most_rows(&self, row_bytes: usize) -> usize {
        (self.bytes / row_bytes.max(1)).clamp(LEAST_ROWS, self.rows)
    }
}

/// The least rows of a chunk, if there are that many. With fewer, the weights are read too often.
const LEAST_ROWS: usize = 24;

/// The largest ratio of a chunk's rows when they are filled up to its own, for a chunk of whole groups.
const MOST_FILLING: f64 = 1.15;

/// The number of chunks of a large batch is about a multiple of this, so that a few workers can share them evenly.
const SHARES: usize = 4;

/// A division of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    rows: usize,
    chunk_rows: usize,
}

impl Chunks {
    /// Divides `rows` into chunks. The widest operand has `row_bytes` per row.
    pub(super) fn new(rows: usize, row_bytes: usize, limits: ChunkLimits) -> Self {
        let most = limits.most_rows(row_bytes);
        let count = match rows / LEAST_ROWS {
            0..SHARES => (rows / LEAST_ROWS).max(1),
            _ => rows.div_ceil(most).next_multiple_of(SHARES),
        };
        let multiple = limits.multiple;
        Self { rows, chunk_rows: rows.div_ceil(count).next_multiple_of(multiple).max(multiple) }
    }

    /// Chunks of whole groups of `group` rows, if a chunk may have as many rows as a group has, if there are enough chunks to
    /// share, and if little filling is needed.
    pub(super) fn of_groups(rows: usize, row_bytes: usize, group: usize, limits: ChunkLimits) -> Option<Self> {
        let most = limits.most_rows(row_bytes);
        let any = Self::new(rows, row_bytes, ChunkLimits { multiple: 1, ..limits });
        // packed operands are filled up to a multiple; the larger chunk of two that are filled up equally
        let filling = |rows: usize| rows.next_multiple_of(limits.multiple) as f64 / rows as f64;
        let most_groups = ((any.chunk_rows + group / 2) / group).min(most / group).max(1);
        let sizes = (1..=most_groups).rev().map(|groups| groups * group);
        let chunk_rows = sizes.min_by(|a, b| filling(*a).total_cmp(&filling(*b)))?;
        let chunks = Self { rows, chunk_rows };
        (group <= most && chunks.count() >= SHARES && filling(chunk_rows) <= MOST_FILLING).then_some(chunks)
    }

    /// The chunks, in order; the last one may be shorter.
    pub(super) fn ranges(&self) -> Vec<Range<usize>> {
        let end = |chunk: usize| (chunk * self.chunk_rows).min(self.rows);
        (0..self.count()).map(|chunk| end(chunk)..end(chunk + 1)).collect()
    }

    /// Rows of a full chunk.
    pub(super) fn chunk_rows(&self) -> usize {
        self.chunk_rows
    }

    /// Number of chunks.
    pub(super) fn count(&self) -> usize {
        self.rows.div_ceil(self.chunk_rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;
    use simmim_engine::{ParameterTable, Precision};
    use simmim_kernels::dtype::Bf16;
    use simmim_kernels::product::Tile;

    #[test]
    fn a_wide_operand_is_limited_by_the_depth_of_a_pass() {
        let chunk_rows = |tile: Tile, columns: usize| {
            let cpu = Cpu::with_tile(ParameterTable::default(), Precision::F32, 1, tile);
            (cpu.chunks::<f32>(788, columns).chunk_rows(), cpu.chunks::<Bf16>(788, columns).chunk_rows())
        };
        assert_eq!(chunk_rows(Tile::portable(), 3072), (40, 40));
        assert_eq!(chunk_rows(Tile::portable(), 30720), (40, 40));
        // without passes, the whole operand must stay in the cache, though never fewer rows than the least
        assert_eq!(chunk_rows(Tile::model_of_amx(), 3072), (22, 96));
    }

    #[test]
    fn groups_stay_whole_where_a_chunk_holds_one_and_there_are_chunks_to_share() {
        let of_groups = |rows, row_bytes, group, limits| {
            Chunks::of_groups(rows, row_bytes, group, limits).map(|chunks| (chunks.chunk_rows(), chunks.count()))
        };
        let (vectors, tiles) = (ChunkLimits::VECTORS, ChunkLimits::TILES);
        assert_eq!(of_groups(512 * 36, 576, 36, tiles), Some((180, 103)));
        assert_eq!(of_groups(512 * 36, 1152, 36, vectors), Some((108, 171)));
        assert_eq!(of_groups(32 * 36, 2304, 36, tiles), Some((144, 8)));
        assert_eq!(of_groups(64 * 64, 1152, 64, tiles), Some((192, 22)));
        assert_eq!(of_groups(1024 * 49, 576, 49, tiles), Some((147, 342)));
        assert_eq!(of_groups(8 * 36, 4608, 36, tiles), None); // 72 rows would be filled up to 96
        assert_eq!(of_groups(64 * 144, 768, 144, vectors), None); // larger than a chunk
        assert_eq!(of_groups(1000 * 49, 9216, 49, vectors), None); // too wide
        assert_eq!(of_groups(3 * 64, 1152, 64, tiles), None); // a task each would leave others without work
    }

    #[test]
    fn every_row_is_in_one_chunk() {
        for limits in [ChunkLimits::VECTORS, ChunkLimits::TILES] {
            for (rows, bytes) in [(1576, 768), (1, 10), (591, 3072), (5, 64), (4097, 100_000), (288, 6144), (0, 8)] {
                let chunks = Chunks::new(rows, bytes, limits);
                let mut next = 0;
                for chunk in chunks.ranges() {
                    assert_eq!(chunk.start, next);
                    assert!(chunk.len() <= chunks.chunk_rows() && !chunk.is_empty());
                    next = chunk.end;
                }
                assert_eq!(next, rows);
                assert!(chunks.chunk_rows().is_multiple_of(limits.multiple));
            }
        }
        let chunks = Chunks::new(1576, 3072, ChunkLimits::VECTORS);
        assert_eq!((chunks.chunk_rows(), chunks.count()), (80, 20));
        let chunks = Chunks::new(288, 6144, ChunkLimits::VECTORS);
        assert_eq!((chunks.chunk_rows(), chunks.count()), (36, 8));
        let chunks = Chunks::new(1576, 3072, ChunkLimits::TILES);
        assert_eq!((chunks.chunk_rows(), chunks.count()), (160, 10));
    }
}
