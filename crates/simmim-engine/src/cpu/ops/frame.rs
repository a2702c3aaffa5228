//! What frames a residual branch at both ends: normalisation before or behind it, layer scale, drop path.
//!
//! Forward: `a = enter(x)`, the branch turns `a` into `f`, `leave` gives `x + keep·scale·f`. The
//! backward pass goes through the same two doors in the opposite direction.

use super::add_gradient;
use crate::backend::{LayerNorm, NormOrder};
use crate::cpu::Cpu;
use crate::cpu::buffers::Buffer;
use crate::cpu::kept::{Kept, KeptPart, KeptView};
use crate::cpu::store::Store;
use crate::cpu::threads::split_mut;
use crate::parameters::ParameterId;
use simmim_kernels::bf16::Operands;
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
    keep: &'a [f32],
    operands: Operands,
}

/// What the backward pass needs, for a batch.
pub(super) struct FrameKept {
    statistics: Vec<RowStatistics>,
    /// Post-norm: the branch's output before the norm.
    before_norm: Option<Buffer<f32>>,
    /// Layer scale: the branch's output before the scale.
    before_scale: Option<Kept>,
}

/// One group's part of a [`FrameKept`].
pub(super) struct FrameKeptPart<'a> {
    statistics: &'a mut [RowStatistics],
    before_norm: Option<&'a mut [f32]>,
    before_scale: Option<KeptPart<'a>>,
}

/// A [`FrameKept`] to read from several threads.
#[derive(Clone, Copy)]
pub(super) struct FrameKeptView<'a> {
    statistics: &'a [RowStatistics],
    before_norm: Option<&'a [f32]>,
    before_scale: Option<KeptView<'a>>,
}

/// One worker's gradients of the frame's parameters.
pub(super) struct FrameSums {
    d_norm_weight: Vec<f32>,
    d_norm_bias: Vec<f32>,
    d_scale: Vec<f32>,
}

impl FrameSpec {
    /// Reads the parameters' values.
    pub(super) fn frame<'a>(&self, store: &'a Store, keep: &'a [f32], operands: Operands) -> Frame<'a> {
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
            operands,
        }
    }

    /// Room for what a batch of `rows` tokens keeps.
    pub(super) fn keep(&self, cpu: &Cpu, rows: usize) -> FrameKept {
        let width = cpu.table.get(self.norm.weight).range.len();
        FrameKept {
            statistics: vec![RowStatistics::default(); rows],
            before_norm: match self.order {
                NormOrder::Pre => None,
                NormOrder::Post => Some(cpu.shelves.f32.take(rows * width)),
            },
            before_scale: self.layer_scale.map(|_| Kept::new(&cpu.shelves, cpu.precision, rows * width)),
        }
    }

    /// Adds every worker's sums to the gradients, in order.
    pub(super) fn add_gradients(&self, cpu: &Cpu, sums: &FrameSums) {
        add_gradient(cpu, self.norm.weight, &sums.d_norm_weight);
        add_gradient(cpu, self.norm.bias, &sums.d_norm_bias);
        if let Some(id) = self.layer_scale {
            add_gradient(cpu, id, &sums.d_scale);
        }
    }
}

impl FrameKept {
    /// One part per group of images.
    pub(super) fn split(&mut self, groups: &[Range<usize>], tokens: usize, width: usize) -> Vec<FrameKeptPart<'_>> {
        let mut before_norm = self.before_norm.as_mut().map(|b| split_mut(b, groups, tokens * width).into_iter());
        let mut before_scale = self.before_scale.as_mut().map(|k| k.split(groups, tokens * width).into_iter());
        split_mut(&mut self.statistics, groups, tokens)
            .into_iter()
            .map(|statistics| FrameKeptPart {
                statistics,
                before_norm: before_norm.as_mut().and_then(Iterator::next),
                before_scale: before_scale.as_mut().and_then(Iterator::next),
            })
            .collect()
    }

    /// A view that workers can share.
    pub(super) fn view(&self) -> FrameKeptView<'_> {
        FrameKeptView {
            statistics: &self.statistics,
            before_norm: self.before_norm.as_deref(),
            before_scale: self.before_scale.as_ref().map(Kept::view),
        }
    }
}

