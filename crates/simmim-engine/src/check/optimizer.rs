//! The rules of an optimizer step: scale, clipping, AdamW, and the average.

use super::{assert_close, numbers};
use crate::backend::{Backend, OptimizerStep, Sharding, Slot, StepSize};
use crate::collective::{Collective, InProcess};
use crate::device::Device;
use crate::operations::{Distance, Linear, Operations, Precision, Regression};
use crate::parameters::{ParameterId, ParameterTable};

/// A step scales, clips and updates as AdamW does, leaves everything alone when the norm is not finite, and the next
/// forward pass sees the new values. The average follows, and is exchanged with the values and back.
///
/// # Panics
/// If something differs.
pub fn steps<D: Device>(device: &D, precision: Precision) {
    // a weight of many values, whose number of outputs is no multiple of any tile
    let (outputs, inputs, rows) = (1003, 200, 5);
    let mut table = ParameterTable::default();
    let linear = Linear { weight: table.add("weight", &[outputs, inputs]), bias: Some(table.add("bias", &[outputs])) };
    let forward = |b: &D::Backend, records: bool| {
        b.start(records);
        let x = b.tensor(&[rows, inputs], &numbers(rows * inputs, 2));
        let y = b.linear(&x, &linear);
        let (target, weight) = (vec![0.0; rows * outputs], vec![1.0; rows * outputs]);
        let loss = Regression { distance: Distance::L2, target: &target, weight: &weight, channels: 1 };
        let loss = b.regression(&y, &loss);
        (b.read(&y), loss)
    };
    let open = |values: &[f32]| {
        let b = device.open(table.clone(), precision);
        b.write_slot(Slot::Values, values);
        b
    };
    let first = numbers(table.len(), 1);
    let b = open(&first);
    let step_sizes = [StepSize { lr: 0.1, weight_decay: 0.1 }, StepSize { lr: 0.02, weight_decay: 0.0 }];
    let step = |number| OptimizerStep {
        number,
        betas: (0.9, 0.99),
        eps: 1e-8,
        gradient_scale: 0.25,
        clip_norm: Some(3.0),
        step_sizes: &step_sizes,
    };
    let mut values: Vec<f64> = first.iter().map(|v| *v as f64).collect();
    let (mut m, mut v) = (vec![0.0; values.len()], vec![0.0; values.len()]);
    for number in 1..=3 {
        b.clear_gradients();
        let (before, loss) = forward(&b, true);
        b.backward(&loss);
        let gradients: Vec<f64> = b.read_slot(Slot::Gradients).iter().map(|g| 0.25 * *g as f64).collect();
        let norm = gradients.iter().map(|g| g * g).sum::<f64>().sqrt();
        let found = b.read(&b.step(&step(number)))[0] as f64;
        assert!((found - norm).abs() < 1e-5 * norm && norm > 3.0, "norm {found}, expected {norm}");
        let clip = 3.0 / (norm + 1e-6);
        for (parameter, size) in table.iter().zip(&step_sizes) {
            for i in parameter.range.clone() {
                let g = clip * gradients[i];
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.99 * v[i] + 0.01 * g * g;
                let (m_hat, v_hat) =
                    (m[i] / (1.0 - 0.9f64.powi(number as i32)), v[i] / (1.0 - 0.99f64.powi(number as i32)));
                values[i] -= size.lr as f64 * size.weight_decay as f64 * values[i];
                values[i] -= size.lr as f64 * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
        let stepped = b.read_slot(Slot::Values);
        assert_close("values after a step", &stepped, values.iter().copied().enumerate(), 1e-5);
        let after = forward(&b, false).0;
        assert!(after != before && after == forward(&open(&stepped), false).0, "{precision:?}: stale weights");
    }

    let kept = [Slot::Values, Slot::FirstMoment, Slot::SecondMoment].map(|slot| b.read_slot(slot));
    assert_close("first moment", &kept[1], m.iter().copied().enumerate(), 1e-5);
    assert_close("second moment", &kept[2], v.iter().copied().enumerate(), 1e-5);
    let mut broken = b.read_parameter(Slot::Gradients, linear.weight);
    broken[7] = f32::NAN;
    b.write_parameter(Slot::Gradients, linear.weight, &broken);
    assert!(!b.read(&b.step(&step(4)))[0].is_finite(), "a gradient that is not a number shows in the norm");
    let now = [Slot::Values, Slot::FirstMoment, Slot::SecondMoment].map(|slot| b.read_slot(slot));
    assert!(now == kept, "a step without a finite norm changes nothing");

    let half: Vec<f32> = kept[0].iter().map(|v| 0.5 * v).collect();
    b.write_slot(Slot::Average, &half);
    b.update_average(0.75);
    let expected = kept[0].iter().map(|v| 0.625 * *v as f64).enumerate();
    let average = b.read_slot(Slot::Average);
    assert_close("average", &average, expected, 1e-6);
    b.swap_average();
    assert!(b.read_slot(Slot::Values) == average && b.read_slot(Slot::Average) == kept[0]);
    assert!(forward(&b, false).0 == forward(&open(&average), false).0, "{precision:?}: stale weights after a swap");
    b.swap_average();
    assert!(b.read_slot(Slot::Values) == kept[0] && b.read_slot(Slot::Average) == average);
}

/// What a rank has after some steps.
#[derive(PartialEq)]
struct Trained {
    /// Parameters, moments and the average, gathered from all ranks.
    slots: Vec<Vec<f32>>,
    norms: Vec<f32>,
    gradients: Vec<f32>,
    kept_bytes: Vec<usize>,
}

/// Where the training state is divided over ranks, parameters, moments, average and norms have the bits that they have where
/// it is not, and each rank keeps only its part: of moments and average, and if they are divided, of gradients.
///
/// # Panics
/// If something differs.
pub fn divided_state<D: Device + Sync>(device: &D, precision: Precision) {
    // more than a segment of gradients, and parameters that no unit divides evenly
    let sizes = [[1003, 1100], [3, 1003], [257, 3]];
    let of_rank = |mut rank: InProcess, sharding: Sharding| {
        let mut table = ParameterTable::default();
        let mut layer = |name: &str, [outputs, inputs]: [usize; 2]| Linear {
            weight: table.add(&format!("{name}.weight"), &[outputs, inputs]),
            bias: Some(table.add(&format!("{name}.bias"), &[outputs])),
        };
        let layers = [layer("0", sizes[0]), layer("1", sizes[1]), layer("2", sizes[2])];
        let len = table.len();
        let ids: Vec<ParameterId> = (0..table.iter().len()).map(ParameterId).collect();
        let b = device.open(table, precision);
        b.shard(sharding, rank.rank(), rank.world());
        b.write_slot(Slot::Values, &numbers(len, 1));
        b.write_slot(Slot::Average, &numbers(len, 3));
        let loss = |seed: u64| {
            b.start(true);
            let x = b.tensor(&[2, 1100], &numbers(2 * 1100, seed));
            let y = layers.iter().fold(x, |x, layer| b.linear(&x, layer));
            let loss = Regression { distance: Distance::L2, target: &[0.0; 514], weight: &[1.0; 2], channels: 257 };
            b.regression(&y, &loss)
        };
        let sizes: Vec<StepSize> =
            (0..6).map(|i| StepSize { lr: 0.01 * i as f32, weight_decay: 0.1 * (i % 2) as f32 }).collect();
        let mut norms = Vec::new();
        for number in 1..=3 {
            b.clear_gradients();
            let seed = 10 * number + rank.rank() as u64;
            b.backward(&loss(seed));
            b.backward_and_reduce(&loss(100 + seed), &mut rank).expect("nobody leaves");
            let step = OptimizerStep {
                number,
                betas: (0.9, 0.99),
                eps: 1e-8,
                gradient_scale: 0.25,
                clip_norm: Some(3.0),
                step_sizes: &sizes,
            };
            norms.push(b.read(&b.step_on_ranks(&step, &mut rank).expect("nobody leaves"))[0]);
            b.update_average(0.75);
        }
        let mut gather = |slot: Slot| -> Vec<f32> {
            ids.iter().flat_map(|id| b.gather_parameter(slot, *id, &mut rank).expect("nobody leaves")).collect()
        };
        let slots = [Slot::Values, Slot::FirstMoment, Slot::SecondMoment, Slot::Average].map(&mut gather).to_vec();
        let gradients = gather(Slot::Gradients);
        let kept = [Slot::FirstMoment, Slot::SecondMoment, Slot::Average, Slot::Gradients];
        let kept_bytes = kept.map(|slot| b.kept_bytes(slot)).to_vec();
        for (slot, bytes) in kept.into_iter().zip(&kept_bytes) {
            let mut values = 0;
            for id in &ids {
                let (own, all) = (b.read_parameter(slot, *id), b.gather_parameter(slot, *id, &mut rank));
                let all = all.expect("nobody leaves");
                for range in b.kept_ranges(slot, *id) {
                    assert!(own[range.clone()] == all[range.clone()], "a rank keeps what it says");
                    values += range.len();
                }
            }
            // parameters start at cache lines
            assert!((4 * values..=4 * (values + 16 * ids.len())).contains(bytes), "{values} values, {bytes} bytes");
        }
        // what is read and written again is the same
        let own = b.read_slot(Slot::FirstMoment);
        b.write_slot(Slot::FirstMoment, &own);
        assert!(b.read_slot(Slot::FirstMoment) == own, "what a rank keeps is read and written");
        Trained { slots, norms, gradients, kept_bytes }
    };
    let on_ranks = |world: usize, sharding| -> Vec<Trained> {
        let of_rank = &of_rank;
        std::thread::scope(|scope| {
            let ranks = InProcess::ranks(world).into_iter();
            let running: Vec<_> = ranks.map(|rank| scope.spawn(move || of_rank(rank, sharding))).collect();
            running.into_iter().map(|rank| rank.join().expect("no rank panics")).collect()
        })
    };
    for world in [1, 2, 4] {
        let whole = on_ranks(world, Sharding::None);
        for sharding in [Sharding::Optimizer, Sharding::Gradients] {
            for (rank, (found, expected)) in on_ranks(world, sharding).iter().zip(&whole).enumerate() {
                let what = format!("{sharding:?} on rank {rank} of {world}, {precision:?}");
                assert!(found.slots == expected.slots, "{what}: other bits");
                assert!(found.norms == expected.norms, "{what}: {:?}, not {:?}", found.norms, expected.norms);
                assert!(found.gradients == expected.gradients, "{what}: other gradients");
                let divided = if sharding == Sharding::Gradients { 4 } else { 3 };
                for (slot, (kept, all)) in found.kept_bytes.iter().zip(&expected.kept_bytes).enumerate() {
                    let share = if slot < divided { all / world } else { *all };
                    // in units, of which there are at least 64
                    assert!(kept.abs_diff(share) <= all / 64, "{what}: {kept} of {all} bytes of slot {slot}");
                }
            }
        }
    }
}
