//! In: which encapsulation. Out: one TCP segment in it, as a frame.

use std::net::{Ipv4Addr, Ipv6Addr};

use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet_packet::tcp::TcpFlags;

use crate::generate::frames::{Ends, ethernet, frame, tcp};

const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;

/// What a frame carries its TCP segment in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Around {
    /// Ethernet, IPv4.
    Plain,
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
        let plain = tcp(inner_v4(), TcpFlags::ACK, 1, 0);
        let packet = ip_packet(&plain, 40);
        match self {
            Self::Plain => plain,
            Self::Ipv6 => tcp(inner_v6(), TcpFlags::ACK, 1, 0),
            Self::Vlan => ethernet(0x8100, &joined(&[&tag(100, IPV4), packet])),
            Self::Qinq => ethernet(0x88a8, &joined(&[&tag(200, 0x8100), &tag(30, IPV4), packet])),
            Self::Mpls => {
                // Label, traffic class, bottom of the stack, time to live.
                let labels = [0, 0x10, 0x00, 64, 0, 0x20, 0x01, 64];
                ethernet(0x8847, &joined(&[&labels, packet]))
            }
            Self::Pppoe => {
                // Version and type 1, session 7, 42 bytes, PPP protocol IPv4.
                ethernet(0x8864, &joined(&[&[0x11, 0, 0, 7, 0, 42, 0x00, 0x21], packet]))
            }
            Self::Gre => outer(IpNextHeaderProtocols::Gre, &joined(&[&[0, 0, 0x08, 0x00], packet])),
            Self::Erspan => {
                // GRE with a sequence number; version 1, VLAN 100, session 5; port 3.
                let headers = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 100, 0, 5, 0, 0, 0, 3];
                outer(IpNextHeaderProtocols::Gre, &joined(&[&headers, &plain]))
            }
            Self::Vxlan => udp(4789, &joined(&[&[0x08, 0, 0, 0, 0, 0, 42, 0], &plain])),
            Self::Geneve => udp(6081, &joined(&[&[0, 0, 0x65, 0x58, 0, 0, 42, 0], &plain])),
            Self::IpIp => outer(IpNextHeaderProtocols::Ipv4, packet),
            Self::SixInFour => {
                let v6 = tcp(inner_v6(), TcpFlags::ACK, 1, 0);
                outer(IpNextHeaderProtocols::Ipv6, ip_packet(&v6, 60))
            }
            Self::Gtp => {
                // Version 1, a user packet, 40 bytes, tunnel 9.
                udp(2152, &joined(&[&[0x30, 0xff, 0, 40, 0, 0, 0, 9], packet]))
            }
        }
    }
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

/// The IP packet of this many bytes that a frame begins with.
fn ip_packet(frame: &[u8], bytes: usize) -> &[u8] {
    frame.get(ETHERNET..ETHERNET + bytes).expect("the frame was made with a packet of that length")
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn tag(identifier: u16, ethertype: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (identifier.to_be_bytes(), ethertype.to_be_bytes());
    [a, b, c, d]
}

/// A packet between the ends of a tunnel.
fn outer(protocol: IpNextHeaderProtocol, payload: &[u8]) -> Vec<u8> {
    let ends = Ends::new((Ipv4Addr::new(192, 0, 2, 1), 0), (Ipv4Addr::new(192, 0, 2, 2), 0));
    frame(ends, protocol, payload, &[])
}

/// A datagram between the ends of a tunnel, without a checksum as tunnels send it.
fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("a frame is short");
    let ([a, b], [c, d]) = (port.to_be_bytes(), length.to_be_bytes());
    outer(IpNextHeaderProtocols::Udp, &joined(&[&[0xc0, 0x01, a, b, c, d, 0, 0], payload]))
}

#[cfg(test)]
mod tests;
