//! Checkpoints: a folder `step-N` that exists only when it is complete.
//!
//! Files are written into a hidden folder and flushed; the manifest with their sizes and checksums
//! comes last; then the folder gets its name. A run killed at any instruction leaves either no folder
//! of that name or a complete one. A damaged checkpoint is noticed and the one before it taken.

use crate::error::{Error, Result};
use crate::files::{sync_folder, write_atomically};
use crate::weights::{self, WeightsFile};
use serde::{Deserialize, Serialize};
use simmim_engine::{Backend, ParameterTable, Slot};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Weights of the model, under the published names.
pub const MODEL_FILE: &str = "model.safetensors";
/// Their running mean, if the run keeps one.
pub const AVERAGE_FILE: &str = "average.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";
const MANIFEST_FILE: &str = "manifest.json";
const FIRST: &str = "exp_avg.";
const SECOND: &str = "exp_avg_sq.";

/// Where a run stands, beside its weights and moments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Updates done.
    pub updates: u64,
    /// Sum of the losses since the last log entry.
    pub loss_sum: f64,
    /// Number of losses in that sum.
    pub loss_count: u64,
    /// The last logged loss.
    pub last_loss: Option<f64>,
    /// The last loss on held-out images.
    pub val_loss: Option<f64>,
    /// The loss of predicting the mean of what is visible beside it.
    pub baseline_loss: Option<f64>,
    /// Held-out images whose class had the highest score, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top1: Option<f64>,
    /// Those whose class was among the five highest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top5: Option<f64>,
    /// The best top-1 so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_top1: Option<f64>,
    /// The update of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_update: Option<u64>,
    /// Unreadable images so far.
    pub skipped: u64,
    /// Time spent so far, over all sittings.
    pub seconds: f64,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: String,
    updates: u64,
    files: BTreeMap<String, FileEntry>,
}

#[derive(Serialize, Deserialize, PartialEq)]
struct FileEntry {
    bytes: u64,
    crc32c: u32,
}

/// A checkpoint's contents, read and verified.
pub struct Checkpoint {
    /// Where it lies.
    pub path: PathBuf,
    /// Where the run stood.
    pub state: State,
    /// The running mean of the weights, if the run keeps one.
    pub average: Option<Vec<f32>>,
    values: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Checkpoint {
    /// Puts weights and moments into a backend.
    pub fn restore(&self, backend: &impl Backend) {
        backend.write_slot(Slot::Values, &self.values);
        backend.write_slot(Slot::FirstMoment, &self.first);
        backend.write_slot(Slot::SecondMoment, &self.second);
    }
}

/// Saves `checkpoints/step-N` in a run folder and deletes all but the newest `keep`.
///
/// # Errors
/// If writing fails; older checkpoints are then untouched and nothing half-written stays.
pub fn save(
    run: &Path,
    backend: &impl Backend,
    average: Option<&[f32]>,
    state: &State,
    metadata: &HashMap<String, String>,
    keep: usize,
) -> Result<PathBuf> {
    let folder = run.join("checkpoints");
    let path = folder.join(format!("step-{}", state.updates));
    if path.join(MANIFEST_FILE).is_file() && read(&path, backend.table()).is_ok() {
        return Ok(path); // the same update of the same run: the same bits
    }
    let partial = folder.join(format!(".step-{}.partial", state.updates));
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let written = write_files(&partial, backend, average, state, metadata).and_then(|()| {
        let _ = fs::remove_dir_all(&path); // a damaged one of the same name
        fs::rename(&partial, &path).map_err(Error::io(&path))?;
        Ok(sync_folder(&folder)?)
    });
    if let Err(error) = written {
        let _ = fs::remove_dir_all(&partial); // give the space back; the error is what matters
        return Err(error);
    }
    for (_, old) in list(run)?.into_iter().rev().skip(keep) {
        fs::remove_dir_all(&old).map_err(Error::io(&old))?;
    }
    Ok(path)
}

fn write_files(
    partial: &Path,
    backend: &impl Backend,
    average: Option<&[f32]>,
    state: &State,
    metadata: &HashMap<String, String>,
) -> Result<()> {
    let _ = fs::remove_dir_all(partial);
    fs::create_dir_all(partial).map_err(Error::io(partial))?;
    let table = backend.table();
    let values = backend.read_slot(Slot::Values);
    weights::save(&partial.join(MODEL_FILE), table, &[("", &values)], metadata.clone())?;
    drop(values);
    if let Some(average) = average {
        weights::save(&partial.join(AVERAGE_FILE), table, &[("", average)], metadata.clone())?;
    }
    let (first, second) = (backend.read_slot(Slot::FirstMoment), backend.read_slot(Slot::SecondMoment));
    weights::save(&partial.join(OPTIMIZER_FILE), table, &[(FIRST, &first), (SECOND, &second)], HashMap::new())?;
    let text = serde_json::to_vec_pretty(state).expect("numbers serialise");
    write_atomically(&partial.join(STATE_FILE), &text)?;

    let mut files = BTreeMap::new();
    let average = average.map(|_| AVERAGE_FILE);
    for name in [MODEL_FILE, OPTIMIZER_FILE, STATE_FILE].into_iter().chain(average) {
        let path = partial.join(name);
        File::open(&path).and_then(|f| f.sync_all()).map_err(Error::io(&path))?;
        files.insert(name.to_owned(), entry(&path)?);
    }
    let manifest = Manifest { version: env!("CARGO_PKG_VERSION").into(), updates: state.updates, files };
    write_atomically(&partial.join(MANIFEST_FILE), &serde_json::to_vec_pretty(&manifest).expect("numbers serialise"))?;
    Ok(sync_folder(partial)?)
}

fn entry(path: &Path) -> Result<FileEntry> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    Ok(FileEntry { bytes: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes) })
}

