//! The pages of a Parquet file, which may unpack to more memory than there is: what they claim and what they hold is limited
//! before the reader of such files takes them.

use std::io::{self, Read, Seek as _, SeekFrom};
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::column::page::{Page, PageReader as _};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use ::parquet::file::reader::{ChunkReader, Length};
use ::parquet::file::serialized_reader::SerializedPageReader;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;

use super::storage::{Reader, Storage};
use super::thrift::pass_over;
use crate::decode::MAX_BYTES;

/// The bytes of a storage as the reader of Parquet files asks for them.
pub(super) struct Chunks(pub(super) Arc<dyn Storage>);

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Chunks {
    type T = Pages;

    fn get_read(&self, start: u64) -> ParquetResult<Pages> {
        Ok(Pages(Reader::at(Arc::clone(&self.0), start)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let end = start.saturating_add(length as u64);
        Ok(self.0.read(start..end).map_err(|error| ParquetError::External(Box::new(error)))?.into())
    }
}

/// The bytes from a place in a file on, whose end is an error: what skips numbers in a header takes nothing for as many as the
/// header claims, which may be two billion.
pub(super) struct Pages(Reader);

impl Read for Pages {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.read(out)? {
            0 if !out.is_empty() => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends within a page")),
            count => Ok(count),
        }
    }
}

/// Bytes at the end of a file: the length of the metadata before them, and a sign.
const END: u64 = 8;

/// Refuses a file whose metadata claims more than it holds. What has no metadata is for the reader to say.
pub(super) fn check_footer(storage: &Arc<dyn Storage>) -> ParquetResult<()> {
    let Some(start) = storage.len().checked_sub(END) else { return Ok(()) };
    let mut end = [0; END as usize];
    Reader::at(Arc::clone(storage), start).read_exact(&mut end)?;
    let ([length, sign], _) = end.as_chunks::<4>() else { return Ok(()) };
    let length = u64::from(u32::from_le_bytes(*length));
    match start.checked_sub(length).filter(|_| sign == b"PAR1") {
        Some(metadata) => Ok(pass_over(&mut Reader::at(Arc::clone(storage), metadata), length).map(drop)?),
        None => Ok(()),
    }
}

/// Refuses a column of which the header of a page claims more than the file holds, or that a page takes more memory than an image
/// may.
///
/// A page begins with its header, whose first fields are its kind, its size after decompression and its size before
/// (`parquet.thrift`, `PageHeader`).
fn check_headers(column: &ColumnChunkMetaData, chunks: &Chunks) -> ParquetResult<()> {
    let (mut start, length) = column.byte_range();
    let end = start.saturating_add(length).min(chunks.len());
    let mut reader = Reader::at(Arc::clone(&chunks.0), start);
    while start < end {
        reader.seek(SeekFrom::Start(start))?;
        // sizes of columns are wrong in some files, so that a header may end behind its column
        let [_, unpacked, packed, ..] = pass_over(&mut reader, chunks.len() - start)?[..] else {
            return Err(ParquetError::General("a page does not say its size".to_owned()));
        };
        if !(0..=MAX_BYTES as i64).contains(&unpacked) || packed < 0 {
            return Err(ParquetError::General(format!("a page claims {unpacked} bytes, more than {MAX_BYTES}")));
        }
        start = reader.stream_position()?.saturating_add(packed as u64);
    }
    Ok(())
}

/// Refuses a column with a page that claims or unpacks to more than it should. In these compressions the reader takes whatever
/// comes out; in the others it takes what a page claims.
pub(super) fn check_column(group: &RowGroupMetaData, column: usize, chunks: &Arc<Chunks>) -> ParquetResult<()> {
    let column = group.column(column);
    check_headers(column, chunks)?;
    let unpacked: fn(&[u8]) -> Box<dyn Read + '_> = match column.compression() {
        Compression::GZIP(_) => |packed| Box::new(MultiGzDecoder::new(packed)),
        Compression::BROTLI(_) => |packed| Box::new(brotli::Decompressor::new(packed, BUFFER)),
        // which is not what it is meant to be, but what older programs wrote
        Compression::LZ4 => |packed| Box::new(FrameDecoder::new(packed)),
        _ => return Ok(()),
    };
    let claimed = u64::try_from(column.uncompressed_size()).unwrap_or(0).min(MAX_BYTES);
    // pages as they are stored
    let stored = column.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
    let rows = usize::try_from(group.num_rows()).unwrap_or(0);
    let mut pages = SerializedPageReader::new(Arc::clone(chunks), &stored, rows, None)?;
    while let Some(page) = pages.get_next_page()? {
        let packed = match &page {
            Page::DataPageV2 { is_compressed: false, .. } => continue,
            Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
                let levels = *def_levels_byte_len as usize + *rep_levels_byte_len as usize;
                buf.get(levels..).unwrap_or_default()
            }
            page => page.buffer(),
        };
        // what cannot be unpacked is for the reader to say
        let length = io::copy(&mut unpacked(packed).take(claimed + 1), &mut io::sink()).unwrap_or(0);
        if length > claimed {
            return Err(ParquetError::General(format!("a page holds more than the {claimed} bytes of its column")));
        }
    }
    Ok(())
}

/// Bytes that are unpacked at a time.
const BUFFER: usize = 1 << 14;
