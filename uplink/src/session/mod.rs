//! Takes what happened on the link; says what to do next. Pure: time comes in as an argument, chance as a seed,
//! and the spool's index as a reference. Never touches a socket, a file or a clock.
//!
//! ```text
//!            ┌────────────── back-off, with jitter ──────────────┐
//!            ▼                                                   │ any failure, Retry, no answer in time
//!  Waiting ──► Connecting ──connected──► Greeting ──held──► Open ┘
//!              Connect                   Hello              Send … / Remove / Reject
//! ```
//!
//! The hello asks for the last sequence that the backend holds of each boot epoch in the spool; those up to it
//! are removed. The rest is sent oldest first, several in flight, and removed one by one as they are acked.
//!
//! A batch that the backend refused, whose answer was lost, and after which later ones were stored, is removed by
//! the hello as well: the backend has counted it as refused, the sensor counts it as acked.

mod backoff;
mod bucket;
pub(crate) mod reception;
mod silence;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use crate::session::backoff::Backoff;
use crate::spool::{Key, SpoolIndex};
use crate::wire::{EPOCHS_MAX, Outcome};
pub(crate) use bucket::Bucket;
pub(crate) use silence::Silence;

/// What a session is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionSettings {
    /// Batches sent and not yet acked; hides the round trip and the backend's commit interval.
    pub(crate) in_flight_max: usize,
    /// First wait after a refusal, and longest wait while nobody answers: attempts that reach nobody cost the backend
    /// nothing, and it is met again soon after it is back.
    pub(crate) backoff_min_ms: u64,
    /// Longest wait after many refusals.
    pub(crate) backoff_max_ms: u64,
    /// How long the first attempt at a connection may take. QUIC sends its first packet again after 1, 3, 7, 15 s: a
    /// new attempt meets a backend that has just come back sooner, a longer one gets through on a bad line. So attempts
    /// take this long, then twice, four and eight times, and so on from the start; once a connection stood, all of
    /// them this long, or four times what that one took.
    pub(crate) connect_timeout_ms: u64,
    /// How long the backend may take for a hello, or the next ack.
    pub(crate) answer_timeout_ms: u64,
    /// Where the jitter comes from.
    pub(crate) seed: u64,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Open a connection; tell of the result by `handle_connected` or `handle_disconnected`.
    Connect,
    /// Ask what the backend holds of these boot epochs.
    Hello { boot_epochs: Vec<u64> },
    /// Send this batch; batches must arrive in the order of these actions.
    Send(Key),
    /// The backend has it: remove it from the spool.
    Remove { key: Key, duplicate: bool },
    /// The backend will never take it: set it aside.
    Reject { key: Key, reason: String },
    /// Close the connection.
    Disconnect { reason: String },
}

/// Why a connection ended, or none came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nobody answered: no backend there, or no way to it.
    Unreachable,
    /// Somebody answered, and ended it.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting {
        until_ms: u64,
    },
    Connecting {
        since_ms: u64,
        until_ms: u64,
    },
    Greeting {
        until_ms: u64,
    },
    /// `until_ms` is when the oldest unanswered batch is overdue; `since_ms` when the phase began.
    Open {
        until_ms: Option<u64>,
        since_ms: u64,
    },
}

/// The sensor's side of one link, over all of its connections.
#[derive(Debug)]
pub(crate) struct Session {
    settings: SessionSettings,
    phase: Phase,
    backoff: Backoff,
    /// Attempts since the last connection.
    attempts: u32,
    /// What the last connection took, four times.
    known_connect_ms: Option<u64>,
    greeted: Vec<u64>,
    /// What the backend said that it holds, newest epoch first: still to be removed.
    held: Vec<(u64, u64)>,
    /// The last batch that was sent over this connection, or removed because of its greeting.
    cursor: Option<Key>,
    in_flight: BTreeSet<Key>,
    /// Bounded: at most one a batch in flight, and the connection's own.
    actions: VecDeque<Action>,
}

impl Session {
    pub(crate) fn new(settings: SessionSettings, now_ms: u64) -> Self {
        let backoff = Backoff::new(settings.backoff_min_ms, settings.backoff_max_ms, settings.seed);
        Self {
            settings,
            phase: Phase::Waiting { until_ms: now_ms },
            backoff,
            attempts: 0,
            known_connect_ms: None,
            greeted: Vec::new(),
            held: Vec::new(),
            cursor: None,
            in_flight: BTreeSet::new(),
            actions: VecDeque::new(),
        }
    }

