//! Recipes: every setting that changes a result, typed, written out, and checked before the first step.
//!
//! A recipe is TOML. It may start from another one (`extends = "pretrain-vit-cifar"`) and be edited by `key.path=value`
//! pairs. A missing or unknown key is an error that names the key.

mod built_in;
mod check;
mod check_target;
mod data;
mod finetune;
mod head;
mod loss;
mod mask;
mod monitor;
mod parse;
mod suitable;
mod target;
mod tokenizer;
mod train;

pub use built_in::{BUILT_IN, BuiltIn};
pub use data::{DataRecipe, ImageSize, NormalizationKind};
pub use finetune::{
    AugmentRecipe, ClassWeights, DistortionKind, EvaluateRecipe, FinetuneRecipe, InterpolationKind, LabelRecipe,
    LabelsPerImage,
};
pub use head::{HeadKind, HeadRecipe};
pub use loss::{LossKind, LossRecipe, Scope};
pub use mask::{MaskRecipe, MaskStrategyName};
pub use monitor::MonitorRecipe;
pub use parse::{
    Given, PATH_KEYS, Sections, edit, edit_any, nearest_built_in, resolve, resolve_any, resolve_as, split_list,
};
pub(crate) use parse::{KINDS, kind_of, typed_and_checked};
pub use suitable::{Suggestion, suitable};
pub use target::{NormalizeBy, TargetKind, TargetRecipe};
pub use tokenizer::{TokenizerRecipe, VaeRecipe};
pub use train::{DecayGroups, ScheduleKind, Shard, TrainRecipe};

use crate::encoders::EncoderConfig;
use crate::error::Result;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What all kinds of recipes have in common.
pub trait RecipeKind: Clone + PartialEq + Serialize + DeserializeOwned {
    /// The value of its `kind` key: the command it is for.
    const KIND: &'static str;
    /// Its sections.
    const SECTIONS: &'static [&'static str];

    /// Builds the recipe from the sections of a table.
    ///
    /// # Errors
    /// If a key is unknown, missing or of the wrong type.
    fn from_sections(sections: &Sections) -> Result<Self>;

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// If a value does not fit; the error names the first such key and what would fit.
    fn check(&self) -> Result<()>;

    /// Path of the tokenizer whose tokens are the target, if they are.
    fn tokenizer(&self) -> Option<&str> {
        None
    }

    /// Path of the palette whose colors are the target, if it is named.
    fn palette(&self) -> Option<&str> {
        None
    }

    /// Number of colors of the target's palette, if it has one.
    fn palette_colors(&self) -> Option<usize> {
        None
    }

    /// Checks that the files exist that a new run would read.
    ///
    /// # Errors
    /// Names the first key whose file does not exist.
    fn check_files(&self) -> Result<()> {
        Ok(())
    }

    /// Images and their crop.
    fn data(&self) -> &DataRecipe;

    /// Optimizer, schedule, and intervals of logs, checkpoints and evaluations.
    fn train(&self) -> &TrainRecipe;
}

/// A recipe of any kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum AnyRecipe {
    /// Pre-training.
    Pretrain(Recipe),
    /// Fine-tuning.
    Finetune(FinetuneRecipe),
    /// Training of a tokenizer.
    Tokenizer(TokenizerRecipe),
}

impl AnyRecipe {
    /// The encoder's architecture; a tokenizer recipe has none.
    pub fn encoder(&self) -> Option<&EncoderConfig> {
        match self {
            AnyRecipe::Pretrain(recipe) => Some(&recipe.encoder),
            AnyRecipe::Finetune(recipe) => Some(&recipe.encoder),
            AnyRecipe::Tokenizer(_) => None,
        }
    }

    /// Optimizer, schedule and intervals.
    pub fn train(&self) -> &TrainRecipe {
        match self {
            AnyRecipe::Pretrain(recipe) => &recipe.train,
            AnyRecipe::Finetune(recipe) => &recipe.train,
            AnyRecipe::Tokenizer(recipe) => &recipe.train,
        }
    }

    /// Images and their crop.
    pub fn data(&self) -> &DataRecipe {
        match self {
            AnyRecipe::Pretrain(recipe) => &recipe.data,
            AnyRecipe::Finetune(recipe) => &recipe.data,
            AnyRecipe::Tokenizer(recipe) => &recipe.data,
        }
    }
}

