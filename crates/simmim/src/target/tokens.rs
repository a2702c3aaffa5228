//! Visual tokens: which word of a discrete VAE's vocabulary each square of the image is (arXiv:2106.08254).

use super::{Cells, Colours, Layout, Shows, Target, Truth, most_likely};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use simmim_data::rng::rng;
use simmim_data::{Augmentation, Image, Normalisation, Pixels, Purpose, Transform};
use simmim_engine::Images;
use std::path::Path;

/// The most likely token of each square of the unmasked image, as classes.
///
/// The tokenizer sees the image at the size at which its tokens tile it as the predicted positions do: BEiT's
/// tokens of 8 px see half the image's size for positions of 16 px. A prediction is shown as what the decoder
/// makes of the most likely tokens everywhere; the decoder looks at neighbours, so what is predicted for
/// visible squares shows at the edge of hidden ones.
pub struct Tokens {
    tokenizer: Tokenizer,
    colours: Colours,
    position_px: usize,
}

impl Tokens {
    /// Loads the tokenizer at `path` for images of `colours`; a token stands for a square of `position_px`.
    ///
    /// # Errors
    /// If there is none, or it takes images of other channels.
    pub fn load(path: &Path, colours: &Colours, position_px: usize) -> Result<Self> {
        let tokenizer = Tokenizer::load(path)?;
        let (theirs, ours) = (tokenizer.config().channels, colours.normalisation.mean.len());
        if theirs != ours {
            return Err(Error::Recipe {
                key: "target.tokenizer".into(),
                value: path.display().to_string(),
                expected: format!("it was trained on images of {theirs} channels, `data.channels` is {ours}"),
                hint: Some(format!("train one with `simmim tokenizer --set data.channels={ours}`")),
            });
        }
        Ok(Self { tokenizer, colours: colours.clone(), position_px })
    }

    /// The size at which an image of this size has a token for each position.
    fn size(&self, height: usize, width: usize) -> (usize, usize) {
        let stride = self.tokenizer.config().stride_px();
        (height / self.position_px * stride, width / self.position_px * stride)
    }
}

impl Target for Tokens {
    fn layout(&self, cells: &Cells) -> Layout {
        let classes = Some(self.tokenizer.config().vocabulary);
        Layout { channels: 1, side: cells.side / self.position_px, classes }
    }

    fn truth<'a>(&self, images: &Images<'a>) -> Truth<'a> {
        let (height, width) = self.size(images.height, images.width);
        let mut pixels = Vec::with_capacity(images.count * images.channels * height * width);
        for image in images.pixels.chunks_exact(images.image_len()) {
            let plane = images.height * images.width;
            let share = |(i, value): (usize, &f32)| self.colours.share(i / plane, *value);
            let shares: Vec<f32> = image.iter().enumerate().map(share).collect();
            pixels.extend(resized(shares, images.channels, (images.height, images.width), (height, width)));
        }
        Truth::Classes(self.tokenizer.tokens(&Images { pixels: &pixels, height, width, ..*images }))
    }

    fn picture(&self, cells: &Cells, _image: &[f32], prediction: &[f32]) -> Vec<f32> {
        let grid = (cells.height / self.position_px, cells.width / self.position_px);
        let tokens = most_likely(prediction, self.tokenizer.config().vocabulary);
        let decoded = self.tokenizer.images(&tokens, grid);
        let size = (cells.height, cells.width);
        let shares = resized(decoded, cells.channels, self.size(cells.height, cells.width), size);
        let normalised = |(i, share): (usize, &f32)| self.colours.normalised(i / (size.0 * size.1), *share);
        shares.iter().enumerate().map(normalised).collect()
    }

    fn shows(&self) -> Shows {
        Shows::Decoded
    }

    fn use_threads(&mut self, threads: usize) {
        self.tokenizer.use_threads(threads);
    }
}

