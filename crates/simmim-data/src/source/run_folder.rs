//! Recognizes the folder of a run by its content: it may lie among the data, and its pictures are results.

use std::collections::HashMap;
use std::fs::{read_dir, read_link};
use std::path::{Path, PathBuf};

/// Locks the folder of a run. It is the first file in the folder, before the images are listed, and stays there.
const LOCK: &str = ".lock";
/// The recipe as given; it is written when the run begins.
const RECIPE: &str = "recipe.toml";
/// The recipe as run; it is written next.
const RESOLVED: &str = "resolved.toml";
/// The log of the run, from its beginning.
const LOG: &str = "log.jsonl";
/// The folder of checkpoints, from the first one.
const CHECKPOINTS: &str = "checkpoints";
/// The folder of pictures, empty when the run begins.
const PICTURES: &str = "pictures";

/// Whether `folder` holds a run, or one that is about to begin.
pub(super) fn is_run(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).is_file();
    if has(RESOLVED) {
        return has(LOCK) || has(LOG) || folder.join(CHECKPOINTS).is_dir();
    }
    has(LOCK) && (has(RECIPE) || is_untouched(folder))
}

/// Most links that are followed from one to the next, as by Linux (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// Tells which links to files lead into the folder of a run. Folders are looked at once, because a collection may consist
/// of links.
#[derive(Default)]
pub(super) struct LinksIntoRuns {
    known: HashMap<PathBuf, bool>,
}

impl LinksIntoRuns {
    /// Whether `link` leads to a file in the folder of a run, other than of one around `from`: who names a folder in a run
    /// means it.
    pub(super) fn contain(&mut self, link: &Path, from: &Path) -> bool {
        let mut path = link.to_owned();
        for _ in 0..MAX_LINKS {
            let Ok(target) = read_link(&path) else { break };
            path = path.parent().unwrap_or(Path::new("")).join(target);
        }
        let Some(folder) = path.parent() else { return false };
        if let Some(known) = self.known.get(folder) {
            return *known;
        }
        let is_in_run = |folder: PathBuf| folder.ancestors().any(|around| !from.starts_with(around) && is_run(around));
        let is_in_run = folder.canonicalize().is_ok_and(is_in_run);
        self.known.insert(folder.to_owned(), is_in_run);
        is_in_run
    }
}

/// Whether there are only hidden files and an empty folder for pictures. Other programs may lock a folder of images in
/// the same way.
fn is_untouched(folder: &Path) -> bool {
    let Ok(entries) = read_dir(folder) else { return false };
    entries.flatten().all(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with('.') || (name == PICTURES && is_empty(&entry.path()))
    })
}

fn is_empty(folder: &Path) -> bool {
    read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[track_caller]
    fn check(files: &[&str], expected: bool) {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            if file.ends_with('/') {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
        }
        assert_eq!(is_run(root.path()), expected, "{files:?}");
    }

    #[test]
    fn a_run_is_recognized_from_its_first_file_on() {
        check(&[LOCK], true);
        check(&[LOCK, "pictures/"], true);
        check(&[LOCK, "pictures/", RECIPE], true);
        check(&[LOCK, "pictures/0.png", RECIPE, RESOLVED, LOG], true);
        // a copy without hidden files, and one without a log
        check(&["pictures/0.png", RESOLVED, LOG], true);
        check(&["checkpoints/step-4/state.json", RESOLVED], true);
    }

    #[test]
    fn a_folder_of_images_is_not_taken_for_a_run() {
        check(&[], false);
        check(&["a.png"], false);
        check(&[LOCK, "a.png"], false);
        check(&[LOCK, "pictures/a.png"], false);
        check(&[RESOLVED, "a.png"], false);
        check(&[RECIPE, LOG, "checkpoints/a.png"], false);
    }
}
