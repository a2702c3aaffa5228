//! How the values of a sum are divided: each rank sums up one slice of what all ranks have, in the order of ranks.
//!
//! A rank then sends the other slices of its own values, and its slice of the sums to every other rank: 2·(n − 1)/n times
//! its values, the least that an all-reduce can do.

use std::ops::{AddAssign, Range};

/// The slices of `len` values for `world` ranks, in their order; the first ones are longer by one where it does not
/// divide.
pub fn slices(len: usize, world: usize) -> Vec<Range<usize>> {
    let (size, longer) = (len / world, len % world);
    let start = |rank: usize| rank * size + rank.min(longer);
    (0..world).map(|rank| start(rank)..start(rank + 1)).collect()
}

/// The sum of `parts`, which are as long as `sum` and lie behind each other, in their order.
///
/// # Shapes
/// `[world, len]` → `[len]`.
pub fn sum_in_order<V: Copy + Default + AddAssign>(parts: &[V], sum: &mut [V]) {
    sum.fill(V::default());
    if !sum.is_empty() {
        for part in parts.chunks_exact(sum.len()) {
            sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += *value);
        }
    }
}

/// Bytes that a rank sends to sum up `len` values of `size` bytes: what the others sum up, and its own sums to each.
pub fn sent_bytes(len: usize, size: usize, rank: usize, world: usize) -> u64 {
    let own = slices(len, world)[rank].len();
    ((len - own + own * (world - 1)) * size) as u64
}

/// How much of each part lies in a range of values, where parts of `lens` values lie behind each other.
pub fn lens_within(lens: &[usize], range: Range<usize>) -> Vec<usize> {
    let mut end = 0;
    let within = |len: &usize| {
        let part = end..end + len;
        end = part.end;
        part.end.min(range.end).saturating_sub(part.start.max(range.start))
    };
    lens.iter().map(within).collect()
}

/// Bytes that a rank sends so that each gets its part of the sums of values of `size` bytes, in parts of `lens` values: what
/// the others sum up.
pub fn scattered_bytes(lens: &[usize], size: usize, rank: usize) -> u64 {
    ((lens.iter().sum::<usize>() - lens[rank]) * size) as u64
}

/// Bytes that a rank sends so that all get its part of values of `size` bytes.
pub fn gathered_bytes(lens: &[usize], size: usize, rank: usize) -> u64 {
    (lens[rank] * (lens.len() - 1) * size) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_all_values_and_differ_by_one_at_most() {
        assert_eq!(slices(10, 4), [0..3, 3..6, 6..8, 8..10]);
        assert_eq!(slices(2, 3), [0..1, 1..2, 2..2]);
        assert_eq!(slices(0, 2), [0..0, 0..0]);
    }

    #[test]
    fn sums_are_taken_in_the_order_of_parts() {
        // 1 + 1e8 − 1e8 is 0 in f32, and 1e8 − 1e8 + 1 is 1
        let mut sum = [9.0f32; 2];
        sum_in_order(&[1.0, 1e8, 1e8, -1e8, -1e8, 1.0], &mut sum);
        assert_eq!(sum, [0.0, 1.0]);
    }

    #[test]
    fn parts_are_cut_where_a_range_ends() {
        assert_eq!(lens_within(&[3, 0, 5, 2], 0..10), [3, 0, 5, 2]);
        assert_eq!(lens_within(&[3, 0, 5, 2], 2..5), [1, 0, 2, 0]);
        assert_eq!(lens_within(&[3, 0, 5, 2], 8..10), [0, 0, 0, 2]);
    }

    #[test]
    fn scattering_sums_and_gathering_values_sends_as_much_as_an_all_reduce() {
        for world in [1, 2, 3, 4] {
            let lens: Vec<usize> = slices(1001, world).iter().map(ExactSizeIterator::len).collect();
            for rank in 0..world {
                let both = scattered_bytes(&lens, 4, rank) + gathered_bytes(&lens, 4, rank);
                assert_eq!(both, sent_bytes(1001, 4, rank, world));
            }
        }
    }

    #[test]
    fn a_rank_sends_the_theoretical_volume() {
        for world in [2, 3, 4, 8] {
            let len = 24 * world;
            let sent: u64 = (0..world).map(|rank| sent_bytes(len, 4, rank, world)).sum();
            assert_eq!(sent, (2 * (world - 1) * len * 4) as u64); // n ranks · 2(n − 1)/n · len · 4 bytes
        }
    }
}
