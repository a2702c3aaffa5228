//! The attention half of a transformer block, in three phases:
//!
//! 1. by rows, from the norm to queries, keys and values, `[R, 3D]`;
//! 2. by heads, from these to the heads' outputs, window by window;
//! 3. by rows again, from the heads' outputs to the residual, `[R, D]`.
//!
//! The backward pass goes through the same phases in reverse order. Rows are all tokens, `R` of them, in the order of windows
//! (`window_order.rs`). If windows have padding, the order is that of tokens, and slots name the rows of each window.
//!
//! Where windows are so small that a chunk of rows holds whole ones, a task goes through all phases with a chunk. Larger windows,
//! those with padding and a few small ones are divided in each phase anew (`division.rs`): tasks by rows store `[R, 3D]` or
//! `[R, D]`, and those by heads `[G, A, R/G, E]` for `G` groups of rows, so that each writes slices of its own. A group is a
//! window, or an image if there is padding.

mod backward;
mod division;
mod forward;
mod head;
mod layout;
mod parameters;
mod saved;
mod scratch;
mod shared;
mod window_order;

pub(crate) use forward::forward;
