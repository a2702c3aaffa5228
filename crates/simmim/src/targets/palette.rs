//! The palette of `color-clusters`: k-means over pixels of the training images.
//!
//! iGPT uses 512 colors (Chen et al., "Generative Pretraining from Pixels", ICML 2020). Centers are initialized by
//! k-means++ (Arthur and Vassilvitskii, SODA 2007), updated until they converge, and rounded to eight bits per channel.

use crate::error::{Error, Result};
use crate::ranges::wrong;
use crate::recipe::{Recipe, TargetKind};
use crate::weights::{self, WeightsFile};
use simmim_data::rng::{below, rng, uniform};
use simmim_data::{Image, Pixels, Purpose, Skipped, Source};
use simmim_engine::ParameterTable;
use std::collections::HashMap;
use std::path::Path;

/// Number of images that pixels are drawn from: that of a measured normalization.
const IMAGES: usize = 2000;

/// Number of pixels that are drawn: 64 for each of 512 colors.
const SAMPLES: usize = 1 << 15;

/// Largest number of iterations of k-means.
const MAX_ITERATIONS: usize = 40;

/// Name of the tensor in a palette file.
const TENSOR: &str = "palette";

/// A list of colors with values from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Palette {
    channels: usize,
    /// `[C, K]`: the layout in which a color is compared with all colors of the palette, channel by channel.
    planes: Vec<f32>,
}

impl Palette {
    /// A palette of colors `[K, C]`.
    ///
    /// # Panics
    /// If the number of values is not a multiple of the channels.
    pub fn new(channels: usize, colors: &[f32]) -> Self {
        assert!(colors.len().is_multiple_of(channels), "{} values are not colors of {channels} channels", colors.len());
        let planes = (0..channels).flat_map(|c| colors.iter().skip(c).step_by(channels).copied()).collect();
        Self { channels, planes }
    }

    /// The palette that a recipe needs, if any: read from its file, or computed from the training images.
    ///
    /// # Errors
    /// If no image can be read, or the file cannot be used.
    pub fn for_recipe(recipe: &Recipe, source: &dyn Source, seed: u64) -> Result<Option<Self>> {
        let target = &recipe.target;
        match (target.kind, &target.palette) {
            // training names those that cannot be read
            (TargetKind::ColorClusters, None) => Ok(Some(Self::measure(source, target.clusters, seed)?.0)),
            (TargetKind::ColorClusters, Some(path)) => {
                let palette = Self::read(Path::new(path), recipe.data.channels)?;
                if palette.len() == target.clusters {
                    return Ok(Some(palette));
                }
                let expected = format!("palette `{path}` has {} colors", palette.len());
                let hint = format!("--set target.clusters={}, or {HINT}", palette.len());
                Err(wrong("target.clusters", target.clusters, expected, Some(hint)))
            }
            (
                TargetKind::Pixels
                | TargetKind::NormalizedPixels
                | TargetKind::ColorBins
                | TargetKind::MeanColor
                | TargetKind::Hog
                | TargetKind::Tokens,
                _,
            ) => Ok(None),
        }
    }

    /// Number of colors, `K`.
    pub fn len(&self) -> usize {
        self.planes.len() / self.channels
    }

    /// Whether there is no color.
    pub fn is_empty(&self) -> bool {
        self.planes.is_empty()
    }

    /// The value of one channel of a color, 0 to 1.
    pub fn share(&self, color: usize, channel: usize) -> f32 {
        self.planes[channel * self.len() + color]
    }

    /// The index of the color nearest to `color`, `[C]`, by Euclidean distance; the first one in a tie. `distances` is
    /// a buffer for reuse.
    pub fn nearest(&self, color: &[f32], distances: &mut Vec<f32>) -> u32 {
        distances.clear();
        distances.resize(self.len(), 0.0);
        for (plane, value) in self.planes.chunks_exact(self.len()).zip(color) {
            for (distance, share) in distances.iter_mut().zip(plane) {
                *distance += (share - value) * (share - value);
            }
        }
        let least = distances.iter().copied().fold(f32::INFINITY, f32::min);
        distances.iter().position(|d| *d == least).unwrap_or(0) as u32
    }

