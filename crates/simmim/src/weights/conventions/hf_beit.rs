//! Hugging Face's BEiT (huggingface/transformers, `models/beit/modeling_beit.py`), which has relative position bias,
//! layer scale, and a norm over the mean of the patch tokens.

use super::rule::Rule;
use super::{Convention, hf_vit};

pub(in crate::weights) const CONVENTION: Convention = Convention {
    name: "Hugging Face BEiT",
    prefixes: &["beit"],
    later: hf_vit::LATER,
    rules: &[
        hf_vit::BOTH,
        &[
            Rule::Name("blocks.{}.attn.q_bias", "encoder.layer.{}.attention.attention.query.bias"),
            Rule::Name("blocks.{}.attn.v_bias", "encoder.layer.{}.attention.attention.value.bias"),
            Rule::Name("blocks.{}.gamma_1", "encoder.layer.{}.lambda_1"),
            Rule::Name("blocks.{}.gamma_2", "encoder.layer.{}.lambda_2"),
            Rule::Name(
                "blocks.{}.attn.relative_position_bias_table",
                "encoder.layer.{}.attention.attention.relative_position_bias.relative_position_bias_table",
            ),
            Rule::Name(
                "rel_pos_bias.relative_position_bias_table",
                "encoder.relative_position_bias.relative_position_bias_table",
            ),
            Rule::Name("fc_norm.*", "pooler.layernorm.*"),
        ],
    ],
    left_out: &[("lm_head.*", "it predicts the tokens of another tokenizer")],
    left_out_prefixes: &[],
    refused: &[],
};
