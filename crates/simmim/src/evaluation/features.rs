//! Frozen features: one vector per image from an encoder that is not trained further.

use super::classification::some_readable;
use super::feature_cache::{FeatureCache, Summed, names_and_classes};
use super::shares::check_like_first_rank;
use super::stream::{FeatureBatch, FeatureKind, FeatureTokens, compute, stream};
use crate::encoders::{Encode, Encoder, EncoderSpec, Role};
use crate::error::{Error, Result};
use crate::memory;
use crate::recipe::{AnyRecipe, DataRecipe, edit_any};
use crate::run::{RunInfo, image_sample};
use crate::weights::{Builder, InitFrom, LoadedWeights, Pretrained, Transfer, initial_values, transfer};
use simmim_data::{Augmentation, Decoding, Normalization, Skipped, Source, Transform};
use simmim_engine::{Activity, Alone, Backend, Collective, Device, Images, Operations, ParameterId, Precision, Slot};
use std::path::Path;
use std::sync::Arc;

/// An encoder that is not trained further.
pub struct FrozenEncoder<D: Device> {
    encoder: Encoder,
    /// The encoder's architecture and role, as text.
    description: String,
    backend: D::Backend,
    data: DataRecipe,
    /// How images are cropped.
    augmentation: Augmentation,
    normalization: Option<Normalization>,
    /// Which parameters were loaded, adapted or initialized.
    transfer: Option<Transfer>,
    damaged: Vec<Error>,
}

/// Features of labeled images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// Width of a feature vector, `D`.
    pub width: usize,
    /// One row per image, `[N, D]`.
    pub values: Vec<f32>,
    /// Class of each image, `[N]`.
    pub labels: Vec<usize>,
    /// Images that could not be read; none if the features are from the cache.
    pub skipped: Vec<Skipped>,
    /// Why the features could not be written to the cache, if so.
    pub not_cached: Option<String>,
}

