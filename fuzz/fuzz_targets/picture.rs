//! Any bytes are a picture or an error.

#![no_main]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use simmim_data::decode::decode_reduced;
use simmim_data::{Error, decode};

/// The fuzzer's own hook would end the process at a panic that is caught; one that is not caught still ends it.
static NO_HOOK: Once = Once::new();

fuzz_target!(|bytes: &[u8]| {
    NO_HOOK.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let whole = decode(bytes, "picture", 3);
    // a panic of a decoder is caught, and the file counted as unreadable
    if let Err(Error::DecoderPanicked { .. }) = whole {
        return;
    }
    let reduced = decode_reduced(bytes, "picture", 3, &mut |_, _| 4);
    assert_eq!(whole.is_ok(), reduced.is_ok(), "a picture is whole at any size");
});
