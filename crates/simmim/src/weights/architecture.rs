//! What weights are of: read off the shapes of the tensors, and, for what shapes do not say, off the `config.json` beside
//! them. What remains is assumed only where published models leave no choice, and reported. What an encoder reads of its own
//! is beside the encoder (`encoders/vit/deduce.rs`, `encoders/swin/deduce.rs`).

use super::conventions::NamedTensor;
use super::preparation::Preparation;
use crate::encoders::{DeducedEncoder, EncoderConfig, plain_name};
use crate::error::{Error, Result};
use crate::recipe::{
    AnyRecipe, FinetuneRecipe, ImageSize, InterpolationKind, NormalizationKind, Recipe, RecipeKind, resolve_as,
};
use crate::run::RunInfo;
use serde_json::Value;
use simmim_data::{Augmentation, Filter, Normalization};
use std::collections::BTreeMap;
use std::path::Path;

/// Unit of masks for the deduced pre-training recipe, in pixels; that of the paper.
const MASK_UNIT_PX: usize = 32;

/// JSON files that transformers or timm write beside weights.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// `config.json`.
    config: Value,
    /// `preprocessor_config.json`.
    preprocessor: Value,
    /// Name of the first in errors.
    path: String,
}

/// What is known about weights.
#[derive(Debug)]
pub(super) struct Deduced {
    pub(super) recipe: AnyRecipe,
    pub(super) run: RunInfo,
    pub(super) assumed: Vec<String>,
    /// How images are brought to the size of the network.
    pub(super) preparation: Preparation,
}

impl Beside {
    /// Reads the files beside these weights, if they are there.
    ///
    /// # Errors
    /// If one is not JSON.
    pub(super) fn of(weights: &Path) -> Result<Self> {
        let read = |name: &str| -> Result<Value> {
            let path = weights.with_file_name(name);
            match std::fs::read(&path) {
                Ok(text) => serde_json::from_slice(&text)
                    .map_err(|e| Error::Damaged { path, reason: format!("is not JSON: {e}") }),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
                Err(e) => Err(Error::io(&path)(e)),
            }
        };
        let path = weights.with_file_name("config.json").display().to_string();
        Ok(Self { config: read("config.json")?, preprocessor: read("preprocessor_config.json")?, path })
    }

    /// A value of the configuration: transformers has them at the top, timm in `model_args`.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.config.get(key).or_else(|| self.config.get("model_args")?.get(key)).filter(|value| !value.is_null())
    }

    pub(crate) fn number(&self, key: &str) -> Option<usize> {
        self.get(key)?.as_u64().map(|number| number as usize)
    }

    /// A side in pixels, where the file has a number or a pair of equal ones.
    pub(crate) fn side(&self, keys: &[&str]) -> Option<usize> {
        keys.iter().find_map(|key| match self.get(key)? {
            Value::Array(sides) => {
                let first = sides.first()?;
                sides.iter().all(|side| side == first).then(|| first.as_u64().map(|side| side as usize))?
            }
            other => other.as_u64().map(|side| side as usize),
        })
    }

    pub(crate) fn list(&self, key: &str) -> Option<Vec<usize>> {
        self.get(key)?.as_array()?.iter().map(|v| v.as_u64().map(|v| v as usize)).collect()
    }

    /// Numbers per channel: transformers' `image_mean` or timm's `mean`.
    fn per_channel(&self, keys: [&str; 2]) -> Option<Vec<f32>> {
        let value = self.preprocessor.get(keys[0]).or_else(|| self.config.get("pretrained_cfg")?.get(keys[1]))?;
        value.as_array()?.iter().map(|v| v.as_f64().map(|v| v as f32)).collect()
    }

    /// Class names in order: transformers' `id2label`, or timm's `label_names`.
    fn classes(&self) -> Option<Vec<String>> {
        if let Some(names) = self.config.get("label_names").and_then(Value::as_array) {
            return names.iter().map(|name| name.as_str().map(str::to_owned)).collect();
        }
        let labels = self.config.get("id2label")?.as_object()?;
        (0..labels.len()).map(|id| labels.get(&id.to_string())?.as_str().map(str::to_owned)).collect()
    }

    /// Checks a number of the configuration, under any of these keys, against that of the tensors.
    pub(crate) fn check(&self, keys: &[&str], found: usize) -> Result<()> {
        let other = keys.iter().find_map(|key| Some((*key, self.number(key)?))).filter(|(_, says)| *says != found);
        match other {
            None => Ok(()),
            Some((key, says)) => {
                Err(self.contradiction(&format!("`{key}` is {says}, but that of the tensors is {found}")))
            }
        }
    }

    /// How images are brought to the size of the network.
    fn preparation(&self) -> Preparation {
        Preparation::of(&self.preprocessor, self.config.get("pretrained_cfg").unwrap_or(&Value::Null))
    }

    pub(crate) fn contradiction(&self, what: &str) -> Error {
        Error::Input {
            what: format!("`{}` does not fit the weights beside it: {what}", self.path),
            hint: Some("it is of another model; put the weights and their own config.json into one folder".into()),
        }
    }
}

