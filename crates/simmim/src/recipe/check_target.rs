//! Checks of `[target]`: which keys each kind of target takes, and which of their values fit the image.

use super::{ImageSize, NormalizeBy, Recipe, TargetKind, TargetRecipe};
use crate::error::{Error, Result};
use crate::ranges::{within, wrong};
use crate::targets::{Hog, MeanColor, palette};
use std::fmt::Display;
use std::path::Path;

/// Largest number of outputs of a head per feature. Beyond it, the head's last layer would be larger than the encoder.
const MAX_OUTPUTS: usize = 1 << 18;

/// Largest side of the window of `normalized-pixels`: a larger one covers the largest image from every pixel of it.
const MAX_WINDOW_PX: usize = (1 << 15) - 1;

/// Checks that the palette exists.
///
/// # Errors
/// If it does not.
pub(super) fn check_files(target: &TargetRecipe) -> Result<()> {
    match &target.palette {
        Some(path) if !Path::new(path).is_file() => {
            Err(wrong("target.palette", path, "there is no such file".into(), Some(palette::HINT.into())))
        }
        Some(_) | None => Ok(()),
    }
}

/// Checks the target's values.
///
/// # Errors
/// If a value does not fit; the error names the first such key and what would fit.
pub(super) fn check(recipe: &Recipe) -> Result<()> {
    let Recipe { target, data, .. } = recipe;
    let stride_px = recipe.encoder.stride_px();
    let allowed = Allowed::of(target.kind);
    match (allowed.window && target.normalize == NormalizeBy::Window, target.window_px) {
        (true, Some(window)) if (3..=MAX_WINDOW_PX).contains(&window) && window % 2 == 1 => {}
        (true, window) => {
            let value = window.map_or("missing".into(), |w| w.to_string());
            let expected = format!("expected an odd number of pixels, 3 to {MAX_WINDOW_PX}");
            let hint = "SwinV2 uses 47; `target.normalize = \"patch\"` needs none".into();
            return Err(wrong("target.window_px", value, expected, Some(hint)));
        }
        (false, Some(window)) => {
            return Err(not_allowed("target.window_px", window, "`normalized-pixels` by a window"));
        }
        (false, None) => {}
    }
    if target.normalize == NormalizeBy::Patch && !allowed.window {
        return Err(not_allowed("target.normalize", "patch", "`normalized-pixels`"));
    }
    match (allowed.resolution, target.resolution) {
        (true, Some(resolution)) => resolution_fits(resolution, data.image_size, stride_px)?,
        (false, Some(resolution)) => {
            let owners = "`pixels`, `color-bins`, `color-clusters`, `hog` and `tokens`";
            return Err(not_allowed("target.resolution", show(resolution), owners));
        }
        (true | false, None) => {}
    }
    within("target.bins", target.bins as f64, 2.0, 256.0)?;
    within("target.clusters", target.clusters as f64, 2.0, 65_536.0)?;
    if let (false, Some(path)) = (allowed.palette, &target.palette) {
        return Err(not_allowed("target.palette", path, "`color-clusters`"));
    }
    match (target.kind == TargetKind::Tokens, &target.tokenizer) {
        (true, None) => {
            let expected = "expected the tokenizer whose tokens are predicted".into();
            let hint = "`simmim tokenizer --data DATA --out TOK` trains one; then `--set target.tokenizer=TOK`";
            return Err(wrong("target.tokenizer", "missing", expected, Some(hint.into())));
        }
        (false, Some(path)) => return Err(not_allowed("target.tokenizer", path, "`tokens`")),
        (true, Some(_)) | (false, None) => {}
    }
    if target.kind == TargetKind::MeanColor && data.channels > 4 {
        let expected = format!(
            "`data.channels` is {}; three bits each of more than 4 channels make too many classes",
            data.channels
        );
        return Err(wrong(
            "target.kind",
            "mean-color",
            expected,
            Some("`color-bins` takes any number of channels".into()),
        ));
    }
    outputs_are_few(recipe)
}

/// Which of the keys that only some targets take a kind of target allows.
struct Allowed {
    window: bool,
    resolution: bool,
    palette: bool,
}

impl Allowed {
    fn of(kind: TargetKind) -> Self {
        let none = Self { window: false, resolution: false, palette: false };
        match kind {
            TargetKind::Pixels | TargetKind::ColorBins | TargetKind::Hog | TargetKind::Tokens => {
                Self { resolution: true, ..none }
            }
            TargetKind::NormalizedPixels => Self { window: true, ..none },
            TargetKind::ColorClusters => Self { resolution: true, palette: true, ..none },
            TargetKind::MeanColor => none,
        }
    }
}

/// The error for a key that only other targets allow.
fn not_allowed(key: &str, value: impl Display, owners: &str) -> Error {
    wrong(key, value, format!("only {owners} can have it"), Some("leave it out".into()))
}

/// Checks that sub-patches of this resolution are squares that divide both the image and the square of one feature.
fn resolution_fits(resolution: ImageSize, image: ImageSize, stride_px: usize) -> Result<()> {
    let ((rows, columns), (height, width)) = (resolution.height_and_width(), image.height_and_width());
    let fits = rows > 0
        && columns > 0
        && height % rows == 0
        && width % columns == 0
        && height / rows == width / columns
        && stride_px.is_multiple_of(height / rows);
    if fits {
        return Ok(());
    }
    let expected = format!("expected squares that divide the image and the encoder's stride of {stride_px} px");
    let sizes = (1..=stride_px).rev().filter(|px| stride_px.is_multiple_of(*px));
    let choices: Vec<String> = sizes.map(|px| size_at(image, px)).collect();
    Err(wrong("target.resolution", show(resolution), expected, Some(format!("{} would fit", choices.join(", ")))))
}

