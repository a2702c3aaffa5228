//! Features that are kept on the disk, and used again only if all that they depend on is unchanged.
//!
//! The name of a file is made of checksums of what is known at once: how the features were made, and the names and
//! classes of the images. The file also holds a checksum of the pixels of every image. To compare it, all images are
//! decoded, which takes little time beside encoding them.

use super::Features;
use crate::error::{Error, Result};
use crate::run::files::remove_leftovers;
use crate::run::image_sample;
use crate::weights::{self, WeightsFile};
use simmim_data::{Encoded, Source};
use simmim_engine::{Collective, ParameterTable};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// Name of the tensor in a file of features.
const TENSOR: &str = "features";

/// Key of what the features depend on in the metadata of their file.
const KEY: &str = "simmim.features";

/// How long a temporary file of a process that is gone stays: nothing takes that long to write.
const LEFT_FOR: Duration = Duration::from_secs(3600);

/// The file that keeps the features of the images of one source.
pub(super) struct FeatureCache {
    path: PathBuf,
    /// What the features depend on, apart from the pixels.
    known: String,
}

impl FeatureCache {
    /// The file in `folder` for features that are `made_by` an encoder, of the images of `source`.
    pub(super) fn new(folder: &Path, made_by: &str, source: &dyn Source) -> Self {
        let (made, images) = (crc32c::crc32c(made_by.as_bytes()), names_and_classes(source));
        let path = folder.join(format!("features-{made:08x}-{images:08x}.safetensors"));
        Self { path, known: format!("{made_by} of {} images {images:08x}", source.len()) }
    }

    /// The features in the file. `None` if there is no file, if it is damaged, or if it holds features of other images;
    /// it is then replaced by [`FeatureCache::write`]. The images are read by `workers` threads.
    pub(super) fn read(&self, source: &Summed, workers: usize) -> Option<Features> {
        let file = WeightsFile::read(&self.path).ok()?;
        let (shape, values) = file.tensor(TENSOR).ok()??;
        let [images, width] = shape[..] else { return None };
        let labels: Vec<usize> = (0..source.len()).map(|index| source.label(index)).collect::<Option<_>>()?;
        source.read_all(workers);
        let is_same = file.metadata().get(KEY) == Some(&self.key(source)) && images == labels.len();
        is_same.then_some(Features { width, values, labels, skipped: Vec::new(), not_cached: None })
    }

    /// Writes features of all images of a source, each of which has been read.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn write(&self, features: &Features, source: &Summed) -> Result<()> {
        let folder = self.path.parent().expect("the file is in a folder");
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        remove_leftovers(folder, LEFT_FOR);
        let mut table = ParameterTable::default();
        table.add(TENSOR, &[features.len(), features.width]);
        let metadata = HashMap::from([(KEY.to_owned(), self.key(source))]);
        weights::save_atomically(&self.path, &table, &features.values, metadata)
    }

    /// All that the features depend on.
    fn key(&self, source: &Summed) -> String {
        format!("{} with pixels {:08x}", self.known, source.pixels())
    }
}

/// A checksum of the names and classes of all images.
pub(super) fn names_and_classes(source: &dyn Source) -> u32 {
    (0..source.len()).fold(0, |sum, index| {
        let name = source.name(index);
        let class = source.label(index).map_or(u64::MAX, |class| class as u64);
        let sum = crc32c::crc32c_append(sum, &(name.len() as u64).to_le_bytes());
        let sum = crc32c::crc32c_append(sum, name.as_bytes());
        crc32c::crc32c_append(sum, &class.to_le_bytes())
    })
}

/// A source that remembers a checksum of the pixels of every image that was read from it.
pub(super) struct Summed {
    source: Arc<dyn Source>,
    /// 0 for an image that was not read, or could not be.
    sums: Vec<AtomicU32>,
}

impl Summed {
    pub(super) fn new(source: Arc<dyn Source>) -> Self {
        let sums = (0..source.len()).map(|_| AtomicU32::new(0)).collect();
        Self { source, sums }
    }

    /// Reads all images, with `workers` threads beside this one.
    fn read_all(&self, workers: usize) {
        let next = AtomicUsize::new(0);
        let indices = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < self.len());
        // an image that cannot be read keeps the checksum 0
        let read = || std::iter::from_fn(indices).for_each(|index| drop(self.get(index)));
        std::thread::scope(|scope| {
            for _ in 0..workers {
                // without a thread, the others read its images
                let _ = std::thread::Builder::new().spawn_scoped(scope, read);
            }
            read();
        });
    }

    /// Forgets all checksums, before the images are divided over ranks.
    pub(super) fn forget(&self) {
        self.sums.iter().for_each(|sum| sum.store(0, Ordering::Relaxed));
    }

    /// Takes in the checksums of the images that other ranks have read.
    pub(super) fn gather(&self, collective: &mut dyn Collective) -> Result<()> {
        if collective.world() > 1 {
            let mut all: Vec<f64> = self.sums.iter().map(|sum| f64::from(sum.load(Ordering::Relaxed))).collect();
            collective.all_reduce_sum_f64(&mut all)?; // each image was read by one rank
            all.iter().zip(&self.sums).for_each(|(sum, own)| own.store(*sum as u32, Ordering::Relaxed));
        }
        Ok(())
    }

    /// The checksum of the pixels of all images.
    fn pixels(&self) -> u32 {
        let bytes = |of_image: &AtomicU32| of_image.load(Ordering::Relaxed).to_le_bytes();
        self.sums.iter().fold(0, |sum, of_image| crc32c::crc32c_append(sum, &bytes(of_image)))
    }
}

