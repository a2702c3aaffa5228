//! Images that are like each other, as a page and as a contact sheet: a query beside its neighbors, or a group.

use super::{Gallery, Page, Section, Thumbnail};
use crate::pictures::{Sheet, picture_of_bytes, png_of_bytes};
use simmim_data::{Image, Source, thumbnail};

/// Longest side of a picture in pixels.
const PICTURE_PX: usize = 160;

/// Images that are shown side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct SimilarImages {
    /// What they are, above them.
    pub caption: String,
    /// The images; the first is the one that the others are like.
    pub images: Vec<SimilarImage>,
    /// Number of images that are not shown.
    pub more: usize,
}

/// An image, and how it is like the first.
#[derive(Clone, Debug, PartialEq)]
pub struct SimilarImage {
    /// Where it comes from.
    pub name: String,
    /// Its similarity, and its class.
    pub note: String,
    /// A small picture; `None` if it cannot be read.
    pub picture: Option<Image>,
}

impl SimilarImage {
    /// Sample `index` of a source.
    pub fn of(source: &dyn Source, index: usize, note: String) -> Self {
        let picture = source.get(index).ok().map(|sample| thumbnail(&sample.image, PICTURE_PX));
        Self { name: source.name(index), note, picture }
    }
}

/// A page of images that are like each other.
pub fn similar_page(title: &str, subtitle: &str, text: String, rows: &[SimilarImages]) -> Page {
    let mut sections = vec![Section::Text(text)];
    sections.extend(rows.iter().map(|row| {
        let picture = |image: &SimilarImage| {
            let (png, width_px) = match &image.picture {
                None => (Vec::new(), PICTURE_PX),
                Some(picture) => (png_of_bytes(picture).unwrap_or_default(), picture.height.max(picture.width)),
            };
            Thumbnail { name: image.name.clone(), note: image.note.clone(), png, width_px }
        };
        let pictures = row.images.iter().map(picture).collect();
        Section::Gallery(Gallery { caption: row.caption.clone(), pictures, more: row.more })
    }));
    Page { title: title.into(), subtitle: format!("{subtitle} · simmim {}", env!("CARGO_PKG_VERSION")), sections }
}

/// A sheet with a row for each of them, whose first column is `first`.
pub fn similar_sheet(first: &str, rows: &[SimilarImages]) -> Sheet {
    let columns = rows.iter().map(|row| row.images.len()).max().unwrap_or(0).max(1);
    let captions = (0..columns).map(|column| if column == 0 { first.to_owned() } else { column.to_string() });
    let mut sheet = Sheet::new(captions);
    for row in rows {
        let blank = Image { channels: 1, height: 1, width: 1, pixels: simmim_data::Pixels::U8(vec![255]) };
        let tiles: Vec<_> =
            row.images.iter().map(|image| picture_of_bytes(image.picture.as_ref().unwrap_or(&blank))).collect();
        let short = |name: &str| name.rsplit(['/', '\\', ':']).next().unwrap_or_default().to_owned();
        let notes: Vec<[String; 2]> = row.images.iter().map(|image| [image.note.clone(), short(&image.name)]).collect();
        sheet.push_noted_row("", &tiles, notes);
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::Pixels;

    #[test]
    fn a_page_has_every_image_with_its_similarity_and_escapes_names() {
        let picture = Some(Image { channels: 1, height: 2, width: 2, pixels: Pixels::U8(vec![0, 255, 9, 100]) });
        let image = |name: &str, note: &str, picture| SimilarImage { name: name.into(), note: note.into(), picture };
        let images = vec![
            image("a/</script>é.png", "query", picture.clone()),
            image("a/<b>.png", "0.9312", picture),
            image("c", "0.5", None),
        ];
        let rows = [SimilarImages { caption: "like </script>é.png".into(), images, more: 2 }];
        let html = similar_page("Neighbors", "<data>", "Text".into(), &rows).render();
        for expected in ["&lt;/script&gt;é.png", "<span>0.9312</span>", "a/&lt;b&gt;.png", "and 2 more", "&lt;data&gt;"]
        {
            assert!(html.contains(expected), "{expected} in {html}");
        }
        assert!(!html.contains("</script>") && !html.contains("<b>."), "{html}");
        let sheet = similar_sheet("query", &rows).render();
        assert!(sheet.width() > 3 * 160 && sheet.height() > 160);
    }
}
