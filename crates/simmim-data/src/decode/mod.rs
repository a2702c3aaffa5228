//! Decodes the bytes of a picture file or of an array to an image.

mod chunks;
mod cmyk;
#[cfg(feature = "dicom")]
mod dicom;
mod format;
mod frames;
mod gif;
mod jpeg;
mod npy;
mod orientation;
mod picture;
mod pieces;
mod tiff;
mod tiff_jpeg;
mod tiff_windows;

use std::io::{Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::format::Format;
pub use self::npy::npy_header;
pub(crate) use self::pieces::Pieces;
pub(crate) use self::tiff_windows::Windows;
use crate::error::{Error, Result, panic_message};
use crate::image::{Image, Pixels, Stored};

/// Decodes an image, to a number of channels and by the window if `decoding` has one; the format is recognized by the content,
/// not by the file extension.
///
/// Pictures have the pixels that Pillow gives after `ImageOps.exif_transpose`:
///
/// - **Formats.** JPEG (Huffman and arithmetic coding, gray, color and CMYK, 8 bits), PNG, WebP, GIF, BMP, TIFF (8 and 16
///   bits and floats, also with JPEG inside), DICOM, and `.npy` arrays. Of several frames or pages, the first is read.
/// - **Depth.** 8-bit files stay bytes, 16-bit ones become floats from 0 to 1, those with signs from −1 to 1, and floats keep
///   the range they have.
/// - **DICOM** has the values of pydicom: rescaled to those of the modality and shown by the first window of the file, whose
///   bounds become 0 and 1, values beyond them too. Without a window, the first table of values of interest counts, or else
///   the range that the stored bits can have, not that of the values which occur; so equal stored values are equal in all files.
///   Where files have slopes of their own, as those of PET, only a window of `decoding` makes values of the modality equal.
///   `MONOCHROME1` is inverted, and palettes and `YBR` become red, green and blue.
/// - **Orientation** of EXIF, or else of XMP, is applied: the image is turned and mirrored as it is meant to be seen.
/// - **Color profiles** are not applied, nor is gamma: the values are those of the file.
/// - **Alpha** is dropped or added, never blended ([`Image::with_channels`]). An array with two channels or more than three is
///   accepted only if it has exactly as many as are asked for, and so is a gray TIFF file that does not say that the last is alpha.
/// - **Files that are cut short** are refused. A JPEG without an end marker is accepted if its picture is whole
///   and other bytes follow it.
///
/// # Errors
///
/// An [`Error`] with `name` if the format is unknown or not read, the file is broken, the image would take more memory
/// than [`MAX_BYTES`], or its channels cannot be converted. Its size is asked of the header, before anything is decoded.
pub fn decode(bytes: &[u8], name: &str, decoding: impl Into<Decoding>) -> Result<Image> {
    decode_reduced(bytes, name, decoding, &mut |_, _| 1)
}

/// Decodes an image as [`decode`] does, but a JPEG at 1, 1/2, 1/4 or 1/8 of its size.
///
/// `reduction` is called with height and width of the whole upright image and returns the number, 1, 2, 4 or 8, that they
/// may be divided by; the sizes of the result are rounded up. It is called for a JPEG only: images of other formats have
/// their full size. The pixels are those of Pillow's `Image.draft`.
///
/// # Errors
///
/// Those of [`decode`].
pub fn decode_reduced(
    bytes: &[u8],
    name: &str,
    decoding: impl Into<Decoding>,
    reduction: &mut dyn FnMut(usize, usize) -> usize,
) -> Result<Image> {
    Ok(decode_stored(bytes, name, decoding.into(), reduction)?.0)
}

/// Decodes an image as [`decode_reduced`] does, and says how it is stored.
///
/// # Errors
///
/// Those of [`decode`].
pub(crate) fn decode_stored(
    bytes: &[u8],
    name: &str,
    decoding: Decoding,
    reduction: &mut dyn FnMut(usize, usize) -> usize,
) -> Result<(Image, Stored)> {
    let Some(format) = Format::of(bytes) else {
        return Err(format::unknown(bytes, name));
    };
    let (image, depth) = guarded(format, name, || format.decode(bytes, name, decoding, reduction))?;
    if image.height == 0 || image.width == 0 {
        let Image { height, width, .. } = image;
        return Err(Error::NoPixels { name: name.to_owned(), height, width });
    }
    let stored = Stored { channels: image.channels, depth };
    Ok((image.with_channels(decoding.channels, name)?, stored))
}

/// How many frames or pages a picture file has, of which the first is decoded.
pub(crate) fn frames(bytes: &[u8]) -> usize {
    let count = |format| catch_unwind(AssertUnwindSafe(|| frames::frames(format, bytes))).unwrap_or(1);
    Format::of(bytes).map_or(1, count)
}

/// Height and width that [`decode`] gives. Of JPEG, PNG, WebP, BMP and TIFF files only the header is read.
///
/// # Errors
///
/// Those of [`decode`] as far as they show in what is read.
pub(crate) fn size(bytes: &[u8], name: &str, decoding: Decoding) -> Result<[usize; 2]> {
    let Some(format) = Format::of(bytes) else {
        return Err(format::unknown(bytes, name));
    };
    match guarded(format, name, || format.size(bytes, name))? {
        Some(size) => Ok(size),
        None => decode(bytes, name, decoding).map(|image| [image.height, image.width]),
    }
}

/// Calls a decoder. A broken file on which it panics is an error of this file and must not end the run.
fn guarded<T>(format: Format, name: &str, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|payload| {
        let message = panic_message(&*payload);
        Err(Error::DecoderPanicked { name: name.to_owned(), format: format.name(), message })
    })
}

