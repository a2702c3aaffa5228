//! The Swin that weights are of.

use super::config::NORM_EPS;
use super::{SwinConfig, SwinV2Config};
use crate::encoders::{DeducedEncoder, EncoderConfig, WeightInit};
use crate::error::Result;
use crate::weights::{Architecture, ratio};
use serde_json::Value;

/// Reads sizes and variants of a Swin whose tokens are `width` wide in the first stage.
///
/// # Errors
/// If something is not said anywhere, or the configuration contradicts the tensors.
pub(in crate::encoders) fn deduce(from: &mut Architecture, width: usize) -> Result<DeducedEncoder> {
    if let Some(act) = from.beside.get("hidden_act").and_then(Value::as_str).filter(|act| *act != "gelu") {
        return Err(from.beside.contradiction(&format!("`hidden_act` is `{act}`, and this program computes `gelu`")));
    }
    let patch_px = from.shape("patch_embed.proj.weight")?[2];
    let stages = from.count("layers.");
    let depths: Vec<usize> = (0..stages).map(|stage| from.count(&format!("layers.{stage}.blocks."))).collect();
    let hidden = from.rows("layers.0.blocks.0.mlp.fc1.weight")?;
    from.beside.check(&["patch_size"], patch_px)?;
    if let Some(says) = from.beside.list("depths").filter(|says| *says != depths) {
        return Err(from.beside.contradiction(&format!("`depths` is {says:?}, but the tensors have {depths:?}")));
    }
    let is_v2 = from.has("layers.0.blocks.0.attn.logit_scale");
    let block = |stage: usize, name: &str| format!("layers.{stage}.blocks.0.attn.{name}");
    let mut heads = Vec::new();
    for stage in 0..stages {
        heads.push(match is_v2 {
            true => from.shape(&block(stage, "logit_scale"))?.first().copied().unwrap_or(0),
            false => from.shape(&block(stage, "relative_position_bias_table"))?.last().copied().unwrap_or(0),
        });
    }
    if let Some(says) = from.beside.list("num_heads").filter(|says| *says != heads) {
        return Err(from.beside.contradiction(&format!("`num_heads` is {says:?}, but the tensors have {heads:?}")));
    }
    // the sides of windows by stage: of the tables, or of SwinV2's offsets, which are computed
    let sides: Vec<usize> = (0..stages)
        .filter_map(|stage| {
            let table = from.shapes.get(block(stage, "relative_position_bias_table").as_str());
            let offsets = || from.shapes.get(block(stage, "relative_coords_table").as_str())?.get(1).copied();
            table.map(|shape| shape[0].isqrt()).or_else(offsets).map(|offsets| offsets.div_ceil(2))
        })
        .collect();
    let has_tables = from.has(&block(0, "relative_position_bias_table"));
    let [of_tables, of_coordinates] =
        [has_tables, !has_tables].map(|is_meant| sides.iter().copied().max().filter(|_| is_meant));
    // a grid that is smaller than a window is the window of its stage
    let last_grid =
        sides.last().copied().filter(|side| sides.len() == stages && Some(*side) < sides.iter().copied().max());
    let fits = |(stage, side): (usize, &usize)| {
        let grid = last_grid.map_or(usize::MAX, |last| last << (stages - 1 - stage));
        Some(*side) == sides.iter().copied().max().map(|window| window.min(grid))
    };
    if sides.len() == stages && !sides.iter().enumerate().all(fits) {
        return Err(from.undecided(format!("its stages have windows of {sides:?}, and here all have the same one"), ""));
    }
    let window = match of_tables
        .or_else(|| from.edited_number("encoder.window"))
        .or_else(|| from.beside.side(&["window_size"]))
        .or(of_coordinates)
    {
        Some(window) => window,
        None => {
            return Err(from.undecided("nothing says how large its windows are".into(), "encoder.window=N"));
        }
    };
    if let Some(tables) = of_tables.filter(|_| from.beside.side(&["window_size"]).is_some_and(|says| says < window)) {
        return Err(from.beside.contradiction(&format!("its `window_size` is less than {tables}, that of the tables")));
    }
    let stride = patch_px << stages.saturating_sub(1);
    let of_positions = from.shapes.get("absolute_pos_embed").map(|shape| shape[1].isqrt() * patch_px);
    let side = match of_positions.or_else(|| from.side(&["image_size", "img_size"])) {
        Some(side) => side,
        None => match last_grid.filter(|_| sides.iter().max() == Some(&window)) {
            Some(grid) => grid * stride,
            None => {
                let side = window * stride; // one window in the last stage, as in all published models
                from.assumed.push(format!("images of {side} px, the smallest whose last stage fills a window"));
                side
            }
        },
    };
    let pretrained = match from.beside.list("pretrained_window_sizes") {
        Some(said) => Some(said),
        None => pretrained_windows(from, &sides, block),
    };
    let is_said = pretrained.is_some() || from.beside.side(&["window_size"]).is_some();
    if is_v2 && !is_said && from.edited("encoder.pretrained_window_size").is_none() {
        let what = "that it was pre-trained with its own windows, by which offsets are divided (`encoder.pretrained_window_size`)";
        from.assumed.push(what.into());
    }
    let pretrained = pretrained.filter(|sides| sides.iter().any(|side| *side > 0));
    let (mlp_ratio, patch_norm) = (ratio(hidden, width), from.has("patch_embed.norm.weight"));
    let absolute_positions = of_positions.is_some();
    let (drop_path, init) = (0.0, WeightInit::Normal);
    let norm_eps = from.norm_eps(NORM_EPS);
    let config = match is_v2 {
        true => EncoderConfig::SwinV2(SwinV2Config {
            pretrained_window_size: pretrained.unwrap_or_default(),
            extra_norm_every: (0..from.count("layers.0.blocks."))
                .find(|block| from.has(&format!("layers.0.blocks.{block}.norm3.weight")))
                .map_or(0, |block| block + 1),
            qkv_bias: from.has("layers.0.blocks.0.attn.q_bias"),
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
            qkv_bias: from.has("layers.0.blocks.0.attn.qkv.bias"),
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
    Ok(DeducedEncoder { config, side, is_classifier: from.has("head.weight") })
}

/// The windows of pre-training by stage, 0 where they are the `sides` of its own windows; `None` if the file has no offsets.
/// The largest of these is `log2(8·(side − 1)/(pretrained − 1) + 1)/3` (`log_spaced_offsets`).
fn pretrained_windows(
    from: &Architecture,
    sides: &[usize],
    block: impl Fn(usize, &str) -> String,
) -> Option<Vec<usize>> {
    let of_stage = |(stage, side): (usize, &usize)| {
        let offsets = from.computed.get(block(stage, "relative_coords_table").as_str())?;
        let largest = offsets.iter().fold(0f32, |most, offset| most.max(offset.abs()));
        let pretrained = 8.0 * (*side as f32 - 1.0) / ((3.0 * largest).exp2() - 1.0) + 1.0;
        let is_own = *side < 2 || !pretrained.is_finite() || pretrained.round() as usize == *side;
        Some(if is_own { 0 } else { pretrained.round() as usize })
    };
    sides.iter().enumerate().map(of_stage).collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())
}
