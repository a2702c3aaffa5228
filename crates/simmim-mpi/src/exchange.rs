//! How values are exchanged, whatever they are for: sums in the order of ranks, and parts for all.

use crate::slices::{lens_within, slices, sum_in_order};
use half::bf16;
use mpi::datatype::{Partition, PartitionMut};
use mpi::request::{Request, Scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Equivalence};
use std::ops::AddAssign;
use std::time::{Duration, Instant};

/// At most so many values are given to the library in one call, which counts in 32 bits.
pub(crate) const MOST_VALUES: usize = 1 << 28;

/// Sums of so few values are not divided: every rank gets all of them.
pub(crate) const FEW_VALUES: usize = 256;

/// Values that are exchanged at a time where each rank has a part of them, so that little memory is needed.
const EXCHANGED: usize = 4 << 20;

/// For so long a rank that waits for others asks again at once, and after that it sleeps in between, so that other threads
/// have its core.
const SPIN: Duration = Duration::from_micros(200);

/// The sleep.
const NAP: Duration = Duration::from_micros(50);

/// How a thread waits while values are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// As the library does, which takes the whole core.
    Busy,
    /// Asleep most of the time, since the core computes meanwhile.
    Napping,
}

/// Waits for an exchange that was begun.
pub(crate) fn nap_until_done<'a, D: ?Sized, S: Scope<'a>>(request: Request<'a, D, S>) {
    let (mut request, since) = (request, Instant::now());
    while let Err(not_yet) = request.test() {
        request = not_yet;
        if since.elapsed() < SPIN { std::hint::spin_loop() } else { std::thread::sleep(NAP) }
    }
}

/// Sends parts of `lens` values from `places` on to each rank, and receives `own_lens` values of each.
fn all_to_all<V: Equivalence>(
    ranks: &SimpleCommunicator,
    waiting: Waiting,
    (values, lens): (&[V], &[i32]),
    (received, own_lens): (&mut [V], &[i32]),
) {
    let (places, own_places) = (starts(lens), starts(own_lens));
    let sent = Partition::new(values, lens, &places[..]);
    let mut received = PartitionMut::new(received, own_lens, &own_places[..]);
    match waiting {
        Waiting::Busy => ranks.all_to_all_varcount_into(&sent, &mut received),
        Waiting::Napping => mpi::request::scope(|scope| {
            nap_until_done(ranks.immediate_all_to_all_varcount_into(scope, &sent, &mut received));
        }),
    }
}

/// Receives a part of `lens` values of each rank; this one's is `own`.
fn all_gather<V: Equivalence>(
    ranks: &SimpleCommunicator,
    waiting: Waiting,
    own: &[V],
    (received, lens): (&mut [V], &[i32]),
) {
    let places = starts(lens);
    let mut received = PartitionMut::new(received, lens, &places[..]);
    match waiting {
        Waiting::Busy => ranks.all_gather_varcount_into(own, &mut received),
        Waiting::Napping => mpi::request::scope(|scope| {
            nap_until_done(ranks.immediate_all_gather_varcount_into(scope, own, &mut received));
        }),
    }
}

/// Where parts of these lengths start, one behind the other.
pub(crate) fn starts(lens: &[i32]) -> Vec<i32> {
    lens.iter().scan(0, |end, len| Some(std::mem::replace(end, *end + len))).collect()
}

/// Memory that sums use again.
#[derive(Default)]
pub(crate) struct Buffers<V> {
    received: Vec<V>,
    sum: Vec<V>,
}

/// Replaces `values` by their sum over the ranks, in the order of ranks.
pub(crate) fn sum_over_ranks<V: Copy + Default + AddAssign + Equivalence>(
    ranks: &SimpleCommunicator,
    waiting: Waiting,
    values: &mut [V],
    Buffers { received, sum }: &mut Buffers<V>,
) {
    let (rank, world) = (ranks.rank() as usize, ranks.size() as usize);
    if values.len() <= FEW_VALUES {
        received.resize(values.len() * world, V::default());
        ranks.all_gather_into(&*values, &mut received[..]);
        return sum_in_order(received, values);
    }
    let lens: Vec<i32> = slices(values.len(), world).iter().map(|slice| slice.len() as i32).collect();
    received.resize(lens[rank] as usize * world, V::default());
    sum.resize(lens[rank] as usize, V::default());
    let own = vec![lens[rank]; world];
    all_to_all(ranks, waiting, (&*values, &lens[..]), (&mut received[..], &own[..]));
    sum_in_order(received, sum);
    all_gather(ranks, waiting, &sum[..], (values, &lens[..]));
}

