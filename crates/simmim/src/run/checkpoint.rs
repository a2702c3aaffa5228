//! Checkpoints: folders `step-N` that exist only when they are complete.
//!
//! Files are written to a hidden folder and flushed to the disk, last the manifest with their sizes and checksums. Then
//! the folder is renamed. A process that is killed at any time leaves either no folder `step-N` or a complete one. If a
//! checkpoint is damaged, the one before it is used.

use super::Unreadable;
use super::files::{sync_folder, write_atomically};
use crate::error::{Error, Result};
use crate::version::unfit;
use crate::weights::WeightsFile;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use simmim_engine::{ParameterId, ParameterTable, Slot};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Weights of the model, with the parameter names of the published checkpoints.
pub const MODEL_FILE: &str = "model.safetensors";
/// Exponential moving average of the weights, if the run keeps one.
pub const AVERAGE_FILE: &str = "average.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";
const MANIFEST_FILE: &str = "manifest.json";
/// End of the name of a checkpoint that is being written.
const PARTIAL: &str = ".partial";
const FIRST: &str = "exp_avg.";
const SECOND: &str = "exp_avg_sq.";

/// Metrics by name, such as `val_loss` or `top1`.
pub type Metrics = BTreeMap<String, f64>;

/// The state of a run apart from its weights and moments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done.
    pub steps: u64,
    /// Sum of the losses since the last log entry.
    pub loss_sum: f64,
    /// Number of losses in that sum.
    pub loss_count: u64,
    /// The last logged loss.
    pub last_loss: Option<f64>,
    /// The last value of each metric, by its name in the log.
    pub metrics: Metrics,
    /// How many of the evaluations at this step were done when the run was stopped within one; the others are done when it
    /// goes on. `None` if all were done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluations_done: Option<usize>,
    /// Draws of unreadable images so far; each time another image took the place.
    #[serde(default)]
    pub replaced: u64,
    /// Unreadable images found so far.
    #[serde(default)]
    pub unreadable: Unreadable,
    /// Elapsed seconds so far, over all processes that worked on the run.
    pub seconds: f64,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: String,
    steps: u64,
    files: BTreeMap<String, FileEntry>,
}

#[derive(Serialize, Deserialize, PartialEq)]
struct FileEntry {
    bytes: u64,
    crc32c: u32,
}

/// A checkpoint whose files were verified.
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// State of the run.
    pub state: State,
    model: WeightsFile,
    optimizer: WeightsFile,
    average: Option<WeightsFile>,
}

impl Checkpoint {
    /// Calls `write` with weights, moments and the EMA, if there is one: slot by slot, in the order of [`Checkpoint::slots`],
    /// and in each in the order of the table.
    ///
    /// # Errors
    /// If a tensor does not fit the table, or those of `write`.
    pub fn restore(
        &self,
        table: &ParameterTable,
        mut write: impl FnMut(Slot, ParameterId, &[f32]) -> Result<()>,
    ) -> Result<()> {
        for slot in self.slots() {
            let (file, prefix) = match slot {
                Slot::Values => (&self.model, ""),
                Slot::FirstMoment => (&self.optimizer, FIRST),
                Slot::SecondMoment => (&self.optimizer, SECOND),
                Slot::Average => (self.average.as_ref().expect("it is among the slots"), ""),
                Slot::Gradients => unreachable!("gradients are not saved"),
            };
            let mut written = Ok(());
            file.load(table, prefix, |id, values| {
                if written.is_ok() {
                    written = write(slot, id, values);
                }
            })?;
            written?;
        }
        Ok(())
    }

    /// The slots that it has.
    pub fn slots(&self) -> Vec<Slot> {
        let average = self.average.as_ref().map(|_| Slot::Average);
        [Slot::Values, Slot::FirstMoment, Slot::SecondMoment].into_iter().chain(average).collect()
    }

    /// Checks that its tensors have the names and shapes of a table, and are finite.
    fn fits(&self, table: &ParameterTable) -> Result<()> {
        self.model.load(table, "", |_, _| ())?;
        self.optimizer.load(table, FIRST, |_, _| ())?;
        self.optimizer.load(table, SECOND, |_, _| ())?;
        self.average.as_ref().map_or(Ok(()), |average| average.load(table, "", |_, _| ()))
    }
}

