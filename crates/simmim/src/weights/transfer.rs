//! Transfer of weights to another model: tensors that fit are loaded, position tables are resized, and a report lists
//! all others by name (microsoft/SimMIM, `utils.py`, `load_pretrained`).

use super::channels::with_channels;
use super::conventions::is_computed;
use super::{ChannelRule, Import, LoadedWeights, WeightsFile};
use crate::encoders::{Encode, EncoderConfig, Fit, SourceTensor, UnseenDifference, plain_name};
use crate::error::{Error, Result};
use simmim_engine::ParameterTable;
use std::collections::BTreeSet;

/// The weight of the patch embedding, the only parameter whose shape depends on the channels of an image.
const PATCH_EMBEDDING: &str = "patch_embed.proj.weight";

/// Weights to start from.
pub struct Pretrained {
    /// The tensors.
    pub file: WeightsFile,
    /// Patch grid `(h, w)` of its images, if known.
    pub grid: Option<(usize, usize)>,
    /// Whether its classification head, if it has one, is for the same classes.
    pub has_same_classes: bool,
    /// How its patch embedding is adapted to another number of channels; `None`: that is an error.
    pub channels: Option<ChannelRule>,
    /// What was taken over from the file of another program.
    pub import: Option<Import>,
    /// In which way the model that is started computes otherwise.
    pub notes: Vec<String>,
}

impl Pretrained {
    /// Weights to start a model with this encoder and these `classes` from.
    ///
    /// # Errors
    /// If the encoder of the weights differs in a value that changes no shape, such as a ViT's number of heads: that would quietly
    /// spoil features.
    pub fn new(weights: LoadedWeights, encoder: &EncoderConfig, classes: &[String]) -> Result<Self> {
        let trained = weights.resolved.as_ref().and_then(|(recipe, _)| recipe.encoder());
        if let Some(UnseenDifference { theirs, ours, edit }) = trained.and_then(|from| encoder.unseen_difference(from))
        {
            return Err(Error::Input {
                what: format!("`{}` has {theirs}, and the recipe {ours}", weights.file.path().display()),
                hint: Some(format!("--set {edit}")),
            });
        }
        let other_eps = trained.map(EncoderConfig::norm_eps).filter(|eps| *eps != encoder.norm_eps()).map(|eps| {
            format!(
                "its layer norms add {eps:e} to the variance, and those of the recipe {:e}: `--set encoder.norm_eps={eps:e}` \
                 computes as it did",
                encoder.norm_eps()
            )
        });
        let grid = weights.resolved.as_ref().and_then(|(recipe, _)| {
            let (height, width) = recipe.data().image_size.height_and_width();
            let patch = recipe.encoder()?.patch_px();
            Some((height / patch, width / patch))
        });
        // a file without this information is assumed to have the same classes
        let has_same_classes = weights.resolved.as_ref().is_none_or(|(_, run)| run.classes == classes);
        let other_positions = trained.and_then(|trained| encoder.other_positions(trained));
        let notes = other_eps.into_iter().chain(other_positions).collect();
        Ok(Self { file: weights.file, grid, has_same_classes, channels: None, import: weights.import, notes })
    }
}

/// A report of what happened to each tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transfer {
    /// What was taken over from the file of another program.
    pub import: Option<Import>,
    /// In which way the model computes otherwise than that of the weights.
    pub notes: Vec<String>,
    /// Number of parameters that were loaded unchanged.
    pub loaded: usize,
    /// Tensors that were loaded under another name: name in the file, and name of the parameter.
    pub renamed: Vec<(String, String)>,
    /// Tables that were resized, with the shapes before and after.
    pub resized: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Tensors that were not loaded, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Parameters that keep their initial values.
    pub initialized: Vec<String>,
}

