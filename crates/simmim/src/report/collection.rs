//! The page of a collection of images: how many, of which sizes and kinds, a contact sheet, what is there twice, and what
//! cannot be read.

use super::{Bar, Bars, Gallery, Number, Page, Section, Thumbnail};
use crate::pictures::{png_of_bytes, with_tiles};
use crate::recipe::suitable;
use simmim_data::rng::{below, rng};
use simmim_data::scan::{MAX_BITS, MAX_PERCENT, histogram_of_shapes, histogram_of_sides};
use simmim_data::{Bin, DuplicateGroup, PassedOverGroup, Purpose, Scan, Source, Tiled, thumbnail};
use std::collections::{BTreeMap, HashSet};

/// Pictures of the contact sheet.
const SHOWN: usize = 64;
/// Longest side of a picture in pixels; they are shown a little smaller.
const PICTURE_PX: usize = 120;
/// Pictures whose tiles are drawn, and their longest side in pixels.
const TILED: usize = 12;
const TILED_PX: usize = 640;
/// Groups of duplicates that are shown, of each kind.
const GROUPS: usize = 10;
/// Pictures of a group that are shown.
const OF_GROUP: usize = 8;
/// Classes and unreadable images that are listed.
const LISTED: usize = 200;

/// A collection of images, and what a scan of it found.
#[derive(Clone, Copy)]
pub struct Collection<'a> {
    /// Where it is, as it is typed.
    pub data: &'a str,
    /// Its images; some are read again.
    pub source: &'a dyn Source,
    /// What was found.
    pub scan: &'a Scan,
    /// The same images, if they are tiles of larger pictures.
    pub tiles: Option<&'a Tiled>,
    /// Draws the images of the contact sheet.
    pub seed: u64,
}

/// The page of a collection.
pub fn collection_page(collection: &Collection) -> Page {
    let Collection { data, scan, .. } = collection;
    let mut sections = vec![numbers(scan)];
    sections.extend(collection.tiles.map(|tiles| collection.drawn_tiles(tiles)).unwrap_or_default());
    sections.extend(collection.contact_sheet());
    if let Some(suggestion) = suitable(scan).filter(|_| collection.tiles.is_none()) {
        sections.push(Section::Heading("Where to begin".into()));
        let caption = format!("{}: {}", suggestion.recipe, suggestion.title);
        sections.push(Section::Code { caption, text: suggestion.command(data) });
    }
    sections.extend(kinds(scan));
    sections.extend(collection.duplicates());
    sections.extend(unreadable(scan));
    Page {
        title: "Collection".into(),
        subtitle: format!("{} · simmim {}", collection.data, env!("CARGO_PKG_VERSION")),
        sections,
    }
}

fn numbers(scan: &Scan) -> Section {
    let number = |label: &str, count: usize, note: Option<String>| Number {
        label: label.into(),
        value: count.to_string(),
        note: note.filter(|note| !note.is_empty()),
    };
    let duplicates = &scan.duplicates;
    let mut numbers = vec![
        number("images", scan.count, None),
        number("unreadable", scan.unreadable.len(), None),
        number("exact copies", duplicates.surplus(), Some("beyond the first of each".into())),
        number("groups that look alike", duplicates.near.len(), None),
    ];
    let several = &scan.several_frames;
    if !several.images.is_empty() {
        let not_read = format!("frames that are not read: {}", several.others);
        numbers.push(number("files of several frames", several.images.len(), Some(not_read)));
    }
    if !scan.classes.is_empty() {
        let unlabeled = (scan.unlabeled > 0).then(|| format!("{} images without", scan.unlabeled));
        numbers.push(number("classes", scan.classes.len(), unlabeled));
        let contradictions = duplicates.contradictions().len();
        numbers.push(number(
            "label conflicts",
            contradictions,
            Some("groups of the same image in other classes".into()),
        ));
    }
    Section::Numbers(numbers)
}

