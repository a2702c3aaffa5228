//! Where a tile finds the rows of A.

/// Distances in A that are constants as far as possible: the fewer instructions are spent on addresses, the closer a tile's
/// loop comes to its multiply-adds, above all if the core serves another thread as well.
pub(super) trait Rows: Copy {
    /// Lanes from a row to the next.
    fn row(self) -> usize;

    /// Lanes from a step to the next.
    fn step(self) -> usize;
}

/// Rows whose steps follow each other.
#[derive(Clone, Copy)]
pub(super) struct InPlace {
    pub(super) stride: usize,
}

/// Steps whose rows, `ROWS` of them, follow each other.
#[derive(Clone, Copy)]
pub(super) struct InBlock<const ROWS: usize>;

impl Rows for InPlace {
    #[inline(always)]
    fn row(self) -> usize {
        self.stride
    }

    #[inline(always)]
    fn step(self) -> usize {
        1
    }
}

impl<const ROWS: usize> Rows for InBlock<ROWS> {
    #[inline(always)]
    fn row(self) -> usize {
        1
    }

    #[inline(always)]
    fn step(self) -> usize {
        ROWS
    }
}

/// The address of row `i`. Every third row has a pointer of its own, so that an address is a pointer and at most twice the distance
/// of two rows.
#[inline(always)]
pub(super) fn row_of<T>(a: *const T, i: usize, rows: impl Rows) -> *const T {
    a.wrapping_add(i / 3 * 3 * rows.row()).wrapping_add(i % 3 * rows.row())
}
