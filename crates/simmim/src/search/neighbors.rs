//! Exact nearest neighbors by cosine. Of queries and of the bank, a block is in memory at a time, and their cosines are one
//! product.
//!
//! Equal cosines are ordered by index, so that the neighbors are the same for any number of threads and any blocks.

use super::FeatureRows;
use crate::error::Result;
use crate::evaluation::CosineBank;
use simmim_engine::Device;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Queries that the whole bank is read for, at most: at 384 features, 100 MB. Their neighbors may take [`MOST_FOUND`] too.
const CHUNK: usize = 1 << 16;
/// Neighbors of all queries that are in memory, 128 MB.
const MOST_FOUND: usize = 1 << 23;
/// Rows of the bank of one product. They are read once for every few queries: at 384 features they are 0.8 MB,
/// which stay in the cache of a core.
const BANK_ROWS: usize = 512;
/// Of more queries at a time, the threads are started less often.
const BATCH: usize = 2048;

/// One neighbor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nearest {
    /// Its row.
    pub row: usize,
    /// Its cosine with the query, from -1 to 1.
    pub similarity: f32,
}

/// What neighbors are looked for.
#[derive(Clone, Copy, Debug)]
pub enum Queries<'a> {
    /// Every row, among the others.
    All,
    /// Other features.
    Given {
        /// `[Q, D]`
        values: &'a [f32],
        /// The row of each query that is itself one; it is no neighbor of itself, `[Q]`.
        rows: &'a [Option<usize>],
    },
}

/// Finds the `k` nearest rows of each query, the nearest first, and passes them to `take` in the order of the queries, with
/// the number of the query. There are fewer if the bank has fewer. `progress` is called with the number of queries done.
/// Returns whether all were found before `stop` was set.
///
/// # Errors
/// If a row cannot be read or is not finite, or those of `take`.
///
/// # Panics
/// If queries have another width, or are not finite.
pub fn nearest(
    bank: &FeatureRows,
    queries: Queries,
    k: usize,
    device: &impl Device,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(usize),
    take: &mut dyn FnMut(usize, &[Nearest]) -> Result<()>,
) -> Result<bool> {
    let width = bank.width();
    let count = match queries {
        Queries::All => bank.len(),
        Queries::Given { values, rows } => {
            assert_eq!(values.len(), rows.len() * width, "queries have the width of the bank");
            rows.len()
        }
    };
    let together = CHUNK.min((MOST_FOUND / k.max(1)).max(1));
    for start in (0..count).step_by(together) {
        let chunk = start..count.min(start + together);
        let (unit_queries, own) = match queries {
            Queries::All => (bank.unit_block(chunk.clone())?, chunk.clone().map(Some).collect()),
            Queries::Given { values, rows } => {
                let mut values = values[chunk.start * width..chunk.end * width].to_vec();
                crate::evaluation::scale_to_unit(&mut values, width);
                (values, rows[chunk.clone()].to_vec())
            }
        };
        let mut found: Vec<Best> = own.into_iter().map(|own| Best::new(k, own)).collect();
        let is_whole = each_product(bank, 0, &unit_queries, device, stop, |cosines, batch, rows| {
            let best = &mut found[batch.clone()];
            on_threads(device, best, cosines, rows.len(), &|best, cosines| best.offer(cosines, rows.start));
            if batch.end == chunk.len() {
                progress(chunk.start + (chunk.len() as u128 * rows.end as u128 / bank.len() as u128) as usize);
            }
        })?;
        if !is_whole {
            return Ok(false);
        }
        for (query, best) in chunk.zip(&found) {
            take(query, &best.found)?;
        }
    }
    Ok(true)
}

/// Calls `each` with the cosines `[q, n]` of every batch of the queries and every block of the bank from row `first` on: with
/// the numbers of those queries and of those rows. Returns whether it went through before `stop` was set.
pub(super) fn each_product(
    bank: &FeatureRows,
    first: usize,
    unit_queries: &[f32],
    device: &impl Device,
    stop: &AtomicBool,
    mut each: impl FnMut(&[f32], Range<usize>, Range<usize>),
) -> Result<bool> {
    let width = bank.width();
    // one for all blocks of a size: a new one would start threads
    let mut block: Option<CosineBank<_>> = None;
    for start in (first..bank.len()).step_by(BANK_ROWS) {
        let rows = start..bank.len().min(start + BANK_ROWS);
        let block = match &mut block {
            Some(block) if block.len() == rows.len() => block,
            other => other.insert(CosineBank::new(rows.len(), width, device)),
        };
        block.fill(&bank.unit_block(rows.clone())?);
        for (number, batch) in unit_queries.chunks(BATCH * width).enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let cosines = block.cosines(batch);
            each(&cosines, number * BATCH..number * BATCH + batch.len() / width, rows.clone());
        }
    }
    Ok(true)
}

