//! Division of the rows of a batch into chunks, which are the tasks of residual branches and linear layers. The rows of
//! a chunk stay in the cache from the first layer of a branch to the last.
//!
//! A chunk is so many rows rather than so many images, so that chunks have the same size for any batch. Each chunk
//! becomes one segment of a packed operand, and all segments have the length of a full chunk.

use std::ops::Range;

/// Bytes that the widest operand of a chunk may take: a quarter of a second-level cache of 1 MiB.
const CHUNK_BYTES: usize = 256 << 10;

/// Rows of a chunk, at least and at most. With fewer, the weights are read too often; more gain nothing
/// (`docs/LOG.md`).
const ROWS: Range<usize> = 24..128;

/// The number of chunks of a large batch is about a multiple of this, so that a few workers can share them evenly.
const SHARES: usize = 4;

/// A division of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    rows: usize,
    chunk_rows: usize,
}

impl Chunks {
    /// Divides `rows` into chunks. The widest operand has `row_bytes` per row. A full chunk's rows are a multiple of
    /// `row_multiple`: they are the depth of weight gradients, whose operands are filled up to as many.
    pub(super) fn new(rows: usize, row_bytes: usize, row_multiple: usize) -> Self {
        let most = (CHUNK_BYTES / row_bytes.max(1)).clamp(ROWS.start, ROWS.end);
        let count = match rows / ROWS.start {
            0..SHARES => (rows / ROWS.start).max(1),
            _ => rows.div_ceil(most).next_multiple_of(SHARES),
        };
        Self { rows, chunk_rows: rows.div_ceil(count).next_multiple_of(row_multiple).max(row_multiple) }
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

    #[test]
    fn every_row_is_in_one_chunk_and_chunks_can_be_shared_evenly() {
        for (rows, bytes) in [(1576, 768), (1, 10), (591, 3072), (5, 64), (4097, 100_000), (288, 6144), (0, 8)] {
            let chunks = Chunks::new(rows, bytes, 2);
            let mut next = 0;
            for chunk in chunks.ranges() {
                assert_eq!(chunk.start, next);
                assert!(chunk.len() <= chunks.chunk_rows() && !chunk.is_empty());
                next = chunk.end;
            }
            assert_eq!(next, rows);
        }
        let chunks = Chunks::new(1576, 3072, 2);
        assert_eq!((chunks.chunk_rows(), chunks.count()), (80, 20));
        let chunks = Chunks::new(288, 6144, 2);
        assert_eq!((chunks.chunk_rows(), chunks.count()), (36, 8));
        let chunks = Chunks::new(1576, 3072, 32);
        assert_eq!((chunks.chunk_rows(), chunks.count()), (96, 17));
    }
}
