//! timm's ViT, DeiT and DINOv2 (huggingface/pytorch-image-models, `vision_transformer.py`), which facebookresearch/mae
//! and facebookresearch/deit share.

use super::Convention;
use super::rule::{Part, Rule};

pub(in crate::weights) const CONVENTION: Convention = Convention {
    name: "timm ViT",
    prefixes: &[],
    later: &[
        // names of facebookresearch/dinov2
        ("register_tokens", "reg_token"),
        ("blocks.{}.mlp.w12.*", "blocks.{}.mlp.fc1.*"),
        ("blocks.{}.mlp.w3.*", "blocks.{}.mlp.fc2.*"),
    ],
    rules: &[RULES],
    left_out: &[
        ("decoder_embed.*", MAE),
        ("decoder_pos_embed", MAE),
        ("decoder_norm.*", MAE),
        ("decoder_pred.*", MAE),
        ("mask_token", "it is MAE's, behind the encoder, or that of another pre-training"),
    ],
    left_out_prefixes: &[("decoder_blocks.", MAE)],
    refused: &[
        ("dist_token", "a distillation token"),
        ("blocks.{}.mlp.fc1_g.*", "of an MLP that is gated by another function than DINOv2's"),
    ],
};

const MAE: &str = "MAE's decoder is not part of its encoder";

const RULES: &[Rule] = &[
    Rule::Name("cls_token", "cls_token"),
    Rule::Name("pos_embed", "pos_embed"),
    Rule::Name("register_tokens", "reg_token"),
    Rule::Name("patch_embed.proj.*", "patch_embed.proj.*"),
    Rule::Name("blocks.{}.norm1.*", "blocks.{}.norm1.*"),
    Rule::Name("blocks.{}.attn.qkv.weight", "blocks.{}.attn.qkv.weight"),
    // attention does not change with a bias of keys: it adds the same to all scores of a query
    Rule::Rows(
        &[Part::Tensor("blocks.{}.attn.q_bias"), Part::Absent, Part::Tensor("blocks.{}.attn.v_bias")],
        &[Part::Tensor("blocks.{}.attn.qkv.bias")],
    ),
    Rule::Name("blocks.{}.attn.proj.*", "blocks.{}.attn.proj.*"),
    Rule::Name("blocks.{}.gamma_1", "blocks.{}.ls1.gamma"),
    Rule::Name("blocks.{}.norm2.*", "blocks.{}.norm2.*"),
    Rule::Name("blocks.{}.mlp.fc1.*", "blocks.{}.mlp.fc1.*"),
    Rule::Name("blocks.{}.mlp.fc2.*", "blocks.{}.mlp.fc2.*"),
    Rule::Name("blocks.{}.gamma_2", "blocks.{}.ls2.gamma"),
    Rule::Name("norm.*", "norm.*"),
    Rule::Name("fc_norm.*", "fc_norm.*"),
    Rule::Name("head.*", "head.*"),
];
