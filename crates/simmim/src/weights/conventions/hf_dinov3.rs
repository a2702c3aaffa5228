//! Hugging Face's DINOv3 ViTs (huggingface/transformers, `models/dinov3_vit/modeling_dinov3_vit.py`), as files have them, and
//! as version 5 of the library calls its parameters. Their rotary positions are no tensors.

use super::Convention;
use super::rule::{Part, Rule};

pub(in crate::weights) const CONVENTION: Convention =
    Convention { name: "Hugging Face DINOv3", rules: &[BOTH, PLAIN], ..WITH_SWIGLU };

/// With SwiGLU in the MLPs, as in its ViT-S+, ViT-H+ and ViT-7B.
pub(in crate::weights) const WITH_SWIGLU: Convention = Convention {
    name: "Hugging Face DINOv3 with SwiGLU",
    prefixes: &[],
    later: &[
        ("model.layer.{}.norm1.*", "layer.{}.norm1.*"),
        ("model.layer.{}.norm2.*", "layer.{}.norm2.*"),
        ("model.layer.{}.attention.q_proj.*", "layer.{}.attention.q_proj.*"),
        ("model.layer.{}.attention.k_proj.*", "layer.{}.attention.k_proj.*"),
        ("model.layer.{}.attention.v_proj.*", "layer.{}.attention.v_proj.*"),
        ("model.layer.{}.attention.o_proj.*", "layer.{}.attention.o_proj.*"),
        ("model.layer.{}.layer_scale1.lambda1", "layer.{}.layer_scale1.lambda1"),
        ("model.layer.{}.layer_scale2.lambda1", "layer.{}.layer_scale2.lambda1"),
        ("model.layer.{}.mlp.gate_proj.*", "layer.{}.mlp.gate_proj.*"),
        ("model.layer.{}.mlp.up_proj.*", "layer.{}.mlp.up_proj.*"),
        ("model.layer.{}.mlp.down_proj.*", "layer.{}.mlp.down_proj.*"),
    ],
    rules: &[BOTH, GATED],
    // attention does not change with a bias of keys: it adds the same to all scores of a query
    left_out: &[(
        "layer.{}.attention.k_proj.bias",
        "attention adds it to all scores of a query alike, which changes no weight",
    )],
    left_out_prefixes: &[],
    refused: &[],
};

const PLAIN: &[Rule] = &[Rule::Name("blocks.{}.mlp.fc1.*", "layer.{}.mlp.up_proj.*")];

const GATED: &[Rule] = &[Rule::Rows(
    &[Part::Tensor("blocks.{}.mlp.fc1.*")],
    &[Part::Tensor("layer.{}.mlp.gate_proj.*"), Part::Tensor("layer.{}.mlp.up_proj.*")],
)];

const BOTH: &[Rule] = &[
    Rule::Name("cls_token", "embeddings.cls_token"),
    Rule::Name("mask_token", "embeddings.mask_token"),
    Rule::Name("register_tokens", "embeddings.register_tokens"),
    Rule::Name("patch_embed.proj.*", "embeddings.patch_embeddings.*"),
    Rule::Name("blocks.{}.norm1.*", "layer.{}.norm1.*"),
    Rule::Rows(
        &[Part::Tensor("blocks.{}.attn.qkv.weight")],
        &[
            Part::Tensor("layer.{}.attention.q_proj.weight"),
            Part::Tensor("layer.{}.attention.k_proj.weight"),
            Part::Tensor("layer.{}.attention.v_proj.weight"),
        ],
    ),
    Rule::Name("blocks.{}.attn.q_bias", "layer.{}.attention.q_proj.bias"),
    Rule::Name("blocks.{}.attn.v_bias", "layer.{}.attention.v_proj.bias"),
    Rule::Name("blocks.{}.attn.proj.*", "layer.{}.attention.o_proj.*"),
    Rule::Name("blocks.{}.gamma_1", "layer.{}.layer_scale1.lambda1"),
    Rule::Name("blocks.{}.norm2.*", "layer.{}.norm2.*"),
    Rule::Name("blocks.{}.mlp.fc2.*", "layer.{}.mlp.down_proj.*"),
    Rule::Name("blocks.{}.gamma_2", "layer.{}.layer_scale2.lambda1"),
    Rule::Name("norm.*", "norm.*"),
];
