//! A picture as it lies in its source, before it is decoded.

use std::io::BufRead as _;
use std::path::PathBuf;

use crate::decode::{
    Decoding, Pieces, Window, Windows, decode_reduced, decode_stored, frames, is_tiff, size, tiff_size,
};
use crate::error::{Error, Result};
use crate::image::{Depth, Image, Pixels, Stored};
use crate::source::{LocalFile, Reader, read};

/// A picture that is not decoded yet.
///
/// Whoever uses a part of a picture at a smaller size says so before it is decoded: a JPEG of a camera has sixty times
/// the pixels of a network's input, and half, a quarter or an eighth of its size is decoded in a fraction of the time.
#[derive(Clone, Debug)]
pub struct Encoded {
    content: Content,
    decoding: Decoding,
    /// Where the picture comes from, for messages.
    name: String,
}

#[derive(Clone, Debug)]
enum Content {
    /// A picture file in memory.
    Bytes(Vec<u8>),
    /// A picture file on disk.
    Path(PathBuf),
    /// Pixels with any number of channels.
    Pixels(Image),
}

impl Encoded {
    /// A picture file in memory, to be decoded to `channels` channels.
    #[must_use]
    pub fn file(bytes: Vec<u8>, channels: usize, name: String) -> Self {
        Self { content: Content::Bytes(bytes), decoding: channels.into(), name }
    }

    /// A picture file on disk, which is read when it is decoded.
    pub(crate) fn at(path: PathBuf, channels: usize, name: String) -> Self {
        Self { content: Content::Path(path), decoding: channels.into(), name }
    }

    /// A picture that needs no decoding.
    #[must_use]
    pub fn pixels(image: Image, name: String) -> Self {
        Self { decoding: image.channels.into(), content: Content::Pixels(image), name }
    }

    /// The same picture, to be decoded to another number of channels.
    #[must_use]
    pub fn with_channels(mut self, channels: usize) -> Self {
        self.decoding.channels = channels;
        self
    }

    /// The same picture, to be decoded in another way.
    #[must_use]
    pub fn with_decoding(self, decoding: Decoding) -> Self {
        Self { decoding, ..self }
    }

    /// The same picture, of which the values in `window` are shown.
    #[must_use]
    pub(crate) fn with_window(mut self, window: Window) -> Self {
        self.decoding.window = Some(window);
        self
    }

    /// Decodes the picture as [`decode`](crate::decode()) does.
    ///
    /// # Errors
    ///
    /// Those of [`decode`](crate::decode()).
    pub fn decode(self) -> Result<Image> {
        self.decode_reduced(&mut |_, _| 1)
    }

    /// Decodes the picture as [`decode_reduced`](crate::decode::decode_reduced) does.
    ///
    /// # Errors
    ///
    /// Those of [`decode`](crate::decode()).
    pub fn decode_reduced(self, reduction: &mut dyn FnMut(usize, usize) -> usize) -> Result<Image> {
        match self.content {
            Content::Bytes(bytes) => decode_reduced(&bytes, &self.name, self.decoding, reduction),
            Content::Path(path) => decode_reduced(&read(&path)?, &self.name, self.decoding, reduction),
            Content::Pixels(image) => {
                self.decoding.check_pixels(&self.name)?;
                image.with_channels(self.decoding.channels, &self.name)
            }
        }
    }

    /// Decodes the picture as [`decode`](crate::decode()) does, and says how it is stored, and in how many frames or pages, of which
    /// the first is decoded.
    ///
    /// # Errors
    ///
    /// Those of [`decode`](crate::decode()).
    pub fn decode_stored(self) -> Result<(Image, Stored, usize)> {
        let of_file = |bytes: &[u8]| {
            let (image, stored) = decode_stored(bytes, &self.name, self.decoding, &mut |_, _| 1)?;
            Ok((image, stored, frames(bytes)))
        };
        match self.content {
            Content::Bytes(bytes) => of_file(&bytes),
            Content::Path(path) => of_file(&read(&path)?),
            Content::Pixels(image) => {
                self.decoding.check_pixels(&self.name)?;
                let depth = match image.pixels {
                    Pixels::U8(_) => Depth::Bits8,
                    Pixels::F32(_) => Depth::Float,
                };
                let stored = Stored { channels: image.channels, depth };
                Ok((image.with_channels(self.decoding.channels, &self.name)?, stored, 1))
            }
        }
    }

    /// Height and width of the decoded picture. Of most formats only the header is read.
    pub(crate) fn size(self) -> Result<[usize; 2]> {
        if let Some(file) = self.tiff()? {
            return tiff_size(file, &self.name);
        }
        match self.content {
            Content::Bytes(bytes) => size(&bytes, &self.name, self.decoding),
            Content::Path(path) => size(&read(&path)?, &self.name, self.decoding),
            Content::Pixels(image) => Ok([image.height, image.width]),
        }
    }

    /// Prepares to cut parts from the picture. A TIFF file on disk is read where it lies if its layout allows that.
    pub(crate) fn pieces(self) -> Result<Pieces> {
        if let Some(file) = self.tiff()?
            && self.decoding.window.is_none()
            && let Some(windows) = Windows::open(file, &self.name, self.decoding.channels)?
        {
            return Ok(Pieces::Tiff(Box::new(windows)));
        }
        self.decode().map(Pieces::Whole)
    }

    /// A TIFF file on disk.
    fn tiff(&self) -> Result<Option<Reader>> {
        let Content::Path(path) = &self.content else { return Ok(None) };
        let mut file = Reader::new(LocalFile::open(path)?);
        let start = file.fill_buf().map_err(|cause| Error::Read { path: path.clone(), cause })?;
        Ok(is_tiff(start).then_some(file))
    }
}