/// Height and width of a TIFF file, of which only the header is read.
///
/// # Errors
///
/// [`Error::Decode`] or [`Error::DecoderPanicked`], with `name`.
pub(crate) fn tiff_size(file: impl Read + Seek, name: &str) -> Result<[usize; 2]> {
    guarded(Format::Tiff, name, || tiff::size(file, name))
}

/// Whether a file that begins with these bytes is a TIFF file.
pub(crate) fn is_tiff(start: &[u8]) -> bool {
    Format::of(start) == Some(Format::Tiff)
}

/// What is made of the bytes of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decoding {
    /// The number of channels.
    pub channels: usize,
    /// Which values are shown, instead of the window of the file. Only gray DICOM files have values that a window is for;
    /// all others are then unreadable.
    pub window: Option<Window>,
}

impl Decoding {
    /// Checks that what is wanted can be had of pixels that are decoded already.
    ///
    /// # Errors
    ///
    /// [`Error::NoWindow`] with `name`.
    pub(crate) fn check_pixels(self, name: &str) -> Result<()> {
        self.window.map_or(Ok(()), |_| Err(Error::NoWindow { name: name.to_owned() }))
    }
}

impl From<usize> for Decoding {
    /// A number of channels, and the window of the file.
    fn from(channels: usize) -> Self {
        Self { channels, window: None }
    }
}

/// The values of a modality, such as Hounsfield units, that are shown: those from `center - width / 2` to `center + width / 2`
/// become 0 to 1 (`LINEAR_EXACT` in DICOM's PS3.3, C.11.2.1.3.2), and those beyond are cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// The middle of the values.
    pub center: f64,
    /// How many values there are, more than 0.
    pub width: f64,
}

/// The most memory that one image may take after its values and channels are converted, 512 MiB. This is the size of
/// 178,956,970 RGB pixels, and with more pixels Pillow raises `DecompressionBombError` (`PIL/Image.py`).
pub const MAX_BYTES: u64 = 512 << 20;

/// Checks the memory that an image of this height and width will take.
///
/// # Errors
///
/// [`Error::TooLarge`] with `name` if it is more than [`MAX_BYTES`], [`Error::NoMemory`] if the system does not give it.
pub(crate) fn check_size(
    [height, width]: [usize; 2],
    channels: usize,
    bytes_per_value: usize,
    name: &str,
) -> Result<()> {
    let factors = [height, width, channels, bytes_per_value];
    let bytes = factors.iter().fold(1_u64, |product, factor| product.saturating_mul(*factor as u64));
    if bytes <= MAX_BYTES {
        return check_memory(bytes, name);
    }
    Err(Error::TooLarge { name: name.to_owned(), height, width, channels, bytes, limit: MAX_BYTES })
}

/// Images that take no more than this are read without asking, because small allocations hardly ever fail.
const SMALL_BYTES: u64 = 16 << 20;

/// Checks that the system gives the memory of an image twice, as it is decoded and as it is converted. A decoder would end
/// the process where it does not.
fn check_memory(bytes: u64, name: &str) -> Result<()> {
    if bytes <= SMALL_BYTES {
        return Ok(());
    }
    let mut probe: Vec<u8> = Vec::new();
    let is_given = usize::try_from(2 * bytes).is_ok_and(|bytes| probe.try_reserve_exact(bytes).is_ok());
    std::hint::black_box(&probe); // or else the compiler may leave the allocation out
    if is_given { Ok(()) } else { Err(Error::NoMemory { name: name.to_owned(), bytes: 2 * bytes }) }
}

fn from_u16(values: Vec<u16>) -> Pixels {
    Pixels::F32(values.into_iter().map(|value| f32::from(value) / 65535.0).collect())
}

/// Returns floats as pixels if all of them are finite.
fn from_f32(values: Vec<f32>, name: &str) -> Result<Pixels> {
    if values.iter().all(|value| value.is_finite()) {
        Ok(Pixels::F32(values))
    } else {
        Err(Error::NotFinite { name: name.to_owned() })
    }
}
