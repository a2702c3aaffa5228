//! The files of `--out`, of which there is one for each ending: looked at before the work begins, which may take long.

use anyhow::Context;
use simmim::Error;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

/// Files to write.
#[derive(Default)]
pub(super) struct Outputs {
    pub(super) html: Option<PathBuf>,
    pub(super) png: Option<PathBuf>,
    pub(super) csv: Option<PathBuf>,
}

impl Outputs {
    /// The files by their endings; their folders are made.
    ///
    /// # Errors
    /// If an ending is another or there twice, or what is there already is neither a page nor a table with `columns`.
    pub(super) fn of(paths: &[PathBuf], columns: &[&str]) -> anyhow::Result<Self> {
        let mut outputs = Self::default();
        for path in paths {
            let place = match path.extension().and_then(|extension| extension.to_str()) {
                Some("html") => &mut outputs.html,
                Some("png") => &mut outputs.png,
                Some("csv") => &mut outputs.csv,
                Some(_) | None => {
                    let what = format!("`--out {}` does not say what to write", path.display());
                    let hint = Some("name a file `.html`, `.png` or `.csv`; --out may be given for each".into());
                    return Err(Error::Input { what, hint }.into());
                }
            };
            if let Some(other) = place.replace(path.clone()) {
                let what = format!("`--out {}` and `--out {}` are of one kind", other.display(), path.display());
                return Err(Error::Input { what, hint: Some("give one of them".into()) }.into());
            }
            check_place("--out", path)?;
            if path.exists() && !path.is_file() {
                return Err(foreign(path, "is no file"));
            }
        }
        if let Some(path) = outputs.html.as_deref().filter(|path| path.exists() && !is_page(path)) {
            return Err(foreign(path, "is no page"));
        }
        if let Some(path) = outputs.csv.as_deref().filter(|path| path.exists() && !begins_with(path, columns)) {
            return Err(foreign(path, &format!("has other columns than {}", columns.join(", "))));
        }
        Ok(outputs)
    }

    /// Refuses to replace one of these images by a picture.
    ///
    /// # Errors
    /// If the picture would be one of them.
    pub(super) fn spare<'a>(&self, images: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
        let Some(png) = &self.png else { return Ok(()) };
        match is_among(png, images) {
            None => Ok(()),
            Some(_) => Err(foreign(png, "is one of the images")),
        }
    }

    /// The files, in the order html, png, csv.
    pub(super) fn all(&self) -> Vec<&PathBuf> {
        self.html.iter().chain(&self.png).chain(&self.csv).collect()
    }
}

/// The number of the name that leads to the same existing file as a path. Only those of files of one name are looked up.
pub(super) fn is_among<'a>(path: &Path, mut names: impl Iterator<Item = &'a str>) -> Option<usize> {
    let real = path.canonicalize().ok()?;
    let end = real.file_name()?;
    names.position(|name| {
        Path::new(name).file_name() == Some(end) && Path::new(name).canonicalize().is_ok_and(|name| name == real)
    })
}

/// Makes the folder of a file that is written after a long time, and tries whether a file can be written there.
///
/// # Errors
/// If that is not possible, or the path is a folder.
pub(super) fn check_place(option: &str, path: &Path) -> anyhow::Result<()> {
    if path.is_dir() {
        let what = format!("`{option} {}` is a folder", path.display());
        let hint = Some("name the file to write, such as `collection.html` in it".into());
        return Err(Error::Input { what, hint }.into());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let probe = folder.join(format!(".simmim-{}", std::process::id()));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::File::create(&probe))
        .and_then(|_| std::fs::remove_file(&probe))
        .map_err(Error::from)
        .with_context(|| format!("`{}`", folder.display()))
}

/// Whether a file begins as a page of this program does, so that it may be replaced by a newer one.
pub(super) fn is_page(path: &Path) -> bool {
    let mut start = [0; 14];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start.eq_ignore_ascii_case(b"<!doctype html")
}

/// Whether the first line of a file is that of these columns.
fn begins_with(path: &Path, columns: &[&str]) -> bool {
    let mut line = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| BufReader::new(file.take(1000)).read_until(b'\n', &mut line));
    read.is_ok() && line.trim_ascii_end() == columns.join(",").as_bytes()
}

pub(super) fn foreign(path: &Path, why: &str) -> anyhow::Error {
    let what = format!("`{}` is there already and {why}", path.display());
    Error::Input { what, hint: Some("name another file, which it would not replace".into()) }.into()
}
