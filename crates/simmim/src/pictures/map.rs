//! The picture of a map: a dot for each image, colored by its class, with a legend.

use super::picture::save_png;
use super::sheet::{TEXT_HEIGHT, draw_text, text_width};
use image::{Rgb, RgbImage};
use std::io;
use std::path::Path;

/// Side of the square that the dots lie in, and what is free around it, in pixels.
const FIELD_PX: f64 = 1200.0;
const MARGIN_PX: f64 = 40.0;
const LEGEND_PX: usize = 320;
/// Classes that the legend names: as many as there is space for.
const MAX_NAMED: usize = 50;
const GRAY: [u8; 3] = [136; 3];

/// Colors of up to ten classes, which are as dark on white as they are bright on black.
const COLORS: [[u8; 3]; 10] = [
    [48, 120, 190],
    [222, 110, 40],
    [46, 150, 90],
    [200, 60, 70],
    [140, 100, 190],
    [150, 104, 80],
    [220, 110, 180],
    [150, 150, 40],
    [30, 160, 175],
    [110, 118, 130],
];

/// The color of a class. Beyond ten, hues lie evenly around the circle, in two brightnesses.
pub(crate) fn class_color(class: usize, classes: usize) -> [u8; 3] {
    if classes <= COLORS.len() {
        return COLORS[class];
    }
    let (hue, bright) = (6.0 * class as f64 / classes as f64, if class.is_multiple_of(2) { 0.85 } else { 0.6 });
    // from hue, saturation and value (https://en.wikipedia.org/wiki/HSL_and_HSV)
    [5.0, 3.0, 1.0].map(|offset| {
        let k = (offset + hue) % 6.0;
        (255.0 * bright * (1.0 - 0.75 * k.min(4.0 - k).clamp(0.0, 1.0))).round() as u8
    })
}

/// Writes a map to a PNG file, atomically.
///
/// # Errors
/// If the file cannot be written; the message names it.
///
/// # Panics
/// If there are not as many classes as places.
pub fn save_map(path: &Path, places: &[[f64; 2]], classes: &[Option<u32>], class_names: &[String]) -> io::Result<()> {
    save_png(&map(places, classes, class_names), path)
}

fn map(places: &[[f64; 2]], classes: &[Option<u32>], class_names: &[String]) -> RgbImage {
    assert_eq!(places.len(), classes.len(), "a class of each image");
    let side = FIELD_PX + 2.0 * MARGIN_PX;
    let legend_px = if class_names.is_empty() { 0 } else { LEGEND_PX };
    let mut image = RgbImage::from_pixel(side as u32 + legend_px as u32, side as u32, Rgb([255; 3]));
    let range = |axis: usize| {
        let values = places.iter().map(|place| place[axis]);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let (x, y) = (range(0), range(1));
    let extent = (x.1 - x.0).max(y.1 - y.0);
    let scale = if extent > 0.0 { FIELD_PX / extent } else { 0.0 };
    let radius = (180.0 / (places.len().max(1) as f64).sqrt()).clamp(1.2, 6.0);
    for (place, class) in places.iter().zip(classes) {
        let color = class.map_or(GRAY, |class| class_color(class as usize, class_names.len()));
        let middle = side / 2.0;
        let at = [middle + (place[0] - (x.0 + x.1) / 2.0) * scale, middle - (place[1] - (y.0 + y.1) / 2.0) * scale];
        draw_dot(&mut image, at, radius, color);
    }
    let line = TEXT_HEIGHT.val() + 8;
    for (number, name) in class_names.iter().enumerate().take(MAX_NAMED) {
        let top = MARGIN_PX as usize + number * line;
        let middle = [side + 8.0, (top + TEXT_HEIGHT.val() / 2) as f64];
        draw_dot(&mut image, middle, 6.0, class_color(number, class_names.len()));
        let name: String = name.chars().take((LEGEND_PX - 40) / text_width("m")).collect();
        draw_text(&mut image, &name, side as usize + 24, top);
    }
    if class_names.len() > MAX_NAMED {
        let more = format!("and {} more", class_names.len() - MAX_NAMED);
        draw_text(&mut image, &more, side as usize + 24, MARGIN_PX as usize + MAX_NAMED * line);
    }
    image
}

/// Draws a disc whose edge is as soft as a pixel.
fn draw_dot(image: &mut RgbImage, middle: [f64; 2], radius: f64, color: [u8; 3]) {
    let reach = radius.ceil() + 1.0;
    let pixels = |axis: usize, size: u32| {
        let (from, to) = (middle[axis] - reach, middle[axis] + reach);
        (from.max(0.0) as u32)..(to.max(0.0) as u32 + 1).min(size)
    };
    for y in pixels(1, image.height()) {
        for x in pixels(0, image.width()) {
            let distance = (f64::from(x) + 0.5 - middle[0]).hypot(f64::from(y) + 0.5 - middle[1]);
            let cover = 0.8 * (radius + 0.5 - distance).clamp(0.0, 1.0);
            let pixel = image.get_pixel_mut(x, y);
            for (value, color) in pixel.0.iter_mut().zip(color) {
                *value = (f64::from(*value) * (1.0 - cover) + f64::from(color) * cover).round() as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_lie_where_the_places_say_in_the_colors_of_their_classes() {
        let names = ["a".to_owned(), "b".to_owned()];
        let image = map(&[[0.0, 0.0], [1.0, 1.0]], &[Some(0), None], &names);
        assert_eq!(image.dimensions(), (1280 + 320, 1280));
        let blend = |color: [u8; 3]| color.map(|c| (255.0 * 0.2 + f64::from(c) * 0.8).round() as u8);
        assert_eq!(image.get_pixel(40, 1239).0, blend(COLORS[0]), "the first is at the lower left");
        assert_eq!(image.get_pixel(1239, 40).0, blend(GRAY));
        assert_eq!(image.get_pixel(640, 640).0, [255; 3]);
        for places in [&[][..], &[[2.0, 2.0]], &[[1.0, 0.0], [1.0, 0.0]]] {
            assert_eq!(map(places, &vec![None; places.len()], &[]).dimensions(), (1280, 1280));
        }
    }

    #[test]
    fn classes_have_colors_of_their_own() {
        for classes in [1, 10, 11, 60] {
            let colors: std::collections::HashSet<_> = (0..classes).map(|class| class_color(class, classes)).collect();
            assert_eq!(colors.len(), classes);
        }
    }
}
