//! Hugging Face's ViT, DeiT and the encoder of ViT-MAE (huggingface/transformers, `models/vit/modeling_vit.py`), as
//! files have them, and as version 5 of the library calls its parameters.

use super::Convention;
use super::rule::{Part, Rule};

pub(in crate::weights) const CONVENTION: Convention = Convention {
    name: "Hugging Face ViT",
    prefixes: &["vit", "deit"],
    later: LATER,
    rules: &[
        BOTH,
        &[
            // attention does not change with a bias of keys: it adds the same to all scores of a query
            Rule::Rows(
                &[Part::Tensor("blocks.{}.attn.q_bias"), Part::Absent, Part::Tensor("blocks.{}.attn.v_bias")],
                &[
                    Part::Tensor("encoder.layer.{}.attention.attention.query.bias"),
                    Part::Tensor("encoder.layer.{}.attention.attention.key.bias"),
                    Part::Tensor("encoder.layer.{}.attention.attention.value.bias"),
                ],
            ),
        ],
    ],
    left_out: &[
        ("pooler.dense.*", "the pooler is for the class token"),
        ("decoder.mask_token", MAE),
        ("decoder.decoder_pos_embed", MAE),
        ("decoder.decoder_embed.*", MAE),
        ("decoder.decoder_norm.*", MAE),
        ("decoder.decoder_pred.*", MAE),
    ],
    left_out_prefixes: &[("decoder.decoder_layers.", MAE), ("decoder.decoder_encoder.", MAE)],
    refused: &[
        ("embeddings.distillation_token", "a distillation token"),
        ("embeddings.register_tokens", "register tokens"),
    ],
};

const MAE: &str = "MAE's decoder is not part of its encoder";

/// Names of version 5, and those that files have.
pub(super) const LATER: &[(&str, &str)] = &[
    ("layers.{}.attention.q_proj.*", "encoder.layer.{}.attention.attention.query.*"),
    ("layers.{}.attention.k_proj.*", "encoder.layer.{}.attention.attention.key.*"),
    ("layers.{}.attention.v_proj.*", "encoder.layer.{}.attention.attention.value.*"),
    ("layers.{}.attention.o_proj.*", "encoder.layer.{}.attention.output.dense.*"),
    ("layers.{}.layernorm_before.*", "encoder.layer.{}.layernorm_before.*"),
    ("layers.{}.layernorm_after.*", "encoder.layer.{}.layernorm_after.*"),
    ("layers.{}.mlp.fc1.*", "encoder.layer.{}.intermediate.dense.*"),
    ("layers.{}.mlp.fc2.*", "encoder.layer.{}.output.dense.*"),
    ("layers.{}.lambda_1", "encoder.layer.{}.lambda_1"),
    ("layers.{}.lambda_2", "encoder.layer.{}.lambda_2"),
    (
        "layers.{}.relative_position_bias.relative_position_bias_table",
        "encoder.layer.{}.attention.attention.relative_position_bias.relative_position_bias_table",
    ),
    (
        "shared_position_bias.relative_position_bias_table",
        "encoder.relative_position_bias.relative_position_bias_table",
    ),
];

/// What ViT and BEiT have in common.
pub(super) const BOTH: &[Rule] = &[
    Rule::Name("cls_token", "embeddings.cls_token"),
    Rule::Name("mask_token", "embeddings.mask_token"),
    Rule::Name("pos_embed", "embeddings.position_embeddings"),
    Rule::Name("patch_embed.proj.*", "embeddings.patch_embeddings.projection.*"),
    Rule::Name("blocks.{}.norm1.*", "encoder.layer.{}.layernorm_before.*"),
    Rule::Rows(
        &[Part::Tensor("blocks.{}.attn.qkv.weight")],
        &[
            Part::Tensor("encoder.layer.{}.attention.attention.query.weight"),
            Part::Tensor("encoder.layer.{}.attention.attention.key.weight"),
            Part::Tensor("encoder.layer.{}.attention.attention.value.weight"),
        ],
    ),
    Rule::Name("blocks.{}.attn.proj.*", "encoder.layer.{}.attention.output.dense.*"),
    Rule::Name("blocks.{}.norm2.*", "encoder.layer.{}.layernorm_after.*"),
    Rule::Name("blocks.{}.mlp.fc1.*", "encoder.layer.{}.intermediate.dense.*"),
    Rule::Name("blocks.{}.mlp.fc2.*", "encoder.layer.{}.output.dense.*"),
    Rule::Name("norm.*", "layernorm.*"),
    Rule::Name("head.*", "classifier.*"),
    Rule::Name("decoder.0.*", "decoder.0.*"),
];
