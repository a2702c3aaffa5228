//! Operations that replace every 8-bit value through a table, as Pillow's `ImageOps` (`PIL/ImageOps.py`).
//!
//! They do not change floats.

use crate::image::{Image, Pixels};

type Table = [u8; 256];

/// Stretches every channel so that its smallest value becomes 0 and its largest value 255.
pub(super) fn auto_contrast(image: &mut Image) {
    by_channel(image, |counts| {
        let least = counts.iter().position(|count| *count > 0)?;
        let greatest = counts.iter().rposition(|count| *count > 0)?;
        if greatest == least {
            return None;
        }
        let scale = 255.0 / (greatest - least) as f64;
        let offset = -(least as f64) * scale;
        Some(table(|value| (f64::from(value) * scale + offset) as u8))
    });
}

/// Replaces every value by its rank among the values of its channel, so that all are about equally frequent.
pub(super) fn equalize(image: &mut Image) {
    by_channel(image, |counts| {
        let greatest = counts.iter().rposition(|count| *count > 0)?;
        let below_greatest: usize = counts[..greatest].iter().sum();
        let step = below_greatest / 255;
        if step == 0 {
            return None;
        }
        let mut before = step / 2;
        Some(table(|value| {
            let place = (before / step).min(255) as u8;
            before += counts[usize::from(value)];
            place
        }))
    });
}

/// Inverts every value.
pub(super) fn invert(image: &mut Image) {
    look_up(image, &table(|value| 255 - value));
}

/// Keeps the highest `bits` bits.
pub(super) fn posterize(image: &mut Image, bits: u32) {
    // with eight bits or more, all are kept
    let mask = 0xff_u32 << 8_u32.saturating_sub(bits);
    look_up(image, &table(|value| value & mask as u8));
}

/// Inverts values of `from` and above.
pub(super) fn solarize(image: &mut Image, from: u32) {
    look_up(image, &table(|value| if u32::from(value) < from { value } else { 255 - value }));
}

/// Adds `add` to values below 128.
pub(super) fn solarize_add(image: &mut Image, add: u8) {
    look_up(image, &table(|value| if value < 128 { value.saturating_add(add) } else { value }));
}

/// Makes the table of a function, which is called with the values from 0 to 255 in this order.
fn table(mut value: impl FnMut(u8) -> u8) -> Table {
    let mut table = [0; 256];
    for (from, to) in (0..=u8::MAX).zip(&mut table) {
        *to = value(from);
    }
    table
}

fn look_up(image: &mut Image, table: &Table) {
    match &mut image.pixels {
        Pixels::U8(pixels) => {
            for value in pixels {
                *value = table[usize::from(*value)];
            }
        }
        Pixels::F32(_) => {}
    }
}

/// Replaces the values of every channel through a table that `table` makes from its histogram; a channel with `None` is
/// not changed.
fn by_channel(image: &mut Image, table: impl Fn(&[usize; 256]) -> Option<Table>) {
    let pixels = match &mut image.pixels {
        Pixels::U8(pixels) => pixels,
        Pixels::F32(_) => return,
    };
    for channel in 0..image.channels {
        let mut counts = [0; 256];
        for value in pixels.iter().skip(channel).step_by(image.channels) {
            counts[usize::from(*value)] += 1;
        }
        if let Some(table) = table(&counts) {
            for value in pixels.iter_mut().skip(channel).step_by(image.channels) {
                *value = table[usize::from(*value)];
            }
        }
    }
}
