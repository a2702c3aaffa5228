//! Summaries of models: parameters, FLOPs, activation memory and heads.

use crate::classifier::Classifier;
use crate::encoders::{Encode, Encoder, EncoderSpec, activation_bytes};
use crate::error::Result;
use crate::memory;
use crate::model::SimMim;
use crate::recipe::{AnyRecipe, HeadKind, HeadRecipe, Recipe, Shard, TokenizerRecipe, TrainRecipe};
use crate::targets::Colors;
use crate::tokenizer::DiscreteVae;
use crate::weights::Builder;
use simmim_engine::{Device, ParameterTable, Precision};

/// Sizes of the model of a recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSummary {
    /// Number of parameters.
    pub parameters: usize,
    /// Number of parameters of the encoder.
    pub encoder_parameters: usize,
    /// FLOPs of the forward pass of one image, in 10⁹; a multiply-add counts as two.
    pub gflops_per_image: f64,
    /// Memory of the activations of one image in training, in f32 and in bf16, in units of 2²⁰ bytes; see
    /// [`activation_bytes`]. `None` for a tokenizer.
    pub activation_mb_per_image: Option<[f64; 2]>,
    /// Sizes of the encoder.
    pub spec: EncoderSpec,
    /// Name and shape of each parameter.
    pub shapes: Vec<(String, Vec<usize>)>,
}

/// A prediction head and its cost.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSummary {
    /// Its kind.
    pub kind: HeadKind,
    /// Number of its parameters.
    pub parameters: usize,
    /// FLOPs of the forward pass of one image of which every feature is predicted, relative to those with a linear head.
    pub step_cost: f64,
}

/// Summarizes the head of a model, whose parameters are in `table`.
pub fn head(recipe: &Recipe, model: &SimMim, table: &ParameterTable) -> HeadSummary {
    HeadSummary {
        kind: recipe.head.kind,
        parameters: table.iter().filter(|p| p.name.starts_with("decoder.")).map(|p| p.range.len()).sum(),
        step_cost: model.flops() / model.flops_with_linear_head(),
    }
}

/// Summarizes the model of a recipe with each kind of head.
///
/// # Errors
/// If a file that its target needs cannot be used.
pub fn heads(recipe: &Recipe, device: &impl Device) -> Result<Vec<HeadSummary>> {
    let with = |kind: HeadKind| {
        let recipe = Recipe { head: HeadRecipe { kind, ..recipe.head }, ..recipe.clone() };
        let mut builder = Builder::default();
        let model = SimMim::new(&recipe, &Colors::unknown(recipe.data.channels), device, &mut builder)?;
        Ok(head(&recipe, &model, &builder.finish().0))
    };
    HeadKind::ALL.into_iter().map(with).collect()
}

/// Memory that each of `world` ranks needs for so many parameters in training: themselves, their gradients, AdamW's moments and
/// the average, if the recipe has one, in units of 2²⁰ bytes; `shard` says what of it they divide.
pub fn state_mb(parameters: usize, train: &TrainRecipe, shard: Shard, world: usize) -> f64 {
    let train = TrainRecipe { shard, ..train.clone() };
    memory::of_training(parameters, &train, world) as f64 / (1u64 << 20) as f64
}

/// Summarizes the model of a recipe, without allocating its parameters.
///
/// # Errors
/// If a file that its target needs cannot be used.
pub fn model(recipe: &Recipe, device: &impl Device) -> Result<ModelSummary> {
    let mut builder = Builder::default();
    let model = SimMim::new(recipe, &Colors::unknown(recipe.data.channels), device, &mut builder)?;
    let (table, _) = builder.finish();
    Ok(summary(
        &table,
        |name| name.starts_with("encoder."),
        model.flops(),
        model.encoder(),
        recipe.train.recompute_blocks,
    ))
}

/// Summarizes the model of a recipe of any kind; a classifier has `classes` classes.
///
/// # Errors
/// If a file that its target needs cannot be used, or there is no memory for what its encoder is built with.
pub fn any_model(recipe: &AnyRecipe, classes: usize, device: &impl Device) -> Result<ModelSummary> {
    let recipe = match recipe {
        AnyRecipe::Pretrain(recipe) => return model(recipe, device),
        AnyRecipe::Finetune(recipe) => recipe,
        AnyRecipe::Tokenizer(recipe) => return Ok(tokenizer(recipe)),
    };
    let mut builder = Builder::default();
    let model = Classifier::new(recipe, classes, &mut builder)?;
    let (table, _) = builder.finish();
    Ok(summary(
        &table,
        |name| !name.starts_with("head."),
        model.flops(),
        model.encoder(),
        recipe.train.recompute_blocks,
    ))
}

