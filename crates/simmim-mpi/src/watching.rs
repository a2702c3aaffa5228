//! The thread of a rank that hears signs of life, and notices when a job cannot go on.

use crate::outbox::Outbox;
use crate::watch::{Call, OnStall, Seen, Stall, Status, judge};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, Destination, MatchedReceiveVec, Source};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Marks signs of life, which so do not meet what collectives send from one rank to another.
const TAG: i32 = 1;

/// The thread, and what it knows of its rank.
pub(crate) struct Watching {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread knows of its rank.
#[derive(Default)]
pub(crate) struct Shared {
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
    /// Starts the thread.
    pub(crate) fn start(setting: Setting) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let (rank, world) = (setting.rank, setting.names.len());
        let outbox = match setting.can_talk {
            true => Some(Outbox::start(move |status| send(rank, world, status))?),
            false => None,
        };
        let work = move || watch(&of_thread, &setting, outbox);
        let thread = std::thread::Builder::new().name("watch".into()).spawn(work)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What the thread knows of this rank.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
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

impl Shared {
    /// What this rank does; changes are seen by the thread.
    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        lock(&self.status)
    }
}

/// Calls `on_stall` in a thread if MPI has not begun after `patience`: it waits for ranks that never come.
pub(crate) struct Opening {
    begun: Option<Sender<()>>,
}

impl Opening {
    pub(crate) fn watch(patience: Duration, on_stall: OnStall) -> std::io::Result<Self> {
        let (begun, has_begun) = channel::<()>();
        std::thread::Builder::new().name("opening".into()).spawn(move || {
            if has_begun.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                on_stall(&Stall::Opening { waited_s: patience.as_secs() }, &[]);
            }
        })?;
        Ok(Self { begun: Some(begun) })
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        drop(self.begun.take()); // which the thread hears
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(shared: &Shared, setting: &Setting, mut outbox: Option<Outbox<Status>>) {
    let Setting { rank, names, patience, can_talk, on_stall } = setting;
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
            drop(is_over);
            outbox.iter_mut().for_each(Outbox::stop);
            return;
        }
        drop(is_over);
        // a process that was stopped for longer saw nothing of that time, and so did the others if all were
        let (passed, was_stopped) = (last.elapsed().min(2 * every), last.elapsed() > 2 * every);
        last = Instant::now();
        let mut own = *lock(&shared.status);
        let is_waiting = own.call != Call::None && own.sequence == seen[*rank].status.sequence;
        waiting = if is_waiting { waiting + passed } else { Duration::ZERO };
        own.waiting_ms = waiting.as_millis() as u64;
        seen.iter_mut().for_each(|seen| seen.silent += passed);
        seen[*rank] = Seen { status: own, silent: Duration::ZERO };
        let stall = match &outbox {
            Some(outbox) => {
                outbox.post(own);
                hear(&mut seen);
                judge(*rank, &seen, *patience).filter(|_| !was_stopped) // what it has of others may be old
            }
            None if waiting > *patience => Some(Stall::Waiting { waits: own.to_string() }),
            None => None,
        };
        if let Some(stall) = stall {
            let heard = |of: &usize| *rank == 0 && *can_talk || of == rank;
            let lines: Vec<String> = (0..names.len())
                .filter(heard)
                .map(|of| format!("{} {}{}", names[of], seen[of].status, silence(seen[of].silent, every)))
                .collect();
            on_stall(&stall, &lines);
            return; // a sign of life that is on its way may never be: nobody waits for that thread
        }
    }
}

/// Sends a rank's status to the first one, or to all if it is the first.
fn send(rank: usize, world: usize, status: Status) {
    let receivers = if rank == 0 { 1..world } else { 0..1 };
    let ranks = SimpleCommunicator::world();
    receivers.for_each(|receiver| {
        ranks.process_at_rank(receiver as i32).send_with_tag(&status.to_numbers()[..], TAG);
    });
}

/// Takes in what has come.
fn hear(seen: &mut [Seen]) {
    while let Some(message) = SimpleCommunicator::world().any_process().immediate_matched_probe_with_tag(TAG) {
        let (numbers, from) = message.matched_receive_vec::<u64>();
        if let Some(numbers) = numbers.first_chunk() {
            seen[from.source_rank() as usize] = Seen { status: Status::of_numbers(*numbers), silent: Duration::ZERO };
        }
    }
}

fn silence(silent: Duration, every: Duration) -> String {
    if silent > 3 * every { format!(", as it said {} s ago", silent.as_secs()) } else { String::new() }
}
