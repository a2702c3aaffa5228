//! A run folder: the recipe, the log, checkpoints, pictures and the report of a run.
//!
//! ```text
//! recipe.toml      the recipe as given, with the edits
//! resolved.toml    the recipe as run: every value, and version, device, precision, data
//! log.jsonl        one JSON object per logged step
//! events.out.…     the same for TensorBoard
//! checkpoints/     step-N/
//! pictures/        predictions on the same images over time
//! report.html      all of this on one page
//! tokenizer.safetensors   of a target of tokens: the tokenizer, so that its original is not needed any more
//! ```
//!
//! A folder is locked first, then the run is built from its content, and only then is anything written. So a run that
//! cannot begin leaves no folder.

use super::checkpoint;
use super::files::{remove_leftovers, write_atomically};
use super::held::keep_tokenizer;
use super::log::{LOG_FILE, LogEntry};
use super::resolved::{RESOLVED_FILE, Resolved, read_resolved};
use crate::error::{Error, Result};
use crate::recipe::RecipeKind;
use crate::tokenizer::TOKENIZER_FILE;
use serde_json::Value;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOCK_FILE: &str = ".lock";

const RECIPE_FILE: &str = "recipe.toml";

const PICTURES_FOLDER: &str = "pictures";

/// How often a folder that others remove at the same time is created again.
const MOST_TRIES: usize = 100;

/// A run folder that is locked against other processes, before its run begins.
#[derive(Debug)]
pub struct LockedFolder {
    path: PathBuf,
    lock: Option<File>,
    /// The outermost folder that was created for it; it is removed again if the run does not begin. An empty one may stay
    /// where several processes begin at once.
    made: Option<PathBuf>,
    has_run: bool,
}

impl LockedFolder {
    /// Locks the folder of a previous run, or creates a new one.
    ///
    /// # Errors
    /// If the folder holds something other than a run, or is in use by another process.
    pub fn open(path: &Path) -> Result<Self> {
        let input = |what: String, hint: &str| Error::Input { what, hint: Some(hint.into()) };
        if fs::metadata(path).is_ok_and(|there| !there.is_dir()) {
            return Err(input(format!("`{}` is a file", path.display()), "give --out a folder"));
        }
        let has_run = path.join(RESOLVED_FILE).is_file();
        let counts = |entry: io::Result<fs::DirEntry>| !entry.is_ok_and(|entry| entry.file_name() == LOCK_FILE);
        let is_empty = fs::read_dir(path).map_or(true, |mut entries| !entries.any(counts));
        if !has_run && !is_empty && !path.join(LOCK_FILE).exists() {
            return Err(input(
                format!("`{}` is not empty and not a run", path.display()),
                "choose a new folder for --out",
            ));
        }
        let is_in_use = || {
            input(format!("`{}` is in use by another process", path.display()), "wait for it, or choose another --out")
        };
        let mut folder = Self { path: path.to_owned(), lock: None, made: None, has_run: false };
        let mut tries = 0;
        while folder.lock.is_none() {
            tries += 1;
            match lock(path) {
                Ok((lock, made)) => (folder.lock, folder.made) = (Some(lock), made),
                Err(NoLock::Held) => return Err(is_in_use()),
                Err(NoLock::Moved) if tries < MOST_TRIES => {}
                Err(NoLock::Moved) => return Err(is_in_use()),
                Err(NoLock::Failed(e)) if is_of_removal(&e) && tries < MOST_TRIES => {}
                Err(NoLock::Failed(e)) => return Err(Error::io(path)(e)),
            }
        }
        // again, because another process may have begun and ended a run before the lock was taken
        folder.has_run = path.join(RESOLVED_FILE).is_file();
        Ok(folder)
    }

    /// The run that the folder holds, if any.
    ///
    /// # Errors
    /// If it is a run of another command, or its file is damaged.
    pub fn previous<R: RecipeKind>(&self) -> Result<Option<Resolved<R>>> {
        if self.has_run { read_resolved(&self.path).map(Some) } else { Ok(None) }
    }

    /// Begins the run, or resumes the previous one if its recipe is the same. `given` is the recipe as the user gave
    /// it; `tokenizer` is the file of the target's tokenizer, if there is one, which the folder keeps.
    ///
    /// # Errors
    /// If the folder holds another run, or cannot be written.
    pub fn begin<R: RecipeKind>(
        mut self,
        given: &str,
        resolved: &Resolved<R>,
        tokenizer: Option<&Path>,
    ) -> Result<RunFolder> {
        if let Some(previous) = self.previous()?
            && let Some(difference) = previous.difference(resolved)
        {
            return Err(Error::OtherRun { path: self.path.clone(), difference });
        }
        let path = self.path.clone();
        fs::create_dir_all(path.join(PICTURES_FOLDER)).map_err(Error::io(&path))?;
        // the folder is locked: whoever wrote what is half written is gone
        for folder in [path.clone(), path.join(PICTURES_FOLDER)] {
            remove_leftovers(&folder, Duration::ZERO);
        }
        checkpoint::remove_leftovers(&path);
        if let (Some(tokenizer), Some(expected)) = (tokenizer, &resolved.run.tokenizer) {
            keep_tokenizer(&path, tokenizer, expected)?;
        }
        if !self.has_run {
            write_atomically(&path.join(RECIPE_FILE), given.as_bytes())?;
            write_atomically(&path.join(RESOLVED_FILE), resolved.to_toml().as_bytes())?;
        }
        let log_path = path.join(LOG_FILE);
        let log = File::options().create(true).append(true).open(&log_path).map_err(Error::io(&log_path))?;
        self.made = None;
        self.has_run = true;
        let lock = self.lock.take().expect("a folder is locked until its run begins");
        Ok(RunFolder { path, log, _lock: lock })
    }
}