impl Frame<'_> {
    fn width(&self) -> usize {
        self.norm_weight.len()
    }

    /// Zeroed sums for one worker.
    pub(super) fn sums(&self) -> FrameSums {
        let zeros = || vec![0.0; self.width()];
        FrameSums { d_norm_weight: zeros(), d_norm_bias: zeros(), d_scale: zeros() }
    }

    /// Writes the branch's input `a` `[N, D]` for image `i` of its group.
    pub(super) fn enter(&self, x: &[f32], i: usize, kept: &mut FrameKeptPart, a: &mut [f32]) {
        let tokens = x.len() / self.width();
        match self.order {
            NormOrder::Pre => {
                let statistics = &mut kept.statistics[i * tokens..][..tokens];
                layer_norm(x, self.norm_weight, self.norm_bias, self.eps, a, statistics);
            }
            NormOrder::Post => a.copy_from_slice(x),
        }
        self.operands.round(a);
    }

    /// Writes `out = x + keep·scale·f` for image `i` of its group, `image` of the batch; `f` is
    /// overwritten.
    pub(super) fn leave(
        &self,
        x: &[f32],
        f: &mut [f32],
        scratch: &mut [f32],
        i: usize,
        image: usize,
        kept: &mut FrameKeptPart,
        out: &mut [f32],
    ) {
        let tokens = x.len() / self.width();
        let start = i * x.len();
        if let Some(before) = &mut kept.before_norm {
            let before = &mut before[start..start + f.len()];
            before.copy_from_slice(f);
            let statistics = &mut kept.statistics[i * tokens..][..tokens];
            layer_norm(before, self.norm_weight, self.norm_bias, self.eps, f, statistics);
        }
        if let Some(before) = &mut kept.before_scale {
            before.fill(start, scratch, |before| before.copy_from_slice(f));
        }
        add_residual(x, f, &self.scale, self.keep[image], out);
    }

    /// Turns the gradient of image `image`'s output into that of the branch's output, `d_f` `[N, D]`.
    pub(super) fn leave_backward(
        &self,
        d_out: &[f32],
        image: usize,
        kept: FrameKeptView,
        sums: &mut FrameSums,
        d_f: &mut [f32],
        scratch: &mut [f32],
    ) {
        let (width, start) = (self.width(), image * d_out.len());
        let tokens = d_out.len() / width;
        d_f.fill(0.0);
        add_scaled(d_f, self.keep[image], d_out);
        if self.has_layer_scale {
            if let Some(before) = kept.before_scale {
                add_column_dots(d_f, before.read(start, scratch), &mut sums.d_scale);
            }
            for row in d_f.chunks_exact_mut(width) {
                multiply(row, &self.scale);
            }
        }
        if let Some(before) = kept.before_norm {
            scratch.fill(0.0);
            layer_norm_backward(
                &before[start..start + d_f.len()],
                self.norm_weight,
                &kept.statistics[image * tokens..][..tokens],
                d_f,
                scratch,
                &mut sums.d_norm_weight,
                &mut sums.d_norm_bias,
            );
            d_f.copy_from_slice(scratch);
        }
    }

    /// Adds the gradient that went through the branch, `d_a`, to the residual's `d_x`, both `[N, D]`.
    pub(super) fn enter_backward(
        &self,
        x: &[f32],
        d_a: &[f32],
        image: usize,
        kept: FrameKeptView,
        sums: &mut FrameSums,
        d_x: &mut [f32],
    ) {
        let tokens = x.len() / self.width();
        match self.order {
            NormOrder::Pre => layer_norm_backward(
                x,
                self.norm_weight,
                &kept.statistics[image * tokens..][..tokens],
                d_a,
                d_x,
                &mut sums.d_norm_weight,
                &mut sums.d_norm_bias,
            ),
            NormOrder::Post => add_scaled(d_x, 1.0, d_a),
        }
    }
}
