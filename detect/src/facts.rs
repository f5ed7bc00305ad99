//! Takes a record; gives what several rules ask of it: which way it went, whether it is the
//! beginning of something, and how an opening ended.

use std::net::IpAddr;

use flow::{EndReason, Handshake, Record, protocol, tcp_flag};

use crate::finding::TrafficDirection;
use crate::table::Table;
use crate::{Prefix, Settings};

/// How long after a part of a flow its next part may begin. The sensor's idle timeout is 15 s; a
/// sensor that was asked for a longer one is covered too.
const CONTINUATION_GAP_MS: u64 = 120_000;

/// How one side's attempt to open a TCP connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// No answer, a reset, or a packet that no honest stack sends first.
    Failed,
    /// The other side accepted.
    Answered,
    /// This record does not begin a TCP connection, or it cannot be told.
    NotSeen,
}

/// A record with what the rules ask of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) record: &'a Record,
    pub(crate) direction: TrafficDirection,
    /// This record continues a flow of which an earlier part was written after an active timeout.
    pub(crate) is_continuation: bool,
    pub(crate) opening: Opening,
    /// Second of the record's start.
    pub(crate) at_s: u64,
}

/// What it takes to tell [`Facts`]: the own addresses, and the flows that were split.
pub(crate) struct FactFinder {
    own: Vec<Prefix>,
    /// When the last part of a split flow ended; 0 once the flow itself has ended.
    continued: Table<FlowName, u64>,
}

type FlowName = (IpAddr, IpAddr, u16, u16, u8);

impl FactFinder {
    pub(crate) fn new(settings: &Settings) -> Self {
        let own = if settings.own_prefixes.is_empty() {
            Prefix::private()
        } else {
            settings.own_prefixes.clone()
        };
        Self { own, continued: Table::new(settings.continued_keys_max as usize) }
    }

    pub(crate) fn facts<'a>(&mut self, record: &'a Record) -> Facts<'a> {
        let is_continuation = self.is_continuation(record);
        Facts {
            record,
            direction: self.direction_of(record),
            is_continuation,
            opening: if is_continuation { Opening::NotSeen } else { opening(record) },
            at_s: record.start_ms / 1000,
        }
    }

    pub(crate) fn direction(&self, source: IpAddr, target: IpAddr) -> TrafficDirection {
        let own = |address| self.own.iter().any(|prefix| prefix.contains(address));
        match (own(source), own(target)) {
            (false, true) => TrafficDirection::Inbound,
            (true, false) => TrafficDirection::Outbound,
            (true, true) => TrafficDirection::Internal,
            (false, false) => TrafficDirection::Unknown,
        }
    }

    /// As [`FactFinder::direction`]; a sensor gives pseudonyms to own clients only, whatever ranges are known here.
    fn direction_of(&self, record: &Record) -> TrafficDirection {
        let told = self.direction(record.initiator, record.responder);
        let pseudonyms = record.pseudonyms;
        if !pseudonyms.any() {
            return told;
        }
        let initiator = matches!(told, TrafficDirection::Outbound | TrafficDirection::Internal);
        let responder = matches!(told, TrafficDirection::Inbound | TrafficDirection::Internal);
        match (initiator || pseudonyms.initiator, responder || pseudonyms.responder) {
            (false, true) => TrafficDirection::Inbound,
            (true, false) => TrafficDirection::Outbound,
            (true, true) => TrafficDirection::Internal,
            (false, false) => TrafficDirection::Unknown,
        }
    }

    fn is_continuation(&mut self, record: &Record) -> bool {
        let one = (record.initiator, record.initiator_port);
        let other = (record.responder, record.responder_port);
        let (low, high) = if one <= other { (one, other) } else { (other, one) };
        let name = (low.0, high.0, low.1, high.1, record.protocol);
        let goes_on = record.end_reason == EndReason::ActiveTimeout;
        if goes_on {
            let (ended_ms, _) = self.continued.touch(name, || 0);
            let ended_before_ms = std::mem::replace(ended_ms, record.end_ms.max(*ended_ms));
            continues(ended_before_ms, record.start_ms)
        } else {
            let Some(ended_ms) = self.continued.get_mut(&name) else { return false };
            continues(std::mem::take(ended_ms), record.start_ms)
        }
    }

    pub(crate) const fn continued_evicted_total(&self) -> u64 {
        self.continued.evicted_total()
    }
}

/// Whether a part that begins at `start_ms` follows one that ended at `ended_ms` (0: there was
/// none).
const fn continues(ended_ms: u64, start_ms: u64) -> bool {
    // Clocks of two CPUs may put the next part's first packet a moment before the last one's end.
    ended_ms != 0
        && start_ms.saturating_add(1_000) >= ended_ms
        && start_ms <= ended_ms.saturating_add(CONTINUATION_GAP_MS)
}

fn opening(record: &Record) -> Opening {
    if record.protocol != protocol::TCP || !record.ports_known {
        return Opening::NotSeen;
    }
    let sent = &record.from_initiator;
    if sent.tcp_flags & tcp_flag::SYN != 0 {
        return match record.handshake {
            Handshake::Syn | Handshake::Rejected => Opening::Failed,
            Handshake::SynAck | Handshake::Established => Opening::Answered,
            Handshake::None | Handshake::OneWay => Opening::NotSeen,
        };
    }
    if is_stealth_probe(record) { Opening::Failed } else { Opening::NotSeen }
}

/// NULL, FIN and Xmas probes: after its SYN every honest segment carries ACK or RST (RFC 9293
/// §3.10.7).
fn is_stealth_probe(record: &Record) -> bool {
    const XMAS: u8 = tcp_flag::FIN | tcp_flag::PSH | tcp_flag::URG;
    let sent = &record.from_initiator;
    let answered = record.from_responder.tcp_flags & !(tcp_flag::RST | tcp_flag::ACK);
    (1..=2).contains(&sent.packets)
        && matches!(sent.tcp_flags, 0 | tcp_flag::FIN | XMAS)
        && answered == 0
}
