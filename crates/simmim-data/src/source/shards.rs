//! WebDataset shards: tar files whose members are grouped into samples by their names.
//!
//! The rules for the names are those of <https://github.com/webdataset/webdataset> (`webdataset/tariterators.py`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::gzip::Indexer;
use super::kind::is_compressed_tar;
use super::passed_over::PassedOverReason;
use super::place::Place;
use super::storage::{Reader, Storage};
use super::tar::{Fault, Member, MemberKind, Members, Stream};
use super::{PassedOver, Source, by_path, encoded, is_ignored, is_image, names};
use crate::encoded::Encoded;
use crate::error::{Error, Result};

pub(super) struct Shards {
    shards: Vec<Arc<dyn Storage>>,
    samples: Vec<Indexed>,
    classes: Vec<String>,
    channels: usize,
    passed_over: PassedOver,
}

/// Where the image of a sample lies, and its labels.
struct Indexed {
    shard: u32,
    offset: u64,
    size: u64,
    member: String,
    labels: Vec<usize>,
}

impl Shards {
    /// Indexes the members of all shards; it reads only headers and labels.
    pub(super) fn open(places: &[Place], channels: usize) -> Result<Self> {
        let (mut shards, mut samples, mut passed_over) = (Vec::new(), Vec::new(), PassedOver::new());
        let mut given: Option<(PathBuf, Vec<String>)> = None;
        for (number, place) in places.iter().enumerate() {
            let (shard, found) = open_one(place.storage()?, number as u32, &mut passed_over)?;
            given = agreed(given, &*shard)?;
            shards.push(shard);
            samples.extend(found);
        }
        if samples.is_empty() {
            let path = places.first().map(|place| place.shown().to_owned()).unwrap_or_default();
            return Err(Error::NoSamples { path, passed_over });
        }
        let name = |index: usize| name(places[samples[index].shard as usize].shown(), &samples[index].member);
        let labels = samples.iter().map(|sample| sample.labels.iter().max().copied());
        let classes = names::of(labels, given.map(|(_, names)| names), name)?;
        Ok(Self { shards, samples, classes, channels, passed_over })
    }
}

impl Source for Shards {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self, index: usize) -> String {
        let Indexed { shard, member, .. } = &self.samples[index];
        name(self.shards[*shard as usize].path(), member)
    }

    fn encoded(&self, index: usize) -> Result<Encoded> {
        let Indexed { shard, offset, size, .. } = self.samples[index];
        let name = self.name(index);
        Ok(Encoded::file(encoded(&*self.shards[shard as usize], offset, size, &name)?, self.channels, name))
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.samples[index].labels.first().copied()
    }

    fn labels(&self, index: usize) -> Vec<usize> {
        self.samples[index].labels.clone()
    }

    fn passed_over(&self) -> &PassedOver {
        &self.passed_over
    }
}

/// Indexes one shard. One that is compressed is decompressed once for that.
fn open_one(
    file: Arc<dyn Storage>,
    number: u32,
    passed_over: &mut PassedOver,
) -> Result<(Arc<dyn Storage>, Vec<Indexed>)> {
    let path = &file.path().to_owned();
    if !is_compressed_tar(&path.to_string_lossy()) {
        let samples = index(&mut Reader::new(Arc::clone(&file)), path, number, passed_over)?;
        return Ok((file, samples));
    }
    let mut indexer = Indexer::new(file);
    let samples = index(&mut indexer, path, number, passed_over)?;
    let shard = indexer.finish().map_err(|cause| broken(path, Fault::Read(cause)))?;
    Ok((Arc::new(shard), samples))
}

fn name(shard: &Path, member: &str) -> String {
    format!("{}:{member}", shard.display())
}