/// An image at another size of the same shape.
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
        augmentation: Augmentation::Centre,
        normalisation: Normalisation { mean: vec![0.0; channels], std: vec![1.0; channels] },
    };
    let mut out = vec![0.0; transform.values()];
    transform.apply(&image, &mut rng(0, Purpose::Augment, 0, 0), &mut out); // the whole image: nothing is random
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{Builder, initial_values};
    use crate::tokenizer::{DiscreteVae, TokenizerConfig};

    /// An untrained tokenizer of 2 px squares of one channel, in a file.
    fn tokenizer(folder: &Path) -> std::path::PathBuf {
        let config =
            TokenizerConfig { channels: 1, vocabulary: 7, width: 4, groups: 2, blocks_per_group: 1, token_width: 3 };
        let mut builder = Builder::default();
        DiscreteVae::new(config, &mut builder);
        let (table, inits) = builder.finish();
        let path = folder.join("tokenizer.safetensors");
        let values = initial_values(&table, &inits, 1);
        // without its sizes: they can be told from the tensors
        crate::weights::save(&path, &table, &[("", &values)], Default::default()).unwrap();
        path
    }

    fn colours(channels: usize) -> Colours {
        Colours { normalisation: Normalisation { mean: vec![0.5; channels], std: vec![0.25; channels] }, palette: None }
    }

    #[test]
    fn tokens_are_those_of_the_image_before_it_was_normalised() {
        let folder = tempfile::tempdir().unwrap();
        let path = tokenizer(folder.path());
        // two images of 4×4
        let shares: Vec<f32> = (0..32).map(|i| (i * 7 % 32) as f32 / 32.0).collect();
        let normalised: Vec<f32> = shares.iter().map(|share| (share - 0.5) / 0.25).collect();
        let images = |pixels| Images { pixels, count: 2, channels: 1, height: 4, width: 4 };
        let expected = Tokenizer::load(&path).unwrap().tokens(&images(&shares));
        let mut tokens = Tokens::load(&path, &colours(1), 2).unwrap();
        tokens.use_threads(2);
        let Truth::Classes(found) = tokens.truth(&images(&normalised)) else { panic!("tokens are classes") };
        assert_eq!(found, expected);
        assert_eq!(found.len(), 2 * 4);
        assert!(found.iter().any(|token| *token != found[0]), "{found:?}");

        // one token for 4 px: the image is halved first
        let coarse = Tokens::load(&path, &colours(1), 4).unwrap();
        let Truth::Classes(found) = coarse.truth(&images(&normalised)) else { panic!("tokens are classes") };
        assert_eq!(found.len(), 2);
        let cells = Cells { channels: 1, height: 4, width: 4, side: 4 };
        assert_eq!(tokens.layout(&cells), Layout { channels: 1, side: 2, classes: Some(7) });
        assert_eq!(coarse.layout(&cells), Layout { channels: 1, side: 1, classes: Some(7) });
    }

    #[test]
    fn a_picture_is_what_the_decoder_makes_of_the_most_likely_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let path = tokenizer(folder.path());
        let cells = Cells { channels: 1, height: 4, width: 4, side: 4 };
        let mut scores = vec![0.0; 4 * 7];
        [3, 0, 6, 2].iter().enumerate().for_each(|(i, token)| scores[i * 7 + token] = 1.0);
        let expected = Tokenizer::load(&path).unwrap().images(&[3, 0, 6, 2], (2, 2));
        let picture = Tokens::load(&path, &colours(1), 2).unwrap().picture(&cells, &[0.0; 16], &scores);
        for (found, expected) in picture.iter().zip(&expected) {
            assert!((found * 0.25 + 0.5 - expected).abs() < 1e-6, "{found} {expected}");
        }
        // one token for the whole image is enlarged to it
        let coarse = Tokens::load(&path, &colours(1), 4).unwrap().picture(&cells, &[0.0; 16], &scores[..7]);
        assert_eq!(coarse.len(), 16);
    }

    #[test]
    fn what_is_no_tokenizer_of_these_images_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = tokenizer(folder.path());
        let message = |path: &Path, channels| match Tokens::load(path, &colours(channels), 2) {
            Ok(_) => panic!("`{}` was taken", path.display()),
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
        assert!(Tokens::load(folder.path(), &colours(1), 2).is_ok(), "a folder with a finished tokenizer is taken");
        let other = folder.path().join("other.safetensors");
        let mut table = simmim_engine::ParameterTable::default();
        table.add("a", &[1]);
        crate::weights::save(&other, &table, &[("", &[0.0])], Default::default()).unwrap();
        assert!(message(&other, 1).contains("holds no tokenizer with encoder and decoder"));
    }
}
