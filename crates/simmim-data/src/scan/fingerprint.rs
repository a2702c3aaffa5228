//! What images are compared by: a hash of their pixels, a hash of their gradients, and a tiny picture.

use super::thumbnail::small;
use crate::image::{Image, Pixels, luma_u8};

/// Two neighbors in a row of a picture of this size make one bit, which makes 8 times 8 bits, as in the difference hash of
/// N. Krawetz (hackerfactor.com, "Kind of Like That", 2013).
const ROWS: usize = 8;
const COLUMNS: usize = 9;

/// A step to the right that is brighter by this many of 255 levels is a one. Where a picture is plain, its steps are about 0,
/// and compression would turn bits over if the limit lay there.
const STEP: u8 = 2;

/// The side in pixels of the tiny picture.
const TINY_PX: usize = 16;

/// A tiny picture whose darkest and brightest gray values differ by fewer of 255 levels is plain: much of it is noise.
const LEAST_RANGE: u8 = 16;

/// What is kept of the content of an image; less than a kilobyte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// BLAKE3 of the size and of all values.
    pub(super) content: [u8; 32],
    /// Where the image gets brighter to the right, at 8 by 9 pixels, row by row.
    pub(super) steps: u64,
    /// The image at 16 by 16 pixels, `[16, 16, C]` of one or three channels.
    pub(super) tiny: Box<[u8]>,
    /// The distance from the darkest to the brightest gray value of the tiny picture, in levels of 255.
    pub(super) range: u8,
}

impl Fingerprint {
    pub(super) fn of(image: &Image) -> Self {
        // whole images are read once
        let middle = small(image, 4 * ROWS, 4 * COLUMNS);
        let (tiny, gray) = at(&middle, TINY_PX, TINY_PX);
        let range = gray.iter().max().zip(gray.iter().min()).map_or(0, |(brightest, darkest)| brightest - darkest);
        Self { content: content(image), steps: steps(&at(&middle, ROWS, COLUMNS).1), tiny: tiny.into(), range }
    }

    /// Whether the tiny picture shows too little to be recognized by.
    pub(super) fn is_plain(&self) -> bool {
        self.range < LEAST_RANGE
    }
}

/// Returns the values of a picture at another size, and the gray ones.
fn at(picture: &Image, height: usize, width: usize) -> (Vec<u8>, Vec<u8>) {
    let resized = small(picture, height, width);
    let Pixels::U8(pixels) = resized.pixels else { unreachable!("small pictures are bytes") };
    let gray = match resized.channels {
        3 => pixels.as_chunks::<3>().0.iter().map(|[red, green, blue]| luma_u8(*red, *green, *blue)).collect(),
        _ => pixels.clone(),
    };
    (pixels, gray)
}

/// Returns a bit for each pair of neighbors in a row.
fn steps(gray: &[u8]) -> u64 {
    let pairs = gray.chunks_exact(COLUMNS).flat_map(|row| row.windows(2));
    pairs.fold(0, |bits, pair| bits << 1 | u64::from(pair[1] >= pair[0].saturating_add(STEP)))
}

/// Returns the hash of what a decoded image is.
fn content(image: &Image) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for size in [image.channels, image.height, image.width] {
        hasher.update(&(size as u64).to_le_bytes());
    }
    match &image.pixels {
        Pixels::U8(pixels) => {
            hasher.update(b"bytes");
            hasher.update(pixels);
        }
        Pixels::F32(pixels) => {
            hasher.update(b"floats");
            let mut bytes = Vec::with_capacity(CHUNK * size_of::<f32>());
            for values in pixels.chunks(CHUNK) {
                bytes.clear();
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                hasher.update(&bytes);
            }
        }
    }
    *hasher.finalize().as_bytes()
}

/// The number of floats that are hashed at a time.
const CHUNK: usize = 4096;
