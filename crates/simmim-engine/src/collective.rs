//! Several processes, or threads, that train one model: each computes on its share of a batch, and they add up what they
//! found.
//!
//! Sums are taken in the order of ranks, whatever arrives first, so that every rank gets the same bits in every run.

use half::bf16;
use std::ops::{AddAssign, Range};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A rank left while others wait for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", match failure {
    None => format!("rank {rank} left while others were waiting for it"),
    Some(failure) => format!("rank {rank}: {}", failure.message),
})]
pub struct CollectiveError {
    /// The first rank that left.
    pub rank: usize,
    /// Why it left, if it said so.
    pub failure: Option<Box<RankFailure>>,
}

impl CollectiveError {
    /// The error of a rank that left and did not say why.
    pub fn left(rank: usize) -> Self {
        Self { rank, failure: None }
    }
}

/// Why a rank leaves, as the other ranks are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankFailure {
    /// Its error.
    pub message: String,
    /// What can be done about it.
    pub hint: Option<String>,
    /// Whether the user can mend it by changing the recipe, a path or an argument.
    pub is_users_fault: bool,
}

/// What a rank does between two collectives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// What every rank does in this step, so that none takes much longer than the others. Before the first step it is 0.
    Step(u64),
    /// What this rank does alone after so many steps, such as evaluating or saving: the others wait as long as it takes.
    Alone(u64),
}

/// A sum over all ranks that goes on while they compute.
#[derive(Clone, Debug, PartialEq)]
pub struct Sum {
    /// What this rank adds, and then the sum.
    pub values: Vec<f32>,
    /// Lengths of the parts if each rank gets only its part, as by [`Collective::reduce_scatter_sum`].
    pub lens: Option<Vec<usize>>,
    /// Whether values are rounded to bf16, as by [`Collective::all_reduce_sum_bf16`].
    pub in_bf16: bool,
}

/// What the ranks of one training do together. All ranks make the same calls in the same order.
pub trait Collective {
    /// Number of this rank, from 0.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn world(&self) -> usize;

    /// Replaces `values` by their sum over all ranks, added in the order of ranks.
    ///
    /// # Errors
    /// If a rank is lost.
    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// [`Collective::all_reduce_sum`] with half the bytes: values are rounded to bf16 before they are sent and added in f32,
    /// and the sums are rounded to bf16. A rank alone changes nothing.
    ///
    /// # Errors
    /// If a rank is lost.
    fn all_reduce_sum_bf16(&mut self, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// [`Collective::all_reduce_sum`] of the few numbers that want f64: losses, weights, counts.
    ///
    /// # Errors
    /// If a rank is lost.
    fn all_reduce_sum_f64(&mut self, values: &mut [f64]) -> Result<(), CollectiveError>;

    /// [`Collective::all_reduce_sum`] of which each rank gets its part: `lens` are the lengths of the parts of `values`, which lie
    /// behind each other in the order of ranks. What is in the parts of the others afterwards is of no use.
    ///
    /// # Errors
    /// If a rank is lost.
    fn reduce_scatter_sum(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError>;

    /// [`Collective::reduce_scatter_sum`] with half the bytes, and the bits of [`Collective::all_reduce_sum_bf16`].
    ///
    /// # Errors
    /// If a rank is lost.
    fn reduce_scatter_sum_bf16(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError>;

    /// Whether sums can go on while this rank computes: see [`Collective::begin_sum`].
    fn sums_beside(&self) -> bool {
        false
    }

    /// Begins a sum that goes on while this rank computes. It calls nothing else of the collective before
    /// [`Collective::finish_sums`].
    ///
    /// # Errors
    /// If a rank is lost.
    ///
    /// # Panics
    /// If [`Collective::sums_beside`] says that none can.
    fn begin_sum(&mut self, sum: Sum) -> Result<(), CollectiveError> {
        unreachable!("{} values are summed at once: no sum goes on beside", sum.values.len())
    }

    /// Waits for the sums that were begun, and returns them in their order. Also called where none was begun, when the
    /// backward pass is over.
    ///
    /// # Errors
    /// If a rank is lost.
    fn finish_sums(&mut self) -> Result<Vec<Sum>, CollectiveError> {
        Ok(Vec::new())
    }

    /// Replaces each part of `values` by that of the rank whose part it is; `lens` are the lengths of the parts, which lie
    /// behind each other in the order of ranks.
    ///
    /// # Errors
    /// If a rank is lost.
    fn all_gather(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError>;

    /// Replaces `values` by those of rank `root`.
    ///
    /// # Errors
    /// If a rank is lost.
    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), CollectiveError>;

    /// [`Collective::broadcast`] of bytes, of which only `root` need know the number.
    ///
    /// # Errors
    /// If a rank is lost.
    fn broadcast_bytes(&mut self, bytes: &mut Vec<u8>, root: usize) -> Result<(), CollectiveError>;

    /// What each rank has, in the order of ranks, on the first rank; nothing on the others. Ranks may have different numbers of
    /// bytes.
    ///
    /// # Errors
    /// If a rank is lost.
    fn gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// Waits until every rank is here.
    ///
    /// # Errors
    /// If a rank is lost.
    fn barrier(&mut self) -> Result<(), CollectiveError>;

    /// Says what this rank does until it says something else, for those who watch how long ranks wait for each other. It
    /// is no collective call.
    fn announce(&mut self, _activity: Activity) {}

    /// Whether this is the rank that writes files and speaks.
    fn is_first(&self) -> bool {
        self.rank() == 0
    }
}

/// The only rank there is: nothing is ever waited for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn all_reduce_sum(&mut self, _: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn all_reduce_sum_bf16(&mut self, _: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn all_reduce_sum_f64(&mut self, _: &mut [f64]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn reduce_scatter_sum(&mut self, _: &mut [f32], _: &[usize]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn reduce_scatter_sum_bf16(&mut self, _: &mut [f32], _: &[usize]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn all_gather(&mut self, _: &mut [f32], _: &[usize]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn broadcast(&mut self, _: &mut [f32], _: usize) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn broadcast_bytes(&mut self, _: &mut Vec<u8>, _: usize) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        Ok(vec![bytes.to_vec()])
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        Ok(())
    }
}

/// A rank whose sums of f32 are all sent in bf16.
pub struct SendsBf16<'a>(pub &'a mut dyn Collective);

