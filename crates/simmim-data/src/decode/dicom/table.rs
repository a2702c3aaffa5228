//! Tables that map numbers to others: palettes, and tables of the modality and of values of interest (PS3.3, C.11).

use super::data_set::DataSet;

/// A table.
pub(super) struct Table {
    values: Vec<u16>,
    /// The number that the first value stands for, and all below it too.
    first: i32,
    /// The depth of the values.
    pub(super) bits: u32,
}

impl Table {
    /// Reads the table whose description has the tag `about`, and its values the tag `values`; `None` if it is not
    /// there or too short.
    pub(super) fn of(data: &DataSet<'_>, about: u32, values: u32, is_signed: bool) -> Option<Self> {
        let [count, first, bits] = *data.words(about, 3)?.first_chunk()?;
        let count = if count == 0 { 1 << 16 } else { usize::from(count) };
        let first = if is_signed { i32::from(first as i16) } else { i32::from(first) };
        let values = match data.words(values, count) {
            Some(values) => values,
            // a byte for each
            None if bits == 8 => data.bytes(values)?.get(..count)?.iter().map(|value| u16::from(*value)).collect(),
            None => return None,
        };
        (1..=16).contains(&bits).then_some(Self { values, first, bits: bits.into() })
    }

    /// Returns the value of a number; beyond the ends, the first or the last one.
    pub(super) fn at(&self, number: i32) -> u16 {
        let place = (number.saturating_sub(self.first)).clamp(0, self.values.len() as i32 - 1);
        self.values[place as usize]
    }

    /// The highest value that the depth allows.
    pub(super) fn top(&self) -> f64 {
        f64::from((1_u32 << self.bits) - 1)
    }
}
