//! Evaluation of trained models: classification accuracy, and k-NN and a linear probe on frozen features.

mod accuracy;
mod baseline;
mod classification;
mod effective_rank;
mod feature_cache;
mod features;
mod knn;
mod labels;
mod probe;

pub use accuracy::Accuracy;
pub(crate) use accuracy::percent;
pub use baseline::mean_color_error;
pub use classification::{ClassificationReport, FinetunedModel, classify};
pub use effective_rank::{FeatureSpread, feature_spread};
pub use features::{Extraction, Features, FrozenEncoder, extract};
pub use knn::{Neighbors, knn};
pub(crate) use labels::class_weights;
pub use labels::{checked_classes, relabeled};
pub use probe::{Probe, probe};
