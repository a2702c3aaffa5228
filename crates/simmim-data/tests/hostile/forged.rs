//! Headers that claim more than there is.

use std::io::Write as _;

use simmim_data::Error;
use simmim_data::decode::MAX_BYTES;

use crate::matrix::Matrix;
use crate::taken;

/// The bytes of a file of the matrix.
fn file(name: &str) -> Vec<u8> {
    let extensions =
        [("jpg", "jpeg"), ("png", "png"), ("webp", "webp"), ("tif", "tiff"), ("gif", "gif"), ("bmp", "bmp")];
    let (_, extension) = name.rsplit_once('.').unwrap();
    let (_, format) = extensions.iter().find(|(end, _)| *end == extension).unwrap();
    Matrix::of(format).pictures.remove(name).unwrap()
}

/// A file of the matrix with other bytes from `at` on.
fn with(name: &str, changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = file(name);
    for (at, new) in changes {
        bytes[*at..at + new.len()].copy_from_slice(new);
    }
    bytes
}

/// What a decoder may need for its tables, whatever the image.
const TABLES: usize = 4 << 20;

#[track_caller]
fn check_too_large(bytes: &[u8]) {
    let taken = taken(bytes, 3);
    let error = taken.result.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert!(error.hint().is_some());
    assert!(taken.bytes < TABLES, "{} bytes: {error}", taken.bytes);
}

/// Checks that a file is refused without much memory, whoever sees first that it is too large.
#[track_caller]
fn check_refused(bytes: &[u8]) {
    let taken = taken(bytes, 3);
    let error = taken.result.unwrap_err();
    assert!(taken.bytes < TABLES + 8 * bytes.len(), "{} bytes: {error}", taken.bytes);
}

/// Checks that a file is refused, or read, without much memory.
#[track_caller]
fn check_small(bytes: &[u8]) {
    let taken = taken(bytes, 3);
    let length = bytes.len();
    assert!(taken.bytes < TABLES + 8 * length, "{} bytes for {length}: {:?}", taken.bytes, taken.result.err());
}

/// A PNG chunk.
fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut checksum = flate2::Crc::new();
    checksum.update(kind);
    checksum.update(content);
    [&(content.len() as u32).to_be_bytes()[..], kind, content, &checksum.sum().to_be_bytes()].concat()
}

#[test]
fn jpeg_headers_are_checked_before_memory_is_taken() {
    for name in ["420_baseline.jpg", "420_progressive.jpg", "cmyk_adobe.jpg", "gray_baseline.jpg"] {
        let bytes = file(name);
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0] || pair == [0xff, 0xc2]).unwrap();
        check_too_large(&with(name, &[(frame + 5, &[0xff, 0xdc, 0xff, 0xdc])]));
    }
}

#[test]
fn jpegs_of_very_many_scans_are_refused() {
    let bytes = file("420_progressive.jpg");
    // the last scan once more, over and over
    let scan = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
    let many = [&bytes[..scan], &bytes[scan..bytes.len() - 2].repeat(100), &[0xff, 0xd9]].concat();
    let message = taken(&many, 3).result.unwrap_err().to_string();
    assert!(message.contains("scans, more than 100"), "{message}");
}

#[test]
fn png_headers_are_checked_before_memory_is_taken() {
    let bytes = file("rgb_8.png");
    let header = |width: u32, height: u32| {
        let content = [&width.to_be_bytes()[..], &height.to_be_bytes(), &bytes[24..29]].concat();
        [&bytes[..8], &chunk(b"IHDR", &content), &bytes[33..]].concat()
    };
    check_refused(&header(0x7fff_ffff, 0x7fff_ffff));
    check_too_large(&header(13_378, 13_378));
    check_refused(&header(0x7fff_ffff, 1));
    // texts and profiles of which a kilobyte becomes a megabyte: the reader bounds them by the limit of an image
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b' '; 64 << 20]).unwrap();
    let bomb = encoder.finish().unwrap();
    for (kind, start) in [
        (b"zTXt", b"Comment\0\0".as_slice()),
        (b"iCCP", b"profile\0\0".as_slice()),
        (b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0".as_slice()),
    ] {
        let content = [start, &bomb].concat();
        let bytes = [&bytes[..33], &chunk(kind, &content), &bytes[33..]].concat();
        assert!(taken(&bytes, 3).bytes <= MAX_BYTES as usize, "{}", kind.escape_ascii());
    }
    // a chunk that claims two gigabytes
    check_small(&[&bytes[..33], &[0x7f, 0xff, 0xff, 0xff], b"eXIf", &bytes[33..]].concat());
}

