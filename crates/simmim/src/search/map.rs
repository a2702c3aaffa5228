//! A place in the plane for each image, so that images with similar features lie near each other.
//!
//! By t-SNE (L. van der Maaten and G. Hinton, JMLR 9, 2008) with forces by interpolation (FIt-SNE, arXiv:1712.09005), or of few
//! images by a tree (Barnes-Hut, arXiv:1301.3342), from our exact neighbors, and beginning with the principal components
//! (D. Kobak and P. Berens, "The art of using t-SNE for single-cell transcriptomics", Nature Communications 10, 2019); or by the
//! principal components alone.

use super::principal::components;
use super::{FeatureRows, Queries, nearest};
use crate::error::{Error, Result};
use bhtsne::{Neighbor, tSNE};
use simmim_data::Purpose;
use simmim_data::rng::{normal_pair, rng};
use simmim_engine::Device;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

/// How places are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapMethod {
    /// t-SNE: neighbors stay neighbors; distances between groups mean little.
    Tsne,
    /// The two principal components: distances are kept as far as two numbers can.
    Principal,
}

/// How a map is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapOptions {
    /// How places are found.
    pub method: MapMethod,
    /// How many neighbors an image of t-SNE has, about; with fewer images it is lowered to a third of their number.
    pub perplexity: f32,
    /// Draws the small differences from the principal components with which t-SNE begins.
    pub seed: u64,
}

/// Fewer images have too few neighbors for t-SNE.
pub const LEAST_FOR_TSNE: usize = 10;
/// Steps of t-SNE, as in other programs.
const EPOCHS: usize = 1000;
/// Forces of so many images are interpolated. Those of fewer are summed over a tree, since few images may spread as far as many
/// and the grid has to cover it.
const INTERPOLATED_FROM: usize = 2000;
/// How exact the sum over a tree is, as in other programs.
const THETA: f32 = 0.5;
/// Standard deviation of the first coordinate at the start, and of what is drawn to keep equal images apart (Kobak and
/// Berens, and openTSNE's `initialization.py`).
const START: f64 = 1e-4;
const DRAWN: f64 = 1e-6;

/// What ends t-SNE early.
struct Stopped;

/// The place of each row, `[N, 2]`, the same for any number of threads; `None` if `stop` was set. `progress` is called with
/// the share that is done, from 0 to 1.
///
/// Forces are summed by one thread: with more, the last bits would depend on which was faster, and after a thousand steps the
/// map with them.
///
/// # Errors
/// If a row cannot be read or is not finite.
pub fn coordinates(
    rows: &FeatureRows,
    options: MapOptions,
    device: &impl Device,
    stop: &AtomicBool,
    progress: &mut (dyn FnMut(f64) + Send),
) -> Result<Option<Vec<[f64; 2]>>> {
    let Some(principal) = components(rows, stop)? else { return Ok(None) };
    match options.method {
        MapMethod::Tsne if rows.len() >= LEAST_FOR_TSNE => {}
        MapMethod::Tsne | MapMethod::Principal => return Ok(Some(principal)),
    }
    let count = rows.len();
    let perplexity = options.perplexity.min((count - 1) as f32 / 3.0);
    let k = ((3.0 * perplexity) as usize).clamp(1, count - 1);
    let mut neighbors: Vec<Vec<Neighbor<f32>>> = Vec::with_capacity(count);
    // neighbors take about as long as the thousand steps
    let found = nearest(
        rows,
        Queries::All,
        k,
        device,
        stop,
        &mut |done| progress(0.5 * done as f64 / count as f64),
        &mut |_, nearest| {
            // the distance of two rows of unit length
            let neighbor = |near: &super::Nearest| Neighbor {
                index: near.row,
                distance: (2.0 - 2.0 * near.similarity).max(0.0).sqrt(),
            };
            neighbors.push(nearest.iter().map(neighbor).collect());
            Ok(())
        },
    )?;
    if !found {
        return Ok(None);
    }
    let start = start(&principal, options.seed);
    let on = &mut |share: f64| progress(0.5 + 0.5 * share);
    let Some(places) = embedded(&neighbors, start, perplexity, stop, on)? else { return Ok(None) };
    if let Some(index) = places.iter().position(|value| !value.is_finite()) {
        return Err(Error::OutputNotFinite {
            what: "the place in the map".into(),
            image: rows.names().files[index / 2].clone(),
            value: places[index].into(),
        });
    }
    Ok(Some(places.chunks_exact(2).map(|place| [place[0].into(), place[1].into()]).collect()))
}

/// The places `[N, 2]` of t-SNE, flat; `None` if `stop` was set.
fn embedded(
    neighbors: &[Vec<Neighbor<f32>>],
    start: Vec<f32>,
    perplexity: f32,
    stop: &AtomicBool,
    progress: &mut (dyn FnMut(f64) + Send),
) -> Result<Option<Vec<f32>>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.map_err(|error| Error::Io(std::io::Error::other(error.to_string())))?;
    let places = catch_unwind(AssertUnwindSafe(|| {
        pool.install(|| {
            let items = vec![(); neighbors.len()];
            let mut tsne: tSNE<f32, ()> = tSNE::new(&items);
            tsne.perplexity(perplexity).epochs(EPOCHS).initial_embedding(start).epoch_callback(|epoch, _| {
                if stop.load(Ordering::Relaxed) {
                    resume_unwind(Box::new(Stopped)); // the only way out of the loop
                }
                progress((epoch + 1) as f64 / EPOCHS as f64);
            });
            match neighbors.len() < INTERPOLATED_FROM {
                true => tsne.barnes_hut_with_neighbors(THETA, neighbors),
                false => tsne.fit_sne_with_neighbors(neighbors),
            };
            tsne.embedding()
        })
    }));
    match places {
        Ok(places) => Ok(Some(places)),
        Err(stopped) if stopped.is::<Stopped>() => Ok(None),
        Err(panic) => resume_unwind(panic),
    }
}

