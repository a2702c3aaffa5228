//! Features of a collection in a file: a row per image that can be read, in the order of the source. Rows are written
//! as they are computed, to a temporary file that is renamed at the end, so that memory does not grow with the
//! collection.

mod npy;
#[cfg(feature = "parquet")]
mod parquet;

use super::FrozenEncoder;
use super::classification::some_readable;
use super::stream::{FeatureBatch, FeatureKind};
use crate::error::{Error, Result};
use crate::run::files::{replace, write_atomically};
use npy::NpyTable;
use simmim_data::{Skipped, Source};
use simmim_engine::Device;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is written where.
#[derive(Clone, Copy, Debug)]
pub struct Embedding<'a> {
    /// What is computed of each image.
    pub kind: FeatureKind,
    /// The file: `.npy`, with a list of its rows beside it, or `.parquet`.
    pub out: &'a Path,
    /// Threads that read and decode images.
    pub workers: usize,
    /// Set to stop early, with nothing written.
    pub stop: &'a AtomicBool,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embedded {
    /// Number of rows.
    pub images: usize,
    /// Shape of a row, `[D]` or `[h·w, D]`.
    pub shape: Vec<usize>,
    /// The files.
    pub files: Vec<PathBuf>,
    /// Images that could not be read, which have no row.
    pub unreadable: Vec<Skipped>,
}

/// Writes features of all images of a source; `progress` is called with the number of images done. Returns `None` if it
/// was stopped.
///
/// `F.npy` has the shape `[images, D]` or `[images, h·w, D]`, and `F.npy.csv` has file, label and class of each row.
/// `F.parquet` has them as columns, and one of flat rows. Images that cannot be read have no row, and
/// `F.npy.unreadable.csv` lists them.
///
/// # Errors
/// If the name of the file has another ending, the encoder has no such features, no image can be read, a feature is not
/// finite, or a file cannot be written.
///
/// # Panics
/// If the normalization is not known: see [`FrozenEncoder::measure`].
pub fn embed<D: Device>(
    encoder: &FrozenEncoder<D>,
    source: &Arc<dyn Source>,
    embedding: &Embedding,
    progress: &mut dyn FnMut(usize),
) -> Result<Option<Embedded>> {
    let out = embedding.out;
    let format = Format::of(out)?;
    format.check(source.as_ref())?;
    encoder.check_kind(embedding.kind)?;
    let mut pass = Pass { encoder, source, embedding, progress, embedded: Embedded::default(), fault: None };
    let written = match format {
        Format::Npy => {
            let list = beside(out, ".csv");
            pass.embedded.files = vec![out.to_owned(), list.clone()];
            replace(&list, |list| replace(out, |partial| pass.run(NpyTable::create(partial, list)?)))
        }
        #[cfg(feature = "parquet")]
        Format::Parquet => {
            pass.embedded.files = vec![out.to_owned()];
            replace(out, |partial| pass.run(parquet::ParquetTable::create(partial)?))
        }
    };
    let Pass { mut embedded, fault, .. } = pass;
    match fault {
        Some(Fault::Stopped) => return Ok(None),
        Some(Fault::Failed(error)) => return Err(error),
        None => written?,
    }
    let unreadable = beside(out, ".unreadable.csv");
    if embedded.unreadable.is_empty() {
        let _ = std::fs::remove_file(&unreadable); // of an earlier collection; mostly there is none
    } else {
        write_atomically(&unreadable, &npy::list_of_unreadable(&embedded.unreadable)?)?;
        embedded.files.push(unreadable);
    }
    Ok(Some(embedded))
}

/// The path with another ending behind its own, as `F.npy.csv` of `F.npy`: `F.csv` may be the list of the images.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// The formats of a file of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Npy,
    #[cfg(feature = "parquet")]
    Parquet,
}

impl Format {
    fn of(out: &Path) -> Result<Self> {
        match out.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => Ok(Format::Npy),
            #[cfg(feature = "parquet")]
            Some("parquet") => Ok(Format::Parquet),
            Some(_) | None => Err(Error::Input {
                what: format!("`{}` does not say which format features are written in", out.display()),
                hint: Some("name a file `.npy`, or `.parquet` if this build has it".into()),
            }),
        }
    }

    /// Checks that the format can hold the labels of a source.
    fn check(self, source: &dyn Source) -> Result<()> {
        match self {
            Format::Npy => Ok(()),
            #[cfg(feature = "parquet")]
            Format::Parquet => match (0..source.len()).find(|index| source.labels(*index).len() > 1) {
                None => Ok(()),
                Some(index) => Err(Error::Input {
                    what: format!("`{}` is of several classes, and a row of `.parquet` has one", source.name(index)),
                    hint: Some("write `.npy`, beside which all are listed".into()),
                }),
            },
        }
    }
}

/// What is written of an image.
struct Row<'a> {
    file: String,
    labels: Vec<usize>,
    /// Names of all classes; empty if they have none.
    classes: &'a [String],
    values: &'a [f32],
}

/// A file of rows.
trait Table {
    /// Adds a row.
    fn add(&mut self, row: &Row) -> io::Result<()>;

    /// Ends the file, whose rows have this shape.
    fn finish(self, images: usize, shape: &[usize]) -> io::Result<()>;
}

/// One pass over the images.
struct Pass<'a, D: Device> {
    encoder: &'a FrozenEncoder<D>,
    source: &'a Arc<dyn Source>,
    embedding: &'a Embedding<'a>,
    progress: &'a mut dyn FnMut(usize),
    embedded: Embedded,
    /// Why nothing is written, unless writing itself failed.
    fault: Option<Fault>,
}

enum Fault {
    Stopped,
    Failed(Error),
}

impl<D: Device> Pass<'_, D> {
    /// Writes all rows; an error of anything but writing goes to `fault`.
    fn run(&mut self, mut table: impl Table) -> io::Result<()> {
        let mut failed_write = None;
        let (encoder, source, kind) = (self.encoder, self.source, self.embedding.kind);
        let passed = encoder.stream(source, kind, self.embedding.workers, |batch| {
            if let Err(error) = self.add(&mut table, batch) {
                failed_write = Some(error);
            } else if self.embedding.stop.load(Ordering::Relaxed) {
                self.fault = Some(Fault::Stopped);
            }
            Ok(failed_write.is_none() && self.fault.is_none())
        });
        if let Some(error) = failed_write {
            return Err(error);
        }
        let passed = passed.and_then(|()| some_readable(self.embedded.images, &self.embedded.unreadable));
        if let Err(error) = passed {
            self.fault.get_or_insert(Fault::Failed(error));
        }
        match self.fault {
            Some(_) => Err(io::ErrorKind::Interrupted.into()), // so that nothing is replaced
            None => table.finish(self.embedded.images, &self.embedded.shape),
        }
    }

    fn add(&mut self, table: &mut impl Table, batch: FeatureBatch) -> io::Result<()> {
        let embedded = &mut self.embedded;
        if !batch.samples.is_empty() {
            embedded.shape = batch.shape;
            let of_image = embedded.shape.iter().product::<usize>();
            for (sample, values) in batch.samples.iter().zip(batch.values.chunks_exact(of_image)) {
                let (file, labels) = (self.source.name(*sample), self.source.labels(*sample));
                table.add(&Row { file, labels, classes: self.source.classes(), values })?;
            }
        }
        embedded.images += batch.samples.len();
        embedded.unreadable.extend(batch.skipped);
        (self.progress)(embedded.images + embedded.unreadable.len());
        Ok(())
    }
}
