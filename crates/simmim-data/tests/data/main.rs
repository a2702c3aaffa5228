//! The crate from the outside: files in, batches out.

mod batches;
mod decoding;
mod files;
mod sources;
mod transforms;