/// Histograms and tables of classes, sizes and values.
fn kinds(scan: &Scan) -> Vec<Section> {
    let mut sections = vec![Section::Heading("Sizes and kinds".into())];
    let Some(sizes) = scan.sizes else {
        sections.push(Section::Text("No image can be read.".into()));
        return sections;
    };
    let range = |least: usize, most: usize, what: &str| match least == most {
        true => format!("{least} px {what}"),
        false => format!("{least} to {most} px {what}"),
    };
    sections.push(Section::Text(format!(
        "{}, {}.",
        range(sizes.min_height, sizes.max_height, "high"),
        range(sizes.min_width, sizes.max_width, "wide")
    )));
    let bars = |title: &str, bars: Vec<Bar>| Section::Bars(Bars { title: title.into(), bars });
    let binned = |bins: Vec<Bin>, unit: &str, decimals: usize| -> Vec<Bar> {
        bins.iter().map(|bin| Bar { label: format!("{}{unit}", bin.label(decimals)), count: bin.images }).collect()
    };
    sections.push(bars("Shorter side", binned(histogram_of_sides(&scan.shapes), " px", 0)));
    sections.push(bars("Width divided by height", binned(histogram_of_shapes(&scan.shapes), "", 2)));
    let stored = scan.stored.iter().map(|(stored, count)| Bar { label: stored.to_string(), count: *count });
    sections.push(bars("As they are stored", stored.collect()));
    let named = |(name, count): &(String, usize)| Bar { label: name.clone(), count: *count };
    let mut classes: Vec<Bar> = scan.classes.iter().take(LISTED).map(named).collect();
    if scan.classes.len() > LISTED {
        let count = scan.classes[LISTED..].iter().map(|(_, count)| count).sum();
        classes.push(Bar { label: format!("{} more classes", scan.classes.len() - LISTED), count });
    }
    if !classes.is_empty() {
        sections.push(bars("Classes", classes));
    }
    if let Some(normalization) = &scan.normalization {
        let row = |(channel, (mean, std)): (usize, (&f32, &f32))| {
            vec![channel.to_string(), format!("{mean:.4}"), format!("{std:.4}")]
        };
        let caption = "Mean and standard deviation, which data.normalization = \"measured\" uses";
        sections.push(Section::Table {
            caption: caption.into(),
            header: ["channel", "mean", "standard deviation"].map(str::to_owned).to_vec(),
            rows: normalization.mean.iter().zip(&normalization.std).enumerate().map(row).collect(),
        });
    }
    sections
}

