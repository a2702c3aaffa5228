//! Frozen features: what an encoder makes of images, one vector each, to be kept on the disk and judged.

use crate::build::{Builder, initial_values};
use crate::encoder::{Encode, Encoder, Pass, Role};
use crate::error::{Error, Result};
use crate::found::Found;
use crate::recipe::{AnyRecipe, DataRecipe, InterpolationKind, NormalizationKind};
use crate::train::Beginning;
use crate::transfer::{Pretrained, Transfer, transfer};
use crate::weights::{self, WeightsFile};
use simmim_data::{Augmentation, CentreCrop, Filter, Normalisation, OrderedPass, Pixels, Skipped, Source, Transform};
use simmim_engine::{Backend, Cpu, Images, Operations, ParameterTable, Precision, Slot};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Images that are encoded together.
const BATCH: usize = 64;

/// Images that statistics are measured on where no run has measured them.
const MEASURED_IMAGES: usize = 2000;

/// Images whose pixels are part of a data set's checksum.
const CHECKED_IMAGES: usize = 64;

/// An encoder that does not learn any more.
pub struct FrozenEncoder {
    encoder: Encoder,
    backend: Cpu,
    data: DataRecipe,
    /// How images are cut to size.
    augmentation: Augmentation,
    normalisation: Option<Normalisation>,
    /// What became of the weights it began with.
    transfer: Option<Transfer>,
    damaged: Vec<Error>,
}

/// Features of labelled images.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// Length of each, `D`.
    pub width: usize,
    /// One row per image, `[N, D]`.
    pub values: Vec<f32>,
    /// Class of each image, `[N]`.
    pub labels: Vec<usize>,
    /// Images that could not be read; none where the features were kept from before.
    pub skipped: Vec<Skipped>,
}

impl Features {
    /// Number of images, `N`.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// Which features, and where they are kept.
#[derive(Clone, Copy, Debug)]
pub struct Extraction<'a> {
    /// The block whose output is taken, counted from 1; without one what the whole encoder puts out, norm included.
    pub block: Option<usize>,
    /// Folder where features are kept from one call to the next.
    pub cache: Option<&'a Path>,
    /// Threads that read and decode images.
    pub workers: usize,
}

impl FrozenEncoder {
    /// An encoder with weights of a run or a file, or drawn by `seed`. Its recipe is `recipe`, or else that of the
    /// weights.
    ///
    /// # Errors
    /// If there are no such weights, they do not fit, or no recipe is known.
    pub fn load(
        beginning: &Beginning,
        recipe: Option<AnyRecipe>,
        precision: Precision,
        threads: usize,
        seed: u64,
    ) -> Result<Self> {
        let found = match beginning {
            Beginning::Scratch => None,
            Beginning::Weights(path) => Some(Found::at(path)?),
        };
        let known = found.as_ref().and_then(|found| found.known.clone());
        let Some(recipe) = recipe.or(known.as_ref().map(|(recipe, _)| recipe.clone())) else {
            return Err(Error::Input {
                what: "nothing says what encoder it is".into(),
                hint: Some("name its recipe by --recipe".into()),
            });
        };
        let (role, augmentation) = match &recipe {
            AnyRecipe::Pretrain(_) => (Role::Pretrain, Augmentation::Centre),
            AnyRecipe::Tokenizer(_) => return Err(no_encoder()),
            AnyRecipe::Finetune(recipe) => {
                let filter = match recipe.augment.interpolation {
                    InterpolationKind::Bilinear => Filter::Bilinear,
                    InterpolationKind::Bicubic | InterpolationKind::Random => Filter::Bicubic,
                };
                let crop = CentreCrop { enlargement: 1.0 / recipe.evaluate.crop, filter };
                (Role::Classify, Augmentation::CentreCrop(crop))
            }
        };
        let data = recipe.data().clone();
        let mut builder = Builder::default();
        let image_px = data.image_size.height_and_width();
        let architecture = recipe.encoder().ok_or_else(no_encoder)?;
        let encoder = Encoder::new(architecture, role, image_px, data.channels, &mut builder);
        let (table, inits) = builder.finish();
        let mut values = initial_values(&table, &inits, seed);
        let (mut done, mut damaged) = (None, Vec::new());
        if let Some(mut found) = found {
            damaged = std::mem::take(&mut found.damaged);
            done = Some(transfer(&Pretrained::new(found, &[]), &encoder, &table, &mut values)?);
        }
        let backend = Cpu::new(table, precision, threads);
        backend.write_slot(Slot::Values, &values);
        let normalisation = match (known, data.normalization) {
            (Some((_, run)), _) => Some(run.normalisation()),
            (None, NormalizationKind::Imagenet) => Some(Normalisation::imagenet()),
            (None, NormalizationKind::None) => Some(Normalisation::none(data.channels)),
            (None, NormalizationKind::Measured) => None,
        };
        Ok(Self { encoder, backend, data, augmentation, normalisation, transfer: done, damaged })
    }

    /// Channels of its images.
    pub fn channels(&self) -> usize {
        self.data.channels
    }

    /// What became of the weights it began with.
    pub fn transfer(&self) -> Option<&Transfer> {
        self.transfer.as_ref()
    }

    /// What was wrong with checkpoints newer than the one that was loaded.
    pub fn damaged(&self) -> &[Error] {
        &self.damaged
    }

    /// Measures what pixels are normalised by on these images, if no run and no recipe has it.
    ///
    /// # Errors
    /// If none of them can be read.
    pub fn measure(&mut self, source: &dyn Source) -> Result<()> {
        if self.normalisation.is_none() {
            self.normalisation = Some(Normalisation::measure(source, MEASURED_IMAGES)?);
        }
        Ok(())
    }

