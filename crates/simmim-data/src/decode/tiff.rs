//! Decodes the first page of a TIFF file (TIFF 6.0, BigTIFF).

use std::io::Cursor;

use ::tiff::decoder::{Decoder, DecodingResult, Limits};
use ::tiff::tags::Tag;

use super::{MAX_BYTES, check_size, cmyk, from_f32, from_u16, orientation};
use crate::error::{Error, Result};
use crate::image::{Image, Pixels};

/// The tag `PhotometricInterpretation`, and its values.
const INTERPRETATION: u16 = 262;
const WHITE_IS_ZERO: u32 = 0;
const BLACK_IS_ZERO: u32 = 1;
const RGB: u32 = 2;
const PALETTE: u32 = 3;
const INKS: u32 = 5;

/// Decodes a TIFF, which will be converted to `wanted` channels. Gray images with other samples than alpha keep all of
/// them as channels.
///
/// # Errors
///
/// [`Error::Decode`], [`Error::TooLarge`] or [`Error::NotFinite`], with `name`.
pub(super) fn picture(bytes: &[u8], name: &str, wanted: usize) -> Result<Image> {
    let failed = |cause: ::tiff::TiffError| Error::Decode { name: name.to_owned(), reason: cause.to_string() };
    let unread = |what: String| Error::Decode { name: name.to_owned(), reason: format!("{what} is not read") };
    let Some(entry) = orientation::entry(bytes, INTERPRETATION) else {
        return Err(unread("a file that does not say what its values mean".to_owned()));
    };
    let meaning = entry.value;
    if ![WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, INKS].contains(&meaning) {
        return Err(unread(format!("PhotometricInterpretation {meaning}")));
    }
    // the reader knows strips, tiles and compression. It is told that the values are gray, since it does not read
    // palettes, and what the values mean is known here
    let mut gray = bytes.to_vec();
    gray[entry.at.clone()].fill(0);
    let is_little = bytes[0] == b'I';
    gray[if is_little { entry.at.start } else { entry.at.end - 1 }] = BLACK_IS_ZERO as u8;
    let mut limits = Limits::default();
    limits.decoding_buffer_size = MAX_BYTES as usize;
    limits.intermediate_buffer_size = MAX_BYTES as usize;
    let mut decoder = Decoder::new(Cursor::new(gray)).map_err(failed)?.with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(failed)?;
    let color = decoder.colortype().map_err(failed)?;
    let (bits, samples) = (usize::from(color.bit_depth()), usize::from(color.num_samples()));
    let (height, width) = (height as usize, width as usize);
    let bytes_per_value = if bits <= 8 { 1 } else { size_of::<f32>() };
    let channels = if meaning == PALETTE { 3 } else { samples };
    check_size([height, width], wanted.max(channels), bytes_per_value, name)?;
    let mut tag = |tag| decoder.find_tag_unsigned_vec::<u16>(tag).map(Option::unwrap_or_default).map_err(failed);
    let (extra, colors, planes) = (tag(Tag::ExtraSamples)?, tag(Tag::ColorMap)?, tag(Tag::PlanarConfiguration)?);
    if planes == [2] && samples > 1 && !tag(Tag::TileWidth)?.is_empty() {
        // the reader panics on them (version 0.11.3)
        return Err(unread("a file of tiles for each color".to_owned()));
    }
    let mut stored = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut stored).map_err(failed)?;
    if stored.as_buffer(0).byte_len() < layout.complete_len {
        return Err(unread("a file of which only the first plane fits".to_owned()));
    }
    let is_planar = planes == [2] && samples > 1;
    let pixels = match stored {
        DecodingResult::U8(values) if bits == 8 => Pixels::U8(interleaved(values, samples, is_planar)),
        DecodingResult::U8(values) if bits < 8 && samples == 1 => Pixels::U8(unpacked(&values, width, bits)),
        DecodingResult::U16(values) => from_u16(interleaved(values, samples, is_planar)),
        DecodingResult::F32(values) => from_f32(interleaved(values, samples, is_planar), name)?,
        _ => return Err(unread(format!("{samples} samples of {bits} bits each"))),
    };
    let alpha = match extra.first() {
        Some(1) => Alpha::Premultiplied,
        Some(2) => Alpha::Apart,
        _ => Alpha::None,
    };
    let image = Image { channels: samples, height, width, pixels };
    let image = match (meaning, samples) {
        (BLACK_IS_ZERO, 1) if bits < 8 => mapped(image, |value| [spread(value, bits)]),
        (BLACK_IS_ZERO, _) => image,
        (WHITE_IS_ZERO, 1) => match image.pixels {
            Pixels::U8(_) => mapped(image, |value| [255 - spread(value, bits)]),
            Pixels::F32(values) => {
                Image { pixels: Pixels::F32(values.into_iter().map(|value| 1.0 - value).collect()), ..image }
            }
        },
        (RGB, 3..) => with_colors(image, alpha),
        (PALETTE, 1) if bits <= 8 => {
            mapped(image, color_of(&colors, bits).ok_or_else(|| unread("a palette that is cut short".to_owned()))?)
        }
        (INKS, 4) if bits == 8 => inks_to_rgb(image),
        (_, _) => {
            return Err(unread(format!("PhotometricInterpretation {meaning} with {samples} samples of {bits} bits")));
        }
    };
    let orientation = orientation::of(Some(bytes), None);
    Ok(orientation::upright(image, orientation))
}

