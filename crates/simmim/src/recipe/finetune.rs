//! The fine-tuning recipe: `[augment]`, `[labels]` and `[evaluate]` in addition to the sections that all recipes share.

use super::parse::Sections;
use super::{DataRecipe, RecipeKind, TrainRecipe, check};
use crate::encoders::EncoderConfig;
use crate::error::Result;
use crate::ranges::{in_order, share_above_zero, within, wrong};
use serde::{Deserialize, Serialize};
use simmim_data::{
    Augmentation, CenterCrop, ColorJitter, Distortion, Filter, FineTuning, Interpolation, Normalization, RandAugment,
    RandomErasing, Transform,
};
use simmim_engine::Labels;

/// Largest number of RandAugment's operations for an image.
const MAX_OPERATIONS: usize = 100;

/// Smallest share of a side that the crop of held-out images keeps.
const MIN_EVALUATED_SHARE: f64 = 0.01;

/// All settings of a fine-tuning run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneRecipe {
    /// The encoder's architecture.
    pub encoder: EncoderConfig,
    /// Images and their crop.
    pub data: DataRecipe,
    /// Augmentation of training images beyond crop and flip.
    pub augment: AugmentRecipe,
    /// Labels and their weights in the loss.
    pub labels: LabelRecipe,
    /// How held-out images are cropped.
    pub evaluate: EvaluateRecipe,
    /// Optimizer, schedule, and intervals of logs, checkpoints and evaluations.
    pub train: TrainRecipe,
}

impl FinetuneRecipe {
    /// The transform of training images.
    pub fn train_transform(&self, normalization: Normalization) -> Transform {
        let Self { data, augment, .. } = self;
        let steps = FineTuning {
            crop: data.random_resized_crop(),
            interpolation: match augment.interpolation {
                InterpolationKind::Bilinear => Interpolation::Bilinear,
                InterpolationKind::Bicubic => Interpolation::Bicubic,
                InterpolationKind::Random => Interpolation::Random,
            },
            distortion: match augment.distortion {
                DistortionKind::None => Distortion::None,
                DistortionKind::Randaugment => Distortion::RandAugment(RandAugment {
                    operations: augment.operations,
                    probability: augment.operation_probability,
                    magnitude: augment.magnitude,
                    magnitude_std: augment.magnitude_std,
                }),
                DistortionKind::ColorJitter => Distortion::ColorJitter(ColorJitter::uniform(augment.jitter)),
            },
            erasing: (augment.erase_probability > 0.0).then(|| RandomErasing {
                probability: augment.erase_probability,
                area: augment.erase_area,
                ..RandomErasing::default()
            }),
        };
        data.transform(Augmentation::FineTuning(steps), normalization)
    }

    /// The transform of images in evaluation: resize and center crop.
    pub fn evaluation_transform(&self, normalization: Normalization) -> Transform {
        self.data.transform(self.center_crop(), normalization)
    }

    /// The crop of [`FinetuneRecipe::evaluation_transform`].
    pub fn center_crop(&self) -> Augmentation {
        let filter = match self.augment.interpolation {
            InterpolationKind::Bilinear => Filter::Bilinear,
            InterpolationKind::Bicubic | InterpolationKind::Random => Filter::Bicubic,
        };
        Augmentation::CenterCrop(CenterCrop { enlargement: 1.0 / self.evaluate.crop, filter })
    }
}

/// Augmentation of training images beyond crop and flip.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentRecipe {
    /// Interpolation of the resize and of geometric augmentations.
    pub interpolation: InterpolationKind,
    /// Distortion of colors and shapes.
    pub distortion: DistortionKind,
    /// Number of operations that `randaugment` draws per image.
    pub operations: usize,
    /// Probability that each drawn operation is applied.
    pub operation_probability: f64,
    /// Mean magnitude of `randaugment`, 0 to 10.
    pub magnitude: f64,
    /// Standard deviation of the magnitude.
    pub magnitude_std: f64,
    /// Strength of `color-jitter`: factors of brightness, contrast and saturation are between `1 − jitter` and `1 +
    /// jitter`.
    pub jitter: f64,
    /// Probability of random erasing: a rectangle of the image is replaced with noise.
    pub erase_probability: f64,
    /// Area of the erased rectangle as a share of the image, `[low, high]`.
    pub erase_area: (f64, f64),
    /// Probability that a batch is mixed by Mixup or CutMix.
    pub mix_probability: f64,
    /// `α` of Mixup's beta distribution; 0 turns Mixup off.
    pub mixup: f64,
    /// `α` of CutMix's beta distribution; 0 turns CutMix off.
    pub cutmix: f64,
    /// Probability of CutMix rather than Mixup where both are on.
    pub cutmix_probability: f64,
}

impl AugmentRecipe {
    /// Whether Mixup or CutMix is on.
    pub fn mixes(&self) -> bool {
        self.mix_probability > 0.0 && (self.mixup > 0.0 || self.cutmix > 0.0)
    }
}

/// How images are resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterpolationKind {
    /// Bilinear.
    Bilinear,
    /// Bicubic.
    Bicubic,
    /// One of the two, drawn for each image; bicubic in evaluation.
    Random,
}

/// Distortion of colors and shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DistortionKind {
    /// Nothing.
    None,
    /// RandAugment (arXiv:1909.13719): a few of fifteen operations, as in timm.
    Randaugment,
    /// Random brightness, contrast and saturation.
    ColorJitter,
}

/// Labels and their weights in the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelRecipe {
    /// How many classes an image belongs to.
    pub per_image: LabelsPerImage,
    /// Label smoothing: the share of a label that is spread over all classes.
    pub smoothing: f64,
    /// How classes of different size are weighted in the loss.
    pub class_weights: ClassWeights,
    /// Share of the training images that is used, 0 to 1: the same share of every class, drawn with the seed.
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
    /// The kind of loss for these labels.
    pub fn loss(self) -> Labels {
        match self {
            LabelsPerImage::One => Labels::One,
            LabelsPerImage::Many => Labels::Many,
        }
    }
}

/// How classes of different size are weighted in the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassWeights {
    /// Every image counts the same.
    None,
    /// Every class counts the same: the weight of a class is the mean class size divided by its own size.
    Balanced,
}

/// How held-out images are cropped.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluateRecipe {
    /// Side of the center crop as a share of the resized image's shorter side, 0.01 to 1.
    pub crop: f64,
}

impl RecipeKind for FinetuneRecipe {
    const KIND: &'static str = "finetune";
    const SECTIONS: &'static [&'static str] = &["encoder", "data", "augment", "labels", "evaluate", "train"];

    fn from_sections(sections: &Sections) -> Result<Self> {
        Ok(Self {
            encoder: sections.encoder()?,
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
        check::frozen_blocks(train, encoder.depth())?;
        within("augment.operations", augment.operations as f64, 0.0, MAX_OPERATIONS as f64)?;
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
        share_above_zero("labels.fraction", labels.fraction)?;
        within("evaluate.crop", self.evaluate.crop, MIN_EVALUATED_SHARE, 1.0)
    }

    fn data(&self) -> &DataRecipe {
        &self.data
    }

    fn train(&self) -> &TrainRecipe {
        &self.train
    }
}
