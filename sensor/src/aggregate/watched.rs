//! Takes observations of one flow; gives the record that it would have now, as often as somebody
//! looks. For who watches flows that are still open; the table itself reports each packet once.

use flow::{EndReason, FlowKey, Observation, Outer, Record};

use super::entry::{Entry, State};

/// One flow that is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched {
    entry: Entry,
}

impl Watched {
    /// A flow without a packet yet; `key` is canonical, in domain 0.
    pub(crate) fn new(key: FlowKey, outer: Outer) -> Self {
        Self { entry: Entry::new(key, outer, State::Open) }
    }

    /// Counts packets; `reversed` where they went against the key.
    pub(crate) fn handle(&mut self, seen: &Observation, reversed: bool) {
        self.entry.handle(seen, reversed, (seen.first_ms, seen.last_ms));
    }

    /// Whether the connection has ended: FIN from both, or RST from one.
    pub(crate) fn has_ended(&self) -> bool {
        self.entry.ended()
    }

    /// The record so far. Its end reason says whether the flow goes on.
    pub(crate) fn record(&self) -> Record {
        let goes_on =
            if self.has_ended() { EndReason::EndOfFlow } else { EndReason::ActiveTimeout };
        let mut entry = self.entry;
        entry.record(goes_on).expect("it is watched because of a packet")
    }
}
