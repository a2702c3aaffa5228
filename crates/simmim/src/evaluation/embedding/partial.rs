//! Features that are not finished: the rows so far, and a manifest that says what they are of, so that the same command
//! goes on behind the last of them.
//!
//! The manifest is replaced once its rows are on the disk. Whatever lies behind them is of no use and is cut off. So a
//! process may be killed at any moment.

use super::beside;
use crate::error::{Error, Result};
use crate::run::files::write_atomically;
use serde::{Deserialize, Serialize};
use simmim_data::Skipped;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes before the rows: room for the header of an array of NumPy.
pub(super) const HEADER: usize = 128;

/// Time between two manifests: as much is computed again behind a process that was killed.
const SAVE_EVERY: Duration = Duration::from_secs(2);

/// Rows that are not finished, as two files beside the one that they will be.
pub(super) struct Partial {
    rows_path: PathBuf,
    manifest_path: PathBuf,
    rows: BufWriter<File>,
    manifest: Manifest,
    saved: Option<Instant>,
}

/// What the rows are of, and how many there are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Manifest {
    /// All that they depend on, by name.
    of: Vec<(String, String)>,
    /// Images done, from the first one on.
    done: usize,
    /// Images among them that can be read, which have a row.
    images: usize,
    /// Shape of a row.
    shape: Vec<usize>,
    /// Checksum of the bytes of all rows.
    crc32c: u32,
    unreadable: Vec<Unreadable>,
}

/// An image that could not be read.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Unreadable {
    index: usize,
    name: String,
    reason: String,
}

impl Partial {
    /// Opens what is left of the features in `out`, or begins them. Images are done in batches of `batch`, and there are
    /// `total`. Also returns why what was left is not used, if so.
    ///
    /// # Errors
    /// If it is left by another command, another process writes it, or a file cannot be written.
    pub(super) fn open(
        out: &Path,
        of: Vec<(String, String)>,
        batch: usize,
        total: usize,
    ) -> Result<(Self, Option<String>)> {
        let (rows_path, manifest_path) = (beside(out, ".partial"), beside(out, ".partial.json"));
        let left = match fs::read(&manifest_path) {
            Ok(bytes) => Some(serde_json::from_slice::<Manifest>(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io(&manifest_path)(error)),
        };
        if let Some(Ok(left)) = &left
            && let Some(difference) = difference(&left.of, &of)
        {
            return Err(Error::Input {
                what: format!("`{}` holds features that another command began: {difference}", rows_path.display()),
                hint: Some(format!(
                    "run that command to its end, remove `{}`, or choose another --out",
                    manifest_path.display()
                )),
            });
        }
        let were_there = rows_path.exists();
        let rows = File::options().read(true).write(true).create(true).truncate(false).open(&rows_path);
        let mut rows = rows.map_err(Error::io(&rows_path))?;
        lock(&rows, &rows_path)?;
        let mut begins_anew = None;
        let manifest = match left {
            None => None,
            // it was finished, and killed before it removed the manifest
            Some(Ok(left)) if left.done == total && !were_there => None,
            Some(Ok(left)) => {
                let damage = damage(&left, &mut rows, batch, total).map_err(Error::io(&rows_path))?;
                begins_anew = damage.map(|damage| format!("`{}` {damage}", rows_path.display()));
                Some(left).filter(|_| begins_anew.is_none())
            }
            Some(Err(error)) => {
                begins_anew = Some(format!("`{}` cannot be read: {error}", manifest_path.display()));
                None
            }
        };
        let manifest = match manifest {
            Some(manifest) => manifest,
            None => {
                remove(&manifest_path)?;
                Manifest { of, ..Manifest::default() }
            }
        };
        let length = manifest.length();
        let cut = rows.set_len(length).and_then(|()| rows.seek(SeekFrom::Start(length)));
        cut.map_err(Error::io(&rows_path))?;
        let rows = BufWriter::new(rows);
        Ok((Self { rows_path, manifest_path, rows, manifest, saved: None }, begins_anew))
    }

    /// Number of images done.
    pub(super) fn done(&self) -> usize {
        self.manifest.done
    }

    /// Number of rows.
    pub(super) fn images(&self) -> usize {
        self.manifest.images
    }

    /// Shape of a row; empty before there is one.
    pub(super) fn shape(&self) -> &[usize] {
        &self.manifest.shape
    }

    /// Images that could not be read.
    pub(super) fn unreadable(&self) -> Vec<Skipped> {
        let skipped =
            |image: &Unreadable| Skipped { index: image.index, name: image.name.clone(), reason: image.reason.clone() };
        self.manifest.unreadable.iter().map(skipped).collect()
    }

    /// Adds the next images: `values` are the rows of those that can be read.
    pub(super) fn add(&mut self, images: usize, shape: &[usize], values: &[f32], skipped: &[Skipped]) -> Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.rows.write_all(&bytes).map_err(Error::io(&self.rows_path))?;
        let manifest = &mut self.manifest;
        manifest.crc32c = crc32c::crc32c_append(manifest.crc32c, &bytes);
        manifest.done += images + skipped.len();
        manifest.images += images;
        if images > 0 {
            manifest.shape = shape.to_vec();
        }
        manifest.unreadable.extend(skipped.iter().cloned().map(|Skipped { index, name, reason }| Unreadable {
            index,
            name,
            reason,
        }));
        match self.saved {
            Some(saved) if saved.elapsed() < SAVE_EVERY => Ok(()),
            Some(_) | None => self.save(),
        }
    }