impl Collection<'_> {
    /// Images drawn evenly over the collection: one from each of as many equal stretches.
    fn contact_sheet(&self) -> Vec<Section> {
        let broken: HashSet<usize> = self.scan.unreadable.iter().map(|skipped| skipped.index).collect();
        let readable: Vec<usize> = (0..self.scan.count).filter(|index| !broken.contains(index)).collect();
        let shown = readable.len().min(SHOWN);
        let drawn = self.drawn_evenly(readable.len(), shown).into_iter().map(|at| readable[at]);
        let pictures: Vec<Thumbnail> = drawn.filter_map(|index| self.picture(index)).collect();
        if pictures.is_empty() {
            return Vec::new();
        }
        let caption = match readable.len() {
            1 => "1 image".into(),
            ..=SHOWN => format!("All {shown} images"),
            _ => format!("{shown} of {} images, drawn evenly over the collection", readable.len()),
        };
        vec![Section::Heading("Contact sheet".into()), Section::Gallery(Gallery { caption, pictures, more: 0 })]
    }

    /// One number below `count` of each of `shown` equal stretches.
    fn drawn_evenly(&self, count: usize, shown: usize) -> Vec<usize> {
        let draw = |at: usize| {
            let (start, end) = (at * count / shown, (at + 1) * count / shown);
            start + below(&mut rng(self.seed, Purpose::Show, 0, at as u64), end - start)
        };
        (0..shown).map(draw).collect()
    }

    /// Pictures with the borders of their tiles, drawn evenly over the collection.
    fn drawn_tiles(&self, tiles: &Tiled) -> Vec<Section> {
        let mut places: BTreeMap<usize, Vec<[usize; 4]>> = BTreeMap::new();
        for (picture, place) in (0..tiles.len()).map(|index| tiles.place(index)) {
            places.entry(picture).or_default().extend(place);
        }
        let places: Vec<_> = places.into_iter().filter(|(_, tiles)| !tiles.is_empty()).collect();
        let drawn = self.drawn_evenly(places.len(), places.len().min(TILED)).into_iter().filter_map(|at| {
            let (picture, places) = &places[at];
            let (size, overview) = tiles.overview(*picture, TILED_PX).ok()?;
            let png = png_of_bytes(&with_tiles(&overview, size, places)).ok()?;
            let many = if places.len() == 1 { "1 tile" } else { &format!("{} tiles", places.len()) };
            let caption = format!("{} ({} × {} px): {many}", tiles.pictures().name(*picture), size[0], size[1]);
            Some(Section::Image { caption, png, width_px: overview.width })
        });
        let text = "Each tile is one image of this page. What is dark is in no tile: it has too little content, or was not drawn.";
        let heading = [Section::Heading("Tiles".into()), Section::Text(text.into())];
        heading.into_iter().chain(drawn).collect()
    }

    /// The picture of an image; `None` if it can no longer be read.
    fn picture(&self, index: usize) -> Option<Thumbnail> {
        let sample = self.source.get(index).ok()?;
        let small = thumbnail(&sample.image, PICTURE_PX);
        let note = self.class_of(index).unwrap_or_default().to_owned();
        let width_px = small.height.max(small.width);
        Some(Thumbnail { name: sample.name, note, png: png_of_bytes(&small).ok()?, width_px })
    }

    fn class_of(&self, index: usize) -> Option<&str> {
        Some(&self.scan.classes.get(self.source.label(index)?)?.0)
    }

    fn duplicates(&self) -> Vec<Section> {
        let duplicates = &self.scan.duplicates;
        let mut sections = Vec::new();
        let exact = "These images have the same pixels, whatever their file format is.".to_owned();
        let near = format!(
            "At 8 × 9 pixels at most {MAX_BITS} of 64 steps between neighbors differ, and at 16 × 16 pixels values differ by at \
             most {MAX_PERCENT} % of their range. One picture in several sizes or qualities is found; its crops and mirror images \
             are not."
        );
        for (heading, text, groups) in
            [("Exact copies", exact, &duplicates.exact), ("Images that look alike", near, &duplicates.near)]
        {
            if groups.is_empty() {
                continue;
            }
            sections.extend([Section::Heading(heading.into()), Section::Text(text)]);
            // those that contradict each other first
            let (contradictory, others): (Vec<_>, Vec<_>) = groups.iter().partition(|group| group.is_contradictory);
            sections.extend(contradictory.into_iter().chain(others).take(GROUPS).map(|group| self.group(group)));
            if groups.len() > GROUPS {
                let more = groups.len() - GROUPS;
                sections.push(Section::Text(format!("{more} more groups are in the output of --json.")));
            }
        }
        let plain = duplicates.plain.len();
        if plain > 0 {
            sections.push(Section::Text(format!(
                "{plain} images are too plain to be compared at that size; among them only exact copies are found."
            )));
        }
        sections
    }

    fn group(&self, group: &DuplicateGroup) -> Section {
        let conflict = if group.is_contradictory { ", in different classes" } else { "" };
        let shown = &group.images[..group.images.len().min(OF_GROUP)];
        let pictures: Vec<Thumbnail> = shown.iter().filter_map(|index| self.picture(*index)).collect();
        let more = group.images.len() - pictures.len();
        Section::Gallery(Gallery { caption: format!("{} images{conflict}", group.images.len()), pictures, more })
    }
}

