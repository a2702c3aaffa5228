//! Random access to a gzip file: its decompressed bytes as a storage.
//!
//! Gzip (RFC 1952) can only be read from the beginning. While an archive is indexed, the state of the decompressor is kept
//! at points of a regular distance, and a read begins at the point before it: the idea of `zran.c` by Mark Adler
//! (<https://github.com/madler/zlib>, `examples/zran.c`). Nothing is unpacked to disk.

use std::io::{self, BufRead as _, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::Crc;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags::TINFL_FLAG_HAS_MORE_INPUT};

use super::storage::{Reader, Storage, checked};
use super::tar::Stream;
use crate::error::Result;

/// Decompressed bytes between two points. A point takes 43 KB: the state and the window of deflate.
const DISTANCE: u64 = 2 << 20;

/// A file has at most this many points, 180 MB; for a larger one the distance doubles.
const MAX_POINTS: usize = 4096;

/// Deflate refers back by at most this many bytes (RFC 1951).
const WINDOW: usize = 32 << 10;

/// The decompressed bytes of a gzip file.
pub(super) struct Gzip {
    file: Arc<dyn Storage>,
    len: u64,
    points: Vec<Decoder>,
    /// A decoder where the last read ended, because the next one often begins there.
    last: Mutex<Option<Decoder>>,
}

impl Storage for Gzip {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let length = checked(&range, self.len)?;
        let after = self.points.partition_point(|point| point.position <= range.start);
        let point = &self.points[after.saturating_sub(1)];
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_nearer = |last: &Decoder| (point.position..=range.start).contains(&last.position);
        let mut decoder = last.filter(is_nearer).unwrap_or_else(|| point.copied());
        let mut input = Reader::at(Arc::clone(&self.file), decoder.input);
        decoder.skip(&mut input, range.start - decoder.position)?;
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let part = decoder.produced(&mut input)?;
            if part.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let count = part.len().min(length - bytes.len());
            bytes.extend_from_slice(&part[..count]);
            decoder.consume(count);
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(decoder);
        Ok(bytes)
    }

    fn beside(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.file.beside(name)
    }
}

/// Decompresses a file once from its beginning, and keeps the points on the way.
pub(super) struct Indexer {
    file: Arc<dyn Storage>,
    input: Reader,
    decoder: Decoder,
    points: Vec<Decoder>,
    distance: u64,
}

impl Indexer {
    pub(super) fn new(file: Arc<dyn Storage>) -> Self {
        let decoder = Decoder { crc: Some(Crc::new()), ..Decoder::new() };
        let input = Reader::new(Arc::clone(&file));
        Self { file, input, decoder, points: vec![Decoder::new()], distance: DISTANCE }
    }

    /// Reads the rest of the file.
    ///
    /// # Errors
    ///
    /// If the file is damaged, or the system does not read it.
    pub(super) fn finish(mut self) -> io::Result<Gzip> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Gzip { file: self.file, len: self.decoder.position, points: self.points, last: Mutex::new(None) })
    }

    fn keep_point(&mut self) {
        let last = self.points.last().map_or(0, |point| point.position);
        if self.decoder.position - last < self.distance || !self.decoder.is_within_member {
            return;
        }
        if self.points.len() == MAX_POINTS {
            let mut number = 0;
            self.points.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.distance *= 2;
        }
        self.points.push(self.decoder.copied());
    }
}

impl Read for Indexer {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.decoder.pending.is_empty() {
            self.keep_point();
        }
        let part = self.decoder.produced(&mut self.input)?;
        let count = part.len().min(out.len());
        out[..count].copy_from_slice(&part[..count]);
        self.decoder.consume(count);
        Ok(count)
    }
}

impl Stream for Indexer {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn length(&self) -> u64 {
        self.decoder.position
    }
}

