//! The arguments of commands that compare the features of a whole collection.

use super::Workers;
use crate::paths;
use clap::{Args, ValueEnum};
use simmim::evaluation::{FeatureKind, FeatureTokens};
use simmim::search::MapMethod;
use std::path::PathBuf;

/// Features of a collection of images, computed or read.
#[derive(Args)]
pub(crate) struct CollectionArgs {
    /// A run folder, a checkpoint folder, a weights file (also of timm, transformers or torch), a folder as
    /// transformers writes it, or `scratch` for an untrained encoder.
    #[arg(long, value_name = "RUN|FILE|scratch", required_unless_present = "features", value_parser = paths::name)]
    pub(crate) from: Option<String>,
    /// Images: a folder, a .csv, .tar, .zip, .parquet or IDX file; globs, {00..04} and a,b are expanded.
    #[arg(long, value_name = "DATA", required_unless_present = "features", value_parser = paths::data)]
    pub(crate) data: Option<String>,
    /// Takes the features that `simmim embed` wrote, instead of computing them; --data is then needed for pictures only.
    #[arg(long, value_name = "F.npy|F.parquet", value_parser = paths::path())]
    pub(crate) features: Option<PathBuf>,
    /// Which tokens the features are made of.
    #[arg(long, value_enum, default_value_t = Tokens::Mean, requires = "from")]
    pub(crate) tokens: Tokens,
    /// Block whose output is used, from 1; by default the output of the encoder.
    #[arg(long, visible_alias = "layer", value_name = "BLOCK", requires = "from")]
    pub(crate) block: Option<usize>,
    /// Recipe of the encoder, if the weights do not contain it.
    #[arg(long, value_name = "NAME|FILE", requires = "from", value_parser = paths::name)]
    pub(crate) recipe: Option<String>,
    #[command(flatten)]
    pub(crate) workers: Workers,
}

impl CollectionArgs {
    /// What is computed of each image.
    pub(crate) fn kind(&self) -> FeatureKind {
        let tokens = match self.tokens {
            Tokens::Class => FeatureTokens::Class,
            Tokens::Mean => FeatureTokens::Mean,
        };
        FeatureKind { tokens, block: self.block }
    }
}

/// Which tokens the features of an image are made of.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Tokens {
    /// The class token.
    Class,
    /// The mean of the patch tokens, as knn and probe use it.
    Mean,
}

#[derive(Args)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    pub(crate) collection: CollectionArgs,
    /// Number of neighbors of each image.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10000))]
    pub(crate) k: u32,
    /// Instead of neighbors, finds the groups of images with at least this similarity, above 0, at most 1.
    #[arg(long, value_name = "SIMILARITY", conflicts_with_all = ["k", "images"], value_parser = similarity)]
    pub(crate) duplicates: Option<f32>,
    /// Files to write: a page, a contact sheet, a table of all results; may be given for each.
    #[arg(long, value_name = "F.html|F.png|F.csv", value_parser = paths::path())]
    pub(crate) out: Vec<PathBuf>,
    /// Images whose neighbors to find, by default every image of the collection.
    #[arg(value_name = "IMAGE", value_parser = paths::path())]
    pub(crate) images: Vec<PathBuf>,
}

/// Parses a similarity above 0 and at most 1.
fn similarity(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(similarity) if similarity > 0.0 && similarity <= 1.0 => Ok(similarity),
        Ok(_) | Err(_) => Err("expected a number above 0 and at most 1, for example 0.97".into()),
    }
}

#[derive(Args)]
pub(crate) struct MapArgs {
    #[command(flatten)]
    pub(crate) collection: CollectionArgs,
    /// Files to write: a page with pictures, a picture of the points, a table of their places; may be given for each.
    #[arg(long, value_name = "F.html|F.png|F.csv", required = true, value_parser = paths::path())]
    pub(crate) out: Vec<PathBuf>,
    /// How places are found.
    #[arg(long, value_enum, default_value_t = Method::Tsne)]
    pub(crate) method: Method,
    /// About how many neighbors of an image t-SNE keeps near it, from 2 to 200.
    #[arg(long, value_name = "N", default_value_t = 30.0, value_parser = perplexity)]
    pub(crate) perplexity: f32,
}

/// Parses a perplexity from 2 to 200.
fn perplexity(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(perplexity) if (2.0..=200.0).contains(&perplexity) => Ok(perplexity),
        Ok(_) | Err(_) => Err("expected a number from 2 to 200".into()),
    }
}

/// How the places of a map are found.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Method {
    /// t-SNE: what is alike lies near each other.
    Tsne,
    /// The two principal components.
    Pca,
}

impl From<Method> for MapMethod {
    fn from(method: Method) -> Self {
        match method {
            Method::Tsne => MapMethod::Tsne,
            Method::Pca => MapMethod::Principal,
        }
    }
}
