//! Pictures of predictions and of masking strategies.

pub mod mask_comparison;
mod picture;
mod reconstruct;
mod sheet;
mod thumbnail;

pub use picture::Picture;
pub use reconstruct::{MaskSource, PretrainedModel, Reconstruction, describe};
pub(crate) use reconstruct::{prediction_sheet, push_pictures};
pub use sheet::Sheet;
pub(crate) use thumbnail::png_of_bytes;
