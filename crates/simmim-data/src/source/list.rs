//! Lists of images: CSV, TSV or JSON Lines with a path and perhaps a label in every row, or several.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::folder::Folder;
use super::passed_over::{PassedOver, PassedOverReason};
use super::{by_path, names, parts, read};
use crate::error::{Error, Result};

/// Names of the column with the path, in the order in which they are looked for.
/// The last is that of ChestX-ray14.
pub(crate) const PATH_COLUMNS: &[&str] = &["path", "file_name", "image", "filename", "image index"];

/// Names of the column with the label.
pub(crate) const LABEL_COLUMNS: &[&str] = &["label", "class", "target"];

/// Names of the column with any number of labels, if there is none with one. The last is that of ChestX-ray14.
pub(crate) const LABELS_COLUMNS: &[&str] = &["labels", "classes", "targets", "finding labels"];

/// What is between the labels of a cell.
const SEPARATOR: char = '|';

/// A row of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// As it is written.
    pub(super) path: String,
    /// Its labels, of which there may be none; `None` if they are not known.
    pub(super) labels: Option<Vec<String>>,
    /// The line of the list that it begins in, from 1 on.
    pub(super) line: u64,
}

/// Opens the images that a list names, ordered by path. Paths are relative to the list.
pub(super) fn open(path: &Path, channels: usize) -> Result<Folder> {
    let (rows, mut passed_over) = rows(path, PATH_COLUMNS)?;
    of_rows(path, rows, &mut passed_over, channels)
}

/// Makes a source of the rows of a list; `passed_over` also holds what is no row.
pub(super) fn of_rows(
    list: &Path,
    mut rows: Vec<Row>,
    passed_over: &mut PassedOver,
    channels: usize,
) -> Result<Folder> {
    let passed_over = std::mem::take(passed_over);
    if rows.is_empty() {
        return Err(Error::NoSamples { path: list.to_owned(), passed_over });
    }
    rows.sort_by(|first, second| by_path(&first.path, &second.path));
    let folder = list.parent().unwrap_or(Path::new(""));
    let images: Vec<PathBuf> = rows.iter().map(|row| located(folder, &row.path)).collect();
    if let Some((line, what)) = disagreement(&rows) {
        return Ok(Folder::of_disagreeing(images, (list.to_owned(), line, what), channels, passed_over));
    }
    let are_known: Vec<bool> = rows.iter().map(|row| row.labels.is_some()).collect();
    let texts: Vec<Vec<String>> = rows.iter_mut().map(|row| row.labels.take().unwrap_or_default()).collect();
    let member = |index: usize| format!("{}:{}", list.display(), rows[index].path);
    let Classes { labels, classes } = numbered(&texts, names::read_list(folder)?, &member)?;
    let labels = labels.into_iter().zip(are_known).map(|(labels, is_known)| is_known.then_some(labels)).collect();
    Ok(Folder::of_labeled(images, labels, classes, channels, passed_over))
}

/// A line that gives an image other labels than a line before it, and what is wrong; `rows` are ordered by path. Only who needs
/// labels need care.
fn disagreement(rows: &[Row]) -> Option<(u64, String)> {
    let set = |row: &Row| row.labels.as_ref().map(|labels| labels.iter().cloned().collect::<BTreeSet<_>>());
    let disagree = |two: &&[Row]| by_path(&two[0].path, &two[1].path).is_eq() && set(&two[0]) != set(&two[1]);
    let [first, second] = rows.windows(2).find(disagree)? else { unreachable!("windows are of two rows") };
    let what = format!(
        "`{}` has other labels in line {}; all labels of an image stand in one cell of a column `labels`, as in `cat|dog`",
        second.path, first.line
    );
    Some((second.line, what))
}

/// Where an image lies that a list in `folder` names, written as the walk through the folder writes it.
pub(super) fn located(folder: &Path, path: &str) -> PathBuf {
    folder.join(parts(path).collect::<PathBuf>())
}

/// The classes of every sample, of which one may have none or several, and the names of all.
pub(super) struct Classes {
    pub(super) labels: Vec<Vec<usize>>,
    pub(super) classes: Vec<String>,
}

