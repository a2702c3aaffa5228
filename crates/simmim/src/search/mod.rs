//! What features of a collection are good for without a label: images like a given one, images that are there nearly
//! twice, and a map of all of them.

mod duplicates;
mod map;
mod neighbors;
mod principal;
mod rows;
mod stored;
mod tables;

pub use duplicates::{SimilarGroup, pairs, similar_groups};
pub use map::{LEAST_FOR_TSNE, MapMethod, MapOptions, coordinates};
pub use neighbors::{Nearest, Queries, nearest};
pub use rows::{FeatureRows, RowNames};
pub use tables::Table;
