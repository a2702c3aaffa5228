//! Features in the files that `embed` writes.

use super::rows::{FeatureRows, RowNames, Values};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// See [`FeatureRows::open`].
pub(super) fn open(path: &Path) -> Result<FeatureRows> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => array(path),
        Some("parquet") => parquet(path),
        Some(_) | None => Err(Error::Input {
            what: format!("`{}` is no file of features", path.display()),
            hint: Some("give the F.npy or F.parquet of `simmim embed`".into()),
        }),
    }
}

/// The error of a file that holds something else.
fn refused(path: &Path, why: &str) -> Error {
    Error::Input {
        what: format!("the features in `{}` cannot be used: {why}", path.display()),
        hint: Some("give the F.npy or F.parquet of `simmim embed`, with one row per image".into()),
    }
}

fn array(path: &Path) -> Result<FeatureRows> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    let header = simmim_data::npy_header(&mut file).map_err(|error| refused(path, &error.to_string()))?;
    let start = file.stream_position().map_err(Error::io(path))?;
    let [count, width] = header.shape()[..] else {
        let sizes: Vec<String> = header.shape().iter().map(u64::to_string).collect();
        return Err(refused(path, &format!("their shape is ({}), not (images, width)", sizes.join(", "))));
    };
    let dtype = header.dtype().descr();
    if dtype != "'<f4'" || header.order() != npyz::Order::C {
        return Err(refused(path, &format!("they are {dtype} values, not '<f4' row by row")));
    }
    let file = file.into_inner();
    let (there, values) = (file.metadata().map_err(Error::io(path))?.len() - start, count.checked_mul(width));
    let expected = values.and_then(|values| values.checked_mul(4)).filter(|_| count > 0 && width > 0);
    if expected != Some(there) {
        return Err(refused(path, &format!("{count} rows of {width} do not lie in {there} bytes")));
    }
    let names = list(&beside(path), count as usize)?;
    let values = Values::File { file: Mutex::new(file), path: path.to_owned(), start };
    Ok(FeatureRows::new(width as usize, names, values))
}

/// The list of the rows of an array.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".csv");
    path.with_file_name(name)
}

/// Reads the list of the rows: `row`, `file`, `label`, `class`.
fn list(path: &Path, count: usize) -> Result<RowNames> {
    let wrong = |why: String| refused(path, &why);
    let file = File::open(path).map_err(Error::io(path))?;
    let mut list = csv::Reader::from_reader(BufReader::new(file));
    let header = list.headers().map_err(|error| wrong(error.to_string()))?.clone();
    if header.iter().ne(["row", "file", "label", "class"]) {
        return Err(wrong("its columns are not row, file, label and class".into()));
    }
    let mut names = NamesOfRows::default();
    for (row, record) in list.records().enumerate() {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        if record[0] != row.to_string() {
            return Err(wrong(format!("row {row} has the number `{}`", &record[0])));
        }
        // of several labels and classes, the first
        let (label, class) = (record[2].split(' ').next(), record[3].split(';').next());
        names.add(&record[1], [class, label].into_iter().flatten().find(|name| !name.is_empty()));
    }
    let names = names.names;
    match names.files.len() == count {
        true => Ok(names),
        false => Err(wrong(format!("it lists {} rows, and the array has {count}", names.files.len()))),
    }
}

/// Names of rows, of which each class gets a number when it is first met.
#[derive(Default)]
struct NamesOfRows {
    names: RowNames,
    numbers: HashMap<String, u32>,
}

impl NamesOfRows {
    fn add(&mut self, file: &str, class: Option<&str>) {
        let names = &mut self.names;
        names.files.push(file.to_owned());
        names.classes.push(class.map(|class| match self.numbers.get(class) {
            Some(number) => *number,
            None => {
                let number = names.class_names.len() as u32;
                names.class_names.push(class.to_owned());
                self.numbers.insert(class.to_owned(), number);
                number
            }
        }));
    }
}

#[cfg(not(feature = "parquet"))]
fn parquet(path: &Path) -> Result<FeatureRows> {
    Err(refused(path, "this build does not read Parquet"))
}

#[cfg(feature = "parquet")]
fn parquet(path: &Path) -> Result<FeatureRows> {
    parquet_file::read(path)
}

#[cfg(feature = "parquet")]
mod parquet_file {
    //! The columns of a Parquet file.

