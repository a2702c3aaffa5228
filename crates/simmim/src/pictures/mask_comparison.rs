//! The comparison of masking strategies of the paper (arXiv:2111.09886, section 4.1.2 and figures 2 and 3): pictures of
//! each strategy and unit size, and their AvgDist at each masking ratio.

use crate::error::Result;
use crate::masks::{Grid, Mask, avg_dist, strategy};
use crate::memory;
use crate::pictures::{Picture, Sheet};
use crate::recipe::{MaskRecipe, MaskStrategyName};
use crate::report::{Chart, Page, Scale, Section, Series, Style};
use simmim_data::rng::rng;
use simmim_data::{Augmentation, Image, Normalization, Purpose, Transform, decode};

/// Sides in pixels of the mask units that are compared; those that do not divide the image are left out.
pub const UNITS_PX: [usize; 5] = [4, 8, 16, 32, 64];

/// Masking ratios in tenths.
const RATIO_TENTHS: std::ops::RangeInclusive<u32> = 1..=9;

/// Number of masks over which AvgDist is averaged.
const DRAWS: u64 = 32;

/// Width in pixels at which the page shows the pictures.
const PICTURE_WIDTH_PX: usize = 1100;

/// The embedded photo. Public domain, by Ryan Hagerty.
pub(crate) const MOOSE: &[u8] = include_bytes!("../../../../assets/photos/moose.jpg");

/// Decodes the embedded photo.
///
/// # Errors
/// If it is damaged.
pub fn embedded_photo() -> Result<Image> {
    Ok(decode(MOOSE, "the embedded photo", 3)?)
}

/// AvgDist of one strategy with one unit size at one masking ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AvgDistRow {
    /// The masking strategy.
    pub strategy: MaskStrategyName,
    /// Side of a unit in pixels.
    pub unit_px: usize,
    /// The masking ratio.
    pub ratio: f64,
    /// AvgDist in pixels; `None` if the ratio, rounded to whole units, leaves nothing visible.
    pub pixels: Option<f64>,
}

/// Measures AvgDist of every strategy, unit size and masking ratio, for an input of `image_px`, `(height, width)`.
///
/// Other settings of the strategies are those of `recipe`.
pub fn measure(recipe: &MaskRecipe, image_px: (usize, usize), seed: u64) -> Vec<AvgDistRow> {
    let mut rows = Vec::new();
    for strategy in MaskStrategyName::ALL {
        for unit_px in units(image_px) {
            for tenths in RATIO_TENTHS {
                let ratio = tenths as f64 / 10.0;
                let recipe = MaskRecipe { strategy, unit_px, ratio, ..*recipe };
                let distances: Vec<f64> = (0..DRAWS)
                    .filter_map(|i| avg_dist(draw(&recipe, image_px, seed, i).hidden(), image_px.1))
                    .collect();
                let mean = distances.iter().sum::<f64>() / distances.len() as f64;
                rows.push(AvgDistRow { strategy, unit_px, ratio, pixels: (!distances.is_empty()).then_some(mean) });
            }
        }
    }
    rows
}

fn units((height, width): (usize, usize)) -> impl Iterator<Item = usize> {
    UNITS_PX.into_iter().filter(move |unit| height.is_multiple_of(*unit) && width.is_multiple_of(*unit))
}

/// Draws a mask, refined to pixels.
fn draw(recipe: &MaskRecipe, (height, width): (usize, usize), seed: u64, index: u64) -> Mask {
    let grid = Grid { rows: height / recipe.unit_px, columns: width / recipe.unit_px };
    strategy(recipe).sample(&mut rng(seed, Purpose::Mask, 0, index), grid).refined(recipe.unit_px)
}

/// Pictures of masks on the center crop of `photo`: a row per strategy and a column per unit size, at the ratio of the
/// recipe.
///
/// # Errors
/// If there is no memory for them.
pub fn pictures(recipe: &MaskRecipe, image_px: (usize, usize), photo: &Image, seed: u64) -> Result<Sheet> {
    let (height, width) = image_px;
    let channels = photo.channels;
    let columns = 1 + units(image_px).count();
    let what = || format!("a row of {columns} pictures of {height} × {width} px");
    memory::check(what, memory::of_values(columns * channels * height * width))?;
    let normalization = Normalization::none(channels); // decoded values are in [0, 1]
    let transform = Transform { height, width, augmentation: Augmentation::Center, normalization };
    let mut pixels = vec![0.0; transform.values()];
    transform.apply(photo, &mut rng(seed, Purpose::Augment, 0, 0), &mut pixels);
    let photo = Picture { channels, height, width, pixels };

    let captions = units(image_px).map(|unit| format!("unit {unit} px"));
    let mut sheet = Sheet::new(["original".to_owned()].into_iter().chain(captions));
    for strategy in MaskStrategyName::ALL {
        let masked = units(image_px).map(|unit_px| {
            let recipe = MaskRecipe { strategy, unit_px, ..*recipe };
            photo.hide(draw(&recipe, image_px, seed, 0).hidden())
        });
        let row: Vec<Picture> = [photo.clone()].into_iter().chain(masked).collect();
        sheet.push_row(strategy.name(), &row);
    }
    Ok(sheet)
}

