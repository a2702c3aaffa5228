//! The weights, packed as operands of products.
//!
//! The forward product reads panels of `Wᵀ`. Training in bf16, and evaluations, store them: they are packed when the product is
//! first run, and again by each optimizer step, together with the new values (`optimizer.rs`). In f32 they would be as large as
//! the weights themselves, so training in f32 packs a weight just before its product instead. The same is done with the panels of
//! `W` for the product that computes the gradient of the input. Then the weight is read from memory where its panels would
//! be, and the optimizer step has less to write, so this costs hardly any time. Where the forward product's panels are stored and the
//! CPU has AVX-512, those are read instead, because they are half as large as the weight.

use crate::Cpu;
use crate::buffer_pool::Buffer;
use crate::store::Store;
use crate::threads::{parts, split_mut};
use simmim_engine::ParameterId;
use simmim_kernels::aligned::Aligned;
use simmim_kernels::dtype::{Dtype, DtypeKind};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{Packed, PackedLayout, pack_columns_of_panels, pack_weight_by_column, pack_weight_rows};
use std::collections::HashMap;
use std::rc::Rc;

/// A model with more parameters than this is evaluated without storing packed weights, so that a model of billions
/// needs little more memory than its parameters. Each weight is then packed again whenever it is used.
const MOST_STORED: usize = 1 << 30;

/// About as many values are in the rows that a task packs for the gradient of an input, so that starting it costs little.
const PIECE: usize = 1 << 16;

/// The least rows of such a task, however long they are.
const LEAST_ROWS: usize = 48;

/// The weights that are packed for the forward product.
#[derive(Default)]
pub(super) struct PackedWeights {
    by_id: HashMap<ParameterId, StoredWeight>,
}

/// A packed weight, and the version of the parameters that it was packed from.
#[derive(Default)]
struct StoredWeight {
    version: u64,
    lanes: Rc<Aligned<u32>>,
}

/// A packed weight.
pub(super) struct PackedWeight {
    lanes: Lanes,
    layout: PackedLayout,
}

enum Lanes {
    Stored(Rc<Aligned<u32>>),
    /// For one operation.
    Temporary(Buffer<u32>),
}

impl PackedWeight {
    /// The right side of the product.
    pub(super) fn get(&self) -> Packed<'_> {
        let lanes = match &self.lanes {
            Lanes::Stored(lanes) => &lanes[..],
            Lanes::Temporary(lanes) => lanes,
        };
        Packed::new(lanes, self.layout)
    }
}

impl PackedWeights {
    /// The lanes of all weights that are stored, for the optimizer step, which must pack them from version `version` of the
    /// parameters. They count as packed already: if a worker panics before, the backend is not used again.
    pub(super) fn step_lanes(&mut self, version: u64) -> HashMap<ParameterId, &mut [u32]> {
        let lanes = self.by_id.iter_mut().map(|(id, packed)| {
            packed.version = version;
            (*id, &mut Rc::make_mut(&mut packed.lanes)[..])
        });
        lanes.collect()
    }

    /// Whether there are packed weights, all of them from this version of the parameters.
    #[cfg(test)]
    pub(super) fn are_of(&self, version: u64) -> bool {
        !self.by_id.is_empty() && self.by_id.values().all(|packed| packed.version == version)
    }
}

impl Cpu {
    /// Panels of `Wᵀ` `[in, out]` of a weight `W` `[out, in]`, for the forward product.
    pub(super) fn forward_weight<T: Dtype>(&self, id: ParameterId) -> PackedWeight {
        let store = self.store.borrow();
        let weight = self.unpacked_weight(&store, id);
        let layout = self.tile.panels::<T>(weight.columns(), weight.rows());
        let mut packed = self.packed_weights.borrow_mut();
        let is_training = self.tape.borrow().is_of_training();
        let is_stored = match is_training {
            true => size_of::<T>() < size_of::<f32>(),
            false => self.table.len() <= MOST_STORED,
        };
        if !is_stored {
            if is_training {
                packed.by_id.remove(&id); // what an evaluation has stored
            }
            let mut lanes = self.pools.lanes.temporary(layout.lanes());
            self.pack_all::<T>(vec![(weight, layout, &mut lanes)]);
            return PackedWeight { lanes: Lanes::Temporary(lanes), layout };
        }
        let packed = packed.by_id.entry(id).or_default();
        if packed.version != store.version() {
            self.pack_all::<T>(vec![(weight, layout, sized(&mut packed.lanes, layout))]);
            packed.version = store.version();
        }
        PackedWeight { lanes: Lanes::Stored(Rc::clone(&packed.lanes)), layout }
    }