/// Summarizes a discrete VAE; the logits of a token take the place of a feature.
fn tokenizer(recipe: &TokenizerRecipe) -> ModelSummary {
    let mut builder = Builder::default();
    let vae = DiscreteVae::new(recipe.config(), &mut builder);
    let (table, _) = builder.finish();
    let config = vae.config();
    let spec = EncoderSpec {
        image_px: recipe.data.image_size.height_and_width(),
        channels: config.channels,
        patch_px: 1,
        stride_px: config.stride_px(),
        width: config.width,
        out_width: config.vocabulary,
        depth: config.groups * config.blocks_per_group,
    };
    let of_encoder = table.iter().filter(|p| p.name.starts_with("encoder."));
    ModelSummary {
        parameters: table.len(),
        encoder_parameters: of_encoder.map(|p| p.range.len()).sum(),
        gflops_per_image: vae.flops(spec.image_px) / 1e9,
        activation_mb_per_image: None,
        spec,
        shapes: table.iter().map(|p| (p.name.clone(), p.shape.clone())).collect(),
    }
}

fn summary(
    table: &ParameterTable,
    is_encoder: fn(&str) -> bool,
    flops: f64,
    encoder: &Encoder,
    recomputes_blocks: bool,
) -> ModelSummary {
    let blocks = encoder.block_activations();
    let mb = |precision| activation_bytes(&blocks, precision, recomputes_blocks) as f64 / (1u64 << 20) as f64;
    ModelSummary {
        parameters: table.len(),
        encoder_parameters: table.iter().filter(|p| is_encoder(&p.name)).map(|p| p.range.len()).sum(),
        gflops_per_image: flops / 1e9,
        activation_mb_per_image: Some([Precision::F32, Precision::Bf16].map(mb)),
        spec: encoder.spec(),
        shapes: table.iter().map(|p| (p.name.clone(), p.shape.clone())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::resolve;
    use crate::testing::DEVICE;

    #[test]
    fn vit_base_has_the_published_number_of_parameters() {
        let summary = model(&resolve("pretrain-vit-b16-224", &[]).unwrap(), &DEVICE).unwrap();
        // computed by hand from the modules of microsoft/SimMIM: 12 blocks of 7,088,640 less 768 (no key bias) plus
        // 1,536 of layer scale, patches 590,592, tokens 1,536, norm 1,536, shared table 732·12, head 590,592
        let block = 7_087_872 - 768 + 1_536;
        let expected = 12 * block + 590_592 + 1_536 + 1_536 + 732 * 12 + 590_592;
        assert_eq!(summary.parameters, expected);
    }

    #[test]
    fn ranks_divide_the_memory_of_the_training_state() {
        let recipe = resolve("pretrain-vit-b16-224", &[]).unwrap();
        let mb = |shard, world, edit: fn(&mut TrainRecipe)| {
            let mut train = recipe.train.clone();
            edit(&mut train);
            state_mb(1 << 20, &train, shard, world)
        };
        let whole = |train: &mut TrainRecipe| (train.accumulation_steps, train.average_decay) = (1, 0.0);
        let averaged = |train: &mut TrainRecipe| (train.accumulation_steps, train.average_decay) = (1, 0.99);
        let in_parts = |train: &mut TrainRecipe| (train.accumulation_steps, train.average_decay) = (2, 0.99);
        // of 4 bytes a value: parameters, gradients, two moments, and the average
        let [none, optimizer, gradients] = [Shard::None, Shard::Optimizer, Shard::Gradients];
        assert_eq!([none, optimizer, gradients].map(|shard| mb(shard, 1, averaged)), [20.0; 3]);
        assert_eq!([none, optimizer, gradients].map(|shard| mb(shard, 4, whole)), [16.0, 10.0, 7.0]);
        assert_eq!([none, optimizer, gradients].map(|shard| mb(shard, 4, averaged)), [20.0, 11.0, 8.0]);
        // until the last micro-batch, each rank has whole gradients
        assert_eq!(mb(gradients, 4, in_parts), 12.0);
    }

    #[test]
    fn swin_and_swin_v2_have_the_published_numbers_of_parameters() {
        let of = |name: &str| model(&resolve(name, &[]).unwrap(), &DEVICE).unwrap();
        let millions = |parameters: usize| parameters as f64 / 1e6;

        // whole models: open-mmlab/mmpretrain, configs/simmim/README.md
        assert_eq!(format!("{:.2}", millions(of("pretrain-swin-b-192").parameters)), "89.87");
        // its last stage has tables for windows of 12, where the official code reduces them to the grid of 6
        let larger_tables = 2 * (23 * 23 - 11 * 11) * 48;
        assert_eq!(format!("{:.2}", millions(of("pretrain-swin-l-192").parameters + larger_tables)), "199.92");

        // encoders: microsoft/Swin-Transformer, MODELHUB.md
        for (name, expected) in [("s", 49.0), ("b", 87.0), ("l", 195.0), ("h", 655.0)] {
            let summary = of(&format!("pretrain-swinv2-{name}-192"));
            assert_eq!(millions(summary.encoder_parameters).round(), expected, "{name}");
        }
        // with a classifier of 1000 classes: arXiv:2111.09883
        let h = of("pretrain-swinv2-h-192");
        assert_eq!(millions(h.encoder_parameters + (h.spec.out_width + 1) * 1000).round(), 658.0);
        assert_eq!(format!("{:.1}", millions(of("pretrain-swinv2-g-192").encoder_parameters) / 1e3), "3.0");
    }
}
