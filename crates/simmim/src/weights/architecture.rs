//! The architecture that weights are of: read off the shapes of the tensors, and, for what shapes do not say, off the
//! `config.json` beside them. What remains is assumed only where published models leave no choice, and reported.

use super::conventions::NamedTensor;
use super::preparation::Preparation;
use crate::encoders::{EncoderConfig, PositionBias, SwinConfig, SwinV2Config, VitConfig, WeightInit, plain_name};
use crate::error::{Error, Result};
use crate::recipe::{
    AnyRecipe, FinetuneRecipe, ImageSize, InterpolationKind, NormalizationKind, Recipe, RecipeKind, resolve_as,
};
use crate::run::RunInfo;
use serde_json::Value;
use simmim_data::{Augmentation, Filter, Normalization};
use std::collections::BTreeMap;
use std::path::Path;

/// Heads of published ViTs by width and depth (arXiv:2010.11929, table 1; arXiv:2012.12877, table 1).
const KNOWN_HEADS: &[(usize, usize, usize)] =
    &[(192, 12, 3), (384, 12, 6), (768, 12, 12), (1024, 24, 16), (1280, 32, 16)];

/// `ε` of layer norms of ViTs and Swins where no configuration says it: the official code's.
const VIT_NORM_EPS: f32 = 1e-6;
const SWIN_NORM_EPS: f32 = 1e-5;

/// Unit of masks for the deduced pre-training recipe, in pixels; that of the paper.
const MASK_UNIT_PX: usize = 32;

/// JSON files that transformers or timm write beside weights.
#[derive(Debug, Default)]
pub(super) struct Beside {
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
    fn get(&self, key: &str) -> Option<&Value> {
        self.config.get(key).or_else(|| self.config.get("model_args")?.get(key)).filter(|value| !value.is_null())
    }

    fn number(&self, key: &str) -> Option<usize> {
        self.get(key)?.as_u64().map(|number| number as usize)
    }

    /// A side in pixels, where the file has a number or a pair of equal ones.
    fn side(&self, keys: &[&str]) -> Option<usize> {
        keys.iter().find_map(|key| match self.get(key)? {
            Value::Array(sides) if sides.iter().all(|side| *side == sides[0]) => Some(sides[0].as_u64()? as usize),
            other => other.as_u64().map(|side| side as usize),
        })
    }

