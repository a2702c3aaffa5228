//! DICOM files that claim more than there is, nest deeply or are cut short.

use std::io::Write as _;

use simmim_data::Error;
use simmim_data::decode::MAX_BYTES;

use crate::matrix::Matrix;
use crate::taken;

fn file(name: &str) -> Vec<u8> {
    Matrix::of("dicom").pictures.remove(name).unwrap()
}

/// The file with another height and width.
fn with_size(name: &str, [height, width]: [u16; 2]) -> Vec<u8> {
    let mut bytes = file(name);
    for (tag, value) in [([0x28, 0, 0x10, 0], height), ([0x28, 0, 0x11, 0], width)] {
        let at = bytes.windows(4).position(|window| window == tag).unwrap();
        // a short, after the type `US` and the length 2
        assert_eq!(bytes[at + 4..at + 8], *b"US\x02\0");
        bytes[at + 8..at + 10].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// A file of which the data set is `content`, by this transfer syntax.
fn of(syntax: &str, content: &[u8]) -> Vec<u8> {
    let mut id = syntax.as_bytes().to_vec();
    id.resize(syntax.len().next_multiple_of(2), 0);
    let element = [&[2, 0, 0x10, 0][..], b"UI", &(id.len() as u16).to_le_bytes(), &id].concat();
    [&[0; 128][..], b"DICM", &element, content].concat()
}

const FILES: [&str; 6] = [
    "gray_16_plain.dcm",
    "gray_16_run_lengths.dcm",
    "gray_16_lossless_first.dcm",
    "gray_16_wavelets.dcm",
    "gray_jpeg.dcm",
    "rgb_8_run_lengths.dcm",
];

#[test]
fn sizes_are_checked_before_memory_is_taken() {
    for name in FILES {
        let taken = taken(&with_size(name, [u16::MAX; 2]), 3);
        let error = taken.result.unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }) && error.hint().is_some(), "{name}: {error}");
        assert!(taken.bytes < 1 << 20, "{name}: {} bytes", taken.bytes);
        // just small enough, but there are no such pixels
        let taken = self::taken(&with_size(name, [6_000; 2]), 3);
        assert!(taken.result.is_err(), "{name}");
        // the probe for the memory of a large image takes it, but does not fill it
        assert!(taken.bytes < 2 * 6_000 * 6_000 * 12 + (1 << 20), "{name}: {} bytes", taken.bytes);
    }
}

#[test]
fn sequences_of_any_depth_take_no_stack() {
    // sequences without a length in items without a length, and nothing that ends them
    let level = [[0x08, 0, 0x40, 0x11].as_slice(), &[0xff; 4], &[0xfe, 0xff, 0, 0xe0], &[0xff; 4]].concat();
    let bytes = of("1.2.840.10008.1.2", &level.repeat(200_000));
    let taken = taken(&bytes, 3);
    let message = taken.result.unwrap_err().to_string();
    assert!(message.contains("the file is cut short"), "{message}");
    // other tests allocate a little at the same time; what counts is that it is not a part of each level
    assert!(taken.bytes < bytes.len(), "{} bytes", taken.bytes);
}

#[test]
fn data_sets_that_inflate_without_end_are_refused() {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..=MAX_BYTES >> 20 {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    let taken = taken(&of("1.2.840.10008.1.2.1.99", &encoder.finish().unwrap()), 3);
    let error = taken.result.unwrap_err();
    assert!(matches!(error, Error::FileTooLarge { .. }), "{error}");
    // a list that grows holds its old half, and is up to twice as long as its content
    assert!(taken.bytes <= 4 * MAX_BYTES as usize, "{} bytes", taken.bytes);
}

#[test]
fn files_that_are_cut_short_anywhere_are_refused() {
    for name in FILES.into_iter().chain(["gray_16_implicit.dcm", "enhanced_2_plain.dcm", "nested.dcm"]) {
        let whole = file(name);
        assert!(taken(&whole, 3).result.is_ok(), "{name}");
        // an odd number of bytes is filled with a zero
        for length in 132..whole.len() - 1 {
            assert!(taken(&whole[..length], 3).result.is_err(), "{name}: {length} of {} bytes", whole.len());
        }
    }
}
