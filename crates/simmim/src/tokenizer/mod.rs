//! Visual tokens: a discrete VAE that turns squares of an image into words of a vocabulary, and back
//! (arXiv:2102.12092), the target of BEiT (arXiv:2106.08254).

mod config;
mod network;
mod pixels;

pub use config::TokenizerConfig;
pub use network::{Decoder, Encoder};

use crate::build::Builder;
use crate::error::{Error, Result};
use crate::target::most_likely;
use crate::weights::WeightsFile;
use simmim_engine::{Backend, Cpu, Images, Laplace, Operations, ParameterTable, Precision, Slot};
use std::path::Path;

/// Name of the finished tokenizer in the folder of the run that trained it.
pub const TOKENIZER_FILE: &str = "tokenizer.safetensors";

/// A discrete VAE: an encoder and a decoder.
pub struct DiscreteVae {
    config: TokenizerConfig,
    encoder: Encoder,
    decoder: Decoder,
}

/// What one training step adds to the images.
pub struct Relaxation<'a> {
    /// Gumbel noise, `[B, h, w, K]`.
    pub noise: &'a [f32],
    /// Temperature of the choice; towards 0 it becomes a sample.
    pub temperature: f32,
    /// Weight of the divergence from a uniform choice.
    pub divergence_weight: f32,
    /// Pixel values of all images that one update sees: what both parts of the loss are divided by.
    pub denominator: f64,
}

impl DiscreteVae {
    /// Adds `encoder.blocks.…` and `decoder.blocks.…` to `builder`.
    pub fn new(config: TokenizerConfig, builder: &mut Builder) -> Self {
        let encoder = builder.scope("encoder", |b| Encoder::new(&config, b));
        let decoder = builder.scope("decoder", |b| Decoder::new(&config, b));
        Self { config, encoder, decoder }
    }

    /// Its sizes.
    pub fn config(&self) -> TokenizerConfig {
        self.config
    }

    /// Operations of one image's way to tokens and back.
    pub fn flops(&self, (height, width): (usize, usize)) -> f64 {
        self.encoder.flops(height * width) + self.decoder.flops(height * width)
    }

    /// The loss of images in 0–1: the negative log-likelihood of their pixels given relaxed tokens, and the
    /// weighted divergence of the tokens from a uniform choice, both divided by the number of pixel values
    /// (arXiv:2102.12092, appendix A.2).
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → `[1]`.
    pub fn loss<B: Operations>(&self, b: &B, images: &Images, relaxation: &Relaxation) -> B::Tensor {
        let scores = self.scores(b, images); // [B, h, w, K]
        let tokens = b.gumbel_softmax(&scores, relaxation.noise, relaxation.temperature);
        let predicted = self.decoder.pixels(b, &tokens); // [B, H, W, 2C]
        let target = pixels::channels_last(images, |share| pixels::logit(pixels::map(share)));
        let denominator = relaxation.denominator;
        let likelihood = b.laplace(&predicted, &Laplace { target: &target, denominator });
        let divergence = b.uniform_divergence(&scores, denominator);
        b.add(&likelihood, relaxation.divergence_weight, &divergence)
    }

    /// Scores of tokens of images in 0–1.
    ///
    /// # Shapes
    /// images `[B, C, H, W]` → `[B, h, w, K]`.
    pub fn scores<B: Operations>(&self, b: &B, images: &Images) -> B::Tensor {
        self.encoder.scores(b, &mapped(b, images))
    }

    /// The most likely token of each square.
    ///
    /// # Shapes
    /// images `[B, C, H, W]` in 0–1 → `[B, h, w]`.
    pub fn tokens<B: Operations>(&self, b: &B, images: &Images) -> Vec<u32> {
        most_likely(&b.read(&self.scores(b, images)), self.config.vocabulary)
    }

