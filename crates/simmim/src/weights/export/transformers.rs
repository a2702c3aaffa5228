//! Models as Hugging Face's transformers knows them: class, `config.json` and `preprocessor_config.json`.

use super::super::conventions::{
    HF_BEIT, HF_DINOV2, HF_DINOV2_SWIGLU, HF_DINOV3, HF_DINOV3_SWIGLU, HF_SWIN, HF_SWIN_V2, HF_VIT,
};
use super::super::preparation::filter_number;
use super::{Exported, Format, Model, Target, digits, unfit};
use crate::encoders::{EncoderConfig, Mlp, PositionBias, SwinConfig, VitConfig};
use crate::error::Result;
use crate::recipe::{AnyRecipe, LabelsPerImage};
use serde_json::{Map, Value, json};
use simmim_data::CenterCrop;

/// The class of a model of ours, whole where there is a class for the whole model.
pub(super) fn target(model: &mut Model, exported: &mut Exported) -> Result<Target> {
    let (name, convention, prefix, mut config) = match model.encoder {
        EncoderConfig::Vit(config) => vit(model, config, exported)?,
        EncoderConfig::Swin(config) => {
            if model.grid.0 < config.window {
                let what =
                    format!("windows of {} tokens are larger than the last grid of {}", config.window, model.grid.0);
                return Err(unfit(Format::Transformers, what));
            }
            if !config.patch_norm {
                return Err(unfit(Format::Transformers, "its Swin has a norm behind the patch embedding".into()));
            }
            let (name, prefix) = whole(
                model,
                exported,
                ["SwinForMaskedImageModeling", "SwinForImageClassification", "SwinModel"],
                "swin.",
            );
            (name, &HF_SWIN, prefix, swin("swin", config))
        }
        EncoderConfig::SwinV2(config) => {
            if config.extra_norm_every > 0 || !config.patch_norm || !config.qkv_bias {
                return Err(unfit(Format::Transformers, "its SwinV2 has no such norms or biases".into()));
            }
            let (name, prefix) = whole(
                model,
                exported,
                ["Swinv2ForMaskedImageModeling", "Swinv2ForImageClassification", "Swinv2Model"],
                "swinv2.",
            );
            let mut sizes = swin("swinv2", &config.sizes());
            let sides = match config.pretrained_window_size.is_empty() {
                true => vec![0; config.depths.len()],
                false => config.pretrained_window_size.clone(),
            };
            sizes["pretrained_window_sizes"] = json!(sides);
            (name, &HF_SWIN_V2, prefix, sizes)
        }
    };
    config["architectures"] = json!([name]);
    config["dtype"] = json!("float32");
    config["image_size"] = json!(model.image_px.0);
    config["num_channels"] = json!(model.channels);
    let is_silu = matches!(model.encoder, EncoderConfig::Vit(vit) if vit.mlp == Mlp::SwiGlu);
    config["hidden_act"] = json!(if is_silu { "silu" } else { "gelu" });
    if let AnyRecipe::Finetune(recipe) = model.recipe
        && recipe.labels.per_image == LabelsPerImage::Many
    {
        config["problem_type"] = json!("multi_label_classification");
    }
    if !model.run.classes.is_empty() {
        let classes = model.run.classes.iter().enumerate();
        config["id2label"] = Value::Object(classes.clone().map(|(id, name)| (id.to_string(), json!(name))).collect());
        config["label2id"] = Value::Object(classes.map(|(id, name)| (name.clone(), json!(id))).collect::<Map<_, _>>());
    }
    let usage = format!(
        "from transformers import AutoImageProcessor, {name}\n\n\
         processor = AutoImageProcessor.from_pretrained(\"FOLDER\")\n\
         model = {name}.from_pretrained(\"FOLDER\")\n"
    );
    let files = vec![("config.json", config), ("preprocessor_config.json", preprocessor(model))];
    Ok(Target { name: name.into(), convention, prefix, files, usage })
}

