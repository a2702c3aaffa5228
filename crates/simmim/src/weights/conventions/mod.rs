//! Conventions of other programs for the names and layouts of weights: recognized from the names, and translated at the
//! file's edge. Everything inside has the official SimMIM names.
//!
//! Each convention is a file of two-way rules. A tensor that no rule is for and that belongs to the encoder means another
//! architecture, whose features this program would quietly get wrong: it is an error. Any other is listed by name.

mod hf_beit;
mod hf_dinov2;
mod hf_dinov3;
mod hf_swin;
mod hf_swin_v2;
mod hf_vit;
mod rule;
mod timm_beit;
mod timm_dinov3;
mod timm_swin;
mod timm_vit;

pub(super) use hf_beit::CONVENTION as HF_BEIT;
pub(super) use hf_dinov2::{CONVENTION as HF_DINOV2, WITH_SWIGLU as HF_DINOV2_SWIGLU};
pub(super) use hf_dinov3::{CONVENTION as HF_DINOV3, WITH_SWIGLU as HF_DINOV3_SWIGLU};
pub(super) use hf_swin::CONVENTION as HF_SWIN;
pub(super) use hf_swin_v2::CONVENTION as HF_SWIN_V2;
pub(super) use hf_vit::CONVENTION as HF_VIT;
pub use rule::NamedTensor;
pub(super) use timm_beit::CONVENTION as TIMM_BEIT;
pub(super) use timm_dinov3::CONVENTION as TIMM_DINOV3;
pub(super) use timm_swin::{SWIN as TIMM_SWIN, SWIN_V2 as TIMM_SWIN_V2};
pub(super) use timm_vit::CONVENTION as TIMM_VIT;

use super::WeightsFile;
use crate::error::{Error, Result};
use rule::{From, Rule, convert, fits, renamed};
use std::collections::BTreeMap;
use std::path::Path;

/// A convention of another program.
#[derive(Debug)]
pub(super) struct Convention {
    /// What it is called in reports.
    pub(super) name: &'static str,
    /// First parts of the names that a model with a head puts before those of its encoder; exported with the first.
    prefixes: &'static [&'static str],
    /// Later names of the same tensors, and the names that files have.
    later: &'static [(&'static str, &'static str)],
    rules: &'static [&'static [Rule]],
    /// Tensors that are known and left out, with the reason.
    left_out: &'static [(&'static str, &'static str)],
    /// The same, for all names that begin with these letters.
    left_out_prefixes: &'static [(&'static str, &'static str)],
    /// Tensors that change features in a way that this program does not compute, and what they are.
    refused: &'static [(&'static str, &'static str)],
}

/// Tensors with our names, and what was not taken over.
#[derive(Debug, Default)]
pub(super) struct Ours {
    pub(super) tensors: Vec<NamedTensor>,
    /// Tensors that were not taken over, with the reason.
    pub(super) left_out: Vec<(String, String)>,
    /// Whether the bias of keys was left out.
    pub(super) leaves_key_bias_out: bool,
}

/// Ends of the names of buffers that are computed, not learned.
const COMPUTED: &[&str] = &[
    "relative_position_index",
    "relative_coords_table",
    "attn_mask",
    "position_ids",
    "num_batches_tracked",
    "rope_embed.periods",
    "attn.qkv.bias_mask",
];

/// Parts of names that only an encoder's tensors have.
const OF_ENCODER: &[&str] = &["blocks.", "layers.", "layer.", "embed", "norm", "token"];

/// Whether this buffer is computed, not learned, and so is ignored.
pub(super) fn is_computed(name: &str) -> bool {
    COMPUTED.iter().any(|part| name.ends_with(part))
}

/// Whether the values of this computed buffer say something that no learned tensor does.
pub(super) fn is_read(name: &str) -> bool {
    name.ends_with("relative_coords_table")
}

