//! Takes the coarse totals that the kernel folded packets into; gives them as records that are marked
//! as folded, one for each key and period. Pure, bounded, and every packet that comes in goes out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use flow::{
    Direction, EndReason, FlowKey, Handshake, Kind, Outer, Pseudonyms, Record, RoleEvidence,
    protocol, tcp_flag,
};

use crate::capture::Folded;

/// Coarse keys held at once, about 160 bytes each. What finds no place is added to the rest.
const KEYS_MAX: usize = 65_536;

/// What went through so far; each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoldingTotals {
    /// Packets taken in; each is in a record, written or open.
    pub(crate) packets_in: u64,
    /// Layer-2 bytes taken in.
    pub(crate) bytes_in: u64,
    /// TCP packets with SYN and without ACK among them.
    pub(crate) syns_in: u64,
    /// Packets among them of which not even a coarse key is known: the rest.
    pub(crate) packets_rest: u64,
    /// Packets in the records given out.
    pub(crate) packets_out: u64,
    /// Records given out.
    pub(crate) records_out: u64,
}

/// Totals that belong together: the key in domain 0, and the tags where they are known.
type Key = (FlowKey, Option<Outer>);

/// The open totals.
pub(super) struct Folding {
    period_ms: u64,
    keys_max: usize,
    by_key: BTreeMap<Key, Folded>,
    rest: Option<Folded>,
    /// When the oldest of them was begun.
    began_ms: Option<u64>,
    totals: FoldingTotals,
}

impl Folding {
    /// Gives records every `period_ms`.
    pub(super) fn new(period_ms: u64) -> Self {
        Self::with_bound(period_ms, KEYS_MAX)
    }

    fn with_bound(period_ms: u64, keys_max: usize) -> Self {
        Self {
            period_ms,
            keys_max,
            by_key: BTreeMap::new(),
            rest: None,
            began_ms: None,
            totals: FoldingTotals::default(),
        }
    }

    /// What went through so far.
    pub(super) fn totals(&self) -> FoldingTotals {
        self.totals
    }

    /// Takes the totals of an epoch; where they carry no time, they are of the epoch's.
    pub(super) fn handle(&mut self, folded: &Folded, epoch_ms: (u64, u64)) {
        let folded = Folded { times_ms: folded.times_ms.or(Some(epoch_ms)), ..*folded };
        self.totals.packets_in += folded.packets;
        self.totals.bytes_in += folded.bytes;
        self.totals.syns_in += folded.syns;
        self.began_ms.get_or_insert(epoch_ms.1);
        if let Some(key) = folded.key {
            let key = (key.with_domain(0), folded.outer);
            if let Some(open) = self.by_key.get_mut(&key) {
                open.merge(&folded);
                return;
            }
            if self.by_key.len() < self.keys_max {
                self.by_key.insert(key, folded);
                return;
            }
        }
        self.totals.packets_rest += folded.packets;
        match &mut self.rest {
            Some(rest) => rest.merge(&folded),
            None => self.rest = Some(Folded { key: None, outer: None, ..folded }),
        }
    }

    /// Gives the records when their period has passed.
    pub(super) fn advance(&mut self, now_ms: u64, emit: &mut dyn FnMut(Record)) {
        // A clock that was set back ends the period too.
        let is_over = |began_ms: u64| now_ms.abs_diff(began_ms) >= self.period_ms;
        if self.began_ms.is_some_and(is_over) {
            self.finish(emit);
        }
    }

    /// Gives all that is open.
    pub(super) fn finish(&mut self, emit: &mut dyn FnMut(Record)) {
        self.began_ms = None;
        let by_key = std::mem::take(&mut self.by_key);
        for ((key, outer), folded) in by_key {
            self.give(record(Some((key, outer)), &folded), emit);
        }
        if let Some(rest) = self.rest.take() {
            self.give(record(None, &rest), emit);
        }
    }

    fn give(&mut self, record: Record, emit: &mut dyn FnMut(Record)) {
        self.totals.packets_out += record.from_initiator.packets;
        self.totals.records_out += 1;
        emit(record);
    }
}

fn record(key: Option<Key>, folded: &Folded) -> Record {
    let (start_ms, end_ms) = folded.times_ms.unwrap_or_default();
    let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let rest = Record {
        start_ms,
        end_ms: end_ms.max(start_ms),
        initiator: unspecified,
        responder: unspecified,
        initiator_port: 0,
        responder_port: 0,
        protocol: 0,
        ports_known: false,
        outer: Outer::default(),
        from_initiator: Direction {
            packets: folded.packets,
            bytes: folded.bytes,
            tcp_flags: if folded.syns > 0 { tcp_flag::SYN } else { 0 },
            ..Direction::default()
        },
        from_responder: Direction::default(),
        handshake: Handshake::None,
        handshake_rtt_us: None,
        interface: 0,
        role: RoleEvidence::Guess,
        end_reason: EndReason::LackOfResources,
        folded: true,
        pseudonyms: Pseudonyms::default(),
    };
    let Some((key, outer)) = key else { return rest };
    let is_v4 = key.kind().has(Kind::V4);
    // Without the message's type, what stands for an ICMP message's second port means nothing.
    let is_icmp = matches!(key.protocol(), protocol::ICMP | protocol::ICMP6);
    let ports_known = !key.kind().has(Kind::NO_PORTS) && !is_icmp;
    Record {
        initiator: key.source.to_ip(is_v4),
        responder: key.destination.to_ip(is_v4),
        responder_port: if ports_known { key.destination_port() } else { 0 },
        protocol: key.protocol(),
        ports_known,
        outer: outer.unwrap_or_default(),
        ..rest
    }
}

#[cfg(test)]
mod tests;