/// The checkpoint folder of a run at a step.
pub fn path(run: &Path, steps: u64) -> PathBuf {
    run.join("checkpoints").join(format!("step-{steps}"))
}

/// Writes one tensor per parameter and slot to a file; slots come with the prefix of their names.
pub type WriteSlots<'a> = &'a dyn Fn(&Path, &[(&str, Slot)], HashMap<String, String>) -> Result<()>;

/// Saves `checkpoints/step-N` in a run folder, and deletes all but the newest `keep` checkpoints. `write` writes a file of
/// weights, as [`save_slots`](crate::weights::save_slots) does.
///
/// # Errors
/// If writing fails, or those of `write`; older checkpoints are then unchanged, and partial files are removed.
pub fn save(
    run: &Path,
    table: &ParameterTable,
    write: WriteSlots,
    has_average: bool,
    state: &State,
    metadata: &HashMap<String, String>,
    keep: usize,
) -> Result<PathBuf> {
    let folder = run.join("checkpoints");
    let path = path(run, state.steps);
    if is_checkpoint(&path) && read(&path, table).is_ok() {
        return Ok(path); // the same step of the same run has the same bits
    }
    let partial = folder.join(format!(".step-{}{PARTIAL}", state.steps));
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let written = write_files(&partial, write, has_average, state, metadata).and_then(|()| {
        let _ = fs::remove_dir_all(&path); // a damaged checkpoint of the same name
        fs::rename(&partial, &path).map_err(Error::io(&path))?;
        Ok(sync_folder(&folder)?)
    });
    if let Err(error) = written {
        let _ = fs::remove_dir_all(&partial); // free the space; if that fails, the first error matters more
        return Err(error);
    }
    // those after this step are damaged, or the run would have resumed from them: they do not count among the newest
    for (_, old) in list(run)?.into_iter().filter(|(steps, _)| *steps <= state.steps).rev().skip(keep) {
        // first what makes it a checkpoint, because a folder is not removed at once
        let _ = fs::remove_file(old.join(MANIFEST_FILE));
    }
    remove_incomplete(&folder, &path);
    Ok(path)
}

/// Removes what is left of checkpoints without a manifest. If that fails, because another program reads a file of one for
/// example, nothing is lost, and the next save tries again.
fn remove_incomplete(folder: &Path, newest: &Path) {
    let folders = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_incomplete = |folder: &PathBuf| {
        let steps = folder.file_name().and_then(|name| name.to_str()?.strip_prefix("step-"));
        let is_numbered = steps.is_some_and(|steps| steps.parse::<u64>().is_ok());
        is_numbered && folder != newest && folder.is_dir() && !folder.join(MANIFEST_FILE).exists()
    };
    for incomplete in folders.filter(is_incomplete) {
        let _ = fs::remove_dir_all(incomplete);
    }
}

fn write_files(
    partial: &Path,
    write: WriteSlots,
    has_average: bool,
    state: &State,
    metadata: &HashMap<String, String>,
) -> Result<()> {
    let _ = fs::remove_dir_all(partial);
    fs::create_dir_all(partial).map_err(Error::io(partial))?;
    let save = |name, slots: &[(&str, Slot)], metadata| write(&partial.join(name), slots, metadata);
    save(MODEL_FILE, &[("", Slot::Values)], metadata.clone())?;
    if has_average {
        save(AVERAGE_FILE, &[("", Slot::Average)], metadata.clone())?;
    }
    save(OPTIMIZER_FILE, &[(FIRST, Slot::FirstMoment), (SECOND, Slot::SecondMoment)], HashMap::new())?;
    let text = serde_json::to_vec_pretty(state).expect("numbers serialize");
    write_atomically(&partial.join(STATE_FILE), &text)?;

    let mut files = BTreeMap::new();
    let average = has_average.then_some(AVERAGE_FILE);
    for name in [MODEL_FILE, OPTIMIZER_FILE, STATE_FILE].into_iter().chain(average) {
        let path = partial.join(name);
        files.insert(name.to_owned(), entry(&path)?);
    }
    let manifest = Manifest { version: env!("CARGO_PKG_VERSION").into(), steps: state.steps, files };
    write_atomically(&partial.join(MANIFEST_FILE), &serde_json::to_vec_pretty(&manifest).expect("numbers serialize"))?;
    Ok(sync_folder(partial)?)
}