/// Loads the tensors that fit into `values`, the flat buffer of `table`.
///
/// # Errors
/// If a tensor is of another architecture, or the file has no tensor of the encoder's blocks.
pub fn transfer(
    from: &Pretrained,
    encoder: &impl Encode,
    table: &ParameterTable,
    values: &mut [f32],
) -> Result<Transfer> {
    let names: Vec<String> = from.file.shapes().into_iter().map(|(name, _)| name).collect();
    let find = |plain: &str| names.iter().find(|name| plain_name(name) == plain);
    let head = HeadFit::of(from, table, &names);
    let mut report = Transfer { import: from.import.clone(), notes: from.notes.clone(), ..Transfer::default() };
    let mut used = BTreeSet::new();
    for parameter in table.iter() {
        let source_names = encoder.source_names(&parameter.name);
        let Some(name) = source_names.iter().find_map(|plain| find(plain)) else {
            report.initialized.push(parameter.name.clone());
            continue;
        };
        used.insert(name.as_str());
        if plain_name(name) != plain_name(&parameter.name) {
            report.renamed.push((name.clone(), parameter.name.clone()));
        }
        let (shape, found) = from.file.tensor(name)?.expect("the file lists the tensor");
        let is_adapted = plain_name(&parameter.name) == PATCH_EMBEDDING
            && matches!((&shape[..], &parameter.shape[..]), ([a, from, b @ ..], [c, to, d @ ..]) if (a, b) == (c, d) && from != to);
        if is_adapted {
            let rule = from.channels.ok_or_else(|| Error::Input {
                what: format!(
                    "`{}` is for images of {} channels, and the recipe's have {}",
                    from.file.path().display(),
                    shape[1],
                    parameter.shape[1]
                ),
                hint: Some(format!(
                    "images of {} channels are read with --set data.channels={}, normalized as the weights know them; for \
                     others, say how to adapt the weights: `--channels repeat`, `mean` or `zero`",
                    shape[1], shape[1]
                )),
            })?;
            let adapted = with_channels(&found, &shape, parameter.shape[1], rule);
            values[parameter.range.clone()].copy_from_slice(&adapted);
            report.resized.push((parameter.name.clone(), shape, parameter.shape.clone()));
            continue;
        }
        let is_classifier = parameter.name.starts_with("head.");
        let fit = match is_classifier {
            false if is_of_head(&parameter.name) => match &head {
                HeadFit::Whole => Fit::Same,
                HeadFit::Another(reason) => Fit::Reinitialized(reason.clone()),
            },
            true if !from.has_same_classes || shape != parameter.shape => {
                Fit::Reinitialized("it is for other classes".into())
            }
            true => Fit::Same,
            false => encoder.fit(parameter, &SourceTensor { shape: &shape, values: &found, grid: from.grid }),
        };
        let out = &mut values[parameter.range.clone()];
        match fit {
            Fit::Same => {
                out.copy_from_slice(&found);
                report.loaded += 1;
            }
            Fit::Resized(resized) => {
                out.copy_from_slice(&resized);
                report.resized.push((parameter.name.clone(), shape, parameter.shape.clone()));
            }
            Fit::Reinitialized(reason) => {
                report.skipped.push((name.clone(), reason));
                report.initialized.push(parameter.name.clone());
            }
            Fit::Incompatible => {
                return Err(Error::WeightShape {
                    path: from.file.path().to_owned(),
                    tensor: name.clone(),
                    found: shape,
                    expected: parameter.shape.clone(),
                });
            }
        }
    }
    let is_of_blocks = |name: &str| name.contains("blocks.");
    if !used.iter().any(|name| is_of_blocks(name)) {
        let missing = table.iter().find(|p| is_of_blocks(&p.name)).map(|p| p.name.clone()).unwrap_or_default();
        return Err(Error::WeightMissing { path: from.file.path().to_owned(), tensor: missing });
    }
    let unused = names.iter().filter(|name| !used.contains(name.as_str()) && !is_computed(name));
    report.skipped.extend(unused.map(|name| (name.clone(), "the model has no such parameter".to_owned())));
    Ok(report)
}

/// Whether a parameter is of the head of pre-training.
fn is_of_head(parameter: &str) -> bool {
    parameter.starts_with("decoder.")
}

/// Whether the head of the weights is that of the model. A part of another head would be of no use.
enum HeadFit {
    Whole,
    /// It is another one, for this reason.
    Another(String),
}

impl HeadFit {
    fn of(from: &Pretrained, table: &ParameterTable, names: &[String]) -> Self {
        for parameter in table.iter().filter(|parameter| is_of_head(&parameter.name)) {
            let Some(shape) = names.iter().find(|name| **name == parameter.name).and_then(|name| from.file.shape(name))
            else {
                return Self::Another(format!("it is of a head without `{}`", parameter.name));
            };
            if shape != parameter.shape {
                return Self::Another(format!(
                    "`{}` of that head has the shape {:?}, and of this one {:?}",
                    parameter.name, shape, parameter.shape
                ));
            }
        }
        Self::Whole
    }
}

impl Transfer {
    /// The report as lines of text.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.import.as_ref().map_or(Vec::new(), Import::lines);
        lines.extend(self.notes.iter().cloned());
        lines.push(format!("{} tensors loaded unchanged", self.loaded));
        let mut tables: Vec<&String> = self.renamed.iter().map(|(name, _)| name).collect();
        tables.dedup();
        for table in tables {
            let to: Vec<&str> = self
                .renamed
                .iter()
                .filter(|(name, _)| name == table)
                .map(|(_, parameter)| parameter.as_str())
                .collect();
            lines.push(format!("copied {table} to {}", to.join(", ")));
        }
        for (name, from, to) in &self.resized {
            lines.push(format!("resized {name} from {from:?} to {to:?}"));
        }
        for (name, reason) in &self.skipped {
            lines.push(format!("skipped {name}: {reason}"));
        }
        if !self.initialized.is_empty() {
            lines.push(format!("left at their initial values: {}", self.initialized.join(", ")));
        }
        lines
    }
}
