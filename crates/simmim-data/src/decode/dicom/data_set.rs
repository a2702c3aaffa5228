//! Reads the data elements of a DICOM data set (PS3.5, chapter 7) where they lie: nothing is copied, and no nesting,
//! however deep, takes memory or stack.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// How the elements of a data set are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    /// Whether each element says the type of its value ("explicit VR").
    pub(super) names_types: bool,
    pub(super) is_big_endian: bool,
}

/// The value of an element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    /// The bytes; those of pixels in fragments are all that follow.
    pub(super) bytes: &'a [u8],
    /// Whether the value is a sequence of items that ends at a mark, and not after a length.
    pub(super) ends_at_mark: bool,
    /// Whether it has the type `OW`, words of 16 bits.
    pub(super) is_of_words: bool,
}

/// The elements of a data set that describe its picture, up to the pixels.
#[derive(Debug)]
pub(super) struct DataSet<'a> {
    values: BTreeMap<u32, Value<'a>>,
    encoding: Encoding,
}

/// The pixels: the last element that is read.
pub(super) const PIXELS: u32 = 0x7fe0_0010;
/// Items of sequences, and the marks at the end of items and of sequences without a length.
const ITEM: u32 = 0xfffe_e000;
const END_OF_ITEM: u32 = 0xfffe_e00d;
const END_OF_SEQUENCE: u32 = 0xfffe_e0dd;
/// Stands for a length where there is none.
const NO_LENGTH: u32 = u32::MAX;

/// The groups of elements that are kept: the file, the picture, what holds for the frames of enhanced objects, the
/// pixels.
const KEPT: &[u32] = &[0x0002, 0x0028, 0x5200, 0x7fe0];

pub(super) const CUT_SHORT: &str = "the file is cut short";

impl<'a> DataSet<'a> {
    /// Reads the elements with tags below `end`, up to the pixels, and returns what follows; the error says what is
    /// wrong.
    pub(super) fn read(bytes: &'a [u8], encoding: Encoding, end: u32) -> Result<(Self, &'a [u8]), &'static str> {
        let (mut values, mut rest) = (BTreeMap::new(), bytes);
        while !rest.is_empty() && encoding.tag(rest).ok_or(CUT_SHORT)? < end {
            let (header, content) = Header::read(rest, encoding).ok_or(CUT_SHORT)?;
            let (length, mark) = match header.length {
                Some(length) => (length, 0),
                None if header.tag == PIXELS => (content.len(), 0),
                None => (marked_length(content, header.inside(encoding)).ok_or(CUT_SHORT)?, MARK),
            };
            let (value, after) = content.split_at_checked(length).ok_or(CUT_SHORT)?;
            if KEPT.contains(&(header.tag >> 16)) {
                let (ends_at_mark, is_of_words) = (header.length.is_none(), header.kind == *b"OW");
                values.insert(header.tag, Value { bytes: value, ends_at_mark, is_of_words });
            }
            rest = &after[mark..];
            if header.tag == PIXELS {
                break;
            }
        }
        Ok((Self { values, encoding }, rest))
    }

    pub(super) fn value(&self, tag: u32) -> Option<Value<'a>> {
        self.values.get(&tag).copied().filter(|value| !value.bytes.is_empty())
    }

    /// Returns the first `count` words of 16 bits of a value; `None` if it has fewer.
    pub(super) fn words(&self, tag: u32, count: usize) -> Option<Vec<u16>> {
        let words = self.value(tag)?.bytes.as_chunks::<2>().0.get(..count)?;
        Some(words.iter().map(|word| self.encoding.u16(*word)).collect())
    }

    /// Returns a value of bytes. Where it is stored in words, the lower half of a word is the first byte.
    pub(super) fn bytes(&self, tag: u32) -> Option<Cow<'a, [u8]>> {
        let value = self.value(tag)?;
        if !(value.is_of_words && self.encoding.is_big_endian) {
            return Some(Cow::Borrowed(value.bytes));
        }
        let words = value.bytes.as_chunks::<2>().0;
        Some(Cow::Owned(words.iter().flat_map(|[high, low]| [*low, *high]).collect()))
    }

    /// Returns the first word of a value.
    pub(super) fn word(&self, tag: u32) -> Option<u16> {
        Some(self.encoding.u16(*self.value(tag)?.bytes.first_chunk()?))
    }

    /// Returns the first text of a value, without the spaces and zeros that fill it.
    pub(super) fn text(&self, tag: u32) -> Option<&'a str> {
        let text = std::str::from_utf8(self.value(tag)?.bytes).ok()?;
        let first = text.split('\\').next().unwrap_or_default();
        Some(first.trim_matches(|c: char| c == '\0' || c.is_whitespace())).filter(|text| !text.is_empty())
    }

    /// Returns the first number of a value that is written as text; the error is a text that is no number.
    pub(super) fn number(&self, tag: u32) -> Result<Option<f64>, &'a str> {
        let Some(text) = self.text(tag) else { return Ok(None) };
        text.parse().ok().filter(|number: &f64| number.is_finite()).map(Some).ok_or(text)
    }

    /// Returns the first item of a sequence.
    pub(super) fn first_item(&self, tag: u32) -> Option<DataSet<'a>> {
        let (header, content) = Header::read(self.value(tag)?.bytes, self.encoding)?;
        let length = match header.length {
            Some(length) => length,
            None => marked_length(content, self.encoding)?,
        };
        let item = content.get(..length).filter(|_| header.tag == ITEM)?;
        Some(DataSet::read(item, self.encoding, u32::MAX).ok()?.0)
    }

    /// Returns the data set with the item of another in place of its own elements where the item has them.
    pub(super) fn overlaid(mut self, item: DataSet<'a>) -> Self {
        self.values.extend(item.values);
        self
    }
}

