//! Models as timm knows them (huggingface/pytorch-image-models): architecture, arguments, and `config.json`.

use super::super::conventions::{TIMM_BEIT, TIMM_DINOV3, TIMM_SWIN, TIMM_SWIN_V2, TIMM_VIT};
use super::super::preparation::filter_name;
use super::{Exported, Format, Model, Target, digits, unfit};
use crate::encoders::{EncoderConfig, Mlp, PositionBias, SwinConfig, VitConfig};
use crate::error::Result;
use serde_json::{Value, json};

/// The timm model of a model of ours. Heads that predict pixels are left out: timm has none.
pub(super) fn target(model: &mut Model, exported: &mut Exported) -> Result<Target> {
    let reason = "timm has no masked image modeling";
    model.leave_out(exported, reason, |name| name.starts_with("decoder.") || name == "mask_token");
    let (architecture, convention, mut arguments) = match model.encoder {
        EncoderConfig::Vit(config) => vit(model, config, exported)?,
        EncoderConfig::Swin(config) => {
            check_norm_eps(config.norm_eps, 1e-5, exported)?;
            if config.absolute_positions || !config.qkv_bias || !config.patch_norm {
                let what = "its Swin has no absolute positions, and always a norm behind the patches and biases";
                return Err(unfit(Format::Timm, what.into()));
            }
            ("swin_tiny_patch4_window7_224", &TIMM_SWIN, swin(config))
        }
        EncoderConfig::SwinV2(config) => {
            check_norm_eps(config.norm_eps, 1e-5, exported)?;
            if config.absolute_positions || config.extra_norm_every > 0 || !config.qkv_bias || !config.patch_norm {
                return Err(unfit(Format::Timm, "its SwinV2 has no such positions, norms or biases".into()));
            }
            let mut arguments = swin(&config.sizes());
            let sides = match config.pretrained_window_size.is_empty() {
                true => vec![0; config.depths.len()],
                false => config.pretrained_window_size.clone(),
            };
            arguments["pretrained_window_sizes"] = json!(sides);
            ("swinv2_tiny_window8_256", &TIMM_SWIN_V2, arguments)
        }
    };
    let classes = model.run.classes.len();
    arguments["img_size"] = json!(model.image_px.0);
    arguments["in_chans"] = json!(model.channels);
    arguments["num_classes"] = json!(classes);
    let is_swin = !matches!(model.encoder, EncoderConfig::Vit(_));
    let (is_whole, enlargement, filter) = model.preparation();
    let config = json!({
        "architecture": architecture,
        "num_classes": classes,
        "label_names": model.run.classes,
        "model_args": arguments,
        "pretrained_cfg": {
            "custom_load": false,
            "input_size": [model.channels, model.image_px.0, model.image_px.0],
            "fixed_input_size": true,
            "interpolation": filter_name(filter),
            "crop_pct": 1.0 / enlargement,
            "crop_mode": if is_whole { "squash" } else { "center" },
            "mean": digits(&model.run.mean),
            "std": digits(&model.run.std),
            "num_classes": classes,
            "first_conv": "patch_embed.proj",
            "classifier": if is_swin { "head.fc" } else { "head" },
        },
    });
    let call = "import timm\n\nmodel = timm.create_model(\"local-dir:FOLDER\", pretrained=True)\n";
    Ok(Target {
        name: architecture.into(),
        convention,
        prefix: "",
        files: vec![("config.json", config)],
        usage: call.into(),
    })
}

type Named = (&'static str, &'static super::Convention, Value);

/// Greatest difference of `ε` that is only noted: variances are far larger.
const SMALL_EPS: f32 = 1e-5;

/// Refuses an `ε` of layer norms other than that of timm's model, which has no argument for it; a small difference is noted.
fn check_norm_eps(eps: f32, of_timm: f32, exported: &mut Exported) -> Result<()> {
    let what = || format!("its layer norms add {of_timm:e} to the variance, not {eps:e}");
    match (eps - of_timm).abs() {
        0.0 => {}
        difference if difference <= SMALL_EPS => {
            exported.notes.push(format!("timm's model differs slightly: {}", what()));
        }
        _ => return Err(unfit(Format::Timm, what())),
    }
    Ok(())
}

fn vit(model: &mut Model, config: &VitConfig, exported: &mut Exported) -> Result<Named> {
    let is_rotary = config.rotary_base > 0.0;
    check_norm_eps(config.norm_eps, if is_rotary { 1e-5 } else { 1e-6 }, exported)?;
    let is_classifier = model.classifier().is_some();
    let mut arguments = json!({
        "patch_size": config.patch_px,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "init_values": (config.layer_scale > 0.0).then_some(crate::decimals::short(config.layer_scale)),
    });
    let is_gated = config.mlp == Mlp::SwiGlu;
    let has_bias = config.position_bias != PositionBias::None;
    if is_rotary {
        if has_bias || config.absolute_positions {
            return Err(unfit(Format::Timm, "its ViT with rotary positions has no others".into()));
        }
        arguments["num_reg_tokens"] = json!(config.registers);
        arguments["swiglu_mlp"] = json!(is_gated);
        arguments["swiglu_align_to"] = json!(0);
        arguments["rope_temperature"] = json!(crate::decimals::short(config.rotary_base));
        arguments["global_pool"] = json!("avg");
        arguments["use_fc_norm"] = json!(is_classifier);
        return Ok(("vit_small_patch16_dinov3", &TIMM_DINOV3, arguments));
    }
    if config.registers > 0 || is_gated {
        if has_bias || !config.absolute_positions {
            return Err(unfit(Format::Timm, "its BEiT has neither register tokens nor SwiGLU".into()));
        }
        let names = ["vit_base_patch14_reg4_dinov2", "vit_giant_patch14_reg4_dinov2", "vit_giant_patch14_dinov2"];
        let [with_registers, with_both, gated] = names;
        let name = match (config.registers > 0, is_gated) {
            (true, false) => with_registers,
            (true, true) => with_both,
            (false, _) => gated,
        };
        if config.registers > 0 {
            model.without_class_position(exported);
            arguments["reg_tokens"] = json!(config.registers);
        }
        arguments["mlp_ratio"] = json!(config.mlp_ratio * config.mlp.parts() as f64);
        arguments["global_pool"] = json!(if is_classifier { "avg" } else { "token" });
        arguments["fc_norm"] = json!(is_classifier);
        return Ok((name, &TIMM_VIT, arguments));
    }
    if !has_bias && config.absolute_positions {
        arguments["global_pool"] = json!("avg");
        arguments["fc_norm"] = json!(is_classifier);
        return Ok(("vit_base_patch16_224", &TIMM_VIT, arguments));
    }
    // in timm's BEiT the pooling decides where the norm is
    arguments["global_pool"] = json!(if is_classifier { "avg" } else { "token" });
    arguments["use_abs_pos_emb"] = json!(config.absolute_positions);
    arguments["use_rel_pos_bias"] = json!(config.position_bias == PositionBias::PerBlock);
    arguments["use_shared_rel_pos_bias"] = json!(config.position_bias == PositionBias::Shared);
    Ok(("beit_base_patch16_224", &TIMM_BEIT, arguments))
}

fn swin(config: &SwinConfig) -> Value {
    json!({
        "patch_size": config.patch_px,
        "embed_dim": config.width,
        "depths": config.depths,
        "num_heads": config.heads,
        "window_size": config.window,
        "mlp_ratio": config.mlp_ratio,
    })
}
