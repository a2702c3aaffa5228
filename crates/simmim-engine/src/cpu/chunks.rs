//! How the rows of a batch are divided: a share for each worker, and chunks of a share that stay in cache
//! from the first layer of a branch to the last.
//!
//! Rows, not images: a share is then equal whatever the batch size is. Every chunk is one segment of a
//! packed operand, so all are packed as if they were equally long.

use std::ops::Range;

/// Bytes of the widest operand that a chunk of rows may take: a quarter of a second-level cache of 1 MiB.
const CHUNK_BYTES: usize = 256 << 10;

/// Rows of a chunk, at most and at least: more gain nothing, and fewer read the weights too often.
const ROWS: Range<usize> = 24..128;

/// Rows of every full chunk are a multiple of this: the height of the tallest tile.
const GRAIN: usize = 8;

/// A division of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    rows: usize,
    groups: usize,
    rows_per_group: usize,
    chunks_per_group: usize,
    chunk_rows: usize,
}

impl Chunks {
    /// Divides `rows` among `workers`, in chunks whose widest operand has `row_bytes` a row.
    pub(super) fn new(rows: usize, workers: usize, row_bytes: usize) -> Self {
        let groups = workers.min(rows).max(1);
        let rows_per_group = rows.div_ceil(groups);
        let most = (CHUNK_BYTES / row_bytes.max(1)).clamp(ROWS.start, ROWS.end);
        let chunks_per_group = rows_per_group.div_ceil(most).max(1);
        let chunk_rows = rows_per_group.div_ceil(chunks_per_group).next_multiple_of(GRAIN);
        let chunks_per_group = rows_per_group.div_ceil(chunk_rows.max(1)).max(1);
        Self { rows, groups, rows_per_group, chunks_per_group, chunk_rows }
    }

    /// Each worker's rows.
    pub(super) fn groups(&self) -> Vec<Range<usize>> {
        let end = |g: usize| (g * self.rows_per_group).min(self.rows);
        (0..self.groups).map(|g| end(g)..end(g + 1)).collect()
    }

    /// The chunks of one worker's rows, in order; the last ones may be shorter, or empty.
    pub(super) fn of(&self, group: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let rows = self.chunk_rows;
        (0..self.chunks_per_group)
            .map(move |c| (group.start + c * rows).min(group.end)..(group.start + (c + 1) * rows).min(group.end))
    }

    /// Rows of a full chunk.
    pub(super) fn chunk_rows(&self) -> usize {
        self.chunk_rows
    }

    /// Chunks of every worker.
    pub(super) fn chunks_per_group(&self) -> usize {
        self.chunks_per_group
    }

    /// Chunks of all workers together.
    pub(super) fn count(&self) -> usize {
        self.groups * self.chunks_per_group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_chunk_and_shares_are_equal() {
        for (rows, workers, bytes) in [(1576, 2, 768), (1, 2, 10), (591, 2, 3072), (5, 4, 64), (4097, 3, 100_000)] {
            let chunks = Chunks::new(rows, workers, bytes);
            let mut next = 0;
            for group in chunks.groups() {
                for chunk in chunks.of(group.clone()) {
                    assert_eq!(chunk.start, next);
                    assert!(chunk.len() <= chunks.chunk_rows());
                    next = chunk.end;
                }
                assert_eq!(next, group.end);
            }
            assert_eq!(next, rows);
        }
        let chunks = Chunks::new(1576, 2, 3072);
        assert_eq!((chunks.chunk_rows(), chunks.chunks_per_group()), (80, 10));
    }
}
