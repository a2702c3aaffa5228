//! A rank of an MPI job.

use crate::beside::{Beside, Span, lock};
use crate::exchange::{Buffers, MOST_VALUES, Waiting, gather_parts, starts, sum_over_ranks};
use crate::protocol::Protocol;
use crate::slices::gathered_bytes;
use crate::timeline::{OnLine, Timeline};
use crate::watch::{Call, OnStall};
use crate::watching::{Opening, Setting, Shared, Watching};
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Destination, Root, Source};
use simmim_engine::{Activity, Collective, CollectiveError, RankFailure, Sum};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Marks bytes that the first rank gathers.
const TAG: i32 = 2;

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
    /// Whether gradients are summed while the backward pass goes on, by a thread for it; not if the library allows one
    /// thread only.
    pub sums_beside: bool,
    /// Called with a line for each sum of gradients: when it was asked for, begun and done.
    pub on_timeline: Option<OnLine>,
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
    /// There is no thread to watch the others, or to sum gradients.
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
    protocol: Arc<Mutex<Protocol>>,
    watching: Watching,
    watched: Arc<Shared>,
    beside: Option<Beside>,
    timeline: Option<Timeline>,
    names: Vec<String>,
    sharing: usize,
    can_talk: bool,
    /// Ends MPI when it is dropped, as the last of all.
    _universe: Universe,
}

