//! Takes a frame's bytes; gives the key of its flow and what the packet adds to it, or why there is none.
//! The same source is compiled into the XDP program and into user space. Reads link, network, tunnel and transport
//! headers only; never looks behind them.
//!
//! The plain case, Ethernet with IPv4 or IPv6 and TCP or UDP, is [`parse_plain`]: few reads of constant size at
//! constant places. Everything else (tags, labels, tunnels, options, extension headers, fragments) is a
//! [`Walk`], which goes from header to header, a bounded number of steps.

mod ip;
mod transport;
mod tunnel;
mod walk;

use crate::{Address, FlowKey, Fragment, Frame, Kind, Outer, protocol};

pub use walk::{Walk, Walked};

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

/// What else is to be told of a packet; a set of bits because it crosses the kernel boundary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Notes(pub u8);

impl Notes {
    /// It carries a tunnel that could not be entered (cut, broken, or not IP inside): the flow is the carrier's.
    pub const TUNNEL_CLOSED: Self = Self(1);
    /// It carries more tunnels inside one another than are entered: the flow is that of the last carrier.
    pub const TUNNEL_TOO_DEEP: Self = Self(2);
    /// It had more VLAN tags than are kept.
    pub const VLANS_LEFT_OUT: Self = Self(4);
    /// Names of the bits, lowest first, as metrics and summaries use them.
    pub const NAMES: [&'static str; 3] = ["tunnel_closed", "tunnel_too_deep", "vlans_left_out"];

    /// Both sets of bits.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One IP packet, the innermost that could be reached: its flow and what it adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// The flow, in domain 0: the caller interns [`Packet::outer`].
    pub key: FlowKey,
    /// What the packet was carried in.
    pub outer: Outer,
    /// TCP flags; 0 where the protocol is not TCP or the header is cut before them.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// What else is to be told.
    pub notes: Notes,
    /// Whether it is a piece of a datagram.
    pub fragment: Fragment,
    /// Offset of its IP header in the frame, bytes.
    pub network_offset: usize,
    /// Offset of its transport header in the frame, bytes; 0 in a later fragment.
    pub transport_offset: usize,
    /// How long the frame is at least, as the outermost IP header says, bytes; 0 where that does not tell. A frame
    /// that is shorter was cut on its way here.
    pub length_told: usize,
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

/// EtherTypes that have a meaning here (IANA, IEEE 802).
mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
    pub(super) const MPLS: u16 = 0x8847;
    pub(super) const MPLS_MULTICAST: u16 = 0x8848;
    pub(super) const PPPOE_SESSION: u16 = 0x8864;
    /// PPP as GRE carries it.
    pub(super) const PPP: u16 = 0x880b;
    /// A whole Ethernet frame, as GRE and Geneve carry it.
    pub(super) const ETHERNET: u16 = 0x6558;
    /// Tag protocol identifiers: 802.1Q, 802.1ad, and the one used before 802.1ad was agreed.
    pub(super) const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
}

const ETHERTYPE_OFFSET: usize = 12;
const ETHERNET_HEADER: usize = 14;

/// Parses one frame.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F, link: LinkLayer) -> Parsed {
    if link == LinkLayer::Ethernet
        && let Some(packet) = parse_plain(frame)
    {
        return Parsed::Ip(packet);
    }
    let mut walk = Walk::default();
    match walk.run(frame, link) {
        Walked::Ip => Parsed::Ip(walk.packet()),
        Walked::NotIp(ethertype) => Parsed::NotIp(ethertype),
        Walked::Malformed(reason) => Parsed::Malformed(reason),
    }
}

/// Parses an Ethernet frame of the plain case: no tag, no option, no extension header, no fragment, no tunnel, TCP or
/// UDP. `None` for any other frame, whatever is the matter with it.
#[inline(always)]
pub fn parse_plain<F: Frame + ?Sized>(frame: &F) -> Option<Packet> {
    let [high, low] = frame.bytes::<2>(ETHERTYPE_OFFSET)?;
    match u16::from_be_bytes([high, low]) {
        ethertype::IPV4 => plain_ipv4(frame),
        ethertype::IPV6 => plain_ipv6(frame),
        _ => None,
    }
}

#[inline(always)]
fn plain_ipv4<F: Frame + ?Sized>(frame: &F) -> Option<Packet> {
    const TRANSPORT: usize = ETHERNET_HEADER + 20;
    let header = frame.bytes::<20>(ETHERNET_HEADER)?;
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let is_fragment = u16::from_be_bytes([header[6], header[7]]) & ip::FRAGMENT_BITS != 0;
    if header[0] != 0x45 || is_fragment || total_length < 20 {
        return None;
    }
    let source = Address::from_v4([header[12], header[13], header[14], header[15]]);
    let destination = Address::from_v4([header[16], header[17], header[18], header[19]]);
    let (ports, tcp_flags) = plain_transport(frame, TRANSPORT, header[9])?;
    Some(Packet {
        key: FlowKey::new(source, destination, ports, header[9], Kind::V4, 0),
        tcp_flags,
        ttl: header[8],
        network_offset: ETHERNET_HEADER,
        transport_offset: TRANSPORT,
        length_told: ETHERNET_HEADER + total_length,
        ..Packet::default()
    })
}

#[inline(always)]
fn plain_ipv6<F: Frame + ?Sized>(frame: &F) -> Option<Packet> {
    const TRANSPORT: usize = ETHERNET_HEADER + 40;
    let header = frame.bytes::<40>(ETHERNET_HEADER)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let payload_length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let [source, destination] = ip::v6_addresses(&header);
    let (ports, tcp_flags) = plain_transport(frame, TRANSPORT, header[6])?;
    Some(Packet {
        key: FlowKey::new(source, destination, ports, header[6], Kind(0), 0),
        tcp_flags,
        ttl: header[7],
        network_offset: ETHERNET_HEADER,
        transport_offset: TRANSPORT,
        length_told: ip::v6_length_told(ETHERNET_HEADER, payload_length),
        ..Packet::default()
    })
}

/// Ports and TCP flags; `None` when the header is cut, is neither TCP nor UDP, or has a tunnel behind it.
#[inline(always)]
fn plain_transport<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    number: u8,
) -> Option<([u16; 2], u8)> {
    if number == protocol::TCP {
        let header = frame.bytes::<14>(offset)?;
        let ports = [
            u16::from_be_bytes([header[0], header[1]]),
            u16::from_be_bytes([header[2], header[3]]),
        ];
        return Some((ports, header[13]));
    }
    if number != protocol::UDP {
        return None;
    }
    let [a, b, c, d] = frame.bytes::<4>(offset)?;
    let ports = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    (!tunnel::is_udp_tunnel(ports[1])).then_some((ports, 0))
}
