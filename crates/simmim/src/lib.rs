//! Self-supervised pre-training of vision transformers by masked image modeling.
//!
//! SimMIM (arXiv:2111.09886) hides patch-aligned units of an image, replaces their tokens with a learned mask token,
//! and regresses the raw pixels of the hidden units with a light prediction head. This crate implements the method and
//! the training around it. Each design choice of the paper is one section of a recipe and one module:
//!
//! | choice | recipe key | module |
//! | --- | --- | --- |
//! | what is hidden | `mask.strategy` | [`masks`] |
//! | how images become features | `encoder.kind` | [`encoders`] |
//! | how features become predictions | `head.kind` | [`heads`] |
//! | what is predicted | `target.kind` | [`targets`] |
//!
//! [`recipe`] holds their values, [`model`] assembles the model from them, and [`train`] trains it.

#![forbid(unsafe_code)]

pub mod bench;
pub mod classifier;
mod decimals;
pub mod demo;
pub mod encoders;
pub mod error;
pub mod evaluation;
pub mod heads;
pub mod inspect;
pub mod masks;
mod memory;
pub mod model;
pub mod pictures;
pub mod precision;
mod ranges;
pub mod recipe;
pub mod report;
pub mod run;
pub mod search;
pub mod targets;
#[cfg(test)]
mod testing;
pub mod tokenizer;
pub mod train;
mod version;
pub mod weights;

pub use error::{Error, Result};
