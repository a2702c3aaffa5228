//! Pictures of predictions, of masking strategies, of tiles, of images that are like each other and of maps.

mod map;
pub mod mask_comparison;
mod picture;
mod reconstruct;
mod sheet;
mod thumbnail;
mod tiles;

pub(crate) use map::class_color;
pub use map::save_map;
pub use picture::Picture;
pub use reconstruct::{MaskSource, PretrainedModel, Reconstruction, describe};
pub(crate) use reconstruct::{prediction_sheet, push_pictures};
pub use sheet::Sheet;
pub(crate) use thumbnail::{picture_of_bytes, png_of_bytes};
pub(crate) use tiles::with_tiles;
