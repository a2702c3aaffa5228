//! Between the table of position biases `[T, A]` and what each head adds to its scores `[A, M, M]`.

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
