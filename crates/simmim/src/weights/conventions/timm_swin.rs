//! timm's Swin and SwinV2 (huggingface/pytorch-image-models, `swin_transformer.py`, `swin_transformer_v2.py`): as the
//! official code, but a stage begins with the merging that ends the stage before.

use super::Convention;
use super::rule::Rule;

pub(in crate::weights) const SWIN: Convention = Convention {
    name: "timm Swin",
    prefixes: &[],
    later: &[],
    rules: &[
        BOTH,
        &[
            Rule::Name(
                "layers.{}.blocks.{}.attn.relative_position_bias_table",
                "layers.{}.blocks.{}.attn.relative_position_bias_table",
            ),
            Rule::Name("layers.{}.blocks.{}.attn.qkv.bias", "layers.{}.blocks.{}.attn.qkv.bias"),
        ],
    ],
    left_out: &[],
    left_out_prefixes: &[],
    refused: &[],
};

pub(in crate::weights) const SWIN_V2: Convention = Convention {
    name: "timm SwinV2",
    rules: &[
        BOTH,
        &[
            Rule::Name("layers.{}.blocks.{}.attn.q_bias", "layers.{}.blocks.{}.attn.q_bias"),
            Rule::Name("layers.{}.blocks.{}.attn.v_bias", "layers.{}.blocks.{}.attn.v_bias"),
            Rule::Name("layers.{}.blocks.{}.attn.logit_scale", "layers.{}.blocks.{}.attn.logit_scale"),
            Rule::Name("layers.{}.blocks.{}.attn.cpb_mlp.{}.*", "layers.{}.blocks.{}.attn.cpb_mlp.{}.*"),
        ],
    ],
    ..SWIN
};

const BOTH: &[Rule] = &[
    Rule::Name("patch_embed.proj.*", "patch_embed.proj.*"),
    Rule::Name("patch_embed.norm.*", "patch_embed.norm.*"),
    Rule::Name("layers.{}.blocks.{}.norm1.*", "layers.{}.blocks.{}.norm1.*"),
    Rule::Name("layers.{}.blocks.{}.attn.qkv.weight", "layers.{}.blocks.{}.attn.qkv.weight"),
    Rule::Name("layers.{}.blocks.{}.attn.proj.*", "layers.{}.blocks.{}.attn.proj.*"),
    Rule::Name("layers.{}.blocks.{}.norm2.*", "layers.{}.blocks.{}.norm2.*"),
    Rule::Name("layers.{}.blocks.{}.mlp.fc1.*", "layers.{}.blocks.{}.mlp.fc1.*"),
    Rule::Name("layers.{}.blocks.{}.mlp.fc2.*", "layers.{}.blocks.{}.mlp.fc2.*"),
    Rule::Name("layers.{}.downsample.norm.*", "layers.{next}.downsample.norm.*"),
    Rule::Name("layers.{}.downsample.reduction.weight", "layers.{next}.downsample.reduction.weight"),
    Rule::Name("norm.*", "norm.*"),
    Rule::Name("head.*", "head.fc.*"),
];
