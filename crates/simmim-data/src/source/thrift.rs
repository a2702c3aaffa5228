//! What a structure in Thrift's compact protocol claims, before the reader of Parquet files believes it: a list of booleans takes no
//! bytes there when it is skipped, so that a few bytes may claim hours.
//!
//! The encoding is that of `thrift-compact-protocol.md` in <https://github.com/apache/thrift>.

use std::io::{self, BufRead, Seek, SeekFrom};

/// Types of fields and elements.
const STOP: u8 = 0;
const BOOLEANS: [u8; 2] = [1, 2];
const BYTE: u8 = 3;
const INTEGERS: [u8; 3] = [4, 5, 6];
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LISTS: [u8; 2] = [9, 10];
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

/// Structures within structures; real ones have a tenth of it.
const DEEPEST: usize = 64;

/// Passes over a structure of at most `length` bytes. Returns the integers of its first fields, as far as these are 1, 2, 3 and so on.
///
/// # Errors
///
/// An error of the kind [`io::ErrorKind::InvalidData`] or [`io::ErrorKind::UnexpectedEof`] if it has a collection of booleans,
/// which Parquet has in no header, claims more elements than there are bytes, or ends early.
pub(super) fn pass_over(from: &mut (impl BufRead + Seek), length: u64) -> io::Result<Vec<i64>> {
    structure(&mut Passing { from, left: length }, DEEPEST)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

struct Passing<'a, R> {
    from: &'a mut R,
    left: u64,
}

impl<R: BufRead + Seek> Passing<'_, R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.claim(1)?;
        self.from.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn bytes(&mut self, count: u64) -> io::Result<()> {
        self.claim(count)?;
        self.from.seek(SeekFrom::Current(count as i64)).map(drop)
    }

    /// Takes from the bytes that are left.
    fn claim(&mut self, count: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(count).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(invalid("a number is too long"))
    }

    /// Each element has a byte at least.
    fn count(&mut self, count: u64) -> io::Result<u64> {
        if count > self.left { Err(invalid("a list claims more elements than there are bytes")) } else { Ok(count) }
    }
}

fn structure<R: BufRead + Seek>(from: &mut Passing<'_, R>, depth: usize) -> io::Result<Vec<i64>> {
    let (mut integers, mut are_first) = (Vec::new(), true);
    loop {
        let head = from.byte()?;
        are_first &= head >> 4 == 1 && INTEGERS.contains(&(head & 0xf));
        if head & 0xf == STOP {
            return Ok(integers);
        }
        if are_first {
            let number = from.number()?; // in zigzag: 0, -1, 1, -2
            integers.push((number >> 1) as i64 ^ -((number & 1) as i64));
            continue;
        }
        if head >> 4 == 0 {
            from.number()?; // the number of the field, where it is not told by the one before
        }
        // a boolean field is its type
        if !BOOLEANS.contains(&(head & 0xf)) {
            value(from, head & 0xf, depth)?;
        }
    }
}

fn value<R: BufRead + Seek>(from: &mut Passing<'_, R>, kind: u8, depth: usize) -> io::Result<()> {
    let deeper = depth.checked_sub(1).ok_or_else(|| invalid("structures lie too deep in each other"))?;
    match kind {
        BYTE => from.bytes(1),
        kind if INTEGERS.contains(&kind) => from.number().map(drop),
        DOUBLE => from.bytes(8),
        BINARY => {
            let length = from.number()?;
            from.bytes(length)
        }
        kind if LISTS.contains(&kind) => {
            let head = from.byte()?;
            let count = if head >> 4 == 15 { from.number()? } else { u64::from(head >> 4) };
            let count = from.count(count)?;
            (0..count).try_for_each(|_| value(from, head & 0xf, deeper))
        }
        MAP => {
            let count = from.number()?;
            let count = from.count(count)?;
            let kinds = if count > 0 { from.byte()? } else { 0 };
            (0..count).try_for_each(|_| {
                value(from, kinds >> 4, deeper)?;
                value(from, kinds & 0xf, deeper)
            })
        }
        STRUCT => structure(from, deeper).map(drop),
        UUID => from.bytes(16),
        kind if BOOLEANS.contains(&kind) => Err(invalid("a list of booleans is in a header")),
        _ => Err(invalid("an element has an unknown type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Result<(u64, &[i64]), &str>) {
        let mut from = io::Cursor::new(bytes);
        match (pass_over(&mut from, bytes.len() as u64), expected) {
            (Ok(integers), Ok((end, expected))) => {
                assert_eq!((from.position(), integers.as_slice()), (end, expected), "{bytes:x?}");
            }
            (Err(error), Err(what)) => assert!(error.to_string().contains(what), "{bytes:x?}: {error}"),
            (found, expected) => panic!("{bytes:x?}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn structures_are_passed_over_and_claims_beyond_the_bytes_are_refused() {
        // i32 field 1, binary of 3 bytes, a boolean, a list of two doubles, a struct with a byte, a map, then something else
        let whole = [
            [0x15, 0x9a, 0x01, 0x18, 3, 1, 2, 3, 0x11, 0x19, 0x27].as_slice(),
            &[0; 16],
            &[0x1c, 0x13, 9, 0, 0x1b, 1, 0x85, 1, 7, 2, 0x05, 0x28, 4, 0, 0xff],
        ]
        .concat();
        check(&whole, Ok((whole.len() as u64 - 1, &[77])));
        check(&[0x15, 4, 0x15, 0xd0, 0x0f, 0x15, 1, 0x1c, 0x15, 2, 0, 0], Ok((12, &[2, 1000, -1])));
        check(&[0x25, 4, 0x15, 6, 0], Ok((5, &[])));
        for end in 0..whole.len() - 1 {
            assert!(pass_over(&mut io::Cursor::new(&whole[..end]), end as u64).is_err(), "cut to {end} bytes");
        }
        check(&[0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07, 0], Err("more elements than there are bytes"));
        check(&[0x19, 0x11, 1, 0], Err("booleans"));
        check(&[0x1b, 1, 0x12, 1, 1, 0], Err("booleans"));
        check(&[0x1e, 0], Err("unknown type"));
        check(&[0x1c; 100], Err("too deep"));
        check(&[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0], Err("too long"));
    }
}
