//! Recipes: every value that changes a result, typed, spelled out, and checked before the first step.
//!
//! A recipe is TOML. It may start from another one (`extends = "pretrain-vit-cifar"`) and be edited by
//! `key.path=value` pairs; what was left unsaid or misspelt is an error that names the key.

mod built_in;
mod check;
mod check_target;
mod finetune;
mod parse;
mod tokenizer;

pub use built_in::{BUILT_IN, BuiltIn};
pub(crate) use check::{at_least_one, in_order, within, wrong};
pub use finetune::{
    AugmentRecipe, ClassWeights, DistortionKind, EvaluateRecipe, FinetuneRecipe, InterpolationKind, LabelRecipe,
    LabelsPerImage,
};
pub(crate) use parse::command_of;
pub use parse::{Sections, nearest_built_in, resolve, resolve_any, resolve_as};
pub use tokenizer::{TokenizerRecipe, VaeRecipe};

use crate::encoder::EncoderConfig;
use crate::error::Result;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use simmim_engine::Distance;

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

/// Images and their augmentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Side of the square input, or `[height, width]`, in pixels.
    pub image_size: ImageSize,
    /// Channels: 1 grey, 3 colour, 4 with alpha, any number from arrays.
    pub channels: usize,
    /// Mean and deviation that pixels are normalised with.
    pub normalization: NormalizationKind,
    /// Area of the random crop as a share of the image, `[low, high]`.
    pub crop_scale: (f64, f64),
    /// Aspect ratio (width / height) of the random crop, `[low, high]`.
    pub crop_ratio: (f64, f64),
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Share of unreadable images above which a run stops.
    pub max_skipped: f64,
}

/// Input size: `192` or `[192, 256]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ImageSize {
    /// A square.
    Square(usize),
    /// Height and width.
    HeightWidth(usize, usize),
}

impl ImageSize {
    /// Height and width in pixels.
    pub fn height_and_width(self) -> (usize, usize) {
        match self {
            ImageSize::Square(side) => (side, side),
            ImageSize::HeightWidth(height, width) => (height, width),
        }
    }
}

/// Where mean and deviation come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormalizationKind {
    /// The statistics of ImageNet; three channels only.
    Imagenet,
    /// Measured on the training images before the first step.
    Measured,
    /// Not at all: values stay as they are, 0–1 of images of 8 and 16 bits.
    None,
}

/// What is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskRecipe {
    /// How hidden units are chosen.
    pub strategy: MaskStrategyName,
    /// Side of a mask unit in pixels; a multiple of the patch side that divides the image.
    pub unit_px: usize,
    /// Share of units to hide.
    pub ratio: f64,
    /// Units of the smallest block of `blockwise`; BEiT's 16 if left unsaid.
    #[serde(default = "defaults::min_block_units")]
    pub min_block_units: usize,
    /// Height over width of the blocks of `blockwise`, `[low, high]`; BEiT's if left unsaid.
    #[serde(default = "defaults::aspect")]
    pub aspect: (f64, f64),
}

/// How hidden units are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskStrategyName {
    /// Uniformly.
    Random,
    /// As one square block at a random place.
    Square,
    /// As blocks of random area and aspect.
    Blockwise,
}

impl MaskStrategyName {
    /// Every strategy.
    pub const ALL: [Self; 3] = [Self::Random, Self::Square, Self::Blockwise];

    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Square => "square",
            Self::Blockwise => "blockwise",
        }
    }
}

/// The prediction head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadRecipe {
    /// Its architecture.
    pub kind: HeadKind,
    /// Width of the finest stage of an inverse Swin; absent: the one it is named after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
}

/// Architecture of the prediction head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadKind {
    /// One linear layer.
    Linear,
    /// Two layers with a GELU between them.
    Mlp,
    /// Swin-T from its last stage to its first.
    InverseSwinT,
    /// Swin-B from its last stage to its first.
    InverseSwinB,
}

impl HeadKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Linear, Self::Mlp, Self::InverseSwinT, Self::InverseSwinB];

    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Mlp => "mlp",
            Self::InverseSwinT => "inverse-swin-t",
            Self::InverseSwinB => "inverse-swin-b",
        }
    }
}

/// What is predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRecipe {
    /// What it is.
    pub kind: TargetKind,
    /// Positions along the image's side that are predicted, each the mean of its pixels; absent: every
    /// pixel. Of `hog`, histograms along the side; absent: of 8 px, or one per feature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<ImageSize>,
    /// What `normalized-pixels` takes mean and deviation over.
    #[serde(default)]
    pub normalize: NormalizeBy,
    /// Side of that window; odd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_px: Option<usize>,
    /// Bins of a channel of `colour-bins`.
    #[serde(default = "defaults::bins")]
    pub bins: usize,
    /// Colours of `colour-clusters`.
    #[serde(default = "defaults::clusters")]
    pub clusters: usize,
    /// The file that these colours are in; absent: they are found in the training images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub palette: Option<String>,
    /// Weights file or run folder of the discrete VAE whose `tokens` are predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

impl TargetRecipe {
    /// A target of this kind, everything else as if left unsaid.
    pub fn of(kind: TargetKind) -> Self {
        Self {
            kind,
            resolution: None,
            normalize: NormalizeBy::Window,
            window_px: None,
            bins: defaults::bins(),
            clusters: defaults::clusters(),
            palette: None,
            tokenizer: None,
        }
    }
}

/// Kind of prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// Pixels, normalised as the input is.
    Pixels,
    /// Pixels at full resolution, normalised once more by what is around them.
    NormalizedPixels,
    /// Which bin of brightness each channel lies in.
    ColourBins,
    /// Which colour of a palette is nearest.
    ColourClusters,
    /// The mean colour of a feature's cell in three bits a channel.
    MeanColour,
    /// Histograms of oriented gradients.
    Hog,
    /// Which word of a discrete VAE's vocabulary each square is.
    Tokens,
}

