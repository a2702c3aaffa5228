//! `simmim inspect` of a data set.

use super::outputs;
use crate::cli::{Common, InspectArgs};
use crate::counting::Counting;
use crate::terminal::escaped;
use serde_json::{Map, Value, json};
use simmim::Error;
use simmim::recipe::{self, AnyRecipe, Suggestion, suitable};
use simmim::report::{Collection, collection_page};
use simmim_data::scan::{histogram_of_shapes, histogram_of_sides};
use simmim_data::{Bin, Decoding, DuplicateGroup, PassedOverGroup, PassedOverReason, Scan, Source, Stored, Tiled};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// Channels that a data set is decoded to if nothing else is said.
const CHANNELS: usize = 3;
/// Groups of duplicates that are named, of each kind, and images of a group.
const NAMED: usize = 10;
/// Characters of the longest bar of a histogram.
const BAR: usize = 32;

/// The description of a data set as prose and as JSON.
///
/// # Errors
/// If it cannot be opened, or the page cannot be written.
pub(super) fn describe_data(common: &Common, args: &InspectArgs) -> anyhow::Result<(String, Value)> {
    let recipe = args.recipe.as_deref().map(|name| recipe::resolve_any(name, &common.set)).transpose()?;
    let data = recipe.as_ref().map(AnyRecipe::data);
    let decoding = match data {
        Some(data) => data.decoding(),
        None => Decoding::from(args.channels.map_or(CHANNELS, usize::from)),
    };
    let mut source = simmim_data::open(&args.what, decoding).map_err(Error::from)?;
    let what = simmim_data::without_secrets(&args.what);
    if let Some(path) = &args.html {
        check_place(path)?;
    }
    let workers = args.workers.map_or_else(|| common.threads(), usize::from);
    let mut tiles = None;
    if let Some(tiling) = data.and_then(|data| data.tiling(common.seed())) {
        let of_pictures = Arc::new(Tiled::new(source, tiling, workers).map_err(Error::from)?);
        source = Arc::clone(&of_pictures) as Arc<dyn Source>;
        tiles = Some(of_pictures);
    }
    let mut counting = Counting::new(common.quiet, source.len());
    let scan = simmim_data::scan(&source, workers, &mut |done| counting.on(done));
    counting.finish();
    let scan = scan.map_err(Error::from)?;
    let suggestion = suitable(&scan).filter(|_| recipe.is_none());
    let counts = tiles.as_deref().map(TileCounts::of);
    let mut prose = prose(&scan, &*source, counts.as_ref());
    if let Some(suggestion) = &suggestion {
        let Suggestion { recipe, title, .. } = suggestion;
        let command = escaped(&suggestion.command(&what));
        let _ = write!(prose, "recipe that suits   {recipe}: {title}\n  {command}\n");
    }
    let mut json = json(&scan, &*source);
    json["tiles"] = counts.map_or(
        Value::Null,
        |TileCounts { pictures, least, most }| json!({ "pictures": pictures, "per_picture": [least, most] }),
    );
    json["suggestion"] = suggestion.map_or(Value::Null, |suggestion| {
        json!({
            "recipe": suggestion.recipe,
            "edits": suggestion.edits,
            "command": suggestion.command(&what),
        })
    });
    if let Some(path) = &args.html {
        let collection =
            Collection { data: &what, source: &*source, scan: &scan, tiles: tiles.as_deref(), seed: common.seed() };
        collection_page(&collection).write(path).map_err(Error::from)?;
        let _ = writeln!(prose, "page                open {}", path.display());
        json["report"] = json!(path);
    }
    Ok((prose, json))
}

/// How many tiles pictures have.
struct TileCounts {
    /// Number of pictures, without those that cannot be read and those that have no tile.
    pictures: usize,
    /// Fewest tiles of a picture.
    least: usize,
    /// Most tiles of a picture.
    most: usize,
}

impl TileCounts {
    fn of(tiles: &Tiled) -> Self {
        let mut counts = BTreeMap::new();
        let places = (0..tiles.len()).map(|index| tiles.place(index));
        places.filter(|(_, place)| place.is_some()).for_each(|(picture, _)| *counts.entry(picture).or_default() += 1);
        let of = |count: Option<&usize>| count.copied().unwrap_or(0);
        Self { pictures: counts.len(), least: of(counts.values().min()), most: of(counts.values().max()) }
    }