impl Source for Summed {
    fn len(&self) -> usize {
        self.source.len()
    }

    fn classes(&self) -> &[String] {
        self.source.classes()
    }

    fn name(&self, index: usize) -> String {
        self.source.name(index)
    }

    fn encoded(&self, index: usize) -> simmim_data::Result<Encoded> {
        let sample = self.source.get(index)?;
        self.sums[index].store(image_sample::of_image(&sample.image), Ordering::Relaxed);
        Ok(Encoded::pixels(sample.image, sample.name))
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.source.label(index)
    }

    fn labels(&self, index: usize) -> Vec<usize> {
        self.source.labels(index)
    }

    fn is_labeled(&self, index: usize) -> bool {
        self.source.is_labeled(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_data::{Relabeled, idx_from_bytes};

    /// As many images as `pixels`, of 1 × 1 pixels and alternating classes.
    fn source(pixels: &[u8]) -> Arc<dyn Source> {
        let count = pixels.len() as u8;
        let images = [[0, 0, 8, 3].as_slice(), &[0, 0, 0, count], &[0, 0, 0, 1], &[0, 0, 0, 1], pixels].concat();
        let classes: Vec<u8> = (0..count).map(|i| i % 2).collect();
        let labels = [[0, 0, 8, 1].as_slice(), &[0, 0, 0, count], &classes].concat();
        idx_from_bytes(&images, Some(&labels), 1).unwrap()
    }

    fn features() -> Features {
        let values = (0..6).map(|i| i as f32).collect();
        Features { width: 2, values, labels: vec![0, 1, 0], skipped: Vec::new(), not_cached: None }
    }

    fn keep(folder: &Path, made_by: &str, source: Arc<dyn Source>) -> PathBuf {
        let source = Summed::new(source);
        source.read_all(0);
        let cache = FeatureCache::new(folder, made_by, &source);
        cache.write(&features(), &source).unwrap();
        cache.path
    }

    fn found(folder: &Path, made_by: &str, source: Arc<dyn Source>) -> Option<Features> {
        let source = Summed::new(source);
        FeatureCache::new(folder, made_by, &source).read(&source, 2)
    }

    #[test]
    fn features_are_found_again_unless_something_changed() {
        let folder = tempfile::tempdir().unwrap();
        keep(folder.path(), "this encoder", source(&[7, 8, 9]));
        let check = |made_by: &str, source: Arc<dyn Source>, is_found: bool| {
            let expected = is_found.then(features);
            let name = format!("{made_by} {:?}", (0..source.len()).map(|i| source.get(i)).collect::<Vec<_>>());
            assert_eq!(found(folder.path(), made_by, source), expected, "{name}");
        };
        check("this encoder", source(&[7, 8, 9]), true);
        check("another encoder", source(&[7, 8, 9]), false);
        check("this encoder", source(&[9, 8, 7]), false); // two pictures changed places
        check("this encoder", source(&[7, 8, 10]), false);
        check("this encoder", source(&[7, 8]), false);
        let classes = ["0", "1"].map(str::to_owned).to_vec();
        check("this encoder", Arc::new(Relabeled::new(source(&[7, 8, 9]), vec![1, 0], classes)), false);
    }

    #[test]
    fn a_file_that_is_cut_short_counts_as_none_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = keep(folder.path(), "this encoder", source(&[7, 8, 9]));
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 4, 20, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(found(folder.path(), "this encoder", source(&[7, 8, 9])), None, "{length} bytes");
        }
        keep(folder.path(), "this encoder", source(&[7, 8, 9]));
        assert!(std::fs::read(&path).unwrap() == whole);
    }

    #[test]
    fn every_image_counts_once_for_any_number_of_threads() {
        let pixels: Vec<u8> = (0..200).collect();
        let sum = |workers: usize| {
            let source = Summed::new(source(&pixels));
            source.read_all(workers);
            assert!(source.sums.iter().all(|sum| sum.load(Ordering::Relaxed) != 0), "{workers} threads");
            source.pixels()
        };
        assert_eq!(sum(0), sum(3));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let source = Summed::new(source(&[7, 8, 9]));
        let error = FeatureCache::new(&file.join("kept"), "this encoder", &source).write(&features(), &source);
        assert!(error.unwrap_err().to_string().contains("kept"));
    }
}