/// All settings of a pre-training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The encoder's architecture.
    pub encoder: EncoderConfig,
    /// Images and their augmentation.
    pub data: DataRecipe,
    /// The masking strategy.
    pub mask: MaskRecipe,
    /// The prediction head.
    pub head: HeadRecipe,
    /// The prediction target.
    pub target: TargetRecipe,
    /// The reconstruction loss.
    pub loss: LossRecipe,
    /// Optimizer, schedule, and intervals of logs, checkpoints and evaluations.
    pub train: TrainRecipe,
    /// How the features are evaluated during training; absent: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<MonitorRecipe>,
}

impl Recipe {
    /// Side in pixels of a sub-patch: the square that one prediction is for.
    ///
    /// # Panics
    /// If the recipe was not checked and its target resolution is 0.
    pub fn sub_patch_px(&self) -> usize {
        let ((height, _), stride_px) = (self.data.image_size.height_and_width(), self.encoder.stride_px());
        match (self.target.kind, self.target.resolution) {
            (TargetKind::MeanColor, _) => stride_px,
            (TargetKind::NormalizedPixels, _) => 1,
            (TargetKind::Pixels | TargetKind::ColorBins | TargetKind::ColorClusters, None) => 1,
            // MaskFeat (arXiv:2112.09133) computes HOG over cells of 8 px
            (TargetKind::Hog, None) if stride_px.is_multiple_of(8) => 8,
            (TargetKind::Hog, None) => stride_px,
            (TargetKind::Tokens, None) => stride_px, // one token per feature, as in BEiT
            (
                TargetKind::Pixels
                | TargetKind::ColorBins
                | TargetKind::ColorClusters
                | TargetKind::Hog
                | TargetKind::Tokens,
                Some(resolution),
            ) => height / resolution.height_and_width().0,
        }
    }

    /// Whether the loss is the L1 loss of the paper: the mean absolute error of hidden pixels.
    pub fn is_masked_l1(&self) -> bool {
        let LossRecipe { kind, .. } = self.loss;
        let hidden_only = self.loss.weight(false) == 0.0;
        self.target.kind == TargetKind::Pixels && self.sub_patch_px() == 1 && kind == LossKind::L1 && hidden_only
    }
}

impl RecipeKind for Recipe {
    const KIND: &'static str = "pretrain";
    const SECTIONS: &'static [&'static str] =
        &["encoder", "data", "mask", "head", "target", "loss", "train", "monitor"];

    fn from_sections(sections: &Sections) -> Result<Self> {
        Ok(Self {
            encoder: sections.encoder()?,
            data: sections.get("data")?,
            mask: sections.get("mask")?,
            head: sections.get("head")?,
            target: sections.get("target")?,
            loss: sections.get("loss")?,
            train: sections.get("train")?,
            monitor: sections.optional("monitor")?,
        })
    }

    fn check(&self) -> Result<()> {
        check::check(self)
    }

    fn tokenizer(&self) -> Option<&str> {
        self.target.tokenizer.as_deref()
    }

    fn palette(&self) -> Option<&str> {
        self.target.palette.as_deref()
    }

    fn palette_colors(&self) -> Option<usize> {
        (self.target.kind == TargetKind::ColorClusters).then_some(self.target.clusters)
    }

    fn check_files(&self) -> Result<()> {
        check_target::check_files(&self.target)
    }

    fn data(&self) -> &DataRecipe {
        &self.data
    }

    fn train(&self) -> &TrainRecipe {
        &self.train
    }
}

/// A recipe as a TOML table, with every value written out.
///
/// # Panics
/// Never: a recipe consists of tables of plain values.
pub(crate) fn to_table<R: RecipeKind>(recipe: &R) -> toml::Table {
    let mut table = toml::Table::try_from(recipe).expect("a recipe is TOML");
    table.insert("kind".into(), R::KIND.into());
    table
}

impl AnyRecipe {
    /// The recipe as TOML, with every value written out.
    ///
    /// # Panics
    /// Never: a table is TOML.
    pub fn to_toml(&self) -> String {
        let table = match self {
            AnyRecipe::Pretrain(recipe) => to_table(recipe),
            AnyRecipe::Finetune(recipe) => to_table(recipe),
            AnyRecipe::Tokenizer(recipe) => to_table(recipe),
        };
        toml::to_string(&table).expect("a table is TOML")
    }
}
