//! Windows and image size of Swins are read off files that say nothing but their tensors, as official ones do.

#![allow(clippy::unwrap_used, reason = "a test may well panic, and says where")]

use simmim::encoders::{Encoder, EncoderConfig, Role};
use simmim::recipe::{ImageSize, Recipe, resolve};
use simmim::weights::{Builder, LoadedWeights, initial_values, save_atomically};
use simmim_engine::ParameterTable;
use std::collections::HashMap;

const STAGES: usize = 2;

/// Weights of a small Swin of `kind` for images of `side` px, without a word of where they are from, and with the largest
/// coordinate of each stage's offsets if `coordinates` are given.
fn loaded(kind: &str, window: usize, side: usize, coordinates: Option<[f32; STAGES]>) -> LoadedWeights {
    let edits = [
        "encoder.patch_px=4".to_owned(),
        "encoder.width=8".to_owned(),
        "encoder.depths=[1, 1]".to_owned(),
        "encoder.heads=[2, 2]".to_owned(),
        format!("encoder.window={window}"),
        "encoder.pretrained_window_size=[]".to_owned(),
        "mask.unit_px=8".to_owned(),
        format!("data.image_size={side}"),
    ];
    let edits: Vec<String> = edits.into_iter().filter(|edit| kind != "swin" || !edit.contains("pretrained")).collect();
    let recipe: Recipe = resolve(&format!("pretrain-{kind}-t-192"), &edits).unwrap();
    let mut builder = Builder::default();
    Encoder::new(&recipe.encoder, Role::Pretrain, (side, side), 3, &mut builder).unwrap();
    let (encoder, inits) = builder.finish();
    let (mut table, mut values) = (ParameterTable::default(), Vec::new());
    for parameter in encoder.iter() {
        table.add(&parameter.name, &parameter.shape);
    }
    values.extend(initial_values(&encoder, &inits, 1));
    for (stage, largest) in coordinates.into_iter().flatten().enumerate() {
        let offsets = 2 * window.min((side / 4) >> stage) - 1;
        table.add(&format!("layers.{stage}.blocks.0.attn.relative_coords_table"), &[1, offsets, offsets, 2]);
        let axis = |i: usize| (i as f32 / (offsets - 1) as f32 * 2.0 - 1.0) * largest;
        values.extend((0..offsets * offsets).flat_map(|i| [axis(i / offsets), axis(i % offsets)]));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save_atomically(&path, &table, &values, HashMap::new()).unwrap();
    LoadedWeights::at(&path).unwrap()
}

/// Side of images, and the encoder, of weights.
fn deduced(weights: &LoadedWeights) -> (ImageSize, EncoderConfig) {
    let (recipe, _) = weights.resolved.as_ref().unwrap_or_else(|| panic!("{:?}", weights.undecided));
    (recipe.data().image_size, recipe.encoder().unwrap().clone())
}

fn assumes_a_size(weights: &LoadedWeights) -> bool {
    weights.import.as_ref().unwrap().assumed.iter().any(|assumed| assumed.starts_with("images of"))
}

#[test]
fn a_window_that_the_last_grid_cuts_tells_the_size_of_images() {
    // grids of 8 and 4 tokens
    let weights = loaded("swin", 6, 32, None);
    let (size, encoder) = deduced(&weights);
    let EncoderConfig::Swin(config) = encoder else { panic!("it is a Swin") };
    assert_eq!((size, config.window), (ImageSize::Square(32), 6));
    assert!(!assumes_a_size(&weights));
    // grids of 8 and 4 with windows of 4: another size would give the same tables
    let weights = loaded("swin", 4, 64, None);
    let (size, _) = deduced(&weights);
    assert_eq!(size, ImageSize::Square(32));
    assert!(assumes_a_size(&weights));
}

/// `log2(8·(side − 1)/(pretrained − 1) + 1)/3`.
fn largest(side: usize, pretrained: usize) -> f32 {
    ((8.0 * (side as f32 - 1.0) / (pretrained as f32 - 1.0)) + 1.0).log2() / 3.0
}

#[test]
fn the_windows_of_pre_training_are_read_off_offsets() {
    for (pretrained, expected) in [([6, 4], vec![]), ([3, 4], vec![3, 0]), ([12, 6], vec![12, 6])] {
        let coordinates = [largest(6, pretrained[0]), largest(4, pretrained[1])];
        let weights = loaded("swinv2", 6, 32, Some(coordinates));
        let (size, encoder) = deduced(&weights);
        let EncoderConfig::SwinV2(config) = encoder else { panic!("it is a SwinV2") };
        assert_eq!((size, config.window), (ImageSize::Square(32), 6));
        assert_eq!(config.pretrained_window_size, expected, "{pretrained:?}");
        assert!(!weights.import.as_ref().unwrap().assumed.iter().any(|assumed| assumed.contains("offsets")));
    }
}