/// What cannot be read, and what is not read.
fn unreadable(scan: &Scan) -> Vec<Section> {
    let mut sections = Vec::new();
    if !scan.unreadable.is_empty() {
        let rows =
            scan.unreadable.iter().take(LISTED).map(|skipped| vec![skipped.name.clone(), skipped.reason.clone()]);
        sections.push(Section::Heading("Unreadable".into()));
        sections.push(Section::Table {
            caption: match scan.unreadable.len() {
                1 => "1 image cannot be read".into(),
                count @ ..=LISTED => format!("{count} images cannot be read"),
                count => format!("{count} images cannot be read; the first {LISTED}"),
            },
            header: ["image", "reason"].map(str::to_owned).to_vec(),
            rows: rows.collect(),
        });
    }
    let groups = scan.passed_over.groups();
    if !groups.is_empty() {
        let row = |group: &PassedOverGroup| vec![group.count.to_string(), group.advice(group.first.len())];
        sections.push(Section::Heading("Not read".into()));
        sections.push(Section::Table {
            caption: "What lies among the images and is none".into(),
            header: ["number", "what"].map(str::to_owned).to_vec(),
            rows: groups.iter().map(row).collect(),
        });
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::{open, scan};
    use std::sync::Arc;

    /// The page of a folder with the given files.
    fn page(files: &[(&str, &[u8])], seed: u64) -> String {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let source = open(&folder.path().display().to_string(), 3).unwrap();
        let scan = scan(&source, 0, &mut |_| {}).unwrap();
        let collection = Collection { data: "<data>", source: &*source, scan: &scan, tiles: None, seed };
        collection_page(&collection).render().replace(&folder.path().display().to_string(), "DATA")
    }

    /// A PNG of one gray level, with one white pixel in the middle so that it is not plain.
    fn png(level: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let image = image::GrayImage::from_fn(9, 8, |x, _| image::Luma([if x == 4 { 255 } else { level }]));
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn the_page_shows_copies_conflicts_and_broken_files_and_escapes_their_names() {
        let html = page(
            &[
                ("<b>cat/a&'\".png", &png(9)),
                ("dog/b.png", &png(9)),
                ("dog/c.png", &png(200)),
                ("dog/<script>.png", b"no picture"),
                ("dog/<i>.txt", b"text"),
            ],
            0,
        );
        for expected in [
            "2 images, in different classes",
            "&lt;b&gt;cat/a&amp;&#39;&quot;.png",
            "&lt;script&gt;.png",
            "&lt;i&gt;.txt",
            "All 3 images",
            "--recipe pretrain-vit-cifar --data &#39;&lt;data&gt;&#39;",
            "1 image cannot be read",
            "gray, 8 bit",
        ] {
            assert!(html.contains(expected), "{expected} in {html}");
        }
        for forbidden in ["<b>cat", "<script", "<i>.txt", "http:", "https:", "src=\"/"] {
            assert!(!html.contains(forbidden), "{forbidden} in {html}");
        }
    }

    #[test]
    fn nothing_that_can_be_read_is_a_page_too() {
        let html = page(&[("a.png", b"no picture")], 0);
        assert!(html.contains("No image can be read.") && html.contains("a.png"), "{html}");
        assert!(!html.contains("Contact sheet") && !html.contains("NaN"), "{html}");
    }

    #[test]
    fn the_contact_sheet_has_an_image_of_every_stretch_and_follows_the_seed() {
        let count = 64 * 3;
        let values: Vec<u8> = (0..count).flat_map(|index| [index as u8; 4]).collect();
        let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, count as u8, 0, 0, 0, 2, 0, 0, 0, 2];
        bytes.extend(values);
        let source = simmim_data::idx_from_bytes(&bytes, None, 1).unwrap();
        let scan = scan(&Arc::clone(&source), 0, &mut |_| {}).unwrap();
        let shown = |seed: u64| -> Vec<usize> {
            let collection = Collection { data: "memory", source: &*source, scan: &scan, tiles: None, seed };
            let Some(Section::Gallery(gallery)) = collection.contact_sheet().pop() else { panic!("there is a sheet") };
            let index = |picture: &Thumbnail| (0..count).find(|index| source.name(*index) == picture.name).unwrap();
            gallery.pictures.iter().map(index).collect()
        };
        let of_zero = shown(0);
        assert!(of_zero.iter().enumerate().all(|(at, index)| index / 3 == at), "{of_zero:?}");
        assert_eq!((of_zero.len(), shown(0)), (64, of_zero.clone()));
        assert_ne!(shown(1), of_zero);
    }
}
