//! What every backend must do: one table of cases for all operations, and the rules of training around them.
//!
//! A backend calls these functions from its tests. Outputs must equal those of [`Reference`], gradients the finite
//! differences of it, and devices that differ only in their number of threads must agree to the bit. To add an operation,
//! add a case.
//!
//! Every case runs in three shapes: a small one, all of whose derivatives are checked; many images of few tokens; and few
//! images of many tokens. The larger two have more than 300 rows, so that a backend which divides rows into chunks has
//! several, whose boundaries lie between images in one shape and within them in the other. Of those a sample of
//! derivatives is checked.

mod cases;
mod optimizer;

pub use optimizer::{divided_state, steps};

use crate::backend::{Backend, Slot};
use crate::collective::InProcess;
use crate::device::Device;
use crate::operations::{Distance, Linear, Operations, Precision, Regression};
use crate::parameters::ParameterTable;
use crate::reference::Reference;
use cases::{Case, SHAPES, cases};

/// Derivatives that are checked of each tensor of a large case.
const SAMPLES: usize = 5;

/// Half the distance of a finite difference.
const STEP: f64 = 1e-5;

/// Numbers in `[-1, 1)` that look random and are the same in every run.
pub fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// What one backend makes of a case.
#[derive(PartialEq)]
struct Found {
    output: Vec<f32>,
    d_input: Vec<f32>,
    d_values: Vec<f32>,
}

/// What the reference makes of it: the output, and some derivatives with their indices.
struct Expected {
    output: Vec<f64>,
    d_input: Vec<(usize, f64)>,
    d_values: Vec<(usize, f64)>,
}

impl Case {
    fn input(&self) -> Vec<f32> {
        numbers(self.shape.len(), 2)
    }

    fn open<D: Device>(&self, device: &D, precision: Precision) -> D::Backend {
        let b = device.open(self.table.clone(), precision);
        b.write_slot(Slot::Values, &numbers(self.table.len(), 1));
        b
    }

    /// Output, and gradients of the input and of the parameters.
    fn run<B: Backend>(&self, b: &B) -> Found {
        b.clear_gradients();
        b.start(true);
        let x = b.tensor(&self.shape.as_tokens(), &self.input());
        let (output, scalar) = self.operation.objective(b, &x, self.shape);
        let output = b.read(&output);
        let d_input = b.backward_to(&scalar, &x);
        Found { output, d_input, d_values: b.read_slot(Slot::Gradients) }
    }

    /// The objective, recorded.
    fn scalar<B: Backend>(&self, b: &B) -> B::Tensor {
        b.start(true);
        let x = b.tensor(&self.shape.as_tokens(), &self.input());
        self.operation.objective(b, &x, self.shape).1
    }

    fn expected(&self) -> Expected {
        let mut reference =
            Reference::new(self.table.clone(), numbers(self.table.len(), 1).iter().map(|v| *v as f64).collect());
        let mut input: Vec<f64> = self.input().iter().map(|v| *v as f64).collect();
        let at = |reference: &Reference, input: &[f64]| {
            let x = reference.tensor_f64(&self.shape.as_tokens(), input.to_vec());
            self.operation.objective(reference, &x, self.shape)
        };
        let output = at(&reference, &input).0.data().to_vec();
        let slope = |up: f64, down: f64| (up - down) / (2.0 * STEP);
        let mut d_input = Vec::new();
        for i in self.samples(0..input.len()) {
            let mut moved = |by: f64| {
                let before = input[i];
                input[i] += by;
                let scalar = at(&reference, &input).1.data()[0];
                input[i] = before;
                scalar
            };
            d_input.push((i, slope(moved(STEP), moved(-STEP))));
        }
        let mut d_values = Vec::new();
        for parameter in self.table.iter() {
            for i in self.samples(parameter.range.clone()) {
                let mut moved = |by: f64| {
                    let before = reference.values_mut()[i];
                    reference.values_mut()[i] = before + by;
                    let scalar = at(&reference, &input).1.data()[0];
                    reference.values_mut()[i] = before;
                    scalar
                };
                d_values.push((i, slope(moved(STEP), moved(-STEP))));
            }
        }
        Expected { output, d_input, d_values }
    }

