//! The rules of an optimizer step: scale, clipping, AdamW, and the average.

use super::{assert_close, numbers};
use crate::backend::{Backend, OptimizerStep, Slot, StepSize};
use crate::device::Device;
use crate::operations::{Distance, Linear, Operations, Precision, Regression};
use crate::parameters::ParameterTable;

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
