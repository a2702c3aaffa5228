//! A learnt table of positions added to each image's tokens.

use super::add_gradient;
use crate::cpu::buffers::Buffer;
use crate::cpu::tape::{Backward, Gradients, NodeId};
use crate::cpu::{Cpu, CpuTensor};
use crate::parameters::ParameterId;
use simmim_kernels::elementwise::{add_bias, add_column_sums};

struct AddPositions {
    input: NodeId,
    positions: ParameterId,
}

pub(in crate::cpu) fn forward(cpu: &Cpu, x: &CpuTensor, positions: ParameterId) -> CpuTensor {
    let mut out = cpu.shelves.f32.copy(&x.data);
    {
        let store = cpu.store.borrow();
        let table = store.value(positions);
        assert_eq!(table.len(), x.shape[1] * x.width(), "a position for each token");
        add_bias(&mut out, table);
    }
    cpu.output(&x.shape, out, || AddPositions { input: x.node, positions })
}

impl Backward for AddPositions {
    fn name(&self) -> &'static str {
        "add positions"
    }

    fn backward(self: Box<Self>, cpu: &Cpu, d_output: Buffer<f32>, gradients: &mut Gradients) {
        let mut d_table = vec![0.0; cpu.table.get(self.positions).range.len()];
        add_column_sums(&d_output, &mut d_table);
        add_gradient(cpu, self.positions, &d_table);
        gradients.add(self.input, d_output);
    }
}