    /// Panels of `W` `[out, in]`, for the gradient of the input. All workers pack some of its rows, which are the depth.
    pub(super) fn backward_weight<T: Dtype>(&self, id: ParameterId) -> PackedWeight {
        let store = self.store.borrow();
        let weight = self.unpacked_weight(&store, id);
        let layout = self.tile.panels::<T>(weight.rows(), weight.columns());
        let mut lanes = self.pools.lanes.temporary(layout.lanes());
        let forward = self.tile.panels::<T>(weight.columns(), weight.rows());
        let packed = self.packed_weights.borrow();
        let is_current = |packed: &&StoredWeight| packed.version == store.version() && T::KIND == DtypeKind::Bf16;
        let stored = packed.by_id.get(&id).filter(is_current).map(|packed| Packed::new(&packed.lanes, forward));
        // a task begins with a panel of those, or else with a lane
        let multiple = if stored.is_some() { forward.width() } else { T::PER_LANE };
        let rows = (PIECE / weight.columns()).max(LEAST_ROWS).next_multiple_of(multiple);
        let pieces = weight.rows().div_ceil(rows);
        let mut tasks: Vec<_> = (0..pieces).map(|_| Vec::with_capacity(layout.groups())).collect();
        for mut group in lanes.chunks_exact_mut(layout.group_lanes()) {
            let (last, others) = tasks.split_last_mut().expect("a weight has a piece");
            let of_piece = rows / T::PER_LANE * layout.width();
            others.iter_mut().for_each(|task| task.extend(group.split_off_mut(..of_piece)));
            last.push(group); // with the zeros after it
        }
        self.threads.map(tasks.into_iter().enumerate().collect(), |(piece, mut groups)| {
            let first = piece * rows;
            if stored.is_some_and(|panels| pack_columns_of_panels(panels, first, layout.width(), &mut groups)) {
                return;
            }
            let part = weight.rows_from(first, rows.min(weight.rows() - first));
            pack_weight_rows::<T>(part, layout.width(), &mut groups);
        });
        PackedWeight { lanes: Lanes::Temporary(lanes), layout }
    }

    /// Packs every weight that is stored from the new values.
    pub(super) fn repack<T: Dtype>(&self) {
        let store = self.store.borrow();
        let mut packed = self.packed_weights.borrow_mut();
        let mut entries: Vec<_> = packed.by_id.iter_mut().collect();
        entries.sort_by_key(|(id, _)| id.0);
        let weights = entries.into_iter().map(|(id, packed)| {
            packed.version = store.version();
            let weight = self.unpacked_weight(&store, *id);
            let layout = self.tile.panels::<T>(weight.columns(), weight.rows());
            (weight, layout, sized(&mut packed.lanes, layout))
        });
        self.pack_all::<T>(weights.collect());
    }

    /// `[out, in]`
    fn unpacked_weight<'a>(&self, store: &'a Store, id: ParameterId) -> Matrix<'a, f32> {
        let parameter = self.table.get(id);
        let (outputs, inputs) = (parameter.shape[0], parameter.range.len() / parameter.shape[0]);
        Matrix::strided(store.value(id), outputs, inputs, inputs)
    }

    /// Packs weights for the forward product with all workers.
    fn pack_all<T: Dtype>(&self, weights: Vec<(Matrix<f32>, PackedLayout, &mut [u32])>) {
        let mut tasks = Vec::new();
        for (weight, layout, lanes) in weights {
            let groups = parts(layout.groups());
            let lanes = split_mut(lanes, &groups, layout.group_lanes());
            tasks.extend(groups.iter().zip(lanes).map(|(groups, lanes)| (weight, layout, groups.start, lanes)));
        }
        self.threads.map(tasks, |(weight, layout, first, lanes)| {
            pack_weight_by_column::<T>(weight, layout, first, lanes);
        });
    }
}

