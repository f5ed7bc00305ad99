//! Takes a record; gives field by field what it says, `None` where it says nothing. The one place that
//! knows which numbers of a record mean "unknown", so that no output writes an unknown as 0.

use std::net::IpAddr;

use flow::{
    CommunityId, Direction, EndReason, Handshake, Outer, Record, RoleEvidence, community_id,
    protocol,
};

/// The last moment that calendars, and every output's form of a time, can hold: the end of the year
/// 9999, milliseconds since the Unix epoch.
const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// Bits of the source prefix that a folded record stands for.
const PREFIX_BITS_V4: u8 = 8;
const PREFIX_BITS_V6: u8 = 16;

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Time of the first packet, milliseconds since the Unix epoch.
    pub(super) start_ms: Option<u64>,
    /// Time of the last packet, the same.
    pub(super) end_ms: Option<u64>,
    /// Between the two, milliseconds.
    pub(super) duration_ms: u64,
    /// IP protocol number; of the rest of folded packets nothing is known.
    pub(super) protocol: Option<u8>,
    /// The initiator's address, or the network address of its prefix; `::` in the rest.
    pub(super) initiator: IpAddr,
    /// The responder's address; `::` in the rest.
    pub(super) responder: IpAddr,
    /// How many bits of `initiator` are known, when that is not all of them.
    pub(super) prefix_bits: Option<u8>,
    /// The initiator's port; for ICMP the message's type.
    pub(super) initiator_port: Option<u16>,
    /// The responder's port; for ICMP the type that answers, or the code where nothing does.
    pub(super) responder_port: Option<u16>,
    /// Outer VLAN identifier.
    pub(super) vlan_outer: Option<u16>,
    /// Inner VLAN identifier.
    pub(super) vlan_inner: Option<u16>,
    /// The lowest MPLS label.
    pub(super) mpls_label: Option<u32>,
    /// For its tunnels.
    pub(super) outer: Outer,
    /// What the initiator sent.
    pub(super) from_initiator: Sent,
    /// What the responder sent.
    pub(super) from_responder: Sent,
    /// How far TCP got.
    pub(super) handshake: Option<Handshake>,
    /// From the SYN to the SYN-ACK at the mirror port, microseconds.
    pub(super) handshake_rtt_us: Option<u32>,
    /// By which interface it came in, from 1 in the order of the configuration.
    pub(super) interface: Option<u8>,
    /// What the roles rest on.
    pub(super) role: RoleEvidence,
    /// Why the record was written.
    pub(super) end_reason: EndReason,
    /// Whether it is the totals of many flows.
    pub(super) folded: bool,
    /// Whether it is an ICMP message that asks for no answer.
    pub(super) one_way: bool,
}

/// What is known of one side's packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Packets.
    pub(super) packets: u64,
    /// Layer-2 bytes.
    pub(super) bytes: u64,
    /// OR of all TCP flags.
    pub(super) tcp_flags: Option<u8>,
    /// TTL or hop limit of the first packet.
    pub(super) ttl: Option<u8>,
    /// Differentiated services code point of the first packet.
    pub(super) dscp: Option<u8>,
    /// TCP flags of the first packet of the whole flow.
    pub(super) first_flags: Option<u8>,
    /// Whether some packets were fragments.
    pub(super) fragmented: Option<bool>,
    /// Shortest frame, layer-2 bytes.
    pub(super) length_min: Option<u16>,
    /// Longest frame, layer-2 bytes.
    pub(super) length_max: Option<u16>,
}

impl Sent {
    fn of(side: &Direction, is_tcp: bool, folded: bool) -> Self {
        let seen = side.packets > 0;
        // Of many flows in one record only the counts are known, and whether a SYN was among them.
        let single = seen && !folded;
        let flagged = is_tcp && if folded { side.tcp_flags != 0 } else { seen };
        Self {
            packets: side.packets,
            bytes: side.bytes,
            tcp_flags: flagged.then_some(side.tcp_flags),
            ttl: single.then_some(side.ttl),
            dscp: single.then_some(side.dscp),
            // Of a flow whose packets of this direction were all in earlier parts they are known, too.
            first_flags: (is_tcp && !folded && (seen || side.first_flags != 0))
                .then_some(side.first_flags),
            fragmented: single.then_some(side.fragmented),
            length_min: single.then_some(side.length_min),
            length_max: single.then_some(side.length_max),
        }
    }
}

