//! Hugging Face's Swin (huggingface/transformers, `models/swin/modeling_swin.py`), as files have it, and as version 5 of
//! the library calls its parameters.

use super::Convention;
use super::rule::{Part, Rule};

pub(in crate::weights) const CONVENTION: Convention = Convention {
    name: "Hugging Face Swin",
    prefixes: &["swin"],
    later: &[
        ("encoder.layers.{}.blocks.{}.attention.q_proj.*", "encoder.layers.{}.blocks.{}.attention.self.query.*"),
        ("encoder.layers.{}.blocks.{}.attention.k_proj.*", "encoder.layers.{}.blocks.{}.attention.self.key.*"),
        ("encoder.layers.{}.blocks.{}.attention.v_proj.*", "encoder.layers.{}.blocks.{}.attention.self.value.*"),
        ("encoder.layers.{}.blocks.{}.attention.o_proj.*", "encoder.layers.{}.blocks.{}.attention.output.dense.*"),
        ("encoder.layers.{}.blocks.{}.mlp.fc1.*", "encoder.layers.{}.blocks.{}.intermediate.dense.*"),
        ("encoder.layers.{}.blocks.{}.mlp.fc2.*", "encoder.layers.{}.blocks.{}.output.dense.*"),
        (
            "encoder.layers.{}.blocks.{}.attention.relative_position_bias.relative_position_bias_table",
            "encoder.layers.{}.blocks.{}.attention.self.relative_position_bias_table",
        ),
    ],
    rules: &[
        BOTH,
        &[
            Rule::Rows(
                &[Part::Tensor("layers.{}.blocks.{}.attn.qkv.bias")],
                &[
                    Part::Tensor("encoder.layers.{}.blocks.{}.attention.self.query.bias"),
                    Part::Tensor("encoder.layers.{}.blocks.{}.attention.self.key.bias"),
                    Part::Tensor("encoder.layers.{}.blocks.{}.attention.self.value.bias"),
                ],
            ),
            Rule::Name(
                "layers.{}.blocks.{}.attn.relative_position_bias_table",
                "encoder.layers.{}.blocks.{}.attention.self.relative_position_bias_table",
            ),
        ],
    ],
    left_out: &[],
    left_out_prefixes: &[],
    refused: &[],
};

/// What both versions of Swin have in common.
pub(super) const BOTH: &[Rule] = &[
    Rule::Name("mask_token", "embeddings.mask_token"),
    Rule::Name("absolute_pos_embed", "embeddings.position_embeddings"),
    Rule::Name("patch_embed.proj.*", "embeddings.patch_embeddings.projection.*"),
    Rule::Name("patch_embed.norm.*", "embeddings.norm.*"),
    Rule::Name("layers.{}.blocks.{}.norm1.*", "encoder.layers.{}.blocks.{}.layernorm_before.*"),
    Rule::Rows(
        &[Part::Tensor("layers.{}.blocks.{}.attn.qkv.weight")],
        &[
            Part::Tensor("encoder.layers.{}.blocks.{}.attention.self.query.weight"),
            Part::Tensor("encoder.layers.{}.blocks.{}.attention.self.key.weight"),
            Part::Tensor("encoder.layers.{}.blocks.{}.attention.self.value.weight"),
        ],
    ),
    Rule::Name("layers.{}.blocks.{}.attn.proj.*", "encoder.layers.{}.blocks.{}.attention.output.dense.*"),
    Rule::Name("layers.{}.blocks.{}.norm2.*", "encoder.layers.{}.blocks.{}.layernorm_after.*"),
    Rule::Name("layers.{}.blocks.{}.mlp.fc1.*", "encoder.layers.{}.blocks.{}.intermediate.dense.*"),
    Rule::Name("layers.{}.blocks.{}.mlp.fc2.*", "encoder.layers.{}.blocks.{}.output.dense.*"),
    Rule::Name("layers.{}.downsample.norm.*", "encoder.layers.{}.downsample.norm.*"),
    Rule::Name("layers.{}.downsample.reduction.weight", "encoder.layers.{}.downsample.reduction.weight"),
    Rule::Name("norm.*", "layernorm.*"),
    Rule::Name("head.*", "classifier.*"),
    Rule::Name("decoder.0.*", "decoder.0.*"),
];