    /// Features of all images of a labelled source; `progress` hears how many are done.
    ///
    /// # Errors
    /// If there is no such block, reading stops for another reason than single images, or files cannot be written.
    ///
    /// # Panics
    /// If the normalisation is still to be measured.
    pub fn features(
        &self,
        source: Arc<dyn Source>,
        extraction: &Extraction,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Features> {
        let depth = self.encoder.spec().depth;
        if let Some(block) = extraction.block.filter(|block| *block == 0 || *block > depth) {
            return Err(Error::Input {
                what: format!("there is no block `{block}`"),
                hint: Some(format!("the encoder's blocks are 1 to {depth}")),
            });
        }
        let path = extraction.cache.map(|folder| folder.join(self.file_name(source.as_ref(), extraction.block)));
        if let Some(path) = path.as_ref().filter(|path| path.is_file()) {
            return read(path);
        }
        let features = self.extract(source, extraction, progress)?;
        if let Some(path) = path.filter(|_| features.skipped.is_empty()) {
            let folder = path.parent().unwrap_or(Path::new(""));
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
            write(&path, &features)?;
        }
        Ok(features)
    }

    fn extract(
        &self,
        source: Arc<dyn Source>,
        extraction: &Extraction,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Features> {
        let (height, width) = self.data.image_size.height_and_width();
        let normalisation = self.normalisation.clone().expect("statistics are measured before");
        let transform = Transform { height, width, augmentation: self.augmentation, normalisation };
        let mut features = Features { width: 0, values: Vec::new(), labels: Vec::new(), skipped: Vec::new() };
        let b = &self.backend;
        for batch in OrderedPass::new(source, transform, BATCH, extraction.workers)? {
            let batch = batch?;
            features.skipped.extend(batch.skipped);
            if batch.samples.is_empty() {
                continue;
            }
            let count = batch.samples.len();
            let images = Images { pixels: &batch.images, count, channels: self.data.channels, height, width };
            b.start(false);
            let tokens = self.encoder.embed(b, &images); // [B, N, D]
            let vectors = match extraction.block {
                None => self.encoder.pool(b, &self.encoder.encode(b, tokens, &mut Pass::evaluate())),
                Some(block) => b.mean_tokens(&self.encoder.encode_until(b, tokens, block, &mut Pass::evaluate())),
            }; // [B, D']
            features.width = b.shape(&vectors)[1];
            features.values.extend(b.read(&vectors));
            features.labels.extend(batch.labels.iter().map(|label| label.expect("every image has a label")));
            progress(features.len());
        }
        Ok(features)
    }

    /// A name that changes with the weights, the images and what is done with them.
    fn file_name(&self, source: &dyn Source, block: Option<usize>) -> String {
        let mut weights = 0;
        for parameter in self.backend.table().iter() {
            weights = crc32c::crc32c_append(weights, parameter.name.as_bytes());
        }
        for value in self.backend.read_slot(Slot::Values) {
            weights = crc32c::crc32c_append(weights, &value.to_le_bytes());
        }
        let how = format!(
            "{:?} {:?} {:?} {:?} {:?}",
            self.encoder.spec(),
            self.augmentation,
            self.normalisation,
            self.backend.precision(),
            block
        );
        let weights = crc32c::crc32c_append(weights, how.as_bytes());
        format!("features-{weights:08x}-{:08x}.safetensors", checksum(source))
    }
}

/// A checksum of all names and labels, and of some of the pixels.
fn checksum(source: &dyn Source) -> u32 {
    let mut sum = 0;
    for index in 0..source.len() {
        sum = crc32c::crc32c_append(sum, source.name(index).as_bytes());
        sum = crc32c::crc32c_append(sum, &(source.label(index).unwrap_or(usize::MAX) as u64).to_le_bytes());
    }
    let step = source.len().div_ceil(CHECKED_IMAGES).max(1);
    for index in (0..source.len()).step_by(step) {
        let Ok(sample) = source.get(index) else { continue };
        sum = match sample.image.pixels {
            Pixels::U8(pixels) => crc32c::crc32c_append(sum, &pixels),
            Pixels::F32(pixels) => pixels.iter().fold(sum, |sum, v| crc32c::crc32c_append(sum, &v.to_le_bytes())),
        };
    }
    sum
}

fn write(path: &Path, features: &Features) -> Result<()> {
    let mut table = ParameterTable::default();
    table.add("features", &[features.len(), features.width]);
    table.add("labels", &[features.len()]);
    let labels = features.labels.iter().map(|label| *label as f32);
    let values: Vec<f32> = features.values.iter().copied().chain(labels).collect();
    weights::save_atomically(path, &table, &values, HashMap::new())
}

fn read(path: &Path) -> Result<Features> {
    let file = WeightsFile::read(path)?;
    let damaged = || Error::Damaged { path: path.to_owned(), reason: "holds no features".into() };
    let (shape, values) = file.tensor("features")?.ok_or_else(damaged)?;
    let (_, labels) = file.tensor("labels")?.ok_or_else(damaged)?;
    let [rows, width] = shape[..] else { return Err(damaged()) };
    if rows != labels.len() {
        return Err(damaged());
    }
    Ok(Features { width, values, labels: labels.iter().map(|label| *label as usize).collect(), skipped: Vec::new() })
}
/// The error for a model that has no transformer to take features of.
fn no_encoder() -> Error {
    Error::Input {
        what: "a tokenizer has no features to look at".into(),
        hint: Some("give what `simmim pretrain` or `simmim finetune` wrote".into()),
    }
}
