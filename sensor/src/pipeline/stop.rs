//! Takes the signals that end a command; says, to whoever asks in between or waits for something
//! else, that one came. Never ends anything itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvError, select};

/// A wish to stop, once it was uttered.
pub(crate) struct Stop {
    signals: Receiver<()>,
    is_requested: AtomicBool,
}

impl Stop {
    /// Each message of `signals` is a wish to stop.
    pub(crate) fn new(signals: Receiver<()>) -> Self {
        Self { signals, is_requested: AtomicBool::new(false) }
    }

    /// Whether somebody wants to stop.
    pub(crate) fn is_requested(&self) -> bool {
        if self.signals.try_recv().is_ok() {
            self.request();
        }
        self.is_requested.load(Ordering::Relaxed)
    }

    fn request(&self) {
        self.is_requested.store(true, Ordering::Relaxed);
    }

    /// Waits this long, or until somebody wants to stop, and says whether somebody does.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        if !self.is_requested() && self.signals.recv_timeout(limit).is_ok() {
            self.request();
        }
        self.is_requested()
    }

    /// Waits for a message; `None` when somebody wants to stop first.
    pub(super) fn receive<T>(&self, messages: &Receiver<T>) -> Option<Result<T, RecvError>> {
        if self.is_requested() {
            return None;
        }
        select! {
            recv(messages) -> message => Some(message),
            recv(self.signals) -> signal => match signal {
                Ok(()) => {
                    self.request();
                    None
                }
                // Nobody listens for signals any more.
                Err(_ended) => Some(messages.recv()),
            }
        }
    }

    /// The signals that were not counted yet: a second one means that the end shall not wait.
    pub(super) fn signals(&self) -> &Receiver<()> {
        &self.signals
    }
}
