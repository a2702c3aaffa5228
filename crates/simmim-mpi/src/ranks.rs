//! A rank of an MPI job.

use crate::failure;
use crate::header::{Header, first_leaving, first_odd};
use crate::slices::{gathered_bytes, lens_within, scattered_bytes, sent_bytes, slices, sum_in_order};
use crate::watch::{Call, OnStall};
use crate::watching::{Setting, Watching};
use half::bf16;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Equivalence, Root};
use simmim_engine::{Activity, Collective, CollectiveError, RankFailure};
use std::ops::AddAssign;
use std::time::{Duration, Instant};

/// At most so many values are given to the library in one call, which counts in 32 bits.
const MOST_VALUES: usize = 1 << 28;

/// Sums of so few values are not divided: every rank gets all of them.
const FEW_VALUES: usize = 256;

/// For so long a rank that waits for others asks again at once, and after that it sleeps in between, so that the threads
/// that load images have its core.
const SPIN: Duration = Duration::from_micros(200);

/// The sleep.
const NAP: Duration = Duration::from_micros(50);

/// What a rank is opened with.
pub struct Config<'a> {
    /// What must be the same on all ranks, such as the version of the program.
    pub identity: &'a str,
    /// The cores that this process may use, in any notation.
    pub cores: &'a str,
    /// How long ranks wait for one that does not come.
    pub patience: Duration,
    /// Called in a thread of its own when the job cannot go on: why, and a line for each rank that this one hears from.
    /// The collective that this rank is in will not return.
    pub on_stall: OnStall,
}

/// Why ranks do not begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// MPI was begun before in this process.
    #[error("MPI was begun before")]
    Begun,
    /// A rank runs something else.
    #[error("{name} runs another build of this program than the first rank: `{found}`, not `{expected}`")]
    OtherProgram {
        /// The first such rank and its machine.
        name: String,
        /// Its identity.
        found: String,
        /// The first rank's.
        expected: String,
    },
    /// There is no thread to watch the others.
    #[error("no thread can be started: {0}")]
    NoThread(#[from] std::io::Error),
}

/// What a rank has sent for sums of gradients, and of the parameters whose steps it made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Number of sums.
    pub sums: u64,
    /// Bytes sent for them and for what all ranks gather, headers aside.
    pub sent_bytes: u64,
}

/// A rank among processes of an MPI job. A rank that is dropped leaves, and the others get an error if they did not leave
/// too.
pub struct MpiRanks {
    ranks: SimpleCommunicator,
    watching: Watching,
    names: Vec<String>,
    sharing: usize,
    can_talk: bool,
    sequence: u64,
    /// Set once a rank has left; nothing is sent after that.
    ended: Option<Option<CollectiveError>>,
    traffic: Traffic,
    received: Vec<f32>,
    sum: Vec<f32>,
    /// Ends MPI when it is dropped, as the last of all.
    _universe: Universe,
}

