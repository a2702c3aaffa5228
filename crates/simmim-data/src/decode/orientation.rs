//! How an image is turned and mirrored to be seen as it was taken: EXIF's tag `Orientation`.

use crate::image::{Image, Pixels};

/// The number of the tag, in EXIF (CIPA DC-008, 4.6.5) and in TIFF.
pub(super) const ORIENTATION: u16 = 274;

/// Returns the orientation, 1 to 8, that EXIF data say, or else XMP data; 1 is upright. As in Pillow, an EXIF tag with
/// another value hides that of XMP (`Image.getexif`, `ImageOps.exif_transpose`).
pub(super) fn of(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> u8 {
    let number = exif.and_then(of_exif).or_else(|| xmp.and_then(of_xmp)).unwrap_or(1);
    if (1..=8).contains(&number) { number as u8 } else { 1 }
}

/// EXIF data are a TIFF file without an image; in some containers `Exif` and two zeros stand before it.
fn of_exif(exif: &[u8]) -> Option<u32> {
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Some(entry(tiff, ORIENTATION)?.value)
}

fn of_xmp(xmp: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    let at = xmp.windows(NAME.len()).position(|part| part == NAME)?;
    match xmp[at + NAME.len()..] {
        // an attribute or an element
        [b'=', b'"', digit, b'"', ..] | [b'>', digit, ..] if digit.is_ascii_digit() => Some(u32::from(digit - b'0')),
        _ => None,
    }
}

/// An entry of the first directory of a TIFF file that holds one whole number.
pub(super) struct Entry {
    /// The number.
    pub(super) value: u32,
    /// The bytes of the file that hold it.
    pub(super) at: std::ops::Range<usize>,
}

/// Finds the entry `tag` in the first directory (TIFF 6.0, section 2; BigTIFF has the same with longer fields).
pub(super) fn entry(tiff: &[u8], tag: u16) -> Option<Entry> {
    entry_in(
        &mut |at, bytes| {
            bytes.copy_from_slice(tiff.get(at..at.checked_add(bytes.len())?)?);
            Some(())
        },
        tag,
    )
}

/// Does what [`entry`] does for a file that `read` reads from, at most eight bytes at a time.
pub(super) fn entry_in(read: &mut dyn FnMut(usize, &mut [u8]) -> Option<()>, tag: u16) -> Option<Entry> {
    let mut order = [0; 2];
    read(0, &mut order)?;
    let is_little = order == *b"II";
    let mut number = |at: usize, length: usize| -> Option<u64> {
        let mut bytes = [0; 8];
        let bytes = &mut bytes[..length];
        read(at, bytes)?;
        let join = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if is_little { bytes.iter().rev().fold(0, join) } else { bytes.iter().fold(0, join) })
    };
    // the lengths of an offset, of the count of entries, and of an entry
    let (offset_at, offset, count, length) = match number(2, 2)? {
        42 => (4, 4, 2, 12),
        43 => (8, 8, 8, 20),
        _ => return None,
    };
    let directory = usize::try_from(number(offset_at, offset)?).ok()?;
    for index in 0..number(directory, count)? {
        let start = directory.checked_add(count)?.checked_add(usize::try_from(index).ok()?.checked_mul(length)?)?;
        if number(start, 2)? == u64::from(tag) {
            let (kind, values, at) = (number(start + 2, 2)?, number(start + 4, offset)?, start + 4 + offset);
            // a byte, a short or a long, which stand in the entry itself
            let width = match kind {
                1 => 1,
                3 => 2,
                4 => 4,
                _ => return None,
            };
            return (values == 1)
                .then_some(Entry { value: u32::try_from(number(at, width)?).ok()?, at: at..at + width });
        }
    }
    None
}

/// The height and width of an image that is stored with this orientation, when it is upright.
pub(super) fn upright_size([height, width]: [usize; 2], orientation: u8) -> [usize; 2] {
    if (5..=8).contains(&orientation) { [width, height] } else { [height, width] }
}

/// Turns and mirrors an image that is stored with this orientation so that it is upright.
pub(super) fn upright(image: Image, orientation: u8) -> Image {
    let Image { channels, height, width, .. } = image;
    // the pixel of the stored image, as row and column, that comes to row y and column x
    let (height_end, width_end) = (height.saturating_sub(1), width.saturating_sub(1));
    let from = |y: usize, x: usize| match orientation {
        2 => (y, width_end - x),
        3 => (height_end - y, width_end - x),
        4 => (height_end - y, x),
        5 => (x, y),
        6 => (height_end - x, y),
        7 => (height_end - x, width_end - y),
        8 => (x, width_end - y),
        _ => (y, x),
    };
    let size = upright_size([height, width], orientation);
    let pixels = match image.pixels {
        pixels if !(2..=8).contains(&orientation) => pixels,
        Pixels::U8(pixels) => Pixels::U8(moved(&pixels, width, channels, size, from)),
        Pixels::F32(pixels) => Pixels::F32(moved(&pixels, width, channels, size, from)),
    };
    Image { channels, height: size[0], width: size[1], pixels }
}

fn moved<T: Copy>(
    pixels: &[T],
    width: usize,
    channels: usize,
    [height, new_width]: [usize; 2],
    from: impl Fn(usize, usize) -> (usize, usize),
) -> Vec<T> {
    let mut moved = Vec::with_capacity(pixels.len());
    for y in 0..height {
        for x in 0..new_width {
            let (row, column) = from(y, x);
            let start = (row * width + column) * channels;
            moved.extend_from_slice(&pixels[start..start + channels]);
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_turned_from_any_orientation() {
        // rows 1 2 3 and 4 5 6, each pixel with its negative as second channel
        let pixels: Vec<f32> = (1..=6).flat_map(|value| [value as f32, -(value as f32)]).collect();
        let stored = Image { channels: 2, height: 2, width: 3, pixels: Pixels::F32(pixels) };
        let check = |orientation, size: [usize; 2], expected: [u8; 6]| {
            let expected = expected.iter().flat_map(|value| [f32::from(*value), -f32::from(*value)]).collect();
            let expected = Image { channels: 2, height: size[0], width: size[1], pixels: Pixels::F32(expected) };
            assert_eq!(upright(stored.clone(), orientation), expected, "{orientation}");
        };
        check(1, [2, 3], [1, 2, 3, 4, 5, 6]);
        check(2, [2, 3], [3, 2, 1, 6, 5, 4]);
        check(3, [2, 3], [6, 5, 4, 3, 2, 1]);
        check(4, [2, 3], [4, 5, 6, 1, 2, 3]);
        check(5, [3, 2], [1, 4, 2, 5, 3, 6]);
        check(6, [3, 2], [4, 1, 5, 2, 6, 3]);
        check(7, [3, 2], [6, 3, 5, 2, 4, 1]);
        check(8, [3, 2], [3, 6, 2, 5, 1, 4]);
    }

    #[test]
    fn xmp_counts_where_exif_says_nothing() {
        let exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let (element, attribute) = (b"<tiff:Orientation>8</tiff:Orientation>", b"<a tiff:Orientation=\"3\"/>");
        assert_eq!(of(Some(exif), Some(element)), 6);
        assert_eq!(of(None, Some(element)), 8);
        assert_eq!(of(Some(b"Exif\0\0"), Some(attribute)), 3);
        assert_eq!(of(None, Some(b"tiff:Orientation=\"9\"")), 1);
        assert_eq!(of(None, None), 1);
        for length in 0..exif.len() - 7 {
            assert_eq!(of(Some(&exif[..length]), None), 1, "{length} bytes");
        }
    }
}
