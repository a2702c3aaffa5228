//! The two principal components of rows of unit length.

use super::FeatureRows;
use crate::error::Result;
use nalgebra::{DMatrix, DVector};
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows of one product.
const BLOCK: usize = 4096;

/// The coordinates of each row along the two directions in which rows scaled to unit length vary most, `[N, 2]`; `None` if
/// `stop` was set. Of the two signs of a direction, the one is taken whose largest component is positive.
///
/// # Errors
/// If a row cannot be read or is not finite.
pub(super) fn components(rows: &FeatureRows, stop: &AtomicBool) -> Result<Option<Vec<[f64; 2]>>> {
    let (count, width) = (rows.len(), rows.width());
    let (mut sum, mut products) = (DVector::zeros(width), DMatrix::zeros(width, width));
    let blocks = || (0..count).step_by(BLOCK).map(|start| start..count.min(start + BLOCK));
    for block in blocks() {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // a column for each row
        let x = DMatrix::from_iterator(width, block.len(), rows.unit_block(block)?.into_iter().map(f64::from));
        sum += x.column_sum();
        products += &x * x.transpose();
    }
    let mean = sum / count as f64;
    let covariance = products / count as f64 - &mean * mean.transpose();
    let eigen = covariance.symmetric_eigen();
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
    let direction = |place: usize| match order.get(place) {
        None => DVector::zeros(width), // there is one feature only
        Some(index) => {
            let direction = eigen.eigenvectors.column(*index).into_owned();
            let sign = direction[direction.iamax()].signum();
            direction * sign
        }
    };
    let directions = [direction(0), direction(1)];
    let mut found = Vec::with_capacity(count);
    for block in blocks() {
        for row in rows.unit_block(block)?.chunks_exact(width) {
            found.push([0, 1].map(|place: usize| {
                let along = |(value, (mean, part)): (&f32, (&f64, &f64))| (f64::from(*value) - mean) * part;
                row.iter().zip(mean.iter().zip(directions[place].iter())).map(along).sum()
            }));
        }
    }
    Ok(Some(found))
}
