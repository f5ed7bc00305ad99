//! Takes what both ends of a flow sent; gives who opened it, on what evidence, and how far TCP got.

use std::cmp::Ordering;

use flow::{FlowKey, Handshake, Kind, RoleEvidence, protocol, tcp_flag};

use super::entry::{SYN, SYN_ACK, Side};

/// Who is the initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Roles {
    /// The initiator is the destination of the canonical key.
    pub(super) reversed: bool,
    /// What that rests on.
    pub(super) evidence: RoleEvidence,
}

/// First port of the dynamic range that clients choose from (Linux; RFC 6335 §6 begins at 49,152).
const PORT_DYNAMIC_MIN: u16 = 32_768;
/// First port behind the system ports, RFC 6335 §6.
const PORT_USER_MIN: u16 = 1_024;

/// Decides the roles: TCP's opening, ICMP's question and answer, the first packet, the ports; in
/// this order.
///
/// A TCP flow without an opening began before it was seen, so its first packet says nothing.
pub(super) fn decide(key: &FlowKey, sides: &[Side; 2]) -> Roles {
    let first = first_sender(sides);
    if key.protocol() == protocol::TCP
        && let Some(reversed) = opener(sides, key)
    {
        return Roles { reversed, evidence: RoleEvidence::Handshake };
    }
    if let Some(reversed) = asker(key) {
        let evidence = match first {
            Some(sender) if sender != reversed => RoleEvidence::PortRank,
            _ if !sides[usize::from(reversed)].seen() => RoleEvidence::PortRank,
            _ => RoleEvidence::FirstPacket,
        };
        return Roles { reversed, evidence };
    }
    if key.protocol() != protocol::TCP
        && let Some(reversed) = first
    {
        return Roles { reversed, evidence: RoleEvidence::FirstPacket };
    }
    match port_rank(key) {
        Some(reversed) => Roles { reversed, evidence: RoleEvidence::PortRank },
        None => Roles { reversed: first.unwrap_or_default(), evidence: RoleEvidence::Guess },
    }
}

/// Who sent first; `None` when both did within one tick of the clock.
fn first_sender(sides: &[Side; 2]) -> Option<bool> {
    match (sides[0].packets > 0, sides[1].packets > 0) {
        (true, false) => Some(false),
        (false, true) => Some(true),
        _ => match sides[0].first_ms.cmp(&sides[1].first_ms) {
            Ordering::Less => Some(false),
            Ordering::Greater => Some(true),
            Ordering::Equal => None,
        },
    }
}

/// Who sent the SYN, or to whom the SYN-ACK went. Of two SYN (a simultaneous open, or a port used
/// again the other way round within one epoch) the earlier decides, then the ports.
fn opener(sides: &[Side; 2], key: &FlowKey) -> Option<bool> {
    let by = |bit: u8| (sides[0].opening() & bit != 0, sides[1].opening() & bit != 0);
    let both = || Some(first_sender(sides).or_else(|| port_rank(key)).unwrap_or_default());
    match by(SYN) {
        (true, false) => Some(false),
        (false, true) => Some(true),
        (true, true) => both(),
        (false, false) => match by(SYN_ACK) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            (true, true) => both(),
            (false, false) => None,
        },
    }
}

/// Who asked, where the protocol itself says so: ICMP messages that have an answer.
fn asker(key: &FlowKey) -> Option<bool> {
    if key.kind().has(Kind::ONE_WAY) || key.kind().has(Kind::NO_PORTS) {
        return None;
    }
    let asks = |port: u16| match key.protocol() {
        protocol::ICMP => matches!(port, 8 | 10 | 13 | 15 | 17),
        protocol::ICMP6 => matches!(port, 128 | 130 | 133 | 135 | 139 | 144),
        _ => false,
    };
    match (asks(key.source_port()), asks(key.destination_port())) {
        (true, false) => Some(false),
        (false, true) => Some(true),
        _ => None,
    }
}

/// Who has the less well-known port and so is the initiator; `None` when neither has.
fn port_rank(key: &FlowKey) -> Option<bool> {
    if key.kind().has(Kind::NO_PORTS) {
        return None;
    }
    let rank = |port: u16| match port {
        0..PORT_USER_MIN => 0,
        PORT_USER_MIN..PORT_DYNAMIC_MIN => 1,
        PORT_DYNAMIC_MIN.. => 2,
    };
    match rank(key.source_port()).cmp(&rank(key.destination_port())) {
        Ordering::Greater => Some(false),
        Ordering::Less => Some(true),
        Ordering::Equal => None,
    }
}

/// How far the TCP connection got, by the flags of the whole flow.
pub(super) fn handshake(number: u8, initiator: &Side, responder: &Side) -> Handshake {
    if number != protocol::TCP {
        return Handshake::None;
    }
    let syn = initiator.opening() & SYN != 0;
    let syn_ack = responder.opening() & SYN_ACK != 0;
    if (syn || syn_ack) && initiator.flags_ever & tcp_flag::ACK != 0 {
        // Whoever opens a connection acknowledges only what was accepted. So one half of the
        // handshake may be missing here (lost, or that direction is not mirrored): the other proves it.
        return Handshake::Established;
    }
    if syn_ack {
        return Handshake::SynAck;
    }
    if syn {
        let refused = responder.flags_ever & tcp_flag::RST != 0;
        return if refused { Handshake::Rejected } else { Handshake::Syn };
    }
    if initiator.seen() && responder.seen() { Handshake::None } else { Handshake::OneWay }
}
