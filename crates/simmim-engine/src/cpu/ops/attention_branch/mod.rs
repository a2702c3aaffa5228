//! The attention half of a block, in three phases: rows from the norm to queries, keys and values; then
//! each head of each image, window by window; then rows from the heads' outputs to the residual. The
//! backward pass goes through the same phases in reverse.
//!
//! What one phase writes, the next one reads in another order: rows `[B·N, 3D]` become heads
//! `[B, A, N, E]`, so that each task writes slices of its own.

mod backward;
mod forward;
mod shared;

pub(in crate::cpu) use forward::forward;