/// Returns the class names given so far, or else those beside a shard; if there are both, they must agree.
fn agreed(given: Option<(PathBuf, Vec<String>)>, shard: &dyn Storage) -> Result<Option<(PathBuf, Vec<String>)>> {
    let path = shard.path();
    match given {
        Some((first, names)) if first.parent() == path.parent() => Ok(Some((first, names))),
        None => Ok(names::read_beside(shard)?.map(|names| (path.to_owned(), names))),
        Some((first, first_names)) => {
            let second = names::read_beside(shard)?.unwrap_or_else(|| first_names.clone());
            if first_names == second {
                return Ok(Some((first, first_names)));
            }
            let (first, path) = (first.display().to_string(), path.display().to_string());
            Err(super::concat::disagreement((&first, &first_names), (&path, &second)))
        }
    }
}

/// A sample whose members are being collected.
#[derive(Default)]
struct Group {
    image: Option<Member>,
    labels: Vec<usize>,
    /// The member with the labels.
    label_member: Option<String>,
}

/// Returns the samples of one shard, ordered by path.
fn index(stream: &mut impl Stream, path: &Path, shard: u32, passed_over: &mut PassedOver) -> Result<Vec<Indexed>> {
    let mut members = Members::new(stream);
    let mut keys: HashMap<String, usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    while let Some(member) = members.next().map_err(|fault| broken(path, fault))? {
        let role = match Role::of(&member) {
            Ok(role) => role,
            Err(Some(reason)) => {
                passed_over.add(name(path, &member.name), reason);
                continue;
            }
            Err(None) => continue,
        };
        let place = *keys.entry(role.key().to_owned()).or_insert_with(|| {
            groups.push(Group::default());
            groups.len() - 1
        });
        let group = &mut groups[place];
        let reason = match (role, &group.image, &group.label_member) {
            (Role::Image(_), None, _) => {
                group.image = Some(member);
                continue;
            }
            (Role::Label(_), _, None) => {
                let text = members.content(&member, LONGEST_LABEL).map_err(|fault| broken(path, fault))?;
                group.labels = class_numbers(&text, path, &member.name)?;
                group.label_member = Some(member.name);
                continue;
            }
            (Role::Image(_), Some(image), _) if image.name == member.name => PassedOverReason::SameName,
            (Role::Label(_), _, Some(_)) => PassedOverReason::SameName,
            (Role::Dotted(_), None, _) => PassedOverReason::DottedName,
            (Role::Image(_) | Role::Dotted(_), Some(_), _) => PassedOverReason::SecondPicture,
        };
        passed_over.add(name(path, &member.name), reason);
    }
    if let Some(end) = members.behind_end() {
        passed_over.add(format_args!("{} from byte {end} on", path.display()), PassedOverReason::BehindEnd);
    }
    let mut samples = Vec::new();
    for Group { image, labels, label_member } in groups {
        match (image, label_member) {
            (Some(Member { name: member, offset, size, .. }), _) => {
                samples.push(Indexed { shard, offset, size, member, labels });
            }
            (None, Some(label)) => passed_over.add(name(path, &label), PassedOverReason::NoPicture),
            (None, None) => {}
        }
    }
    samples.sort_by(|first, second| by_path(&first.member, &second.member));
    Ok(samples)
}

