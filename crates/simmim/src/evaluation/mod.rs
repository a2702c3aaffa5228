//! Evaluation of trained models: classification accuracy, and k-NN and a linear probe on frozen features, which
//! `embed` writes for other programs.

mod accuracy;
mod baseline;
mod classification;
mod collected;
mod confusion;
mod cosines;
mod effective_rank;
mod embedding;
mod feature_cache;
mod features;
mod in_memory;
mod knn;
mod labels;
mod probe;
mod ranks;
mod shares;
mod stream;

pub use accuracy::Accuracy;
pub use baseline::mean_color_error;
pub(crate) use classification::classify_unless_stopped;
pub use classification::{ClassificationReport, FinetunedModel, classify};
pub use collected::CollectedFeatures;
pub use confusion::{ClassAccuracy, Confusion};
pub(crate) use cosines::{CosineBank, scale_to_unit};
pub use effective_rank::{FeatureSpread, feature_spread};
pub use embedding::{Embedded, EmbeddedFiles, Embedding, EmbeddingEvent, embed, embed_on_ranks};
pub(crate) use features::extract_unless_stopped;
pub use features::{Extraction, Features, FrozenEncoder, extract};
pub use in_memory::Embeddings;
pub use knn::{Neighbors, knn, knn_on_ranks};
pub(crate) use labels::class_weights;
pub use labels::{checked_classes, relabeled};
pub use probe::{Probe, ProbedRate, best_rate, probe};
pub use ranks::{NotFinite, Place, average_precision};
pub use stream::{FeatureKind, FeatureTokens};
