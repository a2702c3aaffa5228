//! What two threads of a rank share: the number of its collectives, how they begin, and the sums of gradients. One of them
//! at a time is in a collective, and all ranks are in the same ones in the same order.

use crate::exchange::{
    Buffers, FEW_VALUES, MOST_VALUES, Waiting, nap_until_done, sum_over_ranks, sum_over_ranks_in_bf16, sum_parts,
};
use crate::failure;
use crate::header::{Header, first_leaving, first_odd};
use crate::ranks::Traffic;
use crate::slices::{scattered_bytes, sent_bytes};
use crate::watch::Call;
use crate::watching::Shared;
use half::bf16;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use simmim_engine::{CollectiveError, RankFailure};
use std::sync::Arc;

/// The state of a rank's collectives.
pub(crate) struct Protocol {
    watched: Arc<Shared>,
    sequence: u64,
    /// Set once a rank has left; nothing is sent after that.
    ended: Option<Option<CollectiveError>>,
    pub(crate) traffic: Traffic,
    buffers: Buffers<f32>,
    sum: Vec<f32>,
}

impl Protocol {
    pub(crate) fn new(watched: Arc<Shared>) -> Self {
        let (buffers, sum) = (Buffers::default(), Vec::new());
        Self { watched, sequence: 0, ended: None, traffic: Traffic::default(), buffers, sum }
    }

    /// Leaves, together with all others; see `MpiRanks::leave`.
    pub(crate) fn leave(
        &mut self,
        ranks: &SimpleCommunicator,
        failure: Option<&RankFailure>,
    ) -> Option<CollectiveError> {
        if self.ended.is_none() {
            let reason = failure.map_or(Vec::new(), failure::to_bytes);
            let headers = self.meet(ranks, Call::Leave, reason.len() as u64, 0);
            let error = reasons(ranks, &headers, &reason);
            self.ended = Some(error.filter(|error| error.failure.is_some()));
        }
        self.ended.clone().flatten().filter(|_| failure.is_none())
    }

    /// Begins a collective.
    pub(crate) fn enter(
        &mut self,
        ranks: &SimpleCommunicator,
        call: Call,
        len: usize,
        root: usize,
    ) -> Result<Vec<Header>, CollectiveError> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone().unwrap_or_else(|| CollectiveError::left(ranks.rank() as usize)));
        }
        let headers = self.meet(ranks, call, len as u64, root as u64);
        let error = if first_leaving(&headers).is_some() {
            reasons(ranks, &headers, &[])
        } else {
            first_odd(&headers).map(|rank| other_call(rank, &headers))
        };
        match error {
            None => Ok(headers),
            Some(error) => {
                self.ended = Some(Some(error.clone()));
                self.leave_call();
                Err(error)
            }
        }
    }

    /// Ends a collective.
    pub(crate) fn leave_call(&mut self) {
        self.watched.status().call = Call::None;
    }

    /// Waits for all ranks, each with what it begins.
    fn meet(&mut self, ranks: &SimpleCommunicator, call: Call, len: u64, root: u64) -> Vec<Header> {
        self.sequence += 1;
        let own = Header { call, sequence: self.sequence, len, root };
        {
            let mut status = self.watched.status();
            (status.call, status.len, status.sequence) = (call, len, self.sequence);
        }
        let numbers = own.to_numbers();
        let mut all = vec![0u64; Header::LEN * ranks.size() as usize];
        mpi::request::scope(|scope| {
            nap_until_done(ranks.immediate_all_gather_into(scope, &numbers[..], &mut all[..]));
        });
        all.as_chunks().0.iter().map(Header::of_numbers).collect()
    }

    /// Replaces `values` by their sum over ranks, or this rank's part of them if `lens` are the lengths of parts.
    pub(crate) fn sum(
        &mut self,
        ranks: &SimpleCommunicator,
        waiting: Waiting,
        values: &mut [f32],
        lens: Option<&[usize]>,
        in_bf16: bool,
    ) -> Result<(), CollectiveError> {
        let call = if lens.is_some() { Call::ReduceScatter } else { Call::AllReduce };
        self.enter(ranks, call, values.len(), 0)?;
        let (rank, world) = (ranks.rank() as usize, ranks.size() as usize);
        let size = if in_bf16 { size_of::<bf16>() } else { size_of::<f32>() };
        match lens {
            Some(lens) if in_bf16 => {
                let to = |value| bf16::from_f32(value).to_bits();
                sum_parts(ranks, waiting, values, lens, to, |bits| bf16::from_bits(bits).to_f32());
                let own = lens[..rank].iter().sum::<usize>()..lens[..=rank].iter().sum();
                values[own].iter_mut().for_each(|sum| *sum = bf16::from_f32(*sum).to_f32());
            }
            Some(lens) => sum_parts(ranks, waiting, values, lens, |value| value, |value| value),
            None if in_bf16 => {
                let parts = values.chunks_mut(MOST_VALUES);
                parts.for_each(|part| sum_over_ranks_in_bf16(ranks, waiting, part, &mut self.sum));
            }
            None => {
                let parts = values.chunks_mut(MOST_VALUES);
                parts.for_each(|part| sum_over_ranks(ranks, waiting, part, &mut self.buffers));
            }
        }
        self.traffic.sent_bytes += match lens {
            Some(lens) => scattered_bytes(lens, size, rank),
            None => {
                let of_part = |part: &[f32]| match part.len() <= FEW_VALUES && !in_bf16 {
                    true => (size_of_val(part) * (world - 1)) as u64,
                    false => sent_bytes(part.len(), size, rank, world),
                };
                values.chunks(MOST_VALUES).map(of_part).sum()
            }
        };
        self.traffic.sums += 1;
        self.leave_call();
        Ok(())
    }
}

fn other_call(rank: usize, headers: &[Header]) -> CollectiveError {
    let said = |header: &Header| format!("{} of {}", header.call, header.len);
    let other = headers.iter().find(|header| header.call != headers[rank].call || header.len != headers[rank].len);
    let message = format!(
        "it is in {}, and others in {}: ranks do different things",
        said(&headers[rank]),
        other.map_or("another one".into(), said)
    );
    let hint = Some("start all ranks with the same command on the same data".into());
    CollectiveError { rank, failure: Some(Box::new(RankFailure { message, hint, is_users_fault: true })) }
}

/// The error of the first rank that leaves and says why, or of the first that leaves. All ranks call it, with their
/// own reason.
fn reasons(ranks: &SimpleCommunicator, headers: &[Header], own: &[u8]) -> Option<CollectiveError> {
    let leaving = headers.iter().enumerate().filter(|(_, header)| header.call == Call::Leave);
    let mut first = None;
    for (rank, header) in leaving.filter(|(_, header)| header.len > 0) {
        let is_own = rank == ranks.rank() as usize;
        let mut reason = if is_own { own.to_vec() } else { vec![0; header.len as usize] };
        ranks.process_at_rank(rank as i32).broadcast_into(&mut reason[..]);
        let failure = Some(Box::new(failure::of_bytes(&reason)));
        first.get_or_insert(CollectiveError { rank, failure });
    }
    first.or_else(|| first_leaving(headers).map(CollectiveError::left))
}