impl MpiRanks {
    /// Begins MPI. All processes of the job call it.
    ///
    /// # Errors
    /// If MPI was begun before, a rank has another identity, or no thread can be started.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        let (universe, threading) = mpi::initialize_with_threading(mpi::Threading::Multiple).ok_or(OpenError::Begun)?;
        let ranks = universe.world();
        let host = mpi::environment::processor_name().unwrap_or_default();
        let name = |(rank, host): (usize, &String)| format!("rank {rank} ({host})");
        let names: Vec<String> = texts(&ranks, &host).iter().enumerate().map(name).collect();
        let identities = texts(&ranks, config.identity);
        if let Some(other) = identities.iter().position(|identity| *identity != identities[0]) {
            let [found, expected] = [other, 0].map(|rank| identities[rank].clone());
            return Err(OpenError::OtherProgram { name: names[other].clone(), found, expected });
        }
        let of_machine = texts(&ranks.split_shared(ranks.rank()), config.cores);
        let sharing = of_machine.iter().filter(|cores| *cores == config.cores).count();
        let can_talk = threading == mpi::Threading::Multiple;
        let watching = Watching::start(Setting {
            rank: ranks.rank() as usize,
            names: names.clone(),
            patience: config.patience,
            can_talk,
            on_stall: config.on_stall,
        })?;
        Ok(Self {
            ranks,
            watching,
            names,
            sharing,
            can_talk,
            sequence: 0,
            ended: None,
            traffic: Traffic::default(),
            received: Vec::new(),
            sum: Vec::new(),
            _universe: universe,
        })
    }

    /// Each rank with its machine, as in messages.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Number of ranks on this machine that may use the same cores as this one, itself among them.
    pub fn sharing_cores(&self) -> usize {
        self.sharing
    }

    /// Whether ranks hear of each other while they compute. Where the library does not allow it, a rank that hangs is only
    /// noticed by those that wait for it, and cannot be named.
    pub fn hears_of_others(&self) -> bool {
        self.can_talk
    }

    /// Name and version of the library.
    pub fn library() -> String {
        let version = mpi::environment::library_version().unwrap_or_default();
        version.split([',', '\n', '\0']).next().unwrap_or_default().trim().to_owned()
    }

    /// What this rank has sent so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Leaves, together with all others: where they do not leave, they get an error with `failure`. Returns the error if
    /// another rank has failed and this one has not.
    pub fn leave(&mut self, failure: Option<&RankFailure>) -> Option<CollectiveError> {
        if self.ended.is_none() {
            let reason = failure.map_or(Vec::new(), failure::to_bytes);
            let headers = self.meet(Call::Leave, reason.len() as u64, 0);
            let error = self.reasons(&headers, &reason);
            self.ended = Some(error.filter(|error| error.failure.is_some()));
        }
        self.ended.clone().flatten().filter(|_| failure.is_none())
    }

    /// Begins a collective.
    fn enter(&mut self, call: Call, len: usize, root: usize) -> Result<Vec<Header>, CollectiveError> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone().unwrap_or_else(|| CollectiveError::left(self.rank())));
        }
        let headers = self.meet(call, len as u64, root as u64);
        let error = if first_leaving(&headers).is_some() {
            self.reasons(&headers, &[])
        } else {
            first_odd(&headers).map(|rank| self.other_call(rank, &headers))
        };
        match error {
            None => Ok(headers),
            Some(error) => {
                self.ended = Some(Some(error.clone()));
                self.watching.status().call = Call::None;
                Err(error)
            }
        }
    }

    fn other_call(&self, rank: usize, headers: &[Header]) -> CollectiveError {
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

    /// Waits for all ranks, each with what it begins.
    fn meet(&mut self, call: Call, len: u64, root: u64) -> Vec<Header> {
        self.sequence += 1;
        let own = Header { call, sequence: self.sequence, len, root };
        {
            let mut status = self.watching.status();
            (status.call, status.len, status.sequence) = (call, len, self.sequence);
        }
        let numbers = own.to_numbers();
        let mut all = vec![0u64; Header::LEN * self.world()];
        mpi::request::scope(|scope| {
            let mut waiting = self.ranks.immediate_all_gather_into(scope, &numbers[..], &mut all[..]);
            let since = Instant::now();
            while let Err(not_yet) = waiting.test() {
                waiting = not_yet;
                if since.elapsed() < SPIN { std::hint::spin_loop() } else { std::thread::sleep(NAP) }
            }
        });
        all.as_chunks().0.iter().map(Header::of_numbers).collect()
    }

    /// The error of the first rank that leaves and says why, or of the first that leaves. All ranks call it, with their
    /// own reason.
    fn reasons(&self, headers: &[Header], own: &[u8]) -> Option<CollectiveError> {
        let leaving = headers.iter().enumerate().filter(|(_, header)| header.call == Call::Leave);
        let mut first = None;
        for (rank, header) in leaving.filter(|(_, header)| header.len > 0) {
            let mut reason = if rank == self.rank() { own.to_vec() } else { vec![0; header.len as usize] };
            self.ranks.process_at_rank(rank as i32).broadcast_into(&mut reason[..]);
            let failure = Some(Box::new(failure::of_bytes(&reason)));
            first.get_or_insert(CollectiveError { rank, failure });
        }
        first.or_else(|| first_leaving(headers).map(CollectiveError::left))
    }

    fn leave_call(&mut self) {
        self.watching.status().call = Call::None;
    }
}

/// What each rank has, as text.
fn texts(ranks: &SimpleCommunicator, own: &str) -> Vec<String> {
    let mut lens = vec![0i32; ranks.size() as usize];
    ranks.all_gather_into(&(own.len() as i32), &mut lens[..]);
    let starts = starts(&lens);
    let mut all = vec![0u8; lens.iter().sum::<i32>() as usize];
    ranks.all_gather_varcount_into(own.as_bytes(), &mut PartitionMut::new(&mut all[..], &lens[..], &starts[..]));
    let text =
        |(start, len): (&i32, &i32)| String::from_utf8_lossy(&all[*start as usize..][..*len as usize]).into_owned();
    starts.iter().zip(&lens).map(text).collect()
}

/// Where parts of these lengths start, one behind the other.
fn starts(lens: &[i32]) -> Vec<i32> {
    lens.iter().scan(0, |end, len| Some(std::mem::replace(end, *end + len))).collect()
}