impl Known {
    pub(super) fn of(record: &Record) -> Self {
        let known_ports = has_ports(record.protocol) && record.ports_known;
        let port = |port: u16| known_ports.then_some(port);
        let is_tcp = record.protocol == protocol::TCP;
        let is_rest = record.folded
            && record.protocol == 0
            && record.initiator.is_unspecified()
            && record.responder.is_unspecified();
        let vlans = record.outer.vlans();
        let tag = |at: usize| Some(vlans.0[at]).filter(|identifier| *identifier != 0);
        let time = |ms: u64| (ms <= TIME_MS_MAX).then_some(ms);
        let prefix_bits = match record.initiator {
            _ if !record.folded => None,
            IpAddr::V4(_) => Some(PREFIX_BITS_V4),
            IpAddr::V6(_) if is_rest => Some(0),
            IpAddr::V6(_) => Some(PREFIX_BITS_V6),
        };
        Self {
            start_ms: time(record.start_ms),
            end_ms: time(record.end_ms),
            duration_ms: record.end_ms.saturating_sub(record.start_ms),
            protocol: (!is_rest).then_some(record.protocol),
            initiator: record.initiator,
            responder: record.responder,
            prefix_bits,
            initiator_port: port(record.initiator_port).filter(|_| !record.folded),
            responder_port: port(record.responder_port),
            vlan_outer: tag(0),
            vlan_inner: tag(1),
            mpls_label: record.outer.mpls_label(),
            outer: record.outer,
            from_initiator: Sent::of(&record.from_initiator, is_tcp, record.folded),
            from_responder: Sent::of(&record.from_responder, is_tcp, record.folded),
            handshake: (is_tcp && !record.folded).then_some(record.handshake),
            handshake_rtt_us: record.handshake_rtt_us,
            interface: Some(record.interface).filter(|number| *number != 0),
            role: record.role,
            end_reason: record.end_reason,
            folded: record.folded,
            one_way: known_ports && is_one_way(record),
        }
    }

    /// Whether nothing but the number and length of packets is known.
    pub(super) fn is_rest(&self) -> bool {
        self.protocol.is_none()
    }

    /// Version of the addresses.
    pub(super) fn ip_version(&self) -> Option<u8> {
        let version = if self.responder.is_ipv4() { 4 } else { 6 };
        (!self.is_rest()).then_some(version)
    }

    /// Whether the ports are an ICMP message's type and what answers it.
    pub(super) fn is_icmp(&self) -> bool {
        matches!(self.protocol, Some(protocol::ICMP | protocol::ICMP6))
    }

    /// The flow's Community ID; none for the totals of many flows.
    pub(super) fn community_id(&self) -> Option<CommunityId> {
        if self.folded {
            return None;
        }
        let ports = self.initiator_port.zip(self.responder_port).map(|(near, far)| [near, far]);
        Some(community_id(self.initiator, self.responder, self.protocol?, ports, self.one_way))
    }
}

/// Whether a protocol has ports, or, ICMP, what stands for them.
fn has_ports(number: u8) -> bool {
    matches!(
        number,
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ICMP | protocol::ICMP6
    )
}

/// Whether this is an ICMP message that asks for no answer; Community ID does not order its ends.
pub(super) fn is_one_way(record: &Record) -> bool {
    match record.protocol {
        protocol::ICMP => !matches!(record.initiator_port, 0 | 8..=10 | 13..=18),
        protocol::ICMP6 => {
            !matches!(record.initiator_port, 128..=131 | 133..=136 | 139 | 140 | 144 | 145)
        }
        _ => false,
    }
}

/// The name of a handshake's state in every output.
pub(super) const fn handshake_name(handshake: Handshake) -> &'static str {
    match handshake {
        Handshake::None => "none",
        Handshake::Syn => "syn",
        Handshake::SynAck => "syn_ack",
        Handshake::Established => "established",
        Handshake::Rejected => "rejected",
        Handshake::OneWay => "one_way",
    }
}

/// The name of what roles rest on, in every output.
pub(super) const fn role_name(role: RoleEvidence) -> &'static str {
    match role {
        RoleEvidence::Handshake => "handshake",
        RoleEvidence::FirstPacket => "first_packet",
        RoleEvidence::PortRank => "port_rank",
        RoleEvidence::Guess => "guess",
    }
}

/// The name of the reason for a record, in every output.
pub(super) const fn end_reason_name(reason: EndReason) -> &'static str {
    match reason {
        EndReason::IdleTimeout => "idle_timeout",
        EndReason::ActiveTimeout => "active_timeout",
        EndReason::EndOfFlow => "end_of_flow",
        EndReason::ForcedEnd => "forced_end",
        EndReason::LackOfResources => "lack_of_resources",
    }
}

/// Tunnels as one text, outermost first, as `gre,vxlan:5001`; `None` where there is none.
pub(super) fn tunnels_text(outer: Outer) -> Option<String> {
    let each: Vec<String> = outer.tunnels().map(|tunnel| tunnel.to_string()).collect();
    (!each.is_empty()).then(|| each.join(","))
}
