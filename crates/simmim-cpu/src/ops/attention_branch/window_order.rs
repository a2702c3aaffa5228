//! The order of rows within the branch: window by window, where a window's tokens follow each other.
//!
//! Windows and their shifts are a map of indices. There is no rolled or partitioned copy of all tokens: each chunk copies its own
//! rows from their tokens when the branch begins, and to them when it ends. Windows with padding are left in the order of tokens,
//! since products would have to multiply the rows of padding; there the heads pick the rows of their windows.

use super::layout::AttentionSizes;
use crate::threads::split_mut;
use simmim_engine::Windows;
use std::mem::take;
use std::ops::Range;

/// The map from rows to tokens, which is the same for each image.
pub(super) struct WindowOrder {
    /// Tokens of an image, and so its rows.
    tokens: usize,
    /// Values of a row.
    width: usize,
    /// All rows of an image, in order.
    runs: Vec<Run>,
    /// The same in the order of tokens.
    by_token: Vec<Run>,
}

/// Rows that follow each other, as do their tokens.
#[derive(Clone, Copy)]
struct Run {
    row: usize,
    token: usize,
    len: usize,
}

/// The tokens of some rows, to be written.
pub(super) struct RowsMut<'a> {
    /// The first row of each run and its values.
    runs: Vec<(usize, &'a mut [f32])>,
    /// Values of all rows.
    len: usize,
    width: usize,
}

impl WindowOrder {
    /// The order of windows, or that of tokens if windows have padding.
    ///
    /// # Panics
    /// If a token is in no window, or in several.
    pub(super) fn new(windows: &Windows, sizes: &AttentionSizes) -> Self {
        let (tokens, width) = (sizes.tokens, sizes.width);
        let mut runs: Vec<Run> = Vec::new();
        let slots = windows.slots.iter().map(|slot| *slot as usize).filter(|token| *token < tokens);
        for (row, token) in slots.enumerate() {
            match runs.last_mut() {
                Some(run) if run.token + run.len == token => run.len += 1,
                _ => runs.push(Run { row, token, len: 1 }),
            }
        }
        let mut by_token = runs.clone();
        by_token.sort_by_key(|run| run.token);
        let end = by_token.iter().try_fold(0, |end, run| (run.token == end).then_some(end + run.len));
        assert_eq!(end, Some(tokens), "a token is in no window, or in several");
        if sizes.has_padding() {
            runs = vec![Run { row: 0, token: 0, len: tokens }];
            by_token.clone_from(&runs);
        }
        Self { tokens, width, runs, by_token }
    }

    /// Whether every row is the token of the same number.
    fn is_identity(&self) -> bool {
        matches!(self.runs[..], [Run { row: 0, token: 0, len }] if len == self.tokens)
    }

    /// Values of a copy of `rows` rows; none if no copy is needed, because rows are read and written in place.
    pub(super) fn copy_len(&self, rows: usize) -> usize {
        if self.is_identity() { 0 } else { rows * self.width }
    }

    /// The rows of an image that lie within `rows` of the batch, as parts of runs.
    fn runs_within(&self, image: usize, rows: &Range<usize>) -> impl Iterator<Item = Run> {
        let first = rows.start.saturating_sub(image * self.tokens);
        let end = rows.end.saturating_sub(image * self.tokens).min(self.tokens);
        let from = self.runs.partition_point(|run| run.row + run.len <= first);
        self.runs[from..].iter().take_while(move |run| run.row < end).map(move |run| run.within(first..end))
    }

    fn images(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start / self.tokens..rows.end.div_ceil(self.tokens)
    }