impl Collective for SendsBf16<'_> {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn world(&self) -> usize {
        self.0.world()
    }

    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.0.all_reduce_sum_bf16(values)
    }

    fn all_reduce_sum_bf16(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.0.all_reduce_sum_bf16(values)
    }

    fn all_reduce_sum_f64(&mut self, values: &mut [f64]) -> Result<(), CollectiveError> {
        self.0.all_reduce_sum_f64(values)
    }

    fn reduce_scatter_sum(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError> {
        self.0.reduce_scatter_sum_bf16(values, lens)
    }

    fn reduce_scatter_sum_bf16(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError> {
        self.0.reduce_scatter_sum_bf16(values, lens)
    }

    fn sums_beside(&self) -> bool {
        self.0.sums_beside()
    }

    fn begin_sum(&mut self, sum: Sum) -> Result<(), CollectiveError> {
        self.0.begin_sum(Sum { in_bf16: true, ..sum })
    }

    fn finish_sums(&mut self) -> Result<Vec<Sum>, CollectiveError> {
        self.0.finish_sums()
    }

    fn all_gather(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError> {
        self.0.all_gather(values, lens)
    }

    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), CollectiveError> {
        self.0.broadcast(values, root)
    }

    fn broadcast_bytes(&mut self, bytes: &mut Vec<u8>, root: usize) -> Result<(), CollectiveError> {
        self.0.broadcast_bytes(bytes, root)
    }

    fn gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.0.gather_bytes(bytes)
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.0.barrier()
    }

    fn announce(&mut self, activity: Activity) {
        self.0.announce(activity);
    }
}

/// A rank among threads of this process.
///
/// ```
/// use simmim_engine::{Collective, InProcess};
///
/// let sums = std::thread::scope(|scope| {
///     let ranks = InProcess::ranks(2).into_iter();
///     let running: Vec<_> = ranks
///         .map(|mut ranks| {
///             scope.spawn(move || {
///                 let mut values = [ranks.rank() as f32 + 1.0];
///                 ranks.all_reduce_sum(&mut values).unwrap();
///                 values[0]
///             })
///         })
///         .collect();
///     running.into_iter().map(|rank| rank.join().unwrap()).collect::<Vec<_>>()
/// });
/// assert_eq!(sums, [3.0, 3.0]);
/// ```
pub struct InProcess {
    rank: usize,
    shared: Arc<Shared>,
}

struct Shared {
    exchange: Mutex<Exchange>,
    changed: Condvar,
}

/// One exchange at a time: every rank puts something down, then every rank takes all of it.
struct Exchange {
    /// What each rank put down, as bytes.
    given: Vec<Option<Vec<u8>>>,
    /// Ranks that have not taken the result of the current exchange yet.
    left_to_take: usize,
    /// The first rank that went away.
    gone: Option<usize>,
}

impl InProcess {
    /// The ranks of a world of `world` threads, to be handed to one thread each.
    pub fn ranks(world: usize) -> Vec<Self> {
        let exchange = Exchange { given: vec![None; world], left_to_take: 0, gone: None };
        let shared = Arc::new(Shared { exchange: Mutex::new(exchange), changed: Condvar::new() });
        (0..world).map(|rank| Self { rank, shared: Arc::clone(&shared) }).collect()
    }

