//! `simmim palette`.

use super::{open_data, print_result, warn_of_unreadable};
use crate::cli::{Common, PaletteArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::targets::Palette;

pub(crate) fn run(common: &Common, args: &PaletteArgs) -> anyhow::Result<Exit> {
    let source = open_data(common, &args.data, usize::from(args.channels))?;
    let (palette, skipped) = Palette::measure(source.as_ref(), usize::from(args.colors), common.seed())?;
    let skipped = warn_of_unreadable(&skipped);
    palette.save(&args.out)?;
    let prose = format!(
        "{}: {} colors of {} channels; --set target.kind=color-clusters --set target.clusters={} --set target.palette={}",
        args.out.display(),
        palette.len(),
        args.channels,
        palette.len(),
        args.out.display()
    );
    print_result(
        common.json,
        &prose,
        &json!({ "palette": args.out, "colors": palette.to_hex(), "skipped_images": skipped }),
    )?;
    Ok(Exit::Done)
}
