//! Parts of a TIFF file, of which only the tiles or strips that they touch are read.

use super::tiff::Page;
use super::{Format, guarded};
use crate::error::Result;
use crate::image::{Image, Rectangle};
use crate::source::Reader;

/// A TIFF file, wherever it lies, that parts are read from.
pub(crate) struct Windows {
    page: Page<Reader>,
    name: String,
    wanted: usize,
}

impl Windows {
    /// Opens a file whose parts will be converted to `wanted` channels; `None` if it can only be read as a whole: where
    /// values have less than 8 bits, where every color is stored apart, and where the picture is not stored upright.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] or [`Error::DecoderPanicked`] with `name`.
    pub(crate) fn open(file: Reader, name: &str, wanted: usize) -> Result<Option<Self>> {
        let page = guarded(Format::Tiff, name, || Page::open(file, name))?;
        let is_simple = page.bits >= 8 && !page.is_planar && page.orientation == 1;
        Ok(is_simple.then(|| Self { page, name: name.to_owned(), wanted }))
    }

    /// Height and width.
    pub(crate) fn size(&self) -> [usize; 2] {
        self.page.size
    }

    /// Reads a part.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`], [`Error::TooLarge`], [`Error::NotFinite`], [`Error::Channels`] or [`Error::DecoderPanicked`].
    pub(crate) fn cut(&mut self, part: Rectangle) -> Result<Image> {
        let Self { page, name, wanted } = self;
        guarded(Format::Tiff, name, || page.part(part, *wanted, name))
    }
}
