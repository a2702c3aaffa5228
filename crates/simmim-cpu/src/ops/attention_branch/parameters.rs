//! The values of the branch's parameters as both directions read them.

use super::super::residual::ResidualWrapper;
use super::head::Place;
use super::layout::AttentionSizes;
use super::saved::residual_spec;
use crate::Cpu;
use crate::pools::ActivationDtype;
use crate::store::Store;
use simmim_engine::{AttentionBranch, QkvBias, Similarity};
use simmim_kernels::dtype::{Dtype, padded};
use simmim_kernels::heads::{HeadColumns, RowScale, Slots};
use simmim_kernels::product::Accumulator;
use simmim_kernels::rotary::{Angles, Turn, rotate};

/// The upper bound of the logit scale, ln 100 (SwinV2, arXiv:2111.09883, section 3.3).
pub(super) const MAX_LOGIT_SCALE: f32 = 4.605_170_2;

/// Values of the parameters, and windows.
pub(super) struct AttentionParameters<'a, T> {
    pub(super) residual: ResidualWrapper<'a>,
    pub(super) sizes: AttentionSizes,
    /// The token in each slot of an image's windows, `[windows, M]`. Without padding, rows are in this order already.
    slots: &'a [u32],
    /// Distinct masks of scores, `[M, M]` each.
    masks: &'a [Vec<f32>],
    /// The mask of each window.
    mask_of: &'a [Option<u32>],
    /// The bias of the joint projection, `[3D]`, or zeros.
    pub(super) qkv_bias: Vec<f32>,
    /// What queries are multiplied by before they are stored. It is 1 for cosine similarity, where they are scaled
    /// later.
    pub(super) query_factor: f32,
    /// The joint projection of padding, `[3D]`: the bias. No output that counts depends on the queries in it.
    padding: Vec<T>,
    /// The gradient of padding's output, `[D]`: nobody reads it.
    zeros: Vec<T>,
    /// What the sums of the output projection start from.
    pub(super) projection_accumulator: Accumulator<'a>,
    /// The position bias of each head, `[A, M, M]`; empty if there is none.
    position_bias: &'a [f32],
    /// The logit scale of each head, for cosine similarity.
    logit_scale: Option<&'a [f32]>,
    /// The angles of rotary positions.
    angles: Option<Angles<'a>>,
}

impl<'a, T: ActivationDtype> AttentionParameters<'a, T> {
    pub(super) fn read(
        cpu: &Cpu,
        store: &'a Store,
        branch: &'a AttentionBranch,
        position_bias: &'a [f32],
        drop_path_scale: &'a [f32],
        sizes: AttentionSizes,
    ) -> Self {
        let width = cpu.table.get(branch.norm.weight).range.len();
        let zeros = || vec![0.0; width];
        let qkv_bias = match branch.qkv_bias {
            QkvBias::None => vec![0.0; 3 * width],
            QkvBias::Full(id) => store.value(id).to_vec(),
            QkvBias::QueryValue { query, value } => [store.value(query), &zeros(), store.value(value)].concat(),
        };
        let query_factor = match branch.similarity {
            Similarity::ScaledDot => (sizes.head_width() as f32).powf(-0.5),
            Similarity::Cosine { .. } => 1.0,
        };
        let mut padding = vec![T::default(); 3 * width];
        T::narrow(&qkv_bias, &mut padding);
        let angles = branch.rotary.as_ref().map(|rotary| {
            let values = sizes.window_tokens * sizes.head_width() / 2;
            let is_whole = sizes.windows == 1 && !sizes.has_padding();
            assert!(is_whole, "rotary positions are of windows that are the whole image");
            assert!([&rotary.cosines, &rotary.sines].iter().all(|part| part.len() == values), "an angle for each pair");
            Angles { cosines: &rotary.cosines, sines: &rotary.sines }
        });
        Self {
            residual: residual_spec(branch).read(store, drop_path_scale, sizes.tokens),
            sizes,
            slots: &branch.windows.slots,
            masks: &branch.windows.masks,
            mask_of: &branch.windows.mask_of,
            qkv_bias,
            query_factor,
            padding,
            zeros: vec![T::default(); width],
            projection_accumulator: branch
                .projection
                .bias
                .map_or(Accumulator::Zero, |bias| Accumulator::Bias(store.value(bias))),
            position_bias,
            logit_scale: match branch.similarity {
                Similarity::ScaledDot => None,
                Similarity::Cosine { logit_scale } => Some(store.value(logit_scale)),
            },
            angles,
        }
    }

