//! The thread that sums gradients while its rank computes, and when it did so.

use crate::exchange::Waiting;
use crate::protocol::Protocol;
use mpi::topology::SimpleCommunicator;
use simmim_engine::{CollectiveError, Sum};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// When a sum was asked for, begun, and done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) values: usize,
    pub(crate) asked: Instant,
    pub(crate) begun: Instant,
    pub(crate) done: Instant,
}

/// The thread, and the sums that it has not given back.
pub(crate) struct Beside {
    asked: Option<Sender<(Sum, Instant)>>,
    done: Receiver<(Result<Sum, CollectiveError>, Span)>,
    outstanding: usize,
    thread: Option<JoinHandle<()>>,
}

impl Beside {
    /// Starts the thread, which sums what it is given, one after the other.
    pub(crate) fn start(protocol: Arc<Mutex<Protocol>>) -> std::io::Result<Self> {
        let ((asked, to_sum), (give_back, done)) = (channel::<(Sum, Instant)>(), channel());
        let work = move || {
            let ranks = SimpleCommunicator::world();
            for (mut sum, asked) in to_sum {
                let (values, begun) = (sum.values.len(), Instant::now());
                let Sum { values: summed, lens, in_bf16 } = &mut sum;
                let result = lock(&protocol).sum(&ranks, Waiting::Napping, summed, lens.as_deref(), *in_bf16);
                let span = Span { values, asked, begun, done: Instant::now() };
                if give_back.send((result.map(|()| sum), span)).is_err() {
                    return; // the rank is gone
                }
            }
        };
        let thread = Some(std::thread::Builder::new().name("sums".into()).spawn(work)?);
        Ok(Self { asked: Some(asked), done, outstanding: 0, thread })
    }

    /// Has a sum made behind those that were asked for before.
    pub(crate) fn begin(&mut self, sum: Sum) {
        let asked = self.asked.as_ref().expect("the thread runs until the rank ends");
        if asked.send((sum, Instant::now())).is_ok() {
            self.outstanding += 1;
        }
    }

    /// Waits for all sums, and returns them in their order, with when they were made.
    pub(crate) fn finish(&mut self) -> (Result<Vec<Sum>, CollectiveError>, Vec<Span>) {
        let outstanding = std::mem::take(&mut self.outstanding);
        let (sums, spans): (Vec<_>, Vec<Span>) = (0..outstanding).map_while(|_| self.done.recv().ok()).unzip();
        assert_eq!(spans.len(), outstanding, "the thread makes every sum");
        (sums.into_iter().collect(), spans)
    }

    /// Ends the thread.
    pub(crate) fn stop(&mut self) {
        drop(self.asked.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it has nothing to return, and its panic is on stderr
        }
    }
}

/// The state that threads share.
pub(crate) fn lock(protocol: &Mutex<Protocol>) -> MutexGuard<'_, Protocol> {
    protocol.lock().unwrap_or_else(PoisonError::into_inner)
}