    /// Hands in `bytes` and returns those of every rank.
    fn exchange(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let mut exchange = self.shared.lock();
        // the slower ranks may still be taking the result of the exchange before
        while exchange.left_to_take > 0 && exchange.gone.is_none() {
            exchange = self.shared.wait(exchange);
        }
        if let Some(rank) = exchange.gone.filter(|_| exchange.left_to_take > 0) {
            return Err(CollectiveError::left(rank));
        }
        exchange.given[self.rank] = Some(bytes);
        self.shared.changed.notify_all();
        while exchange.left_to_take == 0 && exchange.given.iter().any(Option::is_none) {
            if let Some(rank) = exchange.gone {
                return Err(CollectiveError::left(rank));
            }
            exchange = self.shared.wait(exchange);
        }
        let world = exchange.given.len();
        if exchange.left_to_take == 0 {
            exchange.left_to_take = world;
        }
        let all = exchange.given.iter().flatten().cloned().collect();
        exchange.left_to_take -= 1;
        if exchange.left_to_take == 0 {
            exchange.given.fill(None);
        }
        self.shared.changed.notify_all();
        Ok(all)
    }

    /// Sums values over the ranks, in the order of the ranks; `to` and `from` convert a value to bytes and back.
    fn sum_over_ranks<V: Copy + Default + AddAssign, const N: usize>(
        &self,
        values: &mut [V],
        to: fn(V) -> [u8; N],
        from: fn([u8; N]) -> V,
    ) -> Result<(), CollectiveError> {
        let all = self.exchange(values.iter().flat_map(|v| to(*v)).collect())?;
        values.fill(V::default());
        for rank in &all {
            assert_eq!(rank.len(), values.len() * N, "ranks sum the same number of values");
            for (sum, bytes) in values.iter_mut().zip(rank.as_chunks().0) {
                *sum += from(*bytes);
            }
        }
        Ok(())
    }
}

/// Where the part of a rank lies among parts of these lengths.
fn part(lens: &[usize], rank: usize) -> Range<usize> {
    let start = lens[..rank].iter().sum();
    start..start + lens[rank]
}

/// Makes what nobody may use unusable, so that a caller who does is found out.
fn spoil_others(values: &mut [f32], lens: &[usize], rank: usize) {
    let own = part(lens, rank);
    values[..own.start].fill(f32::NAN);
    values[own.end..].fill(f32::NAN);
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, exchange: MutexGuard<'a, Exchange>) -> MutexGuard<'a, Exchange> {
        self.changed.wait(exchange).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.shared.lock().gone.get_or_insert(self.rank);
        self.shared.changed.notify_all();
    }
}

