//! Parts of one picture, one after the other.

use super::tiff_windows::Windows;
use crate::error::Result;
use crate::image::{Image, Rectangle};
use crate::scan::{size_of_thumbnail, thumbnail};
use crate::transform::{Filter, Region, resize};

/// The longest side of a part that is read at once for the overview of a picture, in pixels.
const OVERVIEW_PART: usize = 1024;

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

    /// Returns a small picture of the whole, as [`thumbnail`] does. Of a TIFF file that is read where it lies, one part after the
    /// other is in memory.
    ///
    /// # Errors
    ///
    /// Those of [`cut`](Self::cut).
    ///
    /// # Panics
    ///
    /// Panics if `most_px` is 0.
    pub(crate) fn overview(&mut self, most_px: usize) -> Result<Image> {
        let windows = match self {
            Self::Whole(image) => return Ok(thumbnail(image, most_px)),
            Self::Tiff(windows) => windows,
        };
        let (size, small) = (windows.size(), size_of_thumbnail(windows.size(), most_px));
        // parts of the small picture, and the pixels of the large one that they show
        let stretches = |axis: usize| {
            let length = (OVERVIEW_PART * small[axis] / size[axis]).max(1);
            let starts = (0..small[axis]).step_by(length);
            starts.map(move |start| (start, small[axis].min(start + length)))
        };
        let shown = |axis: usize, at: usize| at * size[axis] / small[axis];
        let mut whole: Option<Image> = None;
        for (top, bottom) in stretches(0) {
            for (left, right) in stretches(1) {
                let (first_row, first_column) = (shown(0, top), shown(1, left));
                let (height, width) = (shown(0, bottom) - first_row, shown(1, right) - first_column);
                let part = windows.cut(Rectangle { top: first_row, left: first_column, height, width })?;
                let all = Region::Cut { top: 0, left: 0, height, width };
                let part = resize(&part, all, bottom - top, right - left, Filter::Bilinear);
                let all = Rectangle { top: 0, left: 0, height: small[0], width: small[1] };
                whole.get_or_insert_with(|| part.zeros_like(small)).paste(&part, [top, left], all);
            }
        }
        Ok(thumbnail(&whole.expect("a picture has pixels"), most_px))
    }
}