    /// Images in 0–1 of tokens.
    ///
    /// # Shapes
    /// tokens `[B, h, w]` of a grid `[h, w]` → `[B, C, H, W]`.
    pub fn images<B: Operations>(&self, b: &B, tokens: &[u32], (rows, columns): (usize, usize)) -> Vec<f32> {
        let vocabulary = self.config.vocabulary;
        let mut shares = vec![0.0; tokens.len() * vocabulary];
        for (shares, token) in shares.chunks_exact_mut(vocabulary).zip(tokens) {
            shares[*token as usize] = 1.0;
        }
        let count = tokens.len() / (rows * columns);
        let predicted = self.decoder.pixels(b, &b.tensor(&[count, rows, columns, vocabulary], &shares));
        let (channels, side) = (self.config.channels, self.config.stride_px());
        let plane = rows * columns * side * side;
        let value = |logit: f32| pixels::unmap(pixels::sigmoid(logit));
        pixels::channels_first(&b.read(&predicted), plane, 2 * channels, channels, value)
    }
}

/// Images in 0–1 as the encoder takes them.
///
/// # Shapes
/// `[B, C, H, W]` → `[B, H, W, C]`.
pub fn mapped<B: Operations>(b: &B, images: &Images) -> B::Tensor {
    let shape = [images.count, images.height, images.width, images.channels];
    b.tensor(&shape, &pixels::channels_last(images, pixels::map))
}

/// A trained discrete VAE, ready to turn images into tokens and tokens into images.
pub struct Tokenizer {
    vae: DiscreteVae,
    backend: Cpu,
}

/// Pixels that go through a network at the same time: enough to share, few enough for memory.
const PIXELS_AT_ONCE: usize = 1 << 18;

impl Tokenizer {
    /// Loads a weights file, or the run folder of `simmim tokenizer`; it runs on one thread.
    ///
    /// # Errors
    /// If there is no such thing, or it is no tokenizer.
    pub fn load(from: &Path) -> Result<Self> {
        let path = if from.is_dir() { from.join(TOKENIZER_FILE) } else { from.to_owned() };
        if !path.is_file() {
            let hint = Some("give what `simmim tokenizer` wrote".into());
            return Err(Error::Input { what: format!("there is no tokenizer `{}`", path.display()), hint });
        }
        let file = WeightsFile::read(&path)?;
        let config = TokenizerConfig::of_file(&file)?;
        let mut builder = Builder::default();
        let vae = DiscreteVae::new(config, &mut builder);
        let (table, _) = builder.finish();
        let values = file.flat(&table, "")?;
        Ok(Self { vae, backend: backend(table, &values, 1) })
    }

    /// Runs on this many threads from here on; the tokens are the same.
    pub fn use_threads(&mut self, threads: usize) {
        let values = self.backend.read_slot(Slot::Values);
        self.backend = backend(self.backend.table().clone(), &values, threads);
    }

    /// Its sizes.
    pub fn config(&self) -> TokenizerConfig {
        self.vae.config()
    }

    /// See [`DiscreteVae::tokens`].
    pub fn tokens(&self, images: &Images) -> Vec<u32> {
        let at_once = (PIXELS_AT_ONCE / (images.height * images.width)).max(1);
        let mut tokens = Vec::new();
        for start in (0..images.count).step_by(at_once) {
            self.backend.start(false);
            let part = images.part(start..(start + at_once).min(images.count));
            tokens.extend(self.vae.tokens(&self.backend, &part));
        }
        tokens
    }

    /// See [`DiscreteVae::images`].
    pub fn images(&self, tokens: &[u32], grid: (usize, usize)) -> Vec<f32> {
        self.backend.start(false);
        self.vae.images(&self.backend, tokens, grid)
    }
}

/// A backend for a frozen tokenizer: a token is a choice between near scores, so in f32 whatever the model that
/// learns them runs in.
fn backend(table: ParameterTable, values: &[f32], threads: usize) -> Cpu {
    let backend = Cpu::new(table, Precision::F32, threads);
    backend.write_slot(Slot::Values, values);
    backend
}
