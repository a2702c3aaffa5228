//! The norm of the gradients, AdamW and the moving average over the flat buffers, which workers process in pieces.
//!
//! A piece of a weight that is packed for products consists of whole panels of the forward product. It is packed right after
//! the step, while the new values are in the cache.

use crate::{Cpu, shard};
use simmim_engine::{Collective, CollectiveError, OptimizerStep, ParameterId, StepSize};
use simmim_kernels::adamw::{AdamWStep, adamw};
use simmim_kernels::dtype::Dtype;
use simmim_kernels::elementwise::{move_towards, sum_of_squares};
use simmim_kernels::matrix::Matrix;
use simmim_kernels::pack::pack_weight_by_column_past_caches;
use std::mem::take;

/// Values of a piece: so many that starting a task costs little, and so few that workers can share one large weight.
const PIECE: usize = 1 << 16;

/// Values that are gathered from all ranks at a time, so that they need little memory.
const GATHERED: usize = 4 << 20;

/// The Euclidean norm of all gradients: the root of a sum over units, which ranks exchange if each has only its own. Gradients
/// whose squares were summed when they were computed are not read again.
///
/// # Errors
/// If another rank is lost.
pub(super) fn gradient_norm(cpu: &Cpu, collective: &mut dyn Collective) -> Result<f64, CollectiveError> {
    let mut store = cpu.store.borrow_mut();
    let len = store.len();
    let unit = shard::unit(len);
    let Some(shard) = store.gradients.shard().cloned() else {
        let (known, squares): (Vec<_>, Vec<f64>) = store.gradients.known_squares().unzip();
        let starts = std::iter::once(0).chain(known.iter().map(|range| range.end));
        let ends = known.iter().map(|range| range.start).chain([len]);
        let gradients = store.gradients.whole();
        let others = starts.zip(ends).flat_map(|(start, end)| gradients[start..end].chunks(unit)).collect();
        let of_others = cpu.threads.map(others, sum_of_squares);
        return Ok(squares.iter().chain(&of_others).sum::<f64>().sqrt());
    };
    let sums = store.gradients.sums();
    let (numbers, units) = shard
        .own(0..len)
        .map(|part| (part.range.start / unit, &sums[part.place..part.place + part.range.len()]))
        .unzip();
    let (numbers, units): (Vec<usize>, Vec<&[f32]>) = (numbers, units);
    let mut squares = vec![0.0; len.div_ceil(unit)];
    for (number, square) in numbers.into_iter().zip(cpu.threads.map(units, sum_of_squares)) {
        squares[number] = square;
    }
    collective.all_reduce_sum_f64(&mut squares)?; // each is one rank's, and zero on the others
    Ok(squares.iter().sum::<f64>().sqrt())
}

/// The sum of the squares of `values`.
pub(super) fn sum_of_squares_in(cpu: &Cpu, values: &[f32]) -> f64 {
    cpu.threads.map(values.chunks(PIECE).collect(), sum_of_squares).iter().sum()
}

/// Moves the average toward the values: `average += (1 − decay)·(values − average)`.
pub(super) fn update_average(cpu: &Cpu, decay: f32) {
    let mut store = cpu.store.borrow_mut();
    let (mut average, values, shard) = store.average_and_values();
    let mut pieces = Vec::new();
    for part in shard.own(0..values.len()) {
        let own = split_off_mut(&mut average, part.range.len());
        pieces.extend(own.chunks_mut(PIECE).zip(values[part.range].chunks(PIECE)));
    }
    cpu.threads.map(pieces, |(average, values)| move_towards(average, 1.0 - decay, values));
}

/// Makes one AdamW step of the parameters that this rank keeps the moments of. The values of the others are as before.
pub(super) fn adamw_of_part(cpu: &Cpu, step: &OptimizerStep, factor: f64) {
    assert_eq!(step.step_sizes.len(), cpu.table.iter().len(), "one step size per parameter");
    let mut store = cpu.store.borrow_mut();
    let buffers = store.step_buffers();
    let (mut values, mut first, mut second) = (buffers.values, buffers.first, buffers.second);
    let (mut start, mut place) = (0, 0);
    let mut pieces = Vec::new();
    for (range, size) in buffers.ranges.iter().zip(step.step_sizes) {
        let adamw_step = adamw_step(step, *size, factor);
        for part in buffers.shard.own(range.clone()) {
            let len = part.range.len();
            let gradients_at = if buffers.has_own_gradients { part.place } else { part.range.start };
            let gradients = &buffers.gradients[gradients_at..gradients_at + len];
            // what lies before: values of other ranks, and those between parameters
            split_off_mut(&mut values, part.range.start - start);
            split_off_mut(&mut first, part.place - place);
            split_off_mut(&mut second, part.place - place);
            let values = split_off_mut(&mut values, len);
            pieces.push((
                adamw_step,
                values,
                gradients,
                split_off_mut(&mut first, len),
                split_off_mut(&mut second, len),
            ));
            (start, place) = (part.range.end, part.place + len);
        }
    }
    cpu.threads.map(pieces, |(step, p, g, m, v)| adamw(&step, p, g, m, v));
}

