//! Records made by hand, for the tests of every output: one of each kind that is written differently.

use std::net::IpAddr;

use flow::{
    Direction, EndReason, Handshake, Outer, Pseudonyms, Record, RoleEvidence, Tunnel, TunnelKind,
    Vlans,
};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal address")
}

fn side(packets: u64) -> Direction {
    Direction {
        packets,
        bytes: packets * 100,
        tcp_flags: 0x1b,
        ttl: 64,
        dscp: 10,
        first_flags: 0x02,
        fragmented: false,
        length_min: 60,
        length_max: 1_514,
    }
}

/// What one side of something other than TCP sent.
fn plain(packets: u64) -> Direction {
    Direction { tcp_flags: 0, first_flags: 0, ..side(packets) }
}

/// A TCP connection from its SYN to its end, under two VLAN tags.
pub(super) fn web() -> Record {
    Record {
        start_ms: 1_780_000_000_007,
        end_ms: 1_780_000_001_000,
        initiator: ip("192.0.2.1"),
        responder: ip("198.51.100.2"),
        initiator_port: 40_000,
        responder_port: 443,
        protocol: 6,
        ports_known: true,
        outer: Outer::from_vlans(Vlans([10, 20])),
        from_initiator: side(5),
        from_responder: side(4),
        handshake: Handshake::Established,
        handshake_rtt_us: Some(23_456),
        interface: 1,
        role: RoleEvidence::Handshake,
        end_reason: EndReason::EndOfFlow,
        folded: false,
        pseudonyms: Pseudonyms::default(),
    }
}

/// Fragments without their first one: no ports, no answer.
pub(super) fn fragments() -> Record {
    Record {
        protocol: 17,
        ports_known: false,
        initiator_port: 0,
        responder_port: 0,
        outer: Outer::default(),
        from_initiator: Direction { fragmented: true, ..plain(5) },
        from_responder: Direction::default(),
        handshake: Handshake::None,
        handshake_rtt_us: None,
        interface: 0,
        role: RoleEvidence::FirstPacket,
        end_reason: EndReason::IdleTimeout,
        ..web()
    }
}

/// IPv6 in a VXLAN network in GRE with MPLS around it.
pub(super) fn tunnelled() -> Record {
    let gre = Tunnel { kind: TunnelKind::Gre, id: None };
    let vxlan = Tunnel { kind: TunnelKind::Vxlan, id: Some(5_001) };
    Record {
        initiator: ip("2001:db8::1"),
        responder: ip("2001:db8:0:1::2"),
        initiator_port: 5_353,
        responder_port: 53,
        protocol: 17,
        outer: Outer::new(Vlans([0, 0]), Some(1_234), [gre, vxlan]).expect("there is room"),
        from_initiator: plain(1),
        from_responder: plain(1),
        handshake: Handshake::None,
        handshake_rtt_us: None,
        interface: 2,
        role: RoleEvidence::FirstPacket,
        end_reason: EndReason::ActiveTimeout,
        ..web()
    }
}

/// An echo request and its reply under one VLAN tag.
pub(super) fn echo() -> Record {
    Record {
        initiator_port: 8,
        responder_port: 0,
        protocol: 1,
        from_initiator: plain(5),
        outer: Outer::from_vlans(Vlans([10, 0])),
        ..fragments()
    }
    .with_ports()
}

/// A message that nothing answers: no route, over IPv6.
pub(super) fn unreachable() -> Record {
    Record {
        initiator: ip("2001:db8::1"),
        responder: ip("2001:db8:0:1::2"),
        initiator_port: 1,
        responder_port: 4,
        protocol: 58,
        ..fragments()
    }
    .with_ports()
}

/// A SYN-ACK to nobody: only the responder was seen.
pub(super) fn backscatter() -> Record {
    Record {
        outer: Outer::default(),
        from_initiator: Direction::default(),
        from_responder: Direction { tcp_flags: 0x12, ..side(3) },
        handshake: Handshake::SynAck,
        handshake_rtt_us: None,
        end_reason: EndReason::ForcedEnd,
        ..web()
    }
}

/// A protocol without ports, by two who are equal.
pub(super) fn esp() -> Record {
    Record { protocol: 50, role: RoleEvidence::Guess, ..fragments() }
}

/// Totals of a flood of SYNs.
pub(super) fn folded() -> Record {
    Record {
        initiator: ip("203.0.0.0"),
        initiator_port: 0,
        outer: Outer::default(),
        from_initiator: Direction {
            packets: 1_000,
            bytes: 60_000,
            tcp_flags: 0x02,
            ..Direction::default()
        },
        from_responder: Direction::default(),
        handshake: Handshake::None,
        handshake_rtt_us: None,
        interface: 0,
        role: RoleEvidence::Guess,
        end_reason: EndReason::LackOfResources,
        folded: true,
        ..web()
    }
}

/// Packets of which nothing but number and length is known.
pub(super) fn rest() -> Record {
    Record {
        initiator: ip("::"),
        responder: ip("::"),
        responder_port: 0,
        protocol: 0,
        ports_known: false,
        ..folded()
    }
}

/// By a clock that was wrong.
pub(super) fn undated() -> Record {
    Record { start_ms: u64::MAX, end_ms: u64::MAX, ..fragments() }
}

/// All of them.
pub(super) fn all() -> Vec<Record> {
    vec![
        web(),
        fragments(),
        tunnelled(),
        echo(),
        unreachable(),
        backscatter(),
        esp(),
        folded(),
        rest(),
        undated(),
    ]
}

trait WithPorts {
    fn with_ports(self) -> Self;
}

impl WithPorts for Record {
    fn with_ports(self) -> Self {
        Self { ports_known: true, ..self }
    }
}
