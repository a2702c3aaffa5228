//! `simmim reconstruct`.

use super::{print_result, read_image};
use crate::cli::{Common, ReconstructArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::precision;
use simmim::recipe::MaskStrategyName;
use simmim::reconstruct::{Hide, Trained, describe};
use std::path::Path;

pub(crate) fn run(common: &Common, args: &ReconstructArgs) -> anyhow::Result<Exit> {
    let hide = hide(args)?;
    let (precision, _) = precision::choose(common.precision.into());
    let trained = Trained::load(&args.from, precision, common.threads())?;
    if !common.quiet {
        eprintln!("{}", describe(&trained));
    }
    let mut pictures = Vec::new();
    let mut prose = Vec::new();
    for (i, image) in args.images.iter().enumerate() {
        let done = trained.reconstruct(image, &hide, &args.out, common.seed.wrapping_add(i as u64))?;
        prose.push(format!(
            "{}  masked L1 {:.4} (mean colour {:.4})",
            done.path.display(),
            done.masked_l1,
            done.mean_colour_l1
        ));
        pictures.push(json!({ "path": done.path, "masked_l1": done.masked_l1, "mean_colour_l1": done.mean_colour_l1 }));
    }
    print_result(common.json, &prose.join("\n"), &json!({ "pictures": pictures }));
    Ok(Exit::Done)
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