impl MpiRanks {
    /// Begins MPI. All processes of the job call it.
    ///
    /// # Errors
    /// If MPI was begun before, a rank has another identity, or no thread can be started.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        let opening = Opening::watch(config.patience, Arc::clone(&config.on_stall))?;
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
        drop(opening);
        let watching = Watching::start(Setting {
            rank: ranks.rank() as usize,
            names: names.clone(),
            patience: config.patience,
            can_talk,
            on_stall: config.on_stall,
        })?;
        let watched = watching.shared();
        let protocol = Arc::new(Mutex::new(Protocol::new(Arc::clone(&watched))));
        let beside = match config.sums_beside && can_talk && ranks.size() > 1 {
            true => Some(Beside::start(Arc::clone(&protocol))?),
            false => None,
        };
        let timeline = config.on_timeline.map(Timeline::new);
        Ok(Self { ranks, protocol, watching, watched, beside, timeline, names, sharing, can_talk, _universe: universe })
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
        lock(&self.protocol).traffic
    }

    /// Leaves, together with all others: where they do not leave, they get an error with `failure`. Returns the error if
    /// another rank has failed and this one has not.
    pub fn leave(&mut self, failure: Option<&RankFailure>) -> Option<CollectiveError> {
        let _ = self.finish_sums(); // those that it has begun, the others wait for
        lock(&self.protocol).leave(&self.ranks, failure)
    }

    /// Sums `values` at once.
    fn sum(&mut self, values: &mut [f32], lens: Option<&[usize]>, in_bf16: bool) -> Result<(), CollectiveError> {
        let (count, begun) = (values.len(), Instant::now());
        lock(&self.protocol).sum(&self.ranks, Waiting::Busy, values, lens, in_bf16)?;
        if let Some(timeline) = &mut self.timeline {
            timeline.add(&[Span { values: count, asked: begun, begun, done: Instant::now() }]);
        }
        Ok(())
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

impl Collective for MpiRanks {
    fn rank(&self) -> usize {
        self.ranks.rank() as usize
    }

    fn world(&self) -> usize {
        self.ranks.size() as usize
    }

    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.sum(values, None, false)
    }

    fn all_reduce_sum_bf16(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.sum(values, None, true)
    }

    fn reduce_scatter_sum(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError> {
        self.sum(values, Some(lens), false)
    }

    fn reduce_scatter_sum_bf16(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError> {
        self.sum(values, Some(lens), true)
    }

    fn sums_beside(&self) -> bool {
        self.beside.is_some()
    }

    fn begin_sum(&mut self, sum: Sum) -> Result<(), CollectiveError> {
        self.beside.as_mut().expect("sums can go on beside").begin(sum);
        Ok(())
    }

    fn finish_sums(&mut self) -> Result<Vec<Sum>, CollectiveError> {
        let computed = Instant::now();
        let (sums, spans) = self.beside.as_mut().map_or((Ok(Vec::new()), Vec::new()), Beside::finish);
        if let Some(timeline) = &mut self.timeline {
            timeline.add(&spans);
            timeline.say(computed);
        }
        sums
    }

    fn all_reduce_sum_f64(&mut self, values: &mut [f64]) -> Result<(), CollectiveError> {
        let mut protocol = lock(&self.protocol);
        protocol.enter(&self.ranks, Call::AllReduce, values.len(), 0)?;
        let parts = values.chunks_mut(MOST_VALUES);
        parts.for_each(|part| sum_over_ranks(&self.ranks, Waiting::Busy, part, &mut Buffers::default()));
        protocol.leave_call();
        Ok(())
    }

    fn all_gather(&mut self, values: &mut [f32], lens: &[usize]) -> Result<(), CollectiveError> {
        let mut protocol = lock(&self.protocol);
        protocol.enter(&self.ranks, Call::AllGather, values.len(), 0)?;
        gather_parts(&self.ranks, values, lens);
        protocol.traffic.sent_bytes += gathered_bytes(lens, size_of::<f32>(), self.rank());
        protocol.leave_call();
        Ok(())
    }

    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), CollectiveError> {
        let mut protocol = lock(&self.protocol);
        protocol.enter(&self.ranks, Call::Broadcast, values.len(), root)?;
        let root = self.ranks.process_at_rank(root as i32);
        values.chunks_mut(MOST_VALUES).for_each(|part| root.broadcast_into(part));
        protocol.leave_call();
        Ok(())
    }

    fn broadcast_bytes(&mut self, bytes: &mut Vec<u8>, root: usize) -> Result<(), CollectiveError> {
        let len = if self.rank() == root { bytes.len() } else { 0 };
        let mut protocol = lock(&self.protocol);
        let headers = protocol.enter(&self.ranks, Call::Broadcast, len, root)?;
        bytes.resize(headers[root].len as usize, 0);
        let root = self.ranks.process_at_rank(root as i32);
        bytes.chunks_mut(MOST_VALUES).for_each(|part| root.broadcast_into(part));
        protocol.leave_call();
        Ok(())
    }

    fn gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let mut protocol = lock(&self.protocol);
        let headers = protocol.enter(&self.ranks, Call::Gather, bytes.len(), 0)?;
        let mut all = Vec::new();
        if self.rank() == 0 {
            all.push(bytes.to_vec());
            for (rank, header) in headers.iter().enumerate().skip(1) {
                let mut of_rank = vec![0; header.len as usize];
                let sender = self.ranks.process_at_rank(rank as i32);
                for part in of_rank.chunks_mut(MOST_VALUES) {
                    sender.receive_into_with_tag(part, TAG);
                }
                all.push(of_rank);
            }
        } else {
            let first = self.ranks.process_at_rank(0);
            bytes.chunks(MOST_VALUES).for_each(|part| first.send_with_tag(part, TAG));
        }
        protocol.leave_call();
        Ok(all)
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        let mut protocol = lock(&self.protocol);
        protocol.enter(&self.ranks, Call::Barrier, 0, 0)?;
        protocol.leave_call();
        Ok(())
    }

    fn announce(&mut self, activity: Activity) {
        let mut status = self.watched.status();
        (status.step, status.is_alone) = match activity {
            Activity::Step(step) => (step, false),
            Activity::Alone(steps) => (steps, true),
        };
        if let (Some(timeline), Activity::Step(step)) = (&mut self.timeline, activity) {
            timeline.begin(step);
        }
    }
}

impl Drop for MpiRanks {
    fn drop(&mut self) {
        let panicked =
            RankFailure { message: "it panicked; its own output says where".into(), hint: None, is_users_fault: false };
        self.leave(std::thread::panicking().then_some(&panicked));
        self.beside.iter_mut().for_each(Beside::stop);
        self.watching.stop();
    }
}
