//! Cosines of features with each other: one product of matrices whose rows have unit length.

use simmim_engine::{Backend, Device, Linear, Operations, ParameterTable, Precision, Slot};

/// Features that others are compared with.
pub(crate) struct CosineBank<D: Device> {
    backend: D::Backend,
    linear: Linear,
    rows: usize,
    width: usize,
}

impl<D: Device> CosineBank<D> {
    /// A bank of `rows` rows of zeros.
    ///
    /// # Panics
    /// If there is no row.
    pub(crate) fn new(rows: usize, width: usize, device: &D) -> Self {
        assert!(rows > 0, "a bank has rows");
        let mut table = ParameterTable::default();
        let linear = Linear { weight: table.add("bank", &[rows, width]), bias: None };
        Self { backend: device.open(table, Precision::F32), linear, rows, width }
    }

    /// Number of rows, `N`.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Replaces the rows, `[N, D]`, each of which has unit length or is zero.
    pub(crate) fn fill(&self, unit_rows: &[f32]) {
        self.backend.write_slot(Slot::Values, unit_rows);
    }

    /// The cosine of each query with each row of the bank, `[Q, N]`. A row of zeros has the cosine 0 with all others.
    ///
    /// # Shapes
    /// `unit_queries` is `[Q, D]`, rows of unit length or zeros.
    pub(crate) fn cosines(&self, unit_queries: &[f32]) -> Vec<f32> {
        let b = &self.backend;
        b.start(false);
        let queries = b.tensor(&[unit_queries.len() / self.width, self.width], unit_queries);
        b.read(&b.linear(&queries, &self.linear))
    }
}

/// Scales rows to unit length, `[N, D]`; a row of zeros stays.
///
/// # Panics
/// If a value is not finite.
pub(crate) fn scale_to_unit(rows: &mut [f32], width: usize) {
    for row in rows.chunks_exact_mut(width) {
        let length = row.iter().map(|v| (*v as f64).powi(2)).sum::<f64>().sqrt();
        assert!(length.is_finite(), "features are finite");
        if length > 0.0 {
            row.iter_mut().for_each(|v| *v = (*v as f64 / length) as f32);
        }
    }
}
