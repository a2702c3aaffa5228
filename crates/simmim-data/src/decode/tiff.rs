//! Decodes the first page of a TIFF file (TIFF 6.0, BigTIFF).

use std::fmt::Display;
use std::io::{self, Cursor, Read, Seek, SeekFrom};

use ::tiff::decoder::{Decoder, DecodingResult, Limits};
use ::tiff::tags::Tag;

use super::jpeg::Colors;
use super::tiff_jpeg::Jpegs;
use super::{MAX_BYTES, check_size, cmyk, from_f32, from_u16, orientation};
use crate::error::{Error, Result};
use crate::image::{Depth, Image, Pixels, Rectangle};

/// The tag `PhotometricInterpretation`, and its values.
const INTERPRETATION: u16 = 262;
/// The tag `FillOrder`: from which end of a byte its bits are filled.
const FILL_ORDER: u16 = 266;
const WHITE_IS_ZERO: u32 = 0;
const BLACK_IS_ZERO: u32 = 1;
const RGB: u32 = 2;
const PALETTE: u32 = 3;
const INKS: u32 = 5;
const LUMA_CHROMA: u32 = 6;

/// Decodes a TIFF, which will be converted to `wanted` channels. Gray images with other samples than alpha keep all of
/// them as channels, color images if they have as many as wanted.
///
/// # Errors
///
/// [`Error::Decode`], [`Error::TooLarge`] or [`Error::NotFinite`], with `name`.
pub(super) fn picture(bytes: &[u8], name: &str, wanted: usize) -> Result<(Image, Depth)> {
    let mut page = Page::open(Cursor::new(bytes), name)?;
    check_size(page.size, wanted.max(page.channels()), page.bytes_per_value(), name)?;
    if page.jpegs.is_some() {
        let [height, width] = page.size;
        let image = page.part(Rectangle { top: 0, left: 0, height, width }, wanted, name)?;
        return Ok((orientation::upright(image, page.orientation), Depth::Bits8));
    }
    let mut stored = DecodingResult::U8(Vec::new());
    let layout = page.decoder.read_image_to_buffer(&mut stored).map_err(|cause| failed(name, &cause))?;
    if stored.as_buffer(0).byte_len() < layout.complete_len {
        return Err(unread(name, "a file of which only the first plane fits"));
    }
    let depth = match page.bits {
        ..=8 => Depth::Bits8,
        16 => Depth::Bits16,
        _ => Depth::Float, // longer whole numbers are refused
    };
    Ok((orientation::upright(page.image(stored, page.size, wanted, name)?, page.orientation), depth))
}

/// Height and width of the upright page.
///
/// # Errors
///
/// [`Error::Decode`] with `name`.
pub(crate) fn size(file: impl Read + Seek, name: &str) -> Result<[usize; 2]> {
    let page = Page::open(file, name)?;
    Ok(orientation::upright_size(page.size, page.orientation))
}

fn failed(name: &str, cause: &::tiff::TiffError) -> Error {
    Error::Decode { name: name.to_owned(), reason: cause.to_string() }
}

fn unread(name: &str, what: impl Display) -> Error {
    Error::Decode { name: name.to_owned(), reason: format!("{what} is not read") }
}

/// The first page of a file, and what its values mean.
pub(super) struct Page<R: Read + Seek> {
    pub(super) decoder: Decoder<Patched<R>>,
    /// Height and width as they are stored.
    pub(super) size: [usize; 2],
    pub(super) orientation: u8,
    /// `PhotometricInterpretation`.
    meaning: u32,
    pub(super) bits: usize,
    samples: usize,
    /// Whether each sample of all pixels is stored apart.
    pub(super) is_planar: bool,
    alpha: Alpha,
    /// The palette.
    colors: Vec<u16>,
    /// Its strips or tiles, if they are JPEG files.
    jpegs: Option<Jpegs>,
}

