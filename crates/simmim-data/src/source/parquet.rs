//! Parquet files in the layout of Hugging Face's image data sets: an image in every row, and perhaps a label.
//!
//! The layout is that of the feature `Image` of its library `datasets`: a column with the fields `bytes` and `path`. Labels and
//! paths are read when a file is opened; of the images, only the page that holds the wanted one, so that memory is bounded by
//! a page and not by a row group.

use std::collections::HashSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::parquet::basic::Type;
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, DataType};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::reader::FileReader as _;
use ::parquet::file::serialized_reader::SerializedFileReader;
use serde_json::Value;

use super::list::{Classes, numbered};
use super::parquet_pages::{Chunks, check_column, check_footer};
use super::storage::Storage;
use super::{LocalFile, PassedOver, Source, by_path, check_encoded, names};
use crate::encoded::Encoded;
use crate::error::{Error, Result, panic_message};

pub(super) struct Parquet {
    files: Vec<File>,
    /// One for every row, ordered by path within a file.
    rows: Vec<Row>,
    /// Those of every row, of which one has one label at most.
    labels: Vec<Vec<usize>>,
    classes: Vec<String>,
    channels: usize,
    passed_over: PassedOver,
}

struct File {
    reader: SerializedFileReader<Chunks>,
    chunks: Arc<Chunks>,
    /// Row groups and columns whose pages unpack to no more than they claim.
    checked: Mutex<HashSet<(usize, usize)>>,
    path: PathBuf,
    columns: Columns,
}

struct Row {
    file: u32,
    group: u32,
    /// Its place in the row group.
    row: u32,
    /// Its place in the file.
    number: u64,
    path: Option<String>,
    label: Option<String>,
}

impl Parquet {
    pub(super) fn of(storages: &[Arc<dyn Storage>], channels: usize) -> Result<Self> {
        let (mut files, mut rows, mut named): (Vec<File>, _, Option<Vec<String>>) = (Vec::new(), Vec::new(), None);
        for storage in storages {
            let file = File::open(storage)?;
            let names = file.columns.classes.clone();
            if let (Some(first), Some(second)) = (&named, &names)
                && first != second
            {
                let [one, other] = [&files[0].path, &file.path].map(|path| path.display().to_string());
                return Err(super::concat::disagreement((&one, first), (&other, second)));
            }
            named = named.or(names);
            let mut own = file.rows(files.len() as u32)?;
            if own.iter().all(|row| row.path.is_some()) {
                own.sort_by(|first, second| {
                    let [first, second] = [first, second].map(|row| row.path.as_deref().unwrap_or_default());
                    by_path(first, second)
                });
            }
            rows.append(&mut own);
            files.push(file);
        }
        let passed_over = PassedOver::new();
        if rows.is_empty() {
            return Err(Error::NoSamples {
                path: files.first().map(|file| file.path.clone()).unwrap_or_default(),
                passed_over,
            });
        }
        let given = match named {
            Some(names) => Some(names),
            None => names::read_beside(&*storages[0])?,
        };
        let texts: Vec<Vec<String>> =
            rows.iter_mut().map(|row: &mut Row| row.label.take().into_iter().collect()).collect();
        let member = |index: usize| name(&files, &rows[index]);
        let Classes { labels, classes } = numbered(&texts, given, &member)?;
        Ok(Self { files, rows, labels, classes, channels, passed_over })
    }
}

impl Source for Parquet {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self, index: usize) -> String {
        name(&self.files, &self.rows[index])
    }

    fn encoded(&self, index: usize) -> Result<Encoded> {
        let Row { file, group, row, .. } = self.rows[index];
        let (file, name) = (&self.files[file as usize], self.name(index));
        let bytes = guarded(&name, || file.image(group as usize, row as usize))?;
        let bytes =
            bytes.ok_or_else(|| Error::BadArchive { name: name.clone(), what: "the row has no image".to_owned() })?;
        check_encoded(bytes.len() as u64, &name)?;
        Ok(Encoded::file(bytes.data().to_vec(), self.channels, name))
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.get(index)?.first().copied()
    }

    fn passed_over(&self) -> &PassedOver {
        &self.passed_over
    }
}

