//! The cache of Hugging Face's libraries, which share it.
//!
//! ```text
//! models--OWNER--NAME/
//!   refs/main              the commit of a branch
//!   blobs/ETAG             contents
//!   snapshots/COMMIT/FILE  links to them
//! .locks/models--OWNER--NAME/simmim.lock
//! ```

use super::address::{Address, is_commit};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The part of the cache for one revision of a model.
pub(super) struct Cache {
    root: PathBuf,
    model: PathBuf,
    revision: String,
}

impl Cache {
    pub(super) fn new(root: &Path, address: &Address) -> Self {
        let model = root.join(format!("models--{}--{}", address.owner, address.name));
        Self { root: root.to_owned(), model, revision: address.revision.clone() }
    }

    /// The folder of the whole cache.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The file that is locked while the model is fetched, where the other libraries have theirs.
    pub(super) fn lock(&self) -> PathBuf {
        self.root.join(".locks").join(self.model.file_name().unwrap_or_default()).join("simmim.lock")
    }

    /// The folder of the files of the revision, if its commit is known.
    pub(super) fn snapshot(&self) -> Option<PathBuf> {
        let commit = match is_commit(&self.revision) {
            true => self.revision.clone(),
            false => fs::read_to_string(self.model.join("refs").join(&self.revision)).ok()?.trim().to_owned(),
        };
        is_commit(&commit).then(|| self.of_commit(&commit))
    }

    fn of_commit(&self, commit: &str) -> PathBuf {
        self.model.join("snapshots").join(commit)
    }

    /// Where the content with this tag lies, or is to lie.
    pub(super) fn blob(&self, tag: &str) -> PathBuf {
        self.model.join("blobs").join(tag)
    }

    /// Names a content as a file of a commit, and the commit as that of the revision. Returns the path of the file.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub(super) fn name(&self, tag: &str, commit: &str, file: &str) -> io::Result<PathBuf> {
        let path = self.of_commit(commit).join(file);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // another process may do the same: the link appears whole, whichever is last
        let new = path.with_file_name(format!(".{tag}.{}.link", std::process::id()));
        let _ = fs::remove_file(&new);
        link(&self.blob(tag), tag, file, &new)?;
        fs::rename(&new, &path)?;
        if !is_commit(&self.revision) {
            let reference = self.model.join("refs").join(&self.revision);
            if let Some(folder) = reference.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(reference, commit)?;
        }
        Ok(path)
    }
}

/// Links a file of a snapshot to its content; the link is relative, so that the cache can be moved.
#[cfg(unix)]
fn link(_: &Path, tag: &str, file: &str, path: &Path) -> io::Result<()> {
    let up = "../".repeat(2 + file.matches('/').count());
    std::os::unix::fs::symlink(format!("{up}blobs/{tag}"), path)
}

/// Where links need rights of their own, the content is copied, as the other libraries do.
#[cfg(not(unix))]
fn link(blob: &Path, _: &str, _: &str, path: &Path) -> io::Result<()> {
    fs::copy(blob, path).map(|_| ())
}