/// Why a folder is not locked.
#[derive(Debug)]
enum NoLock {
    /// Another process holds the lock.
    Held,
    /// Another process, whose run did not begin, has removed the lock's file after it was opened.
    Moved,
    Failed(io::Error),
}

/// Whether another process may have removed the folder at that moment. If that happens while the folder is created, it may
/// seem to be a file that exists.
fn is_of_removal(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists)
}

/// Creates a folder if it does not exist and locks it. Returns the lock and the outermost folder that was created.
fn lock(path: &Path) -> std::result::Result<(File, Option<PathBuf>), NoLock> {
    let made = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).last().map(Path::to_owned);
    fs::create_dir_all(path).map_err(NoLock::Failed)?;
    let file = path.join(LOCK_FILE);
    let lock = File::create(&file).map_err(NoLock::Failed)?;
    Ok((locked(lock, &file)?, made))
}

/// Locks the file that was opened at `path`, if it is still there: a lock on one that was removed meanwhile would not keep
/// out those who make a new one.
fn locked(file: File, path: &Path) -> std::result::Result<File, NoLock> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(NoLock::Held),
        Err(TryLockError::Error(e)) => return Err(NoLock::Failed(e)),
    }
    if is_at(&file, path).map_err(NoLock::Failed)? { Ok(file) } else { Err(NoLock::Moved) }
}

/// Whether `path` still names an open file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    Ok(place(file.metadata()?) == place(fs::metadata(path)?))
}

/// Not checked: two processes that fail to begin at the same moment may both hold a lock.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

impl Drop for LockedFolder {
    /// Removes the folders of a run that did not begin. Failures are ignored: the error that stopped the run matters
    /// more.
    fn drop(&mut self) {
        if self.has_run || self.lock.is_none() {
            return;
        }
        // what `begin` wrote before it failed
        [RECIPE_FILE, RESOLVED_FILE, TOKENIZER_FILE]
            .into_iter()
            .for_each(|name| drop(fs::remove_file(self.path.join(name))));
        let _ = fs::remove_dir(self.path.join(PICTURES_FOLDER));
        let _ = fs::remove_file(self.path.join(LOCK_FILE));
        if let Some(made) = &self.made {
            let folders = self.path.ancestors().take_while(|folder| folder.starts_with(made));
            folders.for_each(|folder| drop(fs::remove_dir(folder))); // fails on folders that are not empty
        }
    }
}

/// An open run folder, locked against other processes.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    log: File,
    _lock: File,
}

impl RunFolder {
    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes log entries after step `steps`, which will be done again. If `steps` is 0, all entries are removed,
    /// because the evaluation of the untrained model is done again too.
    ///
    /// # Errors
    /// If the log cannot be read or rewritten.
    pub fn rewind_log(&mut self, steps: u64) -> Result<()> {
        let path = self.path.join(LOG_FILE);
        let bytes = fs::read(&path).map_err(Error::io(&path))?;
        // a line that a full disk cut short may end within a letter
        let is_kept = |line: &&[u8]| {
            let entry: Option<LogEntry> = serde_json::from_slice(line).ok();
            entry.and_then(|e| e.get("step")?.as_u64()).is_some_and(|step| steps > 0 && step <= steps)
        };
        let lines = bytes.split(|byte| *byte == b'\n').filter(is_kept);
        let kept: Vec<u8> = lines.flat_map(|line| [line, b"\n"].concat()).collect();
        write_atomically(&path, &kept)?;
        self.log = File::options().append(true).open(&path).map_err(Error::io(&path))?;
        Ok(())
    }