/// The same in bf16: values are rounded before they are sent and added in f32, and the sums are rounded.
pub(crate) fn sum_over_ranks_in_bf16(
    ranks: &SimpleCommunicator,
    waiting: Waiting,
    values: &mut [f32],
    sum: &mut Vec<f32>,
) {
    let (rank, world) = (ranks.rank() as usize, ranks.size() as usize);
    let mut bits: Vec<u16> = values.iter().map(|value| bf16::from_f32(*value).to_bits()).collect();
    let lens: Vec<i32> = slices(values.len(), world).iter().map(|slice| slice.len() as i32).collect();
    let mut received = vec![0u16; lens[rank] as usize * world];
    let own = vec![lens[rank]; world];
    all_to_all(ranks, waiting, (&bits[..], &lens[..]), (&mut received[..], &own[..]));
    let received: Vec<f32> = received.into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect();
    sum.resize(lens[rank] as usize, 0.0);
    sum_in_order(&received, sum);
    let sum: Vec<u16> = sum.iter().map(|sum| bf16::from_f32(*sum).to_bits()).collect();
    all_gather(ranks, waiting, &sum[..], (&mut bits[..], &lens[..]));
    values.iter_mut().zip(bits).for_each(|(value, bits)| *value = bf16::from_bits(bits).to_f32());
}

/// Sums `values` up over the ranks, in the order of ranks, so that each gets its part; `to` and `from` are how values are sent.
pub(crate) fn sum_parts<V: Copy + Equivalence>(
    ranks: &SimpleCommunicator,
    waiting: Waiting,
    values: &mut [f32],
    lens: &[usize],
    to: impl Fn(f32) -> V,
    from: impl Fn(V) -> f32,
) {
    let rank = ranks.rank() as usize;
    for start in (0..values.len()).step_by(EXCHANGED) {
        let range = start..values.len().min(start + EXCHANGED);
        let lens: Vec<i32> = lens_within(lens, range.clone()).into_iter().map(|len| len as i32).collect();
        let values = &mut values[range];
        let sent: Vec<V> = values.iter().map(|value| to(*value)).collect();
        let mut received = vec![sent[0]; lens[rank] as usize * lens.len()];
        let own = vec![lens[rank]; lens.len()];
        all_to_all(ranks, waiting, (&sent[..], &lens[..]), (&mut received[..], &own[..]));
        let received: Vec<f32> = received.into_iter().map(&from).collect();
        sum_in_order(&received, &mut values[starts(&lens)[rank] as usize..][..lens[rank] as usize]);
    }
}

/// Replaces each part of `values` by that of its rank.
pub(crate) fn gather_parts(ranks: &SimpleCommunicator, values: &mut [f32], lens: &[usize]) {
    let (rank, world) = (ranks.rank() as usize, lens.len());
    let begins: Vec<usize> = lens.iter().scan(0, |end, len| Some(std::mem::replace(end, *end + len))).collect();
    let at_once = (EXCHANGED / world).max(1);
    for start in (0..lens.iter().copied().max().unwrap_or(0)).step_by(at_once) {
        let counts: Vec<i32> = lens.iter().map(|len| len.saturating_sub(start).min(at_once) as i32).collect();
        let own = (begins[rank] + start).min(values.len());
        let own = values[own..][..counts[rank] as usize].to_vec();
        let mut received = vec![0.0; counts.iter().sum::<i32>() as usize];
        all_gather(ranks, Waiting::Busy, &own[..], (&mut received[..], &counts[..]));
        let places = starts(&counts);
        for of_rank in (0..world).filter(|of_rank| counts[*of_rank] > 0) {
            let (place, count) = (places[of_rank] as usize, counts[of_rank] as usize);
            values[begins[of_rank] + start..][..count].copy_from_slice(&received[place..][..count]);
        }
    }
}
