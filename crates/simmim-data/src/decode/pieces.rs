//! Parts of one picture, one after the other.

use super::tiff_windows::Windows;
use crate::error::Result;
use crate::image::{Image, Rectangle};

/// A picture that parts are cut from.
pub(crate) enum Pieces {
    /// One that is decoded.
    Whole(Image),
    /// A TIFF file that is read where it lies.
    Tiff(Box<Windows>),
}

impl Pieces {
    /// Height and width of the picture.
    pub(crate) fn size(&self) -> [usize; 2] {
        match self {
            Self::Whole(image) => [image.height, image.width],
            Self::Tiff(windows) => windows.size(),
        }
    }

    /// Returns a part of the picture.
    ///
    /// # Errors
    ///
    /// Those of [`decode`](super::decode()).
    ///
    /// # Panics
    ///
    /// Panics if the part does not lie within the picture.
    pub(crate) fn cut(&mut self, part: Rectangle) -> Result<Image> {
        match self {
            Self::Whole(image) => Ok(image.cut(part)),
            Self::Tiff(windows) => windows.cut(part),
        }
    }
}