    fn list(&self, key: &str) -> Option<Vec<usize>> {
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
    fn check(&self, keys: &[&str], found: usize) -> Result<()> {
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

    fn contradiction(&self, what: &str) -> Error {
        Error::Input {
            what: format!("`{}` does not fit the weights beside it: {what}", self.path),
            hint: Some("it is of another model; put the weights and their own config.json into one folder".into()),
        }
    }
}

/// Deduces recipe and facts of weights with our names; `computed` are buffers of the file, which are not among them.
/// Edits (`encoder.heads=12`) answer what nothing else says.
///
/// # Errors
/// [`Error::Undecided`] if something is not said anywhere, and others if the configuration contradicts the tensors.
pub(super) fn deduce(
    path: &Path,
    tensors: &[NamedTensor],
    computed: &[(String, Vec<usize>)],
    beside: &Beside,
    edits: &[String],
) -> Result<Deduced> {
    let learned = tensors.iter().map(|tensor| (plain_name(&tensor.name), tensor.shape.as_slice()));
    let computed = computed.iter().map(|(name, shape)| (plain_name(name), shape.as_slice()));
    let shapes: BTreeMap<&str, &[usize]> = learned.chain(computed).collect();
    let mut from = Reader { path, shapes, beside, edits, assumed: Vec::new() };
    let (width, channels) = match from.shape("patch_embed.proj.weight")? {
        [width, channels, height, side] if height == side => (*width, *channels),
        other => return Err(from.undecided(format!("the patch embedding has the shape {other:?}"), "")),
    };
    beside.check(&["num_channels", "in_chans"], channels)?;
    beside.check(&["embed_dim"], width)?;
    if let Some(act) = beside.get("hidden_act").and_then(Value::as_str).filter(|act| *act != "gelu") {
        return Err(beside.contradiction(&format!("`hidden_act` is `{act}`, and this program computes `gelu`")));
    }
    let is_swin = from.shapes.contains_key("layers.0.blocks.0.attn.qkv.weight");
    let (encoder, side) = if is_swin { from.swin(width)? } else { from.vit(width)? };
    let has_pooled_norm = from.shapes.contains_key("fc_norm.weight");
    let classes = from.shapes.get("head.weight").map(|shape| shape[0]);
    let is_classifier = if is_swin { classes.is_some() } else { has_pooled_norm };
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
struct Reader<'a> {
    path: &'a Path,
    shapes: BTreeMap<&'a str, &'a [usize]>,
    beside: &'a Beside,
    edits: &'a [String],
    assumed: Vec<String>,
}

impl<'a> Reader<'a> {
    fn shape(&self, name: &str) -> Result<&'a [usize]> {
        let missing = || Error::WeightMissing { path: self.path.to_owned(), tensor: name.to_owned() };
        self.shapes.get(name).copied().ok_or_else(missing)
    }

    /// Rows of a matrix.
    fn rows(&self, name: &str) -> Result<usize> {
        match self.shape(name)? {
            [rows, _] => Ok(*rows),
            other => Err(self.undecided(format!("`{name}` has the shape {other:?}"), "")),
        }
    }

    fn undecided(&self, what: String, edit: &str) -> Error {
        Error::Undecided { path: self.path.to_owned(), what, edit: edit.to_owned() }
    }

    /// The value of an edit such as `encoder.heads=12`.
    fn edited(&self, key: &str) -> Option<&'a str> {
        let of = |edit: &'a String| edit.split_once('=').filter(|(name, _)| name.trim() == key);
        self.edits.iter().rev().find_map(of).map(|(_, value)| value.trim())
    }

    fn edited_number(&self, key: &str) -> Option<usize> {
        self.edited(key)?.parse().ok()
    }

    /// Number of numbered parts, `blocks.0` to `blocks.{n − 1}`.
    fn count(&self, before: &str) -> usize {
        let number = |name: &&str| name.strip_prefix(before)?.split('.').next()?.parse::<usize>().ok();
        self.shapes.keys().filter_map(number).max().map_or(0, |last| last + 1)
    }

    fn has(&self, name: &str) -> bool {
        self.shapes.contains_key(name)
    }

    /// Heads by the columns of a table of position bias.
    fn heads_of_table(&self, name: &str) -> Option<usize> {
        self.shapes.get(name).and_then(|shape| shape.get(1)).copied()
    }