impl Features {
    /// Number of images, `N`.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Gives all ranks those of the first one.
    fn broadcast(&mut self, collective: &mut dyn Collective) -> Result<()> {
        let mut text = serde_json::to_vec(&(self.width, &self.labels)).expect("numbers serialize");
        collective.broadcast_bytes(&mut text, 0)?;
        (self.width, self.labels) = serde_json::from_slice(&text).expect("the first rank sends its features");
        self.values.resize(self.width * self.labels.len(), 0.0);
        Ok(collective.broadcast(&mut self.values, 0)?)
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// Which features are extracted, and where they are cached.
#[derive(Clone, Copy, Debug)]
pub struct Extraction<'a> {
    /// The block whose output is used, counted from 1; `None`: the output of the encoder after its last norm.
    pub block: Option<usize>,
    /// Folder of the cache.
    pub cache: Option<&'a Path>,
    /// Threads that read and decode images.
    pub workers: usize,
}

impl<D: Device> FrozenEncoder<D> {
    /// Builds an encoder with the weights of a run or a file, or with weights initialized from `seed`. Its recipe is
    /// `recipe`, or else the recipe that is stored with the weights, with `key.path=value` edits applied.
    ///
    /// # Errors
    /// If the weights do not exist or do not fit, no recipe is known, or an edit does not fit or would be ignored.
    pub fn load(
        init_from: &InitFrom,
        recipe: Option<AnyRecipe>,
        edits: &[String],
        device: &D,
        precision: Precision,
        seed: u64,
    ) -> Result<Self> {
        let is_of_preparation = |edit: &String| {
            ["evaluate.crop", "augment.interpolation"].iter().any(|key| edit.trim_start().starts_with(key))
        };
        let mut weights = match init_from {
            InitFrom::Scratch => None,
            InitFrom::Weights { path, .. } => Some(LoadedWeights::with(path, edits)?),
        };
        let resolved = weights.as_ref().and_then(|weights| weights.resolved.clone());
        let Some(recipe) = recipe.or(resolved.as_ref().map(|(recipe, _)| recipe.clone())) else {
            if let Some(undecided) = weights.and_then(|weights| weights.undecided) {
                return Err(undecided);
            }
            return Err(Error::Input {
                what: "no recipe says which encoder it is".into(),
                hint: Some("name its recipe by --recipe".into()),
            });
        };
        let is_of_normalization = |edit: &&String| edit.trim_start().starts_with("data.normalization");
        if let (Some(edit), Some(_)) = (edits.iter().find(is_of_normalization), &resolved) {
            return Err(Error::Input {
                what: format!(
                    "`--set {edit}` changes nothing: images are normalized as in the training of these weights"
                ),
                hint: Some("leave it out".into()),
            });
        }
        let name = weights.as_ref().map_or("scratch".into(), |weights| weights.file.path().display().to_string());
        let recipe = edit_any(&name, recipe, edits)?;
        let (role, augmentation) = match &recipe {
            AnyRecipe::Pretrain(_) => (Role::Pretrain, Augmentation::Center),
            AnyRecipe::Finetune(recipe) => (Role::Classify, recipe.center_crop()),
            AnyRecipe::Tokenizer(_) => return Err(no_encoder()),
        };
        let preparation = weights.as_ref().and_then(|weights| weights.preparation);
        let augmentation = preparation.filter(|_| !edits.iter().any(is_of_preparation)).unwrap_or(augmentation);
        let data = recipe.data().clone();
        let mut builder = Builder::default();
        let image_px = data.image_size.height_and_width();
        let architecture = recipe.encoder().ok_or_else(no_encoder)?;
        let encoder = Encoder::new(architecture, role, image_px, data.channels, &mut builder)?;
        let (table, inits) = builder.finish();
        let damaged = weights.as_mut().map_or(Vec::new(), |weights| std::mem::take(&mut weights.damaged));
        let what = || format!("an encoder of {} parameters", table.len());
        // once as initialized or loaded, and once on the device
        memory::check(what, memory::of_values(table.len()).saturating_mul(2))?;
        let mut values = initial_values(&table, &inits, seed);
        let transfer = match weights {
            None => None,
            Some(weights) => {
                let mut pretrained = Pretrained::new(weights, architecture, &[])?;
                pretrained.channels = match init_from {
                    InitFrom::Scratch => None,
                    InitFrom::Weights { channels, .. } => *channels,
                };
                Some(transfer(&pretrained, &encoder, &table, &mut values)?)
            }
        };
        let backend = device.open(table, precision);
        backend.write_slot(Slot::Values, &values);
        let adapted = |run: RunInfo| match init_from {
            InitFrom::Weights { channels: Some(rule), .. } => run.normalization_for(data.channels, *rule),
            InitFrom::Weights { channels: None, .. } | InitFrom::Scratch => run.normalization(),
        };
        let normalization = resolved.map(|(_, run)| adapted(run)).or(data.known_normalization());
        let description = format!("{architecture:?} {role:?}");
        Ok(Self { encoder, description, backend, data, augmentation, normalization, transfer, damaged })
    }

    /// How its images are decoded.
    pub fn decoding(&self) -> Decoding {
        self.data.decoding()
    }

    /// The side of the tiles, in pixels, that the weights were trained on, if they were.
    pub fn tile(&self) -> Option<usize> {
        self.data.tile
    }

    /// Which parameters were loaded, adapted or initialized.
    pub fn transfer(&self) -> Option<&Transfer> {
        self.transfer.as_ref()
    }

    /// Errors of damaged checkpoints that are newer than the one that was loaded.
    pub fn damaged(&self) -> &[Error] {
        &self.damaged
    }

    /// Measures mean and standard deviation of these images, if neither a run nor the recipe has them.
    ///
    /// # Errors
    /// If none of them can be read.
    pub fn measure(&mut self, source: &dyn Source) -> Result<()> {
        if self.normalization.is_none() {
            self.normalization = Some(self.data.normalization_of(source)?);
        }
        Ok(())
    }

