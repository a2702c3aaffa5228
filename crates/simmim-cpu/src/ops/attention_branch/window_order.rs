//! The order of rows within the branch: window by window, where a window's tokens follow each other.
//!
//! Windows and their shifts are a map of indices. There is no rolled or partitioned copy of all tokens: each chunk copies its own
//! rows from their tokens when the branch begins, and to them when it ends. A row whose slot is no token of the image is padding.
//! It is zero when it is read, and written nowhere; products and what is saved have it like any other row.

use crate::threads::split_mut;
use simmim_engine::Windows;
use simmim_kernels::dtype::Dtype;
use std::mem::take;
use std::ops::Range;

/// The map from rows to tokens, which is the same for each image.
pub(super) struct WindowOrder {
    /// Tokens of an image.
    tokens: usize,
    /// Rows of an image.
    rows: usize,
    /// Values of a row.
    width: usize,
    /// All rows but those of padding, in order.
    runs: Vec<Run>,
    /// The same in the order of tokens.
    by_token: Vec<Run>,
    /// The rows of padding.
    padding: Vec<Range<usize>>,
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
    /// Values of all rows, with padding.
    len: usize,
    width: usize,
}

impl WindowOrder {
    /// The order for images of `tokens` tokens, each of `width` values.
    pub(super) fn new(windows: &Windows, tokens: usize, width: usize) -> Self {
        let (mut runs, mut padding): (Vec<Run>, Vec<Range<usize>>) = (Vec::new(), Vec::new());
        for (row, slot) in windows.slots.iter().enumerate() {
            let token = *slot as usize;
            match (runs.last_mut(), padding.last_mut()) {
                (_, Some(last)) if token >= tokens && last.end == row => last.end += 1,
                _ if token >= tokens => padding.push(row..row + 1),
                (Some(run), _) if (run.row + run.len, run.token + run.len) == (row, token) => run.len += 1,
                _ => runs.push(Run { row, token, len: 1 }),
            }
        }
        let mut by_token = runs.clone();
        by_token.sort_by_key(|run| run.token);
        Self { tokens, rows: windows.slots.len(), width, runs, by_token, padding }
    }

    /// Whether every row is the token of the same number.
    fn is_identity(&self) -> bool {
        matches!(self.runs[..], [Run { row: 0, token: 0, len }] if len == self.rows && len == self.tokens)
    }

    /// Values of a copy of `rows` rows; none if no copy is needed, because rows are read and written in place.
    pub(super) fn copy_len(&self, rows: usize) -> usize {
        if self.is_identity() { 0 } else { rows * self.width }
    }

    /// The rows of an image that lie within `rows` of the batch, as parts of runs.
    fn runs_within(&self, image: usize, rows: &Range<usize>) -> impl Iterator<Item = Run> {
        let first = rows.start.saturating_sub(image * self.rows);
        let end = rows.end.saturating_sub(image * self.rows).min(self.rows);
        let from = self.runs.partition_point(|run| run.row + run.len <= first);
        self.runs[from..].iter().take_while(move |run| run.row < end).map(move |run| run.within(first..end))
    }

    fn images(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start / self.rows..rows.end.div_ceil(self.rows)
    }

    /// Sets the rows of padding among `rows` to zero. Stored rows are `stride` values apart.
    pub(super) fn clear_padding<T: Dtype>(&self, rows: &Range<usize>, stride: usize, values: &mut [T]) {
        for image in self.images(rows) {
            for padding in &self.padding {
                let first = (image * self.rows + padding.start).max(rows.start);
                let end = (image * self.rows + padding.end).min(rows.end);
                if first < end {
                    values[(first - rows.start) * stride..(end - rows.start) * stride].fill(T::default());
                }
            }
        }
    }