/// What pixels are normalised by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormalizeBy {
    /// The window around each, channel by channel: SwinV2.
    #[default]
    Window,
    /// The cell that a feature predicts, all channels together: MAE.
    Patch,
}

/// How far off a prediction is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossRecipe {
    /// Distance of one value; classes take cross-entropy whatever is said here.
    pub kind: LossKind,
    /// Which pixels count.
    pub scope: Scope,
    /// Weight of a visible pixel, 0 to 1, in place of the scope's 0 or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_weight: Option<f32>,
}

impl LossRecipe {
    /// Weight of a pixel.
    pub fn weight(&self, is_hidden: bool) -> f32 {
        match (is_hidden, self.scope) {
            (true, Scope::Hidden | Scope::All) => 1.0,
            (false, Scope::Hidden) => self.visible_weight.unwrap_or(0.0),
            (false, Scope::All) => self.visible_weight.unwrap_or(1.0),
        }
    }

    /// The distance; smooth L1 bends at 1, as PyTorch's default.
    pub fn distance(&self) -> Distance {
        match self.kind {
            LossKind::L1 => Distance::L1,
            LossKind::L2 => Distance::L2,
            LossKind::SmoothL1 => Distance::SmoothL1 { beta: 1.0 },
        }
    }
}

/// Distance of a predicted and a true value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Absolute difference.
    L1,
    /// Squared difference.
    L2,
    /// Squared below 1, absolute above.
    SmoothL1,
}

/// Which pixels count in the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Hidden pixels only.
    Hidden,
    /// The whole image.
    All,
}

/// Optimizer, schedule, and what is written when. Durations carry their unit in the name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Passes over the images.
    pub epochs: f64,
    /// Length of the run in updates instead; the whole schedule is stretched or squeezed to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_updates: Option<u64>,
    /// Images per update.
    pub batch_size: usize,
    /// Parts an update's batch is computed in, to save memory; the result is that of the whole batch.
    pub accumulation_steps: usize,
    /// Whether the activations within a block are computed again in the backward pass rather than kept: a
    /// fraction of the memory for about a third more time, and the same result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recompute_blocks: bool,
    /// Peak learning rate for 512 images per update; scaled in proportion to the batch.
    pub base_lr: f64,
    /// Learning rate of the first update, scaled likewise.
    pub warmup_lr: f64,
    /// Learning rate that the cosine ends at, scaled likewise.
    pub min_lr: f64,
    /// Duration of the warm-up; at most half of the run.
    pub warmup_epochs: f64,
    /// Shape of the learning rate behind the warm-up.
    pub schedule: ScheduleKind,
    /// Epochs after which `multistep` multiplies the rate by `decay_factor`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub milestones_epochs: Vec<f64>,
    /// Epochs after which `step` multiplies the rate by `decay_factor`, again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_every_epochs: Option<f64>,
    /// Factor of `step` and `multistep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_factor: Option<f64>,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Which parameters decay.
    pub decay_groups: DecayGroups,
    /// Factor on the learning rate from each layer to the one below it; 1 for none.
    #[serde(default = "defaults::one", skip_serializing_if = "defaults::is_one")]
    pub layer_decay: f64,
    /// How much of the running mean of the weights, which held-out images are then looked at with, an update
    /// keeps; 0 for no such mean.
    #[serde(default, skip_serializing_if = "defaults::is_zero")]
    pub average_decay: f64,
    /// Decay rates of AdamW's moments.
    pub betas: (f64, f64),
    /// Added to the root of AdamW's second moment.
    pub eps: f64,
    /// Norm that all gradients together are clipped to; 0 for no clipping.
    pub clip_grad: f64,
    /// Updates between checkpoints; absent: once an epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_every_updates: Option<u64>,
    /// Checkpoints kept, the newest.
    #[serde(default = "defaults::keep_checkpoints")]
    pub keep_checkpoints: usize,
    /// Updates between log entries; absent: about two hundred entries a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_every_updates: Option<u64>,
    /// Updates between validations and pictures; absent: with each checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_every_updates: Option<u64>,
}

mod defaults {
    /// arXiv:2111.09886, ablation of prediction targets: the smaller of its two numbers of bins.
    pub(super) fn bins() -> usize {
        8
    }

    /// Chen et al., "Generative Pretraining from Pixels", ICML 2020.
    pub(super) fn clusters() -> usize {
        512
    }

    /// arXiv:2106.08254, algorithm 1.
    pub(super) fn min_block_units() -> usize {
        16
    }

    /// arXiv:2106.08254, algorithm 1.
    pub(super) fn aspect() -> (f64, f64) {
        (0.3, 1.0 / 0.3)
    }

    pub(super) fn keep_checkpoints() -> usize {
        2
    }

    pub(super) fn one() -> f64 {
        1.0
    }

    pub(super) fn is_one(value: &f64) -> bool {
        *value == 1.0
    }

    pub(super) fn is_zero(value: &f64) -> bool {
        *value == 0.0
    }
}

/// Shape of the learning rate behind the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Half a cosine down to `min_lr`.
    Cosine,
    /// A line down to a hundredth of the peak.
    Linear,
    /// Times `decay_factor` every `decay_every_epochs`.
    Step,
    /// Times `decay_factor` at each of `milestones_epochs`.
    Multistep,
}

/// Which parameters are exempt from weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecayGroups {
    /// As the official pre-training code groups them: it means to exempt tables of relative positions,
    /// but its names never match, so these and ViT's mask token decay.
    Official,
    /// As the official code means it: no decay of any table of positions nor of the mask token.
    Corrected,
}
