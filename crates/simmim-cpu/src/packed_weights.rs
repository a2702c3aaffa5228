//! The weights, packed as operands of products once after each change of the parameters.
//!
//! The forward product reads panels of `Wᵀ`. The product that computes the gradient of its input reads panels of `W`;
//! an evaluation never needs these, so a weight is packed for a product when that product is first run. Later it is packed
//! by the optimizer step, together with the new values (`optimizer.rs`).

use crate::Cpu;
use crate::store::Store;
use crate::threads::{parts, split_mut};
use simmim_engine::ParameterId;
use simmim_kernels::aligned::Aligned;
use simmim_kernels::dtype::Dtype;
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{Packed, PackedLayout, pack_weight_by_column, pack_weight_by_row};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A model with more parameters than this is evaluated without storing packed weights, so that a model of billions
/// needs little more memory than its parameters. Each weight is then packed again whenever it is used.
const MOST_STORED: usize = 1 << 30;

/// The product that a weight is packed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WeightUse {
    Forward,
    InputGradient,
}

/// The packed weights, by parameter and product.
#[derive(Default)]
pub(super) struct PackedWeights {
    by_use: HashMap<(ParameterId, WeightUse), StoredWeight>,
}

/// A packed weight, and the version of the parameters that it was packed from.
#[derive(Default)]
struct StoredWeight {
    version: u64,
    lanes: Rc<Aligned<u32>>,
}

/// A weight that is to be packed.
#[derive(Clone, Copy)]
struct UnpackedWeight<'a> {
    /// `[out, in]`
    values: Matrix<'a, f32>,
    layout: PackedLayout,
    weight_use: WeightUse,
}

/// A packed weight.
#[derive(Clone)]
pub(super) struct PackedWeight {
    lanes: Rc<Aligned<u32>>,
    layout: PackedLayout,
}

impl PackedWeight {
    /// The right side of the product.
    pub(super) fn get(&self) -> Packed<'_> {
        Packed::new(&self.lanes, self.layout)
    }
}

/// The lanes of a weight that the optimizer step packs. The step sets their version at its start: if a worker panics, the
/// backend is not used again.
pub(super) struct StepLanes<'a> {
    /// Panels of `Wᵀ`.
    pub(super) forward: &'a mut [u32],
    /// Panels of `W`; empty if they were never needed.
    pub(super) backward: &'a mut [u32],
}

impl PackedWeights {
    /// The lanes of all weights that are packed for the forward product. The caller must pack them from version
    /// `version` of the parameters.
    pub(super) fn step_lanes(&mut self, version: u64) -> HashMap<ParameterId, StepLanes<'_>> {
        let mut lanes: HashMap<_, StepLanes> = HashMap::new();
        let has_forward: HashSet<ParameterId> =
            self.by_use.keys().filter(|(_, weight_use)| *weight_use == WeightUse::Forward).map(|(id, _)| *id).collect();
        for ((id, weight_use), packed) in &mut self.by_use {
            if has_forward.contains(id) {
                packed.version = version;
                let of_weight = lanes.entry(*id).or_insert(StepLanes { forward: &mut [], backward: &mut [] });
                let place = match weight_use {
                    WeightUse::Forward => &mut of_weight.forward,
                    WeightUse::InputGradient => &mut of_weight.backward,
                };
                *place = &mut Rc::make_mut(&mut packed.lanes)[..];
            }
        }
        lanes
    }

    /// Whether there are packed weights, all of them from this version of the parameters.
    #[cfg(test)]
    pub(super) fn are_of(&self, version: u64) -> bool {
        !self.by_use.is_empty() && self.by_use.values().all(|packed| packed.version == version)
    }
}

impl Cpu {
    /// Panels of `Wᵀ` `[in, out]` of a weight `W` `[out, in]`, for the forward product.
    pub(super) fn forward_weight<T: Dtype>(&self, id: ParameterId) -> PackedWeight {
        self.packed_weight::<T>(id, WeightUse::Forward)
    }

    /// Panels of `W` `[out, in]`, for the gradient of the input.
    pub(super) fn backward_weight<T: Dtype>(&self, id: ParameterId) -> PackedWeight {
        self.packed_weight::<T>(id, WeightUse::InputGradient)
    }

    fn packed_weight<T: Dtype>(&self, id: ParameterId, weight_use: WeightUse) -> PackedWeight {
        let store = self.store.borrow();
        let weight = self.unpacked_weight::<T>(&store, id, weight_use);
        let layout = weight.layout;
        let mut packed = self.packed_weights.borrow_mut();
        if self.table.len() > MOST_STORED && !self.is_recording() {
            let mut lanes = Aligned::default();
            self.pack_all::<T>(vec![(weight, &mut lanes)]);
            return PackedWeight { lanes: Rc::new(lanes), layout };
        }
        let packed = packed.by_use.entry((id, weight_use)).or_default();
        if packed.version != store.version() {
            self.pack_all::<T>(vec![(weight, Rc::make_mut(&mut packed.lanes))]);
            packed.version = store.version();
        }
        PackedWeight { lanes: Rc::clone(&packed.lanes), layout }
    }

    /// Packs every weight that was packed before from the new values, except where the optimizer step has done so.
    pub(super) fn repack<T: Dtype>(&self) {
        let store = self.store.borrow();
        let mut packed = self.packed_weights.borrow_mut();
        let mut entries: Vec<_> = packed.by_use.iter_mut().filter(|(_, p)| p.version != store.version()).collect();
        entries.sort_by_key(|((id, _), _)| id.0);
        let weights = entries.into_iter().map(|((id, weight_use), packed)| {
            packed.version = store.version();
            (self.unpacked_weight::<T>(&store, *id, *weight_use), Rc::make_mut(&mut packed.lanes))
        });
        self.pack_all::<T>(weights.collect());
    }

    fn unpacked_weight<'a, T: Dtype>(
        &self,
        store: &'a Store,
        id: ParameterId,
        weight_use: WeightUse,
    ) -> UnpackedWeight<'a> {
        let parameter = self.table.get(id);
        let (outputs, inputs) = (parameter.shape[0], parameter.range.len() / parameter.shape[0]);
        let layout = match weight_use {
            WeightUse::Forward => self.tile.panels::<T>(inputs, outputs),
            WeightUse::InputGradient => self.tile.panels::<T>(outputs, inputs),
        };
        UnpackedWeight { values: Matrix::strided(store.value(id), outputs, inputs, inputs), layout, weight_use }
    }

    /// Packs weights with all workers.
    fn pack_all<T: Dtype>(&self, weights: Vec<(UnpackedWeight, &mut Aligned<u32>)>) {
        let mut tasks = Vec::new();
        for (weight, lanes) in weights {
            let layout = weight.layout;
            if lanes.len() != layout.lanes() {
                *lanes = Aligned::new(layout.lanes());
            }
            let groups = parts(layout.groups());
            let lanes = split_mut(lanes, &groups, layout.group_lanes());
            tasks.extend(groups.iter().zip(lanes).map(|(groups, lanes)| (weight, groups.start, lanes)));
        }
        self.threads.map(tasks, |(weight, first, lanes)| match weight.weight_use {
            WeightUse::Forward => pack_weight_by_column::<T>(weight.values, weight.layout, first, lanes),
            WeightUse::InputGradient => pack_weight_by_row::<T>(weight.values, weight.layout, first, lanes),
        });
    }
}