    /// The tokens of `rows`, `[R, D]`: a part of `x`, or a copy in `scratch`.
    pub(super) fn read<'a>(&self, x: &'a [f32], rows: &Range<usize>, scratch: &'a mut [f32]) -> &'a [f32] {
        let width = self.width;
        if self.is_identity() {
            return &x[rows.start * width..rows.end * width];
        }
        let out = &mut scratch[..rows.len() * width];
        self.clear_padding(rows, width, out);
        for image in self.images(rows) {
            for run in self.runs_within(image, rows) {
                let token = image * self.tokens + run.token;
                let row = image * self.rows + run.row - rows.start;
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
            let mut next = 0;
            for run in &self.by_token {
                assert_eq!(run.token, next, "a token is in no window, or in several");
                next += run.len;
                let (mut first, end) = (image * self.rows + run.row, image * self.rows + run.row + run.len);
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

    /// Lets `update` change all rows in the same way. Those of padding are zero before.
    pub(super) fn update(&mut self, scratch: &mut [f32], update: impl FnOnce(&mut [f32])) {
        if let Some(tokens) = self.whole() {
            return update(tokens);
        }
        let rows = &mut scratch[..self.len];
        if self.runs.iter().map(|(_, values)| values.len()).sum::<usize>() < self.len {
            rows.fill(0.0);
        }
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

    /// Shifted windows with runs of several tokens, padding at an end and within, for images of 10 tokens.
    fn windows() -> Windows {
        let slots = Rc::new([8, 9, 0, 1, 10, 2, 3, 4, 7, 10, 6, 5]);
        Windows { tokens: 4, slots, masks: Rc::new([]), mask_of: Rc::new([None; 3]) }
    }

    /// The token of a row among all images, unless it is padding.
    fn token(row: usize) -> Option<usize> {
        let windows = windows();
        let slot = windows.slots[row % 12] as usize;
        (slot < 10).then_some(row / 12 * 10 + slot)
    }

    /// Chunks of 36 rows that begin and end within runs, windows and images.
    fn chunks() -> [Range<usize>; 4] {
        [0..7, 7..8, 8..25, 25..36]
    }

    #[test]
    fn rows_are_their_tokens_and_padding_is_zero() {
        let order = WindowOrder::new(&windows(), 10, WIDTH);
        let x: Vec<f32> = (1..=30 * WIDTH).map(|v| v as f32).collect();
        for rows in chunks() {
            let mut copy = vec![f32::NAN; order.copy_len(rows.len())];
            let got = order.read(&x, &rows, &mut copy);
            for (row, got) in rows.clone().zip(got.chunks_exact(WIDTH)) {
                let expected = token(row).map_or([0.0; WIDTH], |t| x[t * WIDTH..][..WIDTH].try_into().unwrap());
                assert_eq!(got, expected, "row {row} of {rows:?}");
            }
        }
    }

    #[test]
    fn every_token_is_written_once_and_padding_nowhere() {
        let order = WindowOrder::new(&windows(), 10, WIDTH);
        let before: Vec<f32> = (1..=30 * WIDTH).map(|v| v as f32).collect();
        let (mut written, mut updated) = (vec![f32::NAN; before.len()], before.clone());
        let mut scratch = vec![f32::NAN; order.copy_len(36)];
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
                    assert!(token(row).is_some() || *values == [0.0; WIDTH], "padding is zero");
                    values.iter_mut().for_each(|v| *v += 1000.0 * row as f32);
                }
            });
        }
        for row in 0..36 {
            for (e, t) in token(row).into_iter().flat_map(|t| (0..WIDTH).map(move |e| (e, t))) {
                assert_eq!(written[t * WIDTH + e], (row * WIDTH + e) as f32);
                assert_eq!(updated[t * WIDTH + e], before[t * WIDTH + e] + 1000.0 * row as f32);
            }
        }
    }

    #[test]
    fn whole_images_are_read_and_written_in_place() {
        let order = WindowOrder::new(&Windows::whole_image(5), 5, WIDTH);
        let mut x: Vec<f32> = (0..10 * WIDTH).map(|v| v as f32).collect();
        assert_eq!(order.copy_len(7), 0);
        assert_eq!(order.read(&x, &(2..9), &mut []), &x[2 * WIDTH..9 * WIDTH]);
        for mut part in order.split_mut(&mut x, &[0..3, 3..10]) {
            part.update(&mut [], |values| values.fill(1.0));
        }
        assert_eq!(x, [1.0; 10 * WIDTH]);
    }

    #[test]
    #[should_panic(expected = "a token is in no window, or in several")]
    fn windows_that_leave_a_token_out_are_refused() {
        let windows = Windows { slots: Rc::new([0, 2]), ..Windows::whole_image(2) };
        WindowOrder::new(&windows, 3, WIDTH).split_mut(&mut [0.0; 3 * WIDTH], &[0..1, 1..2]);
    }
}