/// The state of decompression at one place.
struct Decoder {
    /// The number of decompressed bytes that were consumed.
    position: u64,
    /// The place in the compressed file.
    input: u64,
    /// Whether the place lies within a member of the file; otherwise a header follows, or the end.
    is_within_member: bool,
    state: Box<DecompressorOxide>,
    window: Box<[u8]>,
    /// The part of the window that is decompressed and not yet consumed.
    pending: Range<usize>,
    /// The checksum of the member so far, if it is computed; reads that begin elsewhere cannot.
    crc: Option<Crc>,
}

impl Decoder {
    fn new() -> Self {
        Self {
            position: 0,
            input: 0,
            is_within_member: false,
            state: Box::default(),
            window: vec![0; WINDOW].into_boxed_slice(),
            pending: 0..0,
            crc: None,
        }
    }

    /// The same state, without a checksum.
    fn copied(&self) -> Self {
        Self {
            position: self.position,
            input: self.input,
            is_within_member: self.is_within_member,
            state: self.state.clone(),
            window: self.window.clone(),
            pending: self.pending.clone(),
            crc: None,
        }
    }

    fn consume(&mut self, count: usize) {
        self.pending.start += count;
        self.position += count as u64;
    }

    fn skip(&mut self, input: &mut Reader, mut bytes: u64) -> io::Result<()> {
        while bytes > 0 {
            let available = self.produced(input)?.len() as u64;
            if available == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.consume(available.min(bytes) as usize);
            bytes -= available.min(bytes);
        }
        Ok(())
    }

    /// The decompressed bytes at hand, after decompressing more if there are none; empty at the end of the file.
    fn produced(&mut self, input: &mut Reader) -> io::Result<&[u8]> {
        while self.pending.is_empty() {
            if !self.is_within_member && !self.header(input)? {
                break;
            }
            let out = self.pending.end % WINDOW;
            let available = input.fill_buf()?;
            let flags = if available.is_empty() { 0 } else { TINFL_FLAG_HAS_MORE_INPUT };
            let (status, read, written) = decompress(&mut self.state, available, &mut self.window, out, flags);
            input.consume(read);
            self.pending = out..out + written;
            if let Some(crc) = &mut self.crc {
                crc.update(&self.window[self.pending.clone()]);
            }
            match status {
                TINFLStatus::Done => self.trailer(input)?,
                TINFLStatus::HasMoreOutput | TINFLStatus::NeedsMoreInput => {}
                _ if self.is_cut_short(input)? => return Err(invalid(input, "ends early")),
                _ => return Err(invalid(input, "is damaged")),
            }
            self.input = input.position();
        }
        Ok(&self.window[self.pending.clone()])
    }

    fn is_cut_short(&self, input: &mut Reader) -> io::Result<bool> {
        Ok(input.fill_buf()?.is_empty())
    }

    /// Reads the header of a member; false at the end of the file. As by gzip, bytes behind a member that are no header are
    /// ignored.
    fn header(&mut self, input: &mut Reader) -> io::Result<bool> {
        let is_first = self.position == 0 && input.position() == 0;
        let start = input.position();
        let mut fixed = Vec::new();
        input.by_ref().take(10).read_to_end(&mut fixed)?;
        let [0x1f, 0x8b, 8, flags, _, _, _, _, _, _] = fixed[..] else {
            return if is_first { Err(invalid(input, "does not begin as one")) } else { Ok(false) };
        };
        // RFC 1952, 2.3.1: what the flags announce, in this order
        let [has_crc, has_extra, has_name, has_comment] = [2, 4, 8, 16].map(|flag| flags & flag != 0);
        let ignored = |input: &mut Reader, bytes: u64| io::copy(&mut input.by_ref().take(bytes), &mut io::sink());
        if has_extra {
            let length = [byte(input)?, byte(input)?].map(Option::unwrap_or_default);
            ignored(input, u16::from_le_bytes(length).into())?;
        }
        for _ in 0..usize::from(has_name) + usize::from(has_comment) {
            while !matches!(byte(input)?, None | Some(0)) {
                if input.position() - start > LONGEST_HEADER {
                    return Err(invalid(input, "has a header of more than a mebibyte"));
                }
            }
        }
        if has_crc {
            ignored(input, 2)?;
        }
        (self.is_within_member, self.pending) = (true, 0..0);
        self.state.init();
        self.crc = self.crc.take().map(|_| Crc::new());
        Ok(true)
    }