    fn connect_timeout_ms(&self) -> u64 {
        let least_ms = self.settings.connect_timeout_ms;
        let wanted_ms = match self.known_connect_ms {
            Some(known_ms) => least_ms.max(known_ms),
            None => least_ms.saturating_mul(1 << (self.attempts % 4)),
        };
        wanted_ms.min(self.settings.answer_timeout_ms)
    }

    /// Whether the backend owes an answer: to a hello, or to a batch.
    pub(crate) fn awaits_answer(&self) -> bool {
        matches!(self.phase, Phase::Greeting { .. }) || !self.in_flight.is_empty()
    }

    /// The connection stands, both sides have proved who they are.
    pub(crate) fn handle_connected(&mut self, now_ms: u64, spool: &SpoolIndex) {
        let Phase::Connecting { since_ms, .. } = self.phase else { return };
        self.attempts = 0;
        self.known_connect_ms = Some(now_ms.saturating_sub(since_ms).saturating_mul(4));
        self.phase = Phase::Greeting { until_ms: now_ms + self.settings.answer_timeout_ms };
        self.greeted = spool.epochs(EPOCHS_MAX);
        self.actions.push_back(Action::Hello { boot_epochs: self.greeted.clone() });
    }

    /// The backend's answer to the hello: the last sequence of each boot epoch asked for, 0 for none.
    pub(crate) fn handle_held(&mut self, now_ms: u64, held: &[u64]) {
        if !matches!(self.phase, Phase::Greeting { .. }) {
            return;
        }
        if held.len() != self.greeted.len() {
            let (got, asked) = (held.len(), self.greeted.len());
            let reason = format!("{got} sequences for {asked} boot epochs");
            self.fail(now_ms, Cause::Refused, reason);
            return;
        }
        self.held = self.greeted.iter().copied().zip(held.iter().copied()).rev().collect();
        self.cursor = None;
        self.phase = Phase::Open { until_ms: None, since_ms: now_ms };
    }

    /// The backend's answer to a batch.
    pub(crate) fn handle_ack(&mut self, now_ms: u64, key: Key, outcome: Outcome) {
        let Phase::Open { since_ms, .. } = self.phase else { return };
        if !self.in_flight.remove(&key) {
            return;
        }
        match outcome {
            Outcome::Stored => self.actions.push_back(Action::Remove { key, duplicate: false }),
            Outcome::Duplicate => self.actions.push_back(Action::Remove { key, duplicate: true }),
            Outcome::Rejected(reason) => self.actions.push_back(Action::Reject { key, reason }),
            Outcome::Retry(reason) => {
                self.fail(now_ms, Cause::Refused, format!("batch not stored now: {reason}"));
                return;
            }
        }
        self.backoff.reset();
        let overdue = now_ms + self.settings.answer_timeout_ms;
        let until_ms = (!self.in_flight.is_empty()).then_some(overdue);
        self.phase = Phase::Open { until_ms, since_ms };
    }

    /// Some more of a batch went out: a slow line is no reason to give up.
    pub(crate) fn handle_progress(&mut self, now_ms: u64) {
        if let Phase::Open { until_ms: Some(_), since_ms } = self.phase {
            let until_ms = Some(now_ms + self.settings.answer_timeout_ms);
            self.phase = Phase::Open { until_ms, since_ms };
        }
    }

    /// A batch that was to be sent is no longer there: it was evicted meanwhile.
    pub(crate) fn handle_missing(&mut self, key: Key) {
        self.in_flight.remove(&key);
        if let Phase::Open { since_ms, .. } = self.phase
            && self.in_flight.is_empty()
        {
            self.phase = Phase::Open { until_ms: None, since_ms };
        }
    }

    /// The connection ended, or none came about. Gives the time until the next attempt.
    pub(crate) fn handle_disconnected(&mut self, now_ms: u64, cause: Cause) -> u64 {
        if let Phase::Waiting { until_ms } = self.phase {
            return until_ms.saturating_sub(now_ms);
        }
        if let Phase::Open { since_ms, .. } = self.phase
            && now_ms.saturating_sub(since_ms) >= self.settings.backoff_max_ms
        {
            // It had worked for long: this is a new trouble, not the old one.
            self.backoff.reset();
        }
        if matches!(self.phase, Phase::Connecting { .. }) {
            self.attempts = self.attempts.wrapping_add(1);
        }
        let wait_ms = match cause {
            Cause::Unreachable => self.backoff.first_ms(),
            Cause::Refused => self.backoff.next_ms(),
        };
        self.phase = Phase::Waiting { until_ms: now_ms + wait_ms };
        self.in_flight.clear();
        self.held.clear();
        // What the backend has said stays true; what was to be sent goes over the next connection.
        self.actions.retain(|action| {
            matches!(
                action,
                Action::Remove { .. } | Action::Reject { .. } | Action::Disconnect { .. }
            )
        });
        wait_ms
    }

