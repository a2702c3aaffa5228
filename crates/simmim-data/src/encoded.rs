//! A picture as it lies in its source, before it is decoded.

use crate::decode::decode_reduced;
use crate::error::Result;
use crate::image::Image;

/// A picture that is not decoded yet.
///
/// Whoever uses a part of a picture at a smaller size says so before it is decoded: a JPEG of a camera has sixty times
/// the pixels of a network's input, and half, a quarter or an eighth of its size is decoded in a fraction of the time.
#[derive(Clone, Debug)]
pub struct Encoded {
    content: Content,
    /// The number of channels to decode to.
    channels: usize,
    /// Where the picture comes from, for messages.
    name: String,
}

#[derive(Clone, Debug)]
enum Content {
    /// A picture file.
    File(Vec<u8>),
    /// Pixels with the wanted number of channels.
    Pixels(Image),
}

impl Encoded {
    /// A picture file in memory, to be decoded to `channels` channels.
    #[must_use]
    pub fn file(bytes: Vec<u8>, channels: usize, name: String) -> Self {
        Self { content: Content::File(bytes), channels, name }
    }

    /// A picture that needs no decoding.
    #[must_use]
    pub fn pixels(image: Image, name: String) -> Self {
        Self { channels: image.channels, content: Content::Pixels(image), name }
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
            Content::File(bytes) => decode_reduced(&bytes, &self.name, self.channels, reduction),
            Content::Pixels(image) => Ok(image),
        }
    }
}