fn name(files: &[File], row: &Row) -> String {
    let file = files[row.file as usize].path.display();
    match &row.path {
        Some(path) => format!("{file}:{path}"),
        None => format!("{file}#{}", row.number),
    }
}

impl File {
    fn open(storage: &Arc<dyn Storage>) -> Result<Self> {
        let path = storage.path().to_owned();
        let chunks = Arc::new(Chunks(Arc::clone(storage)));
        guarded(&path.display().to_string(), || check_footer(storage))?;
        let reader = guarded(&path.display().to_string(), || SerializedFileReader::new(Chunks(Arc::clone(storage))))?;
        let columns = Columns::of(reader.metadata(), &path)?;
        Ok(Self { reader, chunks, checked: Mutex::default(), path, columns })
    }

    /// The reader of a column of a row group, whose pages are safe to unpack.
    fn column(&self, group: usize, column: usize) -> ParquetResult<ColumnReader> {
        let lock = || self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if !lock().contains(&(group, column)) {
            check_column(self.reader.metadata().row_group(group), column, &self.chunks)?;
            lock().insert((group, column));
        }
        self.reader.get_row_group(group)?.get_column_reader(column)
    }

    /// Reads paths and labels.
    fn rows(&self, file: u32) -> Result<Vec<Row>> {
        let name = self.path.display().to_string();
        let too_many = || Error::BadArchive { name: name.clone(), what: TOO_MANY_ROWS.to_owned() };
        let mut rows: Vec<Row> = Vec::new();
        for group in 0..self.reader.metadata().num_row_groups() {
            let count = usize::try_from(self.reader.metadata().row_group(group).num_rows()).ok();
            let count = count.filter(|count| *count <= MAX_ROWS).ok_or_else(too_many)?;
            let read = |column: Option<usize>| {
                column.map(|column| guarded(&name, || self.texts(group, column, count))).transpose()
            };
            let (paths, labels) = (read(self.columns.path)?, read(self.columns.label)?);
            if paths.is_none() && labels.is_none() {
                // nothing but the metadata says how many there are, and a file may say any number
                guarded(&name, || self.check_last(group, count))?;
            }
            let at =
                |texts: &Option<Vec<Option<String>>>, row: usize| texts.as_ref().and_then(|texts| texts[row].clone());
            for row in 0..count {
                let number = rows.len() as u64;
                let (path, label) = (at(&paths, row), at(&labels, row));
                // -1 is Hugging Face's label of what has none
                let label = label.filter(|label| label != "-1" && !label.is_empty());
                let path = path.filter(|path| !path.is_empty());
                rows.push(Row { file, group: group as u32, row: row as u32, number, path, label });
            }
        }
        Ok(rows)
    }

    /// Reads a column of numbers or text of a row group.
    fn texts(&self, group: usize, column: usize, count: usize) -> ParquetResult<Vec<Option<String>>> {
        let highest = self.reader.metadata().file_metadata().schema_descr().column(column).max_def_level();
        match self.column(group, column)? {
            ColumnReader::Int32ColumnReader(reader) => values(reader, count, highest, i32::to_string),
            ColumnReader::Int64ColumnReader(reader) => values(reader, count, highest, i64::to_string),
            ColumnReader::ByteArrayColumnReader(reader) => {
                values(reader, count, highest, |text: &ByteArray| String::from_utf8_lossy(text.data()).into_owned())
            }
            _ => Err(ParquetError::General("a label or path is neither a number nor text".to_owned())),
        }
    }

    fn check_last(&self, group: usize, count: usize) -> ParquetResult<()> {
        let ColumnReader::ByteArrayColumnReader(mut reader) = self.column(group, self.columns.image)? else {
            return Err(ParquetError::General("the images are not binary".to_owned()));
        };
        match reader.skip_records(count)? {
            skipped if skipped == count => Ok(()),
            skipped => Err(ParquetError::General(format!("a row group holds {skipped} rows and claims {count}"))),
        }
    }