/// Checks that the head's last layer has at most [`MAX_OUTPUTS`] outputs per feature.
fn outputs_are_few(recipe: &Recipe) -> Result<()> {
    let Recipe { target, data, .. } = recipe;
    let stride_px = recipe.encoder.stride_px();
    let per_sub_patch = match target.kind {
        TargetKind::Pixels | TargetKind::NormalizedPixels => data.channels,
        TargetKind::ColorBins => data.channels * target.bins,
        TargetKind::ColorClusters => target.clusters,
        TargetKind::MeanColor => MeanColor::classes(data.channels),
        TargetKind::Hog => Hog::values(data.channels),
        TargetKind::Tokens => return Ok(()), // the tokenizer fixes the number of classes
    };
    let outputs = |px: usize| (stride_px / px) * (stride_px / px) * per_sub_patch;
    let found = outputs(recipe.sub_patch_px());
    if found <= MAX_OUTPUTS {
        return Ok(());
    }
    let value = target.resolution.map_or("the image's".into(), show);
    let expected = format!("the head would predict {found} numbers per feature, expected at most {MAX_OUTPUTS}");
    let fits = (1..=stride_px).find(|px| stride_px.is_multiple_of(*px) && outputs(*px) <= MAX_OUTPUTS);
    let hint = fits.map(|px| format!("--set target.resolution={}", size_at(data.image_size, px)));
    Err(wrong("target.resolution", value, expected, hint))
}

/// The resolution of an image in squares of `px` pixels.
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
        check_fails(vit, &["target.kind=color-bin"], "`color-bin`", "did you mean `color-bins`?");
        check_fails(vit, &["target.resolutoin=8"], "unknown key `target.resolutoin`", "`target.resolution`");
        check_fails(vit, &["target.window_px=47"], "`target.window_px` is `47`", "leave it out");
        check_fails(vit, &["target.kind=normalized-pixels"], "`target.window_px` is `missing`", "47");
        check_fails(vit, &["target.resolution=12"], "`target.resolution` is `12`", "8, 16, 32 would fit");
        check_fails(vit, &["target.resolution=4"], "stride of 4 px", "8, 16, 32");
        check_fails(vit, &["target.resolution=[8, 16]"], "is `[8, 16]`", "8, 16, 32");
        check_fails(swin, &["target.resolution=0"], "`target.resolution` is `0`", "6, 12, 24, 48, 96, 192");
        check_fails(vit, &["target.kind=color-bins", "target.bins=1"], "`target.bins` is `1`", "target.bins");
        let bins = ["target.kind=color-bins", "target.bins=256"];
        check_fails(swin, &bins, "786432 numbers per feature", "--set target.resolution=96");
        check_fails(vit, &["target.normalize=patch"], "`target.normalize` is `patch`", "leave it out");
        check_fails(vit, &["target.kind=mean-color", "target.resolution=8"], "only `pixels`", "leave it out");
        check_fails(vit, &["target.palette=p.safetensors"], "only `color-clusters`", "leave it out");
        let clusters = "target.kind=color-clusters";
        check_fails(vit, &[clusters, "target.clusters=1"], "`target.clusters` is `1`", "");
        check_fails(swin, &[clusters], "524288 numbers per feature", "--set target.resolution=96");
        let patch = ["target.kind=normalized-pixels", "target.normalize=patch", "target.window_px=47"];
        check_fails(vit, &patch, "`target.window_px` is `47`", "leave it out");
        let channels = ["target.kind=mean-color", "data.channels=5", "data.normalization=measured"];
        check_fails(vit, &channels, "`target.kind` is `mean-color`", "color-bins");
        check_fails(vit, &["head.kind=inverse-swin"], "`head.kind` is `inverse-swin`", "did you mean `inverse-swin-");
        check_fails(vit, &["head.width=8"], "`head.width` is `8`", "leave it out");
        check_fails(vit, &["head.kind=inverse-swin-t", "head.width=0"], "`head.width` is `0`", "");
        check_fails(vit, &["target.kind=tokens"], "`target.tokenizer` is `missing`", "simmim tokenizer");
        check_fails(vit, &["target.tokenizer=tok"], "only `tokens` can have it", "leave it out");
        check_fails(vit, &["loss.visible_weight=1.5"], "`loss.visible_weight` is `1.5`", "");
        check_fails(vit, &["loss.visible_weihgt=1"], "unknown key", "did you mean `loss.visible_weight`?");
    }

    #[test]
    fn a_resolution_of_every_size_that_fits_is_accepted() {
        for resolution in [6, 12, 24, 48, 96, 192] {
            let recipe = resolve("pretrain-swin-t-192", &[format!("target.resolution={resolution}")]).unwrap();
            assert_eq!(recipe.sub_patch_px(), 192 / resolution);
        }
        let edits = ["data.image_size=[32, 64]", "target.resolution=[8, 16]"].map(str::to_owned);
        assert_eq!(resolve("pretrain-vit-cifar", &edits).unwrap().sub_patch_px(), 4);
    }
}
