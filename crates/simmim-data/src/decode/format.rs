//! Recognizes file formats by the first bytes: those that are decoded, and those that are refused by name.

use std::io::Cursor;

use ::image::ImageFormat;

#[cfg(feature = "dicom")]
use super::dicom;
use super::{Decoding, gif, jpeg, npy, picture, tiff};
use crate::error::{Error, Result};
use crate::image::{Depth, Image, Pixels};

/// A format that is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    Tiff,
    Npy,
    Dicom,
}

impl Format {
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'B', b'M', ..] => Some(Self::Bmp),
            // 43 instead of 42 is BigTIFF, with offsets of 64 bits
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some(Self::Tiff),
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(Self::Npy),
            // the bytes before it are free, so it is looked for after all others
            _ => (bytes.get(128..132) == Some(b"DICM".as_slice())).then_some(Self::Dicom),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG files",
            Self::Png => "PNG files",
            Self::WebP => "WebP files",
            Self::Gif => "GIF files",
            Self::Bmp => "BMP files",
            Self::Tiff => "TIFF files",
            Self::Npy => "arrays",
            Self::Dicom => "DICOM files",
        }
    }

    /// Decodes an image, and says what its values are in the file.
    pub(super) fn decode(
        self,
        bytes: &[u8],
        name: &str,
        decoding: Decoding,
        reduction: &mut dyn FnMut(usize, usize) -> usize,
    ) -> Result<(Image, Depth)> {
        let Decoding { channels, window } = decoding;
        if window.is_some() && self != Self::Dicom {
            return Err(Error::NoWindow { name: name.to_owned() });
        }
        let image = match self {
            Self::Jpeg => jpeg::picture(bytes, name, channels, reduction)?,
            Self::Png => picture::decode(bytes, name, ImageFormat::Png, channels)?,
            Self::WebP => picture::decode(bytes, name, ImageFormat::WebP, channels)?,
            Self::Gif => gif::picture(bytes, name, channels)?,
            Self::Bmp => picture::decode(bytes, name, ImageFormat::Bmp, channels)?,
            Self::Tiff => return tiff::picture(bytes, name, channels),
            Self::Npy => return npy::array(bytes, name, channels),
            #[cfg(feature = "dicom")]
            Self::Dicom => dicom::picture(bytes, name, decoding)?,
            #[cfg(not(feature = "dicom"))]
            Self::Dicom => return Err(Error::LeftOut { path: name.into(), feature: "dicom" }),
        };
        // these formats have no floats
        let depth = match image.pixels {
            Pixels::U8(_) => Depth::Bits8,
            Pixels::F32(_) => Depth::Bits16,
        };
        Ok((image, depth))
    }
}

impl Format {
    /// Height and width from the header; `None` where it is not read alone.
    pub(super) fn size(self, bytes: &[u8], name: &str) -> Result<Option<[usize; 2]>> {
        match self {
            Self::Jpeg => jpeg::size(bytes, name).map(Some),
            Self::Png => picture::size(bytes, name, ImageFormat::Png).map(Some),
            Self::WebP => picture::size(bytes, name, ImageFormat::WebP).map(Some),
            Self::Bmp => picture::size(bytes, name, ImageFormat::Bmp).map(Some),
            Self::Tiff => tiff::size(Cursor::new(bytes), name).map(Some),
            Self::Gif | Self::Npy | Self::Dicom => Ok(None),
        }
    }
}

/// Returns the error for bytes in no format that is decoded.
pub(super) fn unknown(bytes: &[u8], name: &str) -> Error {
    match unread(bytes) {
        Some(format) => Error::UnreadFormat { name: name.to_owned(), format },
        None => Error::UnknownFormat { name: name.to_owned(), start: bytes[..bytes.len().min(4)].to_vec() },
    }
}

/// Names what a file is that often lies among pictures.
fn unread(bytes: &[u8]) -> Option<&'static str> {
    let brand = bytes.get(8..12).filter(|_| bytes.get(4..8) == Some(b"ftyp".as_slice()));
    match brand {
        Some(b"avif" | b"avis") => return Some("an AVIF image"),
        Some(b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1") => return Some("a HEIC image"),
        Some(b"crx ") => return Some("a raw image of a camera"),
        Some(_) => return Some("a video"),
        None => {}
    }
    const NAMES: &[(&[u8], &str)] = &[
        (b"\xff\x0a", "a JPEG XL image"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
        (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
        (b"8BPS", "a Photoshop document"),
        (b"\0\0\x01\0", "a Windows icon"),
        (b"\x76\x2f\x31\x01", "an OpenEXR image"),
        (b"#?RADIANCE", "a Radiance HDR image"),
        (b"DDS ", "a DirectDraw surface"),
        (b"qoif", "a QOI image"),
        (b"SIMPLE  =", "a FITS image"),
        (b"\x89HDF", "an HDF5 file"),
        (b"%PDF", "a PDF document"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip file"),
        (b"P1", "a PBM image"),
        (b"P2", "a PGM image"),
        (b"P3", "a PPM image"),
        (b"P4", "a PBM image"),
        (b"P5", "a PGM image"),
        (b"P6", "a PPM image"),
    ];
    if let Some((_, format)) = NAMES.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Some(*format);
    }
    // text: a byte order mark, white space and comments may stand before the first element
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]).to_ascii_lowercase();
    let text = text.trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace());
    if text.starts_with("<!doctype html") || text.starts_with("<html") {
        return Some("a web page");
    }
    (text.starts_with('<') && text.contains("<svg")).then_some("an SVG drawing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(start: &[u8], expected: Option<&str>) {
        assert_eq!(unread(start), expected, "{}", start.escape_ascii());
        assert_eq!(Format::of(start), None);
    }

    #[test]
    fn what_often_lies_among_pictures_is_named() {
        check(b"\0\0\0\x20ftypavif", Some("an AVIF image"));
        check(b"\0\0\0\x18ftypheic\0\0\0\0", Some("a HEIC image"));
        check(b"\0\0\0\x18ftypmif1", Some("a HEIC image"));
        check(b"\0\0\0\x18ftypisom", Some("a video"));
        check(b"\xff\x0a\0", Some("a JPEG XL image"));
        check(b"\0\0\0\x0cJXL \r\n", Some("a JPEG XL image"));
        check(b"\0\0\0\x0cjP  \r\n", Some("a JPEG 2000 image"));
        check(b"8BPS\0\x01", Some("a Photoshop document"));
        check(b"<svg xmlns=", Some("an SVG drawing"));
        check(b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- c -->\n<SVG>", Some("an SVG drawing"));
        check(b"<?xml version='1.0'?><plist>", None);
        check(b"\n<!DOCTYPE html><svg>", Some("a web page"));
        check(b"", None);
        check(b"hello", None);
    }
}
