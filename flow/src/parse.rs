//! Takes a frame's bytes; gives the key of its flow and what the packet adds to it, or why there is none.
//! The same source is compiled into the XDP program and into user space. Reads link, network and transport
//! headers only; never looks behind them.
//!
//! The plain case, Ethernet with IPv4 or IPv6 and TCP or UDP, takes few and constant-size reads; everything
//! else (tags, options, extension headers, fragments) is a bounded, slower branch.

#[cfg(not(target_arch = "bpf"))]
use serde::{Deserialize, Serialize};

use crate::{Address, FlowKey, Frame, Kind, plain_v4, plain_v6, protocol};

/// VLAN tags on a frame, outermost first, by VLAN identifier (1 to 4094); 0 where there is no such tag. A
/// priority tag (identifier 0) counts as no tag, as IEEE 802.1Q has it. Of a deeper stack the outer two are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "bpf"), derive(Serialize, Deserialize))]
pub struct Vlans(pub [u16; 2]);

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// Ethernet II or IEEE 802.3.
    Ethernet,
    /// Something else, already taken off: the network header starts at this offset and has this EtherType.
    Network {
        /// Offset of the network header, bytes.
        offset: usize,
        /// What the network header is.
        ethertype: u16,
    },
}

/// One IP packet: its flow and what it adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The flow, in domain 0: the caller interns [`Packet::vlans`].
    pub key: FlowKey,
    /// VLAN tags that the frame carried.
    pub vlans: Vlans,
    /// TCP flags; 0 where the protocol is not TCP or the header is cut before them.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
}

/// Why a frame that says it carries IP could not be counted as a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Malformed {
    /// Shorter than a link-layer header.
    LinkHeaderCut = 0,
    /// The capture ends inside the IP header.
    IpHeaderCut = 1,
    /// The IP version is not the one that the link layer announced.
    IpVersion = 2,
    /// An IPv4 header length under 20 bytes.
    IpHeaderLength = 3,
    /// A total length shorter than the IP header itself.
    IpTotalLength = 4,
}

impl Malformed {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::LinkHeaderCut,
        Self::IpHeaderCut,
        Self::IpVersion,
        Self::IpHeaderLength,
        Self::IpTotalLength,
    ];

    /// The name that metrics and summaries use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LinkHeaderCut => "link_header_cut",
            Self::IpHeaderCut => "ip_header_cut",
            Self::IpVersion => "ip_version",
            Self::IpHeaderLength => "ip_header_length",
            Self::IpTotalLength => "ip_total_length",
        }
    }
}

/// What a frame turned out to be; every frame is exactly one of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An IP packet.
    Ip(Packet),
    /// Something else, by EtherType (or, up to 1,500, the length field of an IEEE 802.3 frame).
    NotIp(u16),
    /// It says IP, and is broken.
    Malformed(Malformed),
}

const ETHERTYPE_OFFSET: usize = 12;
pub(crate) const ETHERNET_HEADER: usize = 14;
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Tag protocol identifiers: 802.1Q, 802.1ad, and the one used before 802.1ad was agreed.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// Tags walked; a frame with more counts as not IP under the EtherType of the next tag.
const TAGS_MAX: usize = 4;
/// IPv6 extension headers walked; a packet with more is a flow without ports.
const EXTENSIONS_MAX: usize = 6;

/// Parses one frame, the plain ones at once.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F, link: LinkLayer) -> Parsed {
    if link == LinkLayer::Ethernet
        && let Some(packet) = plain_v4(frame).or_else(|| plain_v6(frame))
    {
        return Parsed::Ip(packet);
    }
    parse_general(frame, link)
}

/// Parses one frame of any kind; of the plain ones it says what [`plain_v4`] and [`plain_v6`] say.
#[inline(always)]
pub fn parse_general<F: Frame + ?Sized>(frame: &F, link: LinkLayer) -> Parsed {
    let (offset, ethertype) = match link {
        LinkLayer::Ethernet => match frame.bytes::<2>(ETHERTYPE_OFFSET) {
            Some(ethertype) => (ETHERNET_HEADER, u16::from_be_bytes(ethertype)),
            None => return Parsed::Malformed(Malformed::LinkHeaderCut),
        },
        LinkLayer::Network { offset, ethertype } => (offset, ethertype),
    };
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, offset, Vlans::default()),
        ETHERTYPE_IPV6 => ipv6(frame, offset, Vlans::default()),
        other if TAGS.contains(&other) => tagged(frame, offset, other),
        other => Parsed::NotIp(other),
    }
}