    /// Computes the colors of the images of a source by k-means. Unreadable images are left out and returned. If the
    /// images have fewer colors than that, the last one is repeated.
    ///
    /// # Errors
    /// If no image can be read.
    pub fn measure(source: &dyn Source, colors: usize, seed: u64) -> Result<(Self, Vec<Skipped>)> {
        let count = IMAGES.min(source.len());
        let per_image = SAMPLES.div_ceil(count.max(1));
        let mut samples = Vec::new();
        let mut channels = 0;
        let (mut failure, mut skipped) = (None, Vec::new());
        for step in 0..count {
            let index = step * source.len() / count;
            match source.get(index) {
                Ok(sample) => {
                    channels = sample.image.channels;
                    draw(&sample.image, per_image, seed, step as u64, &mut samples);
                }
                Err(error) => {
                    skipped.push(Skipped { index, name: source.name(index), reason: error.to_string() });
                    failure = failure.or(Some(error));
                }
            }
        }
        match (samples.is_empty(), failure) {
            (true, Some(error)) => Err(error.into()),
            (true, None) => {
                Err(Error::Input { what: "there is no image to compute a palette from".into(), hint: None })
            }
            (false, _) => Ok((Self::kmeans(channels, &samples, colors, seed), skipped)),
        }
    }

    /// The cluster centers of `pixels`, `[N, C]`.
    fn kmeans(channels: usize, pixels: &[f32], colors: usize, seed: u64) -> Self {
        let mut centers = Self::new(channels, &kmeans_plus_plus(channels, pixels, colors, seed));
        let found = centers.len();
        let mut distances = Vec::new();
        for _ in 0..MAX_ITERATIONS {
            let mut sums = vec![0f64; channels * found];
            let mut counts = vec![0f64; found];
            for pixel in pixels.chunks_exact(channels) {
                let nearest = centers.nearest(pixel, &mut distances) as usize;
                counts[nearest] += 1.0;
                pixel.iter().enumerate().for_each(|(c, v)| sums[c * found + nearest] += *v as f64);
            }
            let before = centers.clone();
            for (i, plane) in centers.planes.iter_mut().enumerate() {
                if counts[i % found] > 0.0 {
                    *plane = (sums[i] / counts[i % found]) as f32;
                }
            }
            if centers == before {
                break;
            }
        }
        centers.rounded().repeated_to(colors)
    }

    /// The palette with its last color repeated up to this number of colors.
    fn repeated_to(self, colors: usize) -> Self {
        let last = self.len() - 1;
        let planes = (0..self.channels).flat_map(|c| (0..colors).map(move |color| (color.min(last), c)));
        Self { channels: self.channels, planes: planes.map(|(color, c)| self.share(color, c)).collect() }
    }

    fn rounded(mut self) -> Self {
        self.planes.iter_mut().for_each(|share| *share = (*share * 255.0).round() / 255.0);
        self
    }

    /// The colors as `rrggbb`.
    pub fn to_hex(&self) -> Vec<String> {
        let channel = |color: usize, c: usize| format!("{:02x}", (self.share(color, c) * 255.0).round() as u8);
        (0..self.len()).map(|color| (0..self.channels).map(|c| channel(color, c)).collect()).collect()
    }

    /// Parses the output of [`Palette::to_hex`]; `None` if it is something else.
    pub fn from_hex(colors: &[String]) -> Option<Self> {
        let channels = colors.first()?.len() / 2;
        let byte = |text: &String, c: usize| u8::from_str_radix(text.get(2 * c..2 * c + 2)?, 16).ok();
        let shares: Option<Vec<f32>> =
            colors.iter().flat_map(|text| (0..channels).map(move |c| Some(byte(text, c)? as f32 / 255.0))).collect();
        Some(Self::new(channels.max(1), &shares?))
    }

    /// Writes a safetensors file with the tensor `palette`, `[K, C]`, with values from 0 to 1.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut table = ParameterTable::default();
        table.add(TENSOR, &[self.len(), self.channels]);
        let values: Vec<f32> =
            (0..self.len()).flat_map(|color| (0..self.channels).map(move |c| self.share(color, c))).collect();
        weights::save(path, &table, &[("", &values)], HashMap::new())
    }

    /// Reads a file that [`Palette::save`] wrote.
    ///
    /// # Errors
    /// If the file is something else, or its colors do not have `channels` channels.
    pub fn read(path: &Path, channels: usize) -> Result<Self> {
        let unusable = |what: String| Error::Input {
            what: format!("palette `{}` {what}", path.display()),
            hint: Some(HINT.into()),
        };
        let (shape, values) =
            WeightsFile::read(path)?.tensor(TENSOR)?.ok_or_else(|| unusable("has no colors".into()))?;
        if shape.len() != 2 || shape[1] != channels || values.is_empty() {
            return Err(unusable(format!("has shape {shape:?}, expected [colors, {channels}]")));
        }
        if !values.iter().all(|v| (0.0..=1.0).contains(v)) {
            return Err(unusable("has values outside of 0 to 1".into()));
        }
        Ok(Self::new(channels, &values).rounded())
    }
}

