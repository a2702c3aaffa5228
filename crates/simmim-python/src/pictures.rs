//! Pictures that Python has, as a source of images.

use pyo3::FromPyObject;
use simmim_data::{Decoding, Encoded, Error, Image, Pixels, Result, Source};
use std::path::PathBuf;

/// A picture.
#[derive(FromPyObject)]
pub(crate) enum Picture {
    /// Bytes, 0 to 255, `[H, W, C]`.
    Bytes { pixels: Vec<u8>, shape: (usize, usize, usize) },
    /// The bytes of `f32` numbers from 0 to 1, `[H, W, C]`.
    Floats { floats: Vec<u8>, shape: (usize, usize, usize) },
    /// A file.
    File { path: PathBuf },
}

/// Pictures in the order in which they were given.
pub(crate) struct Pictures {
    pub(crate) pictures: Vec<Picture>,
    /// How the encoder reads them.
    pub(crate) decoding: Decoding,
}

impl Source for Pictures {
    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn name(&self, index: usize) -> String {
        match &self.pictures[index] {
            Picture::File { path } => path.display().to_string(),
            Picture::Bytes { .. } | Picture::Floats { .. } => format!("images[{index}]"),
        }
    }

    fn encoded(&self, index: usize) -> Result<Encoded> {
        let of_pixels = |(height, width, channels), pixels| {
            let image = Image { channels, height, width, pixels };
            Encoded::pixels(image, self.name(index)).with_decoding(self.decoding)
        };
        Ok(match &self.pictures[index] {
            Picture::Bytes { pixels, shape } => of_pixels(*shape, Pixels::U8(pixels.clone())),
            Picture::Floats { floats, shape } => {
                let values = floats.as_chunks().0.iter().map(|value| f32::from_ne_bytes(*value));
                of_pixels(*shape, Pixels::F32(values.collect()))
            }
            Picture::File { path } => {
                let bytes = std::fs::read(path).map_err(|cause| Error::Read { path: path.clone(), cause })?;
                Encoded::file(bytes, self.decoding.channels, self.name(index)).with_decoding(self.decoding)
            }
        })
    }

    fn label(&self, _: usize) -> Option<usize> {
        None
    }
}
