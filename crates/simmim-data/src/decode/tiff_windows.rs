//! Parts of a TIFF file, of which only the tiles or strips that they touch are read.

use super::check_size;
use super::tiff::Page;
use crate::error::{Error, Result};
use crate::image::{Image, Pixels, Rectangle};
use crate::source::Reader;

/// A TIFF file, wherever it lies, that parts are read from.
pub(crate) struct Windows {
    page: Page<Reader>,
    name: String,
    wanted: usize,
}

impl Windows {
    /// Opens a file whose parts will be converted to `wanted` channels; `None` if it can only be read as a whole: where
    /// values have less than 8 bits, where every color is stored apart, and where the picture is not stored upright.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] with `name`.
    pub(crate) fn open(file: Reader, name: &str, wanted: usize) -> Result<Option<Self>> {
        let page = Page::open(file, name)?;
        let is_simple = page.bits >= 8 && !page.is_planar && page.orientation == 1;
        Ok(is_simple.then(|| Self { page, name: name.to_owned(), wanted }))
    }

    /// Height and width.
    pub(crate) fn size(&self) -> [usize; 2] {
        self.page.size
    }

    /// Reads a part.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`], [`Error::TooLarge`], [`Error::NotFinite`] or [`Error::Channels`].
    pub(crate) fn cut(&mut self, part: Rectangle) -> Result<Image> {
        let Self { page, name, wanted } = self;
        let size = [part.height, part.width];
        check_size(size, page.channels().max(*wanted), page.bytes_per_value(), name)?;
        let failed = |cause: ::tiff::TiffError| Error::Decode { name: name.clone(), reason: cause.to_string() };
        let (width, height) = page.decoder.chunk_dimensions();
        let [height, width] = [height, width].map(|side| side as usize);
        if height == 0 || width == 0 {
            return Err(Error::Decode { name: name.clone(), reason: "its tiles have no pixels".to_owned() });
        }
        check_size([height, width], page.channels(), page.bytes_per_value(), name)?;
        let across = page.size[1].div_ceil(width);
        let mut cut: Option<Image> = None;
        for row in part.top / height..=(part.top + part.height - 1) / height {
            for column in part.left / width..=(part.left + part.width - 1) / width {
                let number = (row * across + column) as u32;
                let stored = page.decoder.read_chunk(number).map_err(failed)?;
                let (columns, rows) = page.decoder.chunk_data_dimensions(number);
                let chunk = page.image(stored, [rows as usize, columns as usize], *wanted, name)?;
                let cut = cut.get_or_insert_with(|| empty(&chunk, size));
                paste(&chunk, [row * height, column * width], cut, part);
            }
        }
        cut.expect("a part has pixels").with_channels(*wanted, name)
    }
}

/// An image with the values and channels of another, and another size.
fn empty(like: &Image, [height, width]: [usize; 2]) -> Image {
    let values = height * width * like.channels;
    let pixels = match like.pixels {
        Pixels::U8(_) => Pixels::U8(vec![0; values]),
        Pixels::F32(_) => Pixels::F32(vec![0.0; values]),
    };
    Image { channels: like.channels, height, width, pixels }
}

/// Copies what a chunk, whose upper left corner lies at row `top` and column `left` of the picture, has of `part` to the
/// image of it.
fn paste(chunk: &Image, [top, left]: [usize; 2], cut: &mut Image, part: Rectangle) {
    fn copy<T: Copy>(
        from: &[T],
        from_width: usize,
        from_at: [usize; 2],
        to: &mut [T],
        to_width: usize,
        to_at: [usize; 2],
        size: [usize; 2],
    ) {
        for row in 0..size[0] {
            let from = &from[(from_at[0] + row) * from_width + from_at[1]..][..size[1]];
            to[(to_at[0] + row) * to_width + to_at[1]..][..size[1]].copy_from_slice(from);
        }
    }
    let channels = chunk.channels;
    let (first_row, first_column) = (top.max(part.top), left.max(part.left));
    let rows = (top + chunk.height).min(part.top + part.height).saturating_sub(first_row);
    let columns = (left + chunk.width).min(part.left + part.width).saturating_sub(first_column);
    let from = [first_row - top, (first_column - left) * channels];
    let to = [first_row - part.top, (first_column - part.left) * channels];
    let (from_width, to_width, size) = (chunk.width * channels, cut.width * channels, [rows, columns * channels]);
    match (&chunk.pixels, &mut cut.pixels) {
        (Pixels::U8(chunk), Pixels::U8(cut)) => copy(chunk, from_width, from, cut, to_width, to, size),
        (Pixels::F32(chunk), Pixels::F32(cut)) => copy(chunk, from_width, from, cut, to_width, to, size),
        (Pixels::U8(_), Pixels::F32(_)) | (Pixels::F32(_), Pixels::U8(_)) => unreachable!("all chunks have one type"),
    }
}
