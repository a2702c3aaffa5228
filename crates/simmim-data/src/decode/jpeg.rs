//! Whether a JPEG is all there: decoders fill up what is missing with grey and say nothing.

const MARKER: u8 = 0xff;
const START_OF_IMAGE: u8 = 0xd8;
const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;

/// Returns whether a file that starts as a JPEG ends, or another one starts, behind the first scan's header and before
/// the marker that closes the image (ITU-T T.81, B.1.1).
///
/// A file without any scan, and one with other damage, is left to the decoder, which has more to say about it.
pub(super) fn is_cut_short(bytes: &[u8]) -> bool {
    let Some(mut rest) = after_first_scan_header(bytes) else { return false };
    // within a scan a marker byte that means itself is followed by 0, so that no data looks like the end
    while let Some(at) = rest.iter().position(|&byte| byte == MARKER) {
        rest = &rest[at + 1..];
        match rest.first() {
            Some(&END_OF_IMAGE) => return false,
            Some(&START_OF_IMAGE) => return true,
            // what may stand between scans: its contents are no data of a scan and are stepped over
            Some(0xc4 | 0xcc | 0xda..=0xdd | 0xe0..=0xef | 0xfe) => match segment(&rest[1..]) {
                Some(after) => rest = after,
                None => return true,
            },
            _ => {}
        }
    }
    true
}

/// Steps over the tables and application data, of which one may hold a small JPEG of its own.
fn after_first_scan_header(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(2..)?;
    loop {
        let at = rest.iter().position(|&byte| byte == MARKER)?;
        rest = &rest[at + 1..];
        let kind = *rest.first()?;
        if has_length(kind) {
            rest = segment(&rest[1..])?;
        }
        if kind == START_OF_SCAN {
            return Some(rest);
        }
    }
}

/// Returns what is behind a segment that starts with its length in two bytes.
fn segment(bytes: &[u8]) -> Option<&[u8]> {
    let length = u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]);
    bytes.get(usize::from(length)..)
}

/// Whether a segment follows: not so behind stuffing, fill bytes, restarts, start and end of an image.
fn has_length(kind: u8) -> bool {
    !matches!(kind, 0x00 | 0x01 | 0xd0..=0xd9 | MARKER)
}