    fn prose(&self) -> String {
        let Self { pictures, least, most } = self;
        let each = if least == most { most.to_string() } else { format!("{least} to {most}") };
        format!(", tiles of {pictures} picture{}: {each} each", if *pictures == 1 { "" } else { "s" })
    }
}

/// Checks the place of the page, which is written after a long time.
///
/// # Errors
/// If it cannot be written there, or would replace something that is no page.
fn check_place(path: &Path) -> anyhow::Result<()> {
    outputs::check_place("--html", path)?;
    match path.exists() && !(path.is_file() && outputs::is_page(path)) {
        false => Ok(()),
        true => {
            let what = format!("`--html {}` is there already and is no page", path.display());
            Err(Error::Input { what, hint: Some("name another file, which it would not replace".into()) }.into())
        }
    }
}

fn prose(scan: &Scan, source: &dyn Source, tiles: Option<&TileCounts>) -> String {
    let not_read = match scan.passed_over.count() {
        0 => String::new(),
        1 => ", 1 other not read".into(),
        count => format!(", {count} others not read"),
    };
    let tiles = tiles.map_or(String::new(), TileCounts::prose);
    let mut prose = format!("{} images, {} unreadable{not_read}{tiles}\n", scan.count, scan.unreadable.len());
    if let Some(s) = &scan.sizes {
        prose += &format!(
            "sizes               {}–{} × {}–{} px, read as {} channels\n",
            s.min_height, s.max_height, s.min_width, s.max_width, s.channels
        );
        prose += &bars("shorter side, px", &histogram_of_sides(&scan.shapes), 0);
        prose += &bars("width / height", &histogram_of_shapes(&scan.shapes), 2);
        prose += "stored as\n";
        prose += &scan.stored.iter().map(|(stored, count)| format!("  {count:>8}  {stored}\n")).collect::<String>();
    }
    if let Some(first) = scan.several_frames.images.first() {
        let (images, others) = (scan.several_frames.images.len(), scan.several_frames.others);
        prose += &format!(
            "several frames      files: {images}, of which the first frame is read; others, not read: {others}; as in {}\n",
            escaped(&source.name(*first))
        );
    }
    if let Some(normalization) = &scan.normalization {
        let listed = |values: &[f32]| values.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(", ");
        prose += &format!(
            "mean                {}\nstd                 {}\n                    \
             (with data.normalization = \"measured\" in a recipe, images are normalized by them)\n",
            listed(&normalization.mean),
            listed(&normalization.std)
        );
    }
    if !scan.classes.is_empty() {
        prose += &format!("classes             {}\n", scan.classes.len());
        prose +=
            &scan.classes.iter().map(|(name, count)| format!("  {count:>8}  {}\n", escaped(name))).collect::<String>();
        if scan.unlabeled > 0 {
            prose += &format!("  {:>8}  without a label\n", scan.unlabeled);
        }
    }
    prose += &duplicates(scan, source);
    prose += &scan
        .unreadable
        .iter()
        .map(|s| format!("  unreadable: {}: {}\n", escaped(&s.name), escaped(&s.reason)))
        .collect::<String>();
    let groups = scan.passed_over.groups();
    prose
        + &groups
            .iter()
            .map(|group| format!("  not read: {}\n", escaped(&group.advice(group.first.len()))))
            .collect::<String>()
}

/// A histogram as lines.
fn bars(title: &str, bins: &[Bin], decimals: usize) -> String {
    let most = bins.iter().map(|bin| bin.images).max().unwrap_or(0).max(1);
    let line = |bin: &Bin| {
        let bar = "█".repeat((bin.images * BAR).div_ceil(most));
        let line = format!("  {:>8}  {:13} {bar}", bin.images, bin.label(decimals));
        line.trim_end().to_owned() + "\n"
    };
    format!("{title}\n{}", bins.iter().map(line).collect::<String>())
}

/// What is there more than once, with the first groups of each kind.
fn duplicates(scan: &Scan, source: &dyn Source) -> String {
    let duplicates = &scan.duplicates;
    let mut prose = String::new();
    for (title, groups) in [("exact copies", &duplicates.exact), ("look alike", &duplicates.near)] {
        let images: usize = groups.iter().map(|group| group.images.len()).sum();
        let of = if groups.is_empty() { String::new() } else { format!(" in {} groups", groups.len()) };
        let _ = writeln!(prose, "{title:19} {images} images{of}");
        prose += &groups.iter().take(NAMED).map(|group| group_line(group, scan, source)).collect::<String>();
        if groups.len() > NAMED {
            let _ = writeln!(prose, "  and {} more groups, which --json and --html list", groups.len() - NAMED);
        }
    }
    let contradictions = duplicates.contradictions();
    if !contradictions.is_empty() {
        let _ =
            writeln!(prose, "label conflicts     {} groups, with images of different classes", contradictions.len());
        let first = contradictions.iter().take(NAMED);
        prose += &first.map(|group| group_line(group, scan, source)).collect::<String>();
    }
    if !duplicates.plain.is_empty() {
        let _ = writeln!(
            prose,
            "plain               {} images, among which only exact copies are found",
            duplicates.plain.len()
        );
    }
    prose
}