    /// Reads the image of a row; `None` if it has none.
    fn image(&self, group: usize, row: usize) -> ParquetResult<Option<ByteArray>> {
        let ColumnReader::ByteArrayColumnReader(mut reader) = self.column(group, self.columns.image)? else {
            return Err(ParquetError::General("the images are not binary".to_owned()));
        };
        let (skipped, mut levels, mut found) = (reader.skip_records(row)?, Vec::new(), Vec::new());
        let (read, _, _) = reader.read_records(1, Some(&mut levels), None, &mut found)?;
        match (skipped == row, read) {
            (true, 1) => Ok(found.pop()),
            _ => Err(ParquetError::EOF(format!("the row group ends before row {row}"))),
        }
    }
}

/// A row group is read up to this many rows: of each, path and label are kept in memory.
const MAX_ROWS: usize = 100_000_000;
const TOO_MANY_ROWS: &str = "a row group claims more than a hundred million rows";

/// Reads the first `count` values of a column as text.
fn values<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    count: usize,
    highest: i16,
    text: impl Fn(&T::T) -> String,
) -> ParquetResult<Vec<Option<String>>> {
    let mut texts = Vec::new();
    // in parts, because a file may claim more rows than it has
    while texts.len() < count {
        let (mut levels, mut found) = (Vec::new(), Vec::new());
        let (read, ..) = reader.read_records(PART.min(count - texts.len()), Some(&mut levels), None, &mut found)?;
        if read == 0 {
            let message = format!("a row group holds {} rows and claims {count}", texts.len());
            return Err(ParquetError::EOF(message));
        }
        // a column without nulls has no levels; else a row of the highest level has a value
        let mut found = found.iter();
        for row in 0..read {
            let has_value = levels.get(row).is_none_or(|level| *level == highest);
            texts.push(if has_value { found.next().map(&text) } else { None });
        }
    }
    Ok(texts)
}

/// Rows that are read at once.
const PART: usize = 4096;

/// Where the images, paths and labels are.
struct Columns {
    image: usize,
    path: Option<usize>,
    label: Option<usize>,
    classes: Option<Vec<String>>,
}

/// Names of a column of images, of labels.
const IMAGE_COLUMNS: &[&str] = &["image", "img", "picture", "photo", "jpg", "jpeg", "png", "bytes"];
const LABEL_COLUMNS: &[&str] = &["label", "labels", "class", "target", "fine_label"];

