//! Decodes the first frame of a GIF (version 89a).

use ::gif::{Decoder, DecodingError};

use super::check_size;
use crate::error::{Error, Result};
use crate::image::{Image, Pixels};

/// Decodes the first frame, which will be converted to `wanted` channels, as Pillow does: the screen grows until it holds
/// the frame, and what the frame leaves free has the transparent color, or else the first one.
///
/// # Errors
///
/// [`Error::Decode`] or [`Error::TooLarge`], with `name`.
pub(super) fn picture(bytes: &[u8], name: &str, wanted: usize) -> Result<Image> {
    let failed = |cause: DecodingError| Error::Decode { name: name.to_owned(), reason: cause.to_string() };
    let mut decoder = Decoder::new(bytes).map_err(failed)?;
    let screen = [decoder.height(), decoder.width()].map(usize::from);
    let Some(frame) = decoder.next_frame_info().map_err(failed)? else {
        return Err(Error::Decode { name: name.to_owned(), reason: "it has no frame".to_owned() });
    };
    let [top, left, rows, columns] = [frame.top, frame.left, frame.height, frame.width].map(usize::from);
    let transparent = frame.transparent;
    let (height, width) = (screen[0].max(top + rows), screen[1].max(left + columns));
    let channels = if transparent.is_some() { 4 } else { 3 };
    check_size([height, width], wanted.max(channels), 1, name)?;
    let mut indices = vec![0; rows * columns];
    decoder.read_into_buffer(&mut indices).map_err(failed)?;
    let (colors, _) = decoder.palette().map_err(failed)?.as_chunks::<3>();
    let pixel = |index: u8| {
        // an index beyond the palette is black
        let [red, green, blue] = colors.get(usize::from(index)).copied().unwrap_or_default();
        [red, green, blue, if transparent == Some(index) { 0 } else { 255 }]
    };
    let empty = pixel(transparent.unwrap_or(0));
    let mut pixels = empty[..channels].repeat(height * width);
    // a frame without pixels has no rows to place
    for (row, indices) in indices.chunks_exact(columns.max(1)).enumerate() {
        let start = ((top + row) * width + left) * channels;
        for (out, index) in pixels[start..].chunks_exact_mut(channels).zip(indices) {
            out.copy_from_slice(&pixel(*index)[..channels]);
        }
    }
    Ok(Image { channels, height, width, pixels: Pixels::U8(pixels) })
}
