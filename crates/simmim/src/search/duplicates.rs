//! Groups of images whose features are nearly the same: any two that are at least so similar are of one group, and so are
//! those that a chain of such pairs joins.

use super::neighbors::{each_product, on_threads};
use super::{FeatureRows, Nearest};
use crate::error::Result;
use simmim_data::scan::Groups;
use simmim_engine::Device;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

/// Rows that all later ones are compared with at a time.
const CHUNK: usize = 1 << 16;

/// What the cosine of a row with itself may be below 1, as its length is rounded.
const ROUNDING: f32 = 1e-6;

/// Images that are nearly the same.
#[derive(Clone, Debug, PartialEq)]
pub struct SimilarGroup {
    /// Its rows in their order, with their cosine with the first one. In a chain it may be below the threshold.
    pub rows: Vec<Nearest>,
}

/// Finds the groups of rows whose cosine is at least `threshold`, but for the rounding of lengths (1e-6), in the order of their first rows. Rows of
/// zeros are like none. `progress` is called with the number of pairs done. Returns `None` if `stop` was set.
///
/// # Errors
/// If a row cannot be read or is not finite.
///
/// # Panics
/// If `threshold` is not above 0, so that rows of zeros would count.
pub fn similar_groups(
    rows: &FeatureRows,
    threshold: f32,
    device: &impl Device,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<Vec<SimilarGroup>>> {
    assert!(threshold > 0.0, "the threshold {threshold} is above 0");
    // a row of zeros has no cosine but 0
    let least = (threshold - ROUNDING).max(f32::MIN_POSITIVE);
    let mut groups = Groups::apart(rows.len());
    let mut pairs = 0;
    for start in (0..rows.len()).step_by(CHUNK) {
        let chunk = start..rows.len().min(start + CHUNK);
        let units = rows.unit_block(chunk.clone())?;
        let is_whole = each_product(rows, start, &units, device, stop, |cosines, batch, others| {
            // each query with the rows behind it that are alike
            let mut alike: Vec<(usize, Vec<usize>)> = batch.clone().map(|query| (start + query, Vec::new())).collect();
            on_threads(device, &mut alike, cosines, others.len(), &|(query, alike), cosines| {
                let behind = (*query + 1).saturating_sub(others.start).min(cosines.len());
                let found = cosines.iter().enumerate().skip(behind).filter(|(_, cosine)| **cosine >= least);
                alike.extend(found.map(|(at, _)| others.start + at));
            });
            for (query, others) in alike {
                others.into_iter().for_each(|other| groups.unite(query, other));
            }
            pairs += batch.len() as u64 * others.len() as u64;
            progress(pairs);
        })?;
        if !is_whole {
            return Ok(None);
        }
    }
    let mut by_first: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for row in 0..rows.len() {
        by_first.entry(groups.root(row)).or_default().push(row);
    }
    let of = |group: Vec<usize>| {
        let first = rows.unit_block(group[0]..group[0] + 1)?;
        let with_first = |row: usize| {
            let other = rows.unit_block(row..row + 1)?;
            let cosine: f64 = first.iter().zip(&other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            Ok(Nearest { row, similarity: cosine as f32 })
        };
        Ok(SimilarGroup { rows: group.into_iter().map(with_first).collect::<Result<_>>()? })
    };
    by_first.into_values().filter(|group| group.len() > 1).map(of).collect::<Result<_>>().map(Some)
}

/// Pairs of rows that [`similar_groups`] compares, for its progress.
pub fn pairs(rows: usize) -> u64 {
    (0..rows).step_by(CHUNK).map(|start| (rows.min(start + CHUNK) - start) as u64 * (rows - start) as u64).sum()
}
