//! Blocks of remote archives that are kept in memory, so that reading one header after the other does not take a
//! request for each.
//!
//! All archives and threads of the process share them. What several threads want at the same time is fetched once.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::fault::Fault;

/// The bytes of a block; the last one of an archive may have fewer.
pub(super) const BLOCK: u64 = 256 << 10;

/// At most so many blocks are kept: 64 MiB.
const MOST_BLOCKS: usize = 256;

/// The number of an archive and that of a block in it.
type Key = (u64, u64);

#[derive(Default)]
pub(super) struct Blocks {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: HashMap<Key, Kept>,
    flights: HashMap<Key, Arc<Flight>>,
    /// Counts uses.
    clock: u64,
}

struct Kept {
    bytes: Arc<[u8]>,
    used: u64,
}

/// A request that other threads may wait for.
#[derive(Default)]
struct Flight {
    landed: Mutex<Option<Result<(), Fault>>>,
    changed: Condvar,
}

impl Blocks {
    /// Reads a range of an archive of `len` bytes. What is not kept is fetched: of the blocks from the one that is
    /// missing, as many as `ahead` says of it.
    pub(super) fn read(
        &self,
        archive: u64,
        range: Range<u64>,
        len: u64,
        ahead: impl Fn(u64) -> u64,
        fetch: impl Fn(Range<u64>) -> Result<Vec<u8>, Fault>,
    ) -> Result<Vec<u8>, Fault> {
        let (mut bytes, mut position) = (Vec::new(), range.start);
        while position < range.end {
            let number = position / BLOCK;
            let block = self.block((archive, number), len, &ahead, &fetch)?;
            let start = (position - number * BLOCK) as usize;
            let end = block.len().min(start + (range.end - position) as usize);
            bytes.extend_from_slice(&block[start..end]);
            position += (end - start) as u64;
        }
        Ok(bytes)
    }

    /// The bytes of a range if all of its blocks are kept.
    pub(super) fn kept(&self, archive: u64, range: &Range<u64>) -> Option<Vec<u8>> {
        let mut state = self.state();
        let numbers = range.start / BLOCK..range.end.div_ceil(BLOCK);
        if range.is_empty() || !numbers.clone().all(|number| state.kept.contains_key(&(archive, number))) {
            return None;
        }
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        for number in numbers {
            let block = state.used((archive, number))?;
            let at = |position: u64| (position.saturating_sub(number * BLOCK) as usize).min(block.len());
            bytes.extend_from_slice(&block[at(range.start)..at(range.end)]);
        }
        Some(bytes)
    }

    fn block(
        &self,
        key: Key,
        len: u64,
        ahead: impl Fn(u64) -> u64,
        fetch: impl Fn(Range<u64>) -> Result<Vec<u8>, Fault>,
    ) -> Result<Arc<[u8]>, Fault> {
        let (archive, number) = key;
        loop {
            let mut state = self.state();
            if let Some(bytes) = state.used(key) {
                return Ok(bytes);
            }
            if let Some(flight) = state.flights.get(&key).cloned() {
                drop(state);
                flight.wait()?;
                continue;
            }
            let wanted = number..(number + ahead(number).max(1)).min(len.div_ceil(BLOCK));
            let is_free = |number: &u64| {
                let key = (archive, *number);
                !state.kept.contains_key(&key) && !state.flights.contains_key(&key)
            };
            let numbers: Vec<u64> = wanted.take_while(is_free).collect();
            let flight = Arc::new(Flight::default());
            for number in &numbers {
                state.flights.insert((archive, *number), Arc::clone(&flight));
            }
            drop(state);
            let end = (number + numbers.len() as u64) * BLOCK;
            let fetched = fetch(number * BLOCK..end.min(len));
            let mut state = self.state();
            for number in &numbers {
                state.flights.remove(&(archive, *number));
            }
            flight.land(fetched.as_ref().map(|_| ()).map_err(Clone::clone));
            for (number, bytes) in numbers.into_iter().zip(fetched?.chunks(BLOCK as usize)) {
                state.keep((archive, number), bytes.into());
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn used(&mut self, key: Key) -> Option<Arc<[u8]>> {
        self.clock += 1;
        let kept = self.kept.get_mut(&key)?;
        kept.used = self.clock;
        Some(Arc::clone(&kept.bytes))
    }

    /// Keeps a block, in the place of the one that was not used for the longest time if there are too many.
    fn keep(&mut self, key: Key, bytes: Arc<[u8]>) {
        if self.kept.len() >= MOST_BLOCKS
            && let Some(oldest) = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| *key)
        {
            self.kept.remove(&oldest);
        }
        self.clock += 1;
        self.kept.insert(key, Kept { bytes, used: self.clock });
    }
}

impl Flight {
    fn wait(&self) -> Result<(), Fault> {
        let mut landed = self.landed.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*landed {
                Some(result) => return result.clone(),
                None => landed = self.changed.wait(landed).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn land(&self, result: Result<(), Fault>) {
        *self.landed.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.changed.notify_all();
    }
}
