//! Visual tokens of a discrete VAE: the target of BEiT (arXiv:2106.08254).

use super::{Colors, Layout, PatchGrid, PictureKind, Target, TargetValues, most_likely};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use simmim_data::rng::rng;
use simmim_data::{Augmentation, Image, Normalization, Pixels, Purpose, Transform};
use simmim_engine::{Backend, Device, Images};
use std::path::Path;

/// The most likely token of each sub-patch of the unmasked image, as classes.
///
/// The image is resized so that it has one token per sub-patch: with BEiT's tokens of 8 px and sub-patches of 16 px,
/// the tokenizer sees the image at half its size. A picture of a prediction shows the decoded most likely tokens of all
/// sub-patches. The decoder mixes neighbors, so tokens predicted for visible sub-patches affect the edges of hidden
/// ones. A tokenizer without a decoder shows each token in a color of its own.
pub struct Tokens<B> {
    tokenizer: Tokenizer<B>,
    colors: Colors,
    sub_patch_px: usize,
}

impl<B: Backend> Tokens<B> {
    /// Loads the tokenizer at `path`, which computes on `device`, for images normalized as `colors` says. A token is
    /// predicted for each square of `sub_patch_px` pixels.
    ///
    /// # Errors
    /// If there is no tokenizer at `path`, or it takes images with another number of channels.
    pub fn load<D: Device<Backend = B>>(path: &Path, colors: &Colors, sub_patch_px: usize, device: &D) -> Result<Self> {
        let tokenizer = Tokenizer::load(path, device)?;
        let (theirs, ours) = (tokenizer.config().channels, colors.normalization.mean.len());
        if theirs != ours {
            return Err(Error::Recipe {
                key: "target.tokenizer".into(),
                value: path.display().to_string(),
                expected: format!("it was trained on images of {theirs} channels, `data.channels` is {ours}"),
                hint: Some(format!("train one with `simmim tokenizer --set data.channels={ours}`")),
            });
        }
        Ok(Self { tokenizer, colors: colors.clone(), sub_patch_px })
    }

    /// The size to which an image is resized so that it has one token per sub-patch.
    fn size(&self, height: usize, width: usize) -> (usize, usize) {
        let stride = self.tokenizer.config().stride_px();
        (height / self.sub_patch_px * stride, width / self.sub_patch_px * stride)
    }
}

impl<B: Backend> Target for Tokens<B> {
    fn layout(&self, grid: &PatchGrid) -> Layout {
        let classes = Some(self.tokenizer.config().vocabulary);
        Layout { channels: 1, side: grid.side / self.sub_patch_px, classes }
    }

    fn values_of<'a>(&self, images: &Images<'a>) -> TargetValues<'a> {
        let (height, width) = self.size(images.height, images.width);
        let mut pixels = Vec::with_capacity(images.count * images.channels * height * width);
        for image in images.pixels.chunks_exact(images.image_len()) {
            let plane = images.height * images.width;
            let share = |(i, value): (usize, &f32)| self.colors.share(i / plane, *value);
            let shares: Vec<f32> = image.iter().enumerate().map(share).collect();
            pixels.extend(resized(shares, images.channels, (images.height, images.width), (height, width)));
        }
        TargetValues::Classes(self.tokenizer.tokens(&Images { pixels: &pixels, height, width, ..*images }))
    }

    fn picture(&self, grid: &PatchGrid, _image: &[f32], prediction: &[f32]) -> Vec<f32> {
        let token_grid = (grid.height / self.sub_patch_px, grid.width / self.sub_patch_px);
        let tokens = most_likely(prediction, self.tokenizer.config().vocabulary);
        let size = (grid.height, grid.width);
        let shares = match self.tokenizer.images(&tokens, token_grid) {
            Some(decoded) => resized(decoded, grid.channels, self.size(grid.height, grid.width), size),
            None => drawn(&tokens, grid, self.sub_patch_px),
        };
        let normalized = |(i, share): (usize, &f32)| self.colors.normalized(i / (size.0 * size.1), *share);
        shares.iter().enumerate().map(normalized).collect()
    }

    fn picture_kind(&self) -> PictureKind {
        if self.tokenizer.has_decoder() { PictureKind::Decoded } else { PictureKind::Drawing }
    }
}