/// Calls `each` with an item and its row of `[items, width]`, dividing the items between the threads of the device.
pub(super) fn on_threads<T: Send>(
    device: &impl Device,
    items: &mut [T],
    values: &[f32],
    width: usize,
    each: &(dyn Fn(&mut T, &[f32]) + Sync),
) {
    let per_thread = items.len().div_ceil(device.threads().max(1));
    let work = |items: &mut [T], values: &[f32]| {
        items.iter_mut().zip(values.chunks_exact(width)).for_each(|(item, values)| each(item, values));
    };
    std::thread::scope(|scope| {
        let mut parts = items.chunks_mut(per_thread).zip(values.chunks(per_thread * width));
        let own = parts.next();
        parts.for_each(|(items, values)| drop(scope.spawn(move || work(items, values))));
        if let Some((items, values)) = own {
            work(items, values);
        }
    });
}

/// The nearest rows so far.
struct Best {
    k: usize,
    own: Option<usize>,
    found: Vec<Nearest>,
}

impl Best {
    fn new(k: usize, own: Option<usize>) -> Self {
        Self { k, own, found: Vec::new() }
    }

    /// Takes rows from `first` on, which are behind all that were offered.
    fn offer(&mut self, cosines: &[f32], first: usize) {
        /// Cosines that are compared at once.
        const LANES: usize = 16;
        for (number, lanes) in cosines.chunks(LANES).enumerate() {
            let limit = self.limit();
            if !lanes.iter().fold(false, |is_any, cosine| is_any | (*cosine > limit)) {
                continue;
            }
            for (lane, cosine) in lanes.iter().enumerate() {
                let row = first + number * LANES + lane;
                if *cosine > self.limit() && self.own != Some(row) {
                    // behind those that are equally near, which have a lower index
                    let place = self.found.partition_point(|nearer| nearer.similarity >= *cosine);
                    self.found.truncate(self.k - 1);
                    self.found.insert(place, Nearest { row, similarity: *cosine });
                }
            }
        }
    }

