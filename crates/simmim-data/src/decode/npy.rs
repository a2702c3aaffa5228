//! Reads NumPy arrays `[H, W]` and `[H, W, C]` as images with any number of channels.

use npyz::{DType, Deserialize, NpyFile, NpyHeader, Order, TypeChar};

use super::{check_size, from_f32, from_u16};
use crate::error::{Error, Result};
use crate::image::{Depth, Image, Pixels};

/// Reads an array of `u8`, of `u16`, which is divided by 65535, or of `f32`, which is not changed.
///
/// # Errors
///
/// [`Error::BadArray`], [`Error::ArrayShape`], [`Error::ArrayType`], [`Error::TooLarge`] for the `wanted` number of
/// channels, or [`Error::NotFinite`], with `name`.
pub(super) fn array(bytes: &[u8], name: &str, wanted: usize) -> Result<(Image, Depth)> {
    let bad = |cause| Error::BadArray { name: name.to_owned(), cause };
    // the reader takes the memory for a header before it reads it; from version 2 on, its length has 32 bits
    if let [_, _, _, _, _, _, version, _, first, second, third, fourth, text @ ..] = bytes
        && *version >= 2
        && (text.len() as u64) < u64::from(u32::from_le_bytes([*first, *second, *third, *fourth]))
    {
        return Err(bad(std::io::ErrorKind::UnexpectedEof.into()));
    }
    let mut data = bytes;
    let header = NpyHeader::from_reader(&mut data).map_err(bad)?;
    let [height, width, channels] = match *header.shape() {
        [height, width] => [height, width, 1],
        [height, width, channels] => [height, width, channels],
        ref other => return Err(Error::ArrayShape { name: name.to_owned(), shape: other.to_vec() }),
    };
    let kind = match header.dtype() {
        DType::Plain(kind) => kind,
        ref other @ (DType::Record(_) | DType::Array(..)) => {
            return Err(Error::ArrayType { name: name.to_owned(), dtype: other.descr() });
        }
    };
    let values = [height, width, channels].iter().try_fold(1, |product: u64, side| product.checked_mul(*side));
    // checked before memory is allocated, because a broken header may claim any size
    if values
        .and_then(|values| values.checked_mul(kind.size_field()))
        .is_none_or(|expected| expected > data.len() as u64)
    {
        return Err(bad(std::io::ErrorKind::UnexpectedEof.into()));
    }
    if channels == 0 {
        return Err(Error::ArrayShape { name: name.to_owned(), shape: header.shape().to_vec() });
    }
    let size = [height as usize, width as usize, channels as usize];
    // bytes stay bytes, and all other values become floats
    let bytes_per_value = if kind.size_field() == 1 { 1 } else { size_of::<f32>() };
    check_size([size[0], size[1]], wanted.max(size[2]), bytes_per_value, name)?;
    let (pixels, depth) = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Uint, 1) => (Pixels::U8(read(header, data, size).map_err(bad)?), Depth::Bits8),
        (TypeChar::Uint, 2) => (from_u16(read(header, data, size).map_err(bad)?), Depth::Bits16),
        (TypeChar::Float, 4) => (from_f32(read(header, data, size).map_err(bad)?, name)?, Depth::Float),
        (_, _) => return Err(Error::ArrayType { name: name.to_owned(), dtype: DType::Plain(kind).descr() }),
    };
    Ok((Image { channels: size[2], height: size[0], width: size[1], pixels }, depth))
}

/// Returns the values in row-major order, also if the file has them in column-major order.
fn read<T: Deserialize + Copy>(header: NpyHeader, data: &[u8], size: [usize; 3]) -> std::io::Result<Vec<T>> {
    let order = header.order();
    let values = NpyFile::with_header(header, data).into_vec()?;
    let [height, width, channels] = size;
    match order {
        Order::C => Ok(values),
        Order::Fortran => {
            let mut ordered = Vec::with_capacity(values.len());
            for y in 0..height {
                for x in 0..width {
                    for channel in 0..channels {
                        ordered.push(values[(channel * width + x) * height + y]);
                    }
                }
            }
            Ok(ordered)
        }
    }
}
