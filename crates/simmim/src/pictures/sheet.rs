//! A contact sheet: pictures in rows and columns with captions, as one image.
//!
//! Captions are drawn with `noto-sans-mono-bitmap`: pre-rasterized, antialiased glyphs of one size (about 20 kB), which
//! are easier to read than an 8 × 8 font and need no font file or shaping library.

use std::io;
use std::path::Path;

use image::{Rgb, RgbImage, imageops};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use super::picture::{Picture, encode_png, save_png};

/// Small pictures are enlarged by an integer factor so that their longer side is close to this size.
const TILE_PX: usize = 160;
const GUTTER_PX: usize = 10;
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const INK: u8 = 48;
pub(super) const TEXT_HEIGHT: RasterHeight = RasterHeight::Size16;
const TEXT_WEIGHT: FontWeight = FontWeight::Regular;
/// Longer row captions are truncated to leave space for the pictures.
const ROW_CAPTION_CHARS: usize = 24;

/// A grid of pictures with column captions and optional row captions.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    column_captions: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    caption: String,
    tiles: Vec<RgbImage>,
    /// Two lines below each tile, or none.
    notes: Vec<[String; 2]>,
}

impl Row {
    fn tile_height(&self) -> usize {
        self.tiles.iter().map(|tile| tile.height() as usize).max().unwrap_or(0)
    }

    /// Height of the tiles and what is below them.
    fn height(&self) -> usize {
        self.tile_height() + if self.notes.is_empty() { 0 } else { 2 * TEXT_HEIGHT.val() + GUTTER_PX / 2 }
    }
}

