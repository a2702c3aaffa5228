//! What ranks tell each other of themselves, and when one of them has been waited for too long.
//!
//! MPI reports no error for a link that is cut or a process that is stopped: a collective just does not return. So every
//! rank sends a sign of life to the first one from a thread of its own, with what it does, and the first rank to all. The
//! first rank can then tell a rank that is silent from one that lives and does not come, and the others notice if
//! the first one is silent. Time that a rank did not see itself, because it was stopped, does not count.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// So many times longer than for a common step is a rank waited for that works alone.
const PATIENCE_WITH_ONE_ALONE: u32 = 12;

/// What a rank is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Call {
    /// No collective.
    #[default]
    None,
    /// A sum over all ranks.
    AllReduce,
    /// Values of one rank for all.
    Broadcast,
    /// Waiting for all.
    Barrier,
    /// The end of the job.
    Leave,
    /// A sum over all ranks, of which each gets a part.
    ReduceScatter,
    /// A part of each rank for all.
    AllGather,
    /// Bytes of each rank for the first one.
    Gather,
}

impl Call {
    const ALL: [Call; 8] = [
        Call::None,
        Call::AllReduce,
        Call::Broadcast,
        Call::Barrier,
        Call::Leave,
        Call::ReduceScatter,
        Call::AllGather,
        Call::Gather,
    ];

    /// Its number on the wire.
    pub fn number(self) -> u64 {
        self as u64
    }

    /// The call with this number; none for what is not known.
    pub fn of_number(number: u64) -> Self {
        Self::ALL.get(number as usize).copied().unwrap_or_default()
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Call::None => "no collective",
            Call::AllReduce => "an all-reduce",
            Call::Broadcast => "a broadcast",
            Call::Barrier => "a barrier",
            Call::Leave => "the end of the job",
            Call::ReduceScatter => "a reduce-scatter",
            Call::AllGather => "an all-gather",
            Call::Gather => "a gather",
        })
    }
}

/// What a rank says of itself in a sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The collective that it is in.
    pub call: Call,
    /// Number of values or bytes of that.
    pub len: u64,
    /// Number of collectives that it has begun.
    pub sequence: u64,
    /// The step that it computes, or the number of steps done while it works alone.
    pub step: u64,
    /// Whether it does what the others need not do.
    pub is_alone: bool,
    /// How long it has been in the collective, in milliseconds.
    pub waiting_ms: u64,
}

impl Status {
    /// Numbers of a status on the wire.
    pub const LEN: usize = 6;

    /// The status as numbers.
    pub fn to_numbers(self) -> [u64; Self::LEN] {
        [self.call.number(), self.len, self.sequence, self.step, u64::from(self.is_alone), self.waiting_ms]
    }

    /// The status of these numbers.
    pub fn of_numbers([call, len, sequence, step, is_alone, waiting_ms]: [u64; Self::LEN]) -> Self {
        Self { call: Call::of_number(call), len, sequence, step, is_alone: is_alone != 0, waiting_ms }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Status { call, len, step, waiting_ms, .. } = self;
        match call {
            Call::None if self.is_alone => write!(f, "works alone after step {step}"),
            Call::None if *step == 0 => f.write_str("has not begun its first step"),
            Call::None => write!(f, "computes step {step}"),
            Call::Barrier | Call::Leave => write!(f, "waits in {call} for {} s, step {step}", waiting_ms / 1000),
            Call::AllReduce | Call::Broadcast | Call::ReduceScatter | Call::AllGather | Call::Gather => {
                write!(f, "waits in {call} of {len} for {} s, step {step}", waiting_ms / 1000)
            }
        }
    }
}

/// A rank as it is seen by another one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// What it said last.
    pub status: Status,
    /// How long ago that was.
    pub silent: Duration,
}

/// Why a job cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stall {
    /// A rank has given no sign of life.
    Silent {
        /// The rank.
        rank: usize,
        /// For how long.
        silent_s: u64,
    },
    /// Ranks wait for one that lives and does not come.
    Late {
        /// The rank that does not come.
        rank: usize,
        /// What it does.
        status: String,
        /// A rank that waits for it.
        waiting: usize,
        /// What that one waits in.
        waits: String,
    },
    /// All ranks are in the same collective, which does not end.
    Stuck {
        /// What the rank that has been waiting longest waits in.
        waits: String,
    },
    /// MPI has not begun: a rank does not come.
    Opening {
        /// For how long.
        waited_s: u64,
    },
    /// This rank waits, and does not know for whom, because the library allows no thread to ask.
    Waiting {
        /// What it waits in.
        waits: String,
    },
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Stall::Silent { rank, silent_s } => write!(
                f,
                "rank {rank} has given no sign of life for {silent_s} s: it or its machine hangs, or the network to it is cut"
            ),
            Stall::Late { rank, status, waiting, waits } => {
                write!(f, "rank {rank} does not come: it {status}, while rank {waiting} {waits}")
            }
            Stall::Stuck { waits } => {
                write!(
                    f,
                    "all ranks are in the same collective, which does not end: the network between them fails ({waits})"
                )
            }
            Stall::Opening { waited_s } => write!(
                f,
                "MPI has not begun after {waited_s} s: a rank was not started or hangs, or the network between ranks is cut"
            ),
            Stall::Waiting { waits } => write!(f, "this rank {waits}: another rank hangs, or the network to it is cut"),
        }
    }
}

