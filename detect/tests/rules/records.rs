//! Makes records. Times are milliseconds after a fixed Tuesday, 2026-03-03 09:00 UTC.

use std::net::{IpAddr, Ipv4Addr};

use detect::{Detection, Finding, Settings};
use flow::{Direction, EndReason, Handshake, Pseudonyms, Record, RoleEvidence, protocol, tcp_flag};

pub(crate) const EPOCH_MS: u64 = 1_772_528_400_000;

const ACK: u8 = tcp_flag::ACK;
const SYN: u8 = tcp_flag::SYN;
const WHOLE: u8 = SYN | ACK | tcp_flag::PSH | tcp_flag::FIN;

/// An address outside.
pub(crate) fn outside(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(u32::from_be_bytes([198, 18, 0, 0]) + number))
}

/// An address of the member.
pub(crate) fn own(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 0]) + number))
}

fn direction(packets: u64, bytes: u64, tcp_flags: u8) -> Direction {
    if packets == 0 {
        return Direction::default();
    }
    let length = u16::try_from(bytes / packets).unwrap_or(u16::MAX);
    Direction {
        packets,
        bytes,
        tcp_flags,
        ttl: 60,
        length_min: length,
        length_max: length,
        ..Direction::default()
    }
}

fn record(at_ms: u64, from: (IpAddr, u16), to: (IpAddr, u16)) -> Record {
    Record {
        start_ms: EPOCH_MS + at_ms,
        end_ms: EPOCH_MS + at_ms,
        initiator: from.0,
        responder: to.0,
        initiator_port: from.1,
        responder_port: to.1,
        protocol: protocol::TCP,
        ports_known: true,
        outer: flow::Outer::default(),
        from_initiator: Direction::default(),
        from_responder: Direction::default(),
        handshake: Handshake::None,
        handshake_rtt_us: None,
        interface: 0,
        role: RoleEvidence::Handshake,
        end_reason: EndReason::IdleTimeout,
        folded: false,
        pseudonyms: Pseudonyms::default(),
    }
}

/// A SYN without an answer.
pub(crate) fn unanswered(at_ms: u64, from: IpAddr, to: IpAddr, port: u16) -> Record {
    Record {
        from_initiator: direction(1, 60, SYN),
        handshake: Handshake::Syn,
        ..record(at_ms, (from, 40_000), (to, port))
    }
}

/// A SYN that a RST answers.
pub(crate) fn refused(at_ms: u64, from: IpAddr, to: IpAddr, port: u16) -> Record {
    Record {
        from_initiator: direction(1, 60, SYN),
        from_responder: direction(1, 54, ACK | tcp_flag::RST),
        handshake: Handshake::Rejected,
        end_reason: EndReason::EndOfFlow,
        folded: false,
        ..record(at_ms, (from, 40_000), (to, port))
    }
}

/// A whole connection: packets and bytes of the initiator; the responder sends as many packets, ten
/// times the bytes.
pub(crate) fn connection(
    at_ms: u64,
    lasts_ms: u64,
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    (packets, bytes): (u64, u64),
) -> Record {
    Record {
        end_ms: EPOCH_MS + at_ms + lasts_ms,
        from_initiator: direction(packets, bytes, WHOLE),
        from_responder: direction(packets, bytes * 10, WHOLE),
        handshake: Handshake::Established,
        end_reason: EndReason::EndOfFlow,
        folded: false,
        ..record(at_ms, from, to)
    }
}

/// A UDP datagram nobody asked for.
pub(crate) fn datagram(at_ms: u64, from: (IpAddr, u16), to: (IpAddr, u16), bytes: u64) -> Record {
    Record {
        protocol: protocol::UDP,
        from_initiator: direction(1, bytes, 0),
        role: RoleEvidence::FirstPacket,
        ..record(at_ms, from, to)
    }
}

/// A UDP question with its answer.
pub(crate) fn exchange(at_ms: u64, from: (IpAddr, u16), to: (IpAddr, u16), answer: u64) -> Record {
    Record { from_responder: direction(1, answer, 0), ..datagram(at_ms, from, to, 80) }
}

/// A SYN-ACK to somebody who never sent a SYN.
pub(crate) fn syn_ack(at_ms: u64, from: (IpAddr, u16), to: (IpAddr, u16)) -> Record {
    Record {
        from_responder: direction(1, 60, SYN | ACK),
        handshake: Handshake::SynAck,
        ..record(at_ms, to, from)
    }
}

/// What the rules say about these records with these settings.
pub(crate) fn judged(settings: Settings, records: &[Record]) -> Vec<Finding> {
    let mut detection = Detection::new(settings);
    for record in records {
        detection.handle_record(record);
    }
    let mut findings = detection.finish();
    findings.sort_by_key(|finding| (finding.kind, finding.id));
    findings
}

/// What the rules say by default.
pub(crate) fn findings(records: &[Record]) -> Vec<Finding> {
    judged(Settings::default(), records)
}

/// The only finding; anything else fails the test.
pub(crate) fn only(records: &[Record]) -> Finding {
    let mut findings = findings(records);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

/// No finding at all.
pub(crate) fn silent(records: &[Record]) {
    let findings = findings(records);
    assert!(findings.is_empty(), "{findings:#?}");
}
