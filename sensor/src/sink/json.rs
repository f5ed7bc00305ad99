//! Takes records; writes one JSON object a line. Names follow the record's fields, values RFC 3339
//! and Community ID v1. What is not known is left out, never written as 0.

use std::io::{self, Write};

use flow::{
    Books, Direction, EndReason, Handshake, Outer, Record, RoleEvidence, Tunnel, community_id,
    protocol,
};
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::{Sink, SinkError};

/// Writes JSON lines.
pub struct JsonSink<W> {
    writer: W,
}

impl<W: Write + Send> JsonSink<W> {
    /// `writer` should be buffered.
    pub fn new(writer: W) -> Self {
        Self { writer }
    }
}

impl<W: Write + Send> Sink for JsonSink<W> {
    fn name(&self) -> &'static str {
        "json"
    }

    fn handle_records(
        &mut self,
        records: &[Record],
        _books: &Books,
        _now_ms: u64,
    ) -> Result<(), SinkError> {
        for record in records {
            serde_json::to_writer(&mut self.writer, &Line::from(record))
                .map_err(io::Error::from)
                .and_then(|()| self.writer.write_all(b"\n"))
                .map_err(SinkError::Write)?;
        }
        Ok(())
    }

    fn advance(&mut self, _books: &Books, _now_ms: u64) -> Result<(), SinkError> {
        self.writer.flush().map_err(SinkError::Write)
    }

    fn finish(&mut self, _books: &Books, _now_ms: u64) -> Result<(), SinkError> {
        self.writer.flush().map_err(SinkError::Write)
    }
}

/// One line, in the order in which it is written.
#[derive(Serialize)]
struct Line {
    start_time: Option<Time>,
    end_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    community_id: Option<Text>,
    protocol: u8,
    initiator: std::net::IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator_port: Option<u16>,
    responder: std::net::IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    responder_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vlan_outer: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vlan_inner: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mpls_label: Option<u32>,
    #[serde(skip_serializing_if = "Tunnels::is_empty")]
    tunnels: Tunnels,
    initiator_packets: u64,
    initiator_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator_tcp_flags: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator_ttl: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator_dscp: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator_first_flags: Option<u8>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    initiator_fragmented: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator_length_min: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator_length_max: Option<u16>,
    responder_packets: u64,
    responder_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    responder_tcp_flags: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    responder_ttl: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    responder_dscp: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    responder_first_flags: Option<u8>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    responder_fragmented: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    responder_length_min: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    responder_length_max: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake: Option<Handshake>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_rtt_us: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<u8>,
    role: RoleEvidence,
    end_reason: EndReason,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    folded: bool,
}

impl From<&Record> for Line {
    fn from(record: &Record) -> Self {
        let ports = ports(record);
        let is_tcp = record.protocol == protocol::TCP;
        let vlans = record.outer.vlans();
        let tag = |at: usize| Some(vlans.0[at]).filter(|identifier| *identifier != 0);
        let (initiator, responder) = (record.from_initiator, record.from_responder);
        let seen = |side: &Direction| side.packets > 0;
        // Of many flows in one record only the counts are known, and whether a SYN was among them.
        let single = |side: &Direction| seen(side) && !record.folded;
        // Of a flow whose packets of this direction were all in earlier parts they are known, too.
        let first_flags = |side: &Direction| {
            let known = is_tcp && !record.folded && (seen(side) || side.first_flags != 0);
            known.then_some(side.first_flags)
        };
        let flags = |side: &Direction| {
            let known = if record.folded { side.tcp_flags != 0 } else { seen(side) };
            (is_tcp && known).then_some(side.tcp_flags)
        };
        Self {
            start_time: Time::from_ms(record.start_ms),
            end_time: Time::from_ms(record.end_ms),
            community_id: (!record.folded).then(|| {
                Text(community_id(
                    record.initiator,
                    record.responder,
                    record.protocol,
                    ports,
                    is_one_way(record),
                ))
            }),
            protocol: record.protocol,
            initiator: record.initiator,
            initiator_port: ports.map(|ports| ports[0]).filter(|_| !record.folded),
            responder: record.responder,
            responder_port: ports.map(|ports| ports[1]),
            vlan_outer: tag(0),
            vlan_inner: tag(1),
            mpls_label: record.outer.mpls_label(),
            tunnels: Tunnels(record.outer),
            initiator_packets: initiator.packets,
            initiator_bytes: initiator.bytes,
            initiator_tcp_flags: flags(&initiator),
            initiator_ttl: single(&initiator).then_some(initiator.ttl),
            initiator_dscp: single(&initiator).then_some(initiator.dscp),
            initiator_first_flags: first_flags(&initiator),
            initiator_fragmented: initiator.fragmented,
            initiator_length_min: single(&initiator).then_some(initiator.length_min),
            initiator_length_max: single(&initiator).then_some(initiator.length_max),
            responder_packets: responder.packets,
            responder_bytes: responder.bytes,
            responder_tcp_flags: flags(&responder),
            responder_ttl: single(&responder).then_some(responder.ttl),
            responder_dscp: single(&responder).then_some(responder.dscp),
            responder_first_flags: first_flags(&responder),
            responder_fragmented: responder.fragmented,
            responder_length_min: single(&responder).then_some(responder.length_min),
            responder_length_max: single(&responder).then_some(responder.length_max),
            handshake: (is_tcp && !record.folded).then_some(record.handshake),
            handshake_rtt_us: record.handshake_rtt_us,
            interface: Some(record.interface).filter(|number| *number != 0),
            role: record.role,
            end_reason: record.end_reason,
            folded: record.folded,
        }
    }
}

/// The ports (for ICMP: the types), or `None` where the protocol has none or the packets did not
/// show them.
fn ports(record: &Record) -> Option<[u16; 2]> {
    let has_ports = matches!(
        record.protocol,
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ICMP | protocol::ICMP6
    );
    (has_ports && record.ports_known).then_some([record.initiator_port, record.responder_port])
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

/// A time with milliseconds, RFC 3339 in UTC.
struct Time(Timestamp);

impl Time {
    /// `None` for a time that no calendar holds: the capture's clock was wrong.
    fn from_ms(ms: u64) -> Option<Self> {
        let ms = i64::try_from(ms).ok()?;
        Timestamp::from_millisecond(ms).ok().map(Self)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.3}", self.0))
    }
}

/// What the packets came out of, outermost first, as `["vxlan:5001"]`.
struct Tunnels(Outer);

impl Tunnels {
    fn is_empty(&self) -> bool {
        self.0.tunnels().next().is_none()
    }
}

impl Serialize for Tunnels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.tunnels().map(Displayed))
    }
}

struct Displayed(Tunnel);

impl Serialize for Displayed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct Text(flow::CommunityId);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}
