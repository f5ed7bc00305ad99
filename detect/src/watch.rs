//! What every detector shares: subjects under watch in a bounded table, which of them must be
//! judged, and which have something new to tell. Knows nothing of any rule.

use std::hash::Hash;

use serde::Serialize;

use crate::finding::Finding;
use crate::table::Table;

/// Findings of evicted or ended campaigns that wait for the next poll; more are dropped and
/// counted.
const PENDING_MAX: usize = 16_384;

/// What a detector holds about one key.
pub(crate) trait Subject {
    type Key: Copy + Eq + Hash;

    /// Whether a record of this second no longer belongs to what is held.
    fn is_over(&self, at_s: u64) -> bool;

    /// Forgets what [`Subject::is_over`] called over.
    fn renew(&mut self);

    /// What is to be told now, if the rule is met.
    fn finding(&self, key: &Self::Key) -> Option<Finding>;
}

/// The bounds of one detector, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WatchCounters {
    /// Keys held now.
    pub keys: u64,
    /// The most keys that can be held.
    pub keys_max: u64,
    /// Keys that had to make room for others.
    pub keys_evicted_total: u64,
    /// Findings that nobody polled in time.
    pub findings_dropped_total: u64,
}

pub(crate) struct Watch<S: Subject> {
    table: Table<S::Key, Watched<S>>,
    /// Keys with new evidence since the last judgement.
    unjudged: Vec<S::Key>,
    /// Keys whose finding is new or grew since the last poll.
    changed: Vec<S::Key>,
    pending: Vec<Finding>,
    findings_dropped_total: u64,
}

struct Watched<S> {
    subject: S,
    unjudged: bool,
    changed: bool,
}

impl<S: Subject> Watch<S> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            table: Table::new(capacity),
            unjudged: Vec::new(),
            changed: Vec::new(),
            pending: Vec::new(),
            findings_dropped_total: 0,
        }
    }

    /// Adds evidence to the subject of `key` and marks it for judgement.
    pub(crate) fn note(
        &mut self,
        key: S::Key,
        at_s: u64,
        make: impl FnOnce() -> S,
        add: impl FnOnce(&mut S),
    ) {
        let make = || Watched { subject: make(), unjudged: false, changed: false };
        let (watched, evicted) = self.table.touch(key, make);
        let mut ended = None;
        if watched.subject.is_over(at_s) {
            if watched.changed {
                ended = watched.subject.finding(&key);
                watched.changed = false;
            }
            watched.subject.renew();
        }
        add(&mut watched.subject);
        if !watched.unjudged {
            watched.unjudged = true;
            self.unjudged.push(key);
        }
        if let Some((key, evicted)) = evicted.filter(|(_, evicted)| evicted.changed) {
            self.keep(evicted.subject.finding(&key));
        }
        self.keep(ended);
    }

    fn keep(&mut self, finding: Option<Finding>) {
        let Some(finding) = finding else { return };
        if self.pending.len() < PENDING_MAX {
            self.pending.push(finding);
        } else {
            self.findings_dropped_total += 1;
        }
    }

    /// Whether judgement should not wait for the end of the second.
    pub(crate) const fn is_crowded(&self) -> bool {
        self.unjudged.len() >= self.table.capacity()
    }

    /// Lets `judge` look at every subject with new evidence; it says whether there is something to
    /// tell.
    pub(crate) fn judge(&mut self, mut judge: impl FnMut(&S::Key, &mut S) -> bool) {
        for key in std::mem::take(&mut self.unjudged) {
            let Some(watched) = self.table.get_mut(&key) else { continue };
            // A key that was evicted and came back stands here twice: the second time has nothing
            // new.
            if !std::mem::replace(&mut watched.unjudged, false) {
                continue;
            }
            if judge(&key, &mut watched.subject) && !watched.changed {
                watched.changed = true;
                self.changed.push(key);
            }
        }
        if self.changed.len() >= self.table.capacity() {
            let mut findings = Vec::new();
            self.poll(&mut findings);
            for finding in findings {
                self.keep(Some(finding));
            }
        }
    }

    /// Moves out what is new or grew since the last poll.
    pub(crate) fn poll(&mut self, findings: &mut Vec<Finding>) {
        findings.append(&mut self.pending);
        for key in std::mem::take(&mut self.changed) {
            let Some(watched) = self.table.get_mut(&key) else { continue };
            if std::mem::replace(&mut watched.changed, false) {
                findings.extend(watched.subject.finding(&key));
            }
        }
    }

    /// As [`Table::prepare`].
    pub(crate) fn prepare(&self, key: &S::Key) {
        self.table.prepare(key);
    }

    pub(crate) fn get(&self, key: &S::Key) -> Option<&S> {
        self.table.get(key).map(|watched| &watched.subject)
    }

    pub(crate) const fn counters(&self) -> WatchCounters {
        WatchCounters {
            keys: self.table.len() as u64,
            keys_max: self.table.capacity() as u64,
            keys_evicted_total: self.table.evicted_total(),
            findings_dropped_total: self.findings_dropped_total,
        }
    }
}
