//! IDX files of images, the format of MNIST and Fashion-MNIST.
//!
//! The format is described on the MNIST page (Y. LeCun, C. Cortes, C. J. C. Burges).

use std::borrow::Cow;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use super::{PassedOver, Source, names, read};
use crate::decode::check_size;
use crate::encoded::Encoded;
use crate::error::{Error, Result};
use crate::image::{Image, Pixels};

/// Opens IDX images from memory, with or without labels; both may be compressed by gzip.
///
/// The classes are called `0` up to the highest label.
///
/// # Errors
///
/// An [`Error`] if the bytes are not an IDX file or are cut short, if the number of labels is not that of the images,
/// or, as [`Error::Channels`], if gray cannot be converted to `channels` channels.
pub fn idx_from_bytes(images: &[u8], labels: Option<&[u8]>, channels: usize) -> Result<Arc<dyn Source>> {
    let labels = labels.map(|labels| (labels, "labels.idx1"));
    Ok(Arc::new(Idx::new((images, "images.idx3"), labels, None, channels)?))
}

pub(super) struct Idx {
    name: String,
    /// `[len, H, W]`.
    pixels: Vec<u8>,
    height: usize,
    width: usize,
    /// One for every image; empty if the images are unlabeled.
    labels: Vec<u8>,
    classes: Vec<String>,
    channels: usize,
}

impl Idx {
    /// Reads a file of images, and the file of labels in the same folder if there is one.
    pub(super) fn open(path: &Path, channels: usize) -> Result<Self> {
        let labels_path = labels_of(path);
        let labels = labels_path.as_deref().map(read).transpose()?;
        let labels_name = labels_path.unwrap_or_default().display().to_string();
        let given = names::read_list(path.parent().unwrap_or(Path::new("")))?;
        let labels = labels.as_deref().map(|labels| (labels, labels_name.as_str()));
        Self::new((&read(path)?, &path.display().to_string()), labels, given, channels)
    }

    fn new(
        (images, name): (&[u8], &str),
        labels: Option<(&[u8], &str)>,
        given: Option<Vec<String>>,
        channels: usize,
    ) -> Result<Self> {
        let ([len, height, width], pixels) = array(images, name)?;
        let labels = match labels {
            Some((labels, labels_name)) => {
                let ([count], labels) = array(labels, labels_name)?;
                if count != len {
                    let name = labels_name.to_owned();
                    return Err(Error::LabelCount { name, labels: count, images: len });
                }
                labels
            }
            None => Vec::new(),
        };
        if len == 0 {
            return Err(Error::NoSamples { path: PathBuf::from(name), passed_over: PassedOver::default() });
        }
        if height * width == 0 {
            return Err(Error::NoPixels { name: name.to_owned(), height, width });
        }
        check_size([height, width], channels.max(1), 1, name)?;
        let classes = labels.iter().map(|label| Some(usize::from(*label)));
        let classes = names::of(classes, given, |index| format!("{name}#{index}"))?;
        let source = Self { name: name.to_owned(), pixels, height, width, labels, classes, channels };
        source.get(0)?; // fails here, and not at the first batch, if gray cannot be converted to `channels`
        Ok(source)
    }
}

impl Source for Idx {
    fn len(&self) -> usize {
        self.pixels.len() / (self.height * self.width)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self, index: usize) -> String {
        format!("{}#{index}", self.name)
    }

    fn encoded(&self, index: usize) -> Result<Encoded> {
        let (height, width) = (self.height, self.width);
        let pixels = self.pixels[index * height * width..][..height * width].to_vec();
        let image = Image { channels: 1, height, width, pixels: Pixels::U8(pixels) };
        Ok(Encoded::pixels(image, self.name(index)).with_channels(self.channels))
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.get(index).copied().map(usize::from)
    }
}

/// The file of labels in the folder of a file of images, compressed or not, if there is one.
fn labels_of(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let plain = name.strip_suffix(".gz").unwrap_or(name).replace("images", "labels").replace("idx3", "idx1");
    let candidates = [images.with_file_name(&plain), images.with_file_name(format!("{plain}.gz"))];
    candidates.into_iter().find(|path| path != images && path.exists() && !path.is_dir())
}

/// Reads the sizes and values of an IDX file of bytes with `RANK` dimensions.
fn array<const RANK: usize>(bytes: &[u8], name: &str) -> Result<([usize; RANK], Vec<u8>)> {
    let bytes =
        decompressed(bytes).map_err(|cause| Error::BadArchive { name: name.to_owned(), what: cause.to_string() })?;
    // the header: two zeros, 8 for unsigned bytes, the rank, and for each dimension a big-endian size
    let header = bytes.get(..4 + 4 * RANK).filter(|header| header[..4] == [0, 0, 8, RANK as u8]);
    let Some(header) = header else {
        let start = bytes[..bytes.len().min(4)].to_vec();
        return Err(Error::NotIdx { name: name.to_owned(), rank: RANK as u8, start });
    };
    let size = |axis: usize| {
        let at = 4 + 4 * axis;
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let sizes: [u32; RANK] = std::array::from_fn(size);
    let data = &bytes[header.len()..];
    let expected = sizes.iter().fold(1_u64, |product, size| product.saturating_mul(u64::from(*size)));
    if data.len() as u64 != expected {
        return Err(Error::IdxLength { name: name.to_owned(), expected, actual: data.len() as u64 });
    }
    Ok((sizes.map(|size| size as usize), data.to_vec()))
}

fn decompressed(bytes: &[u8]) -> std::io::Result<Cow<'_, [u8]>> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut content = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut content)?;
    Ok(Cow::Owned(content))
}