/// The report of the comparison; `pictures` is a PNG of [`pictures`] at `ratio`.
pub fn page(measured: &[AvgDistRow], image_px: (usize, usize), ratio: f64, pictures: Vec<u8>) -> Page {
    let mut sections = vec![
        Section::Image {
            caption: format!("Strategies and units at ratio {ratio}."),
            png: pictures,
            width_px: PICTURE_WIDTH_PX,
        },
        Section::Heading("AvgDist".into()),
        Section::Text(format!(
            "The mean distance from a hidden pixel to the nearest visible one, over {DRAWS} masks each. \
             In the paper, fine-tuning accuracy is highest at 10 to 20 px on images of 192 px: \
             at smaller distances hidden pixels can be copied from their neighbors, at larger ones they can hardly be predicted."
        )),
    ];
    for strategy in MaskStrategyName::ALL {
        let series = units(image_px).map(|unit| {
            let is_of_series = |m: &&AvgDistRow| m.strategy == strategy && m.unit_px == unit;
            let points = measured.iter().filter(is_of_series).filter_map(|m| Some((m.ratio, m.pixels?)));
            Series { name: format!("{unit} px"), points: points.collect(), style: Style::Points }
        });
        sections.push(Section::Chart(Chart {
            title: format!("{} masks, by unit", strategy.name()),
            x_label: "ratio".into(),
            y_label: "AvgDist in pixels".into(),
            y_scale: Scale::Linear,
            series: series.collect(),
        }));
    }
    let (header, rows) = table(measured);
    sections.push(Section::Table { caption: "AvgDist in pixels".into(), header, rows });
    let (height, width) = image_px;
    Page {
        title: "Masks".into(),
        subtitle: format!("{height} × {width} px · simmim {}", env!("CARGO_PKG_VERSION")),
        sections,
    }
}

/// Header and rows of the table: a row per strategy and unit size, a column per ratio.
pub fn table(measured: &[AvgDistRow]) -> (Vec<String>, Vec<Vec<String>>) {
    let header = ["strategy", "unit px"].map(str::to_owned).into_iter();
    let header = header.chain(RATIO_TENTHS.map(|tenths| format!("0.{tenths}"))).collect();
    let row = |of: &[AvgDistRow]| {
        let cell = |m: &AvgDistRow| m.pixels.map_or("–".into(), |pixels| format!("{pixels:.2}"));
        [of[0].strategy.name().to_owned(), of[0].unit_px.to_string()].into_iter().chain(of.iter().map(cell)).collect()
    };
    let is_same_row = |a: &AvgDistRow, b: &AvgDistRow| (a.strategy, a.unit_px) == (b.strategy, b.unit_px);
    (header, measured.chunk_by(is_same_row).map(row).collect())
}

/// The measurements as CSV; a field is empty if nothing is visible.
pub fn csv(measured: &[AvgDistRow]) -> String {
    let line = |m: &AvgDistRow| {
        let pixels = m.pixels.map_or(String::new(), |pixels| pixels.to_string());
        format!("{},{},{},{pixels}\n", m.strategy.name(), m.unit_px, m.ratio)
    };
    "strategy,unit_px,ratio,avg_dist_px\n".to_owned() + &measured.iter().map(line).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::resolve;

    fn recipe() -> MaskRecipe {
        resolve("pretrain-vit-photos-192", &[]).unwrap().mask
    }

    #[test]
    fn distances_grow_with_unit_and_ratio_and_from_random_to_square() {
        let measured = measure(&recipe(), (64, 64), 0);
        assert_eq!(measured.len(), 3 * 5 * 9);
        let pixels = |strategy, unit_px, ratio| {
            let is_asked = |m: &&AvgDistRow| (m.strategy, m.unit_px, m.ratio) == (strategy, unit_px, ratio);
            measured.iter().find(is_asked).unwrap().pixels
        };
        use MaskStrategyName::{Blockwise, Random, Square};
        assert!(pixels(Random, 4, 0.6) < pixels(Random, 8, 0.6));
        assert!(pixels(Random, 8, 0.6) < pixels(Random, 16, 0.6));
        assert!(pixels(Random, 8, 0.2) < pixels(Random, 8, 0.8));
        assert!(pixels(Random, 8, 0.5) < pixels(Blockwise, 8, 0.5));
        assert!(pixels(Blockwise, 8, 0.5) < pixels(Square, 8, 0.5));
        assert_eq!(pixels(Random, 64, 0.5), None); // the only unit is hidden
    }

    #[test]
    fn the_table_has_a_row_per_strategy_and_unit() {
        let measured = measure(&recipe(), (32, 48), 0); // units 4, 8, 16
        let (header, rows) = table(&measured);
        assert_eq!(header.len(), 11);
        assert_eq!(rows.len(), 9);
        assert_eq!(rows[3][..2], ["square", "4"]);
        assert_eq!(csv(&measured).lines().count(), 1 + 81);
    }
}
