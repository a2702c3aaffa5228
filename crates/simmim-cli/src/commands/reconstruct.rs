//! `simmim reconstruct`.

use super::print_result;
use crate::cli::{Common, ReconstructArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::precision;
use simmim::reconstruct::{Trained, describe};

pub(crate) fn run(common: &Common, args: &ReconstructArgs) -> anyhow::Result<Exit> {
    let (precision, _) = precision::choose(common.precision.into());
    let trained = Trained::load(&args.from, precision, common.threads())?;
    if !common.quiet {
        eprintln!("{}", describe(&trained));
    }
    let mut pictures = Vec::new();
    let mut prose = Vec::new();
    for (i, image) in args.images.iter().enumerate() {
        let done = trained.reconstruct(image, &args.out, common.seed.wrapping_add(i as u64))?;
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
