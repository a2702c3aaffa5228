//! Files of the matrix, changed at random.

use std::time::Duration;

use simmim_data::Error;
use simmim_data::decode::MAX_BYTES;
use simmim_data::rng::{Purpose, Rng, below, rng};

use crate::matrix::Matrix;
use crate::{is_whole, taken};

/// A file that decodes longer than this hangs as far as a loader is concerned.
const LONGEST: Duration = Duration::from_secs(5);

/// The image itself, its probe of twice its size, and what a decoder needs beside it.
const MOST_BYTES: usize = 4 * MAX_BYTES as usize;

/// Numbers at the ends of the ranges of sizes and offsets.
const ENDS: [u32; 8] = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff];

/// Changes one place of `bytes`; `other` is another file of the format.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    if bytes.is_empty() {
        return;
    }
    let at = below(rng, bytes.len());
    match below(rng, 8) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << below(rng, 8),
        2 => bytes[at] = below(rng, 256) as u8,
        3 => {
            let end = ENDS[below(rng, ENDS.len())];
            let number = if below(rng, 2) == 0 { end.to_le_bytes() } else { end.to_be_bytes() };
            let length = [1, 2, 4][below(rng, 3)].min(bytes.len() - at);
            bytes[at..at + length].copy_from_slice(&number[..length]);
        }
        // headers are short, and most is decided there
        4 => {
            let at = below(rng, bytes.len().min(64));
            bytes[at] = below(rng, 256) as u8;
        }
        5 => {
            let from = below(rng, other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        6 => {
            let end = at + below(rng, (bytes.len() - at).min(64)) + 1;
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        _ => {
            let end = at + below(rng, (bytes.len() - at).min(16)) + 1;
            bytes.drain(at..end);
        }
    }
}

#[track_caller]
fn check(format: &str) {
    let pictures: Vec<_> = Matrix::of(format).pictures.into_iter().collect();
    let rounds = std::env::var("SIMMIM_MUTATIONS").map_or(1_u64, |rounds| rounds.parse().unwrap()) * 4;
    let (mut read, mut panicked) = (0, 0);
    for round in 0..rounds {
        for (number, (name, bytes)) in pictures.iter().enumerate() {
            let mut rng = rng(1, Purpose::Augment, round, number as u64);
            let (_, other) = &pictures[below(&mut rng, pictures.len())];
            let mut bytes = bytes.clone();
            for _ in 0..=below(&mut rng, 4) {
                mutate(&mut bytes, other, &mut rng);
            }
            let taken = taken(&bytes, 3);
            let of = format!("{name} in round {round}");
            assert!(taken.time < LONGEST, "{of}: {:?}", taken.time);
            assert!(taken.bytes <= MOST_BYTES, "{of}: {} bytes", taken.bytes);
            match taken.result {
                Ok(image) => {
                    assert!(is_whole(&image), "{of}: {} by {}", image.height, image.width);
                    read += 1;
                }
                Err(Error::DecoderPanicked { message, .. }) => {
                    println!("{of}: the decoder panicked: {message}");
                    panicked += 1;
                }
                Err(_) => {}
            }
        }
    }
    let tried = rounds as usize * pictures.len();
    println!("{format}: {read} of {tried} changed files are read, {panicked} panicked");
    // otherwise the changes are so many that only the header is tested
    assert!(read * 50 > tried, "{read} of {tried}");
}

#[test]
fn changed_jpeg_files_do_no_harm() {
    check("jpeg");
}

#[test]
fn changed_png_files_do_no_harm() {
    check("png");
}

#[test]
fn changed_webp_files_do_no_harm() {
    check("webp");
}

#[test]
fn changed_tiff_files_do_no_harm() {
    check("tiff");
}

#[test]
fn changed_gif_files_do_no_harm() {
    check("gif");
}

#[test]
fn changed_bmp_files_do_no_harm() {
    check("bmp");
}

#[cfg(feature = "dicom")]
#[test]
fn changed_dicom_files_do_no_harm() {
    check("dicom");
}
