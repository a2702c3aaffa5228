//! Summation of gradients over all ranks while the backward pass runs.
//!
//! The gradient of a parameter is complete when no record left on the tape names the parameter. Complete gradients are
//! collected in a bucket. When it is full, it is sent as the runs of consecutive parameters that it consists of. These are
//! few, as the parameters of a transformer block lie next to each other. Where the collective can, sums go on beside the rest of
//! the pass, on copies.

use crate::tape::Record;
use crate::{Cpu, optimizer};
use simmim_engine::{Collective, CollectiveError, ParameterId, ParameterTable, Sum};
use std::ops::RangeInclusive;

/// The least number of values in a bucket. It is so small that the first bucket is sent early, and so large that the
/// number of calls costs little (PyTorch's `DistributedDataParallel` takes 25 MB).
const BUCKET_LEN: usize = 4 << 20;

/// The state of the summation: which gradients are complete, and which of those have been sent.
pub(crate) struct GradientReduction<'a> {
    collective: &'a mut dyn Collective,
    /// For each parameter, the number of records left that name it.
    records_left: Vec<u32>,
    is_sent: Vec<bool>,
    bucket: Vec<ParameterId>,
    bucket_len: usize,
    /// Parameters whose sums go on while the backward pass does, in the order in which they were begun.
    beside: Vec<RangeInclusive<usize>>,
    /// Whether everything that was sent was finite.
    is_finite: bool,
}

impl<'a> GradientReduction<'a> {
    /// Prepares the summation of the gradients that the backward pass of `records` computes.
    pub(crate) fn new(table: &ParameterTable, records: &[Record], collective: &'a mut dyn Collective) -> Self {
        let mut records_left = vec![0; table.iter().len()];
        records.iter().flat_map(|record| &record.parameters).for_each(|id| records_left[id.0] += 1);
        let is_sent = vec![false; records_left.len()];
        Self {
            collective,
            records_left,
            is_sent,
            bucket: Vec::new(),
            bucket_len: 0,
            beside: Vec::new(),
            is_finite: true,
        }
    }

    /// Notes that the backward pass of a record with these parameters is done, and sends the bucket if it is full.
    ///
    /// # Errors
    /// If another rank is lost.
    pub(crate) fn record_done(&mut self, cpu: &Cpu, parameters: &[ParameterId]) -> Result<(), CollectiveError> {
        for id in parameters {
            self.records_left[id.0] -= 1;
            if self.records_left[id.0] == 0 {
                self.bucket.push(*id);
                self.bucket_len += cpu.table.get(*id).range.len();
            }
        }
        if self.bucket_len >= BUCKET_LEN { self.send(cpu) } else { Ok(()) }
    }

    /// Sends all gradients that were not sent yet. Among them are those to which only earlier backward passes added.
    /// Returns whether all that this rank sent was finite.
    ///
    /// # Errors
    /// If another rank is lost.
    pub(crate) fn finish(mut self, cpu: &Cpu) -> Result<bool, CollectiveError> {
        let in_bucket: Vec<usize> = self.bucket.iter().map(|id| id.0).collect();
        let others = (0..self.records_left.len()).filter(|i| !self.is_sent[*i] && !in_bucket.contains(i));
        self.bucket.extend(others.map(ParameterId).collect::<Vec<_>>());
        self.send(cpu)?;
        self.take_sums(cpu)?;
        Ok(self.is_finite)
    }

    /// Sends the bucket and empties it.
    fn send(&mut self, cpu: &Cpu) -> Result<(), CollectiveError> {
        let mut bucket = std::mem::take(&mut self.bucket);
        self.bucket_len = 0;
        bucket.sort_by_key(|id| id.0);
        let mut store = cpu.store.borrow_mut();
        let gradients = &mut store.gradients;
        let mut runs: Vec<RangeInclusive<usize>> = Vec::new();
        for ParameterId(id) in bucket {
            self.is_sent[id] = true;
            match runs.last_mut().filter(|last| *last.end() + 1 == id && gradients.are_joined(*last.end(), id)) {
                Some(last) => *last = *last.start()..=id,
                None => runs.push(id..=id),
            }
        }
        runs.into_iter().try_for_each(|run| {
            let values = gradients.run_mut(run.clone());
            self.is_finite &= optimizer::sum_of_squares_in(cpu, values).is_finite();
            let lens = gradients.lens(&run);
            if self.collective.sums_beside() {
                let values = match &lens {
                    None => gradients.run_mut(run.clone()).to_vec(),
                    Some(_) => gradients.sorted(&run),
                };
                if lens.is_some() {
                    gradients.is_sent(&run);
                }
                self.beside.push(run);
                return self.collective.begin_sum(Sum { values, lens, in_bf16: false });
            }
            let Some(lens) = lens else { return self.collective.all_reduce_sum(gradients.run_mut(run)) };
            let mut sorted = gradients.sorted(&run);
            gradients.is_sent(&run);
            self.collective.reduce_scatter_sum(&mut sorted, &lens)?;
            gradients.keep_sums(&run, &sorted);
            Ok(())
        })
    }

    /// Takes the sums that went on beside the backward pass.
    fn take_sums(&mut self, cpu: &Cpu) -> Result<(), CollectiveError> {
        let sums = self.collective.finish_sums()?;
        let gradients = &mut cpu.store.borrow_mut().gradients;
        for (run, sum) in self.beside.drain(..).zip(sums) {
            match sum.lens {
                None => gradients.run_mut(run).copy_from_slice(&sum.values),
                Some(_) => gradients.keep_sums(&run, &sum.values),
            }
        }
        Ok(())
    }
}
