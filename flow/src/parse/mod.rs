//! Takes a frame's bytes; gives the key of its flow and what the packet adds to it, or why there is none.
//! The same source is compiled into the XDP program and into user space. Reads link, network, tunnel and transport
//! headers only; never looks behind them.
//!
//! The plain case, Ethernet with IPv4 or IPv6 and TCP or UDP, is [`plain_v4`] and [`plain_v6`]: one read of constant
//! size at a constant place. The same in one VLAN tag, VXLAN or bare GRE is [`parse_common`], at other constant
//! places. Everything else (labels, other tunnels, options, extension headers, fragments) is a [`Walk`], which goes
//! from header to header, a bounded number of steps, and would find the same in the other two cases.

mod ip;
mod plain;
mod transport;
mod tunnel;
mod walk;

use crate::{FlowKey, Fragment, Frame, Outer};

pub use plain::{parse_common, plain_v4, plain_v6};
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
    /// Differentiated services code point.
    pub dscp: u8,
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

/// The differentiated services code point (RFC 2474) in the first two bytes of an IP header of either version.
#[inline(always)]
#[must_use]
pub const fn dscp([first, second]: [u8; 2]) -> u8 {
    if first >> 4 == 6 { (first & 0x0f) << 2 | second >> 6 } else { second >> 2 }
}

const ETHERTYPE_OFFSET: usize = 12;
const ETHERNET_HEADER: usize = 14;

/// Parses one frame that is of one of the shapes that most frames have, at constant places; `None` for any other.
#[inline(always)]
pub fn parse_plain<F: Frame + ?Sized>(frame: &F) -> Option<Packet> {
    plain_v4(frame).or_else(|| plain_v6(frame)).or_else(|| parse_common(frame))
}

/// Parses one frame.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F, link: LinkLayer) -> Parsed {
    if link == LinkLayer::Ethernet {
        // As in `parse_plain`, and each a return of its own: nothing is copied on the way.
        if let Some(packet) = plain_v4(frame) {
            return Parsed::Ip(packet);
        }
        if let Some(packet) = plain_v6(frame) {
            return Parsed::Ip(packet);
        }
        if let Some(packet) = parse_common(frame) {
            return Parsed::Ip(packet);
        }
    }
    let mut walk = Walk::default();
    match walk.run(frame, link) {
        Walked::Ip => Parsed::Ip(walk.packet()),
        Walked::NotIp(ethertype) => Parsed::NotIp(ethertype),
        Walked::Malformed(reason) => Parsed::Malformed(reason),
    }
}
