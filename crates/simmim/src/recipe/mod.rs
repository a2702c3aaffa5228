//! Recipes: every value that changes a result, typed, spelled out, and checked before the first step.
//!
//! A recipe is TOML. It may start from another one (`extends = "pretrain-vit-cifar"`) and be edited by
//! `key.path=value` pairs; what was left unsaid or misspelt is an error that names the key.

mod built_in;
mod check;
mod check_target;
mod data;
mod finetune;
mod head;
mod loss;
mod mask;
mod parse;
mod target;
mod tokenizer;
mod train;

pub use built_in::{BUILT_IN, BuiltIn};
pub(crate) use check::{at_least_one, in_order, within, wrong};
pub use data::{DataRecipe, ImageSize, NormalizationKind};
pub use finetune::{
    AugmentRecipe, ClassWeights, DistortionKind, EvaluateRecipe, FinetuneRecipe, InterpolationKind, LabelRecipe,
    LabelsPerImage,
};
pub use head::{HeadKind, HeadRecipe};
pub use loss::{LossKind, LossRecipe, Scope};
pub use mask::{MaskRecipe, MaskStrategyName};
pub(crate) use parse::command_of;
pub use parse::{Sections, nearest_built_in, resolve, resolve_any, resolve_as};
pub use target::{NormalizeBy, TargetKind, TargetRecipe};
pub use tokenizer::{TokenizerRecipe, VaeRecipe};
pub use train::{DecayGroups, ScheduleKind, TrainRecipe};

use crate::encoder::EncoderConfig;
use crate::error::Result;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What the recipes of all commands have in common.
pub trait RecipeKind: Clone + PartialEq + Serialize + DeserializeOwned {
    /// The command that it is for.
    const COMMAND: &'static str;
    /// Its sections.
    const SECTIONS: &'static [&'static str];

    /// The recipe of a table's sections.
    ///
    /// # Errors
    /// If a key is unknown, missing or of the wrong type.
    fn from_sections(sections: &Sections) -> Result<Self>;

    /// Checks the values against each other.
    ///
    /// # Errors
    /// Names the first key whose value does not fit, and what would.
    fn check(&self) -> Result<()>;

    /// Images.
    fn data(&self) -> &DataRecipe;

    /// Optimizer, schedule, and what is written when.
    fn train(&self) -> &TrainRecipe;
}

/// A recipe of any command.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum AnyRecipe {
    /// Of pre-training.
    Pretrain(Recipe),
    /// Of fine-tuning.
    Finetune(FinetuneRecipe),
    /// Of a tokenizer.
    Tokenizer(TokenizerRecipe),
}

impl AnyRecipe {
    /// The encoder's architecture; a tokenizer has none of this kind.
    pub fn encoder(&self) -> Option<&EncoderConfig> {
        match self {
            AnyRecipe::Pretrain(recipe) => Some(&recipe.encoder),
            AnyRecipe::Finetune(recipe) => Some(&recipe.encoder),
            AnyRecipe::Tokenizer(_) => None,
        }
    }

    /// Images.
    pub fn data(&self) -> &DataRecipe {
        match self {
            AnyRecipe::Pretrain(recipe) => &recipe.data,
            AnyRecipe::Finetune(recipe) => &recipe.data,
            AnyRecipe::Tokenizer(recipe) => &recipe.data,
        }
    }
}

/// Everything a pre-training run is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The encoder's architecture.
    pub encoder: EncoderConfig,
    /// Images and their augmentation.
    pub data: DataRecipe,
    /// What is hidden.
    pub mask: MaskRecipe,
    /// The prediction head.
    pub head: HeadRecipe,
    /// What is predicted.
    pub target: TargetRecipe,
    /// How far off a prediction is.
    pub loss: LossRecipe,
    /// Optimizer, schedule, and what is written when.
    pub train: TrainRecipe,
}

impl Recipe {
    /// Side in pixels of the square that a predicted position covers.
    ///
    /// # Panics
    /// If the recipe is not a checked one: the resolution then divides the image.
    pub fn position_px(&self) -> usize {
        let ((height, _), cell_px) = (self.data.image_size.height_and_width(), self.encoder.stride_px());
        match (self.target.kind, self.target.resolution) {
            (TargetKind::MeanColour, _) => cell_px,
            (TargetKind::NormalizedPixels, _) => 1,
            (TargetKind::Pixels | TargetKind::ColourBins | TargetKind::ColourClusters, None) => 1,
            // arXiv:2112.09133
            (TargetKind::Hog, None) if cell_px.is_multiple_of(8) => 8,
            (TargetKind::Hog, None) => cell_px,
            (TargetKind::Tokens, None) => cell_px, // one for each feature, as in BEiT
            (
                TargetKind::Pixels
                | TargetKind::ColourBins
                | TargetKind::ColourClusters
                | TargetKind::Hog
                | TargetKind::Tokens,
                Some(resolution),
            ) => height / resolution.height_and_width().0,
        }
    }

    /// Whether the loss is the mean absolute error of hidden pixels.
    pub fn is_masked_l1(&self) -> bool {
        let LossRecipe { kind, .. } = self.loss;
        let hidden_only = self.loss.weight(false) == 0.0;
        self.target.kind == TargetKind::Pixels && self.position_px() == 1 && kind == LossKind::L1 && hidden_only
    }
}

impl RecipeKind for Recipe {
    const COMMAND: &'static str = "pretrain";
    const SECTIONS: &'static [&'static str] = &["encoder", "data", "mask", "head", "target", "loss", "train"];

    fn from_sections(sections: &Sections) -> Result<Self> {
        Ok(Self {
            encoder: sections.get("encoder")?,
            data: sections.get("data")?,
            mask: sections.get("mask")?,
            head: sections.get("head")?,
            target: sections.get("target")?,
            loss: sections.get("loss")?,
            train: sections.get("train")?,
        })
    }

    fn check(&self) -> Result<()> {
        check::check(self)
    }

    fn data(&self) -> &DataRecipe {
        &self.data
    }

    fn train(&self) -> &TrainRecipe {
        &self.train
    }
}

/// A recipe as TOML, every value spelled out.
///
/// # Panics
/// Never: a recipe consists of tables of plain values.
pub fn to_toml(recipe: &impl Serialize) -> String {
    toml::to_string(recipe).expect("a recipe is TOML")
}