    /// All indices of a tensor, or some of a large case's, the first and the last among them.
    fn samples(&self, range: std::ops::Range<usize>) -> Vec<usize> {
        let len = range.len();
        if self.shape.is_small() || len <= SAMPLES {
            return range.collect();
        }
        (0..SAMPLES).map(|i| range.start + i * (len - 1) / (SAMPLES - 1)).collect()
    }
}

/// Asserts that every expected number is found, to `tolerance` of the largest of all that were found.
#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: impl IntoIterator<Item = (usize, f64)>, tolerance: f64) {
    let scale = found.iter().fold(1e-3f64, |m, v| m.max(v.abs() as f64));
    for (i, e) in expected {
        let g = found[i] as f64;
        assert!((g - e).abs() <= tolerance * scale, "{what} at {i}: got {g}, expected {e}, scale {scale}");
    }
}

/// Every operation equals the reference to `tolerance`, forward and backward, and all of `devices`, which differ only in
/// their number of threads, give the same bits. Segments that are recomputed give the bits of those that are not, and of
/// those that are frozen nothing gets a gradient.
///
/// # Panics
/// If something differs; the message names the case.
pub fn operations<D: Device>(devices: &[D], precision: Precision, tolerance: f64) {
    for case in SHAPES.into_iter().flat_map(cases) {
        let name = format!("{}, {:?}, {precision:?}", case.name, case.shape);
        let backends: Vec<D::Backend> = devices.iter().map(|device| case.open(device, precision)).collect();
        let found = case.run(&backends[0]);
        let expected = case.expected();
        assert_eq!(found.output.len(), expected.output.len(), "{name}: lengths of the output differ");
        let output = expected.output.into_iter().enumerate();
        assert_close(&format!("{name}: output"), &found.output, output, tolerance);
        assert_close(&format!("{name}: gradient of the input"), &found.d_input, expected.d_input, tolerance);
        for parameter in case.table.iter() {
            let range = parameter.range.clone();
            let of_parameter = expected.d_values.iter().filter(|(i, _)| range.contains(i));
            let shifted = of_parameter.map(|(i, d)| (i - range.start, *d));
            let what = format!("{name}: gradient of {}", parameter.name);
            assert_close(&what, &found.d_values[range.clone()], shifted, tolerance);
        }
        for (b, device) in backends.iter().zip(devices).skip(1) {
            assert!(case.run(b) == found, "{name}: {} threads give other bits", device.threads());
        }

        let (b, operation, shape) = (&backends[0], case.operation.clone(), case.shape);
        b.clear_gradients();
        b.start(true);
        let x = b.tensor(&shape.as_tokens(), &case.input());
        let scalar = b.recompute(&x, Box::new(move |b, x| operation.objective(b, x, shape).1));
        let d_input = b.backward_to(&scalar, &x);
        let same = d_input == found.d_input && b.read_slot(Slot::Gradients) == found.d_values;
        assert!(same, "{name}: recomputed gradients have other bits");

        let operation = case.operation.clone();
        b.clear_gradients();
        b.start(true);
        let x = b.tensor(&shape.as_tokens(), &case.input());
        let output = b.frozen(&x, Box::new(move |b, x| operation.objective(b, x, shape).0));
        assert!(b.read(&output) == found.output, "{name}: frozen, the output has other bits");
        let operation = case.operation.clone();
        let scalar = b.frozen(&x, Box::new(move |b, x| operation.objective(b, x, shape).1));
        let d_input = b.backward_to(&scalar, &x);
        let has_none = d_input.iter().chain(&b.read_slot(Slot::Gradients)).all(|d| *d == 0.0);
        assert!(has_none, "{name}: a gradient reaches what is frozen");
    }
}

