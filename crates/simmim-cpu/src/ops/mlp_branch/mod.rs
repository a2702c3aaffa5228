//! The MLP half of a transformer block. A chunk of rows goes from the norm to the residual without leaving the cache.

mod backward;
mod forward;
mod saved;
mod scratch;

pub(crate) use forward::forward;
