//! Decodes PNG, WebP and BMP files.

use std::io::Cursor;

use ::image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::{MAX_BYTES, check_size, chunks, from_u16, orientation};
use crate::error::{Error, Result};
use crate::image::{Image, Pixels};

/// Decodes the first frame of a picture, which will be converted to `wanted` channels.
///
/// # Errors
///
/// [`Error::Decode`] or [`Error::TooLarge`], with `name`.
pub(super) fn decode(bytes: &[u8], name: &str, format: ImageFormat, wanted: usize) -> Result<Image> {
    let mut decoder = opened(bytes, name, format)?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    // deeper values become floats
    let bytes_per_value = if color.bytes_per_pixel() == color.channel_count() { 1 } else { size_of::<f32>() };
    check_size([height as usize, width as usize], wanted.max(color.channel_count().into()), bytes_per_value, name)?;
    let orientation = orientation_of(&mut decoder, bytes, format);
    let image = from_decoded(DynamicImage::from_decoder(decoder).map_err(|cause| failed(name, &cause))?);
    Ok(orientation::upright(image, orientation))
}

/// Height and width of the upright first frame.
///
/// # Errors
///
/// [`Error::Decode`] with `name`.
pub(super) fn size(bytes: &[u8], name: &str, format: ImageFormat) -> Result<[usize; 2]> {
    let mut decoder = opened(bytes, name, format)?;
    let (width, height) = decoder.dimensions();
    Ok(orientation::upright_size([height as usize, width as usize], orientation_of(&mut decoder, bytes, format)))
}

fn failed(name: &str, cause: &ImageError) -> Error {
    Error::Decode { name: name.to_owned(), reason: cause.to_string() }
}

/// Reads the header.
fn opened<'a>(bytes: &'a [u8], name: &str, format: ImageFormat) -> Result<impl ImageDecoder + 'a> {
    if format == ImageFormat::WebP && claims_too_much(bytes) {
        let reason = "a part of it claims more bytes than the file has".to_owned();
        return Err(Error::Decode { name: name.to_owned(), reason });
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    reader.into_decoder().map_err(|cause| failed(name, &cause))
}

/// Metadata that cannot be read do not make the picture unreadable.
fn orientation_of(decoder: &mut impl ImageDecoder, bytes: &[u8], format: ImageFormat) -> u8 {
    let [exif, xmp] = [decoder.exif_metadata(), decoder.xmp_metadata()].map(|data| data.ok().flatten());
    // the decoder knows what stands before the pixels
    let behind = if format == ImageFormat::Png { exif_of_png(bytes) } else { None };
    orientation::of(exif.as_deref().or(behind), xmp.as_deref())
}

/// The chunk `eXIf` of a PNG file, wherever it is.
fn exif_of_png(bytes: &[u8]) -> Option<&[u8]> {
    chunks::of_png(bytes).find(|(kind, _)| kind == b"eXIf")?.1
}

/// Whether a chunk of a WebP file ends behind the end of the file. The decoder would take the memory of the whole chunk before
/// it reads any of it.
fn claims_too_much(bytes: &[u8]) -> bool {
    chunks::of_webp(bytes).any(|(_, content)| content.is_none())
}

fn from_decoded(decoded: DynamicImage) -> Image {
    let (height, width) = (decoded.height() as usize, decoded.width() as usize);
    let (channels, pixels) = match decoded.color() {
        ColorType::L8 => (1, Pixels::U8(decoded.into_bytes())),
        ColorType::La8 => (2, Pixels::U8(decoded.into_bytes())),
        ColorType::Rgb8 => (3, Pixels::U8(decoded.into_bytes())),
        ColorType::Rgba8 => (4, Pixels::U8(decoded.into_bytes())),
        ColorType::L16 => (1, from_u16(decoded.into_luma16().into_raw())),
        ColorType::La16 => (2, from_u16(decoded.into_luma_alpha16().into_raw())),
        ColorType::Rgb16 => (3, from_u16(decoded.into_rgb16().into_raw())),
        ColorType::Rgba16 => (4, from_u16(decoded.into_rgba16().into_raw())),
        // the enum of another crate is not exhaustive: floats, and formats that a later version may add
        _ => (4, Pixels::F32(decoded.into_rgba32f().into_raw())),
    };
    Image { channels, height, width, pixels }
}
