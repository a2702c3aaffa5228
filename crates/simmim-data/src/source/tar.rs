//! Walks through the members of a tar file, from storage or from a stream, without reading their content.
//!
//! The format is POSIX `ustar` and `pax` with the extensions of GNU tar (GNU tar manual, "Basic Tar Format").

use std::io::{self, Read, Seek as _, SeekFrom};

use ::tar::{EntryType, Header, PaxExtensions};

use super::storage::Reader;

/// The size of the blocks of a tar file in bytes. A tar file ends with two blocks of zeros; one is accepted, as by GNU
/// tar.
pub(super) const BLOCK: u64 = 512;

/// Names and extended headers are read up to this many bytes; a longer one is no name.
const LONGEST_HEADER: u64 = 1 << 20;

/// Behind the end mark, another archive is looked for in this many bytes. Archives are padded with at most 10 KiB.
const LOOKED_AT_BEHIND_END: u64 = 1 << 20;

/// A stream of bytes in which some can be skipped.
pub(super) trait Stream: Read {
    /// Goes on without reading `bytes` bytes.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if there are fewer bytes left.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;

    /// The number of bytes of the whole stream, as far as it is known. At the end it is known.
    fn length(&self) -> u64;
}

impl<S: Stream> Stream for &mut S {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        (**self).skip(bytes)
    }

    fn length(&self) -> u64 {
        (**self).length()
    }
}

impl Stream for Reader {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let end = self.position().checked_add(bytes).filter(|end| *end <= self.len());
        self.seek(SeekFrom::Start(end.ok_or(io::ErrorKind::UnexpectedEof)?))?;
        Ok(())
    }

    fn length(&self) -> u64 {
        self.len()
    }
}

