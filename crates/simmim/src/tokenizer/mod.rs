//! The tokenizer: a discrete VAE (arXiv:2102.12092) that encodes squares of an image as tokens of a vocabulary and
//! decodes them again. Its tokens are the target of BEiT (arXiv:2106.08254).

mod config;
mod dalle;
mod network;
mod pixels;

pub use config::TokenizerConfig;
pub(crate) use dalle::{ImportedEncoder, import_encoder, is_encoder};
pub use network::{Decoder, Encoder};

use crate::error::{Error, Result};
use crate::model::WeightedSum;
use crate::targets::most_likely;
use crate::weights::Builder;
use crate::weights::WeightsFile;
use simmim_engine::{Backend, Device, Images, Laplace, Operations, Precision, Slot};
use std::path::{Path, PathBuf};

/// Name of the weights file in the folder of the run that trained the tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.safetensors";

/// A discrete VAE: an encoder and a decoder.
pub struct DiscreteVae {
    config: TokenizerConfig,
    encoder: Encoder,
    decoder: Decoder,
}

/// Inputs of the loss other than the images.
pub struct Relaxation<'a> {
    /// Gumbel noise, `[B, h, w, K]`.
    pub noise: &'a [f32],
    /// Temperature `τ` of the Gumbel-softmax; toward 0 its output becomes a one-hot sample.
    pub temperature: f32,
    /// Weight `β` of the KL divergence from the uniform distribution.
    pub divergence_weight: f32,
}

impl DiscreteVae {
    /// Builds a discrete VAE and adds its parameters `encoder.blocks.…` and `decoder.blocks.…` to `builder`.
    pub fn new(config: TokenizerConfig, builder: &mut Builder) -> Self {
        let encoder = builder.scope("encoder", |b| Encoder::new(&config, b));
        let decoder = builder.scope("decoder", |b| Decoder::new(&config, b));
        Self { config, encoder, decoder }
    }

    /// Its sizes.
    pub fn config(&self) -> TokenizerConfig {
        self.config
    }

    /// FLOPs of encoding and decoding one image of `(height, width)` pixels.
    pub fn flops(&self, (height, width): (usize, usize)) -> f64 {
        self.encoder.flops(height * width) + self.decoder.flops(height * width)
    }

    /// The loss of images with values from 0 to 1: the negative log-likelihood of their pixels given relaxed tokens,
    /// plus the weighted KL divergence of the token distribution from the uniform one. Its weight is the number of
    /// pixel values (arXiv:2102.12092, appendix A.2).
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → `[1]`.
    pub fn loss<B: Operations>(&self, b: &B, images: &Images, relaxation: &Relaxation) -> WeightedSum<B::Tensor> {
        let scores = self.scores(b, images); // [B, h, w, K]
        let tokens = b.gumbel_softmax(&scores, relaxation.noise, relaxation.temperature);
        let predicted = self.decoder.pixels(b, &tokens); // [B, H, W, 2C]
        let target = pixels::channels_last(images, |share| pixels::logit(pixels::map(share)));
        let likelihood = b.laplace(&predicted, &Laplace { target: &target });
        let divergence = b.uniform_divergence(&scores);
        let sum = b.add(&likelihood, relaxation.divergence_weight, &divergence);
        WeightedSum { sum, weight: images.pixels.len() as f64 }
    }

    /// Logits of the tokens of images with values from 0 to 1.
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → `[B, h, w, K]`.
    pub fn scores<B: Operations>(&self, b: &B, images: &Images) -> B::Tensor {
        self.encoder.scores(b, &mapped(b, images))
    }

    /// The most likely token of each square of images with values from 0 to 1.
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → `[B, h, w]`.
    pub fn tokens<B: Operations>(&self, b: &B, images: &Images) -> Vec<u32> {
        most_likely(&b.read(&self.scores(b, images)), self.config.vocabulary)
    }

    /// Decodes tokens to images with values from 0 to 1.
    ///
    /// # Shapes
    /// tokens `[B, h, w]`, where the grid is `(h, w)` → `[B, C, H, W]`.
    pub fn images<B: Operations>(&self, b: &B, tokens: &[u32], grid: (usize, usize)) -> Vec<f32> {
        decoded(b, &self.decoder, &self.config, tokens, grid)
    }
}