    /// What is added to the scores of a head in a window of the batch: the position bias and the mask, as far as there are
    /// any. They are listed in `both`.
    pub(super) fn biases<'b>(&'b self, Place { window, head }: Place, both: &'b mut [&'b [f32]; 2]) -> &'b [&'b [f32]] {
        let position = self.position_bias.chunks_exact(self.sizes.scores_len()).nth(head);
        let mask = self.mask_of[window % self.sizes.windows].map(|m| self.masks[m as usize].as_slice());
        let mut count = 0;
        for bias in position.into_iter().chain(mask) {
            both[count] = bias;
            count += 1;
        }
        &both[..count]
    }

    /// The token of the image in each place of a window of the batch, `[M]`, if windows have padding.
    pub(super) fn slots(&self, window: usize) -> Option<&[u32]> {
        let in_image = window % self.sizes.windows;
        let slots = || &self.slots[in_image * self.sizes.window_tokens..][..self.sizes.window_tokens];
        self.sizes.has_padding().then(slots)
    }

    /// The columns of a head's queries, keys or values (`part` 0, 1, 2) in a window. `qkv` are the rows of its group.
    pub(super) fn columns<'b>(&'b self, qkv: &'b [T], part: usize, place: Place) -> HeadColumns<'b, T> {
        self.columns_from(qkv, 3 * self.sizes.width, part * self.sizes.width, &self.padding, place)
    }

    /// The columns of the gradient of a head's output in a window. `d_o` are the rows of its group.
    pub(super) fn columns_of_gradient<'b>(&'b self, d_o: &'b [T], place: Place) -> HeadColumns<'b, T> {
        self.columns_from(d_o, self.sizes.width, 0, &self.zeros, place)
    }

    /// The columns of a head in rows of `columns` columns, where those of all heads begin at `first`.
    fn columns_from<'b>(
        &'b self,
        rows: &'b [T],
        columns: usize,
        first: usize,
        padding: &'b [T],
        place: Place,
    ) -> HeadColumns<'b, T> {
        let (width, count) = (self.sizes.head_width(), self.sizes.group_rows());
        let first = first + place.head * width;
        let slots = self.slots(place.window).map(|rows| Slots { rows, count, padding: &padding[first..] });
        HeadColumns { rows: &rows[first..], stride: padded::<T>(columns), width, slots }
    }

    /// Whether queries and keys are turned by their angles.
    pub(super) fn has_angles(&self) -> bool {
        self.angles.is_some()
    }

    /// Turns the queries or keys of a window by their angles, if there are any; `row` values are between the beginnings of
    /// rows.
    pub(super) fn rotate<S: Dtype>(&self, rows: &mut [S], row: usize, turn: Turn) {
        if let Some(angles) = self.angles {
            rotate(rows, self.sizes.head_width(), row, self.slots, angles, turn);
        }
    }

    /// How the stored queries, keys and values of a head are scaled before they are multiplied.
    pub(super) fn scales(&self, head: usize) -> [RowScale; 3] {
        let one = RowScale::By(1.0);
        match self.logit_scale {
            None => [one; 3],
            Some(logits) => {
                // NaN stays NaN, so that it cannot go unnoticed
                let bounded = if logits[head] > MAX_LOGIT_SCALE { MAX_LOGIT_SCALE } else { logits[head] };
                [RowScale::ToLength(bounded.exp()), RowScale::ToLength(1.0), one]
            }
        }
    }

    /// The scales by which the gradients of scaled queries, keys and values become those of the projection's output.
    pub(super) fn gradient_scales(&self, head: usize) -> [RowScale; 3] {
        match self.logit_scale {
            None => [RowScale::By(self.query_factor), RowScale::By(1.0), RowScale::By(1.0)],
            Some(_) => self.scales(head),
        }
    }

    /// Whether a head has a logit scale below the bound. Only such a scale has a gradient.
    pub(super) fn has_free_logit_scale(&self, head: usize) -> bool {
        self.logit_scale.is_some_and(|logits| logits[head] < MAX_LOGIT_SCALE)
    }
}
