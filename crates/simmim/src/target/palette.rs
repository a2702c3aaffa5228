//! A palette: the colours that stand for all others, by k-means over the training images' pixels.
//!
//! iGPT's is of 512 colours (Chen et al., "Generative Pretraining from Pixels", ICML 2020).
//! Centres start spread out (k-means++, Arthur and Vassilvitskii, SODA 2007) and are moved until none
//! of them moves on. The result is rounded to eight bits a channel, the unit of images.

use crate::error::{Error, Result};
use crate::recipe::{Recipe, TargetKind, wrong};
use crate::weights::{self, WeightsFile};
use simmim_data::rng::{below, rng, uniform};
use simmim_data::{Image, Pixels, Purpose, Source};
use simmim_engine::ParameterTable;
use std::collections::HashMap;
use std::path::Path;

/// Images that pixels are drawn from, as many as a measured normalisation looks at.
const IMAGES: usize = 2000;

/// Pixels that are drawn in all: 64 for each of 512 colours.
const SAMPLES: usize = 1 << 15;

/// Rounds after which centres are taken as they are.
const MOST_ROUNDS: usize = 40;

/// The tensor of a palette file.
const TENSOR: &str = "palette";

/// Colours, each a share of white per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Palette {
    channels: usize,
    /// `[C, K]`, so that a colour is compared with all of a channel at once.
    planes: Vec<f32>,
}

impl Palette {
    /// A palette of colours `[K, C]`.
    ///
    /// # Panics
    /// If the values are not whole colours.
    pub fn new(channels: usize, colours: &[f32]) -> Self {
        assert!(colours.len().is_multiple_of(channels), "{} values are no colours of {channels}", colours.len());
        let planes = (0..channels).flat_map(|c| colours.iter().skip(c).step_by(channels).copied()).collect();
        Self { channels, planes }
    }

    /// The palette that a recipe asks for: read from its file, or made of its training images.
    ///
    /// # Errors
    /// If no image can be read, or the file cannot be used.
    pub fn wanted(recipe: &Recipe, source: &dyn Source, seed: u64) -> Result<Option<Self>> {
        let target = &recipe.target;
        match (target.kind, &target.palette) {
            (TargetKind::ColourClusters, None) => Ok(Some(Self::measure(source, target.clusters, seed)?)),
            (TargetKind::ColourClusters, Some(path)) => {
                let palette = Self::read(Path::new(path), recipe.data.channels)?;
                if palette.len() == target.clusters {
                    return Ok(Some(palette));
                }
                let expected = format!("palette `{path}` has {} colours", palette.len());
                let hint = format!("--set target.clusters={}, or {HINT}", palette.len());
                Err(wrong("target.clusters", target.clusters, expected, Some(hint)))
            }
            (
                TargetKind::Pixels
                | TargetKind::NormalizedPixels
                | TargetKind::ColourBins
                | TargetKind::MeanColour
                | TargetKind::Hog
                | TargetKind::Tokens,
                _,
            ) => Ok(None),
        }
    }

    /// Number of colours, `K`.
    pub fn len(&self) -> usize {
        self.planes.len() / self.channels
    }

    /// Whether there is no colour.
    pub fn is_empty(&self) -> bool {
        self.planes.is_empty()
    }

    /// One channel of a colour.
    pub fn share(&self, colour: usize, channel: usize) -> f32 {
        self.planes[channel * self.len() + colour]
    }

    /// The colour nearest to `colour`, `[C]`, by Euclidean distance.
    pub fn nearest(&self, colour: &[f32], distances: &mut Vec<f32>) -> u32 {
        distances.clear();
        distances.resize(self.len(), 0.0);
        for (plane, value) in self.planes.chunks_exact(self.len()).zip(colour) {
            for (distance, share) in distances.iter_mut().zip(plane) {
                *distance += (share - value) * (share - value);
            }
        }
        let least = distances.iter().copied().fold(f32::INFINITY, f32::min);
        distances.iter().position(|d| *d == least).unwrap_or(0) as u32
    }

