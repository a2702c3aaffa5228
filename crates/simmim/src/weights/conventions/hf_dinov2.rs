//! Hugging Face's DINOv2, with and without register tokens (huggingface/transformers, `models/dinov2/modeling_dinov2.py`), as
//! files have it, and as version 5 of the library calls its parameters.

use super::Convention;
use super::rule::{Part, Rule};

pub(in crate::weights) const CONVENTION: Convention =
    Convention { name: "Hugging Face DINOv2", rules: &[BOTH, PLAIN], ..WITH_SWIGLU };

/// With SwiGLU in the MLPs, as in its ViT-g.
pub(in crate::weights) const WITH_SWIGLU: Convention = Convention {
    name: "Hugging Face DINOv2 with SwiGLU",
    prefixes: &["dinov2_with_registers", "dinov2"],
    later: &[
        ("encoder.layer.{}.attention.q_proj.*", "encoder.layer.{}.attention.attention.query.*"),
        ("encoder.layer.{}.attention.k_proj.*", "encoder.layer.{}.attention.attention.key.*"),
        ("encoder.layer.{}.attention.v_proj.*", "encoder.layer.{}.attention.attention.value.*"),
        ("encoder.layer.{}.attention.o_proj.*", "encoder.layer.{}.attention.output.dense.*"),
        ("encoder.layer.{}.mlp.down_proj.*", "encoder.layer.{}.mlp.weights_out.*"),
    ],
    rules: &[BOTH, GATED],
    left_out: &[],
    left_out_prefixes: &[],
    refused: &[],
};

const PLAIN: &[Rule] = &[
    Rule::Name("blocks.{}.mlp.fc1.*", "encoder.layer.{}.mlp.fc1.*"),
    Rule::Name("blocks.{}.mlp.fc2.*", "encoder.layer.{}.mlp.fc2.*"),
];

const GATED: &[Rule] = &[
    Rule::Name("blocks.{}.mlp.fc1.*", "encoder.layer.{}.mlp.weights_in.*"),
    // as version 5 of the library calls them
    Rule::Rows(
        &[Part::Tensor("blocks.{}.mlp.fc1.*")],
        &[Part::Tensor("encoder.layer.{}.mlp.gate_proj.*"), Part::Tensor("encoder.layer.{}.mlp.up_proj.*")],
    ),
    Rule::Name("blocks.{}.mlp.fc2.*", "encoder.layer.{}.mlp.weights_out.*"),
];

const BOTH: &[Rule] = &[
    Rule::Name("cls_token", "embeddings.cls_token"),
    Rule::Name("mask_token", "embeddings.mask_token"),
    Rule::Name("register_tokens", "embeddings.register_tokens"),
    Rule::Name("pos_embed", "embeddings.position_embeddings"),
    Rule::Name("patch_embed.proj.*", "embeddings.patch_embeddings.projection.*"),
    Rule::Name("blocks.{}.norm1.*", "encoder.layer.{}.norm1.*"),
    Rule::Rows(
        &[Part::Tensor("blocks.{}.attn.qkv.weight")],
        &[
            Part::Tensor("encoder.layer.{}.attention.attention.query.weight"),
            Part::Tensor("encoder.layer.{}.attention.attention.key.weight"),
            Part::Tensor("encoder.layer.{}.attention.attention.value.weight"),
        ],
    ),
    // attention does not change with a bias of keys: it adds the same to all scores of a query
    Rule::Rows(
        &[Part::Tensor("blocks.{}.attn.q_bias"), Part::Absent, Part::Tensor("blocks.{}.attn.v_bias")],
        &[
            Part::Tensor("encoder.layer.{}.attention.attention.query.bias"),
            Part::Tensor("encoder.layer.{}.attention.attention.key.bias"),
            Part::Tensor("encoder.layer.{}.attention.attention.value.bias"),
        ],
    ),
    Rule::Name("blocks.{}.attn.proj.*", "encoder.layer.{}.attention.output.dense.*"),
    Rule::Name("blocks.{}.gamma_1", "encoder.layer.{}.layer_scale1.lambda1"),
    Rule::Name("blocks.{}.norm2.*", "encoder.layer.{}.norm2.*"),
    Rule::Name("blocks.{}.gamma_2", "encoder.layer.{}.layer_scale2.lambda1"),
    Rule::Name("norm.*", "layernorm.*"),
    Rule::Name("head.*", "classifier.*"),
];
