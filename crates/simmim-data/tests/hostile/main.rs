//! Broken and forged files are errors of the file: decoding them neither panics nor hangs nor takes much memory.
//!
//! These tests measure memory, so they run one at a time in a program of their own. `SIMMIM_MUTATIONS=100 cargo test
//! --release -p simmim-data --test hostile` tries a hundred times as many files as the suite does; the message of a failure
//! says how to repeat one of them.

// clippy allows `unwrap` in test functions but not in their helpers, and all of this is test code
#![allow(clippy::unwrap_used)]

#[cfg(feature = "dicom")]
mod dicom;
mod forged;
mod fuzzed;
mod mutations;

#[path = "../data/matrix.rs"]
mod matrix;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use simmim_data::{Error, Image, Pixels, decode};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a decoding took.
struct Taken {
    result: Result<Image, Error>,
    /// The most bytes that were allocated at once, above those that were before. What libjpeg allocates is not seen.
    bytes: usize,
    time: Duration,
}

fn taken(bytes: &[u8], channels: usize) -> Taken {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let start = Instant::now();
    let result = decode(bytes, "hostile", channels);
    Taken { result, bytes: ALLOCATOR.peak_usage().saturating_sub(before), time: start.elapsed() }
}

/// Whether an image has the number of pixels that it says.
fn is_whole(image: &Image) -> bool {
    let values = match &image.pixels {
        Pixels::U8(values) => values.len(),
        Pixels::F32(values) => values.len(),
    };
    image.height > 0 && image.width > 0 && values == image.height * image.width * image.channels
}
