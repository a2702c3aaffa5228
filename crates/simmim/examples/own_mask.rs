//! A custom masking strategy: a checkerboard.

use simmim::masks::{Grid, Mask, MaskStrategy, avg_dist};
use simmim_data::rng::{below, rng};
use simmim_data::{Purpose, Rng};

/// Hides every other unit, starting with a random one of the first two.
struct Checkerboard;

impl MaskStrategy for Checkerboard {
    fn sample(&self, rng: &mut Rng, grid: Grid) -> Mask {
        let first = below(rng, 2);
        let is_hidden = |unit: usize| (unit / grid.columns + unit % grid.columns + first).is_multiple_of(2);
        Mask::new(grid, (0..grid.cells()).map(is_hidden).collect())
    }
}

fn main() {
    let grid = Grid { rows: 6, columns: 6 };
    let mask = Checkerboard.sample(&mut rng(0, Purpose::Mask, 0, 0), grid);
    for row in mask.hidden().chunks(grid.columns) {
        println!("{}", row.iter().map(|hidden| if *hidden { "██" } else { "· " }).collect::<String>());
    }
    let pixels = mask.refined(32);
    let distance = avg_dist(pixels.hidden(), pixels.grid().columns).expect("something is hidden and something visible");
    println!("AvgDist with units of 32 px: {distance:.2} px");
}