/// Walks VLAN tags, then parses what is behind them.
#[inline(always)]
fn tagged<F: Frame + ?Sized>(frame: &F, mut offset: usize, mut ethertype: u16) -> Parsed {
    let mut vlans = Vlans::default();
    let mut kept = 0;
    for _ in 0..TAGS_MAX {
        if !TAGS.contains(&ethertype) {
            break;
        }
        let Some([tci_high, tci_low, next_high, next_low]) = frame.bytes::<4>(offset) else {
            return Parsed::Malformed(Malformed::LinkHeaderCut);
        };
        let identifier = u16::from_be_bytes([tci_high & 0x0f, tci_low]);
        if identifier != 0 {
            if kept == 0 {
                vlans.0[0] = identifier;
            } else if kept == 1 {
                vlans.0[1] = identifier;
            }
            kept += 1;
        }
        ethertype = u16::from_be_bytes([next_high, next_low]);
        offset += 4;
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, offset, vlans),
        ETHERTYPE_IPV6 => ipv6(frame, offset, vlans),
        other => Parsed::NotIp(other),
    }
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, offset: usize, vlans: Vlans) -> Parsed {
    let Some(header) = frame.bytes::<20>(offset) else {
        return Parsed::Malformed(Malformed::IpHeaderCut);
    };
    if header[0] >> 4 != 4 {
        return Parsed::Malformed(Malformed::IpVersion);
    }
    let header_length = usize::from(header[0] & 0x0f) * 4;
    if header_length < 20 {
        return Parsed::Malformed(Malformed::IpHeaderLength);
    }
    // A total length of 0 is what segmentation offload leaves in a frame longer than the field can say.
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if total_length != 0 && total_length < header_length {
        return Parsed::Malformed(Malformed::IpTotalLength);
    }
    let source = Address::from_v4([header[12], header[13], header[14], header[15]]);
    let destination = Address::from_v4([header[16], header[17], header[18], header[19]]);
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let transport = if fragment_offset == 0 {
        transport(frame, offset + header_length, header[9])
    } else {
        Transport::NONE
    };
    Parsed::Ip(packet(source, destination, Kind::V4, header[9], &transport, header[8], vlans))
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, offset: usize, vlans: Vlans) -> Parsed {
    let Some(header) = frame.bytes::<40>(offset) else {
        return Parsed::Malformed(Malformed::IpHeaderCut);
    };
    if header[0] >> 4 != 6 {
        return Parsed::Malformed(Malformed::IpVersion);
    }
    let half = |at: usize| -> [u8; 8] {
        [
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
            header[at + 4],
            header[at + 5],
            header[at + 6],
            header[at + 7],
        ]
    };
    let source = Address::from_v6(half(8), half(16));
    let destination = Address::from_v6(half(24), half(32));
    let next = header[6];
    let (protocol, transport) = if matches!(next, protocol::TCP | protocol::UDP | protocol::ICMP6) {
        (next, transport(frame, offset + 40, next))
    } else {
        behind_extensions(frame, offset + 40, next)
    };
    Parsed::Ip(packet(source, destination, Kind(0), protocol, &transport, header[7], vlans))
}

/// Walks IPv6 extension headers (RFC 8200 §4, RFC 4302 for AH) to the transport header.
#[inline(always)]
fn behind_extensions<F: Frame + ?Sized>(
    frame: &F,
    mut offset: usize,
    mut next: u8,
) -> (u8, Transport) {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    const MOBILITY: u8 = 135;
    for _ in 0..EXTENSIONS_MAX {
        if !matches!(
            next,
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY
        ) {
            return (next, transport(frame, offset, next));
        }
        let Some(header) = frame.bytes::<4>(offset) else {
            return (next, Transport::NONE);
        };
        let length = match next {
            FRAGMENT => {
                if u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0 {
                    return (header[0], Transport::NONE);
                }
                8
            }
            AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        next = header[0];
        offset += length;
    }
    (next, Transport::NONE)
}

/// What the transport header gave.
struct Transport {
    ports: [u16; 2],
    tcp_flags: u8,
    kind: Kind,
}

impl Transport {
    /// A later fragment, or a header that the capture does not hold.
    const NONE: Self = Self { ports: [0, 0], tcp_flags: 0, kind: Kind::NO_PORTS };
    /// A protocol that has no ports.
    const PORTLESS: Self = Self { ports: [0, 0], tcp_flags: 0, kind: Kind(0) };
}

#[inline(always)]
fn transport<F: Frame + ?Sized>(frame: &F, offset: usize, number: u8) -> Transport {
    match number {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            let Some([a, b, c, d]) = frame.bytes::<4>(offset) else {
                return Transport::NONE;
            };
            let tcp_flags = if number == protocol::TCP {
                frame.bytes::<1>(offset + 13).map_or(0, |[flags]| flags)
            } else {
                0
            };
            let ports = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
            Transport { ports, tcp_flags, kind: Kind(0) }
        }
        protocol::ICMP | protocol::ICMP6 => {
            let Some([message, code]) = frame.bytes::<2>(offset) else {
                return Transport::NONE;
            };
            let answer =
                if number == protocol::ICMP { icmp_answer(message) } else { icmp6_answer(message) };
            match answer {
                Some(answer) => Transport {
                    ports: [u16::from(message), u16::from(answer)],
                    tcp_flags: 0,
                    kind: Kind(0),
                },
                None => Transport {
                    ports: [u16::from(message), u16::from(code)],
                    tcp_flags: 0,
                    kind: Kind::ONE_WAY,
                },
            }
        }
        _ => Transport::PORTLESS,
    }
}

#[inline(always)]
fn packet(
    source: Address,
    destination: Address,
    version: Kind,
    protocol: u8,
    transport: &Transport,
    ttl: u8,
    vlans: Vlans,
) -> Packet {
    let kind = version.with(transport.kind);
    let key = FlowKey::new(source, destination, transport.ports, protocol, kind, 0);
    Packet { key, vlans, tcp_flags: transport.tcp_flags, ttl }
}

/// The ICMP type that answers this one, both ways round, as Community ID v1 pairs them.
#[inline(always)]
const fn icmp_answer(message: u8) -> Option<u8> {
    Some(match message {
        0 => 8,
        8 => 0,
        9 => 10,
        10 => 9,
        13 => 14,
        14 => 13,
        15 => 16,
        16 => 15,
        17 => 18,
        18 => 17,
        _ => return None,
    })
}

/// The ICMP for IPv6 type that answers this one, both ways round, as Community ID v1 pairs them.
#[inline(always)]
const fn icmp6_answer(message: u8) -> Option<u8> {
    Some(match message {
        128 => 129,
        129 => 128,
        130 => 131,
        131 => 130,
        133 => 134,
        134 => 133,
        135 => 136,
        136 => 135,
        139 => 140,
        140 => 139,
        144 => 145,
        145 => 144,
        _ => return None,
    })
}
