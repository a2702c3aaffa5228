//! Which keys belong to which target, and which of their values fit the image.

use super::check::{within, wrong};
use super::{DataRecipe, ImageSize, TargetKind, TargetRecipe};
use crate::error::Result;

/// Numbers that a head may predict for one cell: beyond this its last layer outgrows every encoder.
const MOST_OUTPUTS: usize = 1 << 18;

/// Checks the target's values; `cell_px` is the encoder's stride.
///
/// # Errors
/// Names the first key whose value does not fit, and what would.
pub(super) fn check(target: &TargetRecipe, data: &DataRecipe, cell_px: usize) -> Result<()> {
    use TargetKind::{ColourBins, NormalizedPixels, Pixels};
    let kind = target.kind;
    match (kind, target.window_px) {
        (NormalizedPixels, Some(window)) if window >= 3 && window % 2 == 1 => {}
        (NormalizedPixels, window) => {
            let value = window.map_or("missing".into(), |w| w.to_string());
            let expected = "expected an odd number of pixels, at least 3".into();
            return Err(wrong("target.window_px", value, expected, Some("SwinV2 takes 47".into())));
        }
        (Pixels | ColourBins, None) => {}
        (Pixels | ColourBins, Some(window)) => {
            return Err(foreign("target.window_px", window.to_string(), "`normalized-pixels`"));
        }
    }
    match (kind, target.resolution) {
        (Pixels | ColourBins, Some(resolution)) => resolution_fits(resolution, data.image_size, cell_px)?,
        (NormalizedPixels, Some(resolution)) => {
            return Err(foreign("target.resolution", show(resolution), "`pixels` and `colour-bins`"));
        }
        (Pixels | NormalizedPixels | ColourBins, None) => {}
    }
    within("target.bins", target.bins as f64, 2.0, 256.0)?;

    let classes = match kind {
        Pixels | NormalizedPixels => 1,
        ColourBins => target.bins,
    };
    outputs_are_few(target, data, cell_px, data.channels * classes)
}

/// The error for a key that belongs to other targets.
fn foreign(key: &str, value: String, owners: &str) -> crate::error::Error {
    wrong(key, value, format!("only {owners} can have it"), Some("leave it out".into()))
}

/// Positions tile both the image and the encoder's cells.
fn resolution_fits(resolution: ImageSize, image: ImageSize, cell_px: usize) -> Result<()> {
    let ((rows, columns), (height, width)) = (resolution.height_and_width(), image.height_and_width());
    let fits = rows > 0
        && columns > 0
        && height % rows == 0
        && width % columns == 0
        && height / rows == width / columns
        && cell_px.is_multiple_of(height / rows);
    if fits {
        return Ok(());
    }
    let expected = format!("expected positions that tile the image and the encoder's cells of {cell_px} px");
    let sizes = (1..=cell_px).rev().filter(|px| cell_px.is_multiple_of(*px));
    let choices: Vec<String> = sizes.map(|px| size_at(image, px)).collect();
    Err(wrong("target.resolution", show(resolution), expected, Some(format!("{} would fit", choices.join(", ")))))
}

/// The last layer stays of a size that can be trained: `per_position` numbers for each position.
fn outputs_are_few(target: &TargetRecipe, data: &DataRecipe, cell_px: usize, per_position: usize) -> Result<()> {
    let position_px = target
        .resolution
        .map_or(1, |resolution| data.image_size.height_and_width().0 / resolution.height_and_width().0);
    let outputs = |px: usize| (cell_px / px) * (cell_px / px) * per_position;
    if outputs(position_px) <= MOST_OUTPUTS {
        return Ok(());
    }
    let value = target.resolution.map_or("the image's".into(), show);
    let expected = format!(
        "a head would have to predict {} numbers per feature, at most {MOST_OUTPUTS} are",
        outputs(position_px)
    );
    let fits = (1..=cell_px).find(|px| cell_px.is_multiple_of(*px) && outputs(*px) <= MOST_OUTPUTS);
    let hint = fits.map(|px| format!("--set target.resolution={}", size_at(data.image_size, px)));
    Err(wrong("target.resolution", value, expected, hint))
}

/// The image's size in positions of `px`.
fn size_at(image: ImageSize, px: usize) -> String {
    show(match image {
        ImageSize::Square(side) => ImageSize::Square(side / px),
        ImageSize::HeightWidth(height, width) => ImageSize::HeightWidth(height / px, width / px),
    })
}

fn show(size: ImageSize) -> String {
    match size {
        ImageSize::Square(side) => side.to_string(),
        ImageSize::HeightWidth(height, width) => format!("[{height}, {width}]"),
    }
}

#[cfg(test)]
mod tests {
    use crate::recipe::resolve;

    #[track_caller]
    fn check_fails(recipe: &str, edits: &[&str], message: &str, hint: &str) {
        let edits: Vec<String> = edits.iter().map(|e| (*e).to_owned()).collect();
        let error = resolve(recipe, &edits).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{:?}", error.hint());
    }

    #[test]
    fn what_does_not_fit_a_target_is_refused() {
        let (vit, swin) = ("pretrain-vit-cifar", "pretrain-swin-t-192");
        check_fails(vit, &["target.kind=pixel"], "`target.kind` is `pixel`", "did you mean `pixels`?");
        check_fails(vit, &["target.kind=color-bins"], "`color-bins`", "did you mean `colour-bins`?");
        check_fails(vit, &["target.resolutoin=8"], "unknown key `target.resolutoin`", "`target.resolution`");
        check_fails(vit, &["target.window_px=47"], "`target.window_px` is `47`", "leave it out");
        check_fails(vit, &["target.kind=normalized-pixels"], "`target.window_px` is `missing`", "47");
        check_fails(vit, &["target.resolution=12"], "`target.resolution` is `12`", "8, 16, 32 would fit");
        check_fails(vit, &["target.resolution=4"], "cells of 4 px", "8, 16, 32");
        check_fails(vit, &["target.resolution=[8, 16]"], "is `[8, 16]`", "8, 16, 32");
        check_fails(swin, &["target.resolution=0"], "`target.resolution` is `0`", "6, 12, 24, 48, 96, 192");
        check_fails(vit, &["target.kind=colour-bins", "target.bins=1"], "`target.bins` is `1`", "target.bins");
        let bins = ["target.kind=colour-bins", "target.bins=256"];
        check_fails(swin, &bins, "786432 numbers per feature", "--set target.resolution=96");
        check_fails(vit, &["loss.visible_weight=1.5"], "`loss.visible_weight` is `1.5`", "");
        check_fails(vit, &["loss.visible_weihgt=1"], "unknown key", "did you mean `loss.visible_weight`?");
    }

    #[test]
    fn a_resolution_of_every_size_that_fits_is_accepted() {
        for resolution in [6, 12, 24, 48, 96, 192] {
            let recipe = resolve("pretrain-swin-t-192", &[format!("target.resolution={resolution}")]).unwrap();
            assert_eq!(recipe.position_px(), 192 / resolution);
        }
        let edits = ["data.image_size=[32, 64]", "target.resolution=[8, 16]"].map(str::to_owned);
        assert_eq!(resolve("pretrain-vit-cifar", &edits).unwrap().position_px(), 4);
    }
}
