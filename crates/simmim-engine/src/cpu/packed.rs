//! Weights packed for products: once per direction after each change of the parameters.
//!
//! The forward product reads panels of `Wᵀ`, the input gradient panels of `W`; an evaluation never
//! packs the second. An update writes the first together with the values (`optimizer.rs`).

use super::Cpu;
use super::store::Store;
use super::threads::{parts, split_mut};
use crate::parameters::ParameterId;
use simmim_kernels::aligned::Aligned;
use simmim_kernels::element::Element;
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{Layout, Packed, pack_weight_by_column, pack_weight_by_row};
use std::collections::HashMap;
use std::rc::Rc;

/// Parameters of a model whose packed weights are kept between the passes of an evaluation; beyond, each
/// is packed again when its turn comes, so that a model of billions fits beside its own parameters.
const KEPT_PARAMETERS: usize = 1 << 30;

/// Which product a packed weight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Direction {
    Forward,
    Backward,
}

/// Packed weights by parameter and direction.
#[derive(Default)]
pub(super) struct PackedWeights {
    by_use: HashMap<(ParameterId, Direction), Versioned>,
}

#[derive(Default)]
struct Versioned {
    version: u64,
    lanes: Rc<Aligned<u32>>,
}

/// One weight, to be packed.
#[derive(Clone, Copy)]
struct Weight<'a> {
    /// `[out, in]`
    values: Matrix<'a, f32>,
    layout: Layout,
    direction: Direction,
}

/// One weight, packed.
#[derive(Clone)]
pub(super) struct PackedWeight {
    lanes: Rc<Aligned<u32>>,
    layout: Layout,
}

impl PackedWeight {
    /// The right side of a product.
    pub(super) fn get(&self) -> Packed<'_> {
        Packed::new(&self.lanes, self.layout)
    }
}

impl PackedWeights {
    /// The lanes of every weight that was packed for the forward product, which the caller packs again for
    /// `version`.
    pub(super) fn forward_lanes(&mut self, version: u64) -> HashMap<ParameterId, &mut [u32]> {
        let forward = self.by_use.iter_mut().filter(|((_, direction), _)| *direction == Direction::Forward);
        forward
            .map(|((id, _), packed)| {
                packed.version = version;
                (*id, &mut Rc::make_mut(&mut packed.lanes)[..])
            })
            .collect()
    }
}

impl Cpu {
    /// Panels of `Wᵀ` `[in, out]` of a weight `[out, in]`.
    pub(super) fn forward_weight<E: Element>(&self, id: ParameterId) -> PackedWeight {
        self.packed_weight::<E>(id, Direction::Forward)
    }

    /// Panels of `W` `[out, in]`.
    pub(super) fn backward_weight<E: Element>(&self, id: ParameterId) -> PackedWeight {
        self.packed_weight::<E>(id, Direction::Backward)
    }

    fn packed_weight<E: Element>(&self, id: ParameterId, direction: Direction) -> PackedWeight {
        let store = self.store.borrow();
        let weight = self.weight::<E>(&store, id, direction);
        let layout = weight.layout;
        let mut packed = self.packed.borrow_mut();
        if self.table.len() > KEPT_PARAMETERS && !self.is_recording() {
            let mut lanes = Aligned::default();
            self.pack_all::<E>(vec![(weight, &mut lanes)]);
            return PackedWeight { lanes: Rc::new(lanes), layout };
        }
        let packed = packed.by_use.entry((id, direction)).or_default();
        if packed.version != store.version() {
            self.pack_all::<E>(vec![(weight, Rc::make_mut(&mut packed.lanes))]);
            packed.version = store.version();
        }
        PackedWeight { lanes: Rc::clone(&packed.lanes), layout }
    }

    /// Packs every weight again that was packed before, except where that was done with the update.
    pub(super) fn repack<E: Element>(&self) {
        let store = self.store.borrow();
        let mut packed = self.packed.borrow_mut();
        let mut entries: Vec<_> = packed.by_use.iter_mut().filter(|(_, p)| p.version != store.version()).collect();
        entries.sort_by_key(|((id, _), _)| id.0);
        let weights = entries.into_iter().map(|((id, direction), packed)| {
            packed.version = store.version();
            (self.weight::<E>(&store, *id, *direction), Rc::make_mut(&mut packed.lanes))
        });
        self.pack_all::<E>(weights.collect());
    }

    fn weight<'a, E: Element>(&self, store: &'a Store, id: ParameterId, direction: Direction) -> Weight<'a> {
        let parameter = self.table.get(id);
        let (outputs, inputs) = (parameter.shape[0], parameter.range.len() / parameter.shape[0]);
        let layout = match direction {
            Direction::Forward => Layout::new::<E>(inputs, outputs, self.tile.width()),
            Direction::Backward => Layout::new::<E>(outputs, inputs, self.tile.width()),
        };
        Weight { values: Matrix::strided(store.value(id), outputs, inputs, inputs), layout, direction }
    }

    /// Packs weights, all workers at once.
    fn pack_all<E: Element>(&self, weights: Vec<(Weight, &mut Aligned<u32>)>) {
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
        self.threads.map(tasks, |(weight, first, lanes)| match weight.direction {
            Direction::Forward => pack_weight_by_column::<E>(weight.values, weight.layout, first, lanes),
            Direction::Backward => pack_weight_by_row::<E>(weight.values, weight.layout, first, lanes),
        });
    }
}
