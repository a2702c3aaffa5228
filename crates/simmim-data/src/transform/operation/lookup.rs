//! Operations that replace every 8-bit value by what a table says, as Pillow's `ImageOps`
//! (`PIL/ImageOps.py`); floats are left as they are.

use crate::image::{Image, Pixels};

type Table = [u8; 256];

/// Stretches every channel so that its least value becomes 0 and its greatest 255.
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

/// Gives every value its place among the values of its channel.
pub(super) fn equalise(image: &mut Image) {
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

/// Turns every value around.
pub(super) fn invert(image: &mut Image) {
    look_up(image, &table(|value| 255 - value));
}

/// Keeps the highest `bits` bits.
pub(super) fn posterise(image: &mut Image, bits: u32) {
    // eight bits or more are all there are
    let kept = 0xff_u32 << 8_u32.saturating_sub(bits);
    look_up(image, &table(|value| value & kept as u8));
}

/// Turns values of `from` and above around.
pub(super) fn solarise(image: &mut Image, from: u32) {
    look_up(image, &table(|value| if u32::from(value) < from { value } else { 255 - value }));
}

/// Adds to values below the middle.
pub(super) fn solarise_add(image: &mut Image, add: u8) {
    look_up(image, &table(|value| if value < 128 { value.saturating_add(add) } else { value }));
}

/// The table of a function, which is asked in rising order.
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

/// Gives every channel a table made from how often it has each value; `None` leaves it.
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