/// Deduces recipe and facts of weights with our names; `computed` are buffers of the file, which are not among them, with values
/// only where [`super::conventions::is_read`] says so.
/// Edits (`encoder.heads=12`) answer what nothing else says.
///
/// # Errors
/// [`Error::Undecided`] if something is not said anywhere, and others if the configuration contradicts the tensors.
pub(super) fn deduce(
    path: &Path,
    tensors: &[NamedTensor],
    computed: &[NamedTensor],
    beside: &Beside,
    edits: &[String],
) -> Result<Deduced> {
    let learned = tensors.iter().map(|tensor| (plain_name(&tensor.name), tensor.shape.as_slice()));
    let of_computed = computed.iter().map(|tensor| (plain_name(&tensor.name), tensor.shape.as_slice()));
    let shapes: BTreeMap<&str, &[usize]> = learned.chain(of_computed).collect();
    let computed = computed.iter().map(|tensor| (plain_name(&tensor.name), tensor.values.as_slice())).collect();
    let mut from = Architecture { path, shapes, computed, beside, edits, assumed: Vec::new() };
    let (width, channels) = match from.shape("patch_embed.proj.weight")? {
        [width, channels, height, side] if height == side => (*width, *channels),
        other => return Err(from.undecided(format!("the patch embedding has the shape {other:?}"), "")),
    };
    beside.check(&["num_channels", "in_chans"], channels)?;
    beside.check(&["embed_dim"], width)?;
    let DeducedEncoder { config: encoder, side, is_classifier } = EncoderConfig::deduce(&mut from, width)?;
    let classes = from.shapes.get("head.weight").map(|shape| shape[0]);
    let normalization = from.normalization(channels)?;
    let classes = from.classes(classes.unwrap_or(0))?;
    let image_size = ImageSize::Square(side);
    let preparation = beside.preparation();
    let kind = NormalizationKind::Measured; // the numbers themselves are among the facts of the run
    let recipe = if is_classifier {
        let mut recipe: FinetuneRecipe = resolve_as("finetune-vit-b16-224", &[])?;
        recipe.evaluate.crop = 1.0;
        if let Some(Augmentation::CenterCrop(crop)) = preparation.augmentation {
            recipe.evaluate.crop = 1.0 / crop.enlargement;
            recipe.augment.interpolation = match crop.filter {
                Filter::Bilinear => InterpolationKind::Bilinear,
                Filter::Bicubic => InterpolationKind::Bicubic,
            };
        }
        recipe.encoder = encoder;
        (recipe.data.image_size, recipe.data.channels, recipe.data.normalization) = (image_size, channels, kind);
        recipe.check()?;
        AnyRecipe::Finetune(recipe)
    } else {
        let mut recipe: Recipe = resolve_as("pretrain-vit-b16-224", &[])?;
        let patch = encoder.patch_px();
        let is_unit = MASK_UNIT_PX.is_multiple_of(patch) && side.is_multiple_of(MASK_UNIT_PX) && MASK_UNIT_PX < side;
        recipe.mask.unit_px = if is_unit { MASK_UNIT_PX } else { patch };
        recipe.encoder = encoder;
        (recipe.data.image_size, recipe.data.channels, recipe.data.normalization) = (image_size, channels, kind);
        recipe.check()?;
        AnyRecipe::Pretrain(recipe)
    };
    let run = RunInfo {
        version: crate::version::THIS.into(),
        device: "unknown".into(),
        precision: "f32".into(),
        precision_reason: String::new(),
        threads: 0,
        seed: 0,
        data: "unknown".into(),
        data_sample: None,
        images: 0,
        val: None,
        val_sample: None,
        from: path.file_name().map(|name| name.to_string_lossy().into_owned()),
        classes,
        mean: normalization.mean,
        std: normalization.std,
        palette: Vec::new(),
        tokenizer: None,
    };
    let mut assumed = from.assumed;
    assumed.extend(preparation.notes.iter().cloned());
    if let Some(Augmentation::Whole(_)) = preparation.augmentation {
        let what =
            "images are resized whole for features, as beside the weights is said; elsewhere the center is cropped";
        assumed.push(what.into());
    }
    Ok(Deduced { recipe, run, assumed, preparation })
}

