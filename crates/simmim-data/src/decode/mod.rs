//! Decodes the bytes of a JPEG, PNG or `.npy` file to an image.

mod jpeg;
mod npy;

use std::io::Cursor;
use std::panic::catch_unwind;

use ::image::{ColorType, DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits};

use crate::error::{Error, Result, panic_message};
use crate::image::{Image, Pixels};

/// Decodes an image to `channels` channels; the format is recognized by the content, not by the file extension.
///
/// 8-bit files stay 8-bit; deeper ones become floats. Channels are converted by [`Image::with_channels`], so an array
/// with more than four channels is accepted only if it has exactly `channels` channels. Orientation tags are not
/// applied, as in torchvision's `ImageFolder`.
///
/// # Errors
///
/// An [`Error`] with `name` if the format is unknown, the file is broken, the image would take more memory than
/// [`MAX_BYTES`], or its channels cannot be converted. Its size is asked of the header, before anything is decoded.
pub fn decode(bytes: &[u8], name: &str, channels: usize) -> Result<Image> {
    let Some(format) = Format::of(bytes) else {
        let start = bytes[..bytes.len().min(4)].to_vec();
        return Err(Error::UnknownFormat { name: name.to_owned(), start });
    };
    // a broken file on which a decoder panics is an error of this file and must not end the run
    let image = catch_unwind(|| format.decode(bytes, name, channels)).map_err(|payload| Error::DecoderPanicked {
        name: name.to_owned(),
        format: format.name(),
        message: panic_message(&*payload),
    })??;
    if image.height == 0 || image.width == 0 {
        let Image { height, width, .. } = image;
        return Err(Error::NoPixels { name: name.to_owned(), height, width });
    }
    image.with_channels(channels, name)
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

#[derive(Clone, Copy)]
enum Format {
    Jpeg,
    Png,
    Npy,
}

impl Format {
    fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(Self::Npy),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG files",
            Self::Png => "PNG files",
            Self::Npy => "arrays",
        }
    }

    fn decode(self, bytes: &[u8], name: &str, channels: usize) -> Result<Image> {
        match self {
            Self::Jpeg if jpeg::is_cut_short(bytes) => {
                Err(Error::TruncatedJpeg { name: name.to_owned(), length: bytes.len() })
            }
            Self::Jpeg => picture(bytes, name, ImageFormat::Jpeg, channels),
            Self::Png => picture(bytes, name, ImageFormat::Png, channels),
            Self::Npy => npy::array(bytes, name, channels),
        }
    }
}

fn picture(bytes: &[u8], name: &str, format: ImageFormat, channels: usize) -> Result<Image> {
    let failed = |cause| Error::Decode { name: name.to_owned(), cause };
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    // deeper values become floats
    let bytes_per_value = if color.bytes_per_pixel() == color.channel_count() { 1 } else { size_of::<f32>() };
    check_size([height as usize, width as usize], channels.max(color.channel_count().into()), bytes_per_value, name)?;
    Ok(from_decoded(DynamicImage::from_decoder(decoder).map_err(failed)?))
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

fn from_u16(values: Vec<u16>) -> Pixels {
    Pixels::F32(values.into_iter().map(|value| f32::from(value) / 65535.0).collect())
}