    /// A wait is over.
    pub(crate) fn handle_timeout(&mut self, now_ms: u64) {
        let answer_timeout_ms = self.settings.answer_timeout_ms;
        if let Phase::Open { until_ms: Some(until_ms), since_ms } = self.phase
            && self.in_flight.is_empty()
            && until_ms <= now_ms
        {
            self.cursor = None;
            self.phase = Phase::Open { until_ms: None, since_ms };
            return;
        }
        let (what, within_ms) = match self.phase {
            Phase::Connecting { .. } => ("no connection", self.connect_timeout_ms()),
            Phase::Greeting { .. } => ("no answer to the hello", answer_timeout_ms),
            Phase::Open { .. } => ("no ack", answer_timeout_ms),
            Phase::Waiting { .. } => return,
        };
        let cause = match self.phase {
            Phase::Connecting { .. } => Cause::Unreachable,
            _ => Cause::Refused,
        };
        if self.poll_timeout().is_some_and(|until_ms| until_ms <= now_ms) {
            self.fail(now_ms, cause, format!("{what} within {within_ms} ms"));
        }
    }

    fn fail(&mut self, now_ms: u64, cause: Cause, reason: String) {
        self.handle_disconnected(now_ms, cause);
        self.actions.push_back(Action::Disconnect { reason });
    }

    /// What to do now; `None` until something happens or `poll_timeout` is over.
    pub(crate) fn poll_action(&mut self, now_ms: u64, spool: &SpoolIndex) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        match self.phase {
            Phase::Waiting { until_ms } if until_ms <= now_ms => {
                let until_ms = now_ms + self.connect_timeout_ms();
                self.phase = Phase::Connecting { since_ms: now_ms, until_ms };
                Some(Action::Connect)
            }
            Phase::Open { .. } if !self.held.is_empty() => self.poll_held(now_ms, spool),
            Phase::Open { .. } => self.poll_send(now_ms, spool),
            _ => None,
        }
    }

    fn poll_send(&mut self, now_ms: u64, spool: &SpoolIndex) -> Option<Action> {
        let Phase::Open { until_ms, since_ms } = self.phase else { return None };
        if self.in_flight.len() >= self.settings.in_flight_max {
            return None;
        }
        let overdue = now_ms + self.settings.answer_timeout_ms;
        let until_ms = Some(until_ms.unwrap_or(overdue));
        let Some(key) = spool.after(self.cursor) else {
            if self.in_flight.is_empty() && spool.len() > 0 {
                // The disk did not let go of what the backend has answered: all that is offered again, after a while.
                self.phase = Phase::Open { until_ms, since_ms };
            }
            return None;
        };
        self.cursor = Some(key);
        self.in_flight.insert(key);
        self.phase = Phase::Open { until_ms, since_ms };
        Some(Action::Send(key))
    }

    /// The next batch that the backend said it holds; when there is none left, the first to send.
    fn poll_held(&mut self, now_ms: u64, spool: &SpoolIndex) -> Option<Action> {
        while let Some((boot_epoch, sequence)) = self.held.last().copied() {
            let last = Key { boot_epoch, sequence };
            let from = self.cursor.filter(|key| key.boot_epoch == boot_epoch);
            let next = spool.after(Some(from.unwrap_or(Key { boot_epoch, sequence: 0 })));
            if let Some(key) = next.filter(|key| *key <= last) {
                self.cursor = Some(key);
                return Some(Action::Remove { key, duplicate: false });
            }
            self.held.pop();
        }
        self.cursor = None;
        self.poll_send(now_ms, spool)
    }

    /// When to call `handle_timeout` and `poll_action` at the latest.
    pub(crate) const fn poll_timeout(&self) -> Option<u64> {
        match self.phase {
            Phase::Waiting { until_ms }
            | Phase::Connecting { until_ms, .. }
            | Phase::Greeting { until_ms } => Some(until_ms),
            Phase::Open { until_ms, .. } => until_ms,
        }
    }
}