/// Replaces `values` by their sum over the ranks, in the order of ranks.
fn sum_over_ranks<V: Copy + Default + AddAssign + Equivalence>(
    ranks: &SimpleCommunicator,
    values: &mut [V],
    received: &mut Vec<V>,
    sum: &mut Vec<V>,
) {
    let (rank, world) = (ranks.rank() as usize, ranks.size() as usize);
    if values.len() <= FEW_VALUES {
        received.resize(values.len() * world, V::default());
        ranks.all_gather_into(&*values, &mut received[..]);
        return sum_in_order(received, values);
    }
    let slices = slices(values.len(), world);
    let lens: Vec<i32> = slices.iter().map(|slice| slice.len() as i32).collect();
    let places = starts(&lens);
    let own = vec![lens[rank]; world];
    received.resize(slices[rank].len() * world, V::default());
    sum.resize(slices[rank].len(), V::default());
    ranks.all_to_all_varcount_into(
        &Partition::new(&*values, &lens[..], &places[..]),
        &mut PartitionMut::new(&mut received[..], &own[..], &starts(&own)[..]),
    );
    sum_in_order(received, sum);
    ranks.all_gather_varcount_into(&sum[..], &mut PartitionMut::new(values, &lens[..], &places[..]));
}

/// The same in bf16: values are rounded before they are sent and added in f32, and the sums are rounded.
fn sum_over_ranks_in_bf16(ranks: &SimpleCommunicator, values: &mut [f32], sum: &mut Vec<f32>) {
    let (rank, world) = (ranks.rank() as usize, ranks.size() as usize);
    let mut bits: Vec<u16> = values.iter().map(|value| bf16::from_f32(*value).to_bits()).collect();
    let slices = slices(values.len(), world);
    let lens: Vec<i32> = slices.iter().map(|slice| slice.len() as i32).collect();
    let places = starts(&lens);
    let own = vec![lens[rank]; world];
    let mut received = vec![0u16; slices[rank].len() * world];
    ranks.all_to_all_varcount_into(
        &Partition::new(&bits[..], &lens[..], &places[..]),
        &mut PartitionMut::new(&mut received[..], &own[..], &starts(&own)[..]),
    );
    let received: Vec<f32> = received.into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect();
    sum.resize(slices[rank].len(), 0.0);
    sum_in_order(&received, sum);
    let sum: Vec<u16> = sum.iter().map(|sum| bf16::from_f32(*sum).to_bits()).collect();
    ranks.all_gather_varcount_into(&sum[..], &mut PartitionMut::new(&mut bits[..], &lens[..], &places[..]));
    values.iter_mut().zip(bits).for_each(|(value, bits)| *value = bf16::from_bits(bits).to_f32());
}

/// Values that are exchanged at a time where each rank has a part of them, so that little memory is needed.
const EXCHANGED: usize = 4 << 20;

/// Sums `values` up over the ranks, in the order of ranks, so that each gets its part; `to` and `from` are how values are sent.
fn sum_parts<V: Copy + Equivalence>(
    ranks: &SimpleCommunicator,
    values: &mut [f32],
    lens: &[usize],
    to: impl Fn(f32) -> V,
    from: impl Fn(V) -> f32,
) {
    let rank = ranks.rank() as usize;
    for start in (0..values.len()).step_by(EXCHANGED) {
        let range = start..values.len().min(start + EXCHANGED);
        let lens: Vec<i32> = lens_within(lens, range.clone()).into_iter().map(|len| len as i32).collect();
        let places = starts(&lens);
        let own_lens = vec![lens[rank]; lens.len()];
        let values = &mut values[range];
        let sent: Vec<V> = values.iter().map(|value| to(*value)).collect();
        let Some(any) = sent.first() else { continue };
        let mut received = vec![*any; lens[rank] as usize * lens.len()];
        ranks.all_to_all_varcount_into(
            &Partition::new(&sent[..], &lens[..], &places[..]),
            &mut PartitionMut::new(&mut received[..], &own_lens[..], &starts(&own_lens)[..]),
        );
        let received: Vec<f32> = received.into_iter().map(&from).collect();
        sum_in_order(&received, &mut values[places[rank] as usize..][..lens[rank] as usize]);
    }
}

/// Replaces each part of `values` by that of its rank.
fn gather_parts(ranks: &SimpleCommunicator, values: &mut [f32], lens: &[usize]) {
    let (rank, world) = (ranks.rank() as usize, lens.len());
    let begins: Vec<usize> = lens.iter().scan(0, |end, len| Some(std::mem::replace(end, *end + len))).collect();
    let at_once = (EXCHANGED / world).max(1);
    for start in (0..lens.iter().copied().max().unwrap_or(0)).step_by(at_once) {
        let counts: Vec<i32> = lens.iter().map(|len| len.saturating_sub(start).min(at_once) as i32).collect();
        let places = starts(&counts);
        let own = begins[rank] + start;
        let own = values[own.min(values.len())..][..counts[rank] as usize].to_vec();
        let mut received = vec![0.0; counts.iter().sum::<i32>() as usize];
        ranks.all_gather_varcount_into(&own[..], &mut PartitionMut::new(&mut received[..], &counts[..], &places[..]));
        for (of_rank, begin) in begins.iter().enumerate().filter(|(of_rank, _)| counts[*of_rank] > 0) {
            let (place, count) = (places[of_rank] as usize, counts[of_rank] as usize);
            values[begin + start..][..count].copy_from_slice(&received[place..][..count]);
        }
    }
}