    fn vit(&mut self, width: usize) -> Result<(EncoderConfig, usize)> {
        let patch_px = self.shape("patch_embed.proj.weight")?[2];
        let (depth, hidden) = (self.count("blocks."), self.rows("blocks.0.mlp.fc1.weight")?);
        for (keys, found) in [
            (&["hidden_size"][..], width),
            (&["num_hidden_layers", "depth"], depth),
            (&["patch_size"], patch_px),
            (&["intermediate_size"], hidden),
        ] {
            self.beside.check(keys, found)?;
        }
        let (shared, own) = ("rel_pos_bias.relative_position_bias_table", "blocks.0.attn.relative_position_bias_table");
        let position_bias = match (self.has(shared), self.has(own)) {
            (_, true) => PositionBias::PerBlock,
            (true, false) => PositionBias::Shared,
            (false, false) => PositionBias::None,
        };
        let of_table = self.heads_of_table(shared).or_else(|| self.heads_of_table(own));
        if let Some(heads) = of_table {
            self.beside.check(&["num_attention_heads", "num_heads"], heads)?;
        }
        let said = of_table
            .or_else(|| self.edited_number("encoder.heads"))
            .or_else(|| self.beside.number("num_attention_heads"))
            .or_else(|| self.beside.number("num_heads"));
        let heads = match said {
            Some(heads) => heads,
            None => {
                let known = KNOWN_HEADS.iter().find(|(w, d, _)| (*w, *d) == (width, depth));
                let Some((_, _, heads)) = known else {
                    let what = format!("nothing says how many heads a ViT {width} wide with {depth} blocks has");
                    return Err(self.undecided(what, "encoder.heads=N"));
                };
                self.assumed.push(format!("{heads} heads, as published models {width} wide with {depth} blocks have"));
                *heads
            }
        };
        let positions = self.shapes.get("pos_embed").map(|shape| shape.get(1).copied().unwrap_or(0));
        let of_positions = positions.map(|rows| rows.saturating_sub(1));
        let of_bias = self.shapes.get(shared).or_else(|| self.shapes.get(own)).map(|shape| {
            let offsets = shape[0].saturating_sub(3).isqrt();
            offsets.div_ceil(2).pow(2)
        });
        let cells = of_positions.or(of_bias);
        let grid = cells.map(usize::isqrt).filter(|grid| *grid > 0 && Some(grid * grid) == cells);
        let side = match (grid, self.side(&["image_size", "img_size"])) {
            (Some(grid), _) => grid * patch_px,
            (None, Some(side)) if positions.is_none() => side,
            (None, _) => {
                let what = match positions {
                    Some(rows) => {
                        format!("positions have {rows} rows, which are not a class token and a square of patches")
                    }
                    None => "nothing says how large its images are".to_owned(),
                };
                return Err(self.undecided(what, "data.image_size=N"));
            }
        };
        if grid.is_some()
            && let Some(says) = self.beside.side(&["image_size", "img_size"]).filter(|says| *says != side)
        {
            let what = format!("`image_size` is {says}, but the positions are for {side} px");
            return Err(self.beside.contradiction(&what));
        }
        let registers = self.shapes.get("register_tokens").and_then(|shape| shape.get(1)).copied().unwrap_or(0);
        self.beside.check(&["num_register_tokens"], registers)?;
        let config = VitConfig {
            patch_px,
            width,
            depth,
            heads,
            mlp_ratio: ratio(hidden, width),
            qkv_bias: self.has("blocks.0.attn.q_bias"),
            layer_scale: if self.has("blocks.0.gamma_1") { 0.1 } else { 0.0 },
            absolute_positions: positions.is_some(),
            position_bias,
            registers,
            norm_eps: self.norm_eps(VIT_NORM_EPS),
            drop_path: 0.0,
            init: WeightInit::Normal,
        };
        Ok((EncoderConfig::Vit(config), side))
    }

    /// `ε` of layer norms: what the configuration says, else that of published models.
    fn norm_eps(&self, published: f32) -> f32 {
        self.beside.get("layer_norm_eps").and_then(Value::as_f64).map_or(published, |eps| eps as f32)
    }

    fn side(&self, keys: &[&str]) -> Option<usize> {
        self.edited_number("data.image_size").or_else(|| self.beside.side(keys)).or_else(|| {
            let size = self.beside.config.get("pretrained_cfg")?.get("input_size")?.as_array()?;
            size.last()?.as_u64().map(|side| side as usize)
        })
    }

