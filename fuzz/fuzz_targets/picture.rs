//! Any bytes are a picture or an error. `SIMMIM_FUZZ_ONLY=png` leaves out all files that do not begin as a PNG does, so that one
//! decoder gets all of the time.

#![no_main]

use std::sync::{LazyLock, Once};

use libfuzzer_sys::{Corpus, fuzz_target};
use simmim_data::decode::decode_reduced;
use simmim_data::{Error, decode};

/// A format, where its sign is, and what it may be.
const SIGNS: [(&str, usize, &[&[u8]]); 8] = [
    ("jpeg", 0, &[b"\xff\xd8"]),
    ("png", 0, &[b"\x89PNG"]),
    ("webp", 8, &[b"WEBP"]),
    ("gif", 0, &[b"GIF8"]),
    ("bmp", 0, &[b"BM"]),
    ("tiff", 0, &[b"II", b"MM"]),
    ("npy", 0, &[b"\x93NUMPY"]),
    ("dicom", 128, &[b"DICM"]),
];

static ONLY: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("SIMMIM_FUZZ_ONLY").ok());

fn is_left_out(bytes: &[u8]) -> bool {
    let Some(only) = &*ONLY else { return false };
    let (_, at, signs) = SIGNS.iter().find(|(name, ..)| name == only).expect("`SIMMIM_FUZZ_ONLY` is a known format");
    !signs.iter().any(|sign| bytes.get(*at..).is_some_and(|rest| rest.starts_with(sign)))
}

/// The fuzzer's own hook would end the process at a panic that is caught; one that is not caught still ends it.
static NO_HOOK: Once = Once::new();

fuzz_target!(|bytes: &[u8]| -> Corpus {
    if is_left_out(bytes) {
        return Corpus::Reject;
    }
    NO_HOOK.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let whole = decode(bytes, "picture", 3);
    // a panic of a decoder is caught, and the file counted as unreadable
    if let Err(Error::DecoderPanicked { .. }) = whole {
        return Corpus::Keep;
    }
    let reduced = decode_reduced(bytes, "picture", 3, &mut |_, _| 4);
    assert_eq!(whole.is_ok(), reduced.is_ok(), "a picture is whole at any size");
    Corpus::Keep
});
