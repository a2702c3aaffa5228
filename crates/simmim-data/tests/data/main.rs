//! Tests of the public interface, from files to batches.

// clippy allows `unwrap` in test functions but not in their helpers, and all of this is test code
#![allow(clippy::unwrap_used)]

mod augment;
mod batches;
mod decoding;
mod files;
mod matrix;
mod passed_over;
mod pictures;
mod sources;
mod transforms;