    /// The tokens of `rows`, `[R, D]`: a part of `x`, or a copy in `scratch`.
    pub(super) fn read<'a>(&self, x: &'a [f32], rows: &Range<usize>, scratch: &'a mut [f32]) -> &'a [f32] {
        let width = self.width;
        if self.is_identity() {
            return &x[rows.start * width..rows.end * width];
        }
        let out = &mut scratch[..rows.len() * width];
        for image in self.images(rows) {
            for run in self.runs_within(image, rows) {
                let token = image * self.tokens + run.token;
                let row = image * self.tokens + run.row - rows.start;
                out[row * width..(row + run.len) * width].copy_from_slice(&x[token * width..(token + run.len) * width]);
            }
        }
        out
    }

    /// Divides `tokens`, `[B·N, D]`, among the chunks of rows that they are in.
    pub(super) fn split_mut<'a>(&self, mut tokens: &'a mut [f32], chunks: &[Range<usize>]) -> Vec<RowsMut<'a>> {
        let width = self.width;
        if self.is_identity() {
            let whole = split_mut(tokens, chunks, width).into_iter();
            return whole.map(|values| RowsMut { len: values.len(), width, runs: vec![(0, values)] }).collect();
        }
        let empty = |rows: &Range<usize>| RowsMut { runs: Vec::new(), len: rows.len() * width, width };
        let mut parts: Vec<_> = chunks.iter().map(empty).collect();
        for image in 0..tokens.len() / (self.tokens * width).max(1) {
            for run in &self.by_token {
                let (mut first, end) = (image * self.tokens + run.row, image * self.tokens + run.row + run.len);
                while first < end {
                    let chunk = chunks.partition_point(|rows| rows.end <= first);
                    let until = end.min(chunks[chunk].end);
                    let (values, rest) = take(&mut tokens).split_at_mut((until - first) * width);
                    tokens = rest;
                    parts[chunk].runs.push((first - chunks[chunk].start, values));
                    first = until;
                }
            }
        }
        assert!(tokens.is_empty(), "windows leave {} values over", tokens.len());
        parts
    }
}

impl Run {
    /// The part of the run that lies within some rows.
    fn within(self, rows: Range<usize>) -> Run {
        let (row, end) = (self.row.max(rows.start), (self.row + self.len).min(rows.end));
        Run { row, token: self.token + row - self.row, len: end - row }
    }
}