impl<R: Read + Seek> Page<R> {
    /// Reads the directory of the page.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] with `name`.
    pub(super) fn open(mut file: R, name: &str) -> Result<Self> {
        let mut number = |tag| entry_of(&mut file, tag);
        let (entry, order_of_bits) = (number(INTERPRETATION), number(FILL_ORDER));
        let Some(entry) = entry else {
            return Err(match missing_directory(&mut file) {
                Some(reason) => Error::Decode { name: name.to_owned(), reason },
                None => unread(name, "a file that does not say what its values mean"),
            });
        };
        // the reader would give mirrored bits (version 0.11.3)
        if order_of_bits.is_some_and(|order| order.value != 1) {
            return Err(unread(name, "a file whose bits are in reverse order (FillOrder 2)"));
        }
        let mut number = |tag| entry_of(&mut file, tag);
        let orientation = number(orientation::ORIENTATION).map_or(1, |entry| entry.value);
        let meaning = entry.value;
        if ![WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, INKS, LUMA_CHROMA].contains(&meaning) {
            return Err(unread(name, format_args!("PhotometricInterpretation {meaning}")));
        }
        // the reader knows strips, tiles and compression. It is told that the values are gray, since it does not read
        // palettes, and what the values mean is known here
        let gray = |is_little: bool| {
            let mut bytes = vec![0; entry.at.len()];
            let last = bytes.len() - 1;
            bytes[if is_little { 0 } else { last }] = BLACK_IS_ZERO as u8;
            bytes
        };
        let failed = |cause| failed(name, &cause);
        let mut order = [0];
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.read_exact(&mut order))
            .map_err(|cause| failed(cause.into()))?;
        file.seek(SeekFrom::Start(0)).map_err(|cause| failed(cause.into()))?;
        let patched = Patched { file, at: entry.at.start as u64, bytes: gray(order == *b"I") };
        let mut limits = Limits::default();
        limits.decoding_buffer_size = MAX_BYTES as usize;
        limits.intermediate_buffer_size = MAX_BYTES as usize;
        let mut decoder = Decoder::new(patched).map_err(failed)?.with_limits(limits);
        let (width, height) = decoder.dimensions().map_err(failed)?;
        let color = decoder.colortype().map_err(failed)?;
        let (bits, samples) = (usize::from(color.bit_depth()), usize::from(color.num_samples()));
        let mut tag = |tag| decoder.find_tag_unsigned_vec::<u16>(tag).map(Option::unwrap_or_default).map_err(failed);
        let (extra, colors, planes) = (tag(Tag::ExtraSamples)?, tag(Tag::ColorMap)?, tag(Tag::PlanarConfiguration)?);
        let is_planar = planes == [2] && samples > 1;
        if is_planar && !tag(Tag::TileWidth)?.is_empty() {
            // the reader panics on them (version 0.11.3)
            return Err(unread(name, "a file of tiles for each color"));
        }
        let colors_of_jpeg = if meaning == LUMA_CHROMA { Colors::LumaChroma } else { Colors::AsTheyAre };
        let jpegs = Jpegs::of(&mut decoder, colors_of_jpeg).map_err(failed)?;
        let meaning = match &jpegs {
            Some(_) if bits != 8 || is_planar => {
                return Err(unread(name, format_args!("JPEG of {bits} bits, or of a color each,")));
            }
            Some(_) if meaning == LUMA_CHROMA => RGB, // libjpeg converts it
            None if meaning == LUMA_CHROMA => {
                return Err(unread(name, format_args!("PhotometricInterpretation {meaning}")));
            }
            Some(_) | None => meaning,
        };
        let alpha = match extra.first() {
            Some(1) => Alpha::Premultiplied,
            Some(2) => Alpha::Apart,
            _ => Alpha::None,
        };
        let size = [height as usize, width as usize];
        let orientation = u8::try_from(orientation).ok().filter(|number| (1..=8).contains(number)).unwrap_or(1);
        Ok(Self { decoder, size, orientation, meaning, bits, samples, is_planar, alpha, colors, jpegs })
    }

    /// The number of channels before they are converted.
    pub(super) fn channels(&self) -> usize {
        if self.meaning == PALETTE { 3 } else { self.samples }
    }

    pub(super) fn bytes_per_value(&self) -> usize {
        if self.bits <= 8 { 1 } else { size_of::<f32>() }
    }

    /// Reads a part, not turned upright; of the file only the tiles or strips that it touches are read.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`], [`Error::TooLarge`], [`Error::NotFinite`] or [`Error::Channels`], with `name`.
    pub(super) fn part(&mut self, part: Rectangle, wanted: usize, name: &str) -> Result<Image> {
        let size = [part.height, part.width];
        check_size(size, self.channels().max(wanted), self.bytes_per_value(), name)?;
        let (width, height) = self.decoder.chunk_dimensions();
        let [height, width] = [height, width].map(|side| side as usize);
        if height == 0 || width == 0 {
            return Err(Error::Decode { name: name.to_owned(), reason: "its tiles have no pixels".to_owned() });
        }
        check_size([height, width], self.channels(), self.bytes_per_value(), name)?;
        let across = self.size[1].div_ceil(width);
        let mut cut: Option<Image> = None;
        for row in part.top / height..=(part.top + part.height - 1) / height {
            for column in part.left / width..=(part.left + part.width - 1) / width {
                let chunk = self.chunk(row * across + column, wanted, name)?;
                let cut = cut.get_or_insert_with(|| chunk.zeros_like(size));
                cut.paste(&chunk, [row * height, column * width], part);
            }
        }
        cut.expect("a part has pixels").with_channels(wanted, name)
    }

    /// Reads strip or tile `number`, without what lies beyond the border of the picture.
    fn chunk(&mut self, number: usize, wanted: usize, name: &str) -> Result<Image> {
        let (columns, rows) = self.decoder.chunk_data_dimensions(number as u32);
        let size = [rows as usize, columns as usize];
        let stored = match &self.jpegs {
            None => self.decoder.read_chunk(number as u32).map_err(|cause| failed(name, &cause))?,
            Some(jpegs) => {
                let (width, _) = self.decoder.chunk_dimensions();
                let stored = [size[0], width as usize];
                DecodingResult::U8(jpegs.read(self.decoder.inner(), number, stored, size[1], self.samples, name)?)
            }
        };
        self.image(stored, size, wanted, name)
    }

    /// Makes an image of the values of the page, or of a part of it, not turned upright. It will be converted to `wanted`
    /// channels, and colors keep all other samples if they are as many.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] or [`Error::NotFinite`], with `name`.
    pub(super) fn image(
        &self,
        stored: DecodingResult,
        [height, width]: [usize; 2],
        wanted: usize,
        name: &str,
    ) -> Result<Image> {
        let Self { meaning, bits, samples, is_planar, alpha, ref colors, .. } = *self;
        let pixels = match stored {
            DecodingResult::U8(values) if bits == 8 => Pixels::U8(interleaved(values, samples, is_planar)),
            DecodingResult::U8(values) if [1, 2, 4].contains(&bits) && samples == 1 => {
                Pixels::U8(unpacked(&values, width, bits))
            }
            DecodingResult::U16(values) => from_u16(interleaved(values, samples, is_planar)),
            // 0 stays 0, so that values that are not negative have the sense of those without a sign
            DecodingResult::I16(values) => {
                let values = interleaved(values, samples, is_planar).into_iter();
                Pixels::F32(values.map(|value| f32::from(value) / 32768.0).collect())
            }
            DecodingResult::F32(values) => from_f32(interleaved(values, samples, is_planar), name)?,
            DecodingResult::F64(values) => {
                let values = interleaved(values, samples, is_planar).into_iter();
                from_f32(values.map(|value| value as f32).collect(), name)?
            }
            other => {
                let kind = kind(&other);
                return Err(unread(name, format_args!("{samples} {kind} of {bits} bits for each pixel")));
            }
        };
        let image = Image { channels: samples, height, width, pixels };
        Ok(match (meaning, samples) {
            (BLACK_IS_ZERO, 1) if bits < 8 => mapped(image, |value| [spread(value, bits)]),
            // no sample is alpha if the file does not say so
            (BLACK_IS_ZERO, 2 | 4) if alpha == Alpha::None && samples != wanted => {
                return Err(Error::Channels { name: name.to_owned(), actual: samples, wanted });
            }
            (BLACK_IS_ZERO, _) => image,
            (WHITE_IS_ZERO, 1) => match image.pixels {
                Pixels::U8(_) => mapped(image, |value| [255 - spread(value, bits)]),
                Pixels::F32(values) => {
                    Image { pixels: Pixels::F32(values.into_iter().map(|value| 1.0 - value).collect()), ..image }
                }
            },
            // as in pictures of the earth, with infrared behind the colors
            (RGB, 4..) if alpha == Alpha::None && samples == wanted => image,
            (RGB, 3..) => with_colors(image, alpha),
            (PALETTE, 1) if bits <= 8 => {
                mapped(image, color_of(colors, bits).ok_or_else(|| unread(name, "a palette that is cut short"))?)
            }
            (INKS, 4) if bits == 8 => inks_to_rgb(image),
            (_, _) => {
                let what = format_args!("PhotometricInterpretation {meaning} with {samples} samples of {bits} bits");
                return Err(unread(name, what));
            }
        })
    }
}