/// The convention of a file with these names; `None` if they are ours, or of no convention.
pub(super) fn recognized(names: &[String]) -> Option<&'static Convention> {
    let has = |convention: &Convention, pattern: &str| names.iter().any(|name| fits(pattern, &convention.stored(name)));
    let is_vit = |convention: &&&Convention| {
        ["attention.attention.query.weight", "layernorm_before.weight"]
            .iter()
            .all(|part| has(convention, &format!("encoder.layer.{{}}.{part}")))
    };
    if let Some(named) = [&hf_vit::CONVENTION, &hf_beit::CONVENTION].iter().find(is_vit) {
        let has = |pattern: &str| has(named, pattern);
        let has_no_key_bias = has("encoder.layer.{}.attention.attention.query.bias")
            && !has("encoder.layer.{}.attention.attention.key.bias");
        let is_beit = has("encoder.layer.{}.lambda_1")
            || has("encoder.relative_position_bias.relative_position_bias_table")
            || has("encoder.layer.{}.attention.attention.relative_position_bias.relative_position_bias_table");
        return Some(if is_beit || has_no_key_bias { &hf_beit::CONVENTION } else { named });
    }
    if has(&hf_dinov2::CONVENTION, "encoder.layer.{}.layer_scale1.lambda1") {
        let is_gated = ["weights_in.weight", "gate_proj.weight"]
            .iter()
            .any(|part| has(&hf_dinov2::CONVENTION, &format!("encoder.layer.{{}}.mlp.{part}")));
        return Some(if is_gated { &hf_dinov2::WITH_SWIGLU } else { &hf_dinov2::CONVENTION });
    }
    if has(&hf_dinov3::CONVENTION, "layer.{}.attention.q_proj.weight")
        && has(&hf_dinov3::CONVENTION, "layer.{}.layer_scale1.lambda1")
    {
        let is_gated = has(&hf_dinov3::CONVENTION, "layer.{}.mlp.gate_proj.weight");
        return Some(if is_gated { &hf_dinov3::WITH_SWIGLU } else { &hf_dinov3::CONVENTION });
    }
    if has(&hf_swin_v2::CONVENTION, "encoder.layers.{}.blocks.{}.attention.self.logit_scale") {
        return Some(&hf_swin_v2::CONVENTION);
    }
    if has(&hf_swin::CONVENTION, "encoder.layers.{}.blocks.{}.attention.self.query.weight") {
        return Some(&hf_swin::CONVENTION);
    }
    let is_there = |name: &str| names.iter().any(|other| unwrapped(other) == name);
    let merges_late =
        is_there("layers.1.downsample.reduction.weight") && !is_there("layers.0.downsample.reduction.weight");
    if merges_late || is_there("layers.0.blocks.0.attn.qkv.weight") && is_there("head.fc.weight") {
        let is_v2 = is_there("layers.0.blocks.0.attn.logit_scale");
        return Some(if is_v2 { &timm_swin::SWIN_V2 } else { &timm_swin::SWIN });
    }
    let has_places = is_there("pos_embed") || names.iter().any(|name| name.ends_with("relative_position_bias_table"));
    if is_there("blocks.0.attn.qkv.weight") && !has_places {
        return Some(&timm_dinov3::CONVENTION);
    }
    let is_timm_vit = is_there("blocks.0.attn.qkv.bias") || is_there("blocks.0.ls1.gamma");
    is_timm_vit.then_some(&timm_vit::CONVENTION)
}

/// The name without what data-parallel training puts before it.
fn unwrapped(name: &str) -> &str {
    name.strip_prefix("module.").unwrap_or(name)
}