fn entry(path: &Path) -> Result<FileEntry> {
    let mut file = fs::File::open(path).map_err(Error::io(path))?;
    // in blocks, because moments take twice the memory of the weights
    let (mut entry, mut block) = (FileEntry { bytes: 0, crc32c: 0 }, vec![0; 1 << 20]);
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(entry),
            Ok(read) => {
                entry.bytes += read as u64;
                entry.crc32c = crc32c::crc32c_append(entry.crc32c, &block[..read]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return Err(Error::io(path)(error)),
        }
    }
}

/// Removes checkpoints of which a killed process wrote only a part. No other process may work on the run. Failures are
/// ignored, because these files are only in the way.
pub(super) fn remove_leftovers(run: &Path) {
    for entry in fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(".step-") && name.ends_with(PARTIAL)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Complete checkpoints of a run, oldest first, with their step numbers.
///
/// # Errors
/// If the folder cannot be listed.
pub fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let folder = run.join("checkpoints");
    let mut found = Vec::new();
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        // no run yet, or a file in its place, which is reported when the run folder is opened
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(found),
        Err(e) => return Err(Error::io(&folder)(e)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io(&folder))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Some(steps) = name.strip_prefix("step-").and_then(|n| n.parse().ok())
            && is_checkpoint(&path)
        {
            found.push((steps, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The newest intact checkpoint of a run, and the errors of newer ones.
///
/// # Errors
/// If there are checkpoints but none is intact, or the weights do not fit the table or are not finite.
pub fn newest(run: &Path, table: &ParameterTable) -> Result<(Option<Checkpoint>, Vec<Error>)> {
    let mut damaged = Vec::new();
    for (_, path) in list(run)?.into_iter().rev() {
        match read(&path, table) {
            Ok(checkpoint) => return Ok((Some(checkpoint), damaged)),
            Err(error @ (Error::Damaged { .. } | Error::Io(_))) => damaged.push(error),
            Err(other) => return Err(other),
        }
    }
    match damaged.pop() {
        None => Ok((None, damaged)),
        Some(error) => Err(error),
    }
}

/// Reads and verifies one checkpoint.
///
/// # Errors
/// If a file is damaged, or the weights do not fit the table, or one of them or of their moments is not finite.
pub fn read(path: &Path, table: &ParameterTable) -> Result<Checkpoint> {
    let manifest = manifest(path)?;
    for (name, expected) in &manifest.files {
        check_file(&path.join(name), expected)?;
    }
    let average = match manifest.files.contains_key(AVERAGE_FILE) {
        true => Some(WeightsFile::read(&path.join(AVERAGE_FILE))?),
        false => None,
    };
    let (model, optimizer) =
        (WeightsFile::read(&path.join(MODEL_FILE))?, WeightsFile::read(&path.join(OPTIMIZER_FILE))?);
    let state = read_state(path, &manifest.version)?;
    let checkpoint = Checkpoint { path: path.to_owned(), state, model, optimizer, average };
    checkpoint.fits(table)?;
    Ok(checkpoint)
}

/// The weights file of a checkpoint to use for inference: the EMA if there is one.
pub fn weights_to_use(path: &Path) -> PathBuf {
    let average = path.join(AVERAGE_FILE);
    if average.is_file() { average } else { path.join(MODEL_FILE) }
}

/// Whether a folder is a checkpoint.
pub fn is_checkpoint(path: &Path) -> bool {
    path.join(MANIFEST_FILE).is_file()
}

/// Checks one file of a checkpoint against its manifest.
///
/// # Errors
/// If the file is damaged or not listed in the manifest.
pub fn verify(path: &Path, file: &Path) -> Result<()> {
    let manifest = manifest(path)?;
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match manifest.files.get(name) {
        Some(expected) => check_file(file, expected),
        None => Err(Error::Damaged {
            path: file.to_owned(),
            reason: "is not listed in the manifest of its checkpoint".into(),
        }),
    }
}

fn manifest(path: &Path) -> Result<Manifest> {
    let file = path.join(MANIFEST_FILE);
    let text = fs::read(&file).map_err(Error::io(&file))?;
    let version = || serde_json::from_slice::<Value>(&text).ok()?.get("version")?.as_str().map(str::to_owned);
    serde_json::from_slice(&text).map_err(|e| unfit(&file, version().as_deref(), format!("is not a manifest: {e}")))
}

fn check_file(file: &Path, expected: &FileEntry) -> Result<()> {
    let damaged = |reason: String| Error::Damaged { path: file.to_owned(), reason };
    if !file.exists() {
        return Err(damaged("is missing".into()));
    }
    let found = entry(file)?;
    if found == *expected {
        return Ok(());
    }
    Err(damaged(format!(
        "does not match its manifest: it has {} bytes, expected {}, or other content",
        found.bytes, expected.bytes
    )))
}

fn read_state(path: &Path, version: &str) -> Result<State> {
    let file = path.join(STATE_FILE);
    let text = fs::read(&file).map_err(Error::io(&file))?;
    serde_json::from_slice(&text).map_err(|e| unfit(&file, Some(version), format!("is not a state: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestBackend, open};
    use crate::weights::save_slots;
    use simmim_engine::Backend;

    fn backend(values: &[f32]) -> TestBackend {
        let mut table = ParameterTable::default();
        table.add("a", &[values.len()]);
        let backend = open(table);
        for (slot, factor) in [(Slot::Values, 1.0), (Slot::FirstMoment, 2.0), (Slot::SecondMoment, 3.0)] {
            backend.write_slot(slot, &values.iter().map(|v| v * factor).collect::<Vec<_>>());
        }
        backend
    }

    fn save(run: &Path, backend: &TestBackend, steps: u64) -> Result<PathBuf> {
        let (state, table) = (State { steps, ..State::default() }, backend.table());
        let write = |path: &Path, slots: &[(&str, Slot)], metadata| {
            save_slots(path, table, slots, metadata, &|slot, id| Ok(backend.read_parameter(slot, id)))
        };
        super::save(run, table, &write, false, &state, &HashMap::new(), 2)
    }

    fn save_at(run: &Path, backend: &TestBackend, steps: u64) -> PathBuf {
        save(run, backend, steps).unwrap()
    }

    #[test]
    fn what_is_saved_is_restored() {
        let run = tempfile::tempdir().unwrap();
        let saved = backend(&[1.0, -2.0]);
        save_at(run.path(), &saved, 5);
        let other = backend(&[0.0, 0.0]);
        let (checkpoint, damaged) = newest(run.path(), other.table()).unwrap();
        let checkpoint = checkpoint.unwrap();
        let write = |slot, id, values: &[f32]| {
            other.write_parameter(slot, id, values);
            Ok(())
        };
        checkpoint.restore(other.table(), write).unwrap();
        assert!(damaged.is_empty());
        assert_eq!(checkpoint.state.steps, 5);
        for slot in [Slot::Values, Slot::FirstMoment, Slot::SecondMoment] {
            assert_eq!(other.read_slot(slot), saved.read_slot(slot));
        }
    }

    #[test]
    fn only_the_newest_are_kept() {
        let run = tempfile::tempdir().unwrap();
        let saved = backend(&[1.0]);
        for steps in [2, 10, 9, 30] {
            save_at(run.path(), &saved, steps);
        }
        let numbers: Vec<u64> = list(run.path()).unwrap().into_iter().map(|(n, _)| n).collect();
        assert_eq!(numbers, [10, 30]);
    }

    #[test]
    fn a_damaged_checkpoint_of_a_later_step_does_not_count_among_the_newest() {
        let run = tempfile::tempdir().unwrap();
        let saved = backend(&[1.0]);
        let damaged = save_at(run.path(), &saved, 20);
        fs::write(damaged.join(MODEL_FILE), "cut").unwrap();
        for steps in [10, 12] {
            assert!(save_at(run.path(), &saved, steps).is_dir());
        }
        let numbers: Vec<u64> = list(run.path()).unwrap().into_iter().map(|(n, _)| n).collect();
        assert_eq!(numbers, [10, 12, 20]);
    }

    #[test]
    fn a_damaged_checkpoint_gives_way_to_the_one_before() {
        let run = tempfile::tempdir().unwrap();
        let saved = backend(&[1.0]);
        save_at(run.path(), &saved, 1);
        let newer = save_at(run.path(), &saved, 2);
        let file = newer.join(MODEL_FILE);
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
        let (checkpoint, damaged) = newest(run.path(), saved.table()).unwrap();
        assert_eq!(checkpoint.unwrap().state.steps, 1);
        assert_eq!(damaged.len(), 1);
    }

    #[test]
    fn a_folder_without_manifest_is_no_checkpoint() {
        let run = tempfile::tempdir().unwrap();
        let path = save_at(run.path(), &backend(&[1.0]), 7);
        fs::remove_file(path.join(MANIFEST_FILE)).unwrap();
        assert!(list(run.path()).unwrap().is_empty());
    }

    #[test]
    fn a_checkpoint_of_a_later_version_is_not_damaged_and_stays() {
        let run = tempfile::tempdir().unwrap();
        let saved = backend(&[1.0]);
        save_at(run.path(), &saved, 1);
        let later = save_at(run.path(), &saved, 2);
        let edit = |name: &str, from: &str, to: &str| {
            let text = fs::read_to_string(later.join(name)).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(later.join(name), text.replace(from, to)).unwrap();
        };
        edit(MANIFEST_FILE, env!("CARGO_PKG_VERSION"), "99.0.0");
        assert!(newest(run.path(), saved.table()).is_ok(), "the version alone is no obstacle");
        edit(MANIFEST_FILE, "\"steps\"", "\"updates\"");
        let error = newest(run.path(), saved.table()).err().unwrap();
        assert!(error.to_string().contains("a later version") && error.is_users_fault(), "{error}");
        assert!(later.join(MODEL_FILE).is_file() && !error.hint().unwrap().contains("delete"));
    }

    #[test]
    fn what_is_not_finite_is_no_checkpoint() {
        let run = tempfile::tempdir().unwrap();
        let saved = backend(&[1.0, -2.0]);
        save_at(run.path(), &saved, 5);
        let slots = [
            (Slot::Values, "a", MODEL_FILE, -2.0f32),
            (Slot::FirstMoment, "exp_avg.a", OPTIMIZER_FILE, -4.0),
            (Slot::SecondMoment, "exp_avg_sq.a", OPTIMIZER_FILE, -6.0),
        ];
        for (slot, name, file, value) in slots {
            let is_named = |error: &Error| match error {
                Error::WeightNotFinite { tensor, index, .. } => (tensor.as_str(), *index) == (name, 1),
                _ => false,
            };
            let diverged = backend(&[1.0, -2.0]);
            diverged.write_slot(slot, &[1.0, f32::INFINITY]);
            let error = save(run.path(), &diverged, 6).unwrap_err();
            assert!(is_named(&error), "{error}");
            assert_eq!(fs::read_dir(run.path().join("checkpoints")).unwrap().count(), 1, "step-5 stays, alone");

            // a whole one that says infinity
            let path = save_at(run.path(), &saved, 7);
            let mut bytes = fs::read(path.join(file)).unwrap();
            let at = bytes.windows(4).rposition(|window| window == value.to_le_bytes()).unwrap();
            bytes[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
            fs::write(path.join(file), bytes).unwrap();
            let mut whole = manifest(&path).unwrap();
            whole.files.insert(file.to_owned(), entry(&path.join(file)).unwrap());
            fs::write(path.join(MANIFEST_FILE), serde_json::to_vec(&whole).unwrap()).unwrap();
            let error = newest(run.path(), saved.table()).err().unwrap();
            assert!(is_named(&error) && error.is_users_fault(), "{error}");
            fs::remove_dir_all(path).unwrap();
        }
    }

    #[test]
    fn what_is_left_of_a_removed_checkpoint_is_removed_later() {
        let (run, backend) = (tempfile::tempdir().unwrap(), backend(&[1.0, 2.0]));
        // a folder without a manifest, and others that are none of ours
        let of = |name: &str| run.path().join("checkpoints").join(name);
        for name in ["step-1", "step-x", "mine"] {
            fs::create_dir_all(of(name)).unwrap();
            fs::write(of(name).join(MODEL_FILE), "left").unwrap();
        }
        save_at(run.path(), &backend, 5);
        assert_eq!(
            [of("step-1"), of("step-x"), of("mine"), of("step-5")].map(|path| path.exists()),
            [false, true, true, true]
        );
    }

    #[test]
    fn weights_of_another_shape_are_an_error_not_a_damage() {
        let run = tempfile::tempdir().unwrap();
        save_at(run.path(), &backend(&[1.0, 2.0]), 1);
        let error = newest(run.path(), backend(&[1.0]).table()).err().unwrap();
        assert!(matches!(error, Error::WeightShape { .. }), "{error}");
    }
}