    fn swin(&mut self, width: usize) -> Result<(EncoderConfig, usize)> {
        let patch_px = self.shape("patch_embed.proj.weight")?[2];
        let stages = self.count("layers.");
        let depths: Vec<usize> = (0..stages).map(|stage| self.count(&format!("layers.{stage}.blocks."))).collect();
        let hidden = self.rows("layers.0.blocks.0.mlp.fc1.weight")?;
        self.beside.check(&["patch_size"], patch_px)?;
        if let Some(says) = self.beside.list("depths").filter(|says| *says != depths) {
            return Err(self.beside.contradiction(&format!("`depths` is {says:?}, but the tensors have {depths:?}")));
        }
        let is_v2 = self.has("layers.0.blocks.0.attn.logit_scale");
        let block = |stage: usize, name: &str| format!("layers.{stage}.blocks.0.attn.{name}");
        let mut heads = Vec::new();
        for stage in 0..stages {
            heads.push(match is_v2 {
                true => self.shape(&block(stage, "logit_scale"))?.first().copied().unwrap_or(0),
                false => self.shape(&block(stage, "relative_position_bias_table"))?.last().copied().unwrap_or(0),
            });
        }
        if let Some(says) = self.beside.list("num_heads").filter(|says| *says != heads) {
            return Err(self.beside.contradiction(&format!("`num_heads` is {says:?}, but the tensors have {heads:?}")));
        }
        let of_tables = (0..stages)
            .filter_map(|stage| self.shapes.get(block(stage, "relative_position_bias_table").as_str()))
            .map(|shape| shape[0].isqrt().div_ceil(2))
            .max();
        // of SwinV2, which has no table to learn
        let of_coordinates = (0..stages)
            .filter_map(|stage| self.shapes.get(block(stage, "relative_coords_table").as_str())?.get(1).copied())
            .map(|offsets| offsets.div_ceil(2))
            .max();
        let window = match of_tables
            .or_else(|| self.edited_number("encoder.window"))
            .or_else(|| self.beside.side(&["window_size"]))
            .or(of_coordinates)
        {
            Some(window) => window,
            None => {
                return Err(self.undecided("nothing says how large its windows are".into(), "encoder.window=N"));
            }
        };
        if let Some(tables) = of_tables.filter(|_| self.beside.side(&["window_size"]).is_some_and(|says| says < window))
        {
            return Err(self
                .beside
                .contradiction(&format!("its `window_size` is less than {tables}, that of the tables")));
        }
        let stride = patch_px << stages.saturating_sub(1);
        let of_positions = self.shapes.get("absolute_pos_embed").map(|shape| shape[1].isqrt() * patch_px);
        let side = match of_positions.or_else(|| self.side(&["image_size", "img_size"])) {
            Some(side) => side,
            None => {
                let side = window * stride; // one window in the last stage, as in all published models
                self.assumed.push(format!("images of {side} px, the smallest whose last stage fills a window"));
                side
            }
        };
        let pretrained = self.beside.list("pretrained_window_sizes").filter(|sides| sides.iter().any(|side| *side > 0));
        let (mlp_ratio, patch_norm) = (ratio(hidden, width), self.has("patch_embed.norm.weight"));
        let absolute_positions = of_positions.is_some();
        let (drop_path, init) = (0.0, WeightInit::Normal);
        let norm_eps = self.norm_eps(SWIN_NORM_EPS);
        let config = match is_v2 {
            true => EncoderConfig::SwinV2(SwinV2Config {
                pretrained_window_size: pretrained.unwrap_or_default(),
                extra_norm_every: (0..self.count("layers.0.blocks."))
                    .find(|block| self.has(&format!("layers.0.blocks.{block}.norm3.weight")))
                    .map_or(0, |block| block + 1),
                qkv_bias: self.has("layers.0.blocks.0.attn.q_bias"),
                patch_px,
                width,
                depths,
                heads,
                window,
                mlp_ratio,
                patch_norm,
                absolute_positions,
                norm_eps,
                drop_path,
                init,
            }),
            false => EncoderConfig::Swin(SwinConfig {
                qkv_bias: self.has("layers.0.blocks.0.attn.qkv.bias"),
                patch_px,
                width,
                depths,
                heads,
                window,
                mlp_ratio,
                patch_norm,
                absolute_positions,
                norm_eps,
                drop_path,
                init,
            }),
        };
        Ok((config, side))
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
fn ratio(hidden: usize, width: usize) -> f64 {
    let ratio = hidden as f64 / width as f64;
    if (width as f64 * ratio) as usize == hidden { ratio } else { (hidden as f64 + 0.5) / width as f64 }
}
