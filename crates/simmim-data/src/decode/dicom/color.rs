//! Colors of DICOM: as they are, of a palette, or of brightness and differences (PS3.3, C.7.6.3.1.2 and C.7.6.3.1.5).

use super::data_set::DataSet;
use super::layout::Layout;
use super::table::Table;
use crate::image::Pixels;

/// The descriptions of the three tables of a palette, and their values.
const PALETTE: [(u32, u32); 3] = [(0x0028_1101, 0x0028_1201), (0x0028_1102, 0x0028_1202), (0x0028_1103, 0x0028_1203)];

/// Returns colors of 8 bits as bytes, and of others as floats from 0 to 1.
pub(super) fn of_colors(values: &[u16], layout: &Layout) -> Pixels {
    if layout.bits == 8 {
        return Pixels::U8(values.iter().map(|value| *value as u8).collect());
    }
    let [_, top] = layout.range();
    Pixels::F32(values.iter().map(|value| (f64::from(layout.number(*value)) / top) as f32).collect())
}

/// Returns the colors that the palette of the file has for values; the error says what is wrong.
pub(super) fn of_palette(values: &[u16], layout: &Layout, data: &DataSet<'_>) -> Result<Pixels, String> {
    let tables = PALETTE.map(|(about, values)| Table::of(data, about, values, false));
    let [Some(red), Some(green), Some(blue)] = tables else {
        return Err("its palette is missing, broken or in segments".to_owned());
    };
    let tables = [red, green, blue];
    let colors = values.iter().map(|value| tables.each_ref().map(|table| table.at(layout.number(*value))));
    if tables.iter().all(|table| table.bits == 8) {
        return Ok(Pixels::U8(colors.flat_map(|color| color.map(|value| value as u8)).collect()));
    }
    let tops = tables.each_ref().map(Table::top);
    let shares = |color: [u16; 3]| [0, 1, 2].map(|channel| (f64::from(color[channel]) / tops[channel]).min(1.0) as f32);
    Ok(Pixels::F32(colors.flat_map(shares).collect()))
}

/// Converts brightness and the differences of blue and red from it, of 8 bits each, to colors.
pub(super) fn of_luma_and_chroma(values: &[u16]) -> Pixels {
    let color = |pixel: &[u16; 3]| {
        let [luma, blue, red] = pixel.map(f64::from);
        let (blue, red) = (blue - 128.0, red - 128.0);
        let green = luma - (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587;
        // casts cut to the range of bytes
        [luma + 1.402 * red, green, luma + 1.772 * blue].map(|value| value.round() as u8)
    };
    Pixels::U8(values.as_chunks::<3>().0.iter().flat_map(color).collect())
}
