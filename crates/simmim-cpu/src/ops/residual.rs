//! What every residual branch begins and ends with: normalization before or after the branch, layer scale, drop path
//! and the addition.
//!
//! ```text
//! pre-norm     a = norm(x)    f = branch(a)          out = x + drop_path_scale·layer_scale·f
//! post-norm    a = x          f = norm(branch(a))    out = x + drop_path_scale·layer_scale·f
//! ```
//!
//! [`ResidualWrapper::branch_input`] computes `a`, and [`ResidualWrapper::add_branch`] computes `out` from what the
//! branch returns. Each has a `_backward` counterpart. All of them take one chunk of rows at a time, whose range
//! numbers the rows within the batch.

use super::add_gradient;
use crate::Cpu;
use crate::buffer_pool::Buffer;
use crate::packed_activations::split_saved;
use crate::pools::ActivationDtype;
use crate::store::Store;
use simmim_engine::{LayerNorm, NormOrder, ParameterId};
use simmim_kernels::elementwise::{add_column_dots, add_residual, add_scaled, multiply};
use simmim_kernels::layer_norm::{RowStatistics, layer_norm, layer_norm_backward, normalized_rows, restored_rows};
use std::ops::Range;

/// The parameters by their ids.
#[derive(Clone, Copy)]
pub(super) struct ResidualSpec {
    pub(super) norm: LayerNorm,
    pub(super) order: NormOrder,
    pub(super) layer_scale: Option<ParameterId>,
}

/// The values of the parameters, and the factors of drop path for a batch.
pub(super) struct ResidualWrapper<'a> {
    order: NormOrder,
    norm_weight: &'a [f32],
    norm_bias: &'a [f32],
    eps: f32,
    /// Layer scale, or ones.
    scale: Vec<f32>,
    has_layer_scale: bool,
    /// Factor of each image's branch.
    drop_path_scale: &'a [f32],
    rows_of_image: usize,
}

/// What is saved for backward, for a whole batch. Buffers that this backward pass does not need are empty.
pub(super) struct SavedResidual<T> {
    statistics: Vec<RowStatistics>,
    /// Pre-norm, in bf16: the normalized input before weight and bias, `[rows, D]`.
    normalized: Buffer<T>,
    /// Post-norm: the branch's output before the norm, `[rows, D]`, rounded like all activations.
    before_norm: Buffer<T>,
    /// Layer scale: the branch's output before the scale, `[rows, D]`.
    before_scale: Buffer<T>,
}

/// The part of a [`SavedResidual`] that belongs to a chunk.
pub(super) struct SavedResidualChunk<'a, T> {
    statistics: &'a mut [RowStatistics],
    normalized: &'a mut [T],
    before_norm: &'a mut [T],
    before_scale: &'a mut [T],
}

/// The gradients of the parameters from one chunk.
pub(super) struct ResidualGradients {
    d_norm_weight: Vec<f32>,
    d_norm_bias: Vec<f32>,
    d_scale: Vec<f32>,
}

impl ResidualSpec {
    /// Reads the parameters' values.
    pub(super) fn read<'a>(
        &self,
        store: &'a Store,
        drop_path_scale: &'a [f32],
        rows_of_image: usize,
    ) -> ResidualWrapper<'a> {
        let norm_weight = store.value(self.norm.weight);
        let scale = self.layer_scale.map(|id| store.value(id).to_vec());
        ResidualWrapper {
            order: self.order,
            norm_weight,
            norm_bias: store.value(self.norm.bias),
            eps: self.norm.eps,
            has_layer_scale: scale.is_some(),
            scale: scale.unwrap_or_else(|| vec![1.0; norm_weight.len()]),
            drop_path_scale,
            rows_of_image,
        }
    }

    /// Memory for what a batch of `rows` tokens saves. Without a recording tape, only the statistics have memory.
    pub(super) fn allocate_saved<T: ActivationDtype>(&self, cpu: &Cpu, rows: usize) -> SavedResidual<T> {
        let width = cpu.table.get(self.norm.weight).range.len();
        let is_recording = cpu.is_recording();
        let len = |is_needed: bool| if is_needed && is_recording { rows * width } else { 0 };
        SavedResidual {
            statistics: vec![RowStatistics::default(); rows],
            normalized: T::pool(&cpu.pools).take(len(self.order == NormOrder::Pre && !T::RECOMPUTES)),
            before_norm: T::pool(&cpu.pools).take(len(self.order == NormOrder::Post)),
            before_scale: T::pool(&cpu.pools).take(len(self.layer_scale.is_some())),
        }
    }

    /// Whether the branch's input is computed again in the backward pass, from the input of the block or from its normalized
    /// rows. If not, the branch saves it.
    pub(super) fn recomputes_branch_input<T: ActivationDtype>(&self) -> bool {
        T::RECOMPUTES || self.order == NormOrder::Pre
    }

    /// Adds the gradients from one chunk to those in the store.
    pub(super) fn add_gradients(&self, cpu: &Cpu, gradients: &ResidualGradients) {
        add_gradient(cpu, self.norm.weight, &gradients.d_norm_weight);
        add_gradient(cpu, self.norm.bias, &gradients.d_norm_bias);
        if let Some(id) = self.layer_scale {
            add_gradient(cpu, id, &gradients.d_scale);
        }
    }
}

