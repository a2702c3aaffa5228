//! Starting a model from weights of another one: what fits is taken, position tables are resized, and what
//! became of every tensor is said by name (microsoft/SimMIM, `utils.py`, `load_pretrained`).

use crate::encoder::{Encode, Fit, Offered, plain_name};
use crate::error::{Error, Result};
use crate::found::Found;
use crate::weights::WeightsFile;
use simmim_engine::ParameterTable;
use std::collections::BTreeSet;

/// Buffers of the official models that are computed anew, not learnt.
const COMPUTED: &[&str] = &["relative_position_index", "relative_coords_table", "attn_mask"];

/// Weights to start from.
pub struct Pretrained {
    /// The tensors.
    pub file: WeightsFile,
    /// Patches of its images along the vertical and the horizontal axis, if known.
    pub grid: Option<(usize, usize)>,
    /// Whether its classification head, if there is one, is for the same classes.
    pub has_same_classes: bool,
}

impl Pretrained {
    /// Weights that were found, for a model that is to tell `classes` apart.
    pub fn new(found: Found, classes: &[String]) -> Self {
        let grid = found.known.as_ref().and_then(|(recipe, _)| {
            let (height, width) = recipe.data().image_size.height_and_width();
            let patch = recipe.encoder()?.patch_px();
            Some((height / patch, width / patch))
        });
        // a file that does not say may well be for the same
        let has_same_classes = found.known.as_ref().is_none_or(|(_, run)| run.classes == classes);
        Self { file: found.file, grid, has_same_classes }
    }
}

/// What became of every tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transfer {
    /// Parameters that took their values as they were.
    pub loaded: usize,
    /// Those of them whose tensor has another name, and that name.
    pub renamed: Vec<(String, String)>,
    /// Tables that were resized, with both shapes.
    pub resized: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Tensors that no parameter took, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Parameters that keep their first values.
    pub left: Vec<String>,
}

/// Puts what fits into `values`, the flat buffer of `table`.
///
/// # Errors
/// If a tensor is of another architecture, or none of the encoder's is there.
pub fn transfer(
    from: &Pretrained,
    encoder: &impl Encode,
    table: &ParameterTable,
    values: &mut [f32],
) -> Result<Transfer> {
    let names: Vec<String> = from.file.shapes()?.into_iter().map(|(name, _)| name).collect();
    let find = |plain: &str| names.iter().find(|name| plain_name(name) == plain);
    let (mut done, mut used) = (Transfer::default(), BTreeSet::new());
    for parameter in table.iter() {
        let known_as = encoder.known_as(&parameter.name);
        let Some(name) = known_as.iter().find_map(|plain| find(plain)) else {
            done.left.push(parameter.name.clone());
            continue;
        };
        used.insert(name.as_str());
        if plain_name(name) != plain_name(&parameter.name) {
            done.renamed.push((name.clone(), parameter.name.clone()));
        }
        let (shape, found) = from.file.tensor(name)?.expect("the file lists the tensor");
        let is_head = parameter.name.starts_with("head.");
        let fit = match is_head {
            true if !from.has_same_classes || shape != parameter.shape => Fit::Anew("it is for other classes".into()),
            true => Fit::Same,
            false => encoder.fit(parameter, &Offered { shape: &shape, values: &found, grid: from.grid }),
        };
        let out = &mut values[parameter.range.clone()];
        match fit {
            Fit::Same => {
                out.copy_from_slice(&found);
                done.loaded += 1;
            }
            Fit::Resized(resized) => {
                out.copy_from_slice(&resized);
                done.resized.push((parameter.name.clone(), shape, parameter.shape.clone()));
            }
            Fit::Anew(reason) => {
                done.skipped.push((name.clone(), reason));
                done.left.push(parameter.name.clone());
            }
            Fit::Other => {
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
    done.skipped.extend(unused.map(|name| (name.clone(), "this model has no such part".to_owned())));
    Ok(done)
}

impl Transfer {
    /// Everything in lines, similar names in one.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{} tensors loaded as they are", self.loaded)];
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
        if !self.left.is_empty() {
            lines.push(format!("left at their initial values: {}", self.left.join(", ")));
        }
        lines
    }
}
