//! The bias of attention scores by the positions of two tokens.

use crate::Libtorch;
use simmim_engine::{AttentionBranch, PositionMlp};
use std::rc::Rc;
use tch::Tensor;

/// A bias that was looked up in a table, with what it was looked up by.
pub(crate) struct ExpandedBias {
    table: Tensor,
    index: Rc<[u32]>,
    bias: Tensor,
}

/// SwinV2's bias, computed in f32 as in the official code: offsets `[T, 2]` → `[T, A]`.
pub(crate) fn continuous(b: &Libtorch, offsets: &Tensor, mlp: &PositionMlp) -> Tensor {
    let hidden = offsets.linear(&b.leaf(mlp.fc1_weight), Some(&b.leaf(mlp.fc1_bias))).relu();
    16.0 * hidden.linear(&b.leaf(mlp.fc2_weight), None::<Tensor>).sigmoid()
}

/// Table `[T, A]` → bias `[A, M, M]` for each pair of slots. Blocks that share a table share the result.
pub(crate) fn expand(b: &Libtorch, table: &Tensor, branch: &AttentionBranch) -> Tensor {
    if let Some(kept) = b.state.expanded_bias.borrow().as_ref() {
        // the same memory, which is not used again as long as it is kept here, is the same tensor
        let is_same = kept.table.data_ptr() == table.data_ptr() && kept.table.size() == table.size();
        if is_same && Rc::ptr_eq(&kept.index, &branch.bias_index) {
            return kept.bias.shallow_clone();
        }
    }
    let tokens = branch.windows.tokens as i64;
    let rows = table.index(&[Some(&*b.bias_index(&branch.bias_index))]); // [M², A]
    let bias = rows.view([tokens, tokens, -1]).permute([2, 0, 1]).contiguous(); // [A, M, M]
    let kept =
        ExpandedBias { table: table.shallow_clone(), index: Rc::clone(&branch.bias_index), bias: bias.shallow_clone() };
    b.state.expanded_bias.replace(Some(kept));
    bias
}
