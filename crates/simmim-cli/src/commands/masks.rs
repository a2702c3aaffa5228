//! `simmim masks`.

use super::{print_result, read_image};
use crate::cli::{Common, MasksArgs};
use crate::exit::Exit;
use anyhow::Context;
use serde_json::{Value, json};
use simmim::pictures::mask_comparison::{AvgDistRow, csv, embedded_photo, measure, page, pictures, table};
use simmim::{Error, recipe};
use std::path::Path;

pub(crate) fn run(common: &Common, args: &MasksArgs) -> anyhow::Result<Exit> {
    let recipe = recipe::resolve(&args.recipe, &common.set)?;
    let photo = match &args.image {
        Some(path) => read_image(path, 3)?,
        None => embedded_photo()?,
    };
    let image_px = recipe.data.image_size.height_and_width();
    let at = |path: &Path| format!("`{}`", path.display());
    std::fs::create_dir_all(&args.out).map_err(Error::from).with_context(|| at(&args.out))?;
    let out = |name: &str| args.out.join(name);
    let sheet = pictures(&recipe.mask, image_px, &photo, common.seed())?;
    sheet.save_png(&out("masks.png")).map_err(Error::from)?;
    let measured = measure(&recipe.mask, image_px, common.seed());
    let table_path = out("avg_dist.csv");
    std::fs::write(&table_path, csv(&measured)).map_err(Error::from).with_context(|| at(&table_path))?;
    let page = page(&measured, image_px, recipe.mask.ratio, sheet.png_bytes().map_err(Error::from)?);
    page.write(&out("masks.html")).map_err(Error::from)?;
    if !common.quiet {
        crate::terminal::line(&format!("AvgDist in pixels by ratio; pictures: open {}", out("masks.html").display()));
    }
    let row =
        |m: &AvgDistRow| json!({ "strategy": m.strategy, "unit_px": m.unit_px, "ratio": m.ratio, "pixels": m.pixels });
    let rows: Vec<Value> = measured.iter().map(row).collect();
    let json = json!({ "avg_dist": rows, "pictures": out("masks.png"), "report": out("masks.html") });
    print_result(common.json, &aligned(&table(&measured)), &json)?;
    Ok(Exit::Done)
}

/// The table with aligned columns.
fn aligned((header, rows): &(Vec<String>, Vec<Vec<String>>)) -> String {
    let line = |cells: &Vec<String>| {
        let numbers: String = cells[1..].iter().map(|cell| format!("{cell:>8}")).collect();
        format!("{:10}{numbers}", cells[0])
    };
    [header].into_iter().chain(rows).map(line).collect::<Vec<_>>().join("\n")
}
