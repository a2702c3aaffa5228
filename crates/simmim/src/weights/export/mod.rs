//! Weights for other programs: tensors under their names, and the files that they read beside them.

mod card;
mod onnx;
mod timm;
mod transformers;

use super::adapt::metadata;
use super::conventions::{Convention, NamedTensor};
use super::{LoadedWeights, RECIPE_KEY, WeightsFile, save_atomically};
use crate::encoders::{Encode, Encoder, EncoderConfig, Role, VitConfig, plain_name};
use crate::error::{Error, Result};
use crate::recipe::{AnyRecipe, FinetuneRecipe, TargetKind};
use crate::run::files::write_atomically;
use crate::run::{RunInfo, read_log};
use crate::weights::Builder;
use serde_json::Value;
use simmim_data::{Augmentation, CenterCrop, Filter};
use simmim_engine::ParameterTable;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Whose files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Ours: the official names.
    Safetensors,
    /// timm's.
    Timm,
    /// Those of Hugging Face's transformers.
    Transformers,
    /// A graph that ONNX runtimes compute.
    Onnx,
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// What the model is called there.
    pub model: String,
    /// The files.
    pub files: Vec<PathBuf>,
    /// Number of tensors.
    pub tensors: usize,
    /// Tensors that were left out, with the reason.
    pub left_out: Vec<(String, String)>,
    /// What was changed without changing what the model computes, or so little that it hardly does.
    pub notes: Vec<String>,
}

/// A model to export.
struct Model<'a> {
    recipe: &'a AnyRecipe,
    encoder: &'a EncoderConfig,
    run: &'a RunInfo,
    /// Tensors without the prefix of pre-training.
    tensors: Vec<NamedTensor>,
    /// Height and width of its images in pixels.
    image_px: (usize, usize),
    channels: usize,
    stride_px: usize,
    /// Number of features along height and width.
    grid: (usize, usize),
    /// How images are brought to that size for evaluation.
    preparation: Augmentation,
}

/// A model as another program knows it.
struct Target {
    /// Name of its class or architecture.
    name: String,
    convention: &'static Convention,
    /// Goes before the names of the encoder's tensors.
    prefix: &'static str,
    /// JSON files beside the weights.
    files: JsonFiles,
    /// Lines of Python that load it.
    usage: String,
}

/// Exports weights of a run, a checkpoint or a file to the folder `out`.
///
/// # Errors
/// If the weights cannot be read, `format` has no such model, or the folder is not empty or cannot be written.
pub fn export(from: &Path, format: Format, out: &Path) -> Result<Exported> {
    let mut weights = LoadedWeights::at(from)?;
    if let Some(undecided) = weights.undecided.take() {
        return Err(undecided);
    }
    let Some((recipe, run)) = weights.resolved.as_ref() else {
        return Err(Error::Input {
            what: format!("`{}` does not say which encoder it is", weights.file.path().display()),
            hint: Some("`simmim import` with `--set` writes a file that does".into()),
        });
    };
    let Some(encoder) = recipe.encoder() else {
        return Err(Error::Input {
            what: "a tokenizer has no encoder to export".into(),
            hint: Some("give the output of `simmim pretrain` or `simmim finetune`".into()),
        });
    };
    if std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::Input {
            what: format!("`{}` is not empty", out.display()),
            hint: Some("choose a new folder for --out".into()),
        });
    }
    let model = Model::new(recipe, encoder, run, weights.preparation)?;
    let (mut exported, files, usage) = match format {
        Format::Onnx => onnx::write(&weights.file, &model, out)?,
        Format::Safetensors | Format::Timm | Format::Transformers => write_tensors(&weights.file, model, format, out)?,
    };
    let mut write = |name: &str, text: String| -> Result<()> {
        exported.files.push(out.join(name));
        Ok(write_atomically(&out.join(name), text.as_bytes())?)
    };
    for (name, value) in &files {
        write(name, format!("{value:#}\n"))?;
    }
    write("recipe.toml", recipe.to_toml())?;
    let log = if from.is_dir() { read_log(from).unwrap_or_default() } else { Vec::new() };
    let title = exported.model.clone();
    write("README.md", card::text(&title, recipe, run, &log, &usage))?;
    Ok(exported)
}

