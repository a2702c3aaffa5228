//! Features of a collection in a file: a row per image that can be read, in the order of the source. Rows are written
//! as they are computed, so that memory does not grow with the collection, to a file beside that one. A pass that was
//! stopped or killed goes on behind the rows that are there.

mod npy;
#[cfg(feature = "parquet")]
mod parquet;
mod partial;

use super::FrozenEncoder;
use super::classification::some_readable;
use super::shares::check_like_first_rank;
use super::stream::{BATCH, FeatureBatch, FeatureKind};
use crate::error::{Error, Result};
use crate::run::files::{replace, write_atomically};
use partial::Partial;
use simmim_data::{Skipped, Source};
use simmim_engine::{Activity, Alone, Collective, Device};
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
    /// Set to stop early; the same call goes on.
    pub stop: &'a AtomicBool,
}

/// What happens on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmbeddingEvent {
    /// Rows of an earlier pass were found.
    Resumed {
        /// Number of images that are done.
        done: usize,
    },
    /// What an earlier pass left is damaged, and all rows are computed again.
    BeganAnew {
        /// The damage.
        why: String,
    },
    /// Images are done.
    Progress {
        /// How many so far.
        done: usize,
    },
}

/// What was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Embedded {
    /// All of it.
    Whole(EmbeddedFiles),
    /// The pass was stopped, and can go on.
    Stopped {
        /// Number of images that are done.
        done: usize,
    },
}

/// Files of features.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbeddedFiles {
    /// Number of rows.
    pub images: usize,
    /// Shape of a row, `[D]` or `[h·w, D]`.
    pub shape: Vec<usize>,
    /// The files.
    pub files: Vec<PathBuf>,
    /// Images that could not be read, which have no row.
    pub unreadable: Vec<Skipped>,
}

/// Writes features of all images of a source, and goes on with those that an earlier call wrote before it was stopped or
/// its process killed.
///
/// `F.npy` has the shape `[images, D]` or `[images, h·w, D]`, and `F.npy.csv` has file, label and class of each row.
/// `F.parquet` has them as columns, and one of flat rows. Images that cannot be read have no row, and
/// `F.npy.unreadable.csv` lists them. Until all are done, rows are in `F.npy.partial`, and `F.npy.partial.json` says what
/// they are of.
///
/// # Errors
/// If the name of the file has another ending, the encoder has no such features, the rows of another call are there, no
/// image can be read, a feature is not finite, or a file cannot be written.
///
/// # Panics
/// If the normalization is not known: see [`FrozenEncoder::measure`].
pub fn embed<D: Device>(
    encoder: &FrozenEncoder<D>,
    source: &Arc<dyn Source>,
    embedding: &Embedding,
    watch: &mut dyn FnMut(EmbeddingEvent),
) -> Result<Embedded> {
    embed_on_ranks(encoder, source, embedding, &mut Alone, watch)
}