/// Lanes that are as many as the layout has.
fn sized(lanes: &mut Rc<Aligned<u32>>, layout: PackedLayout) -> &mut [u32] {
    let lanes = Rc::make_mut(lanes);
    if lanes.len() != layout.lanes() {
        *lanes = Aligned::new(layout.lanes());
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_engine::{Backend, Operations, ParameterTable, Precision, Slot};
    use simmim_kernels::dtype::Bf16;
    use simmim_kernels::pack::pack_naive;
    use simmim_kernels::product::Tile;

    fn check<T: Dtype>(precision: Precision, tile: Tile, [outputs, inputs]: [usize; 2]) {
        let mut table = ParameterTable::default();
        let weight = table.add("weight", &[outputs, inputs]);
        let cpu = Cpu::with_tile(table, precision, 2, tile);
        let values: Vec<f32> = (0..outputs * inputs).map(|i| (i % 101) as f32 / 101.0 - 0.5).collect();
        for (factor, what) in [(1.0, "first"), (2.0, "changed")] {
            let values: Vec<f32> = values.iter().map(|v| v * factor).collect();
            cpu.write_slot(Slot::Values, &values);
            let at = |row: usize, column: usize| values[row * inputs + column];
            // first for backward alone, when panels for the forward product are not stored, or are of other values
            let calls = [(false, true), (true, true), (false, true), (true, false), (true, false)];
            for (is_forward, is_training) in calls {
                cpu.start(is_training);
                // panels must not rely on what was in the memory before
                let [forward, backward] =
                    [[inputs, outputs], [outputs, inputs]].map(|[k, n]| tile.panels::<T>(k, n).lanes());
                cpu.pools.lanes.temporary(forward.max(backward)).fill(u32::MAX);
                let packed =
                    if is_forward { cpu.forward_weight::<T>(weight) } else { cpu.backward_weight::<T>(weight) };
                let mut naive = vec![0; packed.layout.lanes()];
                match is_forward {
                    true => pack_naive::<T>(inputs, packed.layout, |k, j| at(j, k), &mut naive),
                    false => pack_naive::<T>(outputs, packed.layout, at, &mut naive),
                }
                assert!(
                    packed.get() == Packed::new(&naive, packed.layout),
                    "{what} {outputs} × {inputs}, {}",
                    tile.name()
                );
            }
        }
    }

    #[test]
    fn training_in_f32_stores_no_packed_weights_and_drops_those_of_an_evaluation() {
        let mut table = ParameterTable::default();
        let weight = table.add("weight", &[3, 5]);
        for (precision, in_training) in [(Precision::F32, 0), (Precision::Bf16, 1)] {
            let cpu = Cpu::with_tile(table.clone(), precision, 1, Tile::portable());
            let pack = || match precision {
                Precision::F32 => drop(cpu.forward_weight::<f32>(weight)),
                Precision::Bf16 => drop(cpu.forward_weight::<Bf16>(weight)),
            };
            for (is_training, stored) in [(true, in_training), (false, 1), (true, in_training)] {
                cpu.start(is_training);
                pack();
                assert_eq!(cpu.packed_weights.borrow().by_id.len(), stored, "{precision:?}");
            }
            // nothing is recorded in a segment that will be recomputed, but it is training
            let x = cpu.tensor(&[1, 5], &[0.0; 5]);
            cpu.recompute(
                &x,
                Box::new(move |cpu: &Cpu, x: &crate::CpuTensor| {
                    drop(match precision {
                        Precision::F32 => cpu.forward_weight::<f32>(weight),
                        Precision::Bf16 => cpu.forward_weight::<Bf16>(weight),
                    });
                    x.clone()
                }),
            );
            assert_eq!(cpu.packed_weights.borrow().by_id.len(), in_training, "{precision:?}, recomputed");
        }
    }

    #[test]
    fn weights_are_packed_for_both_directions() {
        for tile in Tile::all_available().into_iter().chain([Tile::model_of_amx()]) {
            for size in [[200, 700], [5, 7], [96, 700], [49, 33], [3, 70_000], [70_000, 2]] {
                check::<f32>(Precision::F32, tile, size);
                check::<Bf16>(Precision::Bf16, tile, size);
            }
        }
    }
}
