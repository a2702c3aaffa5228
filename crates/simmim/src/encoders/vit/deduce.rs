//! The ViT that weights are of.

use super::config::NORM_EPS;
use super::{Mlp, PositionBias, VitConfig};
use crate::encoders::{DeducedEncoder, EncoderConfig, WeightInit};
use crate::error::{Error, Result};
use crate::weights::{Architecture, ratio};
use serde_json::Value;

/// Heads of published ViTs by width and depth (arXiv:2010.11929, table 1; arXiv:2012.12877, table 1; arXiv:2304.07193, table
/// 17).
const KNOWN_HEADS: &[(usize, usize, usize)] =
    &[(192, 12, 3), (384, 12, 6), (768, 12, 12), (1024, 24, 16), (1280, 32, 16), (1536, 40, 24)];

/// The same of those with rotary positions (arXiv:2508.10104, table 2).
const KNOWN_ROTARY_HEADS: &[(usize, usize, usize)] =
    &[(192, 12, 3), (384, 12, 6), (768, 12, 12), (1024, 24, 16), (1280, 32, 20), (4096, 40, 32)];

/// `ε` of layer norms of DINOv3 where no configuration says it (facebookresearch/dinov3, `dinov3/models/vision_transformer.py`).
const ROTARY_NORM_EPS: f32 = 1e-5;

/// Base of the rotary positions of DINOv3 (arXiv:2508.10104).
const ROTARY_BASE: f32 = 100.0;

/// Reads sizes and variants of a ViT whose tokens are `width` wide.
///
/// # Errors
/// If something is not said anywhere, or the configuration contradicts the tensors.
pub(in crate::encoders) fn deduce(from: &mut Architecture, width: usize) -> Result<DeducedEncoder> {
    let patch_px = from.shape("patch_embed.proj.weight")?[2];
    let depth = from.count("blocks.");
    let (mlp, hidden) = mlp(from)?;
    for (keys, found) in [
        (&["hidden_size"][..], width),
        (&["num_hidden_layers", "depth"], depth),
        (&["patch_size"], patch_px),
        (&["intermediate_size"], hidden),
    ] {
        from.beside.check(keys, found)?;
    }
    let (shared, own) = ("rel_pos_bias.relative_position_bias_table", "blocks.0.attn.relative_position_bias_table");
    let position_bias = match (from.has(shared), from.has(own)) {
        (_, true) => PositionBias::PerBlock,
        (true, false) => PositionBias::Shared,
        (false, false) => PositionBias::None,
    };
    let of_table = heads_of_table(from, shared).or_else(|| heads_of_table(from, own));
    if let Some(heads) = of_table {
        from.beside.check(&["num_attention_heads", "num_heads"], heads)?;
    }
    let positions = from.shapes.get("pos_embed").map(|shape| shape.get(1).copied().unwrap_or(0));
    let has_places = positions.is_some() || position_bias != PositionBias::None;
    let rotary_base = rotary_base(from, has_places)?;
    let heads = match of_table {
        Some(heads) => heads,
        None => heads(from, width, depth, rotary_base > 0.0)?,
    };
    let of_positions = positions.map(|rows| rows.saturating_sub(1));
    let of_bias = from.shapes.get(shared).or_else(|| from.shapes.get(own)).map(|shape| {
        let offsets = shape[0].saturating_sub(3).isqrt();
        offsets.div_ceil(2).pow(2)
    });
    let cells = of_positions.or(of_bias);
    let grid = cells.map(usize::isqrt).filter(|grid| *grid > 0 && Some(grid * grid) == cells);
    let side = match (grid, from.side(&["image_size", "img_size"])) {
        (Some(grid), _) => grid * patch_px,
        (None, Some(side)) if positions.is_none() => side,
        (None, _) => {
            let what = match positions {
                Some(rows) => {
                    format!("positions have {rows} rows, which are not a class token and a square of patches")
                }
                None => "nothing says how large its images are".to_owned(),
            };
            return Err(from.undecided(what, "data.image_size=N"));
        }
    };
    if grid.is_some()
        && let Some(says) = from.beside.side(&["image_size", "img_size"]).filter(|says| *says != side)
    {
        let what = format!("`image_size` is {says}, but the positions are for {side} px");
        return Err(from.beside.contradiction(&what));
    }
    let registers = from.shapes.get("register_tokens").and_then(|shape| shape.get(1)).copied().unwrap_or(0);
    from.beside.check(&["num_register_tokens"], registers)?;
    let config = VitConfig {
        patch_px,
        width,
        depth,
        heads,
        mlp_ratio: ratio(hidden, width),
        mlp,
        qkv_bias: from.has("blocks.0.attn.q_bias"),
        layer_scale: if from.has("blocks.0.gamma_1") { 0.1 } else { 0.0 },
        absolute_positions: positions.is_some(),
        position_bias,
        rotary_base,
        registers,
        norm_eps: from.norm_eps(if rotary_base > 0.0 { ROTARY_NORM_EPS } else { NORM_EPS }),
        drop_path: 0.0,
        init: WeightInit::Normal,
    };
    Ok(DeducedEncoder { config: EncoderConfig::Vit(config), side, is_classifier: from.has("fc_norm.weight") })
}