/// The principal components, scaled, and differences between images that are equal.
fn start(principal: &[[f64; 2]], seed: u64) -> Vec<f32> {
    let variance = principal.iter().map(|place| place[0].powi(2)).sum::<f64>() / principal.len() as f64;
    let scale = if variance > 0.0 { START / variance.sqrt() } else { 0.0 };
    let of = |(index, place): (usize, &[f64; 2])| {
        let drawn = normal_pair(&mut rng(seed, Purpose::Map, 0, index as u64));
        [0, 1].map(|axis: usize| (place[axis] * scale + drawn[axis] * DRAWN) as f32)
    };
    principal.iter().enumerate().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::super::RowNames;
    use super::super::rows::Values;
    use super::*;
    use simmim_cpu::CpuDevice;

    fn rows(width: usize, values: Vec<f32>) -> FeatureRows {
        let count = values.len() / width;
        let files = (0..count).map(|row| format!("{row}.png")).collect();
        let names = RowNames { files, classes: vec![None; count], class_names: Vec::new() };
        FeatureRows::new(width, names, Values::Memory(values))
    }

    fn made(rows: &FeatureRows, method: MapMethod, seed: u64, threads: usize) -> Vec<[f64; 2]> {
        let options = MapOptions { method, perplexity: 30.0, seed };
        let (device, stop) = (CpuDevice { threads }, AtomicBool::new(false));
        coordinates(rows, options, &device, &stop, &mut |_| ()).unwrap().unwrap()
    }

    /// Three groups of rows around three directions.
    fn groups(of_group: usize) -> FeatureRows {
        let row = |index: usize| {
            let noise = normal_pair(&mut rng(1, Purpose::Show, 0, index as u64));
            let mut row = [0.1 * noise[0] as f32, 0.1 * noise[1] as f32, 0.0, 0.0, 0.0];
            row[2 + index % 3] = 1.0;
            row
        };
        rows(5, (0..3 * of_group).flat_map(row).collect())
    }

    #[test]
    fn principal_components_are_those_of_numpy() {
        // x = [[3, 0, 4], [0, 2, 0], [1, 1, 1], [-1, 2, 2], [5, -5, 0.5]] / their norms; x -= x.mean(0);
        // u, s, vt = numpy.linalg.svd(x, full_matrices=False); x @ vt[:2].T, with the signs of the largest components
        let rows = rows(3, vec![3.0, 0.0, 4.0, 0.0, 2.0, 0.0, 1.0, 1.0, 1.0, -1.0, 2.0, 2.0, 5.0, -5.0, 0.5]);
        let expected = [
            [-0.39582946, 0.40283212],
            [0.73596769, -0.44029958],
            [0.10495400, 0.19497134],
            [0.64320854, 0.16842212],
            [-1.08830076, -0.32592600],
        ];
        for (found, expected) in made(&rows, MapMethod::Principal, 0, 1).iter().zip(expected) {
            assert!((0..2).all(|axis| (found[axis] - expected[axis]).abs() < 1e-6), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn groups_lie_apart_and_the_seed_and_nothing_else_changes_the_map() {
        let rows = groups(60);
        let map = made(&rows, MapMethod::Tsne, 0, 1);
        assert_eq!(map, made(&rows, MapMethod::Tsne, 0, 3), "any number of threads");
        assert_ne!(map, made(&rows, MapMethod::Tsne, 1, 1));
        for (index, place) in map.iter().enumerate() {
            let distance = |other: &[f64; 2]| (place[0] - other[0]).hypot(place[1] - other[1]);
            let nearest = (0..map.len())
                .filter(|other| *other != index)
                .min_by(|a, b| distance(&map[*a]).total_cmp(&distance(&map[*b])));
            assert_eq!(nearest.map(|other| other % 3), Some(index % 3), "image {index}");
        }
    }

    #[test]
    fn a_few_images_equal_images_and_zeros_have_a_map_too() {
        for (count, values) in
            [(1, vec![1.0; 3]), (2, vec![0.0; 6]), (9, vec![2.0; 27]), (10, vec![2.0; 30]), (40, vec![0.0; 120])]
        {
            let map = made(&rows(3, values), MapMethod::Tsne, 0, 1);
            assert!(map.len() == count && map.iter().flatten().all(|value| value.is_finite()), "{count}: {map:?}");
        }
        assert_eq!(made(&rows(1, vec![1.0, -2.0, 3.0]), MapMethod::Principal, 0, 1).len(), 3, "one feature");
    }

    #[test]
    fn a_map_that_is_stopped_is_none() {
        let (rows, device) = (groups(60), CpuDevice { threads: 1 });
        let options = MapOptions { method: MapMethod::Tsne, perplexity: 30.0, seed: 0 };
        for at in [0.0, 0.4, 0.7] {
            let stop = AtomicBool::new(false);
            let found =
                coordinates(&rows, options, &device, &stop, &mut |done| stop.store(done >= at, Ordering::Relaxed));
            assert_eq!(found.unwrap(), None, "at {at}");
        }
    }
}