/// Splits pixels that are stored in fragments into these; `None` if the file is cut short. The first one is the table
/// of where frames start.
pub(super) fn fragments(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fragments = Vec::new();
    loop {
        // compressed pixels are always in this encoding (PS3.5, A.4)
        let (header, content) = Header::read(bytes, Encoding { names_types: true, is_big_endian: false })?;
        match (header.tag, header.length) {
            (ITEM, Some(length)) => {
                let (fragment, after) = content.split_at_checked(length)?;
                fragments.push(fragment);
                bytes = after;
            }
            (END_OF_SEQUENCE, _) => return Some(fragments),
            _ => return None,
        }
    }
}

impl Encoding {
    pub(super) fn u16(self, bytes: [u8; 2]) -> u16 {
        if self.is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    /// Returns the tag of the first element, its group in the upper half.
    fn tag(self, bytes: &[u8]) -> Option<u32> {
        let [group, element] = [bytes.first_chunk()?, bytes.get(2..)?.first_chunk()?];
        Some(u32::from(self.u16(*group)) << 16 | u32::from(self.u16(*element)))
    }
}

/// What stands before the value of an element.
struct Header {
    tag: u32,
    /// The type of the value in two letters, or zeros.
    kind: [u8; 2],
    /// The length of the value in bytes; `None` if it ends at a mark.
    length: Option<usize>,
}

/// The length of a mark, which is an element without a type and with length 0.
const MARK: usize = 8;

impl Header {
    /// Splits it off.
    fn read(bytes: &[u8], encoding: Encoding) -> Option<(Self, &[u8])> {
        /// Types that have a length of 32 bits (PS3.5, table 7.1-1).
        const LONG: [&[u8; 2]; 13] =
            [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];
        let tag = encoding.tag(bytes)?;
        let is_of_sequence = [ITEM, END_OF_ITEM, END_OF_SEQUENCE].contains(&tag);
        let (kind, length, content) = if is_of_sequence || !encoding.names_types {
            ([0; 2], encoding.u32(*bytes.get(4..)?.first_chunk()?), bytes.get(8..)?)
        } else {
            let kind = *bytes.get(4..)?.first_chunk::<2>()?;
            if LONG.contains(&&kind) {
                (kind, encoding.u32(*bytes.get(8..)?.first_chunk()?), bytes.get(12..)?)
            } else {
                (kind, encoding.u16(*bytes.get(6..)?.first_chunk()?).into(), bytes.get(8..)?)
            }
        };
        let length = if length == NO_LENGTH { None } else { Some(usize::try_from(length).ok()?) };
        Some((Self { tag, kind, length }, content))
    }

    /// Returns how elements within this one are written: those of unknown type do not name types (PS3.5, 6.2.2).
    fn inside(&self, encoding: Encoding) -> Encoding {
        match &self.kind {
            b"UN" => Encoding { names_types: false, is_big_endian: false },
            _ => encoding,
        }
    }
}

/// Returns the length of a sequence or an item up to the mark at its end, in any depth of others within it.
fn marked_length(content: &[u8], encoding: Encoding) -> Option<usize> {
    let (mut rest, mut depth) = (content, 1_usize);
    // how deep the outermost element of unknown type is, and what holds outside of it
    let mut unknown: Option<(usize, Encoding)> = None;
    let mut current = encoding;
    loop {
        let (header, after) = Header::read(rest, current)?;
        match header.tag {
            END_OF_ITEM | END_OF_SEQUENCE => {
                depth -= 1;
                if depth == 0 {
                    return Some(content.len() - rest.len());
                }
                if let Some((_, outside)) = unknown.take_if(|(at, _)| *at == depth) {
                    current = outside;
                }
                rest = after;
            }
            _ => match header.length {
                Some(length) => rest = after.get(length..)?,
                None => {
                    let inside = header.inside(current);
                    if inside != current {
                        unknown = Some((depth, current));
                        current = inside;
                    }
                    depth += 1;
                    rest = after;
                }
            },
        }
    }
}
