//! A training state of which each rank keeps its part: how ranks get what the first one starts from, and how they write
//! checkpoints.
//!
//! The first rank decides what is written, and asks the others for their share of it. Where all ranks see its folder, as on one
//! machine or on a file system that machines share, each writes its values to the file itself, all at once. Where one does not,
//! or where the file is not what they wrote, the first rank gathers the values and writes them alone. The file has the same
//! bytes either way.

use crate::error::{Error, Result};
use crate::run::checkpoint::{Checkpoint, State};
use crate::weights::{fill, outline, save_slots, sum};
use serde::{Deserialize, Serialize};
use simmim_engine::{Activity, Backend, Collective, ParameterId, Slot};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The slots that may be divided, by their number on the wire.
const DIVIDED: [Slot; 3] = [Slot::FirstMoment, Slot::SecondMoment, Slot::Average];

/// What the first rank asks of all while it writes a checkpoint.
#[derive(Serialize, Deserialize)]
enum Request {
    /// Their values of a parameter, by the numbers of slot and parameter.
    Gather(usize, usize),
    /// To write their values of some slots to a file, unless one of them does not see it.
    Fill(Shared),
    /// Nothing more.
    Done,
}

/// A file that all ranks fill.
#[derive(Serialize, Deserialize)]
struct Shared {
    /// Its path in the run folder.
    file: PathBuf,
    /// Where the values begin, in bytes.
    start: u64,
    /// Prefixes of names, and numbers of slots.
    slots: Vec<(String, usize)>,
}

impl Request {
    fn send(&self, collective: &mut dyn Collective) -> Result<()> {
        let mut text = serde_json::to_vec(self).expect("numbers and names serialize");
        Ok(collective.broadcast_bytes(&mut text, 0)?)
    }
}

/// Writes the files of a checkpoint on the first rank, while the others [`answer`].
pub(super) struct Writer<'a, B> {
    pub(super) collective: RefCell<&'a mut dyn Collective>,
    pub(super) backend: &'a B,
    /// The run folder.
    pub(super) run: &'a Path,
    /// Steps done.
    pub(super) steps: u64,
    /// Whether other ranks keep parts of the state.
    pub(super) is_divided: bool,
}

impl<B: Backend> Writer<'_, B> {
    /// Writes one tensor per parameter and slot; see [`save_slots`].
    ///
    /// # Errors
    /// If a value is not finite, the file cannot be written, or another rank is lost.
    pub(super) fn write(&self, path: &Path, slots: &[(&str, Slot)], metadata: HashMap<String, String>) -> Result<()> {
        let (backend, table) = (self.backend, self.backend.table());
        if !self.is_divided || slots.iter().any(|(_, slot)| !DIVIDED.contains(slot)) {
            let read = |slot, id| Ok(backend.read_parameter(slot, id));
            return save_slots(path, table, slots, metadata, &read);
        }
        if self.fill_on_every_rank(path, slots, metadata.clone())? {
            return Ok(());
        }
        let gather = |slot, id: ParameterId| {
            let mut collective = self.collective.borrow_mut();
            Request::Gather(number(slot), id.0).send(&mut **collective)?;
            Ok(backend.gather_parameter(slot, id, &mut **collective)?)
        };
        save_slots(path, table, slots, metadata, &gather)
    }

    /// Tells the other ranks that nothing more is written.
    ///
    /// # Errors
    /// If another rank is lost.
    pub(super) fn finish(self) -> Result<()> {
        if self.is_divided { Request::Done.send(self.collective.into_inner()) } else { Ok(()) }
    }

    /// Has every rank write what it keeps, and returns whether they all could, and the file holds it: some file systems let
    /// machines write no less than pages, where one may undo what another wrote.
    fn fill_on_every_rank(
        &self,
        path: &Path,
        slots: &[(&str, Slot)],
        metadata: HashMap<String, String>,
    ) -> Result<bool> {
        let slots: Vec<(String, Slot)> = slots.iter().map(|(prefix, slot)| ((*prefix).to_owned(), *slot)).collect();
        // under a name that no rank of another machine has a file of, nor a process that was stopped in an earlier job
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let shared = path.with_file_name(format!(".shared-{}-{}", std::process::id(), now.as_nanos()));
        let start = outline(&shared, self.backend.table(), &slots, metadata)?;
        let file = shared.strip_prefix(self.run).expect("checkpoints lie in the run folder").to_owned();
        let slots = slots.into_iter().map(|(prefix, slot)| (prefix, number(slot))).collect();
        let request = Request::Fill(Shared { file, start, slots });
        let collective = &mut **self.collective.borrow_mut();
        request.send(collective)?;
        let Request::Fill(what) = request else { unreachable!("it was made above") };
        let written = fill_own(collective, self.backend, self.run, self.steps, &what)?;
        if written.is_some() && written == Some(sum(&shared, start)?) {
            fs::rename(&shared, path).map_err(Error::io(path))?;
            return Ok(true);
        }
        fs::remove_file(&shared).map_err(Error::io(&shared))?;
        Ok(false)
    }
}