/// Complete checkpoints of a run, oldest first, with their update numbers.
///
/// # Errors
/// If the folder cannot be listed.
pub fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let folder = run.join("checkpoints");
    let mut found = Vec::new();
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        // no run yet, or a file in its place, which whoever opens the run folder says
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(found),
        Err(e) => return Err(Error::io(&folder)(e)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io(&folder))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Some(updates) = name.strip_prefix("step-").and_then(|n| n.parse().ok())
            && path.join(MANIFEST_FILE).is_file()
        {
            found.push((updates, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The newest sound checkpoint of a run, and what was wrong with newer ones.
///
/// # Errors
/// If checkpoints are there but none is sound, or the weights do not fit the table.
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
/// If a file is damaged, or the weights do not fit the table.
pub fn read(path: &Path, table: &ParameterTable) -> Result<Checkpoint> {
    let listed = manifest(path)?;
    for (name, expected) in &listed.files {
        check_file(&path.join(name), expected)?;
    }
    let average = match listed.files.contains_key(AVERAGE_FILE) {
        true => Some(WeightsFile::read(&path.join(AVERAGE_FILE))?.flat(table, "")?),
        false => None,
    };
    let state = read_state(path)?;
    let values = WeightsFile::read(&path.join(MODEL_FILE))?.flat(table, "")?;
    let optimizer = WeightsFile::read(&path.join(OPTIMIZER_FILE))?;
    Ok(Checkpoint {
        path: path.to_owned(),
        state,
        average,
        values,
        first: optimizer.flat(table, FIRST)?,
        second: optimizer.flat(table, SECOND)?,
    })
}

/// The file of a checkpoint whose weights are to be used: their running mean if there is one.
pub fn weights_to_use(path: &Path) -> PathBuf {
    let average = path.join(AVERAGE_FILE);
    if average.is_file() { average } else { path.join(MODEL_FILE) }
}

/// Checks one file of a checkpoint against its manifest.
///
/// # Errors
/// If the file is damaged or not listed.
pub fn verify(path: &Path, file: &Path) -> Result<()> {
    let listed = manifest(path)?;
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match listed.files.get(name) {
        Some(expected) => check_file(file, expected),
        None => Err(Error::Damaged { path: file.to_owned(), reason: "is not listed in its manifest".into() }),
    }
}

fn manifest(path: &Path) -> Result<Manifest> {
    let file = path.join(MANIFEST_FILE);
    let text = fs::read(&file).map_err(Error::io(&file))?;
    serde_json::from_slice(&text).map_err(|e| Error::Damaged { path: file, reason: format!("is not a manifest: {e}") })
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
    Err(damaged(format!("has {} bytes or other contents, its manifest says {}", found.bytes, expected.bytes)))
}

fn read_state(path: &Path) -> Result<State> {
    let file = path.join(STATE_FILE);
    let text = fs::read(&file).map_err(Error::io(&file))?;
    serde_json::from_slice(&text).map_err(|e| Error::Damaged { path: file, reason: format!("is not a state: {e}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_engine::{Cpu, Precision};

    fn backend(values: &[f32]) -> Cpu {
        let mut table = ParameterTable::default();
        table.add("a", &[values.len()]);
        let cpu = Cpu::new(table, Precision::F32, 1);
        for (slot, factor) in [(Slot::Values, 1.0), (Slot::FirstMoment, 2.0), (Slot::SecondMoment, 3.0)] {
            cpu.write_slot(slot, &values.iter().map(|v| v * factor).collect::<Vec<_>>());
        }
        cpu
    }

    fn save_at(run: &Path, cpu: &Cpu, updates: u64) -> PathBuf {
        save(run, cpu, None, &State { updates, ..State::default() }, &HashMap::new(), 2).unwrap()
    }

    #[test]
    fn what_is_saved_is_restored() {
        let run = tempfile::tempdir().unwrap();
        let cpu = backend(&[1.0, -2.0]);
        save_at(run.path(), &cpu, 5);
        let other = backend(&[0.0, 0.0]);
        let (checkpoint, damaged) = newest(run.path(), other.table()).unwrap();
        let checkpoint = checkpoint.unwrap();
        checkpoint.restore(&other);
        assert!(damaged.is_empty());
        assert_eq!(checkpoint.state.updates, 5);
        for slot in [Slot::Values, Slot::FirstMoment, Slot::SecondMoment] {
            assert_eq!(other.read_slot(slot), cpu.read_slot(slot));
        }
    }

    #[test]
    fn only_the_newest_are_kept() {
        let run = tempfile::tempdir().unwrap();
        let cpu = backend(&[1.0]);
        for updates in [2, 10, 9, 30] {
            save_at(run.path(), &cpu, updates);
        }
        let numbers: Vec<u64> = list(run.path()).unwrap().into_iter().map(|(n, _)| n).collect();
        assert_eq!(numbers, [10, 30]);
    }

    #[test]
    fn a_damaged_checkpoint_gives_way_to_the_one_before() {
        let run = tempfile::tempdir().unwrap();
        let cpu = backend(&[1.0]);
        save_at(run.path(), &cpu, 1);
        let newer = save_at(run.path(), &cpu, 2);
        let file = newer.join(MODEL_FILE);
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
        let (checkpoint, damaged) = newest(run.path(), cpu.table()).unwrap();
        assert_eq!(checkpoint.unwrap().state.updates, 1);
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
    fn weights_of_another_shape_are_an_error_not_a_damage() {
        let run = tempfile::tempdir().unwrap();
        save_at(run.path(), &backend(&[1.0, 2.0]), 1);
        let error = newest(run.path(), backend(&[1.0]).table()).err().unwrap();
        assert!(matches!(error, Error::WeightShape { .. }), "{error}");
    }
}
