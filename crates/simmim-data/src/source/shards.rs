//! WebDataset shards: tar files whose members are grouped into samples by their names.
//!
//! The rules for the names are those of <https://github.com/webdataset/webdataset> (`webdataset/tariterators.py`).

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::{PassedOver, Sample, Source, is_ignored, is_image, names, opened};
use crate::decode::decode;
use crate::error::{Error, Result};

pub(super) struct Shards {
    paths: Vec<PathBuf>,
    samples: Vec<Indexed>,
    classes: Vec<String>,
    channels: usize,
    passed_over: Vec<PassedOver>,
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
    /// Indexes the members of all shards; it reads only headers and labels. `passed_over` lies beside the shards.
    pub(super) fn open(paths: &[PathBuf], channels: usize, passed_over: Vec<PassedOver>) -> Result<Self> {
        let mut samples = Vec::new();
        let mut given: Option<(PathBuf, Vec<String>)> = None;
        for (shard, path) in paths.iter().enumerate() {
            index(path, shard as u32, &mut samples)?;
            given = agreed(given, path)?;
        }
        if samples.is_empty() {
            return Err(Error::NoSamples { path: paths.first().cloned().unwrap_or_default() });
        }
        let name = |index: usize| name(&paths[samples[index].shard as usize], &samples[index].member);
        let labels = samples.iter().map(|sample| sample.labels.iter().max().copied());
        let classes = names::of(labels, given.map(|(_, names)| names), name)?;
        Ok(Self { paths: paths.to_vec(), samples, classes, channels, passed_over })
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
        name(&self.paths[*shard as usize], member)
    }

    fn get(&self, index: usize) -> Result<Sample> {
        let Indexed { shard, offset, size, ref labels, .. } = self.samples[index];
        let (path, label) = (&self.paths[shard as usize], labels.first().copied());
        // the file is opened for every sample: so any number of shards stays below the limit of open files, and
        // threads do not move each other's position in a file
        let bytes =
            member(&mut opened(path)?, offset, size).map_err(|cause| Error::Read { path: path.clone(), cause })?;
        let name = self.name(index);
        Ok(Sample { image: decode(&bytes, &name, self.channels)?, label, name })
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.samples[index].labels.first().copied()
    }

    fn labels(&self, index: usize) -> Vec<usize> {
        self.samples[index].labels.clone()
    }

    fn passed_over(&self) -> &[PassedOver] {
        &self.passed_over
    }
}

fn name(shard: &Path, member: &str) -> String {
    format!("{}:{member}", shard.display())
}

fn member(file: &mut File, offset: u64, size: u64) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    if file.take(size).read_to_end(&mut bytes)? as u64 != size {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// Returns the class names given so far, or else those in the folder of `path`; if there are both, they must agree.
fn agreed(given: Option<(PathBuf, Vec<String>)>, path: &Path) -> Result<Option<(PathBuf, Vec<String>)>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    match given {
        Some((first, names)) if first.parent() == Some(folder) => Ok(Some((first, names))),
        None => Ok(names::read_list(folder)?.map(|names| (path.to_owned(), names))),
        Some((first, first_names)) => {
            let second = names::read_list(folder)?.unwrap_or_else(|| first_names.clone());
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
struct Members {
    image: Option<(String, u64, u64)>,
    labels: Vec<usize>,
}

/// Adds the samples of one shard, ordered by the position of their first member.
fn index(path: &Path, shard: u32, samples: &mut Vec<Indexed>) -> Result<()> {
    let failed = |cause| Error::Read { path: path.to_owned(), cause };
    let file = opened(path)?;
    let length = file.metadata().map_err(failed)?.len();
    // labels are read through a second handle, because the reader of headers relies on its position
    let mut labels = opened(path)?;
    let mut keys: HashMap<String, usize> = HashMap::new();
    let mut grouped: Vec<Members> = Vec::new();
    let mut end = 0;
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(failed)? {
        let entry = entry.map_err(|cause| broken(path, end, length, cause))?;
        let (offset, size) = (entry.raw_file_position(), entry.size());
        let padded = offset.saturating_add(size).next_multiple_of(BLOCK);
        if padded > length {
            return Err(Error::TruncatedTar { path: path.to_owned(), offset: end, length });
        }
        end = padded;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let member_name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some((key, extension)) = parts(&member_name) else {
            continue;
        };
        let is_label = extension == "cls";
        if !is_label && !is_image(&extension) {
            continue;
        }
        let place = *keys.entry(key.to_owned()).or_insert_with(|| {
            grouped.push(Members::default());
            grouped.len() - 1
        });
        if is_label {
            let text = member(&mut labels, offset, size.min(LONGEST_LABEL)).map_err(failed)?;
            grouped[place].labels = class_numbers(&text, path, &member_name)?;
        } else {
            grouped[place].image.get_or_insert((member_name, offset, size));
        }
    }
    if end + BLOCK > length {
        return Err(Error::TruncatedTar { path: path.to_owned(), offset: end, length });
    }
    samples.extend(grouped.into_iter().filter_map(|Members { image, labels }| {
        let (member, offset, size) = image?;
        Some(Indexed { shard, offset, size, member, labels })
    }));
    Ok(())
}

/// The size of the blocks of a tar file in bytes. A tar file ends with two blocks of zeros (POSIX `pax`, "ustar
/// Interchange Format"); one is accepted, as by GNU tar.
const BLOCK: u64 = 512;

/// A list of class numbers is read up to this many bytes; real ones are shorter.
const LONGEST_LABEL: u64 = 4096;

/// The error for an entry at `offset` that the tar reader refuses, because the file ends within it or it is invalid.
fn broken(path: &Path, offset: u64, length: u64, cause: std::io::Error) -> Error {
    let path = path.to_owned();
    if offset + BLOCK > length || cause.kind() == std::io::ErrorKind::UnexpectedEof {
        Error::TruncatedTar { path, offset, length }
    } else {
        Error::BadTar { path, offset, cause }
    }
}

/// Splits the name of a member at the first dot of its last part, into the name of the sample and the lower-case
/// extension; `None` if it has no dot or is ignored.
fn parts(member: &str) -> Option<(&str, String)> {
    if member.split('/').any(|part| part != "." && is_ignored(part)) {
        return None;
    }
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
        check(".hidden.jpg", None);
        check("__MACOSX/0001.jpg", None);
        check("a/._0001.jpg", None);
    }
}
