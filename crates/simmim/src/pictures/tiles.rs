//! Which parts of a large picture are tiles.

use simmim_data::{Image, Pixels};

/// The color of the borders of tiles.
const BORDER: [u8; 3] = [255, 106, 0];
/// What lies outside of all tiles is divided by this number, so that it is dark.
const DARKER: u8 = 4;
/// Tiles of fewer pixels have no border, which would cover them.
const LEAST_BORDERED: usize = 6;

/// Draws the borders of tiles into a small picture of a picture of `size` (height and width) pixels, and darkens what is in no
/// tile. Each of `tiles` is its upper edge, left edge, height and width in pixels of the large picture.
///
/// # Panics
/// If the picture is not of bytes, or has neither one nor three channels.
pub(crate) fn with_tiles(overview: &Image, size: [usize; 2], tiles: &[[usize; 4]]) -> Image {
    let Image { channels, height, width, ref pixels } = *overview;
    let Pixels::U8(pixels) = pixels else { panic!("an overview has bytes") };
    let mut colors: Vec<[u8; 3]> = match channels {
        1 => pixels.iter().map(|gray| [*gray; 3]).collect(),
        _ => pixels.as_chunks().0.to_vec(),
    };
    let small = |at: usize, axis: usize| at * [height, width][axis] / size[axis];
    let places: Vec<_> = tiles
        .iter()
        .map(|[top, left, rows, columns]| {
            let (y, x) = (small(*top, 0), small(*left, 1));
            // a tile has at least one pixel
            (y..small(top + rows, 0).max(y + 1).min(height), x..small(left + columns, 1).max(x + 1).min(width))
        })
        .collect();
    let mut is_outside = vec![true; height * width];
    for (rows, columns) in &places {
        for y in rows.clone() {
            is_outside[y * width..][columns.clone()].fill(false);
        }
    }
    for (color, _) in colors.iter_mut().zip(is_outside).filter(|(_, is_outside)| *is_outside) {
        *color = color.map(|value| value / DARKER);
    }
    for (rows, columns) in places.into_iter().filter(|(rows, columns)| rows.len().min(columns.len()) >= LEAST_BORDERED)
    {
        for y in [rows.start, rows.end - 1] {
            colors[y * width..][columns.clone()].fill(BORDER);
        }
        for y in rows {
            [columns.start, columns.end - 1].into_iter().for_each(|x| colors[y * width + x] = BORDER);
        }
    }
    Image { channels: 3, height, width, pixels: Pixels::U8(colors.into_flattened()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_have_a_border_and_what_is_outside_is_dark() {
        let overview = Image { channels: 1, height: 20, width: 30, pixels: Pixels::U8(vec![200; 600]) };
        // ten times as large; the second tile is too small for a border
        let drawn = with_tiles(&overview, [200, 300], &[[0, 0, 100, 100], [150, 250, 30, 30]]);
        let Pixels::U8(pixels) = drawn.pixels else { panic!("it has bytes") };
        let at = |y: usize, x: usize| &pixels[3 * (30 * y + x)..][..3];
        assert_eq!((drawn.channels, drawn.height, drawn.width), (3, 20, 30));
        for (y, x) in [(0, 0), (0, 9), (9, 0), (9, 9), (5, 9), (9, 5)] {
            assert_eq!(at(y, x), BORDER, "{y}, {x}");
        }
        for (y, x) in [(1, 1), (8, 8), (15, 25), (17, 27)] {
            assert_eq!(at(y, x), [200; 3], "{y}, {x}");
        }
        for (y, x) in [(10, 0), (0, 10), (10, 10), (14, 25), (18, 25), (15, 24), (15, 28), (19, 29)] {
            assert_eq!(at(y, x), [50; 3], "{y}, {x}");
        }
    }
}