    /// Reads the checksum and length behind a member.
    fn trailer(&mut self, input: &mut Reader) -> io::Result<()> {
        self.is_within_member = false;
        let mut trailer = Vec::new();
        input.by_ref().take(8).read_to_end(&mut trailer)?;
        let [a, b, c, d, e, f, g, h] = trailer[..] else { return Err(invalid(input, "ends early")) };
        let (crc, length) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        match &self.crc {
            Some(own) if own.sum() != crc || own.amount() != length => {
                Err(invalid(input, "does not have the content that its checksum says"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A header of a member of a gzip file has at most this many bytes; real ones hold a name.
const LONGEST_HEADER: u64 = 1 << 20;

fn byte(input: &mut Reader) -> io::Result<Option<u8>> {
    let mut one = [0];
    Ok((input.read(&mut one)? == 1).then_some(one[0]))
}

fn invalid(input: &Reader, what: &str) -> io::Error {
    let at = input.position();
    io::Error::new(io::ErrorKind::InvalidData, format!("the gzip stream {what} (at byte {at} of the compressed file)"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::storage::testing::InMemory;
    use super::*;

    /// Bytes that deflate makes smaller, but not much.
    fn content(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 & 0x3f
        };
        (0..length).map(|_| next()).collect()
    }

    fn compressed(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn index(bytes: Vec<u8>) -> io::Result<Gzip> {
        Indexer::new(Arc::new(InMemory(bytes))).finish()
    }

    #[test]
    fn any_range_has_the_bytes_of_the_whole() {
        let whole = content(9_000_000);
        // three members, as `bgzip` and `cat` make them, the last two ending between points
        let parts = [&whole[..5_000_000], &whole[5_000_000..5_000_100], &whole[5_000_100..]];
        let gzip = index(parts.map(compressed).concat()).unwrap();
        assert_eq!(gzip.len(), whole.len() as u64);
        assert!(gzip.points.len() >= 4);
        let mut starts: Vec<u64> = (0..40).map(|i| i * 224_999).collect();
        starts.extend([4_999_990, 5_000_050, 0, 8_999_900, 2_097_152, 2_097_151]);
        for start in starts {
            let range = start..(start + 70_000).min(gzip.len());
            assert!(gzip.read(range.clone()).unwrap() == whole[range.start as usize..range.end as usize], "{start}");
        }
        assert_eq!(gzip.read(0..gzip.len() + 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_damaged_file_is_an_error_wherever_it_is_damaged() {
        let whole = compressed(&content(300_000));
        assert!(index(whole.clone()).is_ok());
        for length in [0, 5, 10, 11, 1000, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
            let error = index(whole[..length].to_vec()).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}: {error}");
        }
        for at in (10..whole.len()).step_by(997).chain([0, 1, 2, whole.len() - 1, whole.len() - 5]) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert!(index(damaged).is_err(), "byte {at}");
        }
        // gzip ignores what follows
        assert_eq!(index([&whole[..], &[0; 100]].concat()).unwrap().len(), 300_000);
    }

    #[test]
    fn optional_fields_of_the_header_are_passed() {
        let mut builder = flate2::GzBuilder::new().filename("a.tar").comment("c").extra(vec![1, 2, 3]);
        builder = builder.mtime(7);
        let mut encoder = builder.write(Vec::new(), Compression::fast());
        encoder.write_all(b"hello").unwrap();
        let gzip = index(encoder.finish().unwrap()).unwrap();
        assert_eq!(gzip.read(0..5).unwrap(), b"hello");
    }
}