    /// Brings all rows to the disk, and then the manifest.
    pub(super) fn save(&mut self) -> Result<()> {
        let flushed = self.rows.flush().and_then(|()| self.rows.get_ref().sync_data());
        flushed.map_err(Error::io(&self.rows_path))?;
        let manifest = serde_json::to_vec(&self.manifest).expect("a manifest is JSON");
        write_atomically(&self.manifest_path, &manifest)?;
        self.saved = Some(Instant::now());
        Ok(())
    }

    /// Calls `take` with every row.
    #[cfg(feature = "parquet")]
    pub(super) fn each_row(&mut self, mut take: impl FnMut(&[f32]) -> io::Result<()>) -> io::Result<()> {
        self.rows.flush()?;
        let mut file = self.rows.get_ref();
        file.seek(SeekFrom::Start(HEADER as u64))?;
        let mut file = BufReader::new(file);
        let mut bytes = vec![0; 4 * self.manifest.shape.iter().product::<usize>()];
        let mut row = vec![0.0; bytes.len() / 4];
        for _ in 0..self.manifest.images {
            file.read_exact(&mut bytes)?;
            for (value, bytes) in row.iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes(bytes.try_into().expect("there are four"));
            }
            take(&row)?;
        }
        Ok(())
    }

    /// Writes the header before the rows, and gives their file its final name.
    pub(super) fn finish_as(mut self, out: &Path, header: &[u8; HEADER]) -> Result<()> {
        let rows = &mut self.rows;
        let written = rows.flush().and_then(|()| rows.seek(SeekFrom::Start(0))).and_then(|_| rows.write_all(header));
        let written = written.and_then(|()| rows.flush()).and_then(|()| rows.get_ref().sync_all());
        written.map_err(Error::io(&self.rows_path))?;
        let (rows_path, manifest_path) = self.into_paths();
        fs::rename(&rows_path, out).map_err(Error::io(out))?;
        remove(&manifest_path)
    }

    /// Removes both files.
    pub(super) fn remove(self) -> Result<()> {
        let (rows_path, manifest_path) = self.into_paths();
        remove(&rows_path)?;
        remove(&manifest_path)
    }

    /// Closes the file, since some systems neither rename nor remove an open one.
    fn into_paths(self) -> (PathBuf, PathBuf) {
        let _ = self.rows.into_parts(); // what is not written belongs to no manifest
        (self.rows_path, self.manifest_path)
    }
}

impl Manifest {
    /// Bytes of a file with these rows; the header is there once a row is.
    fn length(&self) -> u64 {
        HEADER as u64 + 4 * (self.images * self.shape.iter().product::<usize>()) as u64
    }
}

/// Locks the rows against other processes, until their file is closed.
fn lock(rows: &File, path: &Path) -> Result<()> {
    match rows.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Error::Input {
            what: format!("`{}` is in use by another process", path.display()),
            hint: Some("wait for it, or choose another --out".into()),
        }),
        Err(TryLockError::Error(error)) => Err(Error::io(path)(error)),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What is not the same in two lists of what features depend on.
fn difference(left: &[(String, String)], now: &[(String, String)]) -> Option<String> {
    let value =
        |of: &[(String, String)], key: &String| of.iter().find(|(other, _)| other == key).map(|(_, v)| v.clone());
    let key = now.iter().chain(left).map(|(key, _)| key).find(|key| value(left, key) != value(now, key))?;
    let shown = |of| value(of, key).map_or("nothing".into(), |value| format!("`{value}`"));
    Some(format!("{key}: {} there, {} now", shown(left), shown(now)))
}

/// What keeps rows from being gone on with.
fn damage(manifest: &Manifest, rows: &mut File, batch: usize, total: usize) -> io::Result<Option<String>> {
    let is_whole = manifest.done == total || manifest.done.is_multiple_of(batch);
    let counted = manifest.images.checked_add(manifest.unreadable.len());
    let width = manifest.shape.iter().try_fold(1_usize, |width, size| width.checked_mul(*size));
    let size = width.and_then(|width| width.checked_mul(manifest.images)?.checked_mul(4));
    let Some(size) = size.filter(|_| is_whole && manifest.done <= total && counted == Some(manifest.done)) else {
        return Ok(Some("has a manifest that contradicts itself".into()));
    };
    let there = rows.metadata()?.len();
    let expected = HEADER as u64 + size as u64;
    if there < expected && manifest.images > 0 {
        return Ok(Some(format!("has {there} bytes of {expected}")));
    }
    rows.seek(SeekFrom::Start(HEADER as u64))?;
    let (mut rows, mut crc32c, mut block) = (BufReader::new(rows).take(size as u64), 0, vec![0; 1 << 20]);
    loop {
        match rows.read(&mut block)? {
            0 => break,
            read => crc32c = crc32c::crc32c_append(crc32c, &block[..read]),
        }
    }
    let is_same = crc32c == manifest.crc32c;
    Ok((!is_same).then(|| format!("has the checksum {crc32c:08x}, not {:08x}", manifest.crc32c)))
}
