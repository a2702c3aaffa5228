//! The thread of a rank that sends signs of life, and notices when a job cannot go on.

use crate::watch::{Call, OnStall, Seen, Stall, Status, judge};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, Destination, MatchedReceiveVec, Source};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Marks signs of life.
const TAG: i32 = 1;

/// The thread, and what it knows of its rank.
pub(crate) struct Watching {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    status: Mutex<Status>,
    is_over: Mutex<bool>,
    ended: Condvar,
}

/// What the thread is started with.
pub(crate) struct Setting {
    pub(crate) rank: usize,
    /// Name of each rank.
    pub(crate) names: Vec<String>,
    /// How long a rank is waited for.
    pub(crate) patience: Duration,
    /// Whether the library lets a second thread communicate.
    pub(crate) can_talk: bool,
    pub(crate) on_stall: OnStall,
}

impl Watching {
    /// Starts the thread. All ranks call it together, and nothing else of MPI meanwhile.
    pub(crate) fn start(setting: Setting) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (of_thread, (ready, is_ready)) = (Arc::clone(&shared), channel());
        let thread =
            std::thread::Builder::new().name("watch".into()).spawn(move || watch(&of_thread, &setting, &ready))?;
        let _ = is_ready.recv(); // an error means that the thread is gone, which `stop` will tell
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What this rank does; changes are seen by the thread.
    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        lock(&self.shared.status)
    }

    /// Ends the thread.
    pub(crate) fn stop(&mut self) {
        *lock(&self.shared.is_over) = true;
        self.shared.ended.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it has nothing to return, and its panic is on stderr
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(shared: &Shared, setting: &Setting, ready: &Sender<()>) {
    let Setting { rank, names, patience, can_talk, on_stall } = setting;
    // a communicator of its own, so that signs of life and collectives do not meet
    let ranks = can_talk.then(|| SimpleCommunicator::world().duplicate());
    let _ = ready.send(());
    let every = (*patience / 10).clamp(Duration::from_millis(100), Duration::from_secs(5));
    let mut seen = vec![Seen::default(); names.len()];
    let (mut last, mut waiting) = (Instant::now(), Duration::ZERO);
    loop {
        let is_over = lock(&shared.is_over);
        let (is_over, _) = shared
            .ended
            .wait_timeout_while(is_over, every, |is_over| !*is_over)
            .unwrap_or_else(PoisonError::into_inner);
        if *is_over {
            return;
        }
        // a process that was stopped for longer saw nothing of that time, and so did the others if all were
        let (passed, was_stopped) = (last.elapsed().min(2 * every), last.elapsed() > 2 * every);
        last = Instant::now();
        let mut own = *lock(&shared.status);
        let is_waiting = own.call != Call::None && own.sequence == seen[*rank].status.sequence;
        waiting = if is_waiting { waiting + passed } else { Duration::ZERO };
        own.waiting_ms = waiting.as_millis() as u64;
        seen.iter_mut().for_each(|seen| seen.silent += passed);
        seen[*rank] = Seen { status: own, silent: Duration::ZERO };
        let stall = match &ranks {
            Some(ranks) => {
                exchange(ranks, own, &mut seen);
                judge(*rank, &seen, *patience).filter(|_| !was_stopped) // what it has of others may be old
            }
            None if waiting > *patience => Some(Stall::Waiting { waits: own.to_string() }),
            None => None,
        };
        if let Some(stall) = stall {
            let heard = |of: &usize| *rank == 0 && ranks.is_some() || of == rank;
            let lines: Vec<String> = (0..names.len())
                .filter(heard)
                .map(|of| format!("{} {}{}", names[of], seen[of].status, silence(seen[of].silent, every)))
                .collect();
            on_stall(&stall, &lines);
            return;
        }
    }
}

/// Sends this rank's status to the first one, or to all if it is the first, and takes in what has come.
fn exchange(ranks: &SimpleCommunicator, own: Status, seen: &mut [Seen]) {
    let receivers = if ranks.rank() == 0 { 1..ranks.size() } else { 0..1 };
    for receiver in receivers {
        ranks.process_at_rank(receiver).send_with_tag(&own.to_numbers()[..], TAG);
    }
    while let Some(message) = ranks.any_process().immediate_matched_probe_with_tag(TAG) {
        let (numbers, from) = message.matched_receive_vec::<u64>();
        if let Some(numbers) = numbers.first_chunk() {
            seen[from.source_rank() as usize] = Seen { status: Status::of_numbers(*numbers), silent: Duration::ZERO };
        }
    }
}

fn silence(silent: Duration, every: Duration) -> String {
    if silent > 3 * every { format!(", as it said {} s ago", silent.as_secs()) } else { String::new() }
}