impl Columns {
    fn of(metadata: &ParquetMetaData, path: &Path) -> Result<Self> {
        let schema = metadata.file_metadata().schema_descr();
        let features = features(metadata);
        let has_type = |name: &str, wanted: &str| {
            features.as_ref().and_then(|features| features.get(name)).is_some_and(|feature| feature["_type"] == wanted)
        };
        let flat: Vec<(usize, String, Type)> = (0..schema.num_columns())
            .map(|number| (number, schema.column(number)))
            .filter(|(_, column)| column.max_rep_level() == 0)
            .map(|(number, column)| (number, column.path().string(), column.physical_type()))
            .collect();
        let find = |wanted: &str| flat.iter().find(|(_, name, _)| name.eq_ignore_ascii_case(wanted));
        let binary = |wanted: &str| find(wanted).filter(|(.., kind)| *kind == Type::BYTE_ARRAY);
        // columns in the order of the file, of which fields of one lie beside each other
        let mut names: Vec<&str> = flat.iter().map(|(_, name, _)| name.split('.').next().unwrap_or(name)).collect();
        names.dedup();
        let is_known = |name: &str, known: &[&str]| known.iter().any(|other| name.eq_ignore_ascii_case(other));
        let of_type =
            |wanted: &str| -> Vec<&str> { names.iter().copied().filter(|name| has_type(name, wanted)).collect() };
        // of several columns of images, first one with a usual name
        let typed = of_type("Image");
        let candidates = || {
            let known = typed.iter().copied().filter(|name| is_known(name, IMAGE_COLUMNS));
            known.chain(typed.iter().copied()).chain(IMAGE_COLUMNS.iter().copied())
        };
        let in_fields = candidates().find_map(|name| Some((name, binary(&format!("{name}.bytes"))?)));
        let image = in_fields.map(|(_, found)| found).or_else(|| candidates().find_map(binary));
        let Some((image, ..)) = image else {
            let has: Vec<String> = flat.iter().map(|(_, name, kind)| format!("`{name}` ({kind})")).collect();
            return Err(Error::NoColumn { path: path.to_owned(), wanted: "images", has: has.join(", ") });
        };
        let beside = in_fields.and_then(|(name, _)| binary(&format!("{name}.path"))).map(|(number, ..)| *number);
        let typed = of_type("ClassLabel");
        let known =
            |is_typed: bool| LABEL_COLUMNS.iter().copied().filter(move |name| has_type(name, "ClassLabel") == is_typed);
        let labels = known(true).chain(known(false)).chain(typed.iter().copied());
        let is_label = |kind: Type| matches!(kind, Type::INT32 | Type::INT64 | Type::BYTE_ARRAY);
        let label = labels.filter_map(find).find(|(.., kind)| is_label(*kind));
        let names = label.and_then(|(_, name, _)| {
            let names = features.as_ref()?.get(name)?.get("names")?.as_array()?;
            names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>()
        });
        Ok(Self { image: *image, path: beside, label: label.map(|(number, ..)| *number), classes: names })
    }
}

/// What Hugging Face's `datasets` writes of the columns into the metadata of the schema.
fn features(metadata: &ParquetMetaData) -> Option<serde_json::Map<String, Value>> {
    let pairs = metadata.file_metadata().key_value_metadata()?;
    let text = pairs.iter().find(|pair| pair.key == "huggingface")?.value.as_ref()?;
    let mut value: Value = serde_json::from_str(text).ok()?;
    match value.get_mut("info")?.get_mut("features")?.take() {
        Value::Object(features) => Some(features),
        _ => None,
    }
}

/// Checks that no header or page of a file on the disk claims or unpacks to more than it should, for other readers of such files.
///
/// # Errors
///
/// [`Error::Read`], or [`Error::BadArchive`] with what is wrong.
pub fn check_parquet(path: &Path) -> Result<()> {
    let storage: Arc<dyn Storage> = LocalFile::open(path)?;
    let chunks = Arc::new(Chunks(Arc::clone(&storage)));
    guarded(&path.display().to_string(), || {
        check_footer(&storage)?;
        let reader = SerializedFileReader::new(Chunks(storage))?;
        let groups = reader.metadata().row_groups().iter();
        groups
            .flat_map(|group| (0..group.num_columns()).map(move |column| (group, column)))
            .try_for_each(|(group, column)| check_column(group, column, &chunks))
    })
}

/// Runs the reader of Parquet files; its panics on a broken file are errors of this file.
fn guarded<T>(name: &str, read: impl FnOnce() -> ParquetResult<T>) -> Result<T> {
    let what = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(ParquetError::External(cause))) => match cause.downcast::<io::Error>() {
            Ok(cause) if !is_of_content(cause.kind()) => return Err(Error::Read { path: name.into(), cause: *cause }),
            Ok(cause) => cause.to_string(),
            Err(cause) => cause.to_string(),
        },
        Ok(Err(error)) => error.to_string(),
        Err(payload) => format!("the reader of Parquet files panicked: {}", panic_message(&*payload)),
    };
    Err(Error::BadArchive { name: name.to_owned(), what })
}

/// Whether an error of reading says something of the content, and not of the place where it lies.
fn is_of_content(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::OutOfMemory
            | io::ErrorKind::Other
    )
}