/// Replaces all parameters by those of the ranks that made their steps.
///
/// # Errors
/// If another rank is lost.
pub(super) fn gather_values(cpu: &Cpu, collective: &mut dyn Collective) -> Result<(), CollectiveError> {
    let mut store = cpu.store.borrow_mut();
    let shard = store.shard().clone();
    let values = store.values_mut();
    for start in (0..values.len()).step_by(GATHERED) {
        let range = start..values.len().min(start + GATHERED);
        let lens = shard.lens(range.clone());
        let mut sorted = vec![0.0; range.len()];
        for (part, place) in shard.sorted(range.clone()) {
            sorted[place].copy_from_slice(&values[part.range]);
        }
        collective.all_gather(&mut sorted, &lens)?;
        for (part, place) in shard.sorted(range) {
            values[part.range].copy_from_slice(&sorted[place]);
        }
    }
    Ok(())
}

/// A parameter's step.
fn adamw_step(step: &OptimizerStep, size: StepSize, factor: f64) -> AdamWStep {
    AdamWStep {
        lr: size.lr,
        beta1: step.betas.0,
        beta2: step.betas.1,
        eps: step.eps,
        weight_decay: size.weight_decay,
        number: step.number,
        gradient_scale: factor as f32,
    }
}

/// Makes one AdamW step of all parameters from their gradients times `factor`, and packs the weights that are packed
/// for forward products.
pub(super) fn adamw_and_panels<T: Dtype>(cpu: &Cpu, step: &OptimizerStep, factor: f64) {
    assert_eq!(step.step_sizes.len(), cpu.table.iter().len(), "one step size per parameter");
    let mut store = cpu.store.borrow_mut();
    let mut packed = cpu.packed_weights.borrow_mut();
    let buffers = store.step_buffers();
    let (mut step_lanes, tile) = (packed.step_lanes(buffers.version), cpu.tile);
    let (mut values, mut gradients) = (buffers.values, buffers.gradients);
    let (mut first, mut second) = (buffers.first, buffers.second);
    let mut pieces = Vec::new();
    for (index, (parameter, size)) in cpu.table.iter().zip(step.step_sizes).enumerate() {
        let adamw_step = adamw_step(step, *size, factor);
        let mut left = parameter.range.len();
        let mut panels = step_lanes.remove(&ParameterId(index)).map(|lanes| (left / parameter.shape[0], lanes));
        let piece = match &panels {
            None => PIECE,
            Some((inputs, _)) => PIECE.next_multiple_of(tile.panels::<T>(0, 0).width() * inputs),
        };
        while left > 0 {
            let len = left.min(piece);
            left -= len;
            let of_piece = panels.as_mut().map(|(inputs, lanes)| {
                let layout = tile.panels::<T>(*inputs, len / *inputs);
                (*inputs, layout, split_off_mut(lanes, layout.lanes()))
            });
            let (p, g) = (values.split_off_mut(..len), gradients.split_off(..len));
            let (m, v) = (first.split_off_mut(..len), second.split_off_mut(..len));
            pieces.push((adamw_step, p, g, m, v, of_piece));
        }
        // the values between this parameter and the next one
        let end = buffers.ranges[index].end;
        let gap = buffers.ranges.get(index + 1).map_or(0, |next| next.start - end);
        gradients = &gradients[gap..];
        for buffer in [&mut values, &mut first, &mut second] {
            *buffer = &mut take(buffer)[gap..];
        }
    }
    cpu.threads.map(pieces, |(step, p, g, m, v, panels)| {
        let (Some(p), Some(g), Some(m), Some(v)) = (p, g, m, v) else {
            unreachable!("the store's ranges lie within the buffers")
        };
        adamw(&step, p, g, m, v);
        if let Some((inputs, layout, lanes)) = panels {
            pack_weight_by_column_past_caches::<T>(
                Matrix::strided(p, p.len() / inputs, inputs, inputs),
                layout,
                0,
                lanes,
            );
        }
    });
}

/// Splits off the first `len` values.
///
/// # Panics
/// If there are fewer.
fn split_off_mut<'a, T>(slice: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    slice
        .split_off_mut(..len)
        .expect("a packed weight has lanes for all its panels, and a buffer values for all parameters")
}

#[cfg(test)]
mod tests {
    use super::*;
    use simmim_engine::{Alone, Backend, Distance, Linear, Operations, ParameterTable, Precision, Regression, Slot};
    use simmim_kernels::dtype::Bf16;
    use simmim_kernels::elementwise::sum_of_squares_naive;
    use simmim_kernels::product::Tile;

