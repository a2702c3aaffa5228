//! The classes of images in an archive by the folders in it: the rule for folders, for names.

/// Classes by folder, or the image that prevents them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ClassFolders {
    /// One for every image; empty if the images are unlabeled.
    pub(super) labels: Vec<usize>,
    pub(super) classes: Vec<String>,
    /// The index of an image that does not lie directly in a class folder although others do.
    pub(super) stray: Option<usize>,
}

impl ClassFolders {
    /// Finds the classes of `images` with these names, ordered by path, among which there are the `folders`.
    ///
    /// The folders are classes if every image lies directly in one of them. A folder around everything, which many archives
    /// have, is no class if there are folders in it.
    pub(super) fn of(images: &[String], folders: &[String]) -> Self {
        let split = |name: &String| -> Vec<String> {
            name.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
        };
        let images: Vec<Vec<String>> = images.iter().map(split).collect();
        let folders: Vec<Vec<String>> = folders.iter().map(split).collect();
        if images.is_empty() {
            return Self::default();
        }
        let mut root = 0;
        while images.iter().all(|parts| parts.len() > root + 2 && parts[root] == images[0][root]) {
            root += 1;
        }
        let stray = images.iter().position(|parts| parts.len() != root + 2);
        if let Some(stray) = stray {
            let has_folders = images.iter().any(|parts| parts.len() >= root + 2);
            return Self { stray: has_folders.then_some(stray), ..Self::default() };
        }
        let own = images.iter().map(|parts| &parts[root]);
        let empty = folders.iter().filter(|parts| parts.len() > root && parts[..root] == images[0][..root]);
        let mut classes: Vec<String> = own.chain(empty.map(|parts| &parts[root])).cloned().collect();
        classes.sort();
        classes.dedup();
        let number = |parts: &Vec<String>| classes.binary_search(&parts[root]).unwrap_or_default();
        let labels = images.iter().map(number).collect();
        Self { labels, classes, stray: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(images: &[&str], folders: &[&str], labels: &[usize], classes: &[&str], stray: Option<usize>) {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let found = ClassFolders::of(&owned(images), &owned(folders));
        assert_eq!(found, ClassFolders { labels: labels.to_vec(), classes: owned(classes), stray }, "{images:?}");
    }

    #[test]
    fn folders_in_archives_are_classes_as_on_disk() {
        check(&["cat/a", "dog/b"], &["dog/", "emu/"], &[0, 1], &["cat", "dog", "emu"], None);
        check(&["all/cat/a", "all/dog/b", "all/dog/c"], &["all/"], &[0, 1, 1], &["cat", "dog"], None);
        check(&["./cat/a", "./cat/b"], &[], &[0, 0], &["cat"], None);
        check(&["a", "b"], &[], &[], &[], None);
        check(&["cat/a", "top"], &[], &[], &[], Some(1));
        check(&["cat/a", "dog/x/y/b", "dog/z"], &[], &[], &[], Some(1));
        check(&[], &["cat/"], &[], &[], None);
    }
}
