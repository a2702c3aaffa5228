//! The thread that sends signs of life: a send may block where the network is cut, and whoever watches must not.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The thread, and what it is to send next.
pub(crate) struct Outbox<M> {
    shared: Arc<Shared<M>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<M> {
    next: Mutex<Next<M>>,
    changed: Condvar,
}

struct Next<M> {
    /// The newest message; an older one that is not on its way yet is of no use any more.
    message: Option<M>,
    is_over: bool,
}

impl<M: Send + 'static> Outbox<M> {
    /// Starts the thread, which calls `send` with each message.
    pub(crate) fn start(mut send: impl FnMut(M) + Send + 'static) -> std::io::Result<Self> {
        let next = Mutex::new(Next { message: None, is_over: false });
        let shared = Arc::new(Shared { next, changed: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        let work = move || {
            while let Some(message) = of_thread.wait() {
                send(message);
            }
        };
        let thread = Some(std::thread::Builder::new().name("signs of life".into()).spawn(work)?);
        Ok(Self { shared, thread })
    }

    /// Has a message sent as soon as the one before is, and returns at once.
    pub(crate) fn post(&self, message: M) {
        self.shared.lock().message = Some(message);
        self.shared.changed.notify_all();
    }

    /// Ends the thread, behind the message that it is sending.
    pub(crate) fn stop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it has nothing to return, and its panic is on stderr
        }
    }
}

impl<M> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, Next<M>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message; none at the end.
    fn wait(&self) -> Option<M> {
        let next = self.changed.wait_while(self.lock(), |next| next.message.is_none() && !next.is_over);
        let mut next = next.unwrap_or_else(PoisonError::into_inner);
        if next.is_over { None } else { next.message.take() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_send_that_blocks_holds_up_nobody_and_the_newest_message_comes_next() {
        let ((sending, sent), (release, blocks)) = (channel(), channel());
        let mut outbox = Outbox::start(move |message: u32| {
            sending.send(message).unwrap();
            blocks.recv().unwrap();
        })
        .unwrap();
        outbox.post(1);
        assert_eq!(sent.recv().unwrap(), 1);
        (2..100).for_each(|message| outbox.post(message)); // the first is on its way all the time
        release.send(()).unwrap();
        assert_eq!(sent.recv().unwrap(), 99);
        release.send(()).unwrap();
        outbox.stop();
        assert!(sent.try_recv().is_err());
    }
}
