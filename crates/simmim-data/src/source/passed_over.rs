//! What lies among the data and is no sample, so that the user can be told: counted by reason, the first ones named.

use std::fmt::{Display, Formatter, Result};

/// Of each reason, this many are named; the others are only counted, so that a million of them take no memory.
pub const MAX_NAMED: usize = 10;

/// File extensions with a count of their own; those that are found later are counted together.
const MAX_EXTENSIONS: usize = 50;

/// What lies among the data and is no sample, grouped by reason in the order in which it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassedOver {
    groups: Vec<PassedOverGroup>,
}

/// Files, folders, members of archives or rows of lists that are no samples for the same reason.
///
/// It is shown as a sentence: the first three in backticks, the number of the others, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOverGroup {
    /// Why they are no samples.
    pub reason: PassedOverReason,
    /// How many there are.
    pub count: u64,
    /// The first of them, at most [`MAX_NAMED`].
    pub first: Vec<String>,
}

/// Why something among the data is no sample.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PassedOverReason {
    /// The folder of a run, or a link to something in one: its pictures are results.
    Run,
    /// A link to a folder that contains the link.
    Loop,
    /// A link to a folder whose images are read already, or will be.
    Repeated,
    /// A link to nothing that does not have the name of an image. One that has counts as an unreadable image.
    Nowhere,
    /// What is neither a regular file nor a folder: `a pipe`, `a socket` or `a device`.
    NotAFile(&'static str),
    /// A name that begins with a dot, or `__MACOSX`. Of a hidden folder, its content is not counted.
    Hidden,
    /// A file whose extension, in lower case, is not read.
    Extension(String),
    /// Files of further extensions, where there are more different ones than can be counted.
    OtherExtension,
    /// A file without an extension.
    NoExtension,
    /// An archive, list or array of images that is read only if it is named itself: other images lie beside it, or it lies
    /// in a sub-folder.
    Beside,
    /// A link in an archive.
    Link,
    /// A member of a shard with the name of one before it.
    SameName,
    /// One more picture of a sample that has one.
    SecondPicture,
    /// A picture in a shard whose name has a dot before that of the extension, which ends the name of the sample.
    DottedName,
    /// A label in a shard without a picture.
    NoPicture,
    /// What lies behind the end mark of a shard.
    BehindEnd,
    /// A row of a list without a path.
    NoPath,
    /// An image in a folder whose list of metadata does not name it.
    NotListed,
    /// A member of an archive that is encrypted.
    Encrypted,
    /// A member of an archive that is compressed in a way that is not read.
    Compression,
    /// A picture of which no tile has enough content.
    NoContent,
}

impl PassedOver {
    /// Nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { groups: Vec::new() }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The number of all of them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.groups.iter().map(|group| group.count).sum()
    }

    /// The groups, in the order in which the first of each was found.
    #[must_use]
    pub fn groups(&self) -> &[PassedOverGroup] {
        &self.groups
    }

    /// How many there are for a reason.
    pub(crate) fn count_of(&self, reason: &PassedOverReason) -> u64 {
        self.groups.iter().find(|group| group.reason == *reason).map_or(0, |group| group.count)
    }

    /// Counts one more, and names it if it is among the first of its reason.
    pub(crate) fn add(&mut self, name: impl Display, reason: PassedOverReason) {
        let group = self.group(reason);
        group.count += 1;
        if group.first.len() < MAX_NAMED {
            group.first.push(name.to_string());
        }
    }

    /// Counts a file that is not read because of its name.
    pub(crate) fn add_unread(&mut self, name: impl Display, extension: &str) {
        self.add(name, PassedOverReason::of_extension(extension));
    }

    /// What to do where there is nothing else: about the first of them for which this is known.
    pub(crate) fn hint(&self) -> Option<String> {
        self.groups.iter().find(|group| group.reason.may_hide_images()).map(|group| group.advice(3))
    }

    /// Adds what another part of the data passes over.
    pub(crate) fn append(&mut self, other: &Self) {
        for PassedOverGroup { reason, count, first } in &other.groups {
            let group = self.group(reason.clone());
            group.count += count;
            let free = MAX_NAMED - group.first.len();
            group.first.extend(first.iter().take(free).cloned());
        }
    }

    fn group(&mut self, reason: PassedOverReason) -> &mut PassedOverGroup {
        let place = |reason: &PassedOverReason| self.groups.iter().position(|group| group.reason == *reason);
        let is_extension = |reason: &PassedOverReason| matches!(reason, PassedOverReason::Extension(_));
        let is_one_too_many = || {
            let extensions = self.groups.iter().filter(|group| is_extension(&group.reason)).count();
            is_extension(&reason) && place(&reason).is_none() && extensions == MAX_EXTENSIONS
        };
        let reason = if is_one_too_many() { PassedOverReason::OtherExtension } else { reason };
        let place = place(&reason).unwrap_or(self.groups.len());
        if place == self.groups.len() {
            self.groups.push(PassedOverGroup { reason, count: 0, first: Vec::new() });
        }
        &mut self.groups[place]
    }
}

