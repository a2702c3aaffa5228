//! `simmim map`.

use super::outputs::Outputs;
use super::print_result;
use super::rows::Collection;
use crate::cli::{Common, MapArgs};
use crate::counting::Counting;
use crate::exit::Exit;
use crate::interrupt;
use crate::terminal::line;
use serde_json::json;
use simmim::Error;
use simmim::pictures::save_map;
use simmim::report::{MAX_PICTURES, MapFigure, MapPicture, Number, Page, Section, TILE_PX};
use simmim::search::{FeatureRows, LEAST_FOR_TSNE, MapMethod, MapOptions, Table, coordinates};
use simmim_data::{Source, thumbnail, without_secrets};
use simmim_engine::Device;

const COLUMNS: [&str; 4] = ["file", "class", "x", "y"];

pub(crate) fn run(common: &Common, args: &MapArgs, device: &impl Device) -> anyhow::Result<Exit> {
    let outputs = Outputs::of(&args.out, &COLUMNS)?;
    let interrupted = || {
        line("nothing was written; the same command starts again");
        Ok(Exit::Interrupted)
    };
    let stop = interrupt::flag("interrupted: stopping (press Ctrl-C again to stop at once)")?;
    let Some(collection) = Collection::open(common, &args.collection, false, device, &stop)? else {
        return interrupted();
    };
    let rows = &collection.rows;
    outputs.spare(rows.names().files.iter().map(String::as_str))?;
    let options = MapOptions { method: args.method.into(), perplexity: args.perplexity, seed: common.seed() };
    if options.method == MapMethod::Tsne && rows.len() < LEAST_FOR_TSNE {
        line(&format!("{} images are too few for t-SNE: they are shown by their principal components", rows.len()));
    }
    let mut counting = Counting::new(common.quiet, rows.len());
    let on = &mut |share: f64| counting.on((share * rows.len() as f64) as usize);
    let places = coordinates(rows, options, device, &stop, on);
    counting.finish();
    let Some(places) = places? else { return interrupted() };
    if let Some(path) = &outputs.html {
        let data = args.collection.data.as_ref().map_or_else(
            || args.collection.features.as_ref().map_or(String::new(), |path| path.display().to_string()),
            |data| without_secrets(data),
        );
        page(rows, &places, options, collection.source.as_deref(), &data).write(path).map_err(Error::from)?;
    }
    let names = rows.names();
    if let Some(path) = &outputs.png {
        save_map(path, &places, &names.classes, &names.class_names).map_err(Error::from)?;
    }
    if let Some(path) = &outputs.csv {
        Table::write(path, &COLUMNS, |table| {
            for (row, [x, y]) in places.iter().enumerate() {
                table.add([&names.files[row], rows.class(row).unwrap_or_default(), &x.to_string(), &y.to_string()])?;
            }
            Ok(Some(()))
        })?;
    }
    let files = outputs.all();
    let json = json!({
        "images": rows.len(),
        "features": rows.width(),
        "method": if is_tsne(options, rows) { "tsne" } else { "pca" },
        "classes": names.class_names.len(),
        "skipped_images": collection.skipped,
        "files": files,
    });
    let wrote: String = files.iter().map(|path| format!("\nwrote {}", path.display())).collect();
    print_result(common.json, &format!("a map of {} images{wrote}", rows.len()), &json)?;
    Ok(Exit::Done)
}

/// Whether the map is made by t-SNE: not that of a few images.
fn is_tsne(options: MapOptions, rows: &FeatureRows) -> bool {
    options.method == MapMethod::Tsne && rows.len() >= LEAST_FOR_TSNE
}

/// The page: the map, with the pictures of as many images as fit, evenly spaced over the collection.
fn page(rows: &FeatureRows, places: &[[f64; 2]], options: MapOptions, source: Option<&dyn Source>, data: &str) -> Page {
    let names = rows.names();
    let shown = rows.len().min(MAX_PICTURES);
    let picture = |number: usize| {
        let point = number * rows.len() / shown;
        let sample = source.and_then(|source| source.get(rows.sample(point)?).ok());
        let picture = sample.map(|sample| thumbnail(&sample.image, TILE_PX));
        MapPicture { point, name: names.files[point].clone(), picture }
    };
    let (method, meaning) = if is_tsne(options, rows) {
        (
            "t-SNE",
            "Images whose features are alike lie near each other. How far groups are from each other, and how large they are, \
             means little.",
        )
    } else {
        ("PCA", "The two directions in which the features vary most, each as long as the features differ along it.")
    };
    let number = |label: &str, value: String| Number { label: label.into(), value, note: None };
    let mut numbers = vec![number("images", rows.len().to_string()), number("method", method.into())];
    if !names.class_names.is_empty() {
        numbers.push(number("classes", names.class_names.len().to_string()));
    }
    let pictures = if shown < rows.len() {
        format!(" Of {} images, {shown} show their picture.", rows.len())
    } else {
        String::new()
    };
    let map = MapFigure {
        caption: format!("Map of {} images by {method}", rows.len()),
        places: places.to_vec(),
        classes: names.classes.clone(),
        class_names: names.class_names.clone(),
        pictures: (0..shown).map(picture).collect(),
    };
    let of_classes = match names.class_names.is_empty() {
        true => "",
        false => " A class below is shown alone by a click.",
    };
    let text = format!("{meaning}{pictures} The wheel or a double click enlarges, and dragging moves.{of_classes}");
    Page {
        title: "Map of a collection".into(),
        subtitle: format!("{data} · simmim {}", env!("CARGO_PKG_VERSION")),
        sections: vec![Section::Numbers(numbers), Section::Text(text), Section::Map(map)],
    }
}