/// JSON files beside a model, by name.
type JsonFiles = Vec<(&'static str, Value)>;

/// Writes the tensors of a model; returns also what goes beside them and how they are loaded.
fn write_tensors(
    file: &WeightsFile,
    mut model: Model,
    format: Format,
    out: &Path,
) -> Result<(Exported, JsonFiles, String)> {
    let (height, width) = model.image_px;
    if height != width && format != Format::Safetensors {
        return Err(unfit(format, format!("images of {height} × {width} px are not square")));
    }
    for (name, _) in file.shapes() {
        let (shape, values) = file.tensor(&name)?.expect("the file lists the tensor");
        model.tensors.push(NamedTensor { name, shape, values });
    }
    let mut exported = Exported::default();
    let mut theirs = || model.tensors.iter_mut().for_each(|tensor| tensor.name = plain_name(&tensor.name).to_owned());
    let target = match format {
        Format::Safetensors | Format::Onnx => None,
        Format::Timm => {
            theirs();
            Some(timm::target(&mut model, &mut exported)?)
        }
        Format::Transformers => {
            theirs();
            Some(transformers::target(&mut model, &mut exported)?)
        }
    };
    let (tensors, metadata, files, usage) = match target {
        None => {
            exported.model = "the official names".into();
            let metadata = HashMap::from([(RECIPE_KEY.to_owned(), metadata(model.recipe, model.run.clone())?)]);
            let usage = "from safetensors.torch import load_file\n\ntensors = load_file(\"model.safetensors\")\n";
            (model.tensors, metadata, Vec::new(), usage.to_owned())
        }
        Some(target) => {
            let tensors = target.convention.to_theirs(file.path(), &model.tensors, target.prefix)?;
            exported.model = target.name;
            (tensors, HashMap::from([("format".to_owned(), "pt".to_owned())]), target.files, target.usage)
        }
    };
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    exported.tensors = tensors.len();
    exported.files.push(out.join("model.safetensors"));
    let (mut table, mut values) = (ParameterTable::default(), Vec::new());
    for tensor in tensors {
        table.add(&tensor.name, &tensor.shape);
        let range = table.iter().last().expect("a parameter was added").range.clone();
        values.resize(range.start, 0.0);
        values.extend(tensor.values);
    }
    values.resize(table.len(), 0.0);
    save_atomically(&exported.files[0], &table, &values, metadata)?;
    Ok((exported, files, usage))
}

impl<'a> Model<'a> {
    /// A model without its tensors.
    fn new(
        recipe: &'a AnyRecipe,
        encoder: &'a EncoderConfig,
        run: &'a RunInfo,
        preparation: Option<Augmentation>,
    ) -> Result<Self> {
        let (role, center) = match recipe {
            AnyRecipe::Finetune(recipe) => (Role::Classify, recipe.center_crop()),
            AnyRecipe::Pretrain(_) | AnyRecipe::Tokenizer(_) => (Role::Pretrain, Augmentation::Center),
        };
        let preparation = preparation.unwrap_or(center);
        let (image_px, channels) = (recipe.data().image_size.height_and_width(), recipe.data().channels);
        let spec = Encoder::new(encoder, role, image_px, channels, &mut Builder::default())?.spec();
        let (stride_px, grid) = (spec.stride_px, spec.feature_grid());
        Ok(Self { recipe, encoder, run, tensors: Vec::new(), image_px, channels, stride_px, grid, preparation })
    }

    /// How images are brought to the size of the network: whether whole, the size that the shorter side is resized to as a
    /// multiple of the crop, and by which filter.
    fn preparation(&self) -> (bool, f64, Filter) {
        match self.preparation {
            Augmentation::Whole(filter) => (true, 1.0, filter),
            Augmentation::CenterCrop(CenterCrop { enlargement, filter }) => (false, enlargement, filter),
            Augmentation::Center | Augmentation::RandomResizedCrop(_) | Augmentation::FineTuning(_) => {
                (false, 1.0, Filter::Bilinear)
            }
        }
    }

    /// Removes tensors, and says why.
    fn leave_out(&mut self, exported: &mut Exported, reason: &str, which: impl Fn(&str) -> bool) {
        let (out, kept) = std::mem::take(&mut self.tensors).into_iter().partition(|tensor| which(&tensor.name));
        self.tensors = kept;
        let out: Vec<NamedTensor> = out;
        exported.left_out.extend(out.into_iter().map(|tensor| (tensor.name, reason.to_owned())));
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.shape.as_slice())
    }

    /// The fine-tuning recipe, if this is a classifier.
    fn classifier(&self) -> Option<&FinetuneRecipe> {
        match self.recipe {
            AnyRecipe::Finetune(recipe) => Some(recipe),
            AnyRecipe::Pretrain(_) | AnyRecipe::Tokenizer(_) => None,
        }
    }

    /// Whether its head predicts every pixel by one linear layer, as `…ForMaskedImageModeling` do.
    fn predicts_pixels(&self) -> bool {
        let outputs = self.stride_px * self.stride_px * self.channels;
        let is_linear =
            !self.tensors.iter().any(|t| t.name.starts_with("decoder.") && !t.name.starts_with("decoder.0."));
        is_linear && self.shape("decoder.0.weight").is_some_and(|shape| shape[0] == outputs && shape[2..] == [1, 1])
    }

    /// Whether the pixels that its head predicts are not those of the input.
    fn predicts_other_pixels(&self) -> bool {
        match self.recipe {
            AnyRecipe::Pretrain(recipe) => recipe.target.kind != TargetKind::Pixels,
            AnyRecipe::Finetune(_) | AnyRecipe::Tokenizer(_) => false,
        }
    }

    /// Adds layer scales of ones where there are none: the same function.
    fn with_layer_scale(&mut self, config: &VitConfig, exported: &mut Exported) {
        if config.layer_scale > 0.0 {
            return;
        }
        for block in 0..config.depth {
            for gamma in ["gamma_1", "gamma_2"] {
                self.add(&format!("blocks.{block}.{gamma}"), &[config.width], vec![1.0; config.width]);
            }
        }
        exported.notes.push("layer scales of ones are added".into());
    }

    fn add(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        self.tensors.push(NamedTensor { name: name.to_owned(), shape: shape.to_vec(), values });
    }

    /// Adds the position of the class token to the token itself and removes its row of the table: the same function.
    fn without_class_position(&mut self, exported: &mut Exported) {
        let Some(at) = self.tensors.iter().position(|tensor| tensor.name == "pos_embed") else { return };
        let width = self.tensors[at].shape[2];
        let row: Vec<f32> = self.tensors[at].values.drain(..width).collect();
        self.tensors[at].shape[1] -= 1;
        for tensor in self.tensors.iter_mut().filter(|tensor| tensor.name == "cls_token") {
            tensor.values.iter_mut().zip(&row).for_each(|(value, position)| *value += position);
        }
        exported.notes.push("the position of the class token is added to the token".into());
    }

    /// Multiplies the last layer of each branch by its layer scale, which then is gone: the same function.
    fn fold_layer_scale(&mut self, exported: &mut Exported) {
        let mut scales = HashMap::new();
        for (gamma, layer) in [("gamma_1", "attn.proj"), ("gamma_2", "mlp.fc2")] {
            for tensor in self.tensors.iter().filter(|tensor| tensor.name.ends_with(gamma)) {
                let block = tensor.name.trim_end_matches(gamma);
                for part in ["weight", "bias"] {
                    scales.insert(format!("{block}{layer}.{part}"), tensor.values.clone());
                }
            }
        }
        if scales.is_empty() {
            return;
        }
        self.tensors.retain(|tensor| !tensor.name.ends_with("gamma_1") && !tensor.name.ends_with("gamma_2"));
        for tensor in &mut self.tensors {
            let Some(scale) = scales.get(&tensor.name) else { continue };
            let row = tensor.values.len() / scale.len();
            for (values, scale) in tensor.values.chunks_mut(row).zip(scale) {
                values.iter_mut().for_each(|value| *value *= scale);
            }
        }
        exported.notes.push("layer scale is multiplied into the last layer of each branch".into());
    }
}

/// The error for a model that a format cannot express.
fn unfit(format: Format, what: String) -> Error {
    let name = match format {
        Format::Safetensors => "safetensors",
        Format::Timm => "timm",
        Format::Transformers => "transformers",
        Format::Onnx => "ONNX",
    };
    Error::Input {
        what: format!("{name} has no such model: {what}"),
        hint: Some("`--format safetensors` writes any model, under the official names".into()),
    }
}

/// Values with the digits that tell them apart.
fn digits(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(crate::decimals::short).collect()
}