impl Collective for InProcess {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.shared.lock().given.len()
    }

    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.sum_over_ranks(values, f32::to_le_bytes, f32::from_le_bytes)
    }

    fn all_reduce_sum_bf16(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.sum_over_ranks(values, |v| bf16::from_f32(v).to_le_bytes(), |bytes| bf16::from_le_bytes(bytes).to_f32())?;
        values.iter_mut().for_each(|sum| *sum = bf16::from_f32(*sum).to_f32());
        Ok(())
    }

    fn all_reduce_sum_f64(&mut self, values: &mut [f64]) -> Result<(), CollectiveError> {
        self.sum_over_ranks(values, f64::to_le_bytes, f64::from_le_bytes)
    }

    fn reduce_scatter_sum(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError> {
        self.all_reduce_sum(values)?;
        spoil_others(values, lens, self.rank);
        Ok(())
    }

    fn reduce_scatter_sum_bf16(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError> {
        self.all_reduce_sum_bf16(values)?;
        spoil_others(values, lens, self.rank);
        Ok(())
    }

    fn all_gather(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError> {
        let own = &values[part(lens, self.rank)];
        let all = self.exchange(own.iter().flat_map(|v| v.to_le_bytes()).collect())?;
        for (rank, bytes) in all.iter().enumerate() {
            let part = &mut values[part(lens, rank)];
            assert_eq!(bytes.len(), size_of_val(part), "ranks agree on the lengths of parts");
            for (value, bytes) in part.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        Ok(())
    }

    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), CollectiveError> {
        let is_root = self.rank == root;
        let own = if is_root { values.iter().flat_map(|v| v.to_le_bytes()).collect() } else { Vec::new() };
        let all = self.exchange(own)?;
        assert_eq!(all[root].len(), size_of_val(values), "ranks expect the number of values that the root sends");
        for (value, bytes) in values.iter_mut().zip(all[root].as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        Ok(())
    }

    fn broadcast_bytes(&mut self, bytes: &mut Vec<u8>, root: usize) -> Result<(), CollectiveError> {
        let own = if self.rank == root { bytes.clone() } else { Vec::new() };
        *bytes = self.exchange(own)?.swap_remove(root);
        Ok(())
    }

    fn gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let all = self.exchange(bytes.to_vec())?;
        Ok(if self.rank == 0 { all } else { Vec::new() })
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.exchange(Vec::new()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each of `world` ranks returns.
    fn on_ranks<T: Send>(world: usize, work: impl Fn(InProcess) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let running: Vec<_> = InProcess::ranks(world).into_iter().map(|rank| scope.spawn(|| work(rank))).collect();
            running.into_iter().map(|rank| rank.join().expect("no rank panics")).collect()
        })
    }

    #[test]
    fn a_rank_that_is_early_does_not_take_the_sums_of_the_exchange_before_when_another_leaves() {
        // rank 1 has still to take what was summed, and rank 2 has left after taking it
        let ranks = InProcess::ranks(3);
        *ranks[0].shared.lock() = Exchange { given: vec![Some(vec![0; 4]); 3], left_to_take: 1, gone: Some(2) };
        assert_eq!(ranks[0].exchange(vec![1; 4]).unwrap_err().rank, 2);
        assert_eq!(ranks[0].shared.lock().given[0], Some(vec![0; 4]), "what rank 1 takes is untouched");
    }

    #[test]
    fn sums_are_those_of_ranks_in_their_order_time_after_time() {
        // 1 + 1e8 − 1e8 is 0 in this order and 1 in another
        let parts = [1.0f32, 1e8, -1e8];
        let sums = on_ranks(3, |mut ranks| {
            (0..100)
                .map(|round| {
                    let mut values = [parts[ranks.rank()], round as f32];
                    ranks.all_reduce_sum(&mut values).expect("nobody leaves");
                    values
                })
                .collect::<Vec<_>>()
        });
        for of_rank in sums {
            assert!(of_rank.iter().enumerate().all(|(round, sum)| *sum == [0.0, 3.0 * round as f32]), "{of_rank:?}");
        }
    }

    #[test]
    fn sums_in_bf16_are_rounded_before_and_after() {
        // bf16 has 8 bits: 1 + 2⁻⁹ rounds to 1, and 257 to 256
        let sums = on_ranks(2, |mut ranks| {
            let mut values = [1.0 + 1.0 / 512.0, [256.0, 1.0][ranks.rank()], 3.0];
            SendsBf16(&mut ranks).all_reduce_sum(&mut values).expect("nobody leaves");
            values
        });
        assert_eq!(sums, [[2.0, 256.0, 6.0]; 2]);
    }

    #[test]
    fn parts_of_a_sum_are_those_of_the_whole_and_parts_are_gathered() {
        let found = on_ranks(3, |mut ranks| {
            let rank = ranks.rank();
            let (mut whole, lens) = ([1.0 + 0.1 * rank as f32; 6], [1, 0, 5]);
            let (mut parts, mut rounded, mut of_rounded) = (whole, whole, whole);
            ranks.all_reduce_sum(&mut whole).expect("nobody leaves");
            ranks.reduce_scatter_sum(&mut parts, &lens).expect("nobody leaves");
            ranks.all_reduce_sum_bf16(&mut rounded).expect("nobody leaves");
            SendsBf16(&mut ranks).reduce_scatter_sum(&mut of_rounded, &lens).expect("nobody leaves");
            let own = part(&lens, rank);
            assert_eq!((&parts[own.clone()], &of_rounded[own.clone()]), (&whole[own.clone()], &rounded[own]));
            ranks.all_gather(&mut parts, &lens).expect("nobody leaves");
            parts == whole
        });
        assert_eq!(found, [true; 3]);
    }

    #[test]
    fn a_broadcast_gives_everyone_what_the_root_has() {
        let found = on_ranks(3, |mut ranks| {
            let (mut values, mut bytes) = ([ranks.rank() as f32; 2], vec![ranks.rank() as u8; ranks.rank()]);
            ranks.broadcast(&mut values, 1).expect("nobody leaves");
            ranks.broadcast_bytes(&mut bytes, 2).expect("nobody leaves");
            ranks.barrier().expect("nobody leaves");
            (values, bytes)
        });
        assert!(found.iter().all(|(values, bytes)| *values == [1.0; 2] && *bytes == [2, 2]), "{found:?}");
    }

    #[test]
    fn a_rank_that_leaves_is_named_to_those_who_wait() {
        let found = on_ranks(2, |mut ranks| match ranks.rank() {
            0 => ranks.barrier(),
            _ => Ok(()), // it is dropped without having come
        });
        assert_eq!(found, [Err(CollectiveError::left(1)), Ok(())]);
    }
}