/// Decodes tokens to images with values from 0 to 1.
///
/// # Shapes
/// tokens `[B, h, w]` → `[B, C, H, W]`.
fn decoded<B: Operations>(
    b: &B,
    decoder: &Decoder,
    config: &TokenizerConfig,
    tokens: &[u32],
    (rows, columns): (usize, usize),
) -> Vec<f32> {
    let vocabulary = config.vocabulary;
    let mut one_hot = vec![0.0; tokens.len() * vocabulary];
    for (one_hot, token) in one_hot.chunks_exact_mut(vocabulary).zip(tokens) {
        one_hot[*token as usize] = 1.0;
    }
    let count = tokens.len() / (rows * columns);
    let predicted = decoder.pixels(b, &b.tensor(&[count, rows, columns, vocabulary], &one_hot));
    let (channels, side) = (config.channels, config.stride_px());
    let plane = rows * columns * side * side;
    let value = |logit: f32| pixels::unmap(pixels::sigmoid(logit));
    pixels::channels_first(&b.read(&predicted), plane, 2 * channels, channels, value)
}

/// Images with values from 0 to 1 as input of the encoder.
///
/// # Shapes
/// `[B, C, H, W]` → `[B, H, W, C]`.
pub fn mapped<B: Operations>(b: &B, images: &Images) -> B::Tensor {
    let shape = [images.count, images.height, images.width, images.channels];
    b.tensor(&shape, &pixels::channels_last(images, pixels::map))
}

/// The weights file of a tokenizer, given itself or as the run folder of `simmim tokenizer`.
pub(crate) fn tokenizer_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(TOKENIZER_FILE) } else { path.to_owned() }
}

/// The error if that file does not exist.
pub(crate) fn no_tokenizer(path: &Path) -> Error {
    let hint = Some("give the output of `simmim tokenizer`".into());
    Error::Input { what: format!("there is no tokenizer `{}`", path.display()), hint }
}

/// A trained discrete VAE that encodes images to tokens and, if it has a decoder, decodes tokens to images.
///
/// It always computes in f32, because a token is the argmax of scores that may be close to each other.
pub struct Tokenizer<B> {
    config: TokenizerConfig,
    encoder: Encoder,
    decoder: Option<Decoder>,
    backend: B,
}

/// Pixels per batch: enough to use all threads, few enough for memory.
const PIXELS_PER_BATCH: usize = 1 << 18;

impl<B: Backend> Tokenizer<B> {
    /// Loads a weights file, or the run folder of `simmim tokenizer`.
    ///
    /// # Errors
    /// If the file does not exist or is not a tokenizer.
    pub fn load<D: Device<Backend = B>>(from: &Path, device: &D) -> Result<Self> {
        let path = tokenizer_file(from);
        if !path.is_file() {
            return Err(no_tokenizer(&path));
        }
        let file = WeightsFile::read(&path)?;
        let config = TokenizerConfig::of_file(&file)?;
        let mut builder = Builder::default();
        let encoder = builder.scope("encoder", |b| Encoder::new(&config, b));
        let has_decoder = config.token_width > 0;
        let decoder = has_decoder.then(|| builder.scope("decoder", |b| Decoder::new(&config, b)));
        let backend = device.open(builder.finish().0, Precision::F32);
        file.load(backend.table(), "", |id, values| backend.write_parameter(Slot::Values, id, values))?;
        Ok(Self { config, encoder, decoder, backend })
    }

    /// Its sizes.
    pub fn config(&self) -> TokenizerConfig {
        self.config
    }

    /// Whether it decodes tokens.
    pub fn has_decoder(&self) -> bool {
        self.decoder.is_some()
    }

    /// See [`DiscreteVae::tokens`].
    pub fn tokens(&self, images: &Images) -> Vec<u32> {
        let batch_size = (PIXELS_PER_BATCH / (images.height * images.width)).max(1);
        let mut tokens = Vec::new();
        for start in (0..images.count).step_by(batch_size) {
            self.backend.start(false);
            let batch = images.range(start..(start + batch_size).min(images.count));
            let scores = self.encoder.scores(&self.backend, &mapped(&self.backend, &batch)); // [B, h, w, K]
            tokens.extend(most_likely(&self.backend.read(&scores), self.config.vocabulary));
        }
        tokens
    }

    /// See [`DiscreteVae::images`]; `None` without a decoder.
    pub fn images(&self, tokens: &[u32], grid: (usize, usize)) -> Option<Vec<f32>> {
        self.backend.start(false);
        let decoder = self.decoder.as_ref()?;
        Some(decoded(&self.backend, decoder, &self.config, tokens, grid))
    }
}
