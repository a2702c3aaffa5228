//! The flat buffers of all parameters, on the device: values, moments and the average. A parameter is a view into the values,
//! and a leaf of autograd's graph.
//!
//! Gradients are not flat: autograd gives each leaf the tensor that the last product wrote, which nothing copies, and the
//! optimizer takes lists. Gradients, moments and the average are allocated when they are first needed, so a model that only
//! predicts has none.

use crate::shim;
use simmim_engine::{ParameterId, ParameterTable, Slot};
use std::ops::Range;
use tch::{Device, Kind, Tensor, no_grad};

/// Each parameter starts at a multiple of so many values, 256 bytes, as memory that libtorch allocates for a tensor does on
/// GPUs: kernels read aligned rows in longer words.
const ALIGNMENT: usize = 64;

/// The flat buffers.
pub(crate) struct Store {
    /// Where each parameter lies in the buffers.
    ranges: Vec<Range<usize>>,
    shapes: Vec<Vec<i64>>,
    values: Tensor,
    first: Option<Tensor>,
    second: Option<Tensor>,
    /// The moving average of the values; absent as long as it equals them.
    average: Option<Tensor>,
    leaves: Vec<Tensor>,
}

impl Store {
    /// Parameters that are all zero.
    pub(crate) fn new(table: &ParameterTable, device: Device) -> Self {
        let (mut ranges, mut len) = (Vec::new(), 0);
        for parameter in table.iter() {
            ranges.push(len..len + parameter.range.len());
            len = (len + parameter.range.len()).next_multiple_of(ALIGNMENT);
        }
        let shapes: Vec<Vec<i64>> =
            table.iter().map(|parameter| parameter.shape.iter().map(|n| *n as i64).collect()).collect();
        let values = Tensor::zeros([len as i64], (Kind::Float, device));
        let leaf =
            |(range, shape): (&Range<usize>, &Vec<i64>)| view(&values, range, shape).detach().set_requires_grad(true);
        let leaves = no_grad(|| ranges.iter().zip(&shapes).map(leaf).collect());
        Self { ranges, shapes, values, first: None, second: None, average: None, leaves }
    }

    /// A parameter, as a leaf of the graph.
    pub(crate) fn leaf(&self, id: ParameterId) -> &Tensor {
        &self.leaves[id.0]
    }

    /// All parameters.
    pub(crate) fn leaves(&self) -> &[Tensor] {
        &self.leaves
    }

    /// Number of values of each parameter.
    pub(crate) fn lens(&self) -> impl Iterator<Item = usize> + '_ {
        self.ranges.iter().map(ExactSizeIterator::len)
    }

    /// The gradient of a parameter, which is zero where no pass reached it. Allocates it.
    pub(crate) fn gradient(&self, id: usize) -> Tensor {
        let gradient = self.leaves[id].grad();
        if gradient.defined() {
            return gradient;
        }
        let zeros = no_grad(|| self.leaves[id].zeros_like());
        shim::set_gradient(&self.leaves[id], Some(&zeros));
        zeros
    }

    /// Forgets all gradients.
    pub(crate) fn clear_gradients(&self) {
        self.leaves.iter().for_each(|leaf| shim::set_gradient(leaf, None));
    }

    /// A parameter's part of a buffer; nothing for zeros that nobody wrote yet.
    pub(crate) fn part(&self, slot: Slot, id: ParameterId) -> Option<Tensor> {
        let part = |buffer: &Tensor| view(buffer, &self.ranges[id.0], &self.shapes[id.0]);
        match slot {
            Slot::Values => Some(part(&self.values)),
            Slot::Gradients => Some(self.leaves[id.0].grad()).filter(Tensor::defined),
            Slot::FirstMoment => self.first.as_ref().map(part),
            Slot::SecondMoment => self.second.as_ref().map(part),
            Slot::Average => Some(part(self.average.as_ref().unwrap_or(&self.values))),
        }
    }

    /// A parameter's part of a buffer, to be written.
    pub(crate) fn part_mut(&mut self, slot: Slot, id: ParameterId) -> Tensor {
        match slot {
            Slot::Values => (),
            Slot::Gradients => return self.gradient(id.0),
            Slot::FirstMoment | Slot::SecondMoment => self.allocate_moments(),
            Slot::Average => self.allocate_average(),
        }
        self.part(slot, id).expect("it is allocated")
    }

    /// Both moments of every parameter.
    pub(crate) fn moments(&mut self) -> [Vec<Tensor>; 2] {
        self.allocate_moments();
        let parts = |buffer: &Option<Tensor>| -> Vec<Tensor> {
            let buffer = buffer.as_ref().expect("it is allocated");
            self.ranges.iter().zip(&self.shapes).map(|(range, shape)| view(buffer, range, shape)).collect()
        };
        [parts(&self.first), parts(&self.second)]
    }

    /// Moves the average toward the values by a share of the distance.
    pub(crate) fn update_average(&mut self, share: f64) {
        self.allocate_average();
        let average = self.average.as_mut().expect("it is allocated");
        let _ = no_grad(|| average.lerp_(&self.values, share));
    }

    /// Exchanges the values and the average.
    pub(crate) fn swap_average(&mut self) {
        self.allocate_average();
        let average = self.average.as_mut().expect("it is allocated");
        // the values stay where they are, since leaves are views of them
        no_grad(|| {
            let values = self.values.copy();
            self.values.copy_(average);
            average.copy_(&values);
        });
    }

    fn allocate_moments(&mut self) {
        for buffer in [&mut self.first, &mut self.second] {
            buffer.get_or_insert_with(|| self.values.zeros_like());
        }
    }

    fn allocate_average(&mut self) {
        self.average.get_or_insert_with(|| self.values.copy());
    }
}

fn view(buffer: &Tensor, range: &Range<usize>, shape: &[i64]) -> Tensor {
    buffer.narrow(0, range.start as i64, range.len() as i64).view(shape)
}
