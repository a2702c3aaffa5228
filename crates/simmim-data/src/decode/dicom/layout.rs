//! What the stored values of a DICOM picture are: their number, depth, order and meaning (PS3.3, C.7.6.3).

use super::data_set::{DataSet, PIXELS};
use crate::error::{Error, Result};

/// What the stored values are.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) height: usize,
    pub(super) width: usize,
    /// Values of each pixel: 1, or 3 for colors.
    pub(super) samples: usize,
    pub(super) color: Color,
    /// Bytes that a value takes, 1 or 2.
    pub(super) bytes: usize,
    /// The lowest bits of these that it uses.
    pub(super) bits: u32,
    /// Whether values may be negative.
    pub(super) is_signed: bool,
    pub(super) frames: usize,
    /// Whether all values of one color come before those of the next.
    is_planar: bool,
}

/// What the values of a pixel mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Color {
    Gray {
        /// Whether the lowest value is white.
        is_inverted: bool,
    },
    Palette,
    RedGreenBlue,
    /// Brightness, and how blue and red differ from it.
    LumaChroma {
        /// Whether two neighbors in a row share their colors, where pixels are not compressed.
        is_shared: bool,
    },
}

const SAMPLES: u32 = 0x0028_0002;
const MEANING: u32 = 0x0028_0004;
const PLANAR: u32 = 0x0028_0006;
pub(super) const FRAMES: u32 = 0x0028_0008;
const ROWS: u32 = 0x0028_0010;
const COLUMNS: u32 = 0x0028_0011;
const BITS_ALLOCATED: u32 = 0x0028_0100;
const BITS_STORED: u32 = 0x0028_0101;
const HIGH_BIT: u32 = 0x0028_0102;
const REPRESENTATION: u32 = 0x0028_0103;

impl Layout {
    pub(super) fn of(data: &DataSet<'_>, name: &str) -> Result<Self> {
        let bad = |reason: String| Error::Decode { name: name.to_owned(), reason };
        let needed = |tag: u32, what: &str| data.word(tag).ok_or_else(|| bad(format!("it does not say {what}")));
        let (height, width) = (needed(ROWS, "its rows (Rows)")?, needed(COLUMNS, "its columns (Columns)")?);
        let allocated = needed(BITS_ALLOCATED, "the depth of its values (BitsAllocated)")?;
        let bits = data.word(BITS_STORED).unwrap_or(allocated);
        let high = data.word(HIGH_BIT).unwrap_or(bits.wrapping_sub(1));
        let is_signed = data.word(REPRESENTATION) == Some(1);
        let samples = data.word(SAMPLES).unwrap_or(1);
        let Some(meaning) = data.text(MEANING) else {
            return Err(bad("it does not say what its values mean (PhotometricInterpretation)".to_owned()));
        };
        let color = match meaning {
            "MONOCHROME1" => Color::Gray { is_inverted: true },
            "MONOCHROME2" => Color::Gray { is_inverted: false },
            "PALETTE COLOR" => Color::Palette,
            // decoders of JPEG 2000 undo the last two
            "RGB" | "YBR_RCT" | "YBR_ICT" => Color::RedGreenBlue,
            "YBR_FULL" => Color::LumaChroma { is_shared: false },
            "YBR_FULL_422" => Color::LumaChroma { is_shared: true },
            other => return Err(bad(format!("the PhotometricInterpretation `{other}` is not read"))),
        };
        let is_read = match color {
            Color::Gray { .. } => samples == 1,
            Color::Palette => samples == 1 && !is_signed,
            Color::RedGreenBlue => samples == 3 && !is_signed,
            Color::LumaChroma { .. } => samples == 3 && !is_signed && bits == 8,
        };
        let has_depth =
            matches!(allocated, 8 | 16) && (1..=allocated).contains(&bits) && high.checked_add(1) == Some(bits);
        if !is_read || !has_depth {
            let sign = if is_signed { "signed " } else { "" };
            return Err(bad(format!(
                "{samples} {sign}samples of {bits} bits, up to bit {high} of {allocated}, are not read as `{meaning}`"
            )));
        }
        let frames = data.number(FRAMES).ok().flatten().unwrap_or(1.0);
        Ok(Self {
            height: height.into(),
            width: width.into(),
            samples: samples.into(),
            color,
            bytes: usize::from(allocated / 8),
            bits: bits.into(),
            is_signed,
            frames: frames as usize, // cut to the range of the type
            is_planar: samples > 1 && data.word(PLANAR) == Some(1),
        })
    }

    /// The number of pixels of a frame.
    pub(super) fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// The lowest and the highest number that the bits can store.
    pub(super) fn range(&self) -> [f64; 2] {
        let count = f64::from(1_u32 << self.bits);
        if self.is_signed { [-count / 2.0, count / 2.0 - 1.0] } else { [0.0, count - 1.0] }
    }

    /// Returns the number that a stored value is, whatever the bits are that it does not use.
    pub(super) fn number(&self, stored: u16) -> i32 {
        let unused = 32 - self.bits;
        let high = u32::from(stored) << unused;
        if self.is_signed { high as i32 >> unused } else { (high >> unused) as i32 }
    }

    /// Returns the values of the first frame, which are not compressed, pixel by pixel; `None` if there are too few.
    pub(super) fn uncompressed(&self, data: &DataSet<'_>) -> Option<Vec<u16>> {
        let pixels = self.pixels();
        if self.color == (Color::LumaChroma { is_shared: true }) {
            let bytes = data.bytes(PIXELS)?;
            let (pairs, _) = bytes.get(..pixels * 2)?.as_chunks::<4>();
            let values = |[left, right, blue, red]: &[u8; 4]| [*left, *blue, *red, *right, *blue, *red].map(u16::from);
            // rows do not end within a pair
            return self.width.is_multiple_of(2).then(|| pairs.iter().flat_map(values).collect());
        }
        let count = pixels * self.samples;
        let values: Vec<u16> = if self.bytes == 1 {
            data.bytes(PIXELS)?.get(..count)?.iter().map(|value| u16::from(*value)).collect()
        } else {
            data.words(PIXELS, count)?
        };
        Some(if self.is_planar { interleaved(&values, self.samples) } else { values })
    }
}

/// Puts values that are stored color by color in the order of pixels.
pub(super) fn interleaved(values: &[u16], samples: usize) -> Vec<u16> {
    let plane = values.len() / samples;
    (0..plane).flat_map(|at| (0..samples).map(move |sample| values[sample * plane + at])).collect()
}
