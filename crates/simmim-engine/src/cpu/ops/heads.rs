//! Between the joint projection's rows `[N, 3D]` and the rows of one head in one window `[M, E]`.
//!
//! Windows and shifts are an index map here: nothing is rolled or partitioned in memory.

use simmim_kernels::attention::HeadShape;
use simmim_kernels::bf16::Operands;

/// Scratch for one head in one window, each `[M, E]`.
pub(super) struct HeadRows {
    pub(super) q: Vec<f32>,
    pub(super) k: Vec<f32>,
    pub(super) v: Vec<f32>,
    pub(super) o: Vec<f32>,
}

impl HeadRows {
    pub(super) fn new(shape: HeadShape) -> Self {
        let zeros = || vec![0.0; shape.tokens * shape.width];
        Self { q: zeros(), k: zeros(), v: zeros(), o: zeros() }
    }
}

/// The logit scale's upper bound, ln 100 (SwinV2, arXiv:2111.09883, section 3.3).
const MAX_LOGIT_SCALE: f32 = 4.605_170_2;

/// Norms below this count as this, as in PyTorch's `normalize`.
const MIN_NORM: f32 = 1e-12;

/// Where rows lie and how queries and keys are scaled.
pub(super) struct Gather<'a> {
    pub(super) width: usize,
    pub(super) head_width: usize,
    /// Tokens of an image; a slot with this index is padding.
    pub(super) tokens: usize,
    pub(super) slots: &'a [u32],
    pub(super) window_tokens: usize,
    /// The projection of a padding token: the bias alone, `[3D]`.
    pub(super) padding: &'a [f32],
    /// Of each head, for cosine similarity.
    pub(super) logit_scale: Option<&'a [f32]>,
}