/// A member of a tar file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) kind: MemberKind,
    /// Where its content begins.
    pub(super) offset: u64,
    /// The length of its content in bytes.
    pub(super) size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberKind {
    File,
    Folder,
    Link,
    /// Anything else, as part of a sentence.
    Other(&'static str),
}

/// Why a tar file is not read on.
#[derive(Debug)]
pub(super) enum Fault {
    /// It ends at byte `length`, within the entry that starts at byte `offset`.
    CutShort { offset: u64, length: u64 },
    /// The entry that starts at byte `offset` is invalid.
    Invalid { offset: u64, what: &'static str },
    /// The system does not read it.
    Read(io::Error),
}

/// Walks through a tar file.
pub(super) struct Members<S> {
    stream: S,
    position: u64,
    /// The bytes from the position to the next header.
    to_next: u64,
    /// Where the entry of the last member starts.
    entry: u64,
    /// Where the archive ended, and whether bytes other than zeros follow.
    end: Option<(u64, bool)>,
}

impl<S: Stream> Members<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, position: 0, to_next: 0, entry: 0, end: None }
    }

    /// Returns the next member; `None` at the end mark.
    pub(super) fn next(&mut self) -> Result<Option<Member>, Fault> {
        if self.end.is_some() {
            return Ok(None);
        }
        self.skip(self.to_next)?;
        self.to_next = 0;
        self.entry = self.position;
        let (mut long_name, mut pax) = (None, Pax::default());
        loop {
            let Some(header) = self.header()? else {
                let end = self.position;
                self.end = Some((end, self.has_more()?));
                return Ok(None);
            };
            let entry_type = header.entry_type();
            let size = header.entry_size().map_err(|_| self.invalid("the size in its header is not a number"))?;
            if entry_type.is_gnu_longname() {
                long_name = Some(self.extended(size)?);
            } else if entry_type.is_pax_local_extensions() {
                pax = Pax::of(&self.extended(size)?);
            } else if entry_type.is_gnu_longlink() || entry_type.is_pax_global_extensions() {
                self.extended(size)?;
            } else {
                let name = long_name.map(|name| until_zero(&name)).or(pax.path);
                let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
                let name = String::from_utf8_lossy(&name).into_owned();
                if entry_type == EntryType::GNUSparse {
                    self.skip_sparse_map(&header)?;
                }
                let (offset, size) = (self.position, pax.size.unwrap_or(size));
                self.to_next = size.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
                return Ok(Some(Member { name, kind: kind(entry_type, pax.is_sparse), offset, size }));
            }
        }
    }

    /// Reads the content of the last member, but no more than `limit` bytes.
    pub(super) fn content(&mut self, member: &Member, limit: u64) -> Result<Vec<u8>, Fault> {
        let size = member.size.min(limit);
        let content = self.read(size)?;
        self.to_next -= size;
        Ok(content)
    }

    /// Where the archive ended, if it did and other bytes than zeros lie behind the end mark.
    pub(super) fn behind_end(&self) -> Option<u64> {
        self.end.and_then(|(end, has_more)| has_more.then_some(end))
    }

    /// Reads a header; `None` if it is the end mark.
    fn header(&mut self) -> Result<Option<Header>, Fault> {
        let block = self.read(BLOCK)?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        // the checksum is the sum of all bytes, with its own taken for spaces
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let own: u32 = header.as_old().cksum.iter().map(|byte| u32::from(*byte)).sum();
        let expected = sum - own + 8 * u32::from(b' ');
        match header.cksum() {
            Ok(found) if found == expected => Ok(Some(header)),
            Ok(_) => Err(self.invalid("the checksum of its header is wrong")),
            Err(_) => Err(self.invalid("the checksum of its header is not a number")),
        }
    }

    /// Reads a name or an extended header, and goes on to the header behind it.
    fn extended(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        if size > LONGEST_HEADER {
            return Err(self.invalid("its name or extended header is longer than a mebibyte"));
        }
        let content = self.read(size)?;
        self.skip(size.next_multiple_of(BLOCK) - size)?;
        Ok(content)
    }

    /// Goes on behind the blocks that continue the header of a sparse file.
    fn skip_sparse_map(&mut self, header: &Header) -> Result<(), Fault> {
        let mut is_extended = header.as_gnu().is_some_and(|header| header.is_extended());
        while is_extended {
            // GNU tar, `struct sparse_header`: 21 pairs of 24 bytes, then the flag
            is_extended = self.read(BLOCK)?[504] != 0;
        }
        Ok(())
    }

    /// Whether other bytes than zeros follow.
    fn has_more(&mut self) -> Result<bool, Fault> {
        let mut block = [0; BLOCK as usize];
        for _ in 0..LOOKED_AT_BEHIND_END / BLOCK {
            let count = self.stream.read(&mut block).map_err(Fault::Read)?;
            if block[..count].iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            if count == 0 {
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn read(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        let count = (&mut self.stream).take(size).read_to_end(&mut bytes).map_err(Fault::Read)? as u64;
        self.position += count;
        match count == size {
            true => Ok(bytes),
            false => Err(self.cut_short()),
        }
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Fault> {
        self.stream.skip(bytes).map_err(|cause| match cause.kind() {
            io::ErrorKind::UnexpectedEof => self.cut_short(),
            _ => Fault::Read(cause),
        })?;
        self.position += bytes;
        Ok(())
    }

    fn cut_short(&self) -> Fault {
        Fault::CutShort { offset: self.entry, length: self.stream.length() }
    }

    fn invalid(&self, what: &'static str) -> Fault {
        Fault::Invalid { offset: self.entry, what }
    }
}

/// What the extended header of a member says.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    size: Option<u64>,
    is_sparse: bool,
}

impl Pax {
    fn of(bytes: &[u8]) -> Self {
        let mut pax = Self::default();
        for record in PaxExtensions::new(bytes).flatten() {
            match record.key_bytes() {
                b"path" => pax.path = Some(record.value_bytes().to_vec()),
                b"size" => pax.size = record.value().ok().and_then(|size| size.parse().ok()),
                key => pax.is_sparse |= key.starts_with(b"GNU.sparse."),
            }
        }
        pax
    }
}

fn kind(entry_type: EntryType, is_sparse: bool) -> MemberKind {
    match entry_type {
        EntryType::Regular | EntryType::Continuous if !is_sparse => MemberKind::File,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => MemberKind::Other("a sparse file"),
        EntryType::Directory => MemberKind::Folder,
        EntryType::Link | EntryType::Symlink => MemberKind::Link,
        EntryType::Fifo => MemberKind::Other("a pipe"),
        EntryType::Char | EntryType::Block => MemberKind::Other("a device"),
        // the enum of another crate is not exhaustive: the letters that a tar writer may use for its own
        _ => MemberKind::Other("an entry of unknown type"),
    }
}

fn until_zero(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().take_while(|byte| *byte != 0).collect()
}
