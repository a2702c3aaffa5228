//! timm's BEiT (huggingface/pytorch-image-models, `beit.py`), whose names are the official SimMIM ones.

use super::Convention;
use super::rule::Rule;

pub(in crate::weights) const CONVENTION: Convention = Convention {
    name: "timm BEiT",
    prefixes: &[],
    later: &[],
    rules: &[&[
        Rule::Name("cls_token", "cls_token"),
        Rule::Name("pos_embed", "pos_embed"),
        Rule::Name("patch_embed.proj.*", "patch_embed.proj.*"),
        Rule::Name("rel_pos_bias.relative_position_bias_table", "rel_pos_bias.relative_position_bias_table"),
        Rule::Name("blocks.{}.gamma_1", "blocks.{}.gamma_1"),
        Rule::Name("blocks.{}.gamma_2", "blocks.{}.gamma_2"),
        Rule::Name("blocks.{}.norm1.*", "blocks.{}.norm1.*"),
        Rule::Name("blocks.{}.attn.q_bias", "blocks.{}.attn.q_bias"),
        Rule::Name("blocks.{}.attn.v_bias", "blocks.{}.attn.v_bias"),
        Rule::Name("blocks.{}.attn.relative_position_bias_table", "blocks.{}.attn.relative_position_bias_table"),
        Rule::Name("blocks.{}.attn.qkv.weight", "blocks.{}.attn.qkv.weight"),
        Rule::Name("blocks.{}.attn.proj.*", "blocks.{}.attn.proj.*"),
        Rule::Name("blocks.{}.norm2.*", "blocks.{}.norm2.*"),
        Rule::Name("blocks.{}.mlp.fc1.*", "blocks.{}.mlp.fc1.*"),
        Rule::Name("blocks.{}.mlp.fc2.*", "blocks.{}.mlp.fc2.*"),
        Rule::Name("norm.*", "norm.*"),
        Rule::Name("fc_norm.*", "fc_norm.*"),
        Rule::Name("head.*", "head.*"),
    ]],
    left_out: &[],
    left_out_prefixes: &[],
    refused: &[],
};