/// What an architecture is read from.
pub(crate) struct Architecture<'a> {
    path: &'a Path,
    /// Shapes of tensors by their names without the prefix of pre-training.
    pub(crate) shapes: BTreeMap<&'a str, &'a [usize]>,
    /// Values of buffers that are computed, if they are read.
    pub(crate) computed: BTreeMap<&'a str, &'a [f32]>,
    /// The files beside the weights.
    pub(crate) beside: &'a Beside,
    edits: &'a [String],
    /// What was assumed, as sentences.
    pub(crate) assumed: Vec<String>,
}

impl<'a> Architecture<'a> {
    /// Path of the weights.
    pub(crate) fn path(&self) -> &Path {
        self.path
    }

    pub(crate) fn shape(&self, name: &str) -> Result<&'a [usize]> {
        let missing = || Error::WeightMissing { path: self.path.to_owned(), tensor: name.to_owned() };
        self.shapes.get(name).copied().ok_or_else(missing)
    }

    /// Rows of a matrix.
    pub(crate) fn rows(&self, name: &str) -> Result<usize> {
        match self.shape(name)? {
            [rows, _] => Ok(*rows),
            other => Err(self.undecided(format!("`{name}` has the shape {other:?}"), "")),
        }
    }

    pub(crate) fn undecided(&self, what: String, edit: &str) -> Error {
        Error::Undecided { path: self.path.to_owned(), what, edit: edit.to_owned() }
    }

    /// The value of an edit such as `encoder.heads=12`.
    pub(crate) fn edited(&self, key: &str) -> Option<&'a str> {
        let of = |edit: &'a String| edit.split_once('=').filter(|(name, _)| name.trim() == key);
        self.edits.iter().rev().find_map(of).map(|(_, value)| value.trim())
    }

    pub(crate) fn edited_number(&self, key: &str) -> Option<usize> {
        self.edited(key)?.parse().ok()
    }

    /// Number of numbered parts, `blocks.0` to `blocks.{n − 1}`.
    pub(crate) fn count(&self, before: &str) -> usize {
        let number = |name: &&str| name.strip_prefix(before)?.split('.').next()?.parse::<usize>().ok();
        self.shapes.keys().filter_map(number).max().map_or(0, |last| last + 1)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.shapes.contains_key(name)
    }

    /// `ε` of layer norms: what the configuration says, else that of published models.
    pub(crate) fn norm_eps(&self, published: f32) -> f32 {
        self.beside.get("layer_norm_eps").and_then(Value::as_f64).map_or(published, |eps| eps as f32)
    }

    pub(crate) fn side(&self, keys: &[&str]) -> Option<usize> {
        self.edited_number("data.image_size").or_else(|| self.beside.side(keys)).or_else(|| {
            let size = self.beside.config.get("pretrained_cfg")?.get("input_size")?.as_array()?;
            size.last()?.as_u64().map(|side| side as usize)
        })
    }

    /// Mean and standard deviation that images are normalized with.
    fn normalization(&mut self, channels: usize) -> Result<Normalization> {
        let said = (self.beside.per_channel(["image_mean", "mean"]), self.beside.per_channel(["image_std", "std"]));
        if let (Some(mean), Some(std)) = said {
            if mean.len() != channels || std.len() != channels {
                let what =
                    format!("images are normalized with {} channels, but the tensors have {channels}", mean.len());
                return Err(self.beside.contradiction(&what));
            }
            return Ok(Normalization { mean, std });
        }
        if channels == 3 {
            self.assumed.push("images are normalized with the mean and standard deviation of ImageNet".into());
            return Ok(Normalization::imagenet());
        }
        self.assumed.push("images are not normalized".into());
        Ok(Normalization::none(channels))
    }

    /// Names of the classes of a head of `count` rows.
    fn classes(&mut self, count: usize) -> Result<Vec<String>> {
        match self.beside.classes() {
            _ if count == 0 => Ok(Vec::new()),
            Some(names) if names.len() == count => Ok(names),
            Some(names) => {
                let what = format!("it names {} classes, but the head has {count}", names.len());
                Err(self.beside.contradiction(&what))
            }
            None => {
                self.assumed.push(format!("the {count} classes are called 0 to {}", count - 1));
                Ok((0..count).map(|class| class.to_string()).collect())
            }
        }
    }
}

/// The ratio that gives a hidden layer of this size.
pub(crate) fn ratio(hidden: usize, width: usize) -> f64 {
    let ratio = hidden as f64 / width as f64;
    if (width as f64 * ratio) as usize == hidden { ratio } else { (hidden as f64 + 0.5) / width as f64 }
}
