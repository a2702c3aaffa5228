//! A map of images: points that can be moved and enlarged, with the picture of the one under the pointer. The only part of a
//! page with a script (`map.js`), since a hundred thousand points are too many for elements.

use super::escape;
use crate::pictures::class_color;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use simmim_data::{Image, Pixels, encode_jpeg};

const SCRIPT: &str = include_str!("map.js");

/// Side of a tile of the sheet of pictures, in pixels: a multiple of 16, so that no block of its JPEG belongs to two tiles.
pub const TILE_PX: usize = 48;
/// Pictures of a map: at most about 6 MB of its page.
pub const MAX_PICTURES: usize = 4000;
/// Quality of the sheet of pictures.
const QUALITY: u8 = 75;
/// Classes that the legend names.
const MAX_NAMED: usize = 40;

/// A map of images.
#[derive(Clone, Debug, PartialEq)]
pub struct MapFigure {
    /// Above the map.
    pub caption: String,
    /// Place of each image.
    pub places: Vec<[f64; 2]>,
    /// Class of each image.
    pub classes: Vec<Option<u32>>,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// The images whose pictures are shown.
    pub pictures: Vec<MapPicture>,
}

/// A picture of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct MapPicture {
    /// The number of its image.
    pub point: usize,
    /// Where it comes from.
    pub name: String,
    /// A gray or color picture of at most [`TILE_PX`] pixels; `None` if it cannot be read.
    pub picture: Option<Image>,
}

impl MapFigure {
    /// The map as a `figure` element with its script and all that it reads.
    pub(super) fn render(&self) -> String {
        let class = |class: &Option<u32>| class.map_or(u16::MAX, |class| class.min(u32::from(u16::MAX) - 1) as u16);
        let classes = self.class_names.len();
        let color = |[red, green, blue]: [u8; 3]| format!("rgb({red},{green},{blue})");
        let colors: Vec<String> = (0..classes).map(|number| color(class_color(number, classes))).collect();
        let columns = self.pictures.len().isqrt().max(1);
        let data = json!({
            "places": base64_of(&scaled(&self.places).into_iter().flatten().collect::<Vec<_>>()),
            "classes": base64_of(&self.classes.iter().map(class).collect::<Vec<_>>()),
            "names": self.class_names,
            "colors": colors,
            "tile": TILE_PX,
            "columns": columns,
            "shown": self.pictures.iter().map(|picture| picture.point).collect::<Vec<_>>(),
            "files": self.pictures.iter().map(|picture| &picture.name).collect::<Vec<_>>(),
            "sizes": self.pictures.iter().map(size).collect::<Vec<_>>(),
        });
        // nothing that is a tag within a script
        let data = data.to_string().replace('<', "\\u003c");
        let sheet = sheet(&self.pictures, columns);
        let sheet = encode_jpeg(&sheet, QUALITY).map_or(String::new(), |jpeg| {
            format!("<img class=\"tiles\" alt=\"\" hidden src=\"data:image/jpeg;base64,{}\">\n", STANDARD.encode(jpeg))
        });
        let caption = escape(&self.caption);
        format!(
            "<figure class=\"map\"><figcaption>{caption}</figcaption>\n<div class=\"field\"><canvas role=\"img\" \
             aria-label=\"{caption}\"></canvas><div class=\"tip\" hidden><canvas></canvas><b></b><span></span></div></div>\n\
             {}{sheet}<script type=\"application/json\" class=\"data\">{data}</script>\n<script>\n{SCRIPT}</script>\n\
             <noscript><p>The map is drawn by a script, which is part of this page.</p></noscript></figure>\n",
            self.legend(&colors)
        )
    }

    /// A button for each of the first classes, and for images without one.
    fn legend(&self, colors: &[String]) -> String {
        let count = |of: Option<u32>| self.classes.iter().filter(|class| **class == of).count();
        let entry = |number: usize, color: &str, name: &str, count: usize| {
            format!(
                "<li><button type=\"button\" data-class=\"{number}\" aria-pressed=\"false\"><i style=\"background:{color}\"></i>{} \
                 <small>{count}</small></button></li>\n",
                escape(name)
            )
        };
        let mut entries = String::new();
        for (number, name) in self.class_names.iter().enumerate().take(MAX_NAMED) {
            entries += &entry(number, &colors[number], name, count(Some(number as u32)));
        }
        if self.class_names.len() > MAX_NAMED {
            entries += &format!("<li>and {} more classes</li>\n", self.class_names.len() - MAX_NAMED);
        }
        let without = count(None);
        if !self.class_names.is_empty() && without > 0 {
            entries += &entry(usize::from(u16::MAX), "#888", "without a class", without);
        }
        if entries.is_empty() { entries } else { format!("<ul class=\"classes\">\n{entries}</ul>\n") }
    }
}