    /// Colours of the images of a source, found by k-means; unreadable images are left out. Where
    /// the images have fewer colours than that, the rest repeats the last one.
    ///
    /// # Errors
    /// If no image can be read.
    pub fn measure(source: &dyn Source, colours: usize, seed: u64) -> Result<Self> {
        let tried = IMAGES.min(source.len());
        let of_each = SAMPLES.div_ceil(tried.max(1));
        let mut samples = Vec::new();
        let mut channels = 0;
        let mut failure = None;
        for step in 0..tried {
            match source.get(step * source.len() / tried) {
                Ok(sample) => {
                    channels = sample.image.channels;
                    draw(&sample.image, of_each, seed, step as u64, &mut samples);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match (samples.is_empty(), failure) {
            (true, Some(error)) => Err(error.into()),
            (true, None) => Err(Error::Input { what: "there is no image to take colours from".into(), hint: None }),
            (false, _) => Ok(Self::of_pixels(channels, &samples, colours, seed)),
        }
    }

    /// The centres of `pixels`, `[N, C]`.
    fn of_pixels(channels: usize, pixels: &[f32], colours: usize, seed: u64) -> Self {
        let mut centres = Self::new(channels, &spread(channels, pixels, colours, seed));
        let mut distances = Vec::new();
        for _ in 0..MOST_ROUNDS {
            let mut sums = vec![0f64; channels * colours];
            let mut counts = vec![0f64; colours];
            for pixel in pixels.chunks_exact(channels) {
                let nearest = centres.nearest(pixel, &mut distances) as usize;
                counts[nearest] += 1.0;
                pixel.iter().enumerate().for_each(|(c, v)| sums[c * colours + nearest] += *v as f64);
            }
            let before = centres.clone();
            for (i, plane) in centres.planes.iter_mut().enumerate() {
                if counts[i % colours] > 0.0 {
                    *plane = (sums[i] / counts[i % colours]) as f32;
                }
            }
            if centres == before {
                break;
            }
        }
        centres.rounded()
    }

    fn rounded(mut self) -> Self {
        self.planes.iter_mut().for_each(|share| *share = (*share * 255.0).round() / 255.0);
        self
    }

    /// The colours as `rrggbb`, for people and for [`Palette::from_hex`].
    pub fn to_hex(&self) -> Vec<String> {
        let channel = |colour: usize, c: usize| format!("{:02x}", (self.share(colour, c) * 255.0).round() as u8);
        (0..self.len()).map(|colour| (0..self.channels).map(|c| channel(colour, c)).collect()).collect()
    }

    /// What [`Palette::to_hex`] wrote; none if it is something else.
    pub fn from_hex(colours: &[String]) -> Option<Self> {
        let channels = colours.first()?.len() / 2;
        let byte = |text: &String, c: usize| u8::from_str_radix(text.get(2 * c..2 * c + 2)?, 16).ok();
        let shares: Option<Vec<f32>> =
            colours.iter().flat_map(|text| (0..channels).map(move |c| Some(byte(text, c)? as f32 / 255.0))).collect();
        Some(Self::new(channels.max(1), &shares?))
    }

    /// Writes the tensor `palette`, `[K, C]`, each value a share of white.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut table = ParameterTable::default();
        table.add(TENSOR, &[self.len(), self.channels]);
        let values: Vec<f32> =
            (0..self.len()).flat_map(|colour| (0..self.channels).map(move |c| self.share(colour, c))).collect();
        weights::save(path, &table, &[("", &values)], HashMap::new())
    }

    /// Reads what [`Palette::save`] wrote.
    ///
    /// # Errors
    /// If the file is something else, or its colours are not of `channels`.
    pub fn read(path: &Path, channels: usize) -> Result<Self> {
        let unusable = |what: String| Error::Input {
            what: format!("palette `{}` {what}", path.display()),
            hint: Some(HINT.into()),
        };
        let (shape, values) =
            WeightsFile::read(path)?.tensor(TENSOR)?.ok_or_else(|| unusable("has no colours".into()))?;
        if shape.len() != 2 || shape[1] != channels || values.is_empty() {
            return Err(unusable(format!("has shape {shape:?}, expected [colours, {channels}]")));
        }
        if !values.iter().all(|v| (0.0..=1.0).contains(v)) {
            return Err(unusable("has values outside of 0 to 1".into()));
        }
        Ok(Self::new(channels, &values).rounded())
    }
}

/// What to do about a palette that is not there or does not fit.
pub(crate) const HINT: &str =
    "`simmim palette --data DATA --out FILE.safetensors` makes one; without the key it is made of the training images";

/// Adds `count` pixels of an image at random places, each a share of white per channel.
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

/// First centres: each drawn with a probability in proportion to its squared distance from the ones
/// before.
fn spread(channels: usize, pixels: &[f32], colours: usize, seed: u64) -> Vec<f32> {
    let mut rng = rng(seed, Purpose::Palette, 1, 0);
    let count = pixels.len() / channels;
    let pixel = |i: usize| &pixels[i * channels..][..channels];
    let mut centres = pixel(below(&mut rng, count)).to_vec();
    let mut distances = vec![f64::INFINITY; count];
    while centres.len() < colours * channels {
        let last = &centres[centres.len() - channels..];
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
            Some(i) => centres.extend_from_slice(pixel(i)),
            None => centres.extend_from_within(centres.len() - channels..), // every colour is a centre
        }
    }
    centres
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_that_lie_apart_are_found() {
        // around 0.2 and 0.8 of two channels, three pixels each
        let pixels = [0.18, 0.2, 0.2, 0.2, 0.22, 0.2, 0.8, 0.78, 0.8, 0.8, 0.8, 0.82];
        for seed in 0..8 {
            let palette = Palette::of_pixels(2, &pixels, 2, seed);
            let mut colours = palette.to_hex();
            colours.sort();
            assert_eq!(colours, ["3333", "cccc"], "seed {seed}"); // 51 and 204 of 255
        }
    }

    #[test]
    fn fewer_colours_than_asked_for_are_repeated() {
        let palette = Palette::of_pixels(1, &[0.0, 1.0, 0.0, 1.0], 5, 0);
        assert_eq!(palette.len(), 5);
        let distinct: std::collections::BTreeSet<String> = palette.to_hex().into_iter().collect();
        assert_eq!(distinct.into_iter().collect::<Vec<_>>(), ["00", "ff"]);
    }

    #[test]
    fn the_nearest_colour_is_the_first_of_the_nearest() {
        let palette = Palette::new(3, &[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
        let mut distances = Vec::new();
        for (colour, nearest) in [([0.1, 0.2, 0.3], 0), ([0.9, 0.0, 0.2], 1), ([0.3, 0.3, 0.9], 2)] {
            assert_eq!(palette.nearest(&colour, &mut distances), nearest);
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
        assert!(error.to_string().contains("[2, 3], expected [colours, 1]") && error.is_users_fault(), "{error}");
    }
}