    /// Trains a layer for a step, and compares its packed weight with one packed from the new values.
    fn check<T: Dtype>(precision: Precision, tile: Tile, [outputs, inputs]: [usize; 2]) {
        let mut table = ParameterTable::default();
        table.add("before", &[3]); // so that the weight does not start where a buffer does
        let weight = table.add("weight", &[outputs, inputs]);
        let parameters = table.iter().len();
        let cpu = Cpu::with_tile(table, precision, 2, tile);
        let values: Vec<f32> = (0..3 + outputs * inputs).map(|i| (i % 101) as f32 / 101.0 - 0.5).collect();
        cpu.write_slot(Slot::Values, &values);
        cpu.start(true);
        let x = cpu.tensor(&[2, inputs], &values[..2 * inputs]);
        let y = cpu.linear(&x, &Linear { weight, bias: None });
        let (target, ones) = (vec![0.0; 2 * outputs], [1.0; 2]);
        let loss = Regression { distance: Distance::L2, target: &target, weight: &ones, channels: outputs };
        cpu.backward(&cpu.regression(&y, &loss));
        cpu.start(false);
        cpu.forward_weight::<T>(weight); // in f32 only an evaluation stores packed weights
        let step_sizes = vec![StepSize { lr: 0.1, weight_decay: 0.0 }; parameters];
        let (betas, step_sizes) = ((0.9, 0.999), step_sizes.as_slice());
        let step = OptimizerStep { number: 1, betas, eps: 1e-8, gradient_scale: 1.0, clip_norm: None, step_sizes };
        adamw_and_panels::<T>(&cpu, &step, 1.0);
        assert!(cpu.packed_weights.borrow().are_of(cpu.store.borrow().version()), "the step packed everything");
        assert_ne!(cpu.read_slot(Slot::Values)[3..], values[3..], "the step moved the weight");
        let by_step = cpu.forward_weight::<T>(weight);
        cpu.packed_weights.take();
        assert!(by_step.get() == cpu.forward_weight::<T>(weight).get(), "{outputs} × {inputs}, {}", tile.name());
    }

    /// The norm that a step returns.
    fn norm(cpu: &Cpu) -> f64 {
        gradient_norm(cpu, &mut Alone).unwrap()
    }

    #[test]
    fn the_norm_is_that_of_the_gradients_whether_or_not_their_squares_are_known() {
        let mut table = ParameterTable::default();
        let weights = [("fc1", 200, 70), ("fc2", 90, 200)].map(|(name, outputs, inputs)| Linear {
            weight: table.add(&format!("{name}.weight"), &[outputs, inputs]),
            bias: Some(table.add(&format!("{name}.bias"), &[outputs])),
        });
        table.add("without gradient", &[20]);
        for (precision, tile) in Tile::all_available()
            .into_iter()
            .chain([Tile::model_of_amx()])
            .flat_map(|tile| [(Precision::F32, tile), (Precision::Bf16, tile)])
        {
            let cpu = Cpu::with_tile(table.clone(), precision, 2, tile);
            let numbers = |count: usize| (0..count).map(|i| (i % 103) as f32 / 103.0 - 0.5).collect::<Vec<f32>>();
            cpu.write_slot(Slot::Values, &numbers(table.len()));
            for rows in [300, 7] {
                // the second time, gradients are added to those of the first
                cpu.start(true);
                let hidden = cpu.linear(&cpu.tensor(&[rows, 70], &numbers(rows * 70)), &weights[0]);
                let y = cpu.linear(&hidden, &weights[1]);
                let (target, weight) = (vec![1.0; rows * 90], vec![1.0; rows]);
                let loss = Regression { distance: Distance::L2, target: &target, weight: &weight, channels: 90 };
                cpu.backward(&cpu.regression(&y, &loss));
                assert_eq!(cpu.store.borrow().gradients.known_squares().count(), 2, "of both weights");
                let gradients = cpu.read_slot(Slot::Gradients);
                let naive = sum_of_squares_naive(&gradients).sqrt();
                assert!((norm(&cpu) / naive - 1.0).abs() < 1e-12, "{} beside {naive}, {}", norm(&cpu), tile.name());
                cpu.write_slot(Slot::Gradients, &gradients);
                assert_eq!(cpu.store.borrow().gradients.known_squares().count(), 0, "they might be others");
                assert!((norm(&cpu) / naive - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn weights_are_packed_piece_by_piece() {
        for tile in Tile::all_available().into_iter().chain([Tile::model_of_amx()]) {
            for size in [[200, 700], [5, 7], [96, 700], [49, 33], [2, 70_000]] {
                check::<f32>(Precision::F32, tile, size);
                check::<Bf16>(Precision::Bf16, tile, size);
            }
        }
    }
}