/// Interleaves values that are stored plane by plane.
fn interleaved<T: Copy>(values: Vec<T>, samples: usize, is_planar: bool) -> Vec<T> {
    if !is_planar {
        return values;
    }
    let plane = values.len() / samples;
    (0..plane)
        .flat_map(|at| (0..samples).map(move |sample| (at, sample)))
        .map(|(at, sample)| values[sample * plane + at])
        .collect()
}

/// Splits rows of `width` values of less than 8 bits, which start at whole bytes.
fn unpacked(rows: &[u8], width: usize, bits: usize) -> Vec<u8> {
    let values = |row: &[u8]| -> Vec<u8> {
        let value = |at: usize| row[at * bits / 8] >> (8 - bits - at * bits % 8) & ((1 << bits) - 1);
        (0..width).map(value).collect()
    };
    rows.chunks_exact((width * bits).div_ceil(8)).flat_map(values).collect()
}

/// Brings a gray value of `bits` bits to 0 to 255.
fn spread(value: u8, bits: usize) -> u8 {
    let top = (1_u32 << bits) - 1;
    (u32::from(value) * 255 / top) as u8
}

/// Returns the colors of the values from a table of all reds, all greens and all blues, of 16 bits. As in Pillow, the upper
/// half of each counts.
fn color_of(table: &[u16], bits: usize) -> Option<impl Fn(u8) -> [u8; 3]> {
    let colors = 1 << bits;
    let parts = table.get(..3 * colors)?;
    Some(move |value: u8| [0, 1, 2].map(|channel| (parts[channel * colors + usize::from(value)] >> 8) as u8))
}

/// Maps the bytes of an image of one channel.
fn mapped<const N: usize>(image: Image, map: impl Fn(u8) -> [u8; N]) -> Image {
    match image.pixels {
        Pixels::U8(pixels) => {
            Image { channels: N, pixels: Pixels::U8(pixels.into_iter().flat_map(map).collect()), ..image }
        }
        Pixels::F32(_) => image,
    }
}

/// What the first sample behind the colors is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alpha {
    None,
    Apart,
    /// The colors are multiplied by alpha.
    Premultiplied,
}

/// Keeps red, green, blue and alpha of an image of three or more channels.
fn with_colors(image: Image, alpha: Alpha) -> Image {
    let kept = if alpha == Alpha::None || image.channels < 4 { 3 } else { 4 };
    let is_premultiplied = alpha == Alpha::Premultiplied && kept == 4;
    let Image { channels, height, width, .. } = image;
    let pixels = match image.pixels {
        Pixels::U8(pixels) => {
            let mut pixels = first(pixels, channels, kept);
            if is_premultiplied {
                for [colors @ .., alpha] in pixels.as_chunks_mut::<4>().0 {
                    for color in colors {
                        // as in Pillow, with which a transparent pixel is black
                        *color = (u32::from(*color) * 255).checked_div(u32::from(*alpha)).unwrap_or(0).min(255) as u8;
                    }
                }
            }
            Pixels::U8(pixels)
        }
        Pixels::F32(pixels) => {
            let mut pixels = first(pixels, channels, kept);
            if is_premultiplied {
                for [colors @ .., alpha] in pixels.as_chunks_mut::<4>().0 {
                    for color in colors {
                        *color = if *alpha > 0.0 { (*color / *alpha).min(1.0) } else { 0.0 };
                    }
                }
            }
            Pixels::F32(pixels)
        }
    };
    Image { channels: kept, height, width, pixels }
}

/// Keeps the first `kept` of the channels.
fn first<T: Copy>(pixels: Vec<T>, channels: usize, kept: usize) -> Vec<T> {
    if channels == kept {
        return pixels;
    }
    pixels.chunks_exact(channels).flat_map(|pixel| &pixel[..kept]).copied().collect()
}

fn inks_to_rgb(image: Image) -> Image {
    match image.pixels {
        Pixels::U8(inks) => Image { channels: 3, pixels: Pixels::U8(cmyk::to_rgb(&inks)), ..image },
        Pixels::F32(_) => image,
    }
}
