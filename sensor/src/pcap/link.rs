//! Takes a capture's link type and a frame; gives where its network header starts. Numbers are
//! those of the registry of link types that pcap and pcapng share.

use flow::{Frame as _, LinkLayer};

/// A link type that this sensor can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// BSD loopback: the address family in the byte order of the machine that captured.
    Null,
    /// IEEE 802.3 Ethernet.
    Ethernet,
    /// PPP, with or without its address and control bytes.
    Ppp,
    /// An IP packet without a link header.
    Raw,
    /// An IPv4 packet without a link header.
    Ipv4,
    /// An IPv6 packet without a link header.
    Ipv6,
    /// PPP in HDLC-like framing, and Cisco's.
    Hdlc,
    /// OpenBSD loopback: the address family in network byte order.
    Loop,
    /// Linux cooked capture, version 1.
    Cooked,
    /// Linux cooked capture, version 2.
    Cooked2,
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// An `EtherType` that is reserved and never on a wire: a protocol that has none.
const ETHERTYPE_NONE: u16 = 0xffff;

impl LinkType {
    /// Every link type, in the order of their declaration.
    pub const ALL: [Self; 10] = [
        Self::Null,
        Self::Ethernet,
        Self::Ppp,
        Self::Raw,
        Self::Ipv4,
        Self::Ipv6,
        Self::Hdlc,
        Self::Loop,
        Self::Cooked,
        Self::Cooked2,
    ];

    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "BSD loopback",
            Self::Ethernet => "Ethernet",
            Self::Ppp => "PPP",
            Self::Raw => "raw IP",
            Self::Ipv4 => "raw IPv4",
            Self::Ipv6 => "raw IPv6",
            Self::Hdlc => "HDLC",
            Self::Loop => "OpenBSD loopback",
            Self::Cooked => "Linux cooked v1",
            Self::Cooked2 => "Linux cooked v2",
        }
    }

    /// The link type with this number, or the number back.
    ///
    /// # Errors
    /// The number, when no reader for it exists.
    pub fn from_number(number: u32) -> Result<Self, u32> {
        Ok(match number {
            0 => Self::Null,
            1 => Self::Ethernet,
            9 | 50 => Self::Ppp,
            // 12 and 14 are what some systems wrote for 101.
            12 | 14 | 101 => Self::Raw,
            104 => Self::Hdlc,
            108 => Self::Loop,
            113 => Self::Cooked,
            228 => Self::Ipv4,
            229 => Self::Ipv6,
            276 => Self::Cooked2,
            other => return Err(other),
        })
    }

    /// Where the network header of `frame` starts; `None` when the link header is cut.
    #[must_use]
    #[inline]
    pub fn network(self, frame: &[u8]) -> Option<LinkLayer> {
        if self == Self::Ethernet { Some(LinkLayer::Ethernet) } else { self.other_network(frame) }
    }

    fn other_network(self, frame: &[u8]) -> Option<LinkLayer> {
        let (offset, ethertype) = match self {
            Self::Ethernet => return Some(LinkLayer::Ethernet),
            Self::Ipv4 => (0, ETHERTYPE_IPV4),
            Self::Ipv6 => (0, ETHERTYPE_IPV6),
            Self::Raw => (0, version(frame.bytes::<1>(0)?[0])),
            Self::Null => {
                // A family is a small number, so the byte order shows.
                let family = frame.bytes::<4>(0)?;
                let (little, big) = (u32::from_le_bytes(family), u32::from_be_bytes(family));
                (4, address_family(little.min(big)))
            }
            Self::Loop => (4, address_family(u32::from_be_bytes(frame.bytes::<4>(0)?))),
            Self::Ppp => {
                let offset = if frame.bytes::<2>(0)? == [0xff, 0x03] { 2 } else { 0 };
                (offset + 2, ppp(u16::from_be_bytes(frame.bytes::<2>(offset)?)))
            }
            Self::Hdlc => {
                let protocol = u16::from_be_bytes(frame.bytes::<2>(2)?);
                // Cisco's framing carries an EtherType, PPP's (RFC 1662) a PPP protocol number.
                let is_ppp = frame.bytes::<2>(0)? == [0xff, 0x03];
                (4, if is_ppp { ppp(protocol) } else { protocol })
            }
            Self::Cooked => (16, u16::from_be_bytes(frame.bytes::<2>(14)?)),
            Self::Cooked2 => {
                let _whole = frame.bytes::<20>(0)?;
                (20, u16::from_be_bytes(frame.bytes::<2>(0)?))
            }
        };
        Some(LinkLayer::Network { offset, ethertype })
    }
}

fn version(first: u8) -> u16 {
    match first >> 4 {
        4 => ETHERTYPE_IPV4,
        6 => ETHERTYPE_IPV6,
        _ => ETHERTYPE_NONE,
    }
}

/// `AF_INET6` differs by system: 24 `NetBSD`, 28 `FreeBSD`, 30 macOS, 10 Linux.
fn address_family(family: u32) -> u16 {
    match family {
        2 => ETHERTYPE_IPV4,
        10 | 24 | 28 | 30 => ETHERTYPE_IPV6,
        _ => ETHERTYPE_NONE,
    }
}

/// PPP protocol numbers: RFC 1332, RFC 5072.
fn ppp(protocol: u16) -> u16 {
    match protocol {
        0x0021 => ETHERTYPE_IPV4,
        0x0057 => ETHERTYPE_IPV6,
        _ => ETHERTYPE_NONE,
    }
}