/// What a member is to its sample, with the name of the sample.
enum Role<'a> {
    Image(&'a str),
    Label(&'a str),
    /// A picture with another dot before that of its extension: a picture of its own, or one more of a sample.
    Dotted(&'a str),
}

impl<'a> Role<'a> {
    /// Returns the role of a member, or else why it has none; folders need no reason.
    fn of(member: &'a Member) -> std::result::Result<Self, Option<PassedOverReason>> {
        match member.kind {
            MemberKind::File => {}
            MemberKind::Folder => return Err(None),
            MemberKind::Link => return Err(Some(PassedOverReason::Link)),
            MemberKind::Other(what) => return Err(Some(PassedOverReason::NotAFile(what))),
        }
        if member.name.split('/').any(is_ignored) {
            return Err(Some(PassedOverReason::Hidden));
        }
        let (key, extension) = parts(&member.name).ok_or(Some(PassedOverReason::NoExtension))?;
        let last = extension.rsplit('.').next().unwrap_or(&extension);
        match extension.as_str() {
            "cls" => Ok(Self::Label(key)),
            whole if is_image(whole) => Ok(Self::Image(key)),
            _ if is_image(last) => Ok(Self::Dotted(key)),
            _ => Err(Some(PassedOverReason::of_extension(last))),
        }
    }

    fn key(&self) -> &'a str {
        match self {
            Self::Image(key) | Self::Label(key) | Self::Dotted(key) => key,
        }
    }
}

/// A list of class numbers is read up to this many bytes; real ones are shorter.
const LONGEST_LABEL: u64 = 4096;

fn broken(path: &Path, fault: Fault) -> Error {
    let path = path.to_owned();
    match fault {
        Fault::CutShort { offset, length } => Error::TruncatedTar { path, offset, length },
        Fault::Invalid { offset, what } => Error::BadTar { path, offset, what },
        Fault::Read(cause) if cause.kind() == std::io::ErrorKind::InvalidData => {
            Error::BadArchive { name: path.display().to_string(), what: cause.to_string() }
        }
        Fault::Read(cause) => Error::Read { path, cause },
    }
}

/// Splits the name of a member at the first dot of its last part, into the name of the sample and the lower-case
/// extension; `None` if it has no dot.
fn parts(member: &str) -> Option<(&str, String)> {
    let start = member.rfind('/').map_or(0, |slash| slash + 1);
    let dot = start + member[start..].find('.')?;
    Some((&member[..dot], member[dot + 1..].to_ascii_lowercase()))
}

/// Reads one class number, or several separated by spaces or commas; they stay in order, and each appears once.
fn class_numbers(text: &[u8], path: &Path, member: &str) -> Result<Vec<usize>> {
    let text = String::from_utf8_lossy(text);
    let bad = || Error::BadLabel { member: name(path, member), text: text.trim().to_owned() };
    let mut numbers = Vec::new();
    for word in text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty()) {
        let number = word.parse().map_err(|_| bad())?;
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    if numbers.is_empty() { Err(bad()) } else { Ok(numbers) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(member: &str, expected: Option<(&str, &str)>) {
        let split = parts(member);
        assert_eq!(split.as_ref().map(|(key, rest)| (*key, rest.as_str())), expected, "{member}");
    }

    #[test]
    fn a_label_is_one_class_number_or_several() {
        let of = |text: &str| class_numbers(text.as_bytes(), Path::new("s.tar"), "1.cls").ok();
        assert_eq!(of("7\n"), Some(vec![7]));
        assert_eq!(of("3, 1 3"), Some(vec![3, 1]));
        for text in ["", " ", "cat", "1;2", "-1", "1.0"] {
            assert_eq!(of(text), None, "{text:?}");
        }
    }

    #[test]
    fn member_names_are_split_at_the_first_dot_of_the_last_part() {
        check("0001.jpg", Some(("0001", "jpg")));
        check("0001.JPG", Some(("0001", "jpg")));
        check("./a.b/0001.seg.png", Some(("./a.b/0001", "seg.png")));
        check("0001", None);
        check("a.b/0001", None);
    }

    #[test]
    fn members_without_a_role_have_a_reason() {
        let check = |name: &str, kind: MemberKind, expected: Option<PassedOverReason>| {
            let member = Member { name: name.into(), kind, offset: 0, size: 0 };
            assert_eq!(Role::of(&member).err(), Some(expected), "{name}");
        };
        check("a", MemberKind::Folder, None);
        check("a.jpg", MemberKind::Link, Some(PassedOverReason::Link));
        check("a.jpg", MemberKind::Other("a pipe"), Some(PassedOverReason::NotAFile("a pipe")));
        check("0001", MemberKind::File, Some(PassedOverReason::NoExtension));
        check("0001.a.TXT", MemberKind::File, Some(PassedOverReason::Extension("txt".into())));
        for hidden in [".hidden.jpg", "__MACOSX/0001.jpg", "a/._0001.jpg"] {
            check(hidden, MemberKind::File, Some(PassedOverReason::Hidden));
        }
    }
}
