//! Tests of the public interface, from files to batches.

// clippy allows `unwrap` in test functions but not in their helpers, and all of this is test code
#![allow(clippy::unwrap_used)]

mod augment;
mod batches;
mod containers;
mod damage;
mod decoding;
mod depth;
mod dicom;
mod duplicates;
mod files;
mod matrix;
#[cfg(feature = "parquet")]
mod parquet;
mod passed_over;
mod pictures;
mod reduced;
mod remote;
mod same_batches;
#[cfg(feature = "remote")]
mod server;
mod shards;
mod sources;
mod tiles;
mod transforms;