impl Sheet {
    /// A sheet without rows.
    pub fn new<S: Into<String>>(column_captions: impl IntoIterator<Item = S>) -> Sheet {
        Sheet { column_captions: column_captions.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row. An empty caption takes no space; missing pictures leave blank cells.
    ///
    /// # Panics
    /// If there are more pictures than columns.
    pub fn push_row(&mut self, caption: &str, pictures: &[Picture]) {
        self.push_noted_row(caption, pictures, Vec::new());
    }

    /// Adds a row with two lines of text below each picture.
    ///
    /// # Panics
    /// If there are more pictures or notes than columns.
    pub fn push_noted_row(&mut self, caption: &str, pictures: &[Picture], notes: Vec<[String; 2]>) {
        let columns = self.column_captions.len();
        assert!(pictures.len().max(notes.len()) <= columns, "{} pictures in {columns} columns", pictures.len());
        self.rows.push(Row { caption: caption.to_owned(), tiles: pictures.iter().map(tile).collect(), notes });
    }

    /// Renders the sheet on a white background.
    pub fn render(&self) -> RgbImage {
        let tiles = || self.rows.iter().flat_map(|row| &row.tiles);
        let cell_width = tiles().map(|tile| tile.width() as usize).max().unwrap_or(TILE_PX);
        let row_heights: Vec<usize> = self.rows.iter().map(Row::height).collect();
        let left = match self.rows.iter().map(|row| text_width(&cut(&row.caption, ROW_CAPTION_CHARS))).max() {
            None | Some(0) => GUTTER_PX,
            Some(width) => width + 2 * GUTTER_PX,
        };
        let top = match self.column_captions.iter().all(String::is_empty) {
            true => GUTTER_PX,
            false => TEXT_HEIGHT.val() + 2 * GUTTER_PX,
        };
        let width = left + self.column_captions.len() * (cell_width + GUTTER_PX);
        let height = top + row_heights.iter().map(|row_height| row_height + GUTTER_PX).sum::<usize>();
        let column_x = |column: usize| left + column * (cell_width + GUTTER_PX);

        let mut sheet = RgbImage::from_pixel(width as u32, height as u32, PAPER);
        for (column, caption) in self.column_captions.iter().enumerate() {
            let caption = cut(caption, cell_width / text_width("m"));
            let x = column_x(column) + (cell_width - text_width(&caption)) / 2;
            draw_text(&mut sheet, &caption, x, GUTTER_PX);
        }
        let mut y = top;
        for (row, row_height) in self.rows.iter().zip(row_heights) {
            let caption = cut(&row.caption, ROW_CAPTION_CHARS);
            draw_text(&mut sheet, &caption, GUTTER_PX, y + row_height.saturating_sub(TEXT_HEIGHT.val()) / 2);
            for (column, tile) in row.tiles.iter().enumerate() {
                let x = column_x(column) + (cell_width - tile.width() as usize) / 2;
                imageops::replace(&mut sheet, tile, x as i64, y as i64);
            }
            for (column, lines) in row.notes.iter().enumerate() {
                for (number, line) in lines.iter().enumerate() {
                    let line = cut(line, cell_width / text_width("m"));
                    let x = column_x(column) + (cell_width - text_width(&line)) / 2;
                    draw_text(&mut sheet, &line, x, y + row.tile_height() + GUTTER_PX / 2 + number * TEXT_HEIGHT.val());
                }
            }
            y += row_height + GUTTER_PX;
        }
        sheet
    }

    /// The sheet as the bytes of a PNG file.
    ///
    /// # Errors
    /// If the encoder fails.
    pub fn png_bytes(&self) -> io::Result<Vec<u8>> {
        encode_png(&self.render())
    }

    /// Writes the sheet to a PNG file, atomically.
    ///
    /// # Errors
    /// If the file cannot be written; the message names it.
    pub fn save_png(&self, path: &Path) -> io::Result<()> {
        save_png(&self.render(), path)
    }
}

/// A picture at its size on the sheet: 28 and 32 pixels become 168 and 160; 192 and more are not changed.
fn tile(picture: &Picture) -> RgbImage {
    let longer_side = picture.height.max(picture.width).max(1);
    let factor = ((TILE_PX as f64 / longer_side as f64).round() as usize).max(1);
    picture.enlarged(factor).to_rgb()
}

fn cut(caption: &str, chars: usize) -> String {
    if caption.chars().count() <= chars {
        return caption.to_owned();
    }
    let kept: String = caption.chars().take(chars.saturating_sub(2)).collect();
    kept + ".."
}

pub(super) fn text_width(text: &str) -> usize {
    text.chars().count() * get_raster_width(TEXT_WEIGHT, TEXT_HEIGHT)
}

/// Draws one line of text with its top left corner at `(left, top)`. Characters that the font does not have become
/// question marks; pixels outside of the sheet are skipped.
pub(super) fn draw_text(sheet: &mut RgbImage, text: &str, left: usize, top: usize) {
    let advance = get_raster_width(TEXT_WEIGHT, TEXT_HEIGHT);
    for (index, character) in text.chars().enumerate() {
        let glyph = get_raster(character, TEXT_WEIGHT, TEXT_HEIGHT)
            .or_else(|| get_raster('?', TEXT_WEIGHT, TEXT_HEIGHT))
            .expect("the font has ascii");
        for (y, line) in glyph.rows().enumerate() {
            for (x, &coverage) in line.iter().enumerate() {
                let (x, y) = ((left + index * advance + x) as u32, (top + y) as u32);
                if coverage > 0 && x < sheet.width() && y < sheet.height() {
                    let shade = 255 - u16::from(coverage) * u16::from(255 - INK) / 255;
                    sheet.put_pixel(x, y, Rgb([shade as u8; 3]));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn black(side: usize) -> Picture {
        Picture { channels: 1, height: side, width: side, pixels: vec![0.0; side * side] }
    }

    #[test]
    fn tiles_are_enlarged_by_a_whole_factor_and_never_reduced() {
        let check = |side: usize, expected: u32| assert_eq!(tile(&black(side)).width(), expected, "{side} pixels");
        check(8, 160);
        check(28, 168);
        check(32, 160);
        check(64, 192);
        check(96, 192);
        check(192, 192);
        check(224, 224);
        check(384, 384);
    }

    #[test]
    fn tiles_lie_where_the_grid_says_and_blank_cells_stay_white() {
        let mut sheet = Sheet::new(["", ""]);
        sheet.push_row("", &[black(32), black(32)]);
        sheet.push_row("", &[black(32)]);
        let image = sheet.render();
        assert_eq!(image.dimensions(), (350, 350));
        let check = |x: u32, y: u32, expected: u8| assert_eq!(image.get_pixel(x, y).0, [expected; 3], "({x}, {y})");
        check(9, 10, 255);
        check(10, 10, 0);
        check(169, 169, 0);
        check(170, 169, 255);
        check(180, 10, 0);
        check(10, 180, 0);
        check(180, 180, 255);
    }

    #[test]
    fn captions_leave_ink_outside_the_tiles() {
        let check = |column: &str, row: &str, has_ink: bool| {
            let mut sheet = Sheet::new([column]);
            sheet.push_row(row, &[Picture { pixels: vec![1.0; 64], ..black(8) }]);
            let inked = sheet.render().pixels().any(|pixel| *pixel != PAPER);
            assert_eq!(inked, has_ink, "column `{column}`, row `{row}`");
        };
        check("", "", false);
        check("prediction", "", true);
        check("", "image 1", true);
        check("é", "", true);
        check("模", "", true);
        check("a caption that is longer than the tile below it", "and a row caption of the same kind", true);
    }

    #[test]
    fn a_sheet_without_rows_is_only_its_captions() {
        assert_eq!(Sheet::new(["original"]).render().dimensions(), (180, 36));
    }
}
