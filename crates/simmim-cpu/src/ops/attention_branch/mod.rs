//! The attention half of a transformer block, in three phases:
//!
//! 1. by rows, from the norm to queries, keys and values, `[R, 3D]`;
//! 2. by heads, from these to the heads' outputs, window by window;
//! 3. by rows again, from the heads' outputs to the residual, `[R, D]`.
//!
//! The backward pass goes through the same phases in reverse order. Rows are in the order of windows (`window_order.rs`), `W·M`
//! in all for `W` windows of all images.
//!
//! Where windows are so small that a chunk of rows holds whole ones, a task goes through all phases with a chunk. Larger windows,
//! and a few small ones, are divided in each phase anew (`division.rs`): tasks by rows store `[W·M, 3D]` or `[W·M, D]`, and those
//! by heads `[W, A, M, E]`, so that each writes slices of its own.

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
