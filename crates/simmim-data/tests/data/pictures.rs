//! Picture files of every kind have Pillow's pixels; `testdata/decode/make.py` makes both.

use std::collections::BTreeMap;

use serde_json::Value;
use simmim_data::{Image, Pixels, decode};

use crate::matrix::Matrix;

/// A picture, and what is right.
struct Case {
    name: String,
    bytes: Vec<u8>,
    right: Right,
}

enum Right {
    /// We do not read it.
    Refused,
    /// Pillow does not read it, so nothing is known to be right.
    Unknown,
    Pixels {
        height: usize,
        width: usize,
        channels: usize,
        /// Bits of each value; 32 are a float.
        depth: usize,
        tolerance: u8,
        /// Row by row, little endian.
        pixels: Vec<u8>,
    },
}

/// The pictures of a format.
fn cases(format: &str) -> Vec<Case> {
    let Matrix { mut pictures, mut answers } = Matrix::of(format);
    let index: BTreeMap<String, Value> = serde_json::from_slice(&answers.remove("index.json").unwrap()).unwrap();
    let mut case = |(name, right): (String, Value)| {
        let bytes = pictures.remove(&name).unwrap();
        let number = |key: &str| right[key].as_u64().unwrap() as usize;
        let right = match right["refused"].as_str() {
            Some("by us") => Right::Refused,
            Some(_) => Right::Unknown,
            None => Right::Pixels {
                height: number("height"),
                width: number("width"),
                channels: number("channels"),
                depth: number("depth"),
                tolerance: number("tolerance") as u8,
                pixels: answers.remove(&format!("{}.pixels", name.rsplit_once('.').unwrap().0)).unwrap(),
            },
        };
        Case { name, bytes, right }
    };
    let cases = index.into_iter().map(&mut case).collect();
    assert!(pictures.is_empty() && answers.is_empty(), "members that `index.json` does not name");
    cases
}

/// How far the decoded pixels are off, in levels of the expected depth.
fn error(image: &Image, depth: usize, expected: &[u8]) -> u32 {
    let of_float = |value: f32| (f64::from(value) * 65535.0).round() as u32;
    let actual: Vec<u32> = match (&image.pixels, depth) {
        (Pixels::U8(values), 8) => values.iter().map(|value| u32::from(*value)).collect(),
        // Pillow keeps the upper half of 16 bits
        (Pixels::F32(values), 8) => values.iter().map(|value| of_float(*value) >> 8).collect(),
        (Pixels::F32(values), 16) => values.iter().map(|value| of_float(*value)).collect(),
        (Pixels::F32(values), 32) => values.iter().map(|value| value.to_bits()).collect(),
        (Pixels::U8(_) | Pixels::F32(_), _) => return u32::MAX,
    };
    let expected: Vec<u32> = match depth {
        8 => expected.iter().map(|value| u32::from(*value)).collect(),
        16 => expected.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes).into()).collect(),
        _ => expected.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect(),
    };
    if actual.len() != expected.len() {
        return u32::MAX;
    }
    actual.iter().zip(&expected).map(|(actual, expected)| actual.abs_diff(*expected)).max().unwrap_or(0)
}

/// What is wrong with the decoded image, if anything is.
fn fault(case: &Case) -> Option<String> {
    let Right::Pixels { height, width, channels, depth, tolerance, pixels } = &case.right else {
        let image = decode(&case.bytes, &case.name, 3);
        return (matches!(case.right, Right::Refused) && image.is_ok())
            .then(|| "read, but is to be refused".to_owned());
    };
    // with the channels of the expected pixels, and without alpha
    let without_alpha: Vec<u8> = match channels {
        4 => pixels.as_chunks::<4>().0.iter().flat_map(|[colors @ .., _]| *colors).collect(),
        _ => pixels.clone(),
    };
    let with_fewer = if *channels > 4 { (*channels, pixels) } else { ((*channels).min(3), &without_alpha) };
    for (channels, expected) in [(*channels, pixels), with_fewer] {
        let image = match decode(&case.bytes, &case.name, channels) {
            Ok(image) => image,
            Err(error) => return Some(error.to_string()),
        };
        if (image.height, image.width) != (*height, *width) {
            return Some(format!("{} by {} pixels instead of {height} by {width}", image.height, image.width));
        }
        let error = error(&image, *depth, expected);
        if error > u32::from(*tolerance) {
            return Some(format!("off by {error} with {channels} channels"));
        }
    }
    None
}

#[track_caller]
fn check(format: &str, files: usize) {
    let cases = cases(format);
    let faults: Vec<String> =
        cases.iter().filter_map(|case| fault(case).map(|fault| format!("{}: {fault}", case.name))).collect();
    assert!(faults.is_empty(), "{} of {} files:\n{}", faults.len(), cases.len(), faults.join("\n"));
    assert_eq!(cases.len(), files);
}

#[test]
fn jpeg_files_have_pillows_pixels() {
    check("jpeg", 407);
}

#[test]
fn png_files_have_pillows_pixels() {
    check("png", 117);
}

#[test]
fn webp_files_have_pillows_pixels() {
    check("webp", 102);
}

#[test]
fn tiff_files_have_pillows_pixels() {
    check("tiff", 236);
}

#[test]
fn gif_files_have_pillows_pixels() {
    check("gif", 57);
}

#[test]
fn bmp_files_have_pillows_pixels() {
    check("bmp", 82);
}

/// The oracle is pydicom here.
#[cfg(feature = "dicom")]
#[test]
fn dicom_files_have_pydicoms_values() {
    check("dicom", 158);
}