/// Does what the first rank asks while it writes a checkpoint.
///
/// # Errors
/// If a value is not finite, a file cannot be written, or another rank is lost.
pub(super) fn answer<B: Backend>(collective: &mut dyn Collective, backend: &B, run: &Path, steps: u64) -> Result<()> {
    loop {
        let mut text = Vec::new();
        collective.broadcast_bytes(&mut text, 0)?;
        match serde_json::from_slice(&text).expect("the first rank sends a request") {
            Request::Gather(slot, id) => drop(backend.gather_parameter(DIVIDED[slot], ParameterId(id), collective)?),
            Request::Fill(what) => drop(fill_own(collective, backend, run, steps, &what)?),
            Request::Done => return Ok(()),
        }
    }
}

/// Writes what this rank keeps, as all ranks do, and waits for them. Returns the sum of all that was written, or `None` if one
/// does not see the file, and so nothing was.
fn fill_own<B: Backend>(
    collective: &mut dyn Collective,
    backend: &B,
    run: &Path,
    steps: u64,
    what: &Shared,
) -> Result<Option<u32>> {
    let path = run.join(&what.file);
    let mut opened = File::options().write(true).open(&path).ok();
    let mut seen = [if opened.is_some() { 1.0 } else { 0.0 }];
    collective.all_reduce_sum_f64(&mut seen)?;
    let Some(file) = opened.as_mut().filter(|_| seen[0] == collective.world() as f64) else { return Ok(None) };
    collective.announce(Activity::Alone(steps)); // one disk may be slower than another
    let slots: Vec<(String, Slot)> = what.slots.iter().map(|(prefix, slot)| (prefix.clone(), DIVIDED[*slot])).collect();
    let kept = |slot, id| {
        let values = backend.read_parameter(slot, id);
        let ranges = backend.kept_ranges(slot, id).into_iter();
        ranges.map(|range| (range.clone(), values[range].to_vec())).collect()
    };
    let own = fill(file, &path, what.start, backend.table(), &slots, kept).map_err(|error| error.at_step(steps))?;
    let mut sums = [f64::from(own)]; // exact for two million ranks
    collective.all_reduce_sum_f64(&mut sums)?;
    Ok(Some(sums[0] as u64 as u32))
}

/// The number of a slot on the wire.
fn number(slot: Slot) -> usize {
    DIVIDED.iter().position(|divided| *divided == slot).expect("only these are divided")
}

/// What the first rank starts from.
pub(super) enum Start {
    Values(Vec<f32>),
    Checkpoint(Box<Checkpoint>),
}

/// Gives all ranks what the first one starts from, of which each keeps its part, and the state.
pub(super) fn distribute<B: Backend>(
    collective: &mut dyn Collective,
    backend: &B,
    start: Option<Start>,
    state: &mut State,
    has_average: bool,
) -> Result<()> {
    let numbers = |slots: &[Slot]| -> Vec<usize> {
        slots.iter().filter_map(|slot| DIVIDED.iter().position(|divided| divided == slot)).collect()
    };
    let slots = match &start {
        Some(Start::Checkpoint(checkpoint)) => numbers(&checkpoint.slots()),
        Some(Start::Values(_)) | None => Vec::new(),
    };
    let mut text = serde_json::to_vec(&(&*state, slots)).expect("numbers serialize");
    collective.broadcast_bytes(&mut text, 0)?;
    let (of_first, slots): (State, Vec<usize>) = serde_json::from_slice(&text).expect("the first rank sends its state");
    if !collective.is_first() {
        *state = of_first; // the first rank keeps its own, which did not become text
    }
    let mut give = |slot: Slot, id: ParameterId, values: &[f32]| -> Result<()> {
        let mut values = values.to_vec();
        collective.broadcast(&mut values, 0)?;
        backend.write_parameter(slot, id, &values);
        Ok(())
    };
    match start {
        Some(Start::Checkpoint(checkpoint)) => checkpoint.restore(backend.table(), &mut give)?,
        Some(Start::Values(values)) => {
            let mut parameters = backend.table().iter().enumerate();
            parameters.try_for_each(|(id, p)| give(Slot::Values, ParameterId(id), &values[p.range.clone()]))?;
        }
        None => {
            for slot in [Slot::Values].into_iter().chain(slots.iter().map(|number| DIVIDED[*number])) {
                let mut parameters = backend.table().iter().enumerate();
                parameters.try_for_each(|(id, p)| give(slot, ParameterId(id), &vec![0.0; p.range.len()]))?;
            }
        }
    }
    if has_average && slots.is_empty() {
        // the average begins at the initial weights, which the first step changes
        for id in (0..backend.table().iter().len()).map(ParameterId) {
            backend.write_parameter(Slot::Average, id, &backend.read_parameter(Slot::Values, id));
        }
    }
    Ok(())
}