    /// What a cosine must be above.
    fn limit(&self) -> f32 {
        match self.found.get(self.k.wrapping_sub(1)) {
            Some(farthest) => farthest.similarity,
            None if self.k == 0 => f32::INFINITY,
            None => f32::NEG_INFINITY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::Values;
    use super::super::{RowNames, similar_groups};
    use super::*;
    use simmim_cpu::CpuDevice;
    use simmim_data::rng::{normal, rng};

    pub(crate) fn rows(width: usize, values: Vec<f32>) -> FeatureRows {
        let count = values.len() / width;
        let files = (0..count).map(|row| format!("{row}.png")).collect();
        let names = RowNames { files, classes: vec![None; count], class_names: Vec::new() };
        FeatureRows::new(width, names, Values::Memory(values))
    }

    fn drawn(count: usize, width: usize) -> Vec<f32> {
        let mut draw = rng(0, simmim_data::Purpose::Show, 0, 0);
        (0..count * width).map(|_| normal(&mut draw) as f32).collect()
    }

    fn all(bank: &FeatureRows, queries: Queries, k: usize, threads: usize) -> Vec<Vec<Nearest>> {
        let mut all = Vec::new();
        let take = &mut |query: usize, found: &[Nearest]| {
            assert_eq!(query, all.len());
            all.push(found.to_vec());
            Ok(())
        };
        let stop = AtomicBool::new(false);
        assert!(nearest(bank, queries, k, &CpuDevice { threads }, &stop, &mut |_| (), take).unwrap());
        all
    }

    /// By f64 and a sort of all.
    fn naive(
        bank: &[f32],
        queries: &[f32],
        width: usize,
        own: impl Fn(usize) -> Option<usize>,
    ) -> Vec<Vec<(usize, f64)>> {
        let cosine = |a: &[f32], b: &[f32]| {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let lengths = (dot(a, a) * dot(b, b)).sqrt();
            if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
        };
        let each = queries.chunks(width).enumerate().map(|(number, query)| {
            let rows = bank.chunks(width).enumerate().filter(|(row, _)| own(number) != Some(*row));
            let mut near: Vec<(usize, f64)> = rows.map(|(row, values)| (row, cosine(query, values))).collect();
            near.sort_by(|a, b| b.1.total_cmp(&a.1));
            near
        });
        each.collect()
    }

    #[test]
    fn neighbors_are_those_of_a_sort_of_all_cosines_over_several_blocks() {
        let (width, count) = (7, 2 * BANK_ROWS + 300);
        let values = drawn(count, width);
        let bank = rows(width, values.clone());
        let found = all(&bank, Queries::All, 9, 2);
        assert_eq!(found, all(&bank, Queries::All, 9, 5), "any number of threads");
        let some = [0, 1, BANK_ROWS - 1, BANK_ROWS, count - 1];
        let queries: Vec<f32> = some.iter().flat_map(|row| &values[row * width..][..width]).copied().collect();
        let expected = naive(&values, &queries, width, |number| Some(some[number]));
        let given = all(&bank, Queries::Given { values: &queries, rows: &some.map(Some) }, 9, 2);
        for (number, row) in some.iter().enumerate() {
            assert_eq!(found[*row], given[number], "row {row}");
            for (found, expected) in found[*row].iter().zip(&expected[number]) {
                assert!(
                    (f64::from(found.similarity) - expected.1).abs() < 1e-6 && found.row == expected.0,
                    "row {row}"
                );
            }
        }
        // the query that is no row is its own nearest neighbor
        let given = all(&bank, Queries::Given { values: &queries, rows: &[None; 5] }, 1, 2);
        assert!(given.iter().zip(some).all(|(found, row)| found[0].row == row && found[0].similarity > 0.999_999));
    }

    #[test]
    fn equal_rows_are_ordered_by_index_and_only_the_query_itself_is_left_out() {
        // rows 3 i and 3 i + 1 have one direction; the others are zeros
        let values: Vec<f32> =
            (0..60).flat_map(|row| if row % 3 == 2 { [0.0; 3] } else { [1.0 + row as f32, 0.0, 0.0] }).collect();
        let bank = rows(3, values);
        let found = all(&bank, Queries::All, 4, 2);
        let of = |row: usize| found[row].iter().map(|near| (near.row, near.similarity)).collect::<Vec<_>>();
        assert_eq!(of(0), [(1, 1.0), (3, 1.0), (4, 1.0), (6, 1.0)]);
        assert_eq!(of(4), [(0, 1.0), (1, 1.0), (3, 1.0), (6, 1.0)]);
        assert_eq!(of(2), [(0, 0.0), (1, 0.0), (3, 0.0), (4, 0.0)], "zeros have no direction");
        let found = all(&bank, Queries::All, 1000, 2);
        assert!(found.iter().all(|found| found.len() == 59), "as many as there are");
        assert_eq!(all(&bank, Queries::All, 0, 2)[7], []);
        assert_eq!(all(&rows(3, vec![1.0; 3]), Queries::All, 5, 1), [vec![]]);
    }

    #[test]
    fn a_value_that_is_not_finite_names_its_image() {
        let mut values = drawn(20, 3);
        values[3 * 11 + 2] = f32::NAN;
        let (bank, stop) = (rows(3, values), AtomicBool::new(false));
        let error = nearest(&bank, Queries::All, 1, &CpuDevice { threads: 1 }, &stop, &mut |_| (), &mut |_, _| Ok(()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("feature 2 is NaN for `11.png`"), "{error}");
    }

    #[test]
    fn equal_rows_have_the_greatest_similarity_however_lengths_are_rounded() {
        let (width, count) = (384, 40);
        let mut values = drawn(count, width);
        values.extend_from_within(..);
        let (bank, stop) = (rows(width, values), AtomicBool::new(false));
        let groups = similar_groups(&bank, 1.0, &CpuDevice { threads: 1 }, &stop, &mut |_| ()).unwrap().unwrap();
        let found: Vec<Vec<usize>> = groups.iter().map(|g| g.rows.iter().map(|near| near.row).collect()).collect();
        assert_eq!(found, (0..count).map(|row| vec![row, row + count]).collect::<Vec<_>>());
    }

    #[test]
    fn groups_are_those_of_all_pairs() {
        let (width, count) = (5, 4900);
        let mut values = drawn(count, width);
        // relatives across blocks, some of them in a chain
        for (from, to, change) in [(3, 4500, 0.01), (4500, 4600, 0.3), (10, 11, 0.0), (4200, 4700, 0.02)] {
            for feature in 0..width {
                values[to * width + feature] = 2.0 * values[from * width + feature] + change;
            }
        }
        values[20 * width..21 * width].fill(0.0);
        values[21 * width..22 * width].fill(0.0);
        let bank = rows(width, values.clone());
        let groups = |threads: usize| {
            let stop = AtomicBool::new(false);
            similar_groups(&bank, 0.9999, &CpuDevice { threads }, &stop, &mut |_| ()).unwrap().unwrap()
        };
        let found = groups(2);
        assert_eq!(found, groups(3));
        let mut expected = simmim_data::scan::Groups::apart(count);
        for (row, near) in naive(&values, &values, width, |_| None).iter().enumerate() {
            near.iter().filter(|near| near.1 >= 0.9999).for_each(|near| expected.unite(row, near.0));
        }
        let roots: Vec<usize> = (0..count).map(|row| expected.root(row)).collect();
        let mut sizes = vec![Vec::new(); count];
        roots.iter().enumerate().for_each(|(row, root)| sizes[*root].push(row));
        sizes.retain(|group| group.len() > 1);
        let rows: Vec<Vec<usize>> =
            found.iter().map(|group| group.rows.iter().map(|near| near.row).collect()).collect();
        assert_eq!(rows, sizes);
        assert!(rows.contains(&vec![10, 11]) && !rows.iter().flatten().any(|row| [20, 21].contains(row)));
        assert!(found.iter().all(|group| group.rows[0].similarity > 0.999_999));
    }
}
