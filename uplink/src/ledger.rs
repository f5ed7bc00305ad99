//! Takes batches that sensors offer and what became of earlier ones; says of each whether it is new. Pure: no store,
//! no clock. Never lets a later batch of a session overtake one that could not be stored: sensors ask for the highest
//! stored sequence, so a hole below it would be a loss.
//!
//! A store keeps one [`Ledger`] in front of it, and works in groups: [`Ledger::judge`] for each batch of a group, then
//! [`Ledger::handle_stored`] or [`Ledger::handle_failed`] for all of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::SensorId;

/// Sessions whose highest stored sequence is remembered; the store has the rest.
const WATERMARKS_MAX: usize = 65_536;

/// One boot epoch of one sensor.
pub type Session = (SensorId, u64);

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is new: store it with this group.
    New,
    /// It is stored: say so at once.
    Stored,
    /// It is in this group: answer it with the group.
    Repeated,
    /// An earlier batch of the session is not stored: hand this one back, too.
    Halted,
    /// The store must be asked for the session's highest sequence first; see [`Ledger::learn`].
    Unknown,
}

/// The highest stored sequence of each session, and which sessions must start again.
#[derive(Debug, Default)]
pub struct Ledger {
    watermarks: HashMap<Session, Option<u64>>,
    /// Sessions with a batch that was handed back: nothing later of them is taken until they start again.
    halted: HashSet<Session>,
    /// The highest sequence of each session in the group that is not stored yet.
    group: BTreeMap<Session, u64>,
}

impl Ledger {
    /// Judges a batch; a new one belongs to the group from here on.
    pub fn judge(&mut self, session: &Session, sequence: u64) -> Judgement {
        if self.halted.contains(session) {
            return Judgement::Halted;
        }
        let Some(held) = self.watermarks.get(session) else { return Judgement::Unknown };
        if held.is_some_and(|held| sequence <= held) {
            return Judgement::Stored;
        }
        if self.group.get(session).is_some_and(|highest| sequence <= *highest) {
            return Judgement::Repeated;
        }
        self.group.insert(session.clone(), sequence);
        Judgement::New
    }

    /// What the store holds of a session: its highest sequence, or `None` for nothing.
    pub fn learn(&mut self, session: Session, held: Option<u64>) {
        if self.watermarks.len() >= WATERMARKS_MAX {
            self.watermarks.clear();
        }
        self.watermarks.insert(session, held);
    }

    /// What is known of a session; `None` when the store must be asked.
    #[must_use]
    pub fn held(&self, session: &Session) -> Option<Option<u64>> {
        self.watermarks.get(session).copied()
    }

    /// Whether batches of this session are handed back.
    #[must_use]
    pub fn is_halted(&self, session: &Session) -> bool {
        self.halted.contains(session)
    }

    /// A session asked what is stored: it starts anew from the answer, so nothing can be overtaken any more. No batch
    /// that was offered before it asked may be judged after this.
    pub fn handle_start(&mut self, session: &Session) {
        self.halted.remove(session);
    }

    /// A batch of this session was handed back.
    pub fn handle_returned(&mut self, session: Session) {
        self.halted.insert(session);
    }

    /// The group is durable.
    pub fn handle_stored(&mut self) {
        for (session, sequence) in std::mem::take(&mut self.group) {
            self.watermarks.insert(session, Some(sequence));
        }
    }

    /// The group could not be stored, or nobody knows: its batches were handed back.
    pub fn handle_failed(&mut self) {
        for (session, _) in std::mem::take(&mut self.group) {
            self.watermarks.remove(&session);
            self.halted.insert(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_goes_on_from_what_is_stored_and_halts_at_what_is_not() {
        use Judgement::{Halted, New, Repeated, Stored, Unknown};
        let session: Session = ("acme-1".parse().expect("a name"), 7);
        let mut ledger = Ledger::default();
        assert_eq!(ledger.judge(&session, 5), Unknown);
        ledger.learn(session.clone(), Some(4));
        let judged = [4, 5, 5, 9, 8].map(|sequence| ledger.judge(&session, sequence));
        assert_eq!(judged, [Stored, New, Repeated, New, Repeated]);
        ledger.handle_stored();
        assert_eq!(ledger.held(&session), Some(Some(9)));
        assert_eq!([9, 10].map(|sequence| ledger.judge(&session, sequence)), [Stored, New]);
        ledger.handle_failed();
        assert_eq!(ledger.judge(&session, 11), Halted, "10 is missing");
        assert_eq!(ledger.held(&session), None, "perhaps 10 is stored: the store must say");
        ledger.handle_start(&session);
        assert_eq!(ledger.judge(&session, 10), Unknown);
        ledger.handle_returned(session.clone());
        assert_eq!(ledger.judge(&session, 10), Halted);
    }
}
