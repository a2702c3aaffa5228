//! Decodes JPEG files (ITU-T T.81) by libjpeg-turbo's code, as Pillow and torchvision do, and refuses those that are cut
//! short.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mozjpeg::decompress::{Decompress, DecompressBuilder, DecompressStarted, Format};
use mozjpeg_sys as _; // for its feature of arithmetic coding

use super::{check_size, cmyk, orientation};
use crate::error::{Error, Result, panic_message};
use crate::image::{Image, Pixels};

/// Decodes a JPEG, which will be converted to `wanted` channels, at the size that `reduction` says for the height and width
/// of the upright image.
///
/// # Errors
///
/// [`Error::Decode`], [`Error::TruncatedJpeg`] or [`Error::TooLarge`], with `name`.
pub(super) fn picture(
    bytes: &[u8],
    name: &str,
    wanted: usize,
    reduction: &mut dyn FnMut(usize, usize) -> usize,
) -> Result<Image> {
    let markers = Markers::of(bytes);
    let orientation = orientation::of(markers.exif, markers.xmp);
    let mut reduction = |[height, width]: [usize; 2]| {
        let [height, width] = orientation::upright_size([height, width], orientation);
        reduction(height, width)
    };
    let image = safely(bytes, &markers, name, |bytes| decoded(bytes, name, wanted, &mut reduction))?;
    Ok(orientation::upright(image, orientation))
}

/// Calls `decode` on the bytes of a file that libjpeg can decode safely.
fn safely(
    bytes: &[u8],
    markers: &Markers<'_>,
    name: &str,
    decode: impl FnOnce(Bytes<'_>) -> Result<Image>,
) -> Result<Image> {
    let refused = |reason: String| Error::Decode { name: name.to_owned(), reason };
    let cut_short = || Error::TruncatedJpeg { name: name.to_owned(), length: bytes.len() };
    if markers.hides_another {
        return Err(cut_short());
    }
    if markers.scans > MOST_SCANS {
        return Err(refused(format!("it has {} scans, more than {MOST_SCANS}", markers.scans)));
    }
    let is_over = Cell::new(false);
    let bytes_left = Bytes { rest: bytes, is_over: &is_over };
    // libjpeg reports a broken file by unwinding, and prints nothing
    match catch_unwind(AssertUnwindSafe(|| decode(bytes_left))) {
        Ok(Ok(image)) => Ok(image),
        // it has asked for bytes behind the end of the file
        _ if is_over.get() => Err(cut_short()),
        Ok(Err(error)) => Err(error),
        Err(payload) => Err(refused(panic_message(&*payload).replace("libjpeg fatal error: ", ""))),
    }
}

/// What the samples of a JPEG within another file are, which then says so itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colors {
    /// Those that are wanted, whatever they are.
    AsTheyAre,
    /// Brightness and differences, which become red, green and blue.
    LumaChroma,
}

impl Colors {
    /// Adobe's segment, by which libjpeg knows it (Adobe's technical note 5116, section 18).
    pub(super) const fn segment(self) -> &'static [u8] {
        match self {
            Self::AsTheyAre => b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0",
            Self::LumaChroma => b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x01",
        }
    }
}

/// The first bytes of a file.
pub(super) const START: &[u8] = &[MARKER, START_OF_IMAGE];
/// The last bytes of a file.
pub(super) const END: &[u8] = &[MARKER, END_OF_IMAGE];

/// Decodes the samples of a JPEG within another file, whose `tables` may stand apart. It must have this width and at least
/// this height.
///
/// # Errors
///
/// Those of [`picture`].
pub(super) fn samples(
    part: &[u8],
    tables: &[u8],
    colors: Colors,
    [height, width]: [usize; 2],
    name: &str,
) -> Result<Image> {
    let part = part.strip_prefix(START).unwrap_or(part);
    let mut file = [START, colors.segment(), tables, part].concat();
    if colors == Colors::AsTheyAre {
        // JFIF's segment would say that they are brightness and differences
        let start = file.len().min(1024);
        if let Some(at) = file[..start].windows(JFIF.len()).position(|bytes| bytes == JFIF) {
            file[at] = b'-';
        }
    }
    let markers = Markers::of(&file);
    match markers.size {
        Some([rows, columns]) if columns == width && rows >= height => {}
        Some([rows, columns]) => {
            let reason = format!("a part of it has {rows} by {columns} pixels, expected {height} by {width}");
            return Err(Error::Decode { name: name.to_owned(), reason });
        }
        None => return Err(no_size(name)),
    }
    safely(&file, &markers, name, |bytes| {
        let failed = |cause: io::Error| Error::Decode { name: name.to_owned(), reason: cause.to_string() };
        let decoder: Decompress<_> = DecompressBuilder::new().from_reader(bytes).map_err(failed)?;
        let (width, height) = decoder.size();
        let (channels, pixels) = match decoder.image().map_err(failed)? {
            Format::Gray(started) => (1, values(started).map_err(failed)?),
            Format::RGB(started) => (3, values(started).map_err(failed)?),
            Format::CMYK(started) => (4, values(started).map_err(failed)?),
        };
        Ok(Image { channels, height, width, pixels: Pixels::U8(pixels) })
    })
}

/// Height and width of the upright image.
///
/// # Errors
///
/// [`Error::Decode`] with `name`.
pub(super) fn size(bytes: &[u8], name: &str) -> Result<[usize; 2]> {
    let markers = Markers::of(bytes);
    let size = markers.size.ok_or_else(|| no_size(name))?;
    Ok(orientation::upright_size(size, orientation::of(markers.exif, markers.xmp)))
}

