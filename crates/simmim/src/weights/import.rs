//! Weights of other programs: read, translated to our names, and their recipe deduced.

use super::architecture::{Beside, deduce};
use super::conventions::{NamedTensor, is_computed, is_read, recognized};
use super::{RECIPE_KEY, WeightsFile};
use crate::encoders::plain_name;
use crate::error::{Error, Result};
use crate::recipe::AnyRecipe;
use crate::run::RunInfo;
use simmim_data::Augmentation;

/// What happened to the tensors of another program's file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Import {
    /// The convention that it was recognized as.
    pub convention: String,
    /// Which part of a file of `torch.save` was read, and what else is in it.
    pub notes: Vec<String>,
    /// Number of tensors that were taken over, under our names.
    pub tensors: usize,
    /// Tensors that were not taken over, with the reason.
    pub left_out: Vec<(String, String)>,
    /// What was assumed because the file does not say it.
    pub assumed: Vec<String>,
}

impl Import {
    /// The report as lines of text.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("recognized as {}: {} tensors", self.convention, self.tensors)];
        lines.extend(self.notes.iter().cloned());
        lines.extend(self.assumed.iter().map(|what| format!("assumed: {what}")));
        lines.extend(self.left_out.iter().map(|(name, reason)| format!("left out {name}: {reason}")));
        lines
    }
}

/// Weights that were translated, with what is known about them.
pub(super) struct Imported {
    pub(super) file: WeightsFile,
    pub(super) resolved: Option<(AnyRecipe, RunInfo)>,
    /// Why no recipe could be deduced.
    pub(super) undecided: Option<Error>,
    /// How images are brought to the size of the network, if a file beside the weights says it.
    pub(super) preparation: Option<Augmentation>,
    pub(super) report: Import,
}

/// Translates a file without a recipe of ours. Edits say what neither the file nor those beside it say.
///
/// # Errors
/// If the file is of an architecture that this program does not have, or a file beside it contradicts it.
pub(super) fn import(file: WeightsFile, edits: &[String]) -> Result<Imported> {
    let names: Vec<String> = file.shapes().into_iter().map(|(name, _)| name).collect();
    let beside = Beside::of(file.path())?;
    let convention = recognized(&names);
    let is_vit_or_swin = |name: &String| {
        let name = plain_name(name);
        name.starts_with("blocks.0.attn.") || name.starts_with("layers.0.blocks.0.attn.")
    };
    if convention.is_none() && !names.iter().any(is_vit_or_swin) {
        let report = Import::default();
        return Ok(Imported { file, resolved: None, undecided: None, preparation: None, report });
    }
    let mut report = Import { notes: file.notes().to_vec(), ..Import::default() };
    let mut tensors = match convention {
        Some(convention) => {
            let ours = convention.to_ours(&file)?;
            report.convention = convention.name.to_owned();
            report.left_out = ours.left_out;
            if ours.leaves_key_bias_out {
                let reason = "attention adds it to all scores of a query alike, which changes no weight";
                report.left_out.push(("the bias of keys".into(), reason.into()));
            }
            ours.tensors
        }
        None => {
            report.convention = "official SimMIM".into();
            own(&file, &names)?
        }
    };
    tensors.retain(|tensor| !tensor.values.is_empty()); // register tokens, if there are none
    drop_head_of_class_token(&mut tensors, &mut report);
    let has_registers = tensors.iter().any(|tensor| plain_name(&tensor.name) == "register_tokens");
    tensors.iter_mut().for_each(|tensor| with_our_shape(tensor, has_registers));
    let computed: Vec<NamedTensor> = file
        .shapes()
        .into_iter()
        .filter(|(name, _)| is_computed(name))
        .map(|(name, shape)| {
            let values = if is_read(&name) { file.tensor(&name)?.map(|(_, values)| values) } else { None };
            Ok(NamedTensor { name, shape, values: values.unwrap_or_default() })
        })
        .collect::<Result<_>>()?;
    let deduced = deduce(file.path(), &tensors, &computed, &beside, edits);
    let mut preparation = None;
    let (resolved, undecided) = match deduced {
        Ok(deduced) => {
            report.assumed = deduced.assumed;
            preparation = deduced.preparation.augmentation;
            (Some((deduced.recipe, deduced.run)), None)
        }
        Err(error @ Error::Undecided { .. }) => (None, Some(error)),
        Err(other) => return Err(other),
    };
    // only pre-trained models have the prefix
    let is_pretrained = !matches!(resolved, Some((AnyRecipe::Finetune(_), _)));
    for tensor in &mut tensors {
        let plain = plain_name(&tensor.name);
        let is_of_encoder = !plain.starts_with("decoder.") && !plain.starts_with("head.");
        tensor.name = if is_pretrained && is_of_encoder { format!("encoder.{plain}") } else { plain.to_owned() };
    }
    report.tensors = tensors.len();
    let metadata = file.metadata().iter().filter(|(key, _)| *key != RECIPE_KEY);
    let metadata = metadata.map(|(key, value)| (key.clone(), value.clone())).collect();
    let file = WeightsFile::of_tensors(file.path(), metadata, tensors);
    Ok(Imported { file, resolved, undecided, preparation, report })
}

/// The tensors of a file that has our names.
fn own(file: &WeightsFile, names: &[String]) -> Result<Vec<NamedTensor>> {
    let mut tensors = Vec::new();
    for name in names.iter().filter(|name| !is_computed(name)) {
        let (shape, values) = file.tensor(name)?.expect("the file lists the tensor");
        // the former name in published weights (microsoft/Swin-Transformer, `utils_simmim.py`)
        tensors.push(NamedTensor { name: name.replace("rpe_mlp", "cpb_mlp"), shape, values });
    }
    Ok(tensors)
}

/// Gives the tokens and positions of DINOv2 our shapes: a mask token of `[1, D]` has one more axis here, and positions
/// without a row for the class token, as timm has them where there are registers, get one of zeros.
fn with_our_shape(tensor: &mut NamedTensor, has_registers: bool) {
    match (plain_name(&tensor.name), &tensor.shape[..]) {
        ("mask_token", [1, width]) => tensor.shape = vec![1, 1, *width],
        // a class token and a square of patches are no square
        ("pos_embed", [1, rows, width]) if has_registers && rows.isqrt().pow(2) == *rows => {
            let (rows, width) = (*rows, *width);
            tensor.values.splice(0..0, std::iter::repeat_n(0.0, width));
            tensor.shape = vec![1, rows + 1, width];
        }
        _ => {}
    }
}

/// Leaves out a head over the class token: our classifiers read the mean of the patch tokens, normalized by `fc_norm`.
fn drop_head_of_class_token(tensors: &mut Vec<NamedTensor>, report: &mut Import) {
    let has = |name: &str| tensors.iter().any(|tensor| plain_name(&tensor.name) == name);
    if !has("cls_token") || has("fc_norm.weight") {
        return;
    }
    let (heads, others) = std::mem::take(tensors).into_iter().partition(|tensor| tensor.name.starts_with("head."));
    *tensors = others;
    let heads: Vec<NamedTensor> = heads;
    let reason = "it reads the class token; a classifier of this program reads the mean of the patch tokens";
    report.left_out.extend(heads.into_iter().map(|head| (head.name, reason.to_owned())));
}
