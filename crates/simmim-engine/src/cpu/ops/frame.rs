//! What frames a residual branch at both ends: normalisation before or behind it, layer scale, drop path.
//!
//! Forward: `a = enter(x)`, the branch turns `a` into `f`, `leave` gives `x + keep·scale·f`. The
//! backward pass goes through the same two doors in the opposite direction. Both see a chunk of rows at a
//! time, numbered within the batch.

use super::add_gradient;
use crate::backend::{LayerNorm, NormOrder};
use crate::cpu::Cpu;
use crate::cpu::buffers::Buffer;
use crate::cpu::kept::{Stored, split_kept};
use crate::cpu::store::Store;
use crate::parameters::ParameterId;
use simmim_kernels::elementwise::{add_column_dots, add_residual, add_scaled, multiply};
use simmim_kernels::layer_norm::{RowStatistics, layer_norm, layer_norm_backward};
use std::ops::Range;

/// The parameters of a frame, as the model names them.
#[derive(Clone, Copy)]
pub(super) struct FrameSpec {
    pub(super) norm: LayerNorm,
    pub(super) order: NormOrder,
    pub(super) layer_scale: Option<ParameterId>,
}

/// Values of those parameters and the branch factors of a batch.
pub(super) struct Frame<'a> {
    order: NormOrder,
    norm_weight: &'a [f32],
    norm_bias: &'a [f32],
    eps: f32,
    scale: Vec<f32>,
    has_layer_scale: bool,
    /// Factor of each image's branch.
    keep: &'a [f32],
    /// Rows of an image.
    tokens: usize,
}

/// What the backward pass needs, for a batch; empty where it needs nothing.
pub(super) struct FrameKept<E> {
    statistics: Vec<RowStatistics>,
    /// Post-norm: the branch's output before the norm, `[rows, D]`, rounded as all that is kept.
    before_norm: Buffer<E>,
    /// Layer scale: the branch's output before the scale, `[rows, D]`.
    before_scale: Buffer<E>,
}

/// A chunk's part of a [`FrameKept`].
pub(super) struct FrameKeptPart<'a, E> {
    statistics: &'a mut [RowStatistics],
    before_norm: &'a mut [E],
    before_scale: &'a mut [E],
}

/// A chunk's gradients of the frame's parameters.
pub(super) struct FrameSums {
    d_norm_weight: Vec<f32>,
    d_norm_bias: Vec<f32>,
    d_scale: Vec<f32>,
}

impl FrameSpec {
    /// Reads the parameters' values.
    pub(super) fn frame<'a>(&self, store: &'a Store, keep: &'a [f32], tokens: usize) -> Frame<'a> {
        let norm_weight = store.value(self.norm.weight);
        let scale = self.layer_scale.map(|id| store.value(id).to_vec());
        Frame {
            order: self.order,
            norm_weight,
            norm_bias: store.value(self.norm.bias),
            eps: self.norm.eps,
            has_layer_scale: scale.is_some(),
            scale: scale.unwrap_or_else(|| vec![1.0; norm_weight.len()]),
            keep,
            tokens,
        }
    }

    /// Room for what a batch of `rows` tokens keeps while a tape is recording, and for statistics always.
    pub(super) fn keep<E: Stored>(&self, cpu: &Cpu, rows: usize) -> FrameKept<E> {
        let width = cpu.table.get(self.norm.weight).range.len();
        let is_recording = cpu.is_recording();
        let len = |is_kept: bool| if is_kept && is_recording { rows * width } else { 0 };
        FrameKept {
            statistics: vec![RowStatistics::default(); rows],
            before_norm: E::shelf(&cpu.shelves).take(match self.order {
                NormOrder::Pre => 0,
                NormOrder::Post => len(true),
            }),
            before_scale: E::shelf(&cpu.shelves).take(len(self.layer_scale.is_some())),
        }
    }

    /// Adds a chunk's sums to the gradients.
    pub(super) fn add_gradients(&self, cpu: &Cpu, sums: &FrameSums) {
        add_gradient(cpu, self.norm.weight, &sums.d_norm_weight);
        add_gradient(cpu, self.norm.bias, &sums.d_norm_bias);
        if let Some(id) = self.layer_scale {
            add_gradient(cpu, id, &sums.d_scale);
        }
    }
}

impl<E: Stored> FrameKept<E> {
    /// One part per chunk of rows.
    pub(super) fn split(&mut self, chunks: &[Range<usize>], width: usize) -> Vec<FrameKeptPart<'_, E>> {
        let statistics = split_kept(&mut self.statistics, chunks, 1);
        let before_norm = split_kept(&mut self.before_norm, chunks, width);
        let before_scale = split_kept(&mut self.before_scale, chunks, width);
        let parts = statistics.into_iter().zip(before_norm).zip(before_scale);
        parts
            .map(|((statistics, before_norm), before_scale)| FrameKeptPart { statistics, before_norm, before_scale })
            .collect()
    }
}