/// Gradients add up over backward passes, over ranks, and over both.
///
/// # Panics
/// If they do not; the message names the case.
pub fn gradients_add_up<D: Device + Sync>(device: &D) {
    for shape in SHAPES {
        for (index, case) in cases(shape).into_iter().enumerate() {
            let name = format!("{}, {shape:?}", case.name);
            let b = case.open(device, Precision::F32);
            let once = case.run(&b).d_values;
            let times = |factor: f64| once.iter().map(move |v| factor * *v as f64).enumerate();
            b.backward(&case.scalar(&b));
            assert_close(&name, &b.read_slot(Slot::Gradients), times(2.0), 1e-5);

            // each rank one pass of its own, then one that is reduced
            let of_rank = |mut rank: InProcess| {
                let case = cases(shape).swap_remove(index); // a case cannot be sent: windows are shared within a thread
                let b = case.open(device, Precision::F32);
                b.backward(&case.scalar(&b));
                b.backward_and_reduce(&case.scalar(&b), &mut rank).expect("no rank leaves");
                b.read_slot(Slot::Gradients)
            };
            let of_ranks: Vec<Vec<f32>> = std::thread::scope(|scope| {
                let running: Vec<_> =
                    InProcess::ranks(2).into_iter().map(|rank| scope.spawn(|| of_rank(rank))).collect();
                running.into_iter().map(|rank| rank.join().expect("no rank panics")).collect()
            });
            assert!(of_ranks[0] == of_ranks[1], "{name}: ranks differ");
            assert_close(&format!("{name}, two ranks"), &of_ranks[0], times(4.0), 1e-5);
        }
    }
}

/// Ranks sum up the gradients of all parameters, and a parameter that a pass does not use has a gradient of zero after
/// gradients were cleared: what an earlier pass left in memory does not come back. The first parameter is so large that a
/// backend may begin to sum before the backward pass is over.
///
/// # Panics
/// If a gradient is not the sum, or comes back.
pub fn every_gradient_is_summed<D: Device + Sync>(device: &D) {
    const WIDTH: usize = 2100;
    let of_rank = |mut rank: InProcess| {
        let mut table = ParameterTable::default();
        let mut linear = |name, rows| Linear { weight: table.add(name, &[rows, WIDTH]), bias: None };
        let [first, unused, last] = [linear("first", WIDTH), linear("unused", 3), linear("last", 3)];
        let len = table.len();
        let [of_unused, of_last] = [&unused, &last].map(|layer| table.get(layer.weight).range.clone());
        let b = device.open(table, Precision::F32);
        b.write_slot(Slot::Values, &numbers(len, 1));
        let loss = |second: &Linear| {
            b.start(true);
            let y = b.linear(&b.linear(&b.tensor(&[2, WIDTH], &numbers(2 * WIDTH, 2)), &first), second);
            let loss = Regression { distance: Distance::L2, target: &[0.0; 6], weight: &[1.0; 2], channels: 3 };
            b.regression(&y, &loss)
        };
        b.backward(&loss(&unused));
        assert!(b.read_slot(Slot::Gradients)[of_unused.clone()].iter().any(|d| *d != 0.0), "no gradient is left");
        b.clear_gradients();
        b.backward(&loss(&last));
        let alone = b.read_slot(Slot::Gradients);
        assert!(alone[of_last].iter().all(|d| *d != 0.0), "a gradient is missing");
        b.clear_gradients();
        b.backward_and_reduce(&loss(&last), &mut rank).expect("no rank leaves");
        let summed = b.read_slot(Slot::Gradients);
        assert!(summed[of_unused].iter().all(|d| *d == 0.0), "a gradient came back");
        let sums = alone.iter().zip(&summed).all(|(alone, summed)| 2.0 * alone == *summed);
        assert!(sums, "a gradient is not the sum of those of both ranks");
    };
    std::thread::scope(|scope| {
        for rank in InProcess::ranks(2) {
            scope.spawn(|| of_rank(rank));
        }
    });
}
