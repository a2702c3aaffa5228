//! `simmim palette`.

use super::print_result;
use crate::cli::{Common, PaletteArgs};
use crate::exit::Exit;
use serde_json::json;
use simmim::Error;
use simmim::targets::Palette;

pub(crate) fn run(common: &Common, args: &PaletteArgs) -> anyhow::Result<Exit> {
    let source = simmim_data::open(&args.data, args.channels).map_err(Error::from)?;
    let palette = Palette::measure(source.as_ref(), usize::from(args.colors), common.seed)?;
    palette.save(&args.out)?;
    let prose = format!(
        "{}: {} colors of {} channels; --set target.kind=color-clusters --set target.clusters={} --set target.palette={}",
        args.out.display(),
        palette.len(),
        args.channels,
        palette.len(),
        args.out.display()
    );
    print_result(common.json, &prose, &json!({ "palette": args.out, "colors": palette.to_hex() }))?;
    Ok(Exit::Done)
}
