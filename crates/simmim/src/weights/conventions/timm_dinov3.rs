//! timm's DINOv3 ViTs (huggingface/pytorch-image-models, `eva.py`) and the files of facebookresearch/dinov3: a ViT with rotary
//! positions, which are no tensors.

use super::Convention;
use super::rule::{Part, Rule};

pub(in crate::weights) const CONVENTION: Convention = Convention {
    name: "timm DINOv3",
    prefixes: &[],
    // the latter in timm
    later: &[
        ("storage_tokens", "reg_token"),
        ("blocks.{}.ls1.gamma", "blocks.{}.gamma_1"),
        ("blocks.{}.ls2.gamma", "blocks.{}.gamma_2"),
        ("blocks.{}.mlp.w1.*", "blocks.{}.mlp.fc1_g.*"),
        ("blocks.{}.mlp.w2.*", "blocks.{}.mlp.fc1_x.*"),
        ("blocks.{}.mlp.w3.*", "blocks.{}.mlp.fc2.*"),
    ],
    rules: &[&[
        Rule::Name("cls_token", "cls_token"),
        Rule::Name("mask_token", "mask_token"),
        Rule::Name("register_tokens", "reg_token"),
        Rule::Name("patch_embed.proj.*", "patch_embed.proj.*"),
        Rule::Name("blocks.{}.norm1.*", "blocks.{}.norm1.*"),
        Rule::Name("blocks.{}.attn.qkv.weight", "blocks.{}.attn.qkv.weight"),
        Rule::Name("blocks.{}.attn.q_bias", "blocks.{}.attn.q_bias"),
        Rule::Name("blocks.{}.attn.v_bias", "blocks.{}.attn.v_bias"),
        // attention does not change with a bias of keys: it adds the same to all scores of a query
        Rule::Rows(
            &[Part::Tensor("blocks.{}.attn.q_bias"), Part::Absent, Part::Tensor("blocks.{}.attn.v_bias")],
            &[Part::Tensor("blocks.{}.attn.qkv.bias")],
        ),
        Rule::Name("blocks.{}.attn.proj.*", "blocks.{}.attn.proj.*"),
        Rule::Name("blocks.{}.gamma_1", "blocks.{}.gamma_1"),
        Rule::Name("blocks.{}.norm2.*", "blocks.{}.norm2.*"),
        Rule::Name("blocks.{}.mlp.fc1.*", "blocks.{}.mlp.fc1.*"),
        Rule::Rows(
            &[Part::Tensor("blocks.{}.mlp.fc1.*")],
            &[Part::Tensor("blocks.{}.mlp.fc1_g.*"), Part::Tensor("blocks.{}.mlp.fc1_x.*")],
        ),
        Rule::Name("blocks.{}.mlp.fc2.*", "blocks.{}.mlp.fc2.*"),
        Rule::Name("blocks.{}.gamma_2", "blocks.{}.gamma_2"),
        Rule::Name("norm.*", "norm.*"),
        Rule::Name("fc_norm.*", "fc_norm.*"),
        Rule::Name("head.*", "head.*"),
    ]],
    left_out: &[("local_cls_norm.*", "it is for the class tokens of small crops in training")],
    left_out_prefixes: &[],
    refused: &[
        ("rope.freqs", "of rotary positions that are learned"),
        ("blocks.{}.attn.norm.*", "a norm in the attention"),
        ("blocks.{}.mlp.norm.*", "a norm in an MLP"),
    ],
};