/// [`embed`] on all ranks, each of which computes its share of the rows. The first one writes them, calls `watch` and knows what
/// was written. The files have the same bits on any number of ranks, and a pass goes on with another number.
///
/// # Errors
/// Those of [`embed`], and if a rank is lost or was started with something else.
///
/// # Panics
/// If the normalization is not known: see [`FrozenEncoder::measure`].
pub fn embed_on_ranks<D: Device>(
    encoder: &FrozenEncoder<D>,
    source: &Arc<dyn Source>,
    embedding: &Embedding,
    collective: &mut dyn Collective,
    watch: &mut dyn FnMut(EmbeddingEvent),
) -> Result<Embedded> {
    let Embedding { kind, out, workers, stop } = *embedding;
    let format = Format::of(out)?;
    format.check(source.as_ref())?;
    encoder.check_kind(kind)?;
    if out.is_dir() {
        let hint = Some("name a file in it, such as `features.npy`".into());
        return Err(Error::Input { what: format!("`{}` is a folder", out.display()), hint });
    }
    check_like_first_rank(collective, || encoder.identity(source, kind))?;
    if !collective.is_first() {
        let mut first = Vec::new();
        collective.broadcast_bytes(&mut first, 0)?;
        let first = u64::from_le_bytes(*first.first_chunk().expect("the first rank sends a number")) as usize;
        let take = |_| Ok(()); // only the first rank takes rows
        let is_stopped =
            encoder.stream(collective, source, kind, workers, first, take, || stop.load(Ordering::Relaxed))?;
        return Ok(match is_stopped {
            true => Embedded::Stopped { done: 0 },
            false => Embedded::Whole(EmbeddedFiles::default()),
        });
    }
    collective.announce(Activity::Alone(0));
    let (mut partial, begins_anew) = Partial::open(out, encoder.identity(source, kind), BATCH, source.len())?;
    if let Some(why) = begins_anew {
        watch(EmbeddingEvent::BeganAnew { why });
    }
    if partial.done() > 0 {
        watch(EmbeddingEvent::Resumed { done: partial.done() });
    }
    let first = partial.done();
    collective.broadcast_bytes(&mut (first as u64).to_le_bytes().to_vec(), 0)?;
    let take = |batch: FeatureBatch| {
        let FeatureBatch { samples, skipped, shape, values, .. } = batch;
        partial.add(samples.len(), &shape, &values, &skipped)?;
        watch(EmbeddingEvent::Progress { done: partial.done() });
        Ok(())
    };
    let passed = encoder.stream(collective, source, kind, workers, first, take, || stop.load(Ordering::Relaxed));
    let passed = passed.and_then(|is_stopped| match is_stopped && partial.done() < source.len() {
        true => Ok(()),
        false => some_readable(partial.images(), &partial.unreadable()),
    });
    match passed {
        // other images or weights make other rows; what the system, a store or another rank refuses may be had later
        Err(error) if error.is_users_fault() && !matches!(error, Error::Rank(_)) => {
            let _ = partial.remove(); // the first error matters more
            Err(error)
        }
        Err(error) => Err(error),
        Ok(()) if partial.done() < source.len() => {
            partial.save()?;
            Ok(Embedded::Stopped { done: partial.done() })
        }
        Ok(()) => {
            partial.save()?;
            finish(format, partial, source.as_ref(), out).map(Embedded::Whole)
        }
    }
}

/// Makes the final files of the rows of all images.
fn finish(format: Format, partial: Partial, source: &dyn Source, out: &Path) -> Result<EmbeddedFiles> {
    let unreadable = partial.unreadable();
    let mut left_out = unreadable.iter().map(|skipped| skipped.index).peekable();
    let samples = (0..source.len()).filter(move |sample| left_out.next_if_eq(sample).is_none());
    let (images, shape) = (partial.images(), partial.shape().to_vec());
    let list_of_unreadable = beside(out, ".unreadable.csv");
    if unreadable.is_empty() {
        let _ = std::fs::remove_file(&list_of_unreadable); // of an earlier collection; mostly there is none
    } else {
        write_atomically(&list_of_unreadable, &npy::list_of_unreadable(&unreadable)?)?;
    }
    let mut files = vec![out.to_owned()];
    match format {
        Format::Npy => {
            let list = beside(out, ".csv");
            replace(&list, |list| npy::write_list(list, source, samples))?;
            files.push(list);
            partial.finish_as(out, &npy::header(images, &shape))?;
        }
        #[cfg(feature = "parquet")]
        Format::Parquet => {
            let mut partial = partial;
            replace(out, |path| {
                let (mut table, mut samples) = (parquet::ParquetTable::create(path)?, samples);
                partial
                    .each_row(|row| table.add(source, samples.next().expect("there is a sample for each row"), row))?;
                table.finish(&shape)
            })?;
            partial.remove()?;
        }
    }
    files.extend((!unreadable.is_empty()).then_some(list_of_unreadable));
    Ok(EmbeddedFiles { images, shape, files, unreadable })
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
    #[cfg_attr(not(feature = "parquet"), expect(unused_variables, reason = "an array holds any labels"))]
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
