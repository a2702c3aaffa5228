//! The MLP half of a transformer block. With a GELU, a chunk of rows goes from the norm to the residual without leaving the
//! cache.

mod backward;
mod forward;
mod gated;
mod saved;
mod scratch;

pub(crate) use forward::forward;
