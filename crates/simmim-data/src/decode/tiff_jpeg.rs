//! JPEG within TIFF files (TIFF Technical Note 2): every strip or tile is a file of its own, whose tables may stand in the
//! directory of the page.

use std::io::{Read, Seek, SeekFrom};

use ::tiff::decoder::{ChunkType, Decoder};
use ::tiff::tags::Tag;
use ::tiff::{TiffError, TiffResult};

use super::jpeg::{self, Colors};
use crate::error::{Error, Result};
use crate::image::Pixels;

/// The value of the tag `Compression`. The older value 6 was given up before anybody agreed on it.
const JPEG: u32 = 7;

/// Where the JPEG files of a page lie.
pub(super) struct Jpegs {
    /// What stands before each, without the markers of start and end.
    tables: Vec<u8>,
    offsets: Vec<u64>,
    lengths: Vec<u64>,
    colors: Colors,
}

impl Jpegs {
    /// Reads where the JPEG files of a page lie; `None` if it has none.
    ///
    /// # Errors
    ///
    /// Those of reading the tags.
    pub(super) fn of(decoder: &mut Decoder<impl Read + Seek>, colors: Colors) -> TiffResult<Option<Self>> {
        if decoder.find_tag_unsigned::<u32>(Tag::Compression)? != Some(JPEG) {
            return Ok(None);
        }
        let tables = match decoder.find_tag(Tag::JPEGTables)? {
            Some(tables) => tables.into_u8_vec()?,
            None => Vec::new(),
        };
        let tables = tables.strip_prefix(jpeg::START).unwrap_or(&tables);
        let tables = tables.strip_suffix(jpeg::END).unwrap_or(tables).to_vec();
        let (offsets, lengths) = match decoder.get_chunk_type() {
            ChunkType::Strip => (Tag::StripOffsets, Tag::StripByteCounts),
            ChunkType::Tile => (Tag::TileOffsets, Tag::TileByteCounts),
        };
        let (offsets, lengths) = (decoder.get_tag_u64_vec(offsets)?, decoder.get_tag_u64_vec(lengths)?);
        Ok(Some(Self { tables, offsets, lengths, colors }))
    }

    /// Reads and decodes the values of strip or tile `number`, which is `width` pixels wide and of which the first `height` rows
    /// and the first `columns` of them count.
    ///
    /// # Errors
    ///
    /// Those of [`jpeg::samples`], and [`Error::Decode`] if it does not lie in the file or has another number of samples.
    pub(super) fn read(
        &self,
        file: &mut (impl Read + Seek),
        number: usize,
        [height, width]: [usize; 2],
        columns: usize,
        samples: usize,
        name: &str,
    ) -> Result<Vec<u8>> {
        let refused = |reason: String| Error::Decode { name: name.to_owned(), reason };
        let place = self.offsets.get(number).zip(self.lengths.get(number));
        let Some((offset, length)) = place else {
            return Err(refused(format!("it has no place for part {number}")));
        };
        let mut part = Vec::new();
        let read = file.seek(SeekFrom::Start(*offset)).and_then(|_| file.take(*length).read_to_end(&mut part));
        read.map_err(|cause| refused(TiffError::from(cause).to_string()))?;
        if (part.len() as u64) < *length {
            return Err(refused(format!("part {number} lies behind the end of the file")));
        }
        let image = jpeg::samples(&part, &self.tables, self.colors, [height, width], name)?;
        if image.channels != samples {
            return Err(refused(format!("part {number} has {} samples, expected {samples}", image.channels)));
        }
        let Pixels::U8(values) = image.pixels else { return Err(refused("it has more than 8 bits".to_owned())) };
        let rows = values.chunks_exact(width * samples).take(height);
        Ok(rows.flat_map(|row| &row[..columns * samples]).copied().collect())
    }
}