    /// Appends one object to the log.
    ///
    /// # Errors
    /// If writing fails.
    pub fn log(&mut self, entry: &Value) -> Result<()> {
        let path = self.path.join(LOG_FILE);
        self.log.write_all(format!("{entry}\n").as_bytes()).map_err(Error::io(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Recipe, resolve};
    use crate::run::{RunInfo, read_log};
    use serde_json::json;
    use std::thread;

    fn open(path: &Path, resolved: &Resolved) -> Result<RunFolder> {
        LockedFolder::open(path)?.begin("", resolved, None)
    }

    fn resolved(edits: &[&str]) -> Resolved {
        let edits: Vec<String> = edits.iter().map(|e| (*e).to_owned()).collect();
        let run = RunInfo {
            version: "1".into(),
            device: "cpu".into(),
            precision: "f32".into(),
            precision_reason: String::new(),
            threads: 2,
            seed: 0,
            data: "d".into(),
            images: 10,
            data_sample: None,
            val: None,
            val_sample: None,
            from: None,
            classes: Vec::new(),
            mean: vec![0.5],
            std: vec![0.25],
            palette: Vec::new(),
            tokenizer: None,
        };
        Resolved { recipe: resolve("demo", &edits).unwrap(), run }
    }

    #[test]
    #[cfg(unix)]
    fn a_lock_on_a_file_that_was_removed_meanwhile_does_not_count() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let first = LockedFolder::open(&path).unwrap();
        let lock_path = path.join(LOCK_FILE);
        let opened = File::open(&lock_path).unwrap(); // by a process that has not locked it yet
        drop(first); // no run began, so this removes the folder
        let _second = LockedFolder::open(&path).unwrap();
        assert!(matches!(locked(opened, &lock_path), Err(NoLock::Moved)));
        let opened = File::open(&lock_path).unwrap();
        assert!(matches!(locked(opened, &lock_path), Err(NoLock::Held)));
    }

    #[test]
    fn of_those_who_begin_at_once_all_but_one_are_told_that_the_folder_is_in_use() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let begin = || {
            for _ in 0..500 {
                if let Err(e) = LockedFolder::open(&path) {
                    assert!(e.to_string().contains("is in use by another process"), "{e}");
                }
            }
        };
        thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(begin))));
    }

    #[test]
    fn a_resolved_run_survives_its_file() {
        let resolved = resolved(&[
            "train.max_steps=5",
            "train.schedule=step",
            "train.decay_every_epochs=1.0",
            "train.decay_factor=0.5",
        ]);
        assert_eq!(Resolved::<Recipe>::from_toml(&resolved.to_toml(), Path::new("x")).unwrap(), resolved);
    }

    #[test]
    fn a_run_is_taken_up_with_its_own_recipe_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        drop(open(&path, &resolved(&[])).unwrap());
        drop(open(&path, &resolved(&["train.log_every_steps=3"])).unwrap());
        let error = open(&path, &resolved(&["train.base_lr=1.0"])).unwrap_err();
        assert!(error.to_string().contains("train.base_lr"), "{error}");
    }

    #[test]
    fn a_run_in_use_and_a_foreign_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let _open = open(&path, &resolved(&[])).unwrap();
        assert!(open(&path, &resolved(&[])).unwrap_err().to_string().contains("in use"));
        let foreign = folder.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("thesis.tex"), "x").unwrap();
        assert!(open(&foreign, &resolved(&[])).unwrap_err().to_string().contains("not a run"));
        assert!(foreign.join("thesis.tex").exists());
    }

    #[test]
    fn rewinding_drops_later_entries_and_half_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let mut run = open(&path, &resolved(&[])).unwrap();
        for step in 1..=4 {
            run.log(&json!({ "step": step })).unwrap();
        }
        run.log.write_all(b"{\"step\": 2, \"name\": \"\xc3").unwrap(); // a full disk cut it within a letter
        run.rewind_log(2).unwrap();
        run.log(&json!({ "step": 3, "again": true })).unwrap();
        let steps: Vec<_> = read_log(&path).unwrap().iter().map(|e| e["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [1, 2, 3]);

        run.log(&json!({ "step": 0 })).unwrap();
        run.rewind_log(0).unwrap();
        assert!(read_log(&path).unwrap().is_empty(), "a run without a checkpoint begins again");
    }

    #[test]
    fn a_run_whose_files_cannot_be_written_leaves_none_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let locked = LockedFolder::open(&path).unwrap();
        fs::create_dir_all(path.join(RESOLVED_FILE).join("in-the-way")).unwrap();
        assert!(locked.begin("", &resolved(&[]), None).is_err());
        fs::remove_dir_all(path.join(RESOLVED_FILE)).unwrap();
        assert!(fs::read_dir(&path).unwrap().next().is_none(), "neither recipe nor pictures nor lock");
        drop(open(&path, &resolved(&[])).unwrap());
    }

    #[test]
    fn a_run_that_does_not_begin_leaves_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs").join("first");
        drop(LockedFolder::open(&path).unwrap());
        assert!(!folder.path().join("runs").exists());
        fs::create_dir(folder.path().join("empty")).unwrap();
        drop(LockedFolder::open(&folder.path().join("empty")).unwrap());
        assert!(fs::read_dir(folder.path().join("empty")).unwrap().next().is_none(), "an own folder stays, empty");
        drop(open(&path, &resolved(&[])).unwrap());
        drop(LockedFolder::open(&path).unwrap());
        assert!(path.join("resolved.toml").is_file(), "a run stays");
    }
}
