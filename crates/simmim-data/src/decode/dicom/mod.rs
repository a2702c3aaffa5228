//! Decodes the first frame of a DICOM file (PS3.10 of the standard, <https://www.dicomstandard.org>).

mod color;
mod compressed;
mod data_set;
mod gray;
mod layout;
mod run_lengths;
mod syntax;
mod table;

use std::borrow::Cow;
use std::io::Read as _;

use self::data_set::{CUT_SHORT, DataSet, Encoding, PIXELS};
use self::layout::{Color, Layout};
use self::syntax::{Compression, Syntax};
use super::{Decoding, MAX_BYTES, check_size};
use crate::error::{Error, Result};
use crate::image::Image;

/// Where the file begins: before it are 128 bytes without a meaning, and `DICM`.
const START: usize = 132;

const TRANSFER_SYNTAX: u32 = 0x0002_0010;
const END_OF_FILE_ELEMENTS: u32 = 0x0003_0000;
/// What enhanced objects say of all frames, and of each (PS3.3, C.7.6.16).
const FUNCTIONAL_GROUPS: [u32; 2] = [0x5200_9229, 0x5200_9230];
/// Of these, rescaling and window.
const VALUE_GROUPS: [u32; 2] = [0x0028_9145, 0x0028_9132];

/// Decodes the first frame, which will be converted to the `wanted` channels; gray as [`gray::pixels`] says, colors as
/// `color` does.
///
/// # Errors
///
/// [`Error::Decode`], [`Error::UnreadFormat`], [`Error::TooLarge`], [`Error::FileTooLarge`] or [`Error::NoWindow`], with `name`.
pub(super) fn picture(bytes: &[u8], name: &str, wanted: Decoding) -> Result<Image> {
    let bad = |reason: &str| Error::Decode { name: name.to_owned(), reason: reason.to_owned() };
    // the elements of the file itself are always written in this way (PS3.10, 7.1)
    let first = Encoding { names_types: true, is_big_endian: false };
    let (file, content) =
        DataSet::read(bytes.get(START..).unwrap_or_default(), first, END_OF_FILE_ELEMENTS).map_err(bad)?;
    let Some(id) = file.text(TRANSFER_SYNTAX) else {
        return Err(bad("it does not say how it is encoded (TransferSyntaxUID)"));
    };
    let syntax = Syntax::of(id, name)?;
    let content = if syntax.is_deflated { Cow::Owned(inflated(content, name)?) } else { Cow::Borrowed(content) };
    let (mut data, _) = DataSet::read(&content, syntax.encoding, u32::MAX).map_err(bad)?;
    let Some(pixels) = data.value(PIXELS) else { return Err(bad("it has no pixels")) };
    for frames in FUNCTIONAL_GROUPS.map(|tag| data.first_item(tag)).into_iter().flatten() {
        for item in VALUE_GROUPS.map(|tag| frames.first_item(tag)).into_iter().flatten() {
            data = data.overlaid(item);
        }
    }
    let layout = Layout::of(&data, name)?;
    let is_gray = matches!(layout.color, Color::Gray { .. });
    if wanted.window.is_some() && !is_gray {
        return Err(Error::NoWindow { name: name.to_owned() });
    }
    let channels = if is_gray { 1 } else { 3 };
    // beside the image there are its stored values, which take half of a float
    check_size([layout.height, layout.width], wanted.channels.max(channels), size_of::<f32>(), name)?;
    let values = match syntax.compression {
        None if pixels.ends_at_mark => return Err(bad("its pixels are in fragments, and not compressed")),
        None => layout.uncompressed(&data).ok_or_else(|| bad(CUT_SHORT))?,
        Some(compression) if pixels.ends_at_mark => compressed::values(pixels.bytes, compression, &layout, name)?,
        Some(_) => return Err(bad("its pixels are compressed, and not in fragments")),
    };
    let is_converted = syntax.compression == Some(Compression::Jpeg);
    let pixels = match layout.color {
        Color::Gray { is_inverted } => gray::pixels(&values, &layout, is_inverted, &data, wanted.window),
        Color::Palette => color::of_palette(&values, &layout, &data),
        Color::LumaChroma { .. } if !is_converted => Ok(color::of_luma_and_chroma(&values)),
        Color::RedGreenBlue | Color::LumaChroma { .. } => Ok(color::of_colors(&values, &layout)),
    };
    let pixels = pixels.map_err(|reason| bad(&reason))?;
    Ok(Image { channels, height: layout.height, width: layout.width, pixels })
}

/// The number of frames, if the file says it and is not deflated.
pub(super) fn frames(bytes: &[u8]) -> Option<usize> {
    let first = Encoding { names_types: true, is_big_endian: false };
    let (file, content) = DataSet::read(bytes.get(START..)?, first, END_OF_FILE_ELEMENTS).ok()?;
    let syntax = Syntax::of(file.text(TRANSFER_SYNTAX)?, "").ok().filter(|syntax| !syntax.is_deflated)?;
    let (data, _) = DataSet::read(content, syntax.encoding, u32::MAX).ok()?;
    data.number(layout::FRAMES).ok().flatten().map(|frames| frames as usize) // cut to the range of the type
}

/// Inflates a data set.
fn inflated(content: &[u8], name: &str) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    let mut decoder = flate2::read::DeflateDecoder::new(content).take(MAX_BYTES + 1);
    let failed = |cause: std::io::Error| Error::Decode { name: name.to_owned(), reason: cause.to_string() };
    let bytes = decoder.read_to_end(&mut data).map_err(failed)? as u64;
    if bytes > MAX_BYTES {
        return Err(Error::FileTooLarge { name: name.to_owned(), bytes, limit: MAX_BYTES });
    }
    Ok(data)
}