impl Collective for MpiRanks {
    fn rank(&self) -> usize {
        self.ranks.rank() as usize
    }

    fn world(&self) -> usize {
        self.ranks.size() as usize
    }

    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.enter(Call::AllReduce, values.len(), 0)?;
        for part in values.chunks_mut(MOST_VALUES) {
            sum_over_ranks(&self.ranks, part, &mut self.received, &mut self.sum);
            self.traffic.sent_bytes += match part.len() <= FEW_VALUES {
                true => (size_of_val(part) * (self.world() - 1)) as u64,
                false => sent_bytes(part.len(), size_of::<f32>(), self.rank(), self.world()),
            };
        }
        self.traffic.sums += 1;
        self.leave_call();
        Ok(())
    }

    fn all_reduce_sum_bf16(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.enter(Call::AllReduce, values.len(), 0)?;
        for part in values.chunks_mut(MOST_VALUES) {
            sum_over_ranks_in_bf16(&self.ranks, part, &mut self.sum);
            self.traffic.sent_bytes += sent_bytes(part.len(), size_of::<bf16>(), self.rank(), self.world());
        }
        self.traffic.sums += 1;
        self.leave_call();
        Ok(())
    }

    fn all_reduce_sum_f64(&mut self, values: &mut [f64]) -> Result<(), CollectiveError> {
        self.enter(Call::AllReduce, values.len(), 0)?;
        let parts = values.chunks_mut(MOST_VALUES);
        parts.for_each(|part| sum_over_ranks(&self.ranks, part, &mut Vec::new(), &mut Vec::new()));
        self.leave_call();
        Ok(())
    }

    fn reduce_scatter_sum(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError> {
        self.enter(Call::ReduceScatter, values.len(), 0)?;
        sum_parts(&self.ranks, values, lens, |value| value, |value| value);
        self.traffic.sent_bytes += scattered_bytes(lens, size_of::<f32>(), self.rank());
        self.traffic.sums += 1;
        self.leave_call();
        Ok(())
    }

    fn reduce_scatter_sum_bf16(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError> {
        self.enter(Call::ReduceScatter, values.len(), 0)?;
        sum_parts(&self.ranks, values, lens, |v| bf16::from_f32(v).to_bits(), |bits| bf16::from_bits(bits).to_f32());
        let start: usize = lens[..self.rank()].iter().sum();
        let own = &mut values[start..start + lens[self.rank()]];
        own.iter_mut().for_each(|sum| *sum = bf16::from_f32(*sum).to_f32());
        self.traffic.sent_bytes += scattered_bytes(lens, size_of::<bf16>(), self.rank());
        self.traffic.sums += 1;
        self.leave_call();
        Ok(())
    }

    fn all_gather(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError> {
        self.enter(Call::AllGather, values.len(), 0)?;
        gather_parts(&self.ranks, values, lens);
        self.traffic.sent_bytes += gathered_bytes(lens, size_of::<f32>(), self.rank());
        self.leave_call();
        Ok(())
    }

    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), CollectiveError> {
        self.enter(Call::Broadcast, values.len(), root)?;
        let root = self.ranks.process_at_rank(root as i32);
        values.chunks_mut(MOST_VALUES).for_each(|part| root.broadcast_into(part));
        self.leave_call();
        Ok(())
    }

    fn broadcast_bytes(&mut self, bytes: &mut Vec<u8>, root: usize) -> Result<(), CollectiveError> {
        let len = if self.rank() == root { bytes.len() } else { 0 };
        let headers = self.enter(Call::Broadcast, len, root)?;
        bytes.resize(headers[root].len as usize, 0);
        let root = self.ranks.process_at_rank(root as i32);
        bytes.chunks_mut(MOST_VALUES).for_each(|part| root.broadcast_into(part));
        self.leave_call();
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.enter(Call::Barrier, 0, 0)?;
        self.leave_call();
        Ok(())
    }

    fn announce(&mut self, activity: Activity) {
        let mut status = self.watching.status();
        (status.step, status.is_alone) = match activity {
            Activity::Step(step) => (step, false),
            Activity::Alone(steps) => (steps, true),
        };
    }
}

impl Drop for MpiRanks {
    fn drop(&mut self) {
        let panicked =
            RankFailure { message: "it panicked; its own output says where".into(), hint: None, is_users_fault: false };
        self.leave(std::thread::panicking().then_some(&panicked));
        self.watching.stop();
    }
}
