//! Features as an array of NumPy, and the list of its rows.

use super::partial::HEADER;
use simmim_data::{Skipped, Source};
use std::fs::File;
use std::io;
use std::path::Path;

/// Writes the list of the rows, whose columns are `row`, from 0, `file`, `label` and `class`. Of an image with several
/// classes, the last two have spaces and semicolons between them. `samples` are the images that have a row.
pub(super) fn write_list(path: &Path, source: &dyn Source, samples: impl Iterator<Item = usize>) -> io::Result<()> {
    let mut list = csv::Writer::from_writer(io::BufWriter::new(File::create(path)?));
    list.write_record(["row", "file", "label", "class"])?;
    for (row, sample) in samples.enumerate() {
        let labels = source.labels(sample);
        let numbers: Vec<String> = labels.iter().map(usize::to_string).collect();
        let classes: Vec<&str> =
            labels.iter().filter_map(|label| Some(source.classes().get(*label)?.as_str())).collect();
        list.write_record([&row.to_string(), &source.name(sample), &numbers.join(" "), &classes.join(";")])?;
    }
    list.flush()
}

/// The header of an array of f32, of numpy's version 1.0 (`lib/format.py`): a multiple of 64 with room for any three sizes.
pub(super) fn header(images: usize, shape: &[usize]) -> [u8; HEADER] {
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
