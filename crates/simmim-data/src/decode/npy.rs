//! Reads NumPy arrays `[H, W]` and `[H, W, C]` as images with any number of channels.

use std::io::{self, Read};

use npyz::{DType, Deserialize, NpyFile, NpyHeader, Order, TypeChar};

use super::{check_size, from_f32, from_u16};
use crate::error::{Error, Result};
use crate::image::{Depth, Image, Pixels};

/// Reads an array of `u8`, of `u16`, which is divided by 65535, or of `f32`, which is not changed.
///
/// # Errors
///
/// [`Error::BadArray`], [`Error::ArrayShape`], [`Error::ArrayType`], [`Error::Channels`], [`Error::TooLarge`] for the `wanted`
/// number of channels, or [`Error::NotFinite`], with `name`.
pub(super) fn array(bytes: &[u8], name: &str, wanted: usize) -> Result<(Image, Depth)> {
    let bad = |cause| Error::BadArray { name: name.to_owned(), cause };
    let mut data = bytes;
    let header = npy_header(&mut data).map_err(bad)?;
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
    // an array does not say that one of its channels is alpha
    if matches!(size[2], 2 | 4) && size[2] != wanted {
        return Err(Error::Channels { name: name.to_owned(), actual: size[2], wanted });
    }
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

/// The most bytes of a header's text; NumPy itself reads 10,000 unless told otherwise.
const LONGEST_HEADER: usize = 1 << 20;

/// The most brackets within brackets. Shapes have two, records a few; the time that the reader takes doubles with each.
const DEEPEST_HEADER: usize = 8;

/// Reads the header of an array up to its values. Memory is taken for what the file has and not for what it claims.
///
/// # Errors
///
/// If it cannot be read, or is none.
pub fn npy_header(file: &mut impl Read) -> io::Result<NpyHeader> {
    let broken = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let mut header = vec![0; 10];
    file.read_exact(&mut header)?;
    if !header.starts_with(b"\x93NUMPY") {
        return broken("it does not begin as an array of NumPy does".to_owned());
    }
    let mut length = usize::from(u16::from_le_bytes([header[8], header[9]]));
    if header[6] >= 2 {
        // from version 2 on, the length has 32 bits
        let mut upper = [0; 2];
        file.read_exact(&mut upper)?;
        length |= usize::from(u16::from_le_bytes(upper)) << 16;
        header.extend(upper);
    }
    if length > LONGEST_HEADER {
        return broken(format!("its header claims {length} bytes, more than {LONGEST_HEADER}"));
    }
    let start = header.len();
    file.take(length as u64).read_to_end(&mut header)?;
    if header.len() < start + length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut depth = 0_usize;
    for byte in &header[start..] {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST_HEADER {
            return broken(format!("its header has more than {DEEPEST_HEADER} brackets within each other"));
        }
    }
    NpyHeader::from_reader(&header[..])
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
