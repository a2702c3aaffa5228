//! What depends on the shape of a model alone and is kept on the device: which rows windows are made of, which row of the bias
//! table each pair of slots has, and masks of scores.
//!
//! The engine shares such tables by `Rc`, so that their address tells them apart as long as they are kept here too.

use crate::Libtorch;
use simmim_engine::{AttentionBranch, Rotary, Windows};
use std::collections::HashMap;
use std::rc::Rc;
use tch::{Kind, Tensor};

/// Rows to pick of a tensor seen as `[R, D]`, and zeros between them; each row is picked at most once.
pub(crate) struct Rows {
    /// `[P]`: rows, any for zeros.
    index: Tensor,
    /// `[P, 1]`: where zeros are, if there are any.
    padding: Option<Tensor>,
}

/// Rows to pick, and those that undo it.
pub(crate) struct Permutation {
    pub(crate) rows: Rows,
    pub(crate) inverse: Rows,
}

impl Permutation {
    /// Picks rows of `[R, D]`.
    pub(crate) fn apply(&self, x: &Tensor) -> Tensor {
        crate::shim::pick_rows(x, self.rows.parts(), self.inverse.parts())
    }

    /// Puts them back.
    pub(crate) fn undo(&self, x: &Tensor) -> Tensor {
        crate::shim::pick_rows(x, self.inverse.parts(), self.rows.parts())
    }
}

impl Rows {
    fn parts(&self) -> (&Tensor, Option<&Tensor>) {
        (&self.index, self.padding.as_ref())
    }
}

/// What was made of a table, with the table, whose address no other has as long as it is kept.
type Made<S, T> = (Rc<S>, Rc<T>);

/// What is kept, by the address of what it was made of.
#[derive(Default)]
pub(crate) struct Layouts {
    windows: HashMap<(usize, usize), Made<[u32], Permutation>>,
    bias_indices: HashMap<usize, Made<[u32], Tensor>>,
    masks: HashMap<usize, Made<[Option<u32>], Tensor>>,
    angles: HashMap<usize, Made<[f32], Tensor>>,
}

impl Layouts {
    /// Forgets what nobody else has any more.
    pub(crate) fn forget_unused(&mut self) {
        self.windows.retain(|_, (slots, _)| Rc::strong_count(slots) > 1);
        self.bias_indices.retain(|_, (index, _)| Rc::strong_count(index) > 1);
        self.masks.retain(|_, (mask_of, _)| Rc::strong_count(mask_of) > 1);
        self.angles.retain(|_, (cosines, _)| Rc::strong_count(cosines) > 1);
    }
}

fn address<T: ?Sized>(shared: &Rc<T>) -> usize {
    Rc::as_ptr(shared).cast::<u8>() as usize
}

impl Libtorch {
    /// The rows of the windows of `images` images of `tokens` tokens; nothing where a window is an image as it lies.
    pub(crate) fn window_rows(&self, windows: &Windows, images: usize, tokens: usize) -> Option<Rc<Permutation>> {
        if windows.slots.iter().enumerate().all(|(at, slot)| at == *slot as usize) && windows.slots.len() == tokens {
            return None;
        }
        let key = (address(&windows.slots), images);
        if let Some((_, kept)) = self.state.layouts.borrow().windows.get(&key) {
            return Some(Rc::clone(kept));
        }
        let row = |image: usize, slot: u32| ((slot as usize) < tokens).then_some(image * tokens + slot as usize);
        let rows = (0..images).flat_map(|image| windows.slots.iter().map(move |slot| row(image, *slot)));
        let made = Rc::new(self.permutation(&rows.collect::<Vec<_>>(), images * tokens));
        let kept = (Rc::clone(&windows.slots), Rc::clone(&made));
        self.state.layouts.borrow_mut().windows.insert(key, kept);
        Some(made)
    }

    /// Rows to pick of `sources` rows.
    pub(crate) fn permutation(&self, rows: &[Option<usize>], sources: usize) -> Permutation {
        let mut inverse = vec![None; sources];
        for (at, row) in rows.iter().enumerate() {
            if let Some(row) = row {
                assert!(inverse[*row].replace(at).is_none(), "row {row} is picked twice");
            }
        }
        Permutation { rows: self.rows(rows), inverse: self.rows(&inverse) }
    }

    fn rows(&self, rows: &[Option<usize>]) -> Rows {
        let index: Vec<i64> = rows.iter().map(|row| row.unwrap_or(0) as i64).collect();
        let is_padded = rows.iter().any(Option::is_none);
        let padding: Vec<bool> = if is_padded { rows.iter().map(Option::is_none).collect() } else { Vec::new() };
        Rows {
            index: self.upload(&[rows.len() as i64], &index),
            padding: is_padded.then(|| self.upload(&[rows.len() as i64, 1], &padding)),
        }
    }

    /// The row of the bias table for each pair of slots, `[M²]`.
    pub(crate) fn bias_index(&self, index: &Rc<[u32]>) -> Rc<Tensor> {
        if let Some((_, kept)) = self.state.layouts.borrow().bias_indices.get(&address(index)) {
            return Rc::clone(kept);
        }
        let rows: Vec<i64> = index.iter().map(|row| i64::from(*row)).collect();
        let made = Rc::new(self.upload(&[rows.len() as i64], &rows));
        let kept = (Rc::clone(index), Rc::clone(&made));
        self.state.layouts.borrow_mut().bias_indices.insert(address(index), kept);
        made
    }

    /// Cosines and sines of rotary positions, `[2, N, E/2]`.
    pub(crate) fn angles(&self, rotary: &Rotary, tokens: i64) -> Rc<Tensor> {
        if let Some((_, kept)) = self.state.layouts.borrow().angles.get(&address(&rotary.cosines)) {
            return Rc::clone(kept);
        }
        let half = rotary.cosines.len() as i64 / tokens;
        let made = Rc::new(self.upload(&[2, tokens, half], &[&*rotary.cosines, &*rotary.sines].concat()));
        let kept = (Rc::clone(&rotary.cosines), Rc::clone(&made));
        self.state.layouts.borrow_mut().angles.insert(address(&rotary.cosines), kept);
        made
    }

    /// The mask of each window's scores, `[windows, 1, M, M]`; nothing if no window has one.
    pub(crate) fn score_masks(&self, branch: &AttentionBranch) -> Option<Rc<Tensor>> {
        let Windows { tokens, masks, mask_of, .. } = &branch.windows;
        if mask_of.iter().all(Option::is_none) {
            return None;
        }
        if let Some((_, kept)) = self.state.layouts.borrow().masks.get(&address(mask_of)) {
            return Some(Rc::clone(kept));
        }
        let mut values = vec![0.0; mask_of.len() * tokens * tokens];
        for (window, mask) in values.chunks_mut(tokens * tokens).zip(mask_of.iter()) {
            if let Some(mask) = mask {
                window.copy_from_slice(&masks[*mask as usize]);
            }
        }
        let shape = [mask_of.len() as i64, 1, *tokens as i64, *tokens as i64];
        let made = Rc::new(self.upload(&shape, &values).to_kind(Kind::Float));
        let kept = (Rc::clone(mask_of), Rc::clone(&made));
        self.state.layouts.borrow_mut().masks.insert(address(mask_of), kept);
        Some(made)
    }
}
