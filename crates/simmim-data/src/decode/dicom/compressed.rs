//! Compressed pixels of DICOM (PS3.5, A.4): the fragments of the first frame, and what decodes them.

use std::borrow::Cow;

use hayro_jpeg2000::{DecodeSettings, DecoderContext};
use jpeg_decoder::{CodingProcess, ColorTransform, Decoder, PixelFormat};

use super::data_set::{CUT_SHORT, fragments};
use super::layout::{Color, Layout};
use super::run_lengths;
use super::syntax::Compression;
use crate::decode::{MAX_BYTES, jpeg};
use crate::error::{Error, Result};
use crate::image::Pixels;

/// Decodes the first frame of pixels in fragments: the values of each pixel as they would be stored uncompressed.
pub(super) fn values(pixels: &[u8], compression: Compression, layout: &Layout, name: &str) -> Result<Vec<u16>> {
    let bad = |reason: String| Error::Decode { name: name.to_owned(), reason };
    let Some(fragments) = fragments(pixels) else { return Err(bad(CUT_SHORT.to_owned())) };
    let Some(frame) = first_frame(&fragments, layout.frames) else {
        return Err(bad("the fragments of its pixels do not make frames".to_owned()));
    };
    let values = match compression {
        Compression::RunLengths => {
            run_lengths::values(&frame, layout).ok_or_else(|| "its run lengths are broken".to_owned())
        }
        Compression::Jpeg => of_cosines(&frame, layout, name)?,
        Compression::LosslessJpeg => lossless(&frame, layout),
        Compression::Jpeg2000 => of_wavelets(&frame, layout),
    };
    values.map_err(bad)
}

/// Joins the fragments of the first frame. Before them is a table of where each frame starts, which may be empty.
fn first_frame<'a>(fragments: &[&'a [u8]], frames: usize) -> Option<Cow<'a, [u8]>> {
    let (starts, fragments) = fragments.split_first()?;
    let second = starts.get(4..8).map(|start| u32::from_le_bytes([start[0], start[1], start[2], start[3]]) as usize);
    let count = match second {
        _ if frames <= 1 => fragments.len(),
        _ if frames == fragments.len() => 1,
        Some(second) => {
            let mut end = 0;
            1 + fragments.iter().position(|fragment| {
                end += fragment.len() + 8; // with its header
                end == second
            })?
        }
        // frames of all compressions with several fragments end in this mark, and a zero for an even length
        None => 1 + fragments.iter().position(|part| part.ends_with(END) || part.ends_with(END_AND_ZERO))?,
    };
    match fragments.get(..count)? {
        [] => None,
        [frame] => Some(Cow::Borrowed(frame)),
        parts => Some(Cow::Owned(parts.concat())),
    }
}

const END: &[u8] = &[0xff, 0xd9];
const END_AND_ZERO: &[u8] = &[0xff, 0xd9, 0];

/// Checks that a frame is what the file says, before memory is taken for it.
fn check([height, width, samples]: [usize; 3], layout: &Layout) -> std::result::Result<(), String> {
    if [height, width, samples] == [layout.height, layout.width, layout.samples] {
        return Ok(());
    }
    let Layout { height: rows, width: columns, samples: expected, .. } = layout;
    Err(format!(
        "its pixels are {height} by {width} with {samples} samples, and the file says {rows} by {columns} with {expected}"
    ))
}

/// Decodes a JPEG, and converts its colors to red, green and blue.
fn of_cosines(frame: &[u8], layout: &Layout, name: &str) -> Result<std::result::Result<Vec<u16>, String>> {
    // colors without a sign of what they are would be taken for brightness and differences
    let start = &frame[..frame.len().min(256)];
    let is_silent = |sign: &[u8]| start.windows(sign.len()).all(|bytes| bytes != sign);
    let marked = match frame.split_first_chunk::<2>() {
        Some((first, rest)) if layout.color == Color::RedGreenBlue && is_silent(b"JFIF") && is_silent(b"Adobe") => {
            [first, jpeg::Colors::AsTheyAre.segment(), rest].concat()
        }
        _ => frame.to_vec(),
    };
    let image = jpeg::picture(&marked, name, layout.samples, &mut |_, _| 1)?;
    let values = match image.pixels {
        Pixels::U8(values) => values.into_iter().map(u16::from).collect(),
        Pixels::F32(_) => return Ok(Err("it has more than 8 bits".to_owned())),
    };
    Ok(check([image.height, image.width, image.channels], layout).map(|()| values))
}

/// Decodes a lossless JPEG (ITU-T T.81, annex H).
fn lossless(frame: &[u8], layout: &Layout) -> std::result::Result<Vec<u16>, String> {
    let failed = |cause: jpeg_decoder::Error| cause.to_string();
    let mut decoder = Decoder::new(frame);
    decoder.set_color_transform(ColorTransform::None);
    decoder.set_max_decoding_buffer_size(MAX_BYTES as usize);
    decoder.read_info().map_err(failed)?;
    let Some(info) = decoder.info().filter(|info| info.coding_process == CodingProcess::Lossless) else {
        return Err("its pixels are not lossless, as the file says".to_owned());
    };
    let (samples, is_deep) = match info.pixel_format {
        PixelFormat::L8 => (1, false),
        PixelFormat::L16 => (1, true),
        PixelFormat::RGB24 => (3, false),
        PixelFormat::CMYK32 => (4, false),
    };
    check([info.height.into(), info.width.into(), samples], layout)?;
    let bytes = decoder.decode().map_err(failed)?;
    Ok(if is_deep {
        bytes.as_chunks::<2>().0.iter().map(|value| u16::from_ne_bytes(*value)).collect()
    } else {
        bytes.into_iter().map(u16::from).collect()
    })
}

/// Decodes JPEG 2000 (ITU-T T.800).
fn of_wavelets(frame: &[u8], layout: &Layout) -> std::result::Result<Vec<u16>, String> {
    let failed = |cause: hayro_jpeg2000::DecodeError| cause.to_string();
    let settings = DecodeSettings { strict: true, resolve_palette_indices: false, ..DecodeSettings::default() };
    let image = hayro_jpeg2000::Image::new(frame, &settings).map_err(failed)?;
    let samples = usize::from(image.color_space().num_channels()) + usize::from(image.has_alpha());
    check([image.height() as usize, image.width() as usize, samples], layout)?;
    let mut context = DecoderContext::default();
    let image = image.decode(&mut context).map_err(failed)?;
    // the decoder shifts signed values up by half of their range
    let is_signed = frame
        .windows(4)
        .position(|bytes| bytes == SIZE_MARKERS)
        .is_some_and(|at| frame.get(at + FIRST_DEPTH).is_some_and(|depth| depth & 0x80 != 0));
    let planes: Vec<(&[f32], i32)> = image
        .components()
        .iter()
        .map(|component| (component.samples(), if is_signed { 1 << (component.bit_depth() - 1) } else { 0 }))
        .collect();
    if planes.len() != layout.samples || planes.iter().any(|(plane, _)| plane.len() < layout.pixels()) {
        return Err("its colors differ in size".to_owned());
    }
    let value = |at: usize| planes.iter().map(move |(plane, shift)| (plane[at].round() as i32 - shift) as u16);
    Ok((0..layout.pixels()).flat_map(value).collect())
}

/// The first two markers of a codestream, and where behind their start the depth of the first color stands: in the
/// highest bit, whether it is signed (T.800, A.5.1).
const SIZE_MARKERS: &[u8] = &[0xff, 0x4f, 0xff, 0x51];
const FIRST_DEPTH: usize = 42;