impl Frame<'_> {
    /// Width of a token, `D`.
    pub(super) fn width(&self) -> usize {
        self.norm_weight.len()
    }

    /// Zeroed sums for a chunk.
    pub(super) fn sums(&self) -> FrameSums {
        let zeros = || vec![0.0; self.width()];
        FrameSums { d_norm_weight: zeros(), d_norm_bias: zeros(), d_scale: zeros() }
    }

    /// The branch's input for a chunk, `[R, D]`: `x` itself, or its norm in `scratch`.
    pub(super) fn enter<'a, E: Stored>(
        &self,
        x: &'a [f32],
        kept: &mut FrameKeptPart<E>,
        scratch: &'a mut [f32],
    ) -> &'a [f32] {
        self.enter_with(x, kept.statistics, scratch)
    }

    /// The same in the backward pass; the statistics it computes on the way are those that were kept.
    pub(super) fn enter_again<'a>(&self, x: &'a [f32], scratch: &'a mut [f32]) -> &'a [f32] {
        self.enter_with(x, &mut vec![RowStatistics::default(); x.len() / self.width()], scratch)
    }

    fn enter_with<'a>(&self, x: &'a [f32], statistics: &mut [RowStatistics], scratch: &'a mut [f32]) -> &'a [f32] {
        match self.order {
            NormOrder::Pre => {
                let a = &mut scratch[..x.len()];
                layer_norm(x, self.norm_weight, self.norm_bias, self.eps, a, statistics);
                a
            }
            NormOrder::Post => x,
        }
    }

    /// Writes `out = x + keep·scale·f` for rows `rows` of the batch; `f` is overwritten.
    pub(super) fn leave<E: Stored>(
        &self,
        x: &[f32],
        f: &mut [f32],
        rows: &Range<usize>,
        kept: &mut FrameKeptPart<E>,
        scratch: &mut [f32],
        out: &mut [f32],
    ) {
        let width = self.width();
        if self.order == NormOrder::Post {
            let before = &mut scratch[..f.len()];
            before.copy_from_slice(f);
            if !kept.before_norm.is_empty() {
                E::narrow(f, kept.before_norm);
            }
            layer_norm(before, self.norm_weight, self.norm_bias, self.eps, f, kept.statistics);
        }
        if !kept.before_scale.is_empty() {
            E::narrow(f, kept.before_scale);
        }
        for (part, keep) in self.images(rows) {
            let part = part.start * width..part.end * width;
            add_residual(&x[part.clone()], &f[part.clone()], &self.scale, keep, &mut out[part]);
        }
    }

    /// Parts of a chunk that belong to one image, counted from the chunk's first row, and their factor.
    fn images(&self, rows: &Range<usize>) -> impl Iterator<Item = (Range<usize>, f32)> {
        let (start, end, tokens) = (rows.start, rows.end, self.tokens);
        let images = start / tokens..end.div_ceil(tokens);
        images.map(move |image| {
            let part = (image * tokens).max(start) - start..((image + 1) * tokens).min(end) - start;
            (part, self.keep[image])
        })
    }

    /// Turns the gradient of rows `rows` of the output into that of the branch's output, `d_f` `[R, D]`; `scratch` is twice
    /// as large.
    pub(super) fn leave_backward<E: Stored>(
        &self,
        d_out: &[f32],
        rows: &Range<usize>,
        kept: &FrameKept<E>,
        sums: &mut FrameSums,
        d_f: &mut [f32],
        scratch: &mut [f32],
    ) {
        let width = self.width();
        let kept_part = rows.start * width..rows.end * width;
        d_f.copy_from_slice(d_out);
        for (part, keep) in self.images(rows) {
            if keep != 1.0 {
                d_f[part.start * width..part.end * width].iter_mut().for_each(|d| *d *= keep);
            }
        }
        let (scratch, more) = scratch[..2 * d_f.len()].split_at_mut(d_f.len());
        if self.has_layer_scale {
            E::widen(&kept.before_scale[kept_part.clone()], scratch);
            add_column_dots(d_f, scratch, &mut sums.d_scale);
            d_f.chunks_exact_mut(width).for_each(|row| multiply(row, &self.scale));
        }
        if self.order == NormOrder::Post {
            E::widen(&kept.before_norm[kept_part], scratch);
            more.copy_from_slice(d_f);
            d_f.fill(0.0);
            layer_norm_backward(
                scratch,
                self.norm_weight,
                &kept.statistics[rows.clone()],
                more,
                d_f,
                &mut sums.d_norm_weight,
                &mut sums.d_norm_bias,
            );
        }
    }

    /// Adds the gradient that went through the branch, `d_a`, to the residual's `d_x`, both `[R, D]`.
    pub(super) fn enter_backward<E: Stored>(
        &self,
        x: &[f32],
        d_a: &[f32],
        rows: &Range<usize>,
        kept: &FrameKept<E>,
        sums: &mut FrameSums,
        d_x: &mut [f32],
    ) {
        match self.order {
            NormOrder::Pre => layer_norm_backward(
                x,
                self.norm_weight,
                &kept.statistics[rows.clone()],
                d_a,
                d_x,
                &mut sums.d_norm_weight,
                &mut sums.d_norm_bias,
            ),
            NormOrder::Post => add_scaled(d_x, 1.0, d_a),
        }
    }
}
