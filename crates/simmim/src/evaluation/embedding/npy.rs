//! Features as an array of NumPy, and the list of its rows.

use super::{Row, Table};
use simmim_data::Skipped;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write as _};
use std::path::Path;

/// Bytes before the values (numpy, `lib/format.py`, version 1.0): a multiple of 64 with room for any three sizes.
const HEADER: usize = 128;

/// An array `F.npy`, and `F.npy.csv`, whose columns are `row`, from 0, `file`, `label` and `class`. Of an image with
/// several classes, the last two have spaces and semicolons between them.
pub(super) struct NpyTable {
    array: BufWriter<File>,
    list: csv::Writer<File>,
    rows: usize,
}

impl NpyTable {
    pub(super) fn create(array: &Path, list: &Path) -> io::Result<Self> {
        let mut array = BufWriter::new(File::create(array)?);
        array.write_all(&[0; HEADER])?; // how many rows there are is known at the end
        let mut list = csv::Writer::from_path(list)?;
        list.write_record(["row", "file", "label", "class"])?;
        Ok(Self { array, list, rows: 0 })
    }
}

impl Table for NpyTable {
    fn add(&mut self, row: &Row) -> io::Result<()> {
        for value in row.values {
            self.array.write_all(&value.to_le_bytes())?;
        }
        let numbers: Vec<String> = row.labels.iter().map(usize::to_string).collect();
        let classes: Vec<&str> =
            row.labels.iter().filter_map(|label| Some(row.classes.get(*label)?.as_str())).collect();
        self.list.write_record([&self.rows.to_string(), &row.file, &numbers.join(" "), &classes.join(";")])?;
        self.rows += 1;
        Ok(())
    }

    fn finish(mut self, images: usize, shape: &[usize]) -> io::Result<()> {
        self.list.flush()?;
        self.array.flush()?;
        let mut file = self.array.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header(images, shape))
    }
}

/// The header of an array of f32.
fn header(images: usize, shape: &[usize]) -> [u8; HEADER] {
    let sizes: String = shape.iter().map(|size| format!(", {size}")).collect();
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({images}{sizes}), }}");
    let mut header = [b' '; HEADER];
    header[..8].copy_from_slice(b"\x93NUMPY\x01\x00");
    header[8..10].copy_from_slice(&(HEADER as u16 - 10).to_le_bytes());
    header[10..10 + text.len()].copy_from_slice(text.as_bytes());
    header[HEADER - 1] = b'\n';
    header
}

/// A list of images that could not be read, with the columns `file` and `reason`.
pub(super) fn list_of_unreadable(unreadable: &[Skipped]) -> io::Result<Vec<u8>> {
    let mut list = csv::Writer::from_writer(Vec::new());
    list.write_record(["file", "reason"])?;
    for image in unreadable {
        list.write_record([&image.name, &image.reason])?;
    }
    list.into_inner().map_err(|error| error.into_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_that_of_numpy_for_any_sizes() {
        // numpy.lib.format.write_array_header_1_0 for the shape (3, 4, 16), which pads to 128 bytes too
        let expected = format!("{:117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4, 16), }");
        let bytes = header(3, &[4, 16]);
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert_eq!(str::from_utf8(&bytes[10..]).unwrap(), expected);
        header(usize::MAX, &[1 << 20, 1 << 20]);
    }
}
