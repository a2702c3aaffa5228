//! Features that are not needed, and what need not be computed for them.
//!
//! A token's output of the last block depends on other tokens only by that block's attention. So where only some features are
//! needed, its MLP and what follows are computed for them alone: in SimMIM's pre-training, for the hidden ones. Results and
//! gradients are the same, since the others would get no gradient.

use simmim_engine::{MlpBranch, Operations};

/// The features of an encoder that are needed.
#[derive(Clone, Copy, Debug)]
pub enum NeededFeatures<'a> {
    /// All features.
    All,
    /// Those in these rows of `[B·h·w, D']`, or of `[B·V, D']` for `V` visible tokens, each at most once.
    Rows(&'a [u32]),
}

/// The MLP branch of the tokens in `rows`, which are rows of `[B·N, D]`, each at most once.
///
/// # Shapes
/// `[B, N, D]` → `[R, 1, D]`.
pub(super) fn mlp_branch_of_rows<B: Operations>(
    b: &B,
    x: &B::Tensor,
    rows: &[u32],
    branch: &MlpBranch,
    drop_path_scale: Option<&[f32]>,
) -> B::Tensor {
    let [_, tokens, width] = b.shape(x)[..] else { panic!("tokens are [B, N, D]") };
    // each row counts as an image of one token, since images may have different numbers of them
    let x = b.reshape(&b.gather_rows(x, rows), &[rows.len(), 1, width]);
    let of_rows = |of_images: &[f32]| rows.iter().map(|row| of_images[*row as usize / tokens]).collect::<Vec<_>>();
    b.mlp_branch(&x, branch, drop_path_scale.map(of_rows).as_deref())
}