/// Places as whole numbers from 0 to 65535, with one scale for both axes.
fn scaled(places: &[[f64; 2]]) -> Vec<[u16; 2]> {
    let range = |axis: usize| {
        let values = places.iter().map(|place| place[axis]);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        (low + high, high - low)
    };
    let (x, y) = (range(0), range(1));
    let extent = x.1.max(y.1);
    let scale = if extent > 0.0 { 1.0 / extent } else { 0.0 };
    let whole = |value: f64, twice_middle: f64| (((value - twice_middle / 2.0) * scale + 0.5) * 65535.0).round() as u16;
    // upwards in the map is downwards on the screen
    places.iter().map(|place| [whole(place[0], x.0), u16::MAX - whole(place[1], y.0)]).collect()
}

fn base64_of(values: &[u16]) -> String {
    STANDARD.encode(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

/// Height and width of a picture on the sheet.
fn size(picture: &MapPicture) -> [usize; 2] {
    picture.picture.as_ref().map_or([0, 0], |picture| [picture.height.min(TILE_PX), picture.width.min(TILE_PX)])
}

/// All pictures as one, each in the upper left corner of its tile and continued by its last pixels, so that JPEG has no edge
/// to smear into it.
fn sheet(pictures: &[MapPicture], columns: usize) -> Image {
    let rows = pictures.len().div_ceil(columns).max(1);
    let (height, width) = (rows * TILE_PX, columns * TILE_PX);
    let mut pixels = vec![0; 3 * height * width];
    for (number, picture) in pictures.iter().enumerate() {
        let Some(Image { channels, height, width: own_width, pixels: Pixels::U8(values) }) = &picture.picture else {
            continue;
        };
        let (top, left) = (number / columns * TILE_PX, number % columns * TILE_PX);
        for y in 0..TILE_PX {
            for x in 0..TILE_PX {
                let from = (y.min(height - 1) * own_width + x.min(own_width - 1)) * channels;
                for channel in 0..3 {
                    let to = ((top + y) * width + left + x) * 3 + channel;
                    pixels[to] = values[from + channel.min(channels - 1)];
                }
            }
        }
    }
    Image { channels: 3, height, width, pixels: Pixels::U8(pixels) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> MapFigure {
        let picture = Image { channels: 1, height: 20, width: 30, pixels: Pixels::U8(vec![200; 600]) };
        MapFigure {
            caption: "3 images of <data>".into(),
            places: vec![[0.0, 0.0], [4.0, 1.0], [2.0, -1.0]],
            classes: vec![Some(0), Some(1), None],
            class_names: vec!["Käse </script>".into(), "<!--".into()],
            pictures: vec![
                MapPicture {
                    point: 1,
                    name: "a/</script><script>alert(1)</script>.png".into(),
                    picture: Some(picture),
                },
                MapPicture { point: 2, name: "é.png".into(), picture: None },
            ],
        }
    }

    #[test]
    fn names_end_no_script_and_the_data_can_be_read_back() {
        let html = figure().render();
        assert_eq!(html.matches("<script").count(), 2, "{html}");
        assert_eq!(html.matches("</script>").count(), 2, "{html}");
        assert!(!html.contains("<!--") && html.contains("Käse &lt;/script&gt;"), "{html}");
        let data = html.split("class=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["files"][0], "a/</script><script>alert(1)</script>.png");
        assert_eq!((&data["names"][1], &data["sizes"][0]), (&json!("<!--"), &json!([20, 30])));
        assert_eq!(data["shown"], json!([1, 2]));
    }

    #[test]
    fn places_keep_their_proportions_and_y_points_up() {
        assert_eq!(scaled(&figure().places), [[0, 32767], [65535, 16384], [32768, 49151]]);
        assert_eq!(scaled(&[[3.0, 3.0]; 2]), [[32768, 32767]; 2]);
    }
}