fn no_size(name: &str) -> Error {
    Error::Decode { name: name.to_owned(), reason: "it does not say its size".to_owned() }
}

/// Each scan takes time for every block of the image, whatever is in it, so a small file could keep a decoder busy for
/// hours (<https://libjpeg-turbo.org/pmwiki/uploads/About/TwoIssueswiththeJPEGStandard.pdf>). Progressive files have
/// about ten.
const MOST_SCANS: usize = 100;

fn decoded(
    bytes: Bytes<'_>,
    name: &str,
    wanted: usize,
    reduction: &mut dyn FnMut([usize; 2]) -> usize,
) -> Result<Image> {
    let failed = |cause: io::Error| Error::Decode { name: name.to_owned(), reason: cause.to_string() };
    let mut decoder: Decompress<_> = DecompressBuilder::new().from_reader(bytes).map_err(failed)?;
    let (width, height) = decoder.size();
    check_size([height, width], wanted.max(decoder.components().len()), 1, name)?;
    let reduction = reduction([height, width]);
    decoder.scale((8 / reduction) as u8);
    let [height, width] = [height, width].map(|side| side.div_ceil(reduction));
    let (channels, pixels) = match decoder.image().map_err(failed)? {
        Format::Gray(started) => (1, values(started).map_err(failed)?),
        Format::RGB(started) => (3, values(started).map_err(failed)?),
        // inks are stored inverted, by Adobe's convention. There are files without a sign of it, and Pillow takes all of
        // them to follow it
        Format::CMYK(started) => {
            let inverted = values(started).map_err(failed)?;
            (3, cmyk::to_rgb(&inverted.into_iter().map(|value| 255 - value).collect::<Vec<_>>()))
        }
    };
    Ok(Image { channels, height, width, pixels: Pixels::U8(pixels) })
}

fn values(mut started: DecompressStarted<Bytes<'_>>) -> io::Result<Vec<u8>> {
    started.read_scanlines()
}

/// The bytes of a file. To read behind their end is an error, where libjpeg would take it for the end of the image and
/// make the missing part gray.
struct Bytes<'a> {
    rest: &'a [u8],
    /// Set by an attempt to read behind the end.
    is_over: &'a Cell<bool>,
}

impl BufRead for Bytes<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() {
            self.is_over.set(true);
            return Err(io::Error::other("the file is cut short"));
        }
        Ok(self.rest)
    }

    fn consume(&mut self, amount: usize) {
        self.rest = &self.rest[amount..];
    }
}

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let amount = self.fill_buf()?.read(buffer)?;
        self.consume(amount);
        Ok(amount)
    }
}

const MARKER: u8 = 0xff;
const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;
const APPLICATION_1: u8 = 0xe1;
const JFIF: &[u8] = b"JFIF\0";

/// What the markers of a file say that libjpeg does not.
#[derive(Default)]
struct Markers<'a> {
    exif: Option<&'a [u8]>,
    xmp: Option<&'a [u8]>,
    scans: usize,
    /// Height and width, as they are stored.
    size: Option<[usize; 2]>,
    /// Whether another JPEG starts before the end of this one: then the file was cut short and written over.
    hides_another: bool,
}

impl<'a> Markers<'a> {
    /// Reads the markers up to the end of the image or of the file.
    ///
    /// It skips whole segments of tables and application data, because these may contain a thumbnail, which is a JPEG
    /// with markers of its own.
    fn of(bytes: &'a [u8]) -> Self {
        let mut found = Self::default();
        let mut rest = bytes.get(2..).unwrap_or_default();
        // where the data of a scan has the value of MARKER, a 0 follows, so no data is taken for a marker
        while let Some(at) = memchr::memchr(MARKER, rest) {
            rest = &rest[at + 1..];
            let Some(kind) = rest.first() else { break };
            match *kind {
                END_OF_IMAGE => break,
                START_OF_IMAGE if found.scans > 0 => {
                    found.hides_another = true;
                    break;
                }
                // no segment follows stuffing, fill bytes, restarts and the start of an image
                0x00 | 0x01 | 0xd0..=0xd8 | MARKER => continue,
                _ => {}
            }
            let Some((content, after)) = segment(&rest[1..]) else { break };
            rest = after;
            match *kind {
                START_OF_SCAN => found.scans += 1,
                // a frame begins with the number of bits of a sample, its height and its width; three numbers are tables
                0xc0..=0xcf if ![0xc4, 0xc8, 0xcc].contains(kind) => {
                    if let [_, a, b, c, d, ..] = *content {
                        found.size = found
                            .size
                            .or(Some([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])].map(usize::from)));
                    }
                }
                APPLICATION_1 if found.scans == 0 => {
                    let after = |start: &[u8]| content.strip_prefix(start);
                    found.exif = found.exif.or_else(|| after(b"Exif\0\0"));
                    found.xmp = found.xmp.or_else(|| after(b"http://ns.adobe.com/xap/1.0/\0"));
                }
                _ => {}
            }
        }
        found
    }
}

/// Splits off a segment, where `bytes` starts with the length of the segment in two bytes.
fn segment(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]);
    let (segment, after) = bytes.split_at_checked(usize::from(length))?;
    Some((segment.get(2..)?, after))
}
