//! The MLP half of a block, a chunk of rows at a time from the norm to the residual.

mod backward;
mod forward;
mod shared;

pub(in crate::cpu) use forward::forward;