/// Numbers the classes of samples with these labels. Labels that are all whole numbers are class numbers, which the `given`
/// names may name; others are names, which are numbered in their order, or in that of the given ones. `member` returns the
/// name of a sample for errors.
pub(super) fn numbered(
    labels: &[Vec<String>],
    given: Option<Vec<String>>,
    member: &dyn Fn(usize) -> String,
) -> Result<Classes> {
    let texts = || labels.iter().flatten().map(String::as_str);
    let numbered = labels.iter().enumerate().flat_map(|(index, labels)| labels.iter().map(move |label| (index, label)));
    if let Some((index, label)) = numbered.clone().find(|(_, label)| are_numbers(label)) {
        return Err(Error::SeveralLabels { member: member(index), labels: label.clone() });
    }
    let collect = |number: &dyn Fn(usize, &str) -> Result<usize>| -> Result<Vec<Vec<usize>>> {
        let mut all = vec![Vec::new(); labels.len()];
        for (index, label) in numbered {
            let number = number(index, label)?;
            if !all[index].contains(&number) {
                all[index].push(number);
            }
        }
        Ok(all)
    };
    if texts().all(|label| label.parse::<usize>().is_ok()) {
        let labels = collect(&|_, label| Ok(label.parse().expect("all are numbers")))?;
        let classes = names::of(labels.iter().map(|labels| labels.iter().max().copied()), given, member)?;
        return Ok(Classes { labels, classes });
    }
    let classes = given.unwrap_or_else(|| {
        let mut names: Vec<String> = texts().map(str::to_owned).collect();
        names.sort();
        names.dedup();
        names
    });
    let number: HashMap<&str, usize> =
        classes.iter().enumerate().map(|(number, name)| (name.as_str(), number)).collect();
    let labels = collect(&|index, label| {
        let found = number.get(label).copied();
        found.ok_or_else(|| Error::UnknownClass { member: member(index), label: label.to_owned() })
    })?;
    Ok(Classes { labels, classes })
}

/// Whether this is a list of several class numbers, which would else be the name of a class.
fn are_numbers(label: &str) -> bool {
    let mut parts = label.split([',', ';', '|', ' ']).filter(|part| !part.is_empty());
    let (mut count, mut are_all) = (0, true);
    parts.by_ref().for_each(|part| {
        count += 1;
        are_all &= part.parse::<usize>().is_ok();
    });
    count > 1 && are_all
}

/// Reads the rows of a list. Rows without a path are passed over.
pub(super) fn rows(path: &Path, path_columns: &[&str]) -> Result<(Vec<Row>, PassedOver)> {
    let bytes = read(path)?;
    let mut passed_over = PassedOver::new();
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let found = match extension.as_str() {
        "jsonl" => json_rows(&bytes, path, path_columns)?,
        "tsv" => table_rows(&bytes, b'\t', path, path_columns)?,
        _ => table_rows(&bytes, b',', path, path_columns)?,
    };
    let mut rows = Vec::with_capacity(found.len());
    for (line, row) in found {
        match row {
            Some(row) => rows.push(row),
            None => passed_over.add(format_args!("{}, line {line}", path.display()), PassedOverReason::NoPath),
        }
    }
    unify_labels(&mut rows);
    Ok((rows, passed_over))
}

/// Writes class numbers in one way, if all labels are whole numbers: `1.0`, as tables with gaps have it, is `1`. Beside a class 0,
/// −1 is no label, as in the image data sets of Hugging Face, and `nan` is none in any list.
fn unify_labels(rows: &mut [Row]) {
    let is_missing = |labels: &Option<Vec<String>>, missing: &[&str]| {
        labels.as_deref().is_some_and(|labels| matches!(labels, [label] if missing.contains(&label.as_str())))
    };
    let number = |label: &str| {
        let number = label.parse::<f64>().ok().filter(|number| number.fract() == 0.0 && number.abs() < 1e15);
        number.map(|number| number as i64)
    };
    rows.iter_mut().filter(|row| is_missing(&row.labels, &["nan", "NaN"])).for_each(|row| row.labels = None);
    if !rows.iter().flat_map(|row| row.labels.iter().flatten()).all(|label| number(label).is_some()) {
        return;
    }
    for label in rows.iter_mut().flat_map(|row| row.labels.iter_mut().flatten()) {
        *label = number(label).map_or_else(String::new, |number| number.to_string());
    }
    if rows.iter().flat_map(|row| row.labels.iter().flatten()).any(|label| label == "0") {
        rows.iter_mut().filter(|row| is_missing(&row.labels, &["-1"])).for_each(|row| row.labels = None);
    }
}

type Numbered = (u64, Option<Row>);

fn table_rows(bytes: &[u8], delimiter: u8, path: &Path, path_columns: &[&str]) -> Result<Vec<Numbered>> {
    let bad = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        Error::BadList { path: path.to_owned(), line, what: fault(error.kind()) }
    };
    check_quotes(bytes, delimiter, path)?;
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(bytes);
    let headers = reader.headers().map_err(bad)?.clone();
    let column = |names: &[&str]| {
        names.iter().find_map(|name| headers.iter().position(|header| clean(header).eq_ignore_ascii_case(name)))
    };
    let Some(path_column) = column(path_columns) else {
        let has = headers.iter().map(|header| format!("`{}`", clean(header))).collect::<Vec<_>>().join(", ");
        return Err(Error::NoColumn { path: path.to_owned(), wanted: "paths", has });
    };
    let (label_column, labels_column) = (column(LABEL_COLUMNS), column(LABELS_COLUMNS));
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(bad)?;
        let cell = |column: usize| record.get(column).map(str::trim).filter(|text| !text.is_empty());
        let labels = match (label_column, labels_column) {
            (Some(column), _) => cell(column).map(|label| vec![label.to_owned()]),
            (None, Some(column)) => Some(cell(column).map_or_else(Vec::new, split)),
            (None, None) => None,
        };
        let line = record.position().map_or(0, csv::Position::line);
        if [Some(path_column), label_column, labels_column].into_iter().flatten().filter_map(cell).any(spans_lines) {
            return Err(Error::BadList {
                path: path.to_owned(),
                line,
                what: "a path or label has several lines".into(),
            });
        }
        rows.push((line, cell(path_column).map(|path| Row { path: path.to_owned(), labels, line })));
    }
    Ok(rows)
}

