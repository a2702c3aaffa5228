//! Gray values of DICOM: from stored values over those of the modality to what a window shows (PS3.3, C.11.1 and
//! C.11.2).

use super::data_set::DataSet;
use super::layout::Layout;
use super::table::Table;
use crate::decode::Window;
use crate::image::Pixels;

const CENTER: u32 = 0x0028_1050;
const WIDTH: u32 = 0x0028_1051;
const FUNCTION: u32 = 0x0028_1056;
const INTERCEPT: u32 = 0x0028_1052;
const SLOPE: u32 = 0x0028_1053;
const MODALITY_TABLES: u32 = 0x0028_3000;
const TABLES_OF_INTEREST: u32 = 0x0028_3010;
const ABOUT_TABLE: u32 = 0x0028_3002;
const VALUES_OF_TABLE: u32 = 0x0028_3006;

/// Returns gray values from 0 to 1. The bounds of `window`, or else of the first window of the file, are 0 and 1; without
/// any, the ends of the first table of values of interest, or else of the range that the stored bits can have. Values of
/// 8 bits for which nothing of all this is said stay bytes. The error says what is wrong.
pub(super) fn pixels(
    values: &[u16],
    layout: &Layout,
    is_inverted: bool,
    data: &DataSet<'_>,
    window: Option<Window>,
) -> Result<Pixels, String> {
    let number = |tag: u32| data.number(tag).map_err(|text| format!("`{text}` is not a number"));
    let (slope, intercept) = (number(SLOPE)?.unwrap_or(1.0), number(INTERCEPT)?.unwrap_or(0.0));
    let table = |tag: u32, is_signed: bool| match data.first_item(tag) {
        Some(item) => Table::of(&item, ABOUT_TABLE, VALUES_OF_TABLE, is_signed).map(Some).ok_or(BAD_TABLE),
        None => Ok(None),
    };
    let modality = table(MODALITY_TABLES, layout.is_signed)?;
    let mut range = match &modality {
        Some(table) => [0.0, table.top()],
        None => layout.range().map(|stored| stored * slope + intercept),
    };
    range.sort_by(f64::total_cmp);
    let show = match (window, number(CENTER)?, number(WIDTH)?) {
        (Some(Window { center, width }), ..) => Show::Exact([center, width]),
        (None, Some(center), Some(width)) => Show::of_window(center, width, data.text(FUNCTION))?,
        (None, ..) => match table(TABLES_OF_INTEREST, range[0] < 0.0)? {
            Some(table) => Show::Table(table),
            None if range[0] < range[1] => Show::Range(range),
            None => return Err(format!("its values are all the same (RescaleSlope {slope})")),
        },
    };
    let is_plain = modality.is_none() && (slope, intercept) == (1.0, 0.0) && matches!(show, Show::Range(_));
    if is_plain && layout.bits == 8 && !layout.is_signed {
        let flip = if is_inverted { 255 } else { 0 };
        return Ok(Pixels::U8(values.iter().map(|value| *value as u8 ^ flip).collect()));
    }
    let shown = |stored: u16| {
        let stored = layout.number(stored);
        let value = match &modality {
            Some(table) => f64::from(table.at(stored)),
            None => f64::from(stored) * slope + intercept,
        };
        let shown = show.of(value);
        (if is_inverted { 1.0 - shown } else { shown }) as f32
    };
    Ok(Pixels::F32(values.iter().map(|value| shown(*value)).collect()))
}

const BAD_TABLE: &str = "a table of its values (LUT) is broken";

/// What is shown of the values of the modality.
enum Show {
    /// A window with this center and width, by its function `LINEAR`, `LINEAR_EXACT` or `SIGMOID`.
    Linear([f64; 2]),
    Exact([f64; 2]),
    Sigmoid([f64; 2]),
    Table(Table),
    /// All from the first to the second.
    Range([f64; 2]),
}

impl Show {
    fn of_window(center: f64, width: f64, function: Option<&str>) -> Result<Self, String> {
        let window = [center, width];
        match function {
            None | Some("LINEAR") if width >= 1.0 => Ok(Self::Linear(window)),
            Some("LINEAR_EXACT") if width > 0.0 => Ok(Self::Exact(window)),
            Some("SIGMOID") if width > 0.0 => Ok(Self::Sigmoid(window)),
            None | Some("LINEAR" | "LINEAR_EXACT" | "SIGMOID") => Err(format!("its window is `{width}` wide")),
            Some(other) => Err(format!("the function `{other}` of its window is not read")),
        }
    }

    /// Returns where a value lies, from 0 to 1.
    fn of(&self, value: f64) -> f64 {
        let shown = match self {
            // formulas: PS3.3, C.11.2.1.2. With the least width, 1, this is a step behind `center - 0.5`
            Self::Linear([center, width]) => {
                let (distance, reach) = (value - (center - 0.5), width - 1.0);
                if distance <= -reach / 2.0 {
                    0.0
                } else if distance > reach / 2.0 {
                    1.0
                } else {
                    distance / reach + 0.5
                }
            }
            Self::Exact([center, width]) => (value - center) / width + 0.5,
            Self::Sigmoid([center, width]) => 1.0 / (1.0 + (-4.0 * (value - center) / width).exp()),
            Self::Table(table) => f64::from(table.at(value as i32)) / table.top(),
            Self::Range([low, high]) => (value - low) / (high - low),
        };
        shown.clamp(0.0, 1.0)
    }
}
