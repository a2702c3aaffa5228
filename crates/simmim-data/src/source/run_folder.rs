//! Recognizes the folder of a run by its content: it may lie among the data, and its pictures are results.

use std::fs::read_dir;
use std::path::Path;

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
