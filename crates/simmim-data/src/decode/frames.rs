//! How many frames or pages a file has. The first one is decoded; the others are counted, so that nobody takes a file for one
//! image that holds many.

use super::chunks;
use super::format::Format;
use std::collections::HashSet;

/// The number of frames, 1 where the format has no more, or the file does not say.
pub(super) fn frames(format: Format, bytes: &[u8]) -> usize {
    let frames = match format {
        Format::Jpeg | Format::Bmp | Format::Npy => None,
        Format::Png => of_png(bytes),
        Format::WebP => Some(chunks::of_webp(bytes).filter(|(kind, _)| kind == b"ANMF").count()),
        Format::Gif => of_gif(bytes),
        Format::Tiff => of_tiff(bytes),
        #[cfg(feature = "dicom")]
        Format::Dicom => super::dicom::frames(bytes),
        #[cfg(not(feature = "dicom"))]
        Format::Dicom => None,
    };
    frames.unwrap_or(1).max(1)
}

/// The number in the chunk `acTL`, and one more if the picture is none of the frames: then no `fcTL` stands before its pixels
/// (PNG 3, section 11.3.6).
fn of_png(bytes: &[u8]) -> Option<usize> {
    let (mut frames, mut is_apart) = (None, true);
    for (kind, content) in chunks::of_png(bytes).take_while(|(kind, _)| kind != b"IDAT") {
        match &kind {
            b"acTL" => frames = content?.first_chunk().map(|frames| u32::from_be_bytes(*frames) as usize),
            b"fcTL" => is_apart = false,
            _ => {}
        }
    }
    frames?.checked_add(usize::from(is_apart))
}

fn of_gif(bytes: &[u8]) -> Option<usize> {
    let mut options = ::gif::DecodeOptions::new();
    options.skip_frame_decoding(true);
    let mut decoder = options.read_info(bytes).ok()?;
    let mut count = 0;
    while let Ok(Some(_)) = decoder.next_frame_info() {
        count += 1;
    }
    Some(count)
}

/// Pages that are no smaller copies of others and no masks (TIFF 6.0, `NewSubfileType`).
fn of_tiff(bytes: &[u8]) -> Option<usize> {
    let is_little = bytes.starts_with(b"II");
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = bytes.get(at..at.checked_add(length)?)?;
        let join = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        let value = if is_little { bytes.iter().rev().fold(0, join) } else { bytes.iter().fold(0, join) };
        usize::try_from(value).ok()
    };
    // the lengths of an offset, of the count of entries, and of an entry
    let (first_at, offset, count_bytes, entry) = if number(2, 2)? == 43 { (8, 8, 8, 20) } else { (4, 4, 2, 12) };
    const SUBFILE: usize = 254;
    const COPY_OR_MASK: usize = 1 | 4;
    let mut at = number(first_at, offset)?;
    let (mut pages, mut seen) = (0, HashSet::new());
    // a directory may name one before it as the next
    while seen.insert(at) {
        let Some(entries) = number(at, count_bytes).filter(|_| at > 0) else { break };
        let Some(end) = entries.checked_mul(entry).and_then(|length| (at + count_bytes).checked_add(length)) else {
            break;
        };
        let subfile = (0..entries.min(8)).map(|index| at + count_bytes + index * entry);
        let kind = subfile.filter(|at| number(*at, 2) == Some(SUBFILE)).find_map(|at| number(at + 4 + offset, 4));
        pages += usize::from(kind.unwrap_or(0) & COPY_OR_MASK == 0);
        at = number(end, offset).unwrap_or(0);
    }
    Some(pages)
}