/// What is done when a job cannot go on; it gets why, and a line for each rank that this one hears from.
pub type OnStall = Arc<dyn Fn(&Stall, &[String]) + Send + Sync>;

/// What `rank` finds wrong when it sees all ranks like this. Only the first rank hears from all; the others judge the
/// first one, and later than it, so that it can say who is silent.
pub fn judge(rank: usize, seen: &[Seen], patience: Duration) -> Option<Stall> {
    let silent = |of: usize, patience: Duration| {
        let silent = seen[of].silent;
        (silent > patience).then_some(Stall::Silent { rank: of, silent_s: silent.as_secs() })
    };
    if rank != 0 {
        return silent(0, patience + patience / 2);
    }
    (1..seen.len()).find_map(|of| silent(of, patience)).or_else(|| late(seen, patience))
}

/// The first rank that lives and has been waited for too long.
fn late(seen: &[Seen], patience: Duration) -> Option<Stall> {
    let (waiting, first) = seen
        .iter()
        .map(|seen| seen.status)
        .enumerate()
        .filter(|(_, status)| status.call != Call::None)
        .max_by_key(|(_, status)| status.waiting_ms)?;
    let waited = Duration::from_millis(first.waiting_ms);
    if waited <= patience {
        return None;
    }
    let mut absent = seen.iter().enumerate().filter(|(_, seen)| seen.status.sequence < first.sequence).peekable();
    if absent.peek().is_none() {
        return Some(Stall::Stuck { waits: format!("rank {waiting} {first}") });
    }
    let most = |status: &Status| if status.is_alone { patience * PATIENCE_WITH_ONE_ALONE } else { patience };
    let (rank, seen) = absent.find(|(_, seen)| waited > most(&seen.status))?;
    Some(Stall::Late { rank, status: seen.status.to_string(), waiting, waits: first.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn waits(sequence: u64, seconds: u64) -> Seen {
        let status =
            Status { call: Call::AllReduce, len: 64, sequence, step: 3, is_alone: false, waiting_ms: 1000 * seconds };
        Seen { status, silent: Duration::ZERO }
    }

    fn works(sequence: u64, is_alone: bool) -> Seen {
        let status = Status { sequence, step: 3, is_alone, ..Status::default() };
        Seen { status, silent: Duration::ZERO }
    }

    #[test]
    fn a_rank_that_others_wait_for_too_long_is_named() {
        assert_eq!(judge(0, &[waits(8, 9), works(7, false)], PATIENCE), None);
        let stall = judge(0, &[works(8, false), waits(8, 11), works(7, false)], PATIENCE).unwrap();
        assert_eq!(
            stall.to_string(),
            "rank 2 does not come: it computes step 3, while rank 1 waits in an all-reduce of 64 for 11 s, step 3"
        );
        let stall = judge(0, &[works(7, false), waits(8, 11)], PATIENCE).unwrap();
        assert!(stall.to_string().starts_with("rank 0 does not come"), "{stall}");
    }

    #[test]
    fn a_rank_that_works_alone_is_waited_for_longer() {
        assert_eq!(judge(0, &[works(7, true), waits(8, 119)], PATIENCE), None);
        assert!(judge(0, &[works(7, true), waits(8, 121)], PATIENCE).is_some());
    }

    #[test]
    fn a_collective_that_all_are_in_and_that_does_not_end_is_the_networks_fault() {
        let stall = judge(0, &[waits(8, 11), waits(8, 10)], PATIENCE).unwrap();
        assert!(stall.to_string().starts_with("all ranks are in the same collective"), "{stall}");
    }

    #[test]
    fn a_silent_rank_is_named_by_the_first_one_before_the_others_miss_the_first() {
        let silent = |seconds| Seen { silent: Duration::from_secs(seconds), ..works(7, false) };
        let said = "rank 1 has given no sign of life for 11 s: it or its machine hangs, or the network to it is cut";
        assert_eq!(judge(0, &[works(7, false), silent(11)], PATIENCE).unwrap().to_string(), said);
        assert_eq!(judge(1, &[silent(11), works(7, false)], PATIENCE), None);
        assert!(judge(1, &[silent(16), works(7, false)], PATIENCE).is_some());
        assert_eq!(
            judge(2, &[works(7, false), silent(99), works(7, false)], PATIENCE),
            None,
            "it hears only the first"
        );
    }

    #[test]
    fn a_status_survives_the_wire() {
        for call in Call::ALL {
            let status = Status { call, len: 5, sequence: 9, step: 2, is_alone: true, waiting_ms: 1500 };
            assert_eq!(Status::of_numbers(status.to_numbers()), status);
        }
    }
}