/// An entry of the first directory of a file that holds one whole number.
fn entry_of(file: &mut (impl Read + Seek), tag: u16) -> Option<orientation::Entry> {
    let mut read = |at: usize, bytes: &mut [u8]| {
        file.seek(SeekFrom::Start(at as u64)).ok()?;
        file.read_exact(bytes).ok()
    };
    orientation::entry_in(&mut read, tag)
}

/// Says so if the first directory lies behind the end of the file. Many programs write it last.
fn missing_directory(file: &mut (impl Read + Seek)) -> Option<String> {
    let mut header = [0; 16];
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_exact(&mut header).ok()?;
    let is_big = header[2..4].contains(&43);
    let place = if is_big { &header[8..16] } else { &header[4..8] };
    let join = |place: u64, byte: &u8| place << 8 | u64::from(*byte);
    let place = if header[0] == b'I' { place.iter().rev().fold(0, join) } else { place.iter().fold(0, join) };
    let length = file.seek(SeekFrom::End(0)).ok()?;
    (place >= length)
        .then(|| format!("the file is cut short: it has {length} bytes, and its directory is at byte {place}"))
}

/// A file of which a few bytes are read as others.
pub(super) struct Patched<R> {
    file: R,
    /// Where the other bytes begin.
    at: u64,
    bytes: Vec<u8>,
}

impl<R: Read + Seek> Read for Patched<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let start = self.file.stream_position()?;
        let count = self.file.read(out)?;
        for (at, byte) in (self.at..).zip(&self.bytes) {
            if let Some(out) = at.checked_sub(start).and_then(|at| out[..count].get_mut(at as usize)) {
                *out = *byte;
            }
        }
        Ok(count)
    }
}

impl<R: Seek> Seek for Patched<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Names the values, for a message.
fn kind(values: &DecodingResult) -> &'static str {
    match values {
        DecodingResult::U8(_) | DecodingResult::U16(_) | DecodingResult::U32(_) | DecodingResult::U64(_) => "integers",
        DecodingResult::I8(_) | DecodingResult::I16(_) | DecodingResult::I32(_) | DecodingResult::I64(_) => {
            "signed integers"
        }
        DecodingResult::F16(_) | DecodingResult::F32(_) | DecodingResult::F64(_) => "floats",
    }
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

/// Splits rows of `width` values of 1, 2 or 4 bits, which start at whole bytes.
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
