//! Reads the arguments of a pickle's instructions off its bytes.

use super::TorchFault;

/// The bytes of a pickle and where the next one stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next bytes, of which no more are taken than there are.
    ///
    /// # Errors
    /// If there are fewer, as for the others.
    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], TorchFault> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let taken = taken.ok_or(TorchFault::Truncated(self.bytes.len()))?;
        self.at += taken.len();
        Ok(taken)
    }

    /// As many bytes as a number has.
    pub(super) fn number<const N: usize>(&mut self) -> Result<[u8; N], TorchFault> {
        Ok(*self.take(N as u64)?.first_chunk().expect("that many bytes were taken"))
    }

    /// Bytes after their length, which has 1, 4 or 8 bytes.
    pub(super) fn counted<const N: usize>(&mut self) -> Result<&'a [u8], TorchFault> {
        let mut length = [0; 8];
        length[..N].copy_from_slice(&self.number::<N>()?);
        self.take(u64::from_le_bytes(length))
    }

    /// Text after its length.
    pub(super) fn text<const N: usize>(&mut self) -> Result<&'a str, TorchFault> {
        let bytes = self.counted::<N>()?;
        str::from_utf8(bytes).map_err(|_| self.broken("a text is not UTF-8"))
    }

    /// A number of up to 255 bytes; `None` for one beyond 64 bits, which is no size of a tensor.
    pub(super) fn long(&mut self) -> Result<Option<i64>, TorchFault> {
        let bytes = self.counted::<1>()?;
        let is_negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut whole = if is_negative { [0xff; 8] } else { [0; 8] };
        let Some(low) = whole.get_mut(..bytes.len()) else { return Ok(None) };
        low.copy_from_slice(bytes);
        Ok(Some(i64::from_le_bytes(whole)))
    }

    /// Text up to the end of a line.
    pub(super) fn line(&mut self) -> Result<&'a str, TorchFault> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or(TorchFault::Truncated(self.bytes.len()))?;
        self.at += length + 1;
        str::from_utf8(&rest[..length]).map_err(|_| self.broken("a name is not UTF-8"))
    }

    /// The fault of an instruction that ends here.
    pub(super) fn broken(&self, what: &'static str) -> TorchFault {
        TorchFault::Broken { what, at: self.at }
    }
}
