//! Archives in remote stores, which are read by requests of ranges: HTTP servers and S3, by the crate `object_store`.
//!
//! The length is asked once, with what identifies the content (ETag, time of change), which every later answer is
//! compared with. Headers are read in blocks that are kept in bounded memory (`blocks`), samples with a request each.
//! What may pass is tried again for a stated time (`request`). No message contains user names, passwords or queries of
//! addresses.

mod blocks;
pub(in crate::source) mod fault;
mod request;
mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use object_store::{GetOptions, ObjectMeta};
use reqwest as _; // for its feature, TLS without aws-lc

use self::blocks::{BLOCK, Blocks};
use self::fault::Fault;
use self::request::{Answer, Patience, ask};
use self::store::Object;
use super::address::Address;
use super::storage::{Storage, checked};
use crate::error::{Error, Result};

static BLOCKS: LazyLock<Blocks> = LazyLock::new(Blocks::default);

/// At most so many blocks are fetched at once, 4 MiB.
const MOST_AHEAD: u64 = 16;

/// A file beside an archive is read up to this many bytes.
const LONGEST_BESIDE: u64 = 64 << 20;

/// An archive in a store.
pub(super) struct Remote {
    address: Address,
    object: Object,
    /// Its number in [`BLOCKS`].
    number: u64,
    /// What the store said of it when it was opened.
    meta: ObjectMeta,
    patience: Patience,
    ahead: Mutex<Ahead>,
    /// Where the last sample ended.
    last_end: AtomicU64,
}

/// Blocks that are fetched together double as long as they follow those before, as the reads of a [`Reader`] do.
///
/// [`Reader`]: super::storage::Reader
#[derive(Default)]
struct Ahead {
    next: u64,
    count: u64,
}

impl Remote {
    /// Asks the store for the length of an archive.
    ///
    /// # Errors
    ///
    /// [`Error::BadAddress`], or [`Error::Read`] if the store does not deliver the first byte.
    pub(super) fn open(address: &Address) -> Result<Arc<Self>> {
        Self::open_with(address, Patience::OPENING, Patience::READING)
    }

    fn open_with(address: &Address, opening: Patience, patience: Patience) -> Result<Arc<Self>> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let object = Object::at(address)?;
        // not the method HEAD: a signed address is often valid for GET alone, and a server without ranges is found now
        let options = GetOptions { range: Some((0..1).into()), ..GetOptions::default() };
        let Answer { meta, .. } = ask(&object, options, 1, opening, |_| Ok(())).map_err(|fault| match fault {
            // the byte that is asked for is not there
            Fault::Changed { .. } => failed(address, Fault::Other { what: "it is empty".into() }),
            fault => failed(address, fault),
        })?;
        Ok(Arc::new(Self {
            address: address.clone(),
            object,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            meta,
            patience,
            ahead: Mutex::default(),
            last_end: AtomicU64::new(u64::MAX),
        }))
    }

    fn fetch(&self, range: Range<u64>) -> std::result::Result<Vec<u8>, Fault> {
        let opened = self.meta.clone();
        // a weak ETag cannot be a condition (RFC 9110, 13.1.1); it is compared all the same
        let if_match = opened.e_tag.clone().filter(|tag| !tag.starts_with("W/"));
        let options = GetOptions { range: Some(range.clone().into()), if_match, ..GetOptions::default() };
        let check = move |now: &ObjectMeta| unchanged(&opened, now);
        Ok(ask(&self.object, options, range.end - range.start, self.patience, check)?.bytes)
    }

    /// How many blocks to fetch from this one on.
    fn ahead(&self, block: u64) -> u64 {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.count = if block == ahead.next { (2 * ahead.count).clamp(1, MOST_AHEAD) } else { 1 };
        ahead.next = block + ahead.count;
        ahead.count
    }
}

fn failed(address: &Address, fault: Fault) -> Error {
    Error::Read { path: address.shown().to_owned(), cause: fault.into() }
}

/// Compares what a store says of an object with what it said when the object was opened.
fn unchanged(opened: &ObjectMeta, now: &ObjectMeta) -> std::result::Result<(), Fault> {
    let changed = |what: String| Err(Fault::Changed { what });
    match (&opened.e_tag, &now.e_tag) {
        _ if opened.size != now.size => changed(format!("it had {} bytes and has {}", opened.size, now.size)),
        (Some(then), Some(now)) if then != now => changed(format!("its ETag was {then} and is {now}")),
        (None, None) if opened.last_modified != now.last_modified => {
            changed(format!("it is of {} and was of {}", now.last_modified, opened.last_modified))
        }
        _ => Ok(()),
    }
}

impl Storage for Remote {
    fn path(&self) -> &Path {
        self.address.shown()
    }

    fn len(&self) -> u64 {
        self.meta.size
    }

    /// Reads a sample by one request, or, if it follows the one before, by blocks.
    fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        checked(&range, self.len())?;
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(bytes) = BLOCKS.kept(self.number, &range) {
            return Ok(bytes);
        }
        let before = self.last_end.swap(range.end, Ordering::Relaxed);
        let follows = range.start.checked_sub(before).is_some_and(|gap| gap < BLOCK);
        if follows && range.end - range.start < BLOCK {
            return self.read_ahead(range);
        }
        Ok(self.fetch(range)?)
    }

    fn read_ahead(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        checked(&range, self.len())?;
        Ok(BLOCKS.read(self.number, range, self.len(), |block| self.ahead(block), |range| self.fetch(range))?)
    }

    /// A store that denies access to what is not there, as S3 does without the right to list, has nothing there.
    fn beside(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let address = self.address.beside(name);
        let object = Object::at(&address)?;
        match ask(&object, GetOptions::default(), LONGEST_BESIDE, Patience::OPENING, |_| Ok(())) {
            Ok(answer) => Ok(Some(answer.bytes)),
            Err(Fault::Missing | Fault::Denied { .. }) => Ok(None),
            Err(fault) => Err(failed(&address, fault)),
        }
    }
}
