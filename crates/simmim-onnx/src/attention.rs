//! Attention over windows, from normed tokens to what the projection reads.

use crate::graph::{integer, integers};
use crate::recorder::{Recorded, Recorder};
use simmim_engine::{AttentionBranch, Operations, QkvBias, Rotary, Similarity, Windows};

/// The least norm that a query or key is divided by, as PyTorch's `normalize`.
const LEAST_NORM: f32 = 1e-12;

impl Recorder {
    /// # Shapes
    /// `[B, N, D]` → `[B, N, D]`.
    pub(crate) fn attention(&self, x: &Recorded, branch: &AttentionBranch, table: Option<&Recorded>) -> Recorded {
        let [images, tokens, width] = x.shape[..] else { panic!("expected [B, N, D], got {:?}", x.shape) };
        let (windows, heads) = (&branch.windows, branch.heads);
        let (count, m, head_width) = (windows.count(), windows.tokens, width / heads);
        let slots: Vec<i64> = windows.slots.iter().map(|slot| i64::from(*slot)).collect();
        let is_in_order = slots.iter().copied().eq(0..tokens as i64);
        let x = match is_in_order {
            true => x.clone(),
            false => self.gather(&self.padded(x, windows), &slots),
        }; // [B, W·M, D]
        let qkv = self.product(&x, branch.qkv); // [B, W·M, 3D]
        let qkv = match branch.qkv_bias {
            QkvBias::None => qkv,
            QkvBias::Full(bias) => self.with_numbers("Add", &qkv, &[3 * width], self.value(bias)),
            QkvBias::QueryValue { query, value } => {
                let bias = [self.value(query), &vec![0.0; width], self.value(value)].concat();
                self.with_numbers("Add", &qkv, &[3 * width], &bias)
            }
        };
        let by_head = |part: &Recorded| self.reshape(part, &[count, m, heads, head_width]);
        let [query, key, value] = self.split::<3>(&qkv).each_ref().map(by_head); // [B·W, M, A, E]
        let (query, key) = match branch.similarity {
            Similarity::ScaledDot => (self.with_numbers("Mul", &query, &[], &[1.0 / (head_width as f32).sqrt()]), key),
            Similarity::Cosine { logit_scale } => {
                let scales: Vec<f32> = self.value(logit_scale).iter().map(|s| s.min(100f32.ln()).exp()).collect();
                (self.with_numbers("Mul", &self.normalized(&query), &[heads, 1], &scales), self.normalized(&key))
            }
        };
        let (query, key) = match &branch.rotary {
            None => (query, key),
            Some(rotary) => (self.rotated(&query, rotary), self.rotated(&key, rotary)),
        };
        let (query, value) = (self.transpose(&query, &[0, 2, 1, 3]), self.transpose(&value, &[0, 2, 1, 3]));
        let key = self.transpose(&key, &[0, 2, 3, 1]); // [B·W, A, E, M]
        let scores = self.apply("MatMul", &query, &[&key.name], Vec::new(), &[count, heads, m, m]);
        let scores = match table {
            None => scores,
            Some(table) => {
                let index: Vec<i64> = branch.bias_index.iter().map(|row| i64::from(*row)).collect();
                let index = self.integers(&[m, m], &index);
                let bias = self.apply("Gather", table, &[&index], vec![integer("axis", 0)], &[m, m, heads]);
                self.join("Add", &scores, &self.transpose(&bias, &[2, 0, 1]))
            }
        };
        let scores = self.masked(&scores, windows); // [B·W, A, M, M]
        let shares = self.apply("Softmax", &scores, &[], vec![integer("axis", -1)], &scores.shape);
        let mixed = self.apply("MatMul", &shares, &[&value.name], Vec::new(), &[count, heads, m, head_width]);
        let mixed = self.reshape(&self.transpose(&mixed, &[0, 2, 1, 3]), &[images, count * m, width]);
        match is_in_order {
            true => mixed,
            false => {
                let mut slot_of = vec![0; tokens + 1]; // that of padding is not read
                (0..).zip(&*windows.slots).for_each(|(slot, token)| slot_of[*token as usize] = slot);
                self.gather(&mixed, &slot_of[..tokens]) // [B, N, D]
            }
        }
    }

    /// Queries or keys `[B, N, A, E]`, turned by the angles of their tokens.
    fn rotated(&self, x: &Recorded, rotary: &Rotary) -> Recorded {
        let [_, tokens, _, width] = x.shape[..] else { panic!("expected [B, N, A, E], got {:?}", x.shape) };
        let half = width / 2;
        assert_eq!(rotary.cosines.len(), tokens * half, "rotary positions are of windows that are the whole image");
        let [first, second] = self.split(x);
        let by = |part: &Recorded, factors: &[f32]| self.with_numbers("Mul", part, &[tokens, 1, half], factors);
        let real = self.join("Sub", &by(&first, &rotary.cosines), &by(&second, &rotary.sines));
        let imaginary = self.join("Add", &by(&second, &rotary.cosines), &by(&first, &rotary.sines));
        self.apply("Concat", &real, &[&imaginary.name], vec![integer("axis", -1)], &x.shape)
    }

    /// The tokens and, if a window reads it, a padding token of zeros behind them.
    fn padded(&self, x: &Recorded, windows: &Windows) -> Recorded {
        let [images, tokens, width] = x.shape[..] else { panic!("expected [B, N, D], got {:?}", x.shape) };
        match windows.slots.contains(&(tokens as u32)) {
            false => x.clone(),
            true => {
                let pads = self.integers(&[6], &[0, 0, 0, 0, 1, 0]); // before and behind each axis
                self.apply("Pad", x, &[&pads], Vec::new(), &[images, tokens + 1, width])
            }
        }
    }

    /// The rows of the last axis, each divided by its norm.
    fn normalized(&self, x: &Recorded) -> Recorded {
        let shape = [&x.shape[..x.shape.len() - 1], &[1]].concat();
        let norm = self.apply("ReduceL2", x, &[], vec![integers("axes", &[-1]), integer("keepdims", 1)], &shape);
        self.join("Div", x, &self.with_numbers("Max", &norm, &[], &[LEAST_NORM]))
    }

    /// The scores `[B·W, A, M, M]` with the mask of each window added.
    fn masked(&self, scores: &Recorded, windows: &Windows) -> Recorded {
        if windows.mask_of.iter().all(Option::is_none) {
            return scores.clone();
        }
        let [count, heads, m, _] = scores.shape[..] else { panic!("scores are [B·W, A, M, M]") };
        let none = vec![0.0; m * m]; // behind the others: for windows without a mask
        let masks = [&windows.masks.concat()[..], &none].concat();
        let mask_of = windows.mask_of.iter().map(|mask| mask.map_or(windows.masks.len() as i64, i64::from));
        let masks = self.tensor(&[windows.masks.len() + 1, 1, m, m], &masks);
        let index = self.integers(&[count], &mask_of.collect::<Vec<_>>());
        let masks = self.apply("Gather", &masks, &[&index], vec![integer("axis", 0)], &[count, 1, m, m]);
        let of_image = self.reshape(scores, &[1, count, heads, m, m]);
        self.reshape(&self.join("Add", &of_image, &masks), &[count, heads, m, m])
    }
}