impl Gather<'_> {
    fn window_slots(&self, window: usize) -> impl Iterator<Item = usize> {
        self.slots[window * self.window_tokens..][..self.window_tokens].iter().map(|s| *s as usize)
    }

    /// The values of one of q, k, v (`part` 0, 1, 2) of a head at a slot.
    fn part<'b>(&self, qkv: &'b [f32], slot: usize, part: usize, head: usize) -> &'b [f32]
    where
        Self: 'b,
    {
        let at = slot * 3 * self.width + part * self.width + head * self.head_width;
        &qkv[at..at + self.head_width]
    }

    fn padding_part(&self, part: usize, head: usize) -> &[f32] {
        &self.padding[part * self.width + head * self.head_width..][..self.head_width]
    }

    fn scale(&self, head: usize) -> f32 {
        match self.logit_scale {
            None => (self.head_width as f32).powf(-0.5),
            Some(logits) => logits[head].min(MAX_LOGIT_SCALE).exp(),
        }
    }

    /// Fills q (scaled), k and v of a head in a window, as operands.
    pub(super) fn load(&self, qkv: &[f32], window: usize, head: usize, operands: Operands, rows: &mut HeadRows) {
        let (width, scale) = (self.head_width, self.scale(head));
        for (i, slot) in self.window_slots(window).enumerate() {
            let [q, k, v] = [0, 1, 2].map(|part| match slot {
                slot if slot == self.tokens => self.padding_part(part, head),
                slot => self.part(qkv, slot, part, head),
            });
            let span = i * width..(i + 1) * width;
            let (q_factor, k_factor) = match self.logit_scale {
                None => (scale, 1.0),
                Some(_) => (scale / norm(q), 1.0 / norm(k)),
            };
            for e in 0..width {
                rows.q[span.start + e] = q[e] * q_factor;
                rows.k[span.start + e] = k[e] * k_factor;
            }
            rows.v[span].copy_from_slice(v);
        }
        operands.round(&mut rows.q);
        operands.round(&mut rows.k);
        operands.round(&mut rows.v);
    }

    /// Writes a head's output to its columns of `o` `[N, D]`; padding goes nowhere.
    pub(super) fn store_output(&self, rows: &[f32], window: usize, head: usize, o: &mut [f32]) {
        for (row, slot) in rows.chunks_exact(self.head_width).zip(self.window_slots(window)) {
            if slot < self.tokens {
                o[slot * self.width + head * self.head_width..][..self.head_width].copy_from_slice(row);
            }
        }
    }

    /// Reads a head's columns of `d_o` `[N, D]`; the output of padding is not used, so its gradient is zero.
    pub(super) fn load_output(&self, d_o: &[f32], window: usize, head: usize, rows: &mut [f32]) {
        for (row, slot) in rows.chunks_exact_mut(self.head_width).zip(self.window_slots(window)) {
            match slot {
                slot if slot < self.tokens => {
                    row.copy_from_slice(&d_o[slot * self.width + head * self.head_width..][..self.head_width]);
                }
                _ => row.fill(0.0),
            }
        }
    }

    /// Adds the gradients of a head's scaled q, its k and v to `d_qkv` `[N, 3D]` (padding: to
    /// `d_padding`), and the gradient of the head's logit scale.
    pub(super) fn store_gradients(
        &self,
        qkv: &[f32],
        d_rows: &mut HeadRows,
        window: usize,
        head: usize,
        d_qkv: &mut [f32],
        d_padding: &mut [f32],
        d_logit_scale: &mut f32,
    ) {
        let (width, scale) = (self.head_width, self.scale(head));
        for (i, slot) in self.window_slots(window).enumerate() {
            let is_padding = slot == self.tokens;
            let span = i * width..(i + 1) * width;
            let (d_q, d_k) = (&mut d_rows.q[span.clone()], &mut d_rows.k[span.clone()]);
            match self.logit_scale {
                None => d_q.iter_mut().for_each(|d| *d *= scale),
                Some(logits) => {
                    let [q, k] = [0, 1].map(|part| match is_padding {
                        true => self.padding_part(part, head),
                        false => self.part(qkv, slot, part, head),
                    });
                    let along_q = normalize_backward(q, d_q, scale);
                    normalize_backward(k, d_k, 1.0);
                    if logits[head] < MAX_LOGIT_SCALE {
                        *d_logit_scale += along_q;
                    }
                }
            }
            for (part, d) in [&*d_q, &*d_k, &d_rows.v[span]].into_iter().enumerate() {
                let column = part * self.width + head * width;
                let into = match is_padding {
                    true => &mut d_padding[column..column + width],
                    false => &mut d_qkv[slot * 3 * self.width + column..][..width],
                };
                for (into, d) in into.iter_mut().zip(d) {
                    *into += d;
                }
            }
        }
    }
}

fn norm(x: &[f32]) -> f32 {
    x.iter().map(|v| v * v).sum::<f32>().sqrt().max(MIN_NORM)
}

/// Replaces the gradient of `scale·x/‖x‖` by that of `x`; returns the gradient of `ln scale`.
fn normalize_backward(x: &[f32], d: &mut [f32], scale: f32) -> f32 {
    let inverse = 1.0 / norm(x);
    let along: f32 = x.iter().zip(&*d).map(|(x, d)| x * inverse * d).sum();
    for (d, x) in d.iter_mut().zip(x) {
        *d = scale * inverse * (*d - along * x * inverse);
    }
    along * scale
}

/// Looks the position bias of each head up: table `[T, A]`, index `[M, M]` → `[A, M, M]`.
pub(super) fn expand_bias(table: &[f32], index: &[u32], heads: usize) -> Vec<f32> {
    (0..heads).flat_map(|head| index.iter().map(move |row| table[*row as usize * heads + head])).collect()
}

/// Adds the gradient of [`expand_bias`] to that of the table.
pub(super) fn reduce_bias(d_bias: &[f32], index: &[u32], heads: usize, d_table: &mut [f32]) {
    for (head, d_bias) in d_bias.chunks_exact(index.len()).enumerate() {
        for (d, row) in d_bias.iter().zip(index) {
            d_table[*row as usize * heads + head] += d;
        }
    }
}