impl PassedOverGroup {
    /// A sentence with at most `names` names, the number of the others, and the reason.
    #[must_use]
    pub fn sentence(&self, names: usize) -> String {
        let quoted: Vec<String> = self.first.iter().take(names).map(|name| format!("`{name}`")).collect();
        let more = self.count - quoted.len() as u64;
        let quoted = quoted.join(", ");
        let [one, many] = self.reason.phrases();
        match (self.count, more) {
            (1, _) => format!("{quoted} {one}"),
            (_, 0) => format!("{quoted} {many}"),
            (_, more) => format!("{quoted} and {more} more {many}"),
        }
    }

    /// The same with what to do about it, where that is known.
    #[must_use]
    pub fn advice(&self, names: usize) -> String {
        match self.reason.advice() {
            Some(advice) => format!("{}; {advice}", self.sentence(names)),
            None => self.sentence(names),
        }
    }

    /// A sentence for each one that is named.
    pub fn sentences(&self) -> impl Iterator<Item = String> {
        let [one, _] = self.reason.phrases();
        self.first.iter().map(move |name| format!("`{name}` {one}"))
    }
}

impl PassedOverReason {
    /// The reason for a file that is not read because of its extension.
    pub(crate) fn of_extension(extension: &str) -> Self {
        if extension.is_empty() { Self::NoExtension } else { Self::Extension(extension.to_lowercase()) }
    }

    /// A name for programs: lower case, with hyphens. All extensions have the same.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Loop => "loop",
            Self::Repeated => "repeated",
            Self::Nowhere => "nowhere",
            Self::NotAFile(_) => "not-a-file",
            Self::Hidden => "hidden",
            Self::Extension(_) | Self::OtherExtension => "extension",
            Self::NoExtension => "no-extension",
            Self::Beside => "beside",
            Self::Link => "link",
            Self::SameName => "same-name",
            Self::SecondPicture => "second-picture",
            Self::DottedName => "dotted-name",
            Self::NoPicture => "no-picture",
            Self::BehindEnd => "behind-end",
            Self::NoPath => "no-path",
            Self::NotListed => "not-listed",
            Self::Encrypted => "encrypted",
            Self::Compression => "compression",
            Self::NoContent => "no-content",
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Run => Some("name it itself to read its pictures"),
            Self::Nowhere => Some("copy what it led to, or mount it"),
            Self::Extension(extension) if UNREAD_PICTURES.contains(&extension.as_str()) => {
                Some("convert to JPEG or PNG")
            }
            Self::Extension(extension) if ["csv", "tsv", "jsonl"].contains(&extension.as_str()) => {
                Some("a list of images is read if it is named itself")
            }
            Self::Beside => Some("several paths are separated by commas"),
            Self::SameName => Some("give every member a name of its own"),
            Self::SecondPicture => Some("one picture of a sample is read; give each a name of its own before the dot"),
            Self::DottedName => Some(
                "the name of a sample ends at the first dot, and the rest says what it is: write another character in its place",
            ),
            Self::NoPicture => Some("the picture of a sample has its name up to the first dot"),
            Self::BehindEnd => {
                Some("`tar` does not list it either; keep the archives apart, or join them with `tar -A`")
            }
            Self::Encrypted => Some("pack the images without a password"),
            Self::Compression => Some("pack the images stored or deflated"),
            Self::NotAFile(_) | Self::Link => Some("give regular files"),
            Self::Loop
            | Self::Repeated
            | Self::NoPath
            | Self::NotListed
            | Self::Hidden
            | Self::Extension(_)
            | Self::OtherExtension
            | Self::NoExtension
            | Self::NoContent => None,
        }
    }

    /// Whether what was passed over for this reason was probably meant as images; texts and hidden files were not.
    #[must_use]
    pub fn may_hide_images(&self) -> bool {
        match self {
            Self::Loop
            | Self::Repeated
            | Self::NotAFile(_)
            | Self::Link
            | Self::NoPath
            | Self::NotListed
            | Self::OtherExtension => true,
            Self::Run
            | Self::Nowhere
            | Self::Hidden
            | Self::Extension(_)
            | Self::NoExtension
            | Self::Beside
            | Self::SameName
            | Self::SecondPicture
            | Self::DottedName
            | Self::NoPicture
            | Self::BehindEnd
            | Self::Encrypted
            | Self::Compression
            | Self::NoContent => self.advice().is_some(),
        }
    }

    /// The reason as the end of a sentence, of one and of several.
    fn phrases(&self) -> [String; 2] {
        let fixed = |one: &str, many: &str| [one.to_owned(), many.to_owned()];
        match self {
            Self::Run => fixed("belongs to a run", "belong to runs"),
            Self::Loop => fixed("leads to a folder that contains it", "lead to folders that contain them"),
            Self::Repeated => fixed("leads to a folder that is read anyway", "lead to folders that are read anyway"),
            Self::Nowhere => fixed("is a link to nothing", "are links to nothing"),
            Self::NotAFile(what) => [format!("is {what}"), format!("are each {what}")],
            Self::Hidden => fixed("is hidden", "are hidden"),
            Self::Extension(extension) => {
                ["has", "have"].map(|verb| format!("{verb} the extension `.{extension}`, which is not read"))
            }
            Self::OtherExtension => {
                fixed("has an extension that is not read", "have other extensions that are not read")
            }
            Self::NoExtension => fixed("has no extension", "have no extension"),
            Self::Beside => fixed("is read only if it is named itself", "are read only if they are named themselves"),
            Self::Link => fixed("is a link in an archive", "are links in archives"),
            Self::SameName => fixed("has the name of a member before it", "have the names of members before them"),
            Self::SecondPicture => fixed("is one more picture of a sample", "are more pictures of samples"),
            Self::DottedName => {
                fixed("is a picture with several dots in its name", "are pictures with several dots in their names")
            }
            Self::NoPicture => fixed("is a label without a picture", "are labels without a picture"),
            Self::BehindEnd => fixed("lies behind the end mark of its archive", "lie behind the end marks of archives"),
            Self::NoPath => fixed("names no image", "name no image"),
            Self::NotListed => fixed("is not in the list of the folder", "are not in the list of the folder"),
            Self::Encrypted => fixed("is encrypted", "are encrypted"),
            Self::Compression => {
                fixed("is compressed in a way that is not read", "are compressed in ways that are not read")
            }
            Self::NoContent => fixed("has no tile with enough content", "have no tile with enough content"),
        }
    }
}

