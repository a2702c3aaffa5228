//! DALL-E's encoder (openai/DALL-E, `dall_e/encoder.py`; arXiv:2102.12092) as a tokenizer: its tokens are BEiT's target
//! (arXiv:2106.08254). Its weights are a state dict of the public class, or transformers' copy of it
//! (huggingface/transformers, `models/flava/modeling_flava.py`, `FlavaImageCodebook`).

use super::{Encoder, TokenizerConfig};
use crate::error::Result;
use crate::weights::{Builder, Import, NamedTensor, WeightsFile, save_atomically};
use simmim_engine::ParameterTable;
use std::collections::HashMap;
use std::path::Path;

/// What was written.
pub(crate) struct ImportedEncoder {
    pub(crate) import: Import,
    /// Number of values.
    pub(crate) parameters: usize,
}

/// Whether a file with these names holds the encoder.
pub(crate) fn is_encoder(file: &WeightsFile) -> bool {
    file.shapes()
        .iter()
        .any(|(name, _)| ours(name).as_deref() == Some("encoder.blocks.group_1.block_1.res_path.conv_1.w"))
}

/// Writes the encoder in `file` to `out`, as a tokenizer without a decoder.
///
/// # Errors
/// If a tensor is missing or has another shape than the others ask for, or `out` cannot be written.
pub(crate) fn import_encoder(file: &WeightsFile, out: &Path) -> Result<ImportedEncoder> {
    let (mut tensors, mut left_out) = (Vec::new(), Vec::new());
    for (name, _) in file.shapes() {
        match ours(&name) {
            Some(renamed) => {
                let (shape, values) = file.tensor(&name)?.expect("the file lists the tensor");
                tensors.push(NamedTensor { name: renamed, shape, values });
            }
            None => left_out.push((name, "it is not of the encoder".to_owned())),
        }
    }
    let is_of_transformers = file.shapes().iter().any(|(name, _)| name.ends_with("blocks.input.weight"));
    let taken = tensors.len();
    let renamed = WeightsFile::of_tensors(file.path(), HashMap::new(), tensors);
    let config = TokenizerConfig::of_file(&renamed)?;
    let mut builder = Builder::default();
    builder.scope("encoder", |b| Encoder::new(&config, b));
    let table: ParameterTable = builder.finish().0;
    let values = renamed.flat(&table, "")?;
    let unused: Vec<String> = renamed.shapes().into_iter().map(|(name, _)| name).collect();
    let unused = unused.into_iter().filter(|name| !table.iter().any(|parameter| parameter.name == *name));
    left_out.extend(unused.map(|name| (name, "the encoder has no such tensor".to_owned())));
    save_atomically(out, &table, &values, HashMap::new())?;
    let convention = if is_of_transformers { "transformers' copy of DALL-E's encoder" } else { "DALL-E's encoder" };
    let notes = vec![
        format!(
            "a tokenizer of {} tokens, each for {} px: `--set target.kind=tokens --set target.tokenizer={}`",
            config.vocabulary,
            config.stride_px(),
            out.display()
        ),
        "without a decoder, pictures of a run show each token in a color of its own".to_owned(),
    ];
    let import = Import { convention: convention.into(), notes, tensors: taken, left_out, assumed: Vec::new() };
    Ok(ImportedEncoder { import, parameters: table.len() })
}

/// The name of a tensor here; `None` if it is not of the encoder.
fn ours(name: &str) -> Option<String> {
    let name = name.strip_prefix("image_codebook.").unwrap_or(name);
    let renamed = match (name.strip_suffix(".weight"), name.strip_suffix(".bias")) {
        (Some(layer), _) => format!("{layer}.w"),
        (_, Some(layer)) => format!("{layer}.b"),
        (None, None) => name.to_owned(),
    };
    let renamed = renamed.replace(".group.block_", ".block_").replace(".res_path.path.", ".res_path.");
    let parts: Vec<&str> = renamed.split('.').collect();
    let is_layer = |part: &str| ["w", "b"].contains(&part);
    let is_of_encoder = match parts[..] {
        ["blocks", "input", layer] | ["blocks", "output", "conv", layer] => is_layer(layer),
        ["blocks", group, block, "id_path", layer] | ["blocks", group, block, "res_path", _, layer] => {
            group.starts_with("group_") && block.starts_with("block_") && is_layer(layer)
        }
        _ => false,
    };
    is_of_encoder.then(|| format!("encoder.{renamed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_files_are_those_of_the_encoder_here() {
        for (theirs, expected) in [
            ("blocks.input.w", Some("encoder.blocks.input.w")),
            ("blocks.input.bias", Some("encoder.blocks.input.b")),
            ("blocks.group_2.block_1.id_path.w", Some("encoder.blocks.group_2.block_1.id_path.w")),
            ("blocks.group_1.block_2.res_path.conv_4.b", Some("encoder.blocks.group_1.block_2.res_path.conv_4.b")),
            (
                "image_codebook.blocks.group_1.group.block_2.res_path.path.conv_4.weight",
                Some("encoder.blocks.group_1.block_2.res_path.conv_4.w"),
            ),
            ("blocks.output.conv.weight", Some("encoder.blocks.output.conv.w")),
            ("blocks.0.attn.qkv.weight", None),
            ("blocks.0.norm1.bias", None),
            ("flava.image_model.layernorm.weight", None),
        ] {
            assert_eq!(ours(theirs).as_deref(), expected, "{theirs}");
        }
    }
}
