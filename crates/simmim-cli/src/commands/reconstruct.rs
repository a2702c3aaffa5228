//! `simmim reconstruct`.

use super::{print_result, read_image, say_import, warn_of_damaged};
use crate::cli::{Common, ReconstructArgs};
use crate::exit::{self, Exit};
use crate::unused::ignored;
use serde_json::json;
use simmim::pictures::{MaskSource, PretrainedModel, describe};
use simmim::recipe::MaskStrategyName;
use simmim::{Error, precision};
use simmim_engine::Device;
use std::path::{Path, PathBuf};

pub(crate) fn run(common: &Common, args: &ReconstructArgs, device: &impl Device) -> anyhow::Result<Exit> {
    let paths = pictures_of(&args.images, &args.out)?;
    let mask_source = mask_source(args)?;
    refuse_unused(&common.set, &mask_source)?;
    let (precision, _) = precision::choose(common.precision(), device);
    let trained = PretrainedModel::load(&args.from, &common.set, device, precision)?;
    warn_of_damaged(trained.damaged());
    say_import(common, trained.import());
    if !common.quiet {
        crate::terminal::line(&describe(&trained));
    }
    let mut pictures = Vec::new();
    let mut prose = Vec::new();
    let (mut failed, mut exit) = (Vec::new(), Exit::Done);
    for (i, (image, path)) in args.images.iter().zip(&paths).enumerate() {
        let seed = common.seed().wrapping_add(i as u64);
        let reconstruction = match trained.reconstruct(image, &mask_source, path, seed) {
            Ok(reconstruction) => reconstruction,
            // the other images can do without this one
            Err(error) => {
                failed.push(json!({ "image": image, "error": error.to_string() }));
                exit = exit::worse(exit, exit::report(&error.into()));
                continue;
            }
        };
        prose.push(format!(
            "{}  masked L1 {} (mean color {:.4}): {}",
            path.display(),
            reconstruction.masked_l1.map_or("–".into(), |l1| format!("{l1:.4}")),
            reconstruction.mean_color_l1,
            reconstruction.measures.describe()
        ));
        pictures.push(json!({
            "path": path,
            "masked_l1": reconstruction.masked_l1,
            "mean_color_l1": reconstruction.mean_color_l1,
            "measures": reconstruction.measures.describe(),
        }));
    }
    if failed.len() < args.images.len() {
        print_result(common.json, &prose.join("\n"), &json!({ "pictures": pictures, "failed": failed }))?;
    }
    Ok(exit)
}

/// Path of the picture of each image: a PNG with its name in `out`, with a number if several images have the same name.
///
/// # Errors
/// If a picture would overwrite one of the images.
fn pictures_of(images: &[PathBuf], out: &Path) -> simmim::Result<Vec<PathBuf>> {
    let mut pictures: Vec<PathBuf> = Vec::new();
    for image in images {
        let stem = image.file_stem().unwrap_or_default().to_string_lossy();
        let numbered = |number: usize| match number {
            1 => out.join(format!("{stem}.png")),
            _ => out.join(format!("{stem}-{number}.png")),
        };
        let picture =
            (1..).map(numbered).find(|path| !pictures.contains(path)).expect("there are more numbers than images");
        if let Some(image) = images.iter().find(|image| is_same_file(image, &picture)) {
            let what = format!("the picture `{}` would overwrite the image `{}`", picture.display(), image.display());
            return Err(Error::Input { what, hint: Some("choose another folder for --out".into()) });
        }
        pictures.push(picture);
    }
    Ok(pictures)
}

/// Whether two paths lead to the same existing file.
fn is_same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// Refuses edits of what a mask of the arguments does not take from the recipe.
///
/// # Errors
/// If there is one.
fn refuse_unused(edits: &[String], mask_source: &MaskSource) -> simmim::Result<()> {
    let (is_used, hint): (fn(&str) -> bool, _) = match mask_source {
        MaskSource::AsTrained => return Ok(()),
        MaskSource::Strategy(_) => (|key| key != "mask.strategy", "--mask says which strategy"),
        MaskSource::Drawing(_) | MaskSource::Rectangle { .. } => {
            (|key| key == "mask.unit_px", "of a mask that is drawn, the recipe says only `mask.unit_px`")
        }
    };
    let key = |edit: &str| edit.split('=').next().unwrap_or_default().trim().to_owned();
    match edits.iter().find(|edit| !is_used(&key(edit))) {
        None => Ok(()),
        Some(edit) => Err(ignored(&format!("--set {edit}"), "reconstruct", hint.into())),
    }
}

/// What the arguments ask to hide.
fn mask_source(args: &ReconstructArgs) -> anyhow::Result<MaskSource> {
    if let Some(around) = args.mask_box {
        return Ok(MaskSource::Rectangle { around, share: args.mask_share });
    }
    let Some(mask) = &args.mask else { return Ok(MaskSource::AsTrained) };
    match MaskStrategyName::ALL.into_iter().find(|strategy| strategy.name() == mask) {
        Some(strategy) => Ok(MaskSource::Strategy(strategy)),
        None => Ok(MaskSource::Drawing(read_image(Path::new(mask), 1)?)),
    }
}