/// Squares in a color for each token, which says nothing but which tokens are the same: what is shown without a decoder.
///
/// # Shapes
/// `[h, w]` → `[C, H, W]`.
fn drawn(tokens: &[u32], grid: &PatchGrid, side: usize) -> Vec<f32> {
    let columns = grid.width / side;
    // Knuth's multiplicative hash: neighboring numbers get colors that are far from each other
    let share = |token: u32, channel: u32| {
        let hashed = (token + 1).wrapping_mul(2_654_435_761).rotate_left(11 * channel);
        (hashed >> 24) as f32 / 255.0
    };
    let pixels = (0..grid.channels as u32)
        .flat_map(|channel| (0..grid.height).flat_map(move |y| (0..grid.width).map(move |x| (channel, y, x))));
    pixels.map(|(channel, y, x)| share(tokens[y / side * columns + x / side], channel)).collect()
}

/// Resizes an image to another size with the same aspect ratio.
///
/// # Shapes
/// `[C, H, W]` → `[C, H', W']`.
fn resized(planes: Vec<f32>, channels: usize, from: (usize, usize), to: (usize, usize)) -> Vec<f32> {
    if from == to {
        return planes;
    }
    let plane = from.0 * from.1;
    let interleaved = (0..planes.len()).map(|i| planes[i % channels * plane + i / channels]).collect();
    let image = Image { channels, height: from.0, width: from.1, pixels: Pixels::F32(interleaved) };
    let transform = Transform {
        height: to.0,
        width: to.1,
        augmentation: Augmentation::Center,
        normalization: Normalization::none(channels),
    };
    let mut out = vec![0.0; transform.values()];
    transform.apply(&image, &mut rng(0, Purpose::Augment, 0, 0), &mut out); // a center crop of the whole image is not random
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::DEVICE;
    use crate::tokenizer::{DiscreteVae, TokenizerConfig};
    use crate::weights::{Builder, initial_values};

    /// An untrained tokenizer of 2 px squares of one channel, in a file.
    fn tokenizer(folder: &Path) -> std::path::PathBuf {
        let config =
            TokenizerConfig { channels: 1, vocabulary: 7, width: 4, groups: 2, blocks_per_group: 1, token_width: 3 };
        let mut builder = Builder::default();
        DiscreteVae::new(config, &mut builder);
        let (table, inits) = builder.finish();
        let path = folder.join("tokenizer.safetensors");
        let values = initial_values(&table, &inits, 1);
        // without metadata: sizes are derived from the tensors
        crate::weights::save(&path, &table, &[("", &values)], Default::default()).unwrap();
        path
    }

    fn colors(channels: usize) -> Colors {
        Colors { normalization: Normalization { mean: vec![0.5; channels], std: vec![0.25; channels] }, palette: None }
    }

    #[test]
    fn tokens_are_those_of_the_image_before_it_was_normalized() {
        let folder = tempfile::tempdir().unwrap();
        let path = tokenizer(folder.path());
        // two images of 4×4
        let shares: Vec<f32> = (0..32).map(|i| (i * 7 % 32) as f32 / 32.0).collect();
        let normalized: Vec<f32> = shares.iter().map(|share| (share - 0.5) / 0.25).collect();
        let images = |pixels| Images { pixels, count: 2, channels: 1, height: 4, width: 4 };
        let expected = Tokenizer::load(&path, &DEVICE).unwrap().tokens(&images(&shares));
        let two_threads = simmim_cpu::CpuDevice { threads: 2 };
        let tokens = Tokens::load(&path, &colors(1), 2, &two_threads).unwrap();
        let TargetValues::Classes(found) = tokens.values_of(&images(&normalized)) else { panic!("tokens are classes") };
        assert_eq!(found, expected);
        assert_eq!(found.len(), 2 * 4);
        assert!(found.iter().any(|token| *token != found[0]), "{found:?}");

        // one token per 4 px: the image is halved first
        let coarse = Tokens::load(&path, &colors(1), 4, &DEVICE).unwrap();
        let TargetValues::Classes(found) = coarse.values_of(&images(&normalized)) else { panic!("tokens are classes") };
        assert_eq!(found.len(), 2);
        let grid = PatchGrid { channels: 1, height: 4, width: 4, side: 4 };
        assert_eq!(tokens.layout(&grid), Layout { channels: 1, side: 2, classes: Some(7) });
        assert_eq!(coarse.layout(&grid), Layout { channels: 1, side: 1, classes: Some(7) });
    }

    #[test]
    fn a_picture_is_what_the_decoder_makes_of_the_most_likely_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let path = tokenizer(folder.path());
        let grid = PatchGrid { channels: 1, height: 4, width: 4, side: 4 };
        let mut scores = vec![0.0; 4 * 7];
        [3, 0, 6, 2].iter().enumerate().for_each(|(i, token)| scores[i * 7 + token] = 1.0);
        let expected = Tokenizer::load(&path, &DEVICE).unwrap().images(&[3, 0, 6, 2], (2, 2)).unwrap();
        let picture = Tokens::load(&path, &colors(1), 2, &DEVICE).unwrap().picture(&grid, &[0.0; 16], &scores);
        for (found, expected) in picture.iter().zip(&expected) {
            assert!((found * 0.25 + 0.5 - expected).abs() < 1e-6, "{found} {expected}");
        }
        // a picture from a single token has the size of the image
        let coarse = Tokens::load(&path, &colors(1), 4, &DEVICE).unwrap().picture(&grid, &[0.0; 16], &scores[..7]);
        assert_eq!(coarse.len(), 16);
    }

    #[test]
    fn without_a_decoder_a_picture_has_a_color_for_each_token() {
        let folder = tempfile::tempdir().unwrap();
        let whole = crate::weights::WeightsFile::read(&tokenizer(folder.path())).unwrap();
        let path = folder.path().join("encoder.safetensors");
        let (mut table, mut values) = (simmim_engine::ParameterTable::default(), Vec::new());
        for (name, shape) in whole.shapes().into_iter().filter(|(name, _)| name.starts_with("encoder.")) {
            table.add(&name, &shape);
            values.resize(table.iter().last().unwrap().range.start, 0.0);
            values.extend(whole.tensor(&name).unwrap().unwrap().1);
        }
        values.resize(table.len(), 0.0);
        crate::weights::save(&path, &table, &[("", &values)], Default::default()).unwrap();
        let (of_encoder, of_both) =
            (Tokenizer::load(&path, &DEVICE).unwrap(), Tokenizer::load(&tokenizer(folder.path()), &DEVICE).unwrap());
        let pixels: Vec<f32> = (0..32).map(|i| (i * 7 % 32) as f32 / 32.0).collect();
        let images = Images { pixels: &pixels, count: 2, channels: 1, height: 4, width: 4 };
        assert_eq!(of_encoder.tokens(&images), of_both.tokens(&images));
        assert!(!of_encoder.has_decoder() && of_both.has_decoder());

        let tokens = Tokens::load(&path, &colors(1), 2, &DEVICE).unwrap();
        assert_eq!(tokens.picture_kind(), PictureKind::Drawing);
        let grid = PatchGrid { channels: 1, height: 4, width: 4, side: 4 };
        let mut scores = vec![0.0; 4 * 7];
        [3, 0, 3, 2].iter().enumerate().for_each(|(i, token)| scores[i * 7 + token] = 1.0);
        let picture = tokens.picture(&grid, &[0.0; 16], &scores);
        let corners = [0, 2, 8, 10].map(|at| picture[at]); // of the squares of 2 px
        assert!(corners[0] == corners[2] && corners[0] != corners[1] && corners[1] != corners[3], "{corners:?}");
        assert_eq!(picture[0], picture[5], "a square has one color");
    }

    #[test]
    fn what_is_no_tokenizer_of_these_images_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = tokenizer(folder.path());
        let message = |path: &Path, channels| match Tokens::load(path, &colors(channels), 2, &DEVICE) {
            Ok(_) => panic!("`{}` was accepted", path.display()),
            Err(error) => {
                assert!(error.is_users_fault() && error.hint().is_some());
                error.to_string()
            }
        };
        assert!(message(&path, 3).contains("images of 1 channels, `data.channels` is 3"));
        assert!(message(&folder.path().join("no.safetensors"), 1).contains("there is no tokenizer"));
        let empty = folder.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        assert!(message(&empty, 1).contains("there is no tokenizer"));
        assert!(
            Tokens::load(folder.path(), &colors(1), 2, &DEVICE).is_ok(),
            "a folder with a finished tokenizer is accepted"
        );
        let other = folder.path().join("other.safetensors");
        let mut table = simmim_engine::ParameterTable::default();
        table.add("a", &[1]);
        crate::weights::save(&other, &table, &[("", &[0.0])], Default::default()).unwrap();
        assert!(message(&other, 1).contains("holds no tokenizer"));
    }
}
