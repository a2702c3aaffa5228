//! Which values of the flat buffers a rank keeps, where the training state is divided over ranks.
//!
//! The buffers are dealt out in units, to one rank after the other, so that every bucket of gradients divides evenly. Units do
//! not depend on the number of ranks, and the norm of the gradients is a sum over them: it has the same bits however they are
//! dealt out. A rank keeps its units one behind the other.
//!
//! ```text
//! buffer   | 0 | 1 | 2 | 3 | 4 | 5 | 6 |     units of all values
//! rank 0   | 0 | 3 | 6 |                     what rank 0 of three keeps
//! ```

use std::ops::Range;

/// The most values of a unit: so many that they are sent and computed in one piece.
const MOST: usize = 1 << 14;

/// Small models have so many units, so that they divide evenly too.
const UNITS: usize = 256;

/// Units start at a cache line, as parameters do.
const ALIGNMENT: usize = 16;

/// Values of a unit of buffers of `len` values.
pub(crate) fn unit(len: usize) -> usize {
    (len / UNITS).next_multiple_of(ALIGNMENT).clamp(ALIGNMENT, MOST)
}

/// Values of one unit, or some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The rank that keeps them.
    pub(crate) rank: usize,
    /// Where they lie in a whole buffer.
    pub(crate) range: Range<usize>,
    /// Where they begin in what that rank keeps.
    pub(crate) place: usize,
}

/// How buffers are dealt out, and which rank this is.
#[derive(Clone, Debug)]
pub(crate) struct Shard {
    rank: usize,
    world: usize,
    unit: usize,
    len: usize,
}

impl Shard {
    /// One rank that keeps all of `len` values, as one unit.
    pub(crate) fn whole(len: usize) -> Self {
        Self { rank: 0, world: 1, unit: len.max(1), len }
    }

    /// The units of `rank` among those of `world` ranks.
    pub(crate) fn of_rank(len: usize, rank: usize, world: usize) -> Self {
        if world == 1 { Self::whole(len) } else { Self { rank, world, unit: unit(len), len } }
    }

    /// Whether there are values that this rank does not keep.
    pub(crate) fn is_divided(&self) -> bool {
        self.world > 1
    }

    /// Number of values that this rank keeps.
    pub(crate) fn kept(&self) -> usize {
        self.lens(0..self.len)[self.rank]
    }

    /// The parts of a range, in its order.
    pub(crate) fn parts(&self, range: Range<usize>) -> impl Iterator<Item = Part> + use<> {
        let (unit, world) = (self.unit, self.world);
        (range.start / unit..range.end.div_ceil(unit)).map(move |number| {
            let range = range.start.max(number * unit)..range.end.min((number + 1) * unit);
            Part { rank: number % world, place: number / world * unit + range.start % unit, range }
        })
    }

    /// The parts of a range that this rank keeps.
    pub(crate) fn own(&self, range: Range<usize>) -> impl Iterator<Item = Part> + use<> {
        let rank = self.rank;
        self.parts(range).filter(move |part| part.rank == rank)
    }

    /// Number of values of a range that each rank keeps.
    pub(crate) fn lens(&self, range: Range<usize>) -> Vec<usize> {
        let mut lens = vec![0; self.world];
        self.parts(range).for_each(|part| lens[part.rank] += part.range.len());
        lens
    }

    /// Where this rank's values lie among those of a range that are sorted by ranks.
    pub(crate) fn own_sorted(&self, range: Range<usize>) -> Range<usize> {
        let lens = self.lens(range);
        let start = lens[..self.rank].iter().sum();
        start..start + lens[self.rank]
    }

    /// The parts of a range, and where each lies when values are sorted by the ranks that keep them.
    pub(crate) fn sorted(&self, range: Range<usize>) -> impl Iterator<Item = (Part, Range<usize>)> + use<> {
        let lens = self.lens(range.clone());
        let mut next: Vec<usize> = lens.iter().scan(0, |end, len| Some(std::mem::replace(end, *end + len))).collect();
        self.parts(range).map(move |part| {
            let start = next[part.rank];
            next[part.rank] += part.range.len();
            let sorted = start..next[part.rank];
            (part, sorted)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_kept_by_one_rank() {
        for (len, world) in [(16, 2), (1000 * 16, 3), (70_000 * 16, 4), (1 << 22, 4)] {
            let of_rank = |rank| Shard::of_rank(len, rank, world);
            let mut keepers = vec![0; len];
            for rank in 0..world {
                let mut end = 0;
                for part in of_rank(rank).own(0..len) {
                    assert_eq!(part.place, end, "units lie one behind the other");
                    end += part.range.len();
                    keepers[part.range].iter_mut().for_each(|count| *count += 1);
                }
                assert_eq!(end, of_rank(rank).kept());
                assert!(end.abs_diff(len / world) <= unit(len), "ranks keep about as much: {end} of {len}");
            }
            assert!(keepers.iter().all(|count| *count == 1));
        }
    }

    #[test]
    fn a_range_is_sorted_by_ranks() {
        // units of 16: those of rank 1 are 16..32 and 48..64
        let shard = Shard::of_rank(64, 1, 2);
        let found: Vec<_> =
            shard.sorted(8..60).map(|(part, sorted)| (part.rank, part.range, part.place, sorted)).collect();
        assert_eq!(
            found,
            [(0, 8..16, 8, 0..8), (1, 16..32, 0, 24..40), (0, 32..48, 16, 8..24), (1, 48..60, 16, 40..52)]
        );
        assert_eq!((shard.lens(8..60), shard.own_sorted(8..60)), (vec![24, 28], 24..52));
    }
}
