//! Whether two collections share images, by their places: a model that is validated on what it was trained on looks better
//! than it is.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::Source;

/// Images that two collections share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// How many images of the second one are in the first one too.
    pub images: usize,
    /// The first of them.
    pub first: String,
}

/// The images of `held_out` that are in `training` too, whatever way their paths are written; `None` if there are none. Copies
/// are other images.
#[must_use]
pub fn overlap(training: &dyn Source, held_out: &dyn Source) -> Option<Overlap> {
    let mut places = Places::default();
    let held: HashMap<PathBuf, usize> = (0..held_out.len()).map(|i| (places.of(&held_out.name(i)), i)).collect();
    let shared: HashSet<usize> =
        (0..training.len()).filter_map(|i| held.get(&places.of(&training.name(i))).copied()).collect();
    let first = held_out.name(*shared.iter().min()?);
    Some(Overlap { images: shared.len(), first })
}

/// Finds where images lie, without asking the system again for each image of a folder.
#[derive(Default)]
struct Places {
    real: HashMap<PathBuf, PathBuf>,
}

impl Places {
    /// The place of an image with this name: the path of its folder, or of its archive, without links, and the rest of the name.
    fn of(&mut self, name: &str) -> PathBuf {
        let path = Path::new(name);
        let (Some(folder), Some(file)) = (path.parent(), path.file_name()) else { return path.to_owned() };
        let real = self.real.entry(folder.to_owned()).or_insert_with(|| {
            let whole = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            // `archive.tar:folder/image.png` lies in no folder of the system
            let of_archive = || {
                let (archive, rest) = folder.to_str()?.split_once(':')?;
                Some(PathBuf::from(format!("{}:{rest}", Path::new(archive).canonicalize().ok()?.display())))
            };
            whole.canonicalize().ok().or_else(of_archive).unwrap_or_else(|| folder.to_owned())
        });
        let place = real.join(file);
        // a split may be made of links
        match place.is_symlink() {
            true => place.canonicalize().unwrap_or(place),
            false => place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Subset;
    use std::fs;
    use std::sync::Arc;

    #[test]
    fn the_same_images_are_found_however_they_are_named() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path).display().to_string();
        fs::create_dir_all(at("photos/val")).unwrap();
        for image in ["photos/a.png", "photos/val/b.png", "photos/val/c.png", "d.png"] {
            fs::write(at(image), "").unwrap();
        }
        fs::write(at("list.csv"), "path\nphotos/../photos/val/c.png\nd.png\n").unwrap();
        let open = |spec: &str| crate::open(spec, 3).unwrap();
        let shared = |training: &str, held_out: &str| {
            let (training, held_out) = (open(&at(training)), open(&at(held_out)));
            overlap(&*training, &*held_out).map(|Overlap { images, first }| (images, first))
        };
        assert_eq!(shared("photos", "photos/val"), Some((2, at("photos/val/b.png"))));
        assert_eq!(shared("photos/val", "photos"), Some((2, at("photos/val/b.png"))));
        assert_eq!(shared("photos/../photos/val", "list.csv"), Some((1, at("photos/../photos/val/c.png"))));
        assert_eq!(shared("photos/a.png", "photos/val"), None);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(at("photos"), at("link")).unwrap();
            assert_eq!(shared("link", "photos/val").map(|(images, _)| images), Some(2));
            fs::create_dir(at("split")).unwrap();
            std::os::unix::fs::symlink(at("photos/val/b.png"), at("split/b.png")).unwrap();
            assert_eq!(shared("split", "photos/val"), Some((1, at("photos/val/b.png"))));
        }
        // an image twice is one
        let twice = Subset::of(open(&at("photos/val")), vec![0, 0, 1]);
        let halves = [0, 1].map(|i| Arc::new(Subset::of(open(&at("photos/val")), vec![i])));
        assert_eq!(overlap(&twice, &*halves[0]).map(|shared| shared.images), Some(1));
        assert_eq!(overlap(&*halves[0], &*halves[1]), None);
    }

    #[test]
    fn members_of_archives_are_found_by_the_path_of_the_archive() {
        let root = tempfile::tempdir().unwrap();
        let archive = root.path().join("a.tar");
        fs::write(&archive, "").unwrap();
        let mut places = Places::default();
        let [one, other] = ["./", "../"].map(|way| {
            let folder = if way == "./" {
                root.path().join(".")
            } else {
                root.path().join("..").join(root.path().file_name().unwrap())
            };
            [":x/1.png", ":1.png"].map(|member| places.of(&format!("{}{member}", folder.join("a.tar").display())))
        });
        assert_eq!(one, other);
        assert_ne!(one[0], one[1]);
    }
}