impl<T: ActivationDtype> SavedResidual<T> {
    /// The parts that belong to the chunks.
    pub(super) fn split(&mut self, chunks: &[Range<usize>], width: usize) -> Vec<SavedResidualChunk<'_, T>> {
        let statistics = split_saved(&mut self.statistics, chunks, 1);
        let normalized = split_saved(&mut self.normalized, chunks, width);
        let before_norm = split_saved(&mut self.before_norm, chunks, width);
        let before_scale = split_saved(&mut self.before_scale, chunks, width);
        let parts = statistics.into_iter().zip(normalized).zip(before_norm).zip(before_scale);
        parts
            .map(|(((statistics, normalized), before_norm), before_scale)| SavedResidualChunk {
                statistics,
                normalized,
                before_norm,
                before_scale,
            })
            .collect()
    }
}

impl ResidualWrapper<'_> {
    /// Width of a token, `D`.
    pub(super) fn width(&self) -> usize {
        self.norm_weight.len()
    }

    /// Gradients of zero.
    pub(super) fn zero_gradients(&self) -> ResidualGradients {
        let zeros = || vec![0.0; self.width()];
        ResidualGradients { d_norm_weight: zeros(), d_norm_bias: zeros(), d_scale: zeros() }
    }

    /// The branch's input for a chunk, `[R, D]`: the norm of `x`, which is written to `scratch`, or `x` itself.
    pub(super) fn branch_input<'a, T: ActivationDtype>(
        &self,
        x: &'a [f32],
        saved: &mut SavedResidualChunk<T>,
        scratch: &'a mut [f32],
    ) -> &'a [f32] {
        match self.order {
            NormOrder::Pre => {
                let a = &mut scratch[..x.len()];
                layer_norm(x, self.norm_weight, self.norm_bias, self.eps, a, saved.statistics);
                if !saved.normalized.is_empty() {
                    normalized_rows(x, saved.statistics, saved.normalized);
                }
                a
            }
            NormOrder::Post => x,
        }
    }

    /// Writes the output of the chunk `rows`, given the branch's output `f`, which is overwritten.
    pub(super) fn add_branch<T: ActivationDtype>(
        &self,
        x: &[f32],
        f: &mut [f32],
        rows: &Range<usize>,
        saved: &mut SavedResidualChunk<T>,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        let width = self.width();
        if self.order == NormOrder::Post {
            let before = &mut scratch[..f.len()];
            before.copy_from_slice(f);
            if !saved.before_norm.is_empty() {
                T::narrow(f, saved.before_norm);
            }
            layer_norm(before, self.norm_weight, self.norm_bias, self.eps, f, saved.statistics);
        }
        if !saved.before_scale.is_empty() {
            T::narrow(f, saved.before_scale);
        }
        for (part, drop_path_scale) in self.images(rows) {
            let part = part.start * width..part.end * width;
            add_residual(&x[part.clone()], &f[part.clone()], &self.scale, drop_path_scale, &mut out[part]);
        }
    }

    /// Divides a chunk into parts that belong to one image each. Returns the parts, numbered within the chunk, and the
    /// images' factors.
    fn images(&self, rows: &Range<usize>) -> impl Iterator<Item = (Range<usize>, f32)> {
        let (start, end, of_image) = (rows.start, rows.end, self.rows_of_image);
        let images = start / of_image..end.div_ceil(of_image);
        images.map(move |image| {
            let part = (image * of_image).max(start) - start..((image + 1) * of_image).min(end) - start;
            (part, self.drop_path_scale[image])
        })
    }

    /// Computes the gradient of the branch's output, `d_f` `[R, D]`, from that of the chunk's output. `scratch` must be
    /// twice as long.
    pub(super) fn add_branch_backward<T: ActivationDtype>(
        &self,
        d_out: &[f32],
        rows: &Range<usize>,
        saved: &SavedResidual<T>,
        gradients: &mut ResidualGradients,
        d_f: &mut [f32],
        scratch: &mut [f32],
    ) {
        let width = self.width();
        let values = rows.start * width..rows.end * width;
        d_f.copy_from_slice(d_out);
        for (part, drop_path_scale) in self.images(rows) {
            if drop_path_scale != 1.0 {
                d_f[part.start * width..part.end * width].iter_mut().for_each(|d| *d *= drop_path_scale);
            }
        }
        let (widened, d_normalized) = scratch[..2 * d_f.len()].split_at_mut(d_f.len());
        if self.has_layer_scale {
            T::widen(&saved.before_scale[values.clone()], widened);
            add_column_dots(d_f, widened, &mut gradients.d_scale);
            d_f.chunks_exact_mut(width).for_each(|row| multiply(row, &self.scale));
        }
        if self.order == NormOrder::Post {
            T::widen(&saved.before_norm[values], widened);
            d_normalized.copy_from_slice(d_f);
            d_f.fill(0.0);
            layer_norm_backward(
                widened,
                self.norm_weight,
                &saved.statistics[rows.clone()],
                d_normalized,
                d_f,
                &mut gradients.d_norm_weight,
                &mut gradients.d_norm_bias,
            );
        }
    }

    /// Adds the gradient that comes from the branch to the gradient of the input, `d_x`, which already is that of the
    /// output (`out = x + …`). `d_a` is the gradient of the branch's input; both are `[R, D]`.
    ///
    /// Where the branch's input is computed again, hands it to `pack`. It is computed from the chunk's `x` if that is given, or
    /// else from the saved normalized rows; `scratch` must then be twice as long as the chunk, not once.
    pub(super) fn branch_input_backward<T: ActivationDtype>(
        &self,
        x: Option<&[f32]>,
        d_a: &[f32],
        rows: &Range<usize>,
        saved: &SavedResidual<T>,
        gradients: &mut ResidualGradients,
        d_x: &mut [f32],
        scratch: &mut [f32],
        pack: impl FnOnce(&[f32]),
    ) {
        let statistics = &saved.statistics[rows.clone()];
        let centered: Vec<_>;
        let (x, statistics) = match (self.order, x) {
            (NormOrder::Pre, Some(x)) => {
                let a = &mut scratch[..x.len()];
                let mut same = vec![RowStatistics::default(); rows.len()];
                layer_norm(x, self.norm_weight, self.norm_bias, self.eps, a, &mut same);
                pack(a);
                (x, statistics)
            }
            (NormOrder::Pre, None) => {
                let normalized = &saved.normalized[rows.start * self.width()..rows.end * self.width()];
                let (x, a) = scratch[..2 * normalized.len()].split_at_mut(normalized.len());
                restored_rows(normalized, self.norm_weight, self.norm_bias, statistics, x, a);
                pack(a);
                centered = statistics.iter().map(|s| RowStatistics { mean: 0.0, ..*s }).collect();
                (&*x, &centered[..])
            }
            (NormOrder::Post, x) => {
                x.map(pack);
                return add_scaled(d_x, 1.0, d_a);
            }
        };
        layer_norm_backward(
            x,
            self.norm_weight,
            statistics,
            d_a,
            d_x,
            &mut gradients.d_norm_weight,
            &mut gradients.d_norm_bias,
        );
    }
}
