//! Self-supervised pre-training of vision transformers by masked image modelling.
//!
//! SimMIM (arXiv:2111.09886) is three decisions: hide patch-aligned units of an image, replace their
//! tokens by a learnt one, and regress the hidden raw pixels with a light head. This crate is the
//! method and what surrounds it, one seam per decision:
//!
//! | seam | chosen by | module |
//! | --- | --- | --- |
//! | what is hidden | `mask.strategy` | [`mask`] |
//! | how images become features | `encoder.kind` | [`encoder`] |
//! | how features become predictions | `head.kind` | [`head`] |
//! | what is predicted | `target.kind` | [`target`] |
//!
//! [`recipe`] holds their values, [`model`] puts them together, [`train`] runs them.

#![forbid(unsafe_code)]

pub mod accuracy;
pub mod baseline;
pub mod bench;
pub mod build;
pub mod checkpoint;
pub mod classifier;
pub mod demo;
pub mod encoder;
pub mod error;
pub mod evaluation;
pub mod events;
pub mod features;
mod files;
pub mod found;
pub mod head;
pub mod inspect;
pub mod knn;
pub mod labels;
pub mod mask;
pub mod mask_comparison;
pub mod model;
pub mod picture;
pub mod precision;
pub mod probe;
pub mod recipe;
pub mod reconstruct;
pub mod report;
pub mod run;
pub mod target;
pub mod tokenizer;
pub mod train;
pub mod transfer;
pub mod weights;

pub use error::{Error, Result};
