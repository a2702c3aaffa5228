//! A learned table of position embeddings, which is added to the tokens of each image.

use super::add_gradient;
use crate::buffer_pool::Buffer;
use crate::tape::{Backward, Gradients, NodeId};
use crate::{Cpu, CpuTensor};
use simmim_engine::ParameterId;
use simmim_kernels::elementwise::{add_bias, add_column_sums};

struct AddPositionsBackward {
    input: NodeId,
    positions: ParameterId,
}

pub(crate) fn forward(cpu: &Cpu, x: &CpuTensor, positions: ParameterId) -> CpuTensor {
    let mut out = cpu.pools.f32.copy(&x.data);
    {
        let store = cpu.store.borrow();
        let table = store.value(positions);
        assert_eq!(table.len(), x.shape[1] * x.width(), "a position for each token");
        add_bias(&mut out, table);
    }
    cpu.output_with_parameters(vec![positions], &x.shape, out, || AddPositionsBackward { input: x.node, positions })
}

impl Backward for AddPositionsBackward {
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
