//! The chunks that PNG and WebP files consist of.

/// A chunk: its kind, and its content, if the file has all of it.
pub(super) type Chunk<'a> = ([u8; 4], Option<&'a [u8]>);

/// The chunks of a PNG file (PNG 3, section 5.3), up to the first one that is cut short.
pub(super) fn of_png(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = bytes.get(8..).unwrap_or_default(); // behind the signature
    std::iter::from_fn(move || {
        let (header, content) = rest.split_first_chunk::<8>()?;
        let [a, b, c, d, kind @ ..] = *header;
        Some((kind, take(&mut rest, content, u32::from_be_bytes([a, b, c, d]), 4))) // a checksum stands behind it
    })
}

/// The chunks of a WebP file (RFC 9649, section 2.3), up to the first one that is cut short.
pub(super) fn of_webp(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = bytes.get(12..).unwrap_or_default(); // behind `RIFF`, the length, and `WEBP`
    std::iter::from_fn(move || {
        let (header, content) = rest.split_first_chunk::<8>()?;
        let [kind @ .., a, b, c, d] = *header;
        let length = u32::from_le_bytes([a, b, c, d]);
        Some((kind, take(&mut rest, content, length, length as usize % 2))) // chunks start at even places
    })
}

/// The first `length` bytes, if there are so many; `rest` becomes what lies `gap` bytes behind them.
fn take<'a>(rest: &mut &'a [u8], content: &'a [u8], length: u32, gap: usize) -> Option<&'a [u8]> {
    let taken = content.split_at_checked(length as usize);
    *rest = taken.and_then(|(_, after)| after.get(gap..)).unwrap_or_default();
    taken.map(|(content, _)| content)
}
