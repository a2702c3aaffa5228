//! Run lengths of the bytes of DICOM pixels (PS3.5, annex G).

use super::layout::{Layout, interleaved};

/// Decodes a frame, whose colors and bytes are in segments of their own; `None` if it is broken.
pub(super) fn values(frame: &[u8], layout: &Layout) -> Option<Vec<u16>> {
    let number = |at: usize| Some(u32::from_le_bytes(*frame.get(4 * at..)?.first_chunk()?) as usize);
    let segments = number(0)?;
    if segments != layout.samples * layout.bytes {
        return None;
    }
    let pixels = layout.pixels();
    if pixels > frame.len().saturating_mul(MOST_FROM_A_BYTE) {
        return None; // before memory is taken for them
    }
    let mut values = vec![0_u16; pixels * layout.samples];
    for segment in 0..segments {
        let end = if segment + 1 < segments { number(segment + 2)? } else { frame.len() };
        let bytes = unpacked(frame.get(number(segment + 1)?..end)?, pixels)?;
        // the highest byte of a value comes first
        let plane = segment / layout.bytes * pixels;
        for (value, byte) in values[plane..plane + pixels].iter_mut().zip(bytes) {
            *value = *value << 8 | u16::from(byte);
        }
    }
    Some(interleaved(&values, layout.samples))
}

/// Two bytes become at most 128.
const MOST_FROM_A_BYTE: usize = 64;

/// Decodes `count` bytes.
fn unpacked(mut packed: &[u8], count: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        let (control, rest) = packed.split_first()?;
        packed = match *control {
            control @ 0..=127 => {
                let (plain, rest) = rest.split_at_checked(usize::from(control) + 1)?;
                bytes.extend_from_slice(plain);
                rest
            }
            128 => rest,
            control => {
                let (byte, rest) = rest.split_first()?;
                bytes.resize(bytes.len() + 257 - usize::from(control), *byte);
                rest
            }
        };
    }
    bytes.truncate(count);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_plain_bytes_are_unpacked() {
        // PS3.5, G.3.1: three plain bytes, nothing, and a run of four
        let packed = [2, 10, 11, 12, 128, 253, 7];
        assert_eq!(unpacked(&packed, 7).unwrap(), [10, 11, 12, 7, 7, 7, 7]);
        assert_eq!(unpacked(&packed, 5).unwrap(), [10, 11, 12, 7, 7]);
        assert_eq!(unpacked(&packed, 8), None);
        assert_eq!(unpacked(&packed[..6], 7), None);
        assert_eq!(unpacked(&packed[..3], 3), None);
    }
}
