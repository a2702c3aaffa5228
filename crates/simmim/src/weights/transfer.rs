//! Transfer of weights to another model: tensors that fit are loaded, position tables are resized, and a report lists
//! all others by name (microsoft/SimMIM, `utils.py`, `load_pretrained`).

use super::{LoadedWeights, WeightsFile};
use crate::encoders::{Encode, Fit, SourceTensor, plain_name};
use crate::error::{Error, Result};
use simmim_engine::ParameterTable;
use std::collections::BTreeSet;

/// Buffers in official checkpoints that are computed, not learned, and so are ignored.
const COMPUTED: &[&str] = &["relative_position_index", "relative_coords_table", "attn_mask"];

/// Weights to start from.
pub struct Pretrained {
    /// The tensors.
    pub file: WeightsFile,
    /// Patch grid `(h, w)` of its images, if known.
    pub grid: Option<(usize, usize)>,
    /// Whether its classification head, if it has one, is for the same classes.
    pub has_same_classes: bool,
}

impl Pretrained {
    /// Weights to start a model with these `classes` from.
    pub fn new(weights: LoadedWeights, classes: &[String]) -> Self {
        let grid = weights.resolved.as_ref().and_then(|(recipe, _)| {
            let (height, width) = recipe.data().image_size.height_and_width();
            let patch = recipe.encoder()?.patch_px();
            Some((height / patch, width / patch))
        });
        // a file without this information is assumed to have the same classes
        let has_same_classes = weights.resolved.as_ref().is_none_or(|(_, run)| run.classes == classes);
        Self { file: weights.file, grid, has_same_classes }
    }
}

/// A report of what happened to each tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transfer {
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
    let (mut report, mut used) = (Transfer::default(), BTreeSet::new());
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
        let is_head = parameter.name.starts_with("head.");
        let fit = match is_head {
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
    let is_computed = |name: &str| COMPUTED.iter().any(|part| name.ends_with(part));
    let unused = names.iter().filter(|name| !used.contains(name.as_str()) && !is_computed(name));
    report.skipped.extend(unused.map(|name| (name.clone(), "the model has no such parameter".to_owned())));
    Ok(report)
}

impl Transfer {
    /// The report as lines of text.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{} tensors loaded unchanged", self.loaded)];
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
