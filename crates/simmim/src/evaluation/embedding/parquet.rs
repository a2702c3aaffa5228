//! Features as a Parquet file with the columns `file`, `label`, `class` and `embedding`.

use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use simmim_data::Source;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Values that are kept until they are written as a group of rows: 32 MiB.
const GROUP_VALUES: usize = 8 << 20;

/// A list of numbers as pyarrow and pandas read it (apache/parquet-format, `LogicalTypes.md`).
const SCHEMA: &str = "message schema {
    REQUIRED BYTE_ARRAY file (UTF8);
    OPTIONAL INT64 label;
    OPTIONAL BYTE_ARRAY class (UTF8);
    REQUIRED GROUP embedding (LIST) { REPEATED GROUP list { REQUIRED FLOAT element; } }
}";

/// The column of features, which hardly ever repeat.
const EMBEDDING: &str = "embedding";

/// Key of the shape of a row in the metadata of the file.
const SHAPE_KEY: &str = "simmim.shape";

pub(super) struct ParquetTable {
    writer: SerializedFileWriter<File>,
    files: Vec<ByteArray>,
    labels: Vec<Option<i64>>,
    classes: Vec<Option<ByteArray>>,
    values: Vec<f32>,
    /// Values per row.
    width: usize,
}

impl ParquetTable {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(io::Error::other)?);
        let column = ColumnPath::new([EMBEDDING, "list", "element"].map(str::to_owned).to_vec());
        let properties = WriterProperties::builder().set_column_dictionary_enabled(column, false).build();
        let writer = SerializedFileWriter::new(File::create(path)?, schema, Arc::new(properties));
        let writer = writer.map_err(io::Error::other)?;
        let (files, labels, classes, values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(Self { writer, files, labels, classes, values, width: 0 })
    }

    /// Adds the row of a sample.
    pub(super) fn add(&mut self, source: &dyn Source, sample: usize, row: &[f32]) -> io::Result<()> {
        let label = source.labels(sample).first().copied();
        self.files.push(source.name(sample).as_str().into());
        self.labels.push(label.map(|label| label as i64));
        self.classes.push(label.and_then(|label| Some(source.classes().get(label)?.as_str().into())));
        self.values.extend_from_slice(row);
        self.width = row.len();
        if self.values.len() >= GROUP_VALUES { self.write_group() } else { Ok(()) }
    }

    /// Ends the file, whose rows have this shape.
    pub(super) fn finish(mut self, shape: &[usize]) -> io::Result<()> {
        self.write_group()?;
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        self.writer.append_key_value_metadata(KeyValue::new(SHAPE_KEY.to_owned(), shape.join(",")));
        self.writer.close().map(drop).map_err(io::Error::other)
    }

    fn write_group(&mut self) -> io::Result<()> {
        self.try_write_group().map_err(io::Error::other)
    }

    fn try_write_group(&mut self) -> parquet::errors::Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        column::<ByteArrayType>(&mut group, &self.files, None, None)?;
        let is_there = |is_there: bool| i16::from(is_there);
        let levels: Vec<i16> = self.labels.iter().map(|label| is_there(label.is_some())).collect();
        let labels: Vec<i64> = self.labels.iter().copied().flatten().collect();
        column::<Int64Type>(&mut group, &labels, Some(&levels), None)?;
        let levels: Vec<i16> = self.classes.iter().map(|class| is_there(class.is_some())).collect();
        let classes: Vec<ByteArray> = self.classes.iter().flatten().cloned().collect();
        column::<ByteArrayType>(&mut group, &classes, Some(&levels), None)?;
        let there = vec![1; self.values.len()];
        let continued: Vec<i16> = (0..self.values.len()).map(|i| is_there(!i.is_multiple_of(self.width))).collect();
        column::<FloatType>(&mut group, &self.values, Some(&there), Some(&continued))?;
        group.close()?;
        self.files.clear();
        self.labels.clear();
        self.classes.clear();
        self.values.clear();
        Ok(())
    }
}

/// Writes the next column of a group.
fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    definition: Option<&[i16]>,
    repetition: Option<&[i16]>,
) -> parquet::errors::Result<()> {
    let mut column = group.next_column()?.expect("the schema has this column");
    column.typed::<T>().write_batch(values, definition, repetition)?;
    column.close()
}