impl RowsMut<'_> {
    /// The tokens, if they are all rows and follow each other.
    fn whole(&mut self) -> Option<&mut [f32]> {
        match &mut self.runs[..] {
            [(0, values)] if values.len() == self.len => Some(values),
            _ => None,
        }
    }

    /// Lets `write` write all rows, `[R, D]`, be it to the tokens themselves or to `scratch`, from where they are copied.
    pub(super) fn write(&mut self, scratch: &mut [f32], write: impl FnOnce(&mut [f32])) {
        if let Some(tokens) = self.whole() {
            return write(tokens);
        }
        let rows = &mut scratch[..self.len];
        write(rows);
        for (row, values) in &mut self.runs {
            values.copy_from_slice(&rows[*row * self.width..][..values.len()]);
        }
    }

    /// Lets `update` change all rows in the same way.
    pub(super) fn update(&mut self, scratch: &mut [f32], update: impl FnOnce(&mut [f32])) {
        if let Some(tokens) = self.whole() {
            return update(tokens);
        }
        let rows = &mut scratch[..self.len];
        for (row, values) in &self.runs {
            rows[*row * self.width..][..values.len()].copy_from_slice(values);
        }
        update(rows);
        for (row, values) in &mut self.runs {
            values.copy_from_slice(&rows[*row * self.width..][..values.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    const WIDTH: usize = 3;

    /// The token of each row, with runs of several tokens, for images of 10 tokens.
    const SLOTS: [u32; 10] = [8, 9, 0, 1, 2, 3, 4, 7, 6, 5];

    /// The order of two windows for images of `tokens` tokens.
    fn order(slots: &[u32], tokens: usize) -> WindowOrder {
        let window_tokens = slots.len() / 2;
        let windows =
            Windows { tokens: window_tokens, slots: slots.into(), masks: Rc::new([]), mask_of: Rc::new([None; 2]) };
        let sizes = AttentionSizes { images: 3, tokens, windows: 2, window_tokens, width: WIDTH, heads: 1 };
        WindowOrder::new(&windows, &sizes)
    }

    /// The token of a row among all images.
    fn token(row: usize) -> usize {
        row / 10 * 10 + SLOTS[row % 10] as usize
    }

    /// Chunks of 30 rows that begin and end within runs, windows and images.
    fn chunks() -> [Range<usize>; 4] {
        [0..6, 6..7, 7..21, 21..30]
    }

    #[test]
    fn rows_are_their_tokens() {
        let order = order(&SLOTS, 10);
        let x: Vec<f32> = (1..=30 * WIDTH).map(|v| v as f32).collect();
        for rows in chunks() {
            let mut copy = vec![f32::NAN; order.copy_len(rows.len())];
            let got = order.read(&x, &rows, &mut copy);
            for (row, got) in rows.clone().zip(got.chunks_exact(WIDTH)) {
                assert_eq!(got, &x[token(row) * WIDTH..][..WIDTH], "row {row} of {rows:?}");
            }
        }
    }

    #[test]
    fn every_token_is_written_once() {
        let order = order(&SLOTS, 10);
        let before: Vec<f32> = (1..=30 * WIDTH).map(|v| v as f32).collect();
        let (mut written, mut updated) = (vec![f32::NAN; before.len()], before.clone());
        let mut scratch = vec![f32::NAN; order.copy_len(30)];
        let write = |first: usize| {
            move |values: &mut [f32]| (0..values.len()).for_each(|i| values[i] = (first * WIDTH + i) as f32)
        };
        for (rows, mut tokens) in chunks().iter().zip(order.split_mut(&mut written, &chunks())) {
            tokens.write(&mut scratch, write(rows.start));
        }
        for (rows, mut tokens) in chunks().iter().zip(order.split_mut(&mut updated, &chunks())) {
            tokens.update(&mut scratch, |values| {
                assert_eq!(values.len(), rows.len() * WIDTH);
                for (row, values) in rows.clone().zip(values.chunks_exact_mut(WIDTH)) {
                    values.iter_mut().for_each(|v| *v += 1000.0 * row as f32);
                }
            });
        }
        for (row, e) in (0..30).flat_map(|row| (0..WIDTH).map(move |e| (row, e))) {
            let at = token(row) * WIDTH + e;
            assert_eq!(written[at], (row * WIDTH + e) as f32);
            assert_eq!(updated[at], before[at] + 1000.0 * row as f32);
        }
    }

    #[test]
    fn windows_with_padding_leave_tokens_in_their_order() {
        assert!(order(&[9, 0, 8, 1, 7, 2, 6, 3, 5, 4], 9).is_identity());
    }

    #[test]
    fn whole_images_are_read_and_written_in_place() {
        let order = order(&[0, 1, 2, 3, 4, 5], 6);
        let mut x: Vec<f32> = (0..12 * WIDTH).map(|v| v as f32).collect();
        assert_eq!(order.copy_len(7), 0);
        assert_eq!(order.read(&x, &(2..9), &mut []), &x[2 * WIDTH..9 * WIDTH]);
        for mut part in order.split_mut(&mut x, &[0..3, 3..12]) {
            part.update(&mut [], |values| values.fill(1.0));
        }
        assert_eq!(x, [1.0; 12 * WIDTH]);
    }

    #[test]
    #[should_panic(expected = "a token is in no window, or in several")]
    fn windows_that_leave_a_token_out_are_refused() {
        order(&[0, 2, 3, 4], 5);
    }

    #[test]
    #[should_panic(expected = "a token is in no window, or in several")]
    fn windows_with_padding_that_have_a_token_twice_are_refused() {
        order(&[0, 1, 1, 2, 3, 9], 5);
    }
}