/// The class for the whole model, a classifier, or the encoder alone, and the prefix of the encoder's names.
fn whole(
    model: &mut Model,
    exported: &mut Exported,
    [masked, classifier, encoder]: [&'static str; 3],
    prefix: &'static str,
) -> (&'static str, &'static str) {
    if model.classifier().is_some() {
        return (classifier, prefix);
    }
    if model.predicts_pixels() && model.shape("mask_token").is_some() {
        if model.predicts_other_pixels() {
            let what = "its head predicts pixels that are normalized again, and the loss of {} compares with those of the input";
            exported.notes.push(what.replace("{}", masked));
        }
        return (masked, prefix);
    }
    let reason = format!("{masked} has one linear layer that predicts every pixel");
    model.leave_out(exported, &reason, |name| name.starts_with("decoder."));
    model.leave_out(exported, "it goes with the head", |name| name == "mask_token");
    (encoder, "")
}

type Named = (&'static str, &'static super::Convention, &'static str, Value);

fn vit(model: &mut Model, config: &VitConfig, exported: &mut Exported) -> Result<Named> {
    let mut sizes = json!({
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.hidden(),
        "patch_size": config.patch_px,
        "layer_norm_eps": crate::decimals::short(config.norm_eps),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    });
    let is_classifier = model.classifier().is_some();
    if config.rotary_base > 0.0 || config.registers > 0 || config.mlp == Mlp::SwiGlu {
        return dino(model, config, sizes, exported);
    }
    if config.position_bias == PositionBias::None && config.absolute_positions && !is_classifier {
        let names = ["ViTForMaskedImageModeling", "ViTForImageClassification", "ViTModel"];
        model.fold_layer_scale(exported);
        let (name, prefix) = whole(model, exported, names, "vit.");
        sizes["model_type"] = json!("vit");
        sizes["qkv_bias"] = json!(config.qkv_bias);
        sizes["encoder_stride"] = json!(config.patch_px);
        return Ok((name, &HF_VIT, prefix, sizes));
    }
    if !config.qkv_bias {
        return Err(unfit(Format::Transformers, "its BEiT has a bias of queries and values".into()));
    }
    let reason = "BEiT of transformers predicts tokens, not pixels";
    model.leave_out(exported, reason, |name| name.starts_with("decoder."));
    sizes["model_type"] = json!("beit");
    sizes["use_mean_pooling"] = json!(is_classifier);
    sizes["use_mask_token"] = json!(model.shape("mask_token").is_some());
    sizes["use_absolute_position_embeddings"] = json!(config.absolute_positions);
    sizes["use_relative_position_bias"] = json!(config.position_bias == PositionBias::PerBlock);
    sizes["use_shared_relative_position_bias"] = json!(config.position_bias == PositionBias::Shared);
    sizes["layer_scale_init_value"] = json!(crate::decimals::short(config.layer_scale));
    sizes["drop_path_rate"] = json!(0.0);
    let (name, prefix) = if is_classifier { ("BeitForImageClassification", "beit.") } else { ("BeitModel", "") };
    Ok((name, &HF_BEIT, prefix, sizes))
}

/// The classes of DINOv2 and DINOv3, which are encoders without a head and read the class token.
fn dino(model: &mut Model, config: &VitConfig, mut sizes: Value, exported: &mut Exported) -> Result<Named> {
    let is_rotary = config.rotary_base > 0.0;
    let name = match (is_rotary, config.registers > 0) {
        (true, _) => "DINOv3ViTModel",
        (false, true) => "Dinov2WithRegistersModel",
        (false, false) => "Dinov2Model",
    };
    let refuse = |what: String| Err(unfit(Format::Transformers, what));
    if model.classifier().is_some() {
        return refuse(format!("{name} has no classifier that reads the mean of the patch tokens"));
    }
    if config.position_bias != PositionBias::None || config.absolute_positions == is_rotary {
        return refuse(format!("{name} has {} and no other positions", if is_rotary { "rotary" } else { "absolute" }));
    }
    model.leave_out(exported, &format!("{name} has no head"), |name| name.starts_with("decoder."));
    model.with_layer_scale(config, exported);
    if is_rotary && config.registers == 0 {
        model.add("register_tokens", &[1, 0, config.width], Vec::new());
    }
    if (is_rotary || config.registers > 0) && model.shape("mask_token").is_none() {
        model.add("mask_token", &[1, 1, config.width], vec![0.0; config.width]);
        exported.notes.push(format!("{name} has a mask token, which features do not read: zeros"));
    }
    sizes["layerscale_value"] = json!(crate::decimals::short(config.layer_scale));
    sizes["num_register_tokens"] = json!(config.registers);
    if is_rotary {
        sizes["model_type"] = json!("dinov3_vit");
        sizes["rope_theta"] = json!(crate::decimals::short(config.rotary_base));
        sizes["use_gated_mlp"] = json!(config.mlp == Mlp::SwiGlu);
        for bias in ["query_bias", "value_bias"] {
            sizes[bias] = json!(config.qkv_bias);
        }
        let convention = if config.mlp == Mlp::SwiGlu { &HF_DINOV3_SWIGLU } else { &HF_DINOV3 };
        return Ok((name, convention, "", sizes));
    }
    for token in model.tensors.iter_mut().filter(|tensor| tensor.name == "mask_token") {
        token.shape = vec![1, config.width];
    }
    sizes["model_type"] = json!(if config.registers > 0 { "dinov2_with_registers" } else { "dinov2" });
    sizes["qkv_bias"] = json!(config.qkv_bias);
    sizes["use_mask_token"] = json!(model.shape("mask_token").is_some());
    sizes["use_swiglu_ffn"] = json!(config.mlp == Mlp::SwiGlu);
    sizes["mlp_ratio"] = json!(dinov2_ratio(config).ok_or_else(|| {
        let what = format!("{name} has MLPs of other widths than {}", config.hidden());
        unfit(Format::Transformers, what)
    })?);
    let convention = if config.mlp == Mlp::SwiGlu { &HF_DINOV2_SWIGLU } else { &HF_DINOV2 };
    Ok((name, convention, "", sizes))
}

/// The whole number from which DINOv2 computes the hidden width; with SwiGLU, it takes two thirds and rounds up to 8.
fn dinov2_ratio(config: &VitConfig) -> Option<usize> {
    (1..=64).find(|ratio| {
        let hidden = config.width * ratio;
        config.hidden()
            == match config.mlp {
                Mlp::Gelu => hidden,
                Mlp::SwiGlu => (hidden * 2 / 3).next_multiple_of(8),
            }
    })
}

fn swin(kind: &str, config: &SwinConfig) -> Value {
    json!({
        "model_type": kind,
        "patch_size": config.patch_px,
        "embed_dim": config.width,
        "depths": config.depths,
        "num_heads": config.heads,
        "window_size": config.window,
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "use_absolute_embeddings": config.absolute_positions,
        "encoder_stride": config.stride_px(),
        "layer_norm_eps": crate::decimals::short(config.norm_eps),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
    })
}

/// How images are prepared: the shorter side resized, then a center crop, as in evaluation here; of transformers' image
/// processors, CLIP's does this. Or, if imported weights say so, the whole image resized, as ViT's does.
pub(super) fn preprocessor(model: &Model) -> Value {
    let (is_whole, enlargement, filter) = model.preparation();
    let side = model.image_px.0;
    let size = match is_whole {
        true => json!({ "height": side, "width": side }),
        false => json!({ "shortest_edge": CenterCrop { enlargement, filter }.resized(side) }),
    };
    json!({
        "image_processor_type": if is_whole { "ViTImageProcessor" } else { "CLIPImageProcessor" },
        "do_resize": true,
        "size": size,
        "resample": filter_number(filter),
        "do_center_crop": !is_whole,
        "crop_size": { "height": model.image_px.0, "width": model.image_px.0 },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "do_convert_rgb": model.channels == 3,
        "image_mean": digits(&model.run.mean),
        "image_std": digits(&model.run.std),
    })
}