/// Extensions of pictures, films and scans that are in use and that this crate may not read: a collection of them is
/// probably meant to be read.
const UNREAD_PICTURES: &[&str] = &[
    "arw", "avif", "bif", "bmp", "cr2", "cr3", "czi", "dcm", "dds", "dib", "dng", "exr", "gif", "hdr", "heic", "heif",
    "ico", "j2k", "jfif", "jif", "jp2", "jpe", "jpg2", "jxl", "mha", "mp4", "mrxs", "ndpi", "nef", "nii", "nrrd",
    "orf", "pbm", "pcx", "pgm", "pnm", "ppm", "psd", "qoi", "raf", "raw", "rw2", "scn", "svg", "svs", "tga", "tif",
    "tiff", "vms", "webp",
];

impl Display for PassedOverGroup {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}", self.sentence(3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_are_counted_and_ten_of_each_reason_are_named() {
        let mut report = PassedOver::default();
        for number in 0..1_000_000 {
            report.add_unread(format_args!("{number}.heic"), "HEIC");
        }
        report.add("x", PassedOverReason::Run);
        assert_eq!((report.count(), report.groups().len()), (1_000_001, 2));
        let heic = &report.groups()[0];
        assert_eq!((heic.count, heic.first.len(), heic.first[9].as_str()), (1_000_000, 10, "9.heic"));
        let expected = "`0.heic`, `1.heic`, `2.heic` and 999997 more have the extension `.heic`, which is not read";
        assert_eq!(heic.to_string(), expected);
        assert_eq!(heic.advice(3), format!("{expected}; convert to JPEG or PNG"));
        assert_eq!(heic.sentences().nth(1).unwrap(), "`1.heic` has the extension `.heic`, which is not read");
        assert_eq!(report.groups()[1].to_string(), "`x` belongs to a run");
        let mut both = report.clone();
        both.append(&report);
        assert_eq!((both.count(), both.groups()[1].first.len()), (2_000_002, 2));
    }

    #[test]
    fn any_number_of_extensions_takes_no_more_memory_than_fifty() {
        let mut report = PassedOver::default();
        for number in 0..1000 {
            report.add_unread(format_args!("frame.{number}"), &number.to_string());
        }
        report.add_unread("frame.0", "0");
        assert_eq!((report.count(), report.groups().len()), (1001, MAX_EXTENSIONS + 1));
        assert_eq!(report.groups()[0].count, 2);
        assert_eq!(report.groups()[MAX_EXTENSIONS].count, 1000 - MAX_EXTENSIONS as u64);
    }
}
