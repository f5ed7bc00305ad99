//! What leaves the sensor: one bidirectional flow (RFC 5103), or a part of one after an active timeout.

use core::net::IpAddr;

#[cfg(not(target_arch = "bpf"))]
use serde::{Deserialize, Serialize};

use crate::Outer;

/// How far a TCP connection got, as far as this sensor could see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "bpf"), derive(Serialize, Deserialize))]
#[cfg_attr(not(target_arch = "bpf"), serde(rename_all = "snake_case"))]
#[repr(u8)]
pub enum Handshake {
    /// Not TCP, or both directions were seen but not the opening.
    #[default]
    None = 0,
    /// The initiator's SYN, and nothing back.
    Syn = 1,
    /// A SYN-ACK from the responder that the initiator never acknowledged. Without a packet of the
    /// initiator it is backscatter, or one half of the conversation is not mirrored.
    SynAck = 2,
    /// SYN, SYN-ACK and the initiator's next segment.
    Established = 3,
    /// The responder answered the SYN with RST.
    Rejected = 4,
    /// TCP segments of one direction only, none of them an opening. While the mirror shows one direction of the
    /// traffic only, also an opening by itself: nobody can say whether it was answered.
    OneWay = 5,
}

/// Why a record was written; the numbers are those of IPFIX information element 136 (`flowEndReason`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "bpf"), derive(Serialize, Deserialize))]
#[cfg_attr(not(target_arch = "bpf"), serde(rename_all = "snake_case"))]
#[repr(u8)]
pub enum EndReason {
    /// No packet for the idle timeout.
    #[default]
    IdleTimeout = 1,
    /// The flow goes on; this is what it did since the last record.
    ActiveTimeout = 2,
    /// FIN or RST seen.
    EndOfFlow = 3,
    /// The sensor stopped, or the capture ended.
    ForcedEnd = 4,
    /// The flow table was full.
    LackOfResources = 5,
}

/// What the choice of initiator and responder rests on, weakest last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "bpf"), derive(Serialize, Deserialize))]
#[cfg_attr(not(target_arch = "bpf"), serde(rename_all = "snake_case"))]
#[repr(u8)]
pub enum RoleEvidence {
    /// A SYN or SYN-ACK was seen.
    Handshake = 1,
    /// The initiator sent the first packet of a flow whose start was seen.
    FirstPacket = 2,
    /// The responder has the better-known port.
    PortRank = 3,
    /// Nothing: both guesses are equal, the first sender is called initiator.
    #[default]
    Guess = 4,
}

/// What one side of a flow sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "bpf"), derive(Serialize, Deserialize))]
pub struct Direction {
    /// Packets.
    pub packets: u64,
    /// Layer-2 bytes on the wire, frame check sequence excluded.
    pub bytes: u64,
    /// OR of all TCP flags; 0 where the protocol is not TCP.
    pub tcp_flags: u8,
    /// TTL or hop limit of the first packet; 0 when there was none.
    pub ttl: u8,
    /// Differentiated services code point of the first packet, 0 to 63 (RFC 2474); 0 when there was none.
    pub dscp: u8,
    /// TCP flags of the first packet of the whole flow in this direction, the same in every part of it; 0 where the
    /// protocol is not TCP, or while there was none.
    pub first_flags: u8,
    /// Some of the packets were fragments of IP datagrams.
    pub fragmented: bool,
    /// Shortest frame, layer-2 bytes, saturating at 65,535; 0 when there was none.
    pub length_min: u16,
    /// Longest frame, layer-2 bytes, saturating at 65,535; 0 when there was none.
    pub length_max: u16,
}

/// Which addresses of a record are pseudonyms. A sensor sets this on the way to the backend only; what it writes
/// at the site has the addresses as they were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "bpf"), derive(Serialize, Deserialize))]
pub struct Pseudonyms {
    /// That of the initiator; of a folded record, the bits of its prefix.
    pub initiator: bool,
    /// That of the responder.
    pub responder: bool,
}

impl Pseudonyms {
    /// Whether there is one.
    #[must_use]
    pub const fn any(self) -> bool {
        self.initiator || self.responder
    }
}

/// One bidirectional flow, or its part since the last active timeout; or, where [`Record::folded`] is true,
/// the totals of many flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "bpf"), derive(Serialize, Deserialize))]
pub struct Record {
    /// Time of the first packet, milliseconds since the Unix epoch.
    pub start_ms: u64,
    /// Time of the last packet, milliseconds since the Unix epoch; at least `start_ms`.
    pub end_ms: u64,
    /// Who opened the flow; [`Record::role`] says how sure that is.
    pub initiator: IpAddr,
    /// The other side.
    pub responder: IpAddr,
    /// Which of the two are pseudonyms.
    pub pseudonyms: Pseudonyms,
    /// The initiator's port; for ICMP see [`crate::FlowKey`]; 0 where `ports_known` is false.
    pub initiator_port: u16,
    /// The responder's port; for ICMP see [`crate::FlowKey`]; 0 where `ports_known` is false.
    pub responder_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// False for fragments after the first and for cut packets: the ports are unknown.
    pub ports_known: bool,
    /// VLAN tags and tunnels, as far as they tell this flow from others.
    pub outer: Outer,
    /// What the initiator sent.
    pub from_initiator: Direction,
    /// What the responder sent.
    pub from_responder: Direction,
    /// How far the TCP connection got.
    pub handshake: Handshake,
    /// From the SYN to the SYN-ACK as they passed the mirror port, microseconds, the same in every part of the
    /// flow; `None` where it is not known: one of them was not seen, or the SYN was sent again.
    pub handshake_rtt_us: Option<u32>,
    /// By which interface the initiator's packets came in, or, where it sent none, the responder's: 1 for the first
    /// of the configuration, and so on up to [`Record::INTERFACE_MAX`]; 0 where it is not known, as in a capture file.
    pub interface: u8,
    /// What the roles rest on.
    pub role: RoleEvidence,
    /// Why the record was written.
    pub end_reason: EndReason,
    /// True for the totals of many flows whose packets found no room in the kernel's tables. Packets and bytes
    /// are exact, and so are responder (whom they were sent to), its port, and the protocol. The initiator is
    /// the network address of the prefix they came from (IPv4 /8, IPv6 /16), its port is unknown. The outer
    /// identity is none where it is unknown; of the TCP flags only a SYN is known. Both addresses are `::`
    /// (and the ports unknown) in the rest: packets of which nothing but their number and length is known.
    pub folded: bool,
}

impl Direction {
    /// Largest code point of differentiated services.
    pub const DSCP_MAX: u8 = 63;
}

impl Record {
    /// Largest number of an interface.
    pub const INTERFACE_MAX: u8 = 7;
}

macro_rules! from_number {
    ($type:ty { $($variant:ident),+ }) => {
        impl TryFrom<u8> for $type {
            type Error = u8;

            /// The variant with this number, or the number back when there is none.
            fn try_from(number: u8) -> Result<Self, u8> {
                match number {
                    $(x if x == Self::$variant as u8 => Ok(Self::$variant),)+
                    unknown => Err(unknown),
                }
            }
        }
    };
}

from_number!(Handshake { None, Syn, SynAck, Established, Rejected, OneWay });
from_number!(EndReason { IdleTimeout, ActiveTimeout, EndOfFlow, ForcedEnd, LackOfResources });
from_number!(RoleEvidence { Handshake, FirstPacket, PortRank, Guess });
