//! Finds images that look alike without comparing all pairs.
//!
//! Hashes of 64 bits are cut into four bands. If two hashes differ in at most 11 bits, they differ in at most two bits in one
//! of the bands, so it is enough to look up each band with up to two bits turned over: multi-index hashing (M. Norouzi,
//! A. Punjani and D. J. Fleet, arXiv:1307.2982).

use super::fingerprint::Fingerprint;

/// Two images may look alike if at most this many of the 64 bits of their hashes differ.
pub const MAX_BITS: u32 = 11;

/// Two images look alike if their tiny pictures, moreover, differ by at most this share of their range from dark to bright,
/// in percent, on average over pixels and channels. Photographs that are recompressed or half as large stay below 1, those
/// of 32 pixels mostly below 4; at 8 percent, most shirts of Fashion-MNIST would be one.
pub const MAX_PERCENT: u32 = 4;

/// The number of bands, and the number of bits in each.
const BANDS: usize = 4;
const BAND_BITS: usize = 64 / BANDS;

/// Unites the numbers of `images` that look alike; plain ones are not compared.
pub(super) fn unite(images: &[&Fingerprint], groups: &mut Groups) {
    let compared: Vec<usize> = (0..images.len()).filter(|number| !images[*number].is_plain()).collect();
    let flips = flips();
    for band in 0..BANDS {
        let keys: Vec<u16> = compared.iter().map(|number| key(images[*number].steps, band)).collect();
        let buckets = Buckets::new(&keys);
        for (at, key) in keys.iter().enumerate() {
            let first = images[compared[at]];
            for other in flips.iter().flat_map(|flip| buckets.of(key ^ flip)) {
                let other = *other as usize;
                if other > at
                    && (first.steps ^ images[compared[other]].steps).count_ones() <= MAX_BITS
                    && groups.root(compared[at]) != groups.root(compared[other])
                    && looks_alike(first, images[compared[other]])
                {
                    groups.unite(compared[at], compared[other]);
                }
            }
        }
    }
}

fn looks_alike(first: &Fingerprint, second: &Fingerprint) -> bool {
    let difference: u32 = first.tiny.iter().zip(&second.tiny).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
    let range = u32::from(first.range.min(second.range));
    100 * difference <= MAX_PERCENT * range * first.tiny.len() as u32
}

/// Returns every fourth bit of a hash. So each band sees the whole picture; a band of rows would be the same for many images
/// with a sky or a frame.
fn key(steps: u64, band: usize) -> u16 {
    (0..BAND_BITS).fold(0, |key, bit| key << 1 | (steps >> (bit * BANDS + band) & 1) as u16)
}

/// Returns all values with at most two bits.
fn flips() -> Vec<u16> {
    let one = |bit: usize| 1_u16 << bit;
    let mut flips = vec![0];
    for first in 0..BAND_BITS {
        flips.push(one(first));
        flips.extend((0..first).map(|second| one(first) | one(second)));
    }
    flips
}

/// The places of each key in a list.
struct Buckets {
    /// Where the places of each key start, and where those of the last one end.
    starts: Vec<u32>,
    places: Vec<u32>,
}

impl Buckets {
    fn new(keys: &[u16]) -> Self {
        let mut starts = vec![0_u32; (1 << BAND_BITS) + 1];
        for key in keys {
            starts[usize::from(*key) + 1] += 1;
        }
        for key in 1..starts.len() {
            starts[key] += starts[key - 1];
        }
        let (mut next, mut places) = (starts.clone(), vec![0; keys.len()]);
        for (place, key) in keys.iter().enumerate() {
            let next = &mut next[usize::from(*key)];
            places[*next as usize] = place as u32;
            *next += 1;
        }
        Self { starts, places }
    }

    fn of(&self, key: u16) -> &[u32] {
        let key = usize::from(key);
        &self.places[self.starts[key] as usize..self.starts[key + 1] as usize]
    }
}

/// A partition of numbers into groups, which can be united.
#[derive(Clone, Debug)]
pub struct Groups {
    /// A number of the same group that is not larger; the smallest one of a group is its own.
    parents: Vec<usize>,
}

impl Groups {
    /// Every number below `len` in a group of its own.
    #[must_use]
    pub fn apart(len: usize) -> Self {
        Self { parents: (0..len).collect() }
    }

    /// Returns the smallest number of the group of `number`.
    pub fn root(&mut self, mut number: usize) -> usize {
        while self.parents[number] != number {
            self.parents[number] = self.parents[self.parents[number]];
            number = self.parents[number];
        }
        number
    }

    /// Makes the groups of two numbers one.
    pub fn unite(&mut self, first: usize, second: usize) {
        let (first, second) = (self.root(first), self.root(second));
        self.parents[first.max(second)] = first.min(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(steps: u64, tiny: u8) -> Fingerprint {
        Fingerprint { content: [0; 32], steps, tiny: vec![tiny; 256].into(), range: 100 }
    }

    /// The groups of more than one number, by all pairs.
    fn naive(images: &[Fingerprint]) -> Vec<usize> {
        let mut groups = Groups::apart(images.len());
        for first in 0..images.len() {
            for second in 0..first {
                let [a, b] = [first, second].map(|number| &images[number]);
                if (a.steps ^ b.steps).count_ones() <= MAX_BITS && looks_alike(a, b) {
                    groups.unite(first, second);
                }
            }
        }
        (0..images.len()).map(|number| groups.root(number)).collect()
    }

    #[test]
    fn bands_find_what_all_pairs_find() {
        use crate::rng::{Purpose, below, rng};
        let mut draw = rng(0, Purpose::Shuffle, 0, 0);
        let mut images = Vec::new();
        for _ in 0..400 {
            let steps = below(&mut draw, usize::MAX) as u64;
            images.push(fingerprint(steps, 100));
            // a relative at every distance around the limit, of the same and of another brightness
            let distance = below(&mut draw, 2 * MAX_BITS as usize);
            let flipped = (0..distance).fold(steps, |steps, _| steps ^ 1 << below(&mut draw, 64));
            images.push(fingerprint(flipped, 100 + below(&mut draw, 6) as u8));
        }
        let mut groups = Groups::apart(images.len());
        unite(&images.iter().collect::<Vec<_>>(), &mut groups);
        let found: Vec<usize> = (0..images.len()).map(|number| groups.root(number)).collect();
        assert_eq!(found, naive(&images));
        let united = found.iter().enumerate().filter(|(number, root)| number != *root).count();
        assert!((100..350).contains(&united), "{united} of 400 relatives");
    }

    #[test]
    fn the_limits_belong_to_what_is_alike() {
        let check = |second: Fingerprint, expected: bool| {
            let (first, mut groups) = (fingerprint(0, 100), Groups::apart(2));
            unite(&[&first, &second], &mut groups);
            assert_eq!(groups.root(1) == 0, expected, "{second:?}");
        };
        check(fingerprint((1 << MAX_BITS) - 1, 100), true);
        check(fingerprint((1 << (MAX_BITS + 1)) - 1, 100), false);
        check(fingerprint(0, 100 + MAX_PERCENT as u8), true);
        check(fingerprint(0, 101 + MAX_PERCENT as u8), false);
        check(Fingerprint { range: 50, ..fingerprint(0, 102) }, true);
        check(Fingerprint { range: 50, ..fingerprint(0, 103) }, false);
        check(Fingerprint { range: 15, ..fingerprint(0, 100) }, false);
    }
}