fn group_line(group: &DuplicateGroup, scan: &Scan, source: &dyn Source) -> String {
    let names: Vec<String> = group.images.iter().take(NAMED).map(|index| escaped(&source.name(*index))).collect();
    let more = match group.images.len() {
        ..=NAMED => String::new(),
        images => format!(" = {} more", images - NAMED),
    };
    let classes = match group.is_contradictory {
        true => format!(" ({})", escaped(&class_names(group, scan).join(", "))),
        false => String::new(),
    };
    format!("  {}{more}{classes}\n", names.join(" = "))
}

fn class_names<'a>(group: &DuplicateGroup, scan: &'a Scan) -> Vec<&'a str> {
    group.classes.iter().map(|class| scan.classes[*class].0.as_str()).collect()
}

fn json(scan: &Scan, source: &dyn Source) -> Value {
    let unreadable: Vec<Value> =
        scan.unreadable.iter().map(|s| json!({ "name": s.name, "reason": s.reason })).collect();
    let groups = scan.passed_over.groups();
    let passed_over: Vec<String> = groups.iter().flat_map(PassedOverGroup::sentences).collect();
    let by_reason: Vec<Value> = groups.iter().map(group_json).collect();
    let classes: Map<String, Value> = scan.classes.iter().map(|(n, c)| (n.clone(), json!(c))).collect();
    let names = |images: &[usize]| images.iter().map(|index| source.name(*index)).collect::<Vec<_>>();
    let duplicates = |groups: &[DuplicateGroup]| -> Vec<Value> {
        let group = |group: &DuplicateGroup| {
            json!({
                "images": names(&group.images),
                "classes": class_names(group, scan),
                "label_conflict": group.is_contradictory,
            })
        };
        groups.iter().map(group).collect()
    };
    json!({
        "images": scan.count,
        "classes": classes,
        "unlabeled": scan.unlabeled,
        "unreadable": unreadable,
        "passed_over": passed_over,
        "not_read": by_reason,
        "sizes": scan.sizes.map(|s| json!({
            "height": [s.min_height, s.max_height],
            "width": [s.min_width, s.max_width],
            "channels": s.channels,
        })),
        "shorter_side_px": bins_json(&histogram_of_sides(&scan.shapes)),
        "width_by_height": bins_json(&histogram_of_shapes(&scan.shapes)),
        "stored": scan.stored.iter().map(stored_json).collect::<Vec<_>>(),
        "normalization": scan.normalization.as_ref().map(|n| json!({ "mean": n.mean, "std": n.std })),
        "several_frames": {
            "images": names(&scan.several_frames.images),
            "not_read": scan.several_frames.others,
        },
        "exact_duplicates": duplicates(&scan.duplicates.exact),
        "near_duplicates": duplicates(&scan.duplicates.near),
        "label_conflicts": scan.duplicates.contradictions().len(),
        "plain": names(&scan.duplicates.plain),
    })
}

/// The bins of a histogram; the last one may have no end.
fn bins_json(bins: &[Bin]) -> Vec<Value> {
    bins.iter().map(|bin| json!({ "from": bin.from, "below": bin.below, "images": bin.images })).collect()
}

fn stored_json((stored, images): (&Stored, &usize)) -> Value {
    json!({
        "channels": stored.channels,
        "alpha": stored.has_alpha(),
        "depth": stored.depth.name(),
        "images": images,
    })
}

/// What is not read for one reason; `extension` is there if that is the reason.
fn group_json(group: &PassedOverGroup) -> Value {
    let mut json = json!({
        "reason": group.reason.key(),
        "count": group.count,
        "first": group.first,
        "what": group.advice(group.first.len()),
    });
    if let PassedOverReason::Extension(extension) = &group.reason {
        json["extension"] = json!(extension);
    }
    json
}
