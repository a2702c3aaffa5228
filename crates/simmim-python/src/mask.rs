//! Masks as recipes draw them.

use crate::error::{exception, wrong};
use pyo3::prelude::{Bound, PyResult, Python, pyfunction};
use pyo3::types::PyByteArray;
use simmim::masks::{Grid, strategy};
use simmim::recipe::{ImageSize, MaskRecipe, MaskStrategyName};
use simmim_data::Purpose;
use simmim_data::rng::rng;

/// Bytes and their shape `(count, h, w)`.
type Masks<'py> = (Bound<'py, PyByteArray>, (usize, usize, usize));

/// Draws `count` masks; returns one byte for each patch, 1 = hidden.
#[pyfunction]
pub(crate) fn mask<'py>(
    py: Python<'py>,
    name: &str,
    image_px: (usize, usize),
    unit_px: usize,
    patch_px: usize,
    ratio: f64,
    min_block_units: usize,
    aspect: (f64, f64),
    count: usize,
    seed: u64,
    epoch: u64,
) -> PyResult<Masks<'py>> {
    let Some(named) = MaskStrategyName::ALL.into_iter().find(|strategy| strategy.name() == name) else {
        let names = MaskStrategyName::ALL.map(MaskStrategyName::name).join(", ");
        return Err(wrong(format!("there is no mask strategy `{name}`"), &format!("the strategies are: {names}")));
    };
    if patch_px == 0 {
        return Err(wrong("`patch_px` is `0`".into(), "give the side of a patch in pixels"));
    }
    let recipe = MaskRecipe { strategy: named, unit_px, ratio, min_block_units, aspect };
    let (height, width) = image_px;
    recipe.check(ImageSize::HeightWidth(height, width), patch_px).map_err(|error| exception(&error))?;
    let grid = Grid { rows: height / unit_px, columns: width / unit_px };
    let strategy = strategy(&recipe);
    let mut hidden = Vec::new();
    for image in 0..count as u64 {
        let mask = strategy.sample(&mut rng(seed, Purpose::Mask, epoch, image), grid).refined(unit_px / patch_px);
        hidden.extend(mask.hidden().iter().map(|is_hidden| u8::from(*is_hidden)));
    }
    Ok((PyByteArray::new(py, &hidden), (count, height / patch_px, width / patch_px)))
}