impl Convention {
    /// The name that files have, without the prefix of a model with a head.
    fn stored(&self, name: &str) -> String {
        let name = unwrapped(name);
        let stripped = self.prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)?.strip_prefix('.'));
        let name = stripped.unwrap_or(name);
        self.later.iter().find_map(|(later, stored)| renamed(later, stored, name)).unwrap_or_else(|| name.to_owned())
    }

    /// Translates a file to our names.
    ///
    /// # Errors
    /// If a tensor is missing, of another shape than those it goes with, or of an architecture that this program does
    /// not have.
    pub(super) fn to_ours(&self, file: &WeightsFile) -> Result<Ours> {
        let not_ours = |what: String| Error::Input {
            what: format!("`{}`, taken as {}: {what}", file.path().display(), self.name),
            hint: Some("`simmim inspect FILE` shows what is in it; docs/WEIGHTS.md lists what can be imported".into()),
        };
        let mut stored: BTreeMap<String, String> = BTreeMap::new();
        for (name, _) in file.shapes() {
            let as_stored = self.stored(&name);
            if let Some(twin) = stored.insert(as_stored.clone(), name.clone()) {
                return Err(not_ours(format!("`{twin}` and `{name}` are both `{as_stored}`")));
            }
        }
        if let Some((name, what)) =
            self.refused.iter().find_map(|(pattern, what)| Some((stored.keys().find(|n| fits(pattern, n))?, what)))
        {
            return Err(not_ours(format!("tensor `{name}` is {what}, which this program's encoder does not have")));
        }
        let names: Vec<String> = stored.keys().filter(|name| !is_computed(name)).cloned().collect();
        let names: Vec<String> = names.into_iter().filter(|name| self.reason_to_leave_out(name).is_none()).collect();
        let read = |name: &str| Ok(file.tensor(&stored[name])?.expect("the file lists the tensor"));
        let converted = convert(self.rules, From::Theirs, &names, read)?;
        if let Some(name) = converted.missing.first() {
            return Err(Error::WeightMissing { path: file.path().to_owned(), tensor: name.clone() });
        }
        if let Some(what) = converted.unequal.first() {
            return Err(not_ours(what.clone()));
        }
        if let Some(name) = converted.unknown.iter().find(|name| OF_ENCODER.iter().any(|part| name.contains(part))) {
            return Err(not_ours(format!("tensor `{name}` is of an architecture that this program does not have")));
        }
        let known =
            stored.keys().filter_map(|name| Some((stored[name].clone(), self.reason_to_leave_out(name)?.to_owned())));
        let unknown =
            converted.unknown.iter().map(|name| (stored[name].clone(), format!("{} has no such tensor", self.name)));
        let left_out = known.chain(unknown).collect();
        Ok(Ours { tensors: converted.tensors, left_out, leaves_key_bias_out: converted.leaves_rows_out })
    }

    /// Translates our tensors, read from `path`; `prefix` goes before the names of the encoder's.
    ///
    /// # Errors
    /// If a tensor has no counterpart, or one that goes with it is missing.
    pub(super) fn to_theirs(&self, path: &Path, tensors: &[NamedTensor], prefix: &str) -> Result<Vec<NamedTensor>> {
        let ours: BTreeMap<&str, &NamedTensor> = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let names: Vec<String> = ours.keys().map(|name| (*name).to_owned()).collect();
        let read = |name: &str| Ok((ours[name].shape.clone(), ours[name].values.clone()));
        let converted = convert(self.rules, From::Ours, &names, read)?;
        if let Some(name) = converted.missing.first() {
            return Err(Error::WeightMissing { path: path.to_owned(), tensor: name.clone() });
        }
        if let Some(what) = converted.unequal.first().or(converted.unknown.first()) {
            return Err(Error::Input {
                what: format!("`{}`: {} has no counterpart of `{what}`", path.display(), self.name),
                hint: Some("`--format safetensors` writes any model, under the official names".into()),
            });
        }
        let is_beside = |name: &str| ["classifier.", "decoder."].iter().any(|head| name.starts_with(head));
        let named = |tensor: NamedTensor| match is_beside(&tensor.name) {
            true => tensor,
            false => NamedTensor { name: format!("{prefix}{}", tensor.name), ..tensor },
        };
        Ok(converted.tensors.into_iter().map(named).collect())
    }

    /// Why a tensor is known and left out; `None` if it is not.
    fn reason_to_leave_out(&self, name: &str) -> Option<&'static str> {
        let named = self.left_out.iter().find(|(pattern, _)| fits(pattern, name));
        let begun = || self.left_out_prefixes.iter().find(|(prefix, _)| name.starts_with(prefix));
        named.or_else(begun).map(|(_, reason)| *reason)
    }
}
