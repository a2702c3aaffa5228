//! Models as Hugging Face's transformers knows them: class, `config.json` and `preprocessor_config.json`.

use super::super::conventions::{HF_BEIT, HF_SWIN, HF_SWIN_V2, HF_VIT};
use super::{Exported, Format, Model, Target, digits, unfit};
use crate::encoders::{EncoderConfig, PositionBias, SwinConfig, VitConfig};
use crate::error::Result;
use serde_json::{Map, Value, json};

/// `resample` of Pillow's filters.
const BILINEAR: usize = 2;
const BICUBIC: usize = 3;

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
    config["hidden_act"] = json!("gelu");
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
    if config.registers > 0 {
        return Err(unfit(Format::Transformers, "its ViT and BEiT have no register tokens".into()));
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

/// How images are prepared: the shorter side resized, then a center crop, as in evaluation here. Of transformers' image
/// processors, CLIP's does this.
pub(super) fn preprocessor(model: &Model) -> Value {
    let (crop, filter) = model.classifier().map_or((1.0, BILINEAR), |recipe| (recipe.evaluate.crop, BICUBIC));
    json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": true,
        "size": { "shortest_edge": (model.image_px.0 as f64 / crop).round() as usize },
        "resample": filter,
        "do_center_crop": true,
        "crop_size": { "height": model.image_px.0, "width": model.image_px.0 },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "do_convert_rgb": model.channels == 3,
        "image_mean": digits(&model.run.mean),
        "image_std": digits(&model.run.std),
    })
}
