//! Weights packed for products: once per direction after each change of the parameters.
//!
//! The forward product reads panels of `Wᵀ`, the input gradient panels of `W`; an evaluation never
//! packs the second.

use super::Cpu;
use super::threads::split_mut;
use crate::backend::Precision;
use crate::parameters::ParameterId;
use simmim_kernels::bf16::Operands;
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::{pack, packed_len};
use std::collections::HashMap;
use std::rc::Rc;

/// Which product a packed weight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Direction {
    Forward,
    Backward,
}

/// Packed weights by parameter and direction.
#[derive(Default)]
pub(super) struct PackedWeights {
    by_use: HashMap<(ParameterId, Direction), Packed>,
}

/// Panels, and the version of the parameters they are of.
#[derive(Default)]
struct Packed {
    version: u64,
    panels: Rc<Vec<f32>>,
}

impl Cpu {
    /// Panels of `Wᵀ` `[in, out]` of a weight `[out, in]`, as operands.
    pub(super) fn forward_weight(&self, id: ParameterId) -> Rc<Vec<f32>> {
        self.packed_weight(id, Direction::Forward)
    }

    /// Panels of `W` `[out, in]`, as operands.
    pub(super) fn backward_weight(&self, id: ParameterId) -> Rc<Vec<f32>> {
        self.packed_weight(id, Direction::Backward)
    }

    fn packed_weight(&self, id: ParameterId, direction: Direction) -> Rc<Vec<f32>> {
        let store = self.store.borrow();
        let mut packed = self.packed.borrow_mut();
        let packed = packed.by_use.entry((id, direction)).or_default();
        if packed.version != store.version() {
            let parameter = self.table.get(id);
            let (outputs, inputs) = (parameter.shape[0], parameter.range.len() / parameter.shape[0]);
            let weight = Matrix::new(store.value(id), outputs, inputs);
            let matrix = match direction {
                Direction::Forward => weight.transposed(),
                Direction::Backward => weight,
            };
            self.pack_weight(matrix, Rc::make_mut(&mut packed.panels));
            packed.version = store.version();
        }
        Rc::clone(&packed.panels)
    }

    fn pack_weight(&self, matrix: Matrix, panels: &mut Vec<f32>) {
        let width = self.tile.width();
        panels.resize(packed_len(matrix.rows(), matrix.columns(), width), 0.0);
        let groups = self.threads.groups(matrix.columns().div_ceil(width));
        let tasks = groups.iter().zip(split_mut(panels, &groups, matrix.rows() * width)).collect();
        let operands = match self.precision {
            Precision::F32 => Operands::F32,
            Precision::Bf16 => Operands::Bf16,
        };
        self.threads.map(tasks, |(group, panels)| pack(matrix, width, group.start, operands, panels));
    }
}