/// The hint for a palette that is missing or does not fit.
pub(crate) const HINT: &str = "`simmim palette --data DATA --out FILE.safetensors` makes one; without the key it is computed from the training images";

/// Appends `count` random pixels of an image to `samples`, with values from 0 to 1.
fn draw(image: &Image, count: usize, seed: u64, index: u64, samples: &mut Vec<f32>) {
    let mut rng = rng(seed, Purpose::Palette, 0, index);
    let share = |i: usize| match &image.pixels {
        Pixels::U8(pixels) => f32::from(pixels[i]) / 255.0,
        Pixels::F32(pixels) => pixels[i].clamp(0.0, 1.0),
    };
    for _ in 0..count {
        let pixel = below(&mut rng, image.height * image.width);
        samples.extend((0..image.channels).map(|c| share(pixel * image.channels + c)));
    }
}

/// Initial centers by k-means++, `[K, C]`: each is a pixel drawn with a probability proportional to its squared
/// distance from the nearest previous center. Fewer than `colors` if the pixels have no more.
fn kmeans_plus_plus(channels: usize, pixels: &[f32], colors: usize, seed: u64) -> Vec<f32> {
    let mut rng = rng(seed, Purpose::Palette, 1, 0);
    let count = pixels.len() / channels;
    let pixel = |i: usize| &pixels[i * channels..][..channels];
    let mut centers = pixel(below(&mut rng, count)).to_vec();
    let mut distances = vec![f64::INFINITY; count];
    while centers.len() < colors * channels {
        let last = &centers[centers.len() - channels..];
        for (i, distance) in distances.iter_mut().enumerate() {
            let square: f64 = pixel(i).iter().zip(last).map(|(a, b)| ((a - b) as f64).powi(2)).sum();
            *distance = distance.min(square);
        }
        let mut left = uniform(&mut rng) * distances.iter().sum::<f64>();
        let chosen = distances.iter().position(|d| {
            left -= d;
            left < 0.0
        });
        match chosen {
            Some(i) => centers.extend_from_slice(pixel(i)),
            None => break, // all colors are centers already
        }
    }
    centers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separate_clusters_are_found() {
        // around 0.2 and 0.8 of two channels, three pixels each
        let pixels = [0.18, 0.2, 0.2, 0.2, 0.22, 0.2, 0.8, 0.78, 0.8, 0.8, 0.8, 0.82];
        for seed in 0..8 {
            let palette = Palette::kmeans(2, &pixels, 2, seed);
            let mut colors = palette.to_hex();
            colors.sort();
            assert_eq!(colors, ["3333", "cccc"], "seed {seed}"); // 51 and 204 of 255
        }
    }

    #[test]
    fn fewer_colors_than_asked_for_are_repeated() {
        let palette = Palette::kmeans(1, &[0.0, 1.0, 0.0, 1.0], 5, 0);
        assert_eq!(palette.len(), 5);
        let distinct: std::collections::BTreeSet<String> = palette.to_hex().into_iter().collect();
        assert_eq!(distinct.into_iter().collect::<Vec<_>>(), ["00", "ff"]);
        // a search among all of these, 40 times for each pixel, would take minutes
        let pixels: Vec<f32> = (0..SAMPLES).map(|i| (i % 2) as f32).collect();
        assert_eq!(Palette::kmeans(1, &pixels, 65_535, 0).len(), 65_535);
    }

    #[test]
    fn the_nearest_color_is_the_first_of_the_nearest() {
        let palette = Palette::new(3, &[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
        let mut distances = Vec::new();
        for (color, nearest) in [([0.1, 0.2, 0.3], 0), ([0.9, 0.0, 0.2], 1), ([0.3, 0.3, 0.9], 2)] {
            assert_eq!(palette.nearest(&color, &mut distances), nearest);
        }
    }

    #[test]
    fn a_palette_is_written_and_read_as_text_and_as_a_file() {
        let palette = Palette::new(3, &[0.0, 51.0 / 255.0, 1.0, 102.0 / 255.0, 0.0, 0.0]);
        assert_eq!(palette.to_hex(), ["0033ff", "660000"]);
        assert_eq!(Palette::from_hex(&palette.to_hex()), Some(palette.clone()));
        assert_eq!(Palette::from_hex(&["00gg00".into()]), None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("palette.safetensors");
        palette.save(&path).unwrap();
        assert_eq!(Palette::read(&path, 3).unwrap(), palette);
        let error = Palette::read(&path, 1).unwrap_err();
        assert!(error.to_string().contains("[2, 3], expected [colors, 1]") && error.is_users_fault(), "{error}");
    }
}
