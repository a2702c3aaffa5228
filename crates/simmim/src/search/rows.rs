//! Rows of features with the names of their images, in memory or in the file of an array, of which a block is read at a
//! time.

use super::stored;
use crate::error::{Error, Result};
use crate::evaluation::{CollectedFeatures, scale_to_unit};
use crate::weights::first_not_finite;
use simmim_data::Source;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Rows of features, one per image.
#[derive(Debug)]
pub struct FeatureRows {
    width: usize,
    names: RowNames,
    values: Values,
    /// Number of each image in the source that pictures are taken from.
    samples: Option<Vec<usize>>,
}

/// What the rows are of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowNames {
    /// File or name of each image.
    pub files: Vec<String>,
    /// Class of each image, the first if it has several.
    pub classes: Vec<Option<u32>>,
    /// Names of the classes.
    pub class_names: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Values {
    /// `[N, D]`
    Memory(Vec<f32>),
    /// Little-endian values behind the first bytes of a file.
    File { file: Mutex<File>, path: PathBuf, start: u64 },
}

impl FeatureRows {
    pub(super) fn new(width: usize, names: RowNames, values: Values) -> Self {
        Self { width, names, values, samples: None }
    }

    /// Features of the images of a source.
    pub fn of_source(collected: CollectedFeatures, source: &dyn Source) -> Self {
        let class_names = source.classes().to_vec();
        let names = RowNames {
            files: collected.samples.iter().map(|sample| source.name(*sample)).collect(),
            classes: collected.samples.iter().map(|sample| Some(source.label(*sample)? as u32)).collect(),
            class_names,
        };
        let values = Values::Memory(collected.values);
        Self { width: collected.width, names, values, samples: Some(collected.samples) }
    }

    /// Features that [`embed`](crate::evaluation::embed) wrote: `F.npy`, beside which is `F.npy.csv`, or `F.parquet`. An array
    /// stays in its file; Parquet is read into memory.
    ///
    /// # Errors
    /// If a file cannot be read, or holds something else.
    pub fn open(path: &Path) -> Result<Self> {
        stored::open(path)
    }

    /// Finds the images of the rows in a source, so that their pictures can be shown.
    ///
    /// # Errors
    /// If an image of a row is not there, or they are in another order.
    pub fn find_in(&mut self, source: &dyn Source) -> Result<()> {
        let mut samples = Vec::with_capacity(self.len());
        for sample in 0..source.len() {
            if self.names.files.get(samples.len()).is_some_and(|file| *file == source.name(sample)) {
                samples.push(sample);
            }
        }
        if let Some(missing) = self.names.files.get(samples.len()) {
            return Err(Error::Input {
                what: format!(
                    "the features have a row of `{missing}`, which is not among the images, or not in this order"
                ),
                hint: Some("give the images in --data as they were given to `simmim embed`".into()),
            });
        }
        self.samples = Some(samples);
        Ok(())
    }

    /// Number of rows, `N`.
    pub fn len(&self) -> usize {
        self.names.files.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Width of a row, `D`.
    pub fn width(&self) -> usize {
        self.width
    }

    /// What the rows are of.
    pub fn names(&self) -> &RowNames {
        &self.names
    }

    /// The class of an image by its name.
    pub fn class(&self, row: usize) -> Option<&str> {
        let class = self.names.classes[row]?;
        self.names.class_names.get(class as usize).map(String::as_str)
    }

    /// The number of an image in the source that it was found in.
    pub fn sample(&self, row: usize) -> Option<usize> {
        Some(self.samples.as_ref()?[row])
    }

    /// Some rows as they are, `[n, D]`.
    ///
    /// # Errors
    /// If the file cannot be read, or a value is not finite: the error names the image.
    pub fn block(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let of = rows.start * self.width..rows.end * self.width;
        let values = match &self.values {
            Values::Memory(values) => values[of].to_vec(),
            Values::File { file, path, start } => {
                let mut bytes = vec![0; 4 * of.len()];
                let mut file = file.lock().expect("no reader panics");
                let read =
                    file.seek(SeekFrom::Start(start + 4 * of.start as u64)).and_then(|_| file.read_exact(&mut bytes));
                read.map_err(|error: io::Error| Error::io(path)(error))?;
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("there are four"))).collect()
            }
        };
        match first_not_finite(&values) {
            None => Ok(values),
            Some((index, value)) => Err(Error::OutputNotFinite {
                what: format!("feature {}", index % self.width),
                image: self.names.files[rows.start + index / self.width].clone(),
                value: value.into(),
            }),
        }
    }

    /// Some rows scaled to unit length, `[n, D]`; a row of zeros stays.
    ///
    /// # Errors
    /// Those of [`FeatureRows::block`].
    pub fn unit_block(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let mut values = self.block(rows)?;
        scale_to_unit(&mut values, self.width);
        Ok(values)
    }
}