#[test]
fn webp_chunks_that_end_behind_the_file_take_no_memory() {
    let whole = file("orientation_3.webp");
    let exif = whole.windows(4).position(|name| name == b"EXIF").unwrap();
    for length in [[0xff, 0xff, 0xff, 0xab], [0xff, 0xff, 0, 0]] {
        check_refused(&with("orientation_3.webp", &[(exif + 4, &length)]));
    }
    assert!(taken(&whole, 3).result.is_ok());
}

#[test]
fn webp_headers_are_checked_before_memory_is_taken() {
    // the sizes less one of a lossless image, 14 bits each
    check_refused(&with("lossless_17x13.webp", &[(21, &[0xff, 0xff, 0xff, 0x0f])]));
    let lossy = file("lossy_17x13.webp");
    let start = lossy.windows(3).position(|bytes| bytes == [0x9d, 0x01, 0x2a]).unwrap();
    let large = with("lossy_17x13.webp", &[(start + 3, &[0xff, 0x3f, 0xff, 0x3f])]);
    check_refused(&large);
    // a canvas of 24 bits a side, and a frame that is larger than its canvas
    check_refused(&with("animated.webp", &[(24, &[0xff; 6])]));
    let animated = file("animated.webp");
    let frame = animated.windows(4).position(|bytes| bytes == b"ANMF").unwrap();
    check_small(&with("animated.webp", &[(frame + 14, &[0xff, 0x3f, 0, 0xff, 0x3f, 0])]));
}

#[test]
fn gif_headers_are_checked_before_memory_is_taken() {
    check_too_large(&with("colors_16.gif", &[(6, &[0xff; 4])]));
    let bytes = file("colors_16.gif");
    let frame = 13 + 3 * 16;
    assert_eq!(bytes[frame], b',');
    check_small(&with("colors_16.gif", &[(frame + 5, &[0xff; 4])]));
}

#[test]
fn bmp_headers_are_checked_before_memory_is_taken() {
    let largest = i32::MAX.to_le_bytes();
    for name in ["rgb_24_17x13.bmp", "indexed_8_17x13.bmp", "rle8.bmp", "rgb_32.bmp"] {
        check_too_large(&with(name, &[(18, &[0, 0x80, 0, 0, 0, 0x80, 0, 0])]));
        check_small(&with(name, &[(18, &largest), (22, &largest)]));
        check_small(&with(name, &[(18, &i32::MIN.to_le_bytes())]));
        check_small(&with(name, &[(22, &i32::MIN.to_le_bytes())]));
        // the number of colors
        check_small(&with(name, &[(46, &[0xff; 4])]));
    }
}

#[test]
fn tiff_headers_are_checked_before_memory_is_taken() {
    /// Changes the value and, if given, the count of an entry.
    fn entry(name: &str, tag: u16, value: u32, count: Option<u32>) -> Vec<u8> {
        let mut bytes = file(name);
        let directory = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
        let entries = usize::from(u16::from_le_bytes(bytes[directory..directory + 2].try_into().unwrap()));
        let starts = (0..entries).map(|index| directory + 2 + 12 * index);
        let at = starts.into_iter().find(|at| bytes[*at..*at + 2] == tag.to_le_bytes()).unwrap();
        if let Some(count) = count {
            bytes[at + 4..at + 8].copy_from_slice(&count.to_le_bytes());
        } else {
            bytes[at + 2..at + 4].copy_from_slice(&4_u16.to_le_bytes()); // a number of 32 bits
        }
        bytes[at + 8..at + 12].copy_from_slice(&value.to_le_bytes());
        bytes
    }
    let [width, height, offsets, lengths, colors, tile_width] = [256, 257, 273, 279, 320, 322];
    check_refused(&entry("rgb_8_plain.tif", width, u32::MAX, None));
    check_refused(&entry("rgb_8_plain.tif", height, u32::MAX, None));
    check_refused(&entry("gray_16_lzw.tif", width, 1 << 30, None));
    check_refused(&entry("rgb_8_tiles_lzw.tif", height, 1 << 30, None));
    for side in [1 << 16, 1 << 20, u32::MAX] {
        check_small(&entry("rgb_8_tiles_lzw.tif", tile_width, side, None));
        check_small(&entry("gray_8_tiles.tif", tile_width, side, None));
    }
    check_small(&entry("palette_8.tif", colors, 0, Some(u32::MAX)));
    check_small(&entry("rgb_8_plain.tif", offsets, 0, Some(u32::MAX)));
    check_small(&entry("rgb_8_lzw.tif", lengths, 0, Some(1 << 28)));
}

#[test]
fn array_headers_are_checked_before_memory_is_taken() {
    let start = b"\x93NUMPY\x02\x00";
    check_small(&[&start[..], &u32::MAX.to_le_bytes(), b"{'descr': '|u1'"].concat());
    check_small(&[&start[..], &(1_u32 << 30).to_le_bytes(), b"{'descr': '|u1'"].concat());
}