    use super::{Error, FeatureRows, File, NamesOfRows, Path, Result, Values, refused};
    use crate::memory;
    use parquet::column::reader::ColumnReaderImpl;
    use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int64Type};
    use parquet::errors::{ParquetError, Result as ParquetResult};
    use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};

    pub(super) fn read(path: &Path) -> Result<FeatureRows> {
        simmim_data::check_parquet(path)?;
        let file = File::open(path).map_err(Error::io(path))?;
        let wrong = |error: ParquetError| refused(path, &error.to_string());
        let reader = SerializedFileReader::new(file).map_err(wrong)?;
        let file_metadata = reader.metadata().file_metadata();
        let shape = file_metadata.key_value_metadata().into_iter().flatten().find(|pair| pair.key == "simmim.shape");
        if shape.and_then(|pair| pair.value.as_deref()).is_some_and(|shape| shape.contains(',')) {
            return Err(refused(path, "a row holds several vectors, those of patches"));
        }
        let schema = file_metadata.schema_descr();
        let column = |name: &str| schema.columns().iter().position(|column| column.path().parts()[0] == name);
        let (Some(embedding), Some(file)) = (column("embedding"), column("file")) else {
            return Err(refused(path, "it has no columns `file` and `embedding`"));
        };
        let (label, class) = (column("label"), column("class"));
        let (mut names, mut values, mut width) = (NamesOfRows::default(), Vec::new(), 0);
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).map_err(wrong)?;
            let count = usize::try_from(group.metadata().num_rows());
            let count = count.map_err(|_| refused(path, "a row group claims fewer than no rows"))?;
            let files: Vec<Option<ByteArray>> = flat::<ByteArrayType>(&*group, file, count).map_err(wrong)?;
            let of = |column: Option<usize>| column.map(|c| flat::<ByteArrayType>(&*group, c, count)).transpose();
            // each as long as the files, which were read
            let classes = of(class).map_err(wrong)?.unwrap_or_else(|| vec![None; files.len()]);
            let labels = label.map(|column| flat::<Int64Type>(&*group, column, count)).transpose().map_err(wrong)?;
            let labels: Vec<Option<i64>> = labels.unwrap_or_else(|| vec![None; files.len()]);
            let rows = lists(&*group, embedding, count).map_err(wrong)?;
            if count == 0 {
                continue;
            }
            let of_row = rows.len() / count;
            if of_row == 0 || width != 0 && of_row != width {
                return Err(refused(path, "its rows have different lengths"));
            }
            if width == 0 {
                let all = file_metadata.num_rows().max(0) as usize;
                memory::check(
                    || format!("{all} rows of {of_row} features"),
                    memory::of_values(all.saturating_mul(of_row)),
                )?;
            }
            width = of_row;
            values.extend(rows);
            for ((file, class), label) in files.iter().zip(&classes).zip(&labels) {
                let text = |bytes: &ByteArray| String::from_utf8_lossy(bytes.data()).into_owned();
                let class = class.as_ref().map(text).or_else(|| label.map(|label| label.to_string()));
                names.add(&file.as_ref().map(text).unwrap_or_default(), class.as_deref());
            }
        }
        if width == 0 {
            return Err(refused(path, "it has no rows"));
        }
        Ok(FeatureRows::new(width, names.names, Values::Memory(values)))
    }

    /// The values of a column, of which some may be missing.
    fn flat<T: DataType>(group: &dyn RowGroupReader, column: usize, count: usize) -> ParquetResult<Vec<Option<T::T>>> {
        let is_optional = group.metadata().schema_descr().column(column).max_def_level();
        let mut reader = typed::<T>(group, column)?;
        let (mut values, mut definition) = (Vec::new(), Vec::new());
        let levels = Some(&mut definition).filter(|_| is_optional > 0);
        reader.read_records(count, levels, None, &mut values)?;
        if is_optional == 0 {
            definition = vec![0; values.len()];
        }
        let mut values = values.into_iter();
        let all =
            definition.iter().map(|level| if *level == is_optional { values.next() } else { None }).collect::<Vec<_>>();
        match all.len() == count {
            true => Ok(all),
            false => Err(ParquetError::General(format!("a column has {} values of {count}", all.len()))),
        }
    }

    /// The values of a column of lists that have one length and no gap.
    fn lists(group: &dyn RowGroupReader, column: usize, count: usize) -> ParquetResult<Vec<f32>> {
        let whole = group.metadata().schema_descr().column(column).max_def_level();
        let mut reader = typed::<FloatType>(group, column)?;
        let (mut values, mut definition, mut repetition) = (Vec::new(), Vec::new(), Vec::new());
        reader.read_records(count, Some(&mut definition), Some(&mut repetition), &mut values)?;
        let width = values.len() / count.max(1);
        let is_even = values.len() == repetition.len()
            && definition.iter().all(|level| *level == whole)
            && repetition.iter().enumerate().all(|(at, level)| (*level == 0) == at.is_multiple_of(width.max(1)));
        match is_even && width * count == values.len() {
            true => Ok(values),
            false => Err(ParquetError::General("its lists have gaps or different lengths".into())),
        }
    }

    fn typed<T: DataType>(group: &dyn RowGroupReader, column: usize) -> ParquetResult<ColumnReaderImpl<T>> {
        let found = group.metadata().schema_descr().column(column).physical_type();
        if found != T::get_physical_type() {
            let name = group.metadata().schema_descr().column(column).path().string();
            return Err(ParquetError::General(format!("the column `{name}` has values of {found}")));
        }
        T::get_column_reader(group.get_column_reader(column)?)
            .ok_or_else(|| ParquetError::General("a column has another type".into()))
    }
}
