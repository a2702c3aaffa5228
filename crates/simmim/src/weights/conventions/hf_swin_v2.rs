//! Hugging Face's SwinV2 (huggingface/transformers, `models/swinv2/modeling_swinv2.py`).

use super::rule::Rule;
use super::{Convention, hf_swin};

pub(in crate::weights) const CONVENTION: Convention = Convention {
    name: "Hugging Face SwinV2",
    prefixes: &["swinv2"],
    later: &[],
    rules: &[
        hf_swin::BOTH,
        &[
            Rule::Name("layers.{}.blocks.{}.attn.q_bias", "encoder.layers.{}.blocks.{}.attention.self.query.bias"),
            Rule::Name("layers.{}.blocks.{}.attn.v_bias", "encoder.layers.{}.blocks.{}.attention.self.value.bias"),
            Rule::Name(
                "layers.{}.blocks.{}.attn.logit_scale",
                "encoder.layers.{}.blocks.{}.attention.self.logit_scale",
            ),
            Rule::Name(
                "layers.{}.blocks.{}.attn.cpb_mlp.{}.*",
                "encoder.layers.{}.blocks.{}.attention.self.continuous_position_bias_mlp.{}.*",
            ),
        ],
    ],
    left_out: &[],
    left_out_prefixes: &[],
    refused: &[],
};
