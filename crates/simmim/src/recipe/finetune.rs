//! The recipe of fine-tuning: augmentation, labels and evaluation beside what pre-training has too.

use super::parse::Sections;
use super::{DataRecipe, RecipeKind, TrainRecipe, check, in_order, within, wrong};
use crate::encoder::EncoderConfig;
use crate::error::Result;
use serde::{Deserialize, Serialize};
use simmim_engine::Labels;

/// Everything a fine-tuning run is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneRecipe {
    /// The encoder's architecture.
    pub encoder: EncoderConfig,
    /// Images and their crop.
    pub data: DataRecipe,
    /// What else happens to training images.
    pub augment: AugmentRecipe,
    /// What is learnt of labels.
    pub labels: LabelRecipe,
    /// How held-out images are looked at.
    pub evaluate: EvaluateRecipe,
    /// Optimizer, schedule, and what is written when.
    pub train: TrainRecipe,
}

/// What happens to training images beside crop and flip.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentRecipe {
    /// How images are resized, and how operations that move pixels read between them.
    pub interpolation: InterpolationKind,
    /// What happens to colours and shapes.
    pub distortion: DistortionKind,
    /// Operations that `randaugment` draws for an image.
    pub operations: usize,
    /// Probability that each of them is done.
    pub operation_probability: f64,
    /// Mean strength of `randaugment`, 0 to 10.
    pub magnitude: f64,
    /// Deviation of the strength.
    pub magnitude_std: f64,
    /// Range of brightness, contrast and saturation of `colour-jitter`.
    pub jitter: f64,
    /// Probability that a rectangle of an image is replaced by noise.
    pub erase_probability: f64,
    /// Area of that rectangle as a share of the image, `[low, high]`.
    pub erase_area: (f64, f64),
    /// Probability that a batch is mixed by Mixup or CutMix.
    pub mix_probability: f64,
    /// Shape of Mixup's beta distribution; 0 for no Mixup.
    pub mixup: f64,
    /// Shape of CutMix's beta distribution; 0 for no CutMix.
    pub cutmix: f64,
    /// Probability of CutMix where both are on.
    pub cutmix_probability: f64,
}

impl AugmentRecipe {
    /// Whether images of a batch are mixed at all.
    pub fn mixes(&self) -> bool {
        self.mix_probability > 0.0 && (self.mixup > 0.0 || self.cutmix > 0.0)
    }
}

/// How images are resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterpolationKind {
    /// By a triangle.
    Bilinear,
    /// By a cubic.
    Bicubic,
    /// By one of the two, drawn anew every time; by a cubic in evaluation.
    Random,
}

/// What happens to colours and shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DistortionKind {
    /// Nothing.
    None,
    /// A few of fifteen operations (arXiv:1909.13719).
    Randaugment,
    /// Random brightness, contrast and saturation.
    ColourJitter,
}

/// What is learnt of labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelRecipe {
    /// How many classes an image belongs to.
    pub per_image: LabelsPerImage,
    /// Share of a label that is spread over all classes.
    pub smoothing: f64,
    /// How classes of different size are weighed.
    pub class_weights: ClassWeights,
    /// Share of the training images that is used, the same of every class, drawn by the seed.
    pub fraction: f64,
}

/// How many classes an image belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelsPerImage {
    /// One: cross-entropy over all classes.
    One,
    /// Any number: binary cross-entropy of each class.
    Many,
}

impl LabelsPerImage {
    /// The loss of it.
    pub fn loss(self) -> Labels {
        match self {
            LabelsPerImage::One => Labels::One,
            LabelsPerImage::Many => Labels::Many,
        }
    }
}

/// How classes of different size are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassWeights {
    /// Every image counts the same.
    None,
    /// Every class counts the same: its images are weighed by the mean size of a class over its own.
    Balanced,
}

/// How held-out images are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateRecipe {
    /// Share of a resized image's sides that the crop to its middle keeps.
    pub crop: f64,
}

impl RecipeKind for FinetuneRecipe {
    const COMMAND: &'static str = "finetune";
    const SECTIONS: &'static [&'static str] = &["encoder", "data", "augment", "labels", "evaluate", "train"];

    fn from_sections(sections: &Sections) -> Result<Self> {
        Ok(Self {
            encoder: sections.get("encoder")?,
            data: sections.get("data")?,
            augment: sections.get("augment")?,
            labels: sections.get("labels")?,
            evaluate: sections.get("evaluate")?,
            train: sections.get("train")?,
        })
    }

    fn check(&self) -> Result<()> {
        let Self { encoder, data, augment, labels, train, .. } = self;
        encoder.check()?;
        check::common(data, train, encoder.stride_px(), "encoder's stride")?;
        for (key, value, most) in [
            ("augment.operation_probability", augment.operation_probability, 1.0),
            ("augment.magnitude", augment.magnitude, 10.0),
            ("augment.magnitude_std", augment.magnitude_std, f64::MAX),
            ("augment.jitter", augment.jitter, f64::MAX),
            ("augment.erase_probability", augment.erase_probability, 1.0),
            ("augment.mix_probability", augment.mix_probability, 1.0),
            ("augment.mixup", augment.mixup, f64::MAX),
            ("augment.cutmix", augment.cutmix, f64::MAX),
            ("augment.cutmix_probability", augment.cutmix_probability, 1.0),
            ("labels.smoothing", labels.smoothing, 0.99),
        ] {
            within(key, value, 0.0, most)?;
        }
        in_order("augment.erase_area", augment.erase_area, 1.0)?;
        if augment.mixes() && !train.batch_size.is_multiple_of(2) {
            let expected = "images are mixed in pairs: expected an even number".into();
            let hint = "or switch mixing off by `--set augment.mix_probability=0.0`".into();
            return Err(wrong("train.batch_size", train.batch_size, expected, Some(hint)));
        }
        above_zero("labels.fraction", labels.fraction)?;
        above_zero("evaluate.crop", self.evaluate.crop)
    }

    fn data(&self) -> &DataRecipe {
        &self.data
    }

    fn train(&self) -> &TrainRecipe {
        &self.train
    }
}

fn above_zero(key: &str, share: f64) -> Result<()> {
    if share > 0.0 && share <= 1.0 {
        return Ok(());
    }
    Err(wrong(key, share, "expected more than 0 and at most 1".into(), None))
}
