//! Recognizes JPEG files that are cut short; decoders fill the missing part with gray and report no error.

const MARKER: u8 = 0xff;
const START_OF_IMAGE: u8 = 0xd8;
const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;

/// Returns whether the file ends, or another JPEG starts, after the header of the first scan and before the marker for
/// the end of the image (ITU-T T.81, B.1.1).
///
/// Files without a scan and files with other damage are left to the decoder, whose errors say more about them.
pub(super) fn is_cut_short(bytes: &[u8]) -> bool {
    let Some(mut rest) = after_first_scan_header(bytes) else { return false };
    // where the data of a scan has the value of MARKER, a 0 follows, so no data is taken for the end of the image
    while let Some(at) = rest.iter().position(|&byte| byte == MARKER) {
        rest = &rest[at + 1..];
        match rest.first() {
            Some(&END_OF_IMAGE) => return false,
            Some(&START_OF_IMAGE) => return true,
            // segments that may stand between scans: they are skipped, because they may contain any bytes
            Some(0xc4 | 0xcc | 0xda..=0xdd | 0xe0..=0xef | 0xfe) => match segment(&rest[1..]) {
                Some(after) => rest = after,
                None => return true,
            },
            _ => {}
        }
    }
    true
}

/// Returns the bytes after the header of the first scan; `None` if there is no scan.
///
/// It skips whole segments of tables and application data, because these may contain a thumbnail, which is a JPEG with
/// markers of its own.
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

/// Returns the bytes after a segment, where `bytes` starts with the length of the segment in two bytes.
fn segment(bytes: &[u8]) -> Option<&[u8]> {
    let length = u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]);
    bytes.get(usize::from(length)..)
}

/// Whether a segment follows a marker. None follows stuffing, fill bytes, restarts, and the start and end of an image.
fn has_length(kind: u8) -> bool {
    !matches!(kind, 0x00 | 0x01 | 0xd0..=0xd9 | MARKER)
}
