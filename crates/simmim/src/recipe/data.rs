//! `[data]`: image size, channels, crop, flip and normalization.

use crate::error::Result;
use serde::{Deserialize, Serialize};
use simmim_data::{Augmentation, Decoding, Normalization, RandomResizedCrop, Source, Tiled, Tiling, Transform, Window};
use simmim_engine::Images;
use std::sync::Arc;

/// Number of images whose mean and standard deviation are measured.
const MEASURED_IMAGES: usize = 2000;

/// Images and their augmentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// Side of the square input, or `[height, width]`, in pixels.
    pub image_size: ImageSize,
    /// Number of channels: 1 for grayscale, 3 for RGB, 4 for RGBA, any number for arrays.
    pub channels: usize,
    /// Mean and standard deviation that pixels are normalized with.
    pub normalization: NormalizationKind,
    /// Area of the random crop as a share of the image, `[low, high]`.
    pub crop_scale: (f64, f64),
    /// Aspect ratio (width / height) of the random crop, `[low, high]`.
    pub crop_ratio: (f64, f64),
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Share of unreadable images, 0 to 1, above which a run stops with an error.
    pub max_skipped: f64,
    /// Center and width of the values of gray DICOM files that are shown, such as Hounsfield units; absent: the window of each
    /// file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<(f64, f64)>,
    /// Side of the square tiles that pictures are cut into, in pixels; absent: pictures are used whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tile: Option<usize>,
    /// Distance between neighboring tiles, in pixels; absent: the side of a tile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tile_stride: Option<usize>,
    /// Least share of a tile that is neither nearly black nor nearly white; absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tile_content: Option<f64>,
    /// Most tiles of one picture, drawn by the seed; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiles_per_picture: Option<usize>,
}

impl DataRecipe {
    /// The transform from an image to the model's input: `augmentation`, then normalization.
    pub fn transform(&self, augmentation: Augmentation, normalization: Normalization) -> Transform {
        let (height, width) = self.image_size.height_and_width();
        Transform { height, width, augmentation, normalization }
    }

    /// How images are decoded.
    pub fn decoding(&self) -> Decoding {
        let window = self.window.map(|(center, width)| Window { center, width });
        Decoding { channels: self.channels, window }
    }

    /// The normalization, unless it is to be measured.
    pub(crate) fn known_normalization(&self) -> Option<Normalization> {
        match self.normalization {
            NormalizationKind::Imagenet => Some(Normalization::imagenet()),
            NormalizationKind::None => Some(Normalization::none(self.channels)),
            NormalizationKind::Measured => None,
        }
    }

    /// The normalization for the images of `source`, which are measured if it is not known.
    ///
    /// # Errors
    /// If none of them can be read.
    pub(crate) fn normalization_of(&self, source: &dyn Source) -> Result<Normalization> {
        match self.known_normalization() {
            Some(known) => Ok(known),
            None => Ok(Normalization::measure(source, MEASURED_IMAGES)?),
        }
    }

    /// The tiles of the pictures of `source` if this recipe cuts tiles, else the pictures. Tiles are listed on `workers`
    /// threads.
    ///
    /// # Errors
    /// If no tile has enough content.
    pub fn tiled(&self, source: Arc<dyn Source>, seed: u64, workers: usize) -> Result<Arc<dyn Source>> {
        match self.tiling(seed) {
            Some(tiling) => Ok(Arc::new(Tiled::new(source, tiling, workers)?)),
            None => Ok(source),
        }
    }

    /// How pictures are cut into tiles; `None` if they are used whole.
    pub fn tiling(&self, seed: u64) -> Option<Tiling> {
        let size = self.tile?;
        Some(Tiling {
            size,
            stride: self.tile_stride.unwrap_or(size),
            least_content: self.tile_content.unwrap_or(0.0),
            most_per_picture: self.tiles_per_picture,
            seed,
        })
    }

    /// The random crop and flip of training images.
    pub fn random_resized_crop(&self) -> RandomResizedCrop {
        RandomResizedCrop { scale: self.crop_scale, ratio: self.crop_ratio, hflip: self.flip }
    }

    /// A view of pixels as images of this size.
    ///
    /// # Shapes
    /// pixels `[B, C, H, W]`.
    pub fn images<'a>(&self, pixels: &'a [f32]) -> Images<'a> {
        let (height, width) = self.image_size.height_and_width();
        let count = pixels.len() / (self.channels * height * width);
        Images { pixels, count, channels: self.channels, height, width }
    }
}

/// Input size: `192` or `[192, 256]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a side, or [height, width], in whole pixels")]
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

/// Where the mean and standard deviation of the normalization come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormalizationKind {
    /// Those of ImageNet; three channels only.
    Imagenet,
    /// Measured on the training images before the first step.
    Measured,
    /// No normalization: 8-bit and 16-bit images have values from 0 to 1, arrays keep their own.
    None,
}
