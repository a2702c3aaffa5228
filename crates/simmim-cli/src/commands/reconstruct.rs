//! `simmim reconstruct`.

use super::{print_result, read_image, warn_of_damaged};
use crate::cli::{Common, ReconstructArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::recipe::MaskStrategyName;
use simmim::reconstruct::{Hide, Trained, describe};
use simmim::{Error, precision};
use std::path::{Path, PathBuf};

pub(crate) fn run(common: &Common, args: &ReconstructArgs) -> anyhow::Result<Exit> {
    let paths = pictures_of(&args.images, &args.out)?;
    let hide = hide(args)?;
    let (precision, _) = precision::choose(common.precision.into());
    let trained = Trained::load(&args.from, precision, common.threads())?;
    warn_of_damaged(trained.damaged());
    if !common.quiet {
        eprintln!("{}", describe(&trained));
    }
    let mut pictures = Vec::new();
    let mut prose = Vec::new();
    for (i, (image, path)) in args.images.iter().zip(&paths).enumerate() {
        let done = trained.reconstruct(image, &hide, path, common.seed.wrapping_add(i as u64))?;
        prose.push(format!(
            "{}  masked L1 {} (mean colour {:.4}): {}",
            path.display(),
            done.masked_l1.map_or("–".into(), |l1| format!("{l1:.4}")),
            done.mean_colour_l1,
            done.measures.describe()
        ));
        pictures.push(json!({
            "path": path,
            "masked_l1": done.masked_l1,
            "mean_colour_l1": done.mean_colour_l1,
            "measures": done.measures.describe(),
        }));
    }
    print_result(common.json, &prose.join("\n"), &json!({ "pictures": pictures }))?;
    Ok(Exit::Done)
}

/// The picture of each image: a PNG of its name in `out`, numbered where two images share a name.
///
/// # Errors
/// If a picture would replace one of the images.
fn pictures_of(images: &[PathBuf], out: &Path) -> simmim::Result<Vec<PathBuf>> {
    let mut pictures: Vec<PathBuf> = Vec::new();
    for image in images {
        let stem = image.file_stem().unwrap_or_default().to_string_lossy();
        let numbered = |number: usize| match number {
            1 => out.join(format!("{stem}.png")),
            _ => out.join(format!("{stem}-{number}.png")),
        };
        let picture = (1..).map(numbered).find(|path| !pictures.contains(path)).expect("numbers do not run out");
        if let Some(image) = images.iter().find(|image| is_same_file(image, &picture)) {
            let what = format!("the picture `{}` would replace the image `{}`", picture.display(), image.display());
            return Err(Error::Input { what, hint: Some("choose another folder for --out".into()) });
        }
        pictures.push(picture);
    }
    Ok(pictures)
}

/// Whether two paths lead to one file that exists.
fn is_same_file(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// What the arguments say is to be hidden.
fn hide(args: &ReconstructArgs) -> anyhow::Result<Hide> {
    if let Some(around) = args.mask_box {
        return Ok(Hide::Rectangle { around, share: args.mask_share });
    }
    let Some(mask) = &args.mask else { return Ok(Hide::AsTrained) };
    match MaskStrategyName::ALL.into_iter().find(|strategy| strategy.name() == mask) {
        Some(strategy) => Ok(Hide::Strategy(strategy)),
        None => Ok(Hide::Drawing(read_image(Path::new(mask), 1)?)),
    }
}