fn spans_lines(cell: &str) -> bool {
    cell.contains(['\n', '\r'])
}

/// Checks that no stray quote swallows rows: the reader takes one at the start of a cell for the beginning of a text that goes on
/// to the next quote, or to the end of the file. So a text of several lines must end where its cell ends.
fn check_quotes(bytes: &[u8], delimiter: u8, path: &Path) -> Result<()> {
    /// What a byte belongs to.
    enum Place {
        Start,
        Bare,
        Quoted,
        /// A quote within a quoted cell: its end, or the first of two that stand for one.
        Quote,
    }
    let bad = |line, what: &str| {
        let what = format!("{what}; a quote within a cell is doubled, and the cell is in quotes");
        Err(Error::BadList { path: path.to_owned(), line, what })
    };
    let (mut place, mut line, mut first_line) = (Place::Start, 1, 1);
    for byte in bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes) {
        let is_end = *byte == delimiter || matches!(byte, b'\r' | b'\n');
        place = match (place, byte) {
            (Place::Start, b'"') => {
                first_line = line;
                Place::Quoted
            }
            (Place::Quoted, b'"') => Place::Quote,
            (Place::Quoted, _) | (Place::Quote, b'"') => Place::Quoted,
            (_, _) if is_end => Place::Start,
            (Place::Quote, _) if line > first_line && *byte != b' ' => {
                return bad(first_line, "a cell of several lines goes on after the quote at its end");
            }
            (Place::Start | Place::Bare | Place::Quote, _) => Place::Bare,
        };
        line += u64::from(*byte == b'\n');
    }
    match place {
        Place::Quoted => bad(first_line, "a quote begins a cell that does not end"),
        _ => Ok(()),
    }
}

/// The labels of a cell.
fn split(cell: &str) -> Vec<String> {
    cell.split(SEPARATOR).map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect()
}

/// A header without spaces and the mark at the start of some files in UTF-8.
fn clean(header: &str) -> &str {
    header.trim_start_matches('\u{feff}').trim()
}

fn fault(kind: &csv::ErrorKind) -> String {
    match kind {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("it has {len} fields where the first line has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8 text".to_owned(),
        // the enum of another crate is not exhaustive
        kind => format!("{kind:?}"),
    }
}

fn json_rows(bytes: &[u8], path: &Path, path_columns: &[&str]) -> Result<Vec<Numbered>> {
    let mut rows = Vec::new();
    let (mut has_path, mut keys) = (false, String::new());
    for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text).trim_ascii();
        if text.is_empty() {
            continue;
        }
        let bad = |what: String| Error::BadList { path: path.to_owned(), line, what };
        let object: serde_json::Map<String, Value> =
            serde_json::from_slice(text).map_err(|error| bad(format!("it is not a JSON object: {error}")))?;
        let value = |names: &[&str]| {
            names.iter().find_map(|name| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))).map(|(_, v)| v)
        };
        let path_value = value(path_columns);
        has_path |= path_value.is_some();
        if keys.is_empty() {
            keys = object.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        }
        let path = match path_value {
            None | Some(Value::Null) => None,
            Some(Value::String(path)) => Some(path.trim().to_owned()).filter(|path| !path.is_empty()),
            Some(other) => return Err(bad(format!("the path `{other}` is not text"))),
        };
        let label = |value: &Value| match value {
            Value::Null => Ok(None),
            Value::String(label) => Ok(Some(label.trim().to_owned()).filter(|label| !label.is_empty())),
            Value::Number(label) => Ok(Some(label.to_string())),
            other => Err(bad(format!("the label `{other}` is neither text nor a number"))),
        };
        let labels = match (value(LABEL_COLUMNS), value(LABELS_COLUMNS)) {
            (Some(value), _) => label(value)?.map(|label| vec![label]),
            (None, Some(Value::Array(values))) => {
                Some(values.iter().filter_map(|value| label(value).transpose()).collect::<Result<_>>()?)
            }
            (None, Some(Value::String(cell))) => Some(split(cell)),
            (None, Some(value)) => label(value)?.map(|label| vec![label]),
            (None, None) => None,
        };
        rows.push((line, path.map(|path| Row { path, labels, line })));
    }
    if !has_path && !rows.is_empty() {
        return Err(Error::NoColumn { path: path.to_owned(), wanted: "paths", has: keys });
    }
    Ok(rows)
}