    /// Extracts features of all images of a labeled source, or takes them from the cache; `progress` is called with the
    /// number of images done. A cache that cannot be written is no error: see [`Features::not_cached`].
    ///
    /// # Errors
    /// If there is no such block, or those of [`extract`].
    ///
    /// # Panics
    /// If the normalization is not known: see [`FrozenEncoder::measure`].
    pub fn features(
        &self,
        source: Arc<dyn Source>,
        extraction: &Extraction,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Features> {
        self.features_on_ranks(source, extraction, &mut Alone, progress)
    }

    /// [`FrozenEncoder::features`] that all ranks compute together, and get. The first one has the cache, and calls
    /// `progress`.
    ///
    /// # Errors
    /// Those of [`FrozenEncoder::features`], and if a rank is lost or was started with something else.
    ///
    /// # Panics
    /// If the normalization is not known: see [`FrozenEncoder::measure`].
    pub fn features_on_ranks(
        &self,
        source: Arc<dyn Source>,
        extraction: &Extraction,
        collective: &mut dyn Collective,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Features> {
        self.check_kind(FeatureKind { tokens: FeatureTokens::Mean, block: extraction.block })?;
        let transform = self.transform();
        let (block, workers) = (extraction.block, extraction.workers);
        let kind = FeatureKind { tokens: FeatureTokens::Mean, block };
        check_like_first_rank(collective, || self.identity(&source, kind))?;
        let source = Arc::new(Summed::new(source));
        let cache = extraction.cache.filter(|_| collective.is_first());
        let cache = cache.map(|folder| FeatureCache::new(folder, &self.made_by(&transform, block), &*source));
        collective.announce(Activity::Alone(0)); // the first rank compares all images with the cache
        let kept = cache.as_ref().and_then(|cache| cache.read(&source, workers));
        let mut is_kept = [f64::from(u8::from(kept.is_some()))];
        collective.all_reduce_sum_f64(&mut is_kept)?;
        let mut features = match (kept, is_kept[0] > 0.0) {
            (Some(kept), _) => kept,
            (None, true) => Features::default(), // on its way from the first rank
            (None, false) => {
                let images: Arc<dyn Source> = Arc::<Summed>::clone(&source);
                let model = (&self.backend, &self.encoder);
                source.forget(); // the first rank may have read all images for a cache of others
                let mut features = extract_on_ranks(model, collective, images, transform, block, workers, progress)?;
                source.gather(collective)?;
                if let Some(cache) = cache.filter(|_| features.skipped.is_empty()) {
                    features.not_cached = cache.write(&features, &source).err().map(|error| error.to_string());
                }
                features
            }
        };
        features.broadcast(collective)?;
        Ok(features)
    }

    /// Checks that the encoder has such features.
    ///
    /// # Errors
    /// If there is no such block or no class token.
    pub(super) fn check_kind(&self, kind: FeatureKind) -> Result<()> {
        let depth = self.encoder.spec().depth;
        if let Some(block) = kind.block.filter(|block| *block == 0 || *block > depth) {
            return Err(Error::Input {
                what: format!("there is no block `{block}`"),
                hint: Some(format!("the encoder's blocks are 1 to {depth}")),
            });
        }
        match self.encoder.lacks_class_token().filter(|_| kind.tokens == FeatureTokens::Class) {
            None => Ok(()),
            Some(why) => Err(Error::Input {
                what: format!("there are no features of a class token: {why}"),
                hint: Some("take the mean of the patch tokens".into()),
            }),
        }
    }

    /// Computes features of the images of a source in its order, from image `first` on, as [`stream`] does.
    pub(super) fn stream(
        &self,
        collective: &mut dyn Collective,
        source: &Arc<dyn Source>,
        kind: FeatureKind,
        workers: usize,
        first: usize,
        take: impl FnMut(FeatureBatch) -> Result<()>,
        is_stopping: impl Fn() -> bool,
    ) -> Result<bool> {
        let model = (&self.backend, &self.encoder);
        stream(model, collective, source, self.transform(), kind, workers, first, take, is_stopping)
    }

    /// The sizes of the encoder.
    pub fn spec(&self) -> EncoderSpec {
        self.encoder.spec()
    }

    /// The values that pixels are normalized with, once they are known.
    pub fn normalization(&self) -> Option<&Normalization> {
        self.normalization.as_ref()
    }

    /// Computes features of images as the network reads them; see [`compute`].
    pub(super) fn compute(&self, images: &Images, kind: FeatureKind) -> (Vec<usize>, Vec<f32>) {
        self.backend.start(false);
        let computed = compute(&self.backend, &self.encoder, images, kind);
        (self.backend.shape(&computed), self.backend.read(&computed))
    }

    /// How images are prepared, once the normalization is known.
    fn transform(&self) -> Transform {
        let normalization = self.normalization.clone().expect("the normalization is measured first");
        self.data.transform(self.augmentation, normalization)
    }

    /// All that features depend on apart from the images: this program's version, the encoder, its weights, and how
    /// images are transformed and features extracted.
    fn made_by(&self, transform: &Transform, block: Option<usize>) -> String {
        let (version, encoder, precision) = (env!("CARGO_PKG_VERSION"), &self.description, self.backend.precision());
        format!("{version} {encoder} {:08x} {transform:?} {block:?} {precision:?}", self.checksum())
    }

    /// A checksum of the weights.
    fn checksum(&self) -> u32 {
        weights_checksum(&self.backend)
    }

    /// All that features of these images depend on, each part with its name. Of the pixels, those of a few images.
    pub(super) fn identity(&self, source: &Arc<dyn Source>, kind: FeatureKind) -> Vec<(String, String)> {
        let parts = [
            ("version of simmim", env!("CARGO_PKG_VERSION").to_owned()),
            ("encoder", self.description.clone()),
            ("checksum of the weights", format!("{:08x}", self.checksum())),
            ("features", format!("{kind:?}")),
            ("precision", format!("{:?}", self.backend.precision())),
            ("number of images", source.len().to_string()),
            ("checksum of the names and labels", format!("{:08x}", names_and_classes(source.as_ref()))),
            ("checksum of some of the pixels", image_sample::of_source(source.as_ref())),
            ("preparation of the images", format!("{:?}", self.transform())),
        ];
        parts.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

/// A checksum of the names and values of all parameters.
pub(super) fn weights_checksum<B: Backend>(b: &B) -> u32 {
    let mut sum = 0;
    for (i, parameter) in b.table().iter().enumerate() {
        sum = crc32c::crc32c_append(sum, parameter.name.as_bytes());
        for value in b.read_parameter(Slot::Values, ParameterId(i)) {
            sum = crc32c::crc32c_append(sum, &value.to_le_bytes());
        }
    }
    sum
}

/// Extracts features of all images of a labeled source, one vector per image: the pooled output of the encoder, or the
/// mean over the feature map of a block. `progress` is called with the number of images done.
///
/// # Errors
/// If no image can be read, reading fails for another reason than an unreadable image, or a feature is not finite.
///
/// # Panics
/// If an image has no label.
pub fn extract<B: Backend>(
    b: &B,
    encoder: &Encoder,
    source: Arc<dyn Source>,
    transform: Transform,
    block: Option<usize>,
    workers: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Features> {
    extract_on_ranks((b, encoder), &mut Alone, source, transform, block, workers, progress)
}

/// [`extract`] from the output of the encoder, which ends without features soon after `is_stopping` is true.
pub(crate) fn extract_unless_stopped<B: Backend>(
    b: &B,
    encoder: &Encoder,
    source: Arc<dyn Source>,
    transform: Transform,
    workers: usize,
    is_stopping: &dyn Fn() -> bool,
) -> Result<Option<Features>> {
    features_of((b, encoder), &mut Alone, source, transform, None, workers, &mut |_| (), is_stopping)
}

/// [`extract`] on all ranks; the first one has the result.
fn extract_on_ranks<B: Backend>(
    model: (&B, &Encoder),
    collective: &mut dyn Collective,
    source: Arc<dyn Source>,
    transform: Transform,
    block: Option<usize>,
    workers: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Features> {
    let features = features_of(model, collective, source, transform, block, workers, progress, &|| false)?;
    Ok(features.expect("nothing stops it"))
}

/// Features on all ranks, of which the first one has them; `None` if `is_stopping` was true before the last ones.
fn features_of<B: Backend>(
    model: (&B, &Encoder),
    collective: &mut dyn Collective,
    source: Arc<dyn Source>,
    transform: Transform,
    block: Option<usize>,
    workers: usize,
    progress: &mut dyn FnMut(usize),
    is_stopping: &dyn Fn() -> bool,
) -> Result<Option<Features>> {
    let mut features = Features::default();
    let kind = FeatureKind { tokens: FeatureTokens::Mean, block };
    let take = |batch: FeatureBatch| {
        features.skipped.extend(batch.skipped);
        if let [width] = batch.shape[..] {
            features.width = width;
            features.values.extend(batch.values);
            features.labels.extend(batch.labels.iter().map(|label| label.expect("every image has a label")));
            progress(features.len());
        }
        Ok(())
    };
    if stream(model, collective, &source, transform, kind, workers, 0, take, is_stopping)? {
        return Ok(None);
    }
    some_readable(features.len(), &features.skipped)?;
    Ok(Some(features))
}

fn no_encoder() -> Error {
    Error::Input {
        what: "a tokenizer has no encoder whose features could be extracted".into(),
        hint: Some("give the output of `simmim pretrain` or `simmim finetune`".into()),
    }
}
