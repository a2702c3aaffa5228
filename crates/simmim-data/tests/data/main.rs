//! The crate from the outside: files in, batches out.

// all of this is test code, but clippy knows test functions only, not their helpers
#![allow(clippy::unwrap_used)]

mod augment;
mod batches;
mod decoding;
mod files;
mod sources;
mod transforms;
