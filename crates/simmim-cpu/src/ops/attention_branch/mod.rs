//! The attention half of a transformer block, in three phases:
//!
//! 1. by chunks of rows, from the norm to queries, keys and values;
//! 2. by heads of images, from these to the heads' outputs, window by window;
//! 3. by chunks of rows again, from the heads' outputs to the residual.
//!
//! The backward pass goes through the same phases in reverse order. Phases that go by rows store `[B·N, 3D]` or `[B·N,
//! D]`, and those that go by heads `[B, A, N, E]`, so that each task writes slices of its own. Each phase reads what
//! the one before it wrote, and so in another order.

mod backward;
mod forward;
mod layout;
mod parameters;
mod saved;
mod scratch;

pub(crate) use forward::forward;