/// Heads by the columns of a table of position bias.
fn heads_of_table(from: &Architecture, name: &str) -> Option<usize> {
    from.shapes.get(name).and_then(|shape| shape.get(1)).copied()
}

/// Heads by what is said, or else by what published models have.
fn heads(from: &mut Architecture, width: usize, depth: usize, is_rotary: bool) -> Result<usize> {
    let said = from
        .edited_number("encoder.heads")
        .or_else(|| from.beside.number("num_attention_heads"))
        .or_else(|| from.beside.number("num_heads"));
    if let Some(heads) = said {
        return Ok(heads);
    }
    let published = if is_rotary { KNOWN_ROTARY_HEADS } else { KNOWN_HEADS };
    let Some((_, _, heads)) = published.iter().find(|(w, d, _)| (*w, *d) == (width, depth)) else {
        let what = format!("nothing says how many heads a ViT {width} wide with {depth} blocks has");
        return Err(from.undecided(what, "encoder.heads=N"));
    };
    from.assumed.push(format!("{heads} heads, as published models {width} wide with {depth} blocks have"));
    Ok(*heads)
}

/// The kind of the MLPs and their hidden width. A gated one has twice as many outputs of the first layer as the second reads.
fn mlp(from: &mut Architecture) -> Result<(Mlp, usize)> {
    let outputs = from.rows("blocks.0.mlp.fc1.weight")?;
    let hidden = from.shape("blocks.0.mlp.fc2.weight")?.get(1).copied().unwrap_or(0);
    let mlp = if outputs == Mlp::SwiGlu.parts() * hidden { Mlp::SwiGlu } else { Mlp::Gelu };
    // transformers' DINOv2 says a GELU and does not use it where it says SwiGLU
    let is = |key: &str| from.beside.get(key).and_then(Value::as_bool) == Some(true);
    let act = from.beside.get("hidden_act").and_then(Value::as_str);
    let (computes, is_right) = match mlp {
        Mlp::Gelu => ("gelu", act.is_none_or(|act| act == "gelu")),
        Mlp::SwiGlu => ("silu", is("use_swiglu_ffn") || act.is_none_or(|act| act == "silu")),
    };
    if !is_right {
        let what = format!("`hidden_act` is `{}`, and this program computes `{computes}`", act.unwrap_or_default());
        return Err(from.beside.contradiction(&what));
    }
    if mlp == Mlp::SwiGlu && act.is_none() && !is("use_swiglu_ffn") {
        from.assumed.push("MLPs are gated by `silu` of their first half, as in DINOv2 and DINOv3".into());
    }
    Ok((mlp, hidden))
}

/// The base of rotary positions, which no tensor shows: 0 for none.
fn rotary_base(from: &mut Architecture, has_places: bool) -> Result<f32> {
    if let Some(base) = from.edited("encoder.rotary_base").and_then(|base| base.parse().ok()) {
        return Ok(base);
    }
    let text = |key: &str| from.beside.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| from.beside.get(key).and_then(Value::as_f64).map(|base| base as f32);
    let is = |key: &str| from.beside.get(key).and_then(Value::as_bool);
    if text("model_type") == "dinov3_vit" {
        return Ok(number("rope_theta").unwrap_or(ROTARY_BASE));
    }
    // of timm, whose other kinds turn by other angles, or pairs of neighbors
    let is_dinov3 =
        text("rope_type") == "dinov3" || text("rope_type").is_empty() && text("architecture").contains("_dinov3");
    let turns = is_dinov3 || is("use_rot_pos_emb") == Some(true) || text("architecture").contains("_rope_");
    if turns && (!is_dinov3 || is("rope_rotate_half") == Some(false)) {
        return Err(Error::Input {
            what: format!("`{}` has rotary positions of another kind than DINOv3's", from.path().display()),
            hint: Some("this program would compute other features from them; DINOv2 and DINOv3 are read".into()),
        });
    }
    match (is_dinov3, has_places) {
        (true, _) => Ok(number("rope_temperature").unwrap_or(ROTARY_BASE)),
        (false, true) => Ok(0.0),
        (false, false) => {
            let what = "nothing says where its patches are: it has no positions, no table of bias, and no configuration \
                        that says that they are rotary (100 is DINOv3's base)";
            Err(from.undecided(what.into(), "encoder.rotary_base=N"))
        }
    }
}
