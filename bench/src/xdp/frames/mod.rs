//! In: which encapsulation. Out: one TCP segment in it, as a frame.

use std::net::{Ipv4Addr, Ipv6Addr};

use pnet_packet::ipv4::{self, MutableIpv4Packet};
use pnet_packet::tcp::TcpFlags;

use crate::generate::encapsulation::{Encapsulation, Version};
use crate::generate::frames::{Ends, tcp};

const ETHERNET: usize = 14;

/// What a frame carries its TCP segment in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Around {
    /// Ethernet, IPv4.
    Plain,
    /// The same; its SYN opens a connection.
    Syn,
    /// The same as the first, with an IPv4 identification.
    Identified,
    /// Ethernet, IPv6.
    Ipv6,
    /// IEEE 802.1Q.
    Vlan,
    /// IEEE 802.1ad with 802.1Q inside.
    Qinq,
    /// MPLS with two labels (RFC 3032).
    Mpls,
    /// A `PPPoE` session (RFC 2516).
    Pppoe,
    /// GRE (RFC 2784).
    Gre,
    /// ERSPAN type II.
    Erspan,
    /// VXLAN (RFC 7348).
    Vxlan,
    /// Geneve (RFC 8926).
    Geneve,
    /// IPv4 in IPv4 (RFC 2003).
    IpIp,
    /// IPv6 in IPv4 (RFC 4213).
    SixInFour,
    /// GTP-U (3GPP TS 29.281).
    Gtp,
}

impl Around {
    /// The frame; with 60 bytes, all that Ethernet asks for, where nothing makes it longer.
    pub(super) fn frame(self) -> Vec<u8> {
        let (encapsulation, version) = match self {
            Self::Plain | Self::Syn | Self::Identified => (Encapsulation::Plain, Version::V4),
            Self::Ipv6 => (Encapsulation::Plain, Version::V6),
            Self::Vlan => (Encapsulation::Vlan, Version::V4),
            Self::Qinq => (Encapsulation::Qinq, Version::V4),
            Self::Mpls => (Encapsulation::Mpls, Version::V4),
            Self::Pppoe => (Encapsulation::Pppoe, Version::V4),
            Self::Gre => (Encapsulation::Gre, Version::V4),
            Self::Erspan => (Encapsulation::Erspan, Version::V4),
            Self::Vxlan => (Encapsulation::Vxlan, Version::V4),
            Self::Geneve => (Encapsulation::Geneve, Version::V4),
            Self::IpIp => (Encapsulation::Ipip, Version::V4),
            Self::SixInFour => (Encapsulation::Ipip, Version::V6),
            Self::Gtp => (Encapsulation::Gtp, Version::V4),
        };
        let flags = if self == Self::Syn { TcpFlags::SYN } else { TcpFlags::ACK };
        let (mut inner, packet_bytes) = match version {
            Version::V4 => (tcp(inner_v4(), flags, 1, 0), 40),
            Version::V6 => (tcp(inner_v6(), TcpFlags::ACK, 1, 0), 60),
        };
        if self == Self::Identified {
            identify(&mut inner);
        }
        // A frame inside is as long as one on a wire; of any other there is the packet only.
        let end =
            if encapsulation.carries_frames() { inner.len() } else { ETHERNET + packet_bytes };
        let packet = inner.get(ETHERNET..end).expect("the frame was made with that packet");
        encapsulation.headers(version).around(packet)
    }
}

/// Gives the packet a number, and its header the checksum that goes with it.
fn identify(frame: &mut [u8]) {
    let header = frame.get_mut(ETHERNET..).expect("a frame has a packet");
    let mut packet = MutableIpv4Packet::new(header).expect("the packet has a header");
    packet.set_identification(0x1234);
    let checksum = ipv4::checksum(&packet.to_immutable());
    packet.set_checksum(checksum);
}

fn inner_v4() -> Ends {
    let (client, server) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(10, 20, 0, 10));
    Ends::new((client, 40_000), (server, 443))
}

fn inner_v6() -> Ends {
    let client = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 7);
    let server = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0x10);
    Ends::new((client, 40_000), (server, 443))
}

#[cfg(test)]
mod tests;
