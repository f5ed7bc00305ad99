//! Takes a frame of one of the few shapes that most frames have; reads it at constant places. Gives nothing for any
//! other frame, which a [`Walk`](super::Walk) then takes.

use super::{ETHERNET_HEADER, ETHERTYPE_OFFSET, Packet, ethertype, ip, tunnel};
use crate::{Address, FlowKey, Frame, Kind, Outer, TunnelKind, protocol};

/// Version 4 and a header of five words: no options.
const VERSION_LENGTH: u8 = 0x45;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Where a TCP header has its flags.
const FLAGS: usize = 13;
/// A TCP header up to its flags, and one byte more: one that is cut right behind them is the walk's business. A frame
/// with a datagram has as many bytes, if only as padding.
const TRANSPORT: usize = FLAGS + 2;
const TAG: usize = 4;
const UDP_HEADER: usize = 8;
const VXLAN_HEADER: usize = 8;
const GRE_HEADER: usize = 4;

/// Parses an Ethernet frame of the plain case over IPv4: no tag, no option, no fragment, no tunnel, TCP or UDP. `None`
/// for any other frame, whatever is the matter with it.
#[inline(always)]
pub fn plain_v4<F: Frame + ?Sized>(frame: &F) -> Option<Packet> {
    if ethertype_at(frame, ETHERTYPE_OFFSET)? != ethertype::IPV4 {
        return None;
    }
    ipv4_at(frame, ETHERNET_HEADER, Outer::default())
}

/// The same over IPv6, without extension headers.
#[inline(always)]
pub fn plain_v6<F: Frame + ?Sized>(frame: &F) -> Option<Packet> {
    if ethertype_at(frame, ETHERTYPE_OFFSET)? != ethertype::IPV6 {
        return None;
    }
    ipv6_at(frame, ETHERNET_HEADER, Outer::default())
}

/// Parses an Ethernet frame that has a packet of the plain case behind one VLAN tag, in VXLAN over IPv4, or in GRE
/// over IPv4 without checksum, key and sequence. `None` for any other frame.
#[inline(always)]
pub fn parse_common<F: Frame + ?Sized>(frame: &F) -> Option<Packet> {
    let carried = ethertype_at(frame, ETHERTYPE_OFFSET)?;
    if carried == ethertype::IPV4 {
        tunnelled(frame)
    } else if ethertype::TAGS.contains(&carried) {
        tagged(frame)
    } else {
        None
    }
}

#[inline(always)]
fn tagged<F: Frame + ?Sized>(frame: &F) -> Option<Packet> {
    let [high, low, a, b] = frame.bytes::<TAG>(ETHERNET_HEADER)?;
    let identifier = u16::from_be_bytes([high & 0x0f, low]);
    let outer = Outer { layers: u64::from(identifier), ids: 0 };
    packet_at(frame, ETHERNET_HEADER + TAG, u16::from_be_bytes([a, b]), outer)
}

#[inline(always)]
fn tunnelled<F: Frame + ?Sized>(frame: &F) -> Option<Packet> {
    const INSIDE: usize = ETHERNET_HEADER + IPV4_HEADER;
    let header = frame.bytes::<IPV4_HEADER>(ETHERNET_HEADER)?;
    let total_length = plain_length(&header)?;
    let packet = match header[9] {
        protocol::UDP => in_vxlan::<F, INSIDE>(frame)?,
        protocol::GRE => in_gre::<F, INSIDE>(frame)?,
        _ => return None,
    };
    Some(Packet { length_told: ETHERNET_HEADER + total_length, ..packet })
}

#[inline(always)]
fn in_vxlan<F: Frame + ?Sized, const AT: usize>(frame: &F) -> Option<Packet> {
    let [_, _, high, low] = frame.bytes::<4>(AT)?;
    if !tunnel::is_vxlan(u16::from_be_bytes([high, low])) {
        return None;
    }
    let header = frame.bytes::<VXLAN_HEADER>(AT + UDP_HEADER)?;
    let network = tunnel::vxlan_network(header)?;
    let outer = Outer::default().with_tunnel(TunnelKind::Vxlan, network)?;
    let inside = AT + UDP_HEADER + VXLAN_HEADER;
    let carried = ethertype_at(frame, inside + ETHERTYPE_OFFSET)?;
    packet_at(frame, inside + ETHERNET_HEADER, carried, outer)
}

#[inline(always)]
fn in_gre<F: Frame + ?Sized, const AT: usize>(frame: &F) -> Option<Packet> {
    let [flags, version, high, low] = frame.bytes::<GRE_HEADER>(AT)?;
    if flags != 0 || version != 0 {
        return None;
    }
    let outer = Outer::default().with_tunnel(TunnelKind::Gre, 0)?;
    packet_at(frame, AT + GRE_HEADER, u16::from_be_bytes([high, low]), outer)
}

#[inline(always)]
fn ethertype_at<F: Frame + ?Sized>(frame: &F, offset: usize) -> Option<u16> {
    frame.bytes::<2>(offset).map(u16::from_be_bytes)
}

#[inline(always)]
fn packet_at<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    carried: u16,
    outer: Outer,
) -> Option<Packet> {
    match carried {
        ethertype::IPV4 => ipv4_at(frame, offset, outer),
        ethertype::IPV6 => ipv6_at(frame, offset, outer),
        _ => None,
    }
}

#[inline(always)]
fn ipv4_at<F: Frame + ?Sized>(frame: &F, offset: usize, outer: Outer) -> Option<Packet> {
    let bytes = frame.bytes::<{ IPV4_HEADER + TRANSPORT }>(offset)?;
    let total_length = plain_length(&bytes)?;
    let ports = [short(&bytes, IPV4_HEADER), short(&bytes, IPV4_HEADER + 2)];
    let tcp_flags = flags(bytes[9], ports[1], bytes[IPV4_HEADER + FLAGS])?;
    let source = Address::from_v4(piece(&bytes, 12));
    let destination = Address::from_v4(piece(&bytes, 16));
    Some(Packet {
        key: FlowKey::new(source, destination, ports, bytes[9], Kind::V4, 0),
        outer,
        tcp_flags,
        ttl: bytes[8],
        dscp: super::dscp([bytes[0], bytes[1]]),
        network_offset: offset,
        transport_offset: offset + IPV4_HEADER,
        length_told: offset + total_length,
        ..Packet::default()
    })
}

#[inline(always)]
fn ipv6_at<F: Frame + ?Sized>(frame: &F, offset: usize, outer: Outer) -> Option<Packet> {
    let bytes = frame.bytes::<{ IPV6_HEADER + TRANSPORT }>(offset)?;
    if bytes[0] >> 4 != 6 {
        return None;
    }
    let ports = [short(&bytes, IPV6_HEADER), short(&bytes, IPV6_HEADER + 2)];
    let tcp_flags = flags(bytes[6], ports[1], bytes[IPV6_HEADER + FLAGS])?;
    let source = Address::from_v6(piece(&bytes, 8), piece(&bytes, 16));
    let destination = Address::from_v6(piece(&bytes, 24), piece(&bytes, 32));
    Some(Packet {
        key: FlowKey::new(source, destination, ports, bytes[6], Kind(0), 0),
        outer,
        tcp_flags,
        ttl: bytes[7],
        dscp: super::dscp([bytes[0], bytes[1]]),
        network_offset: offset,
        transport_offset: offset + IPV6_HEADER,
        length_told: ip::v6_length_told(offset, usize::from(short(&bytes, 4))),
        ..Packet::default()
    })
}

/// The total length of a header without options that is no fragment.
#[inline(always)]
fn plain_length<const L: usize>(header: &[u8; L]) -> Option<usize> {
    let total_length = usize::from(short(header, 2));
    let is_fragment = short(header, 6) & ip::FRAGMENT_BITS != 0;
    let is_plain = header[0] == VERSION_LENGTH && !is_fragment && total_length >= IPV4_HEADER;
    is_plain.then_some(total_length)
}

/// The TCP flags, 0 for UDP; `None` for another protocol, and for what may be a tunnel.
#[inline(always)]
fn flags(number: u8, destination_port: u16, byte: u8) -> Option<u8> {
    match number {
        protocol::TCP => Some(byte),
        protocol::UDP if !tunnel::is_udp_tunnel(destination_port) => Some(0),
        _ => None,
    }
}

/// `N` bytes from `at` on, which the callers' constants keep inside. Whole pieces become one load each; a number that
/// is put together from single bytes does not.
#[inline(always)]
fn piece<const L: usize, const N: usize>(bytes: &[u8; L], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

#[inline(always)]
fn short<const L: usize>(bytes: &[u8; L], at: usize) -> u16 {
    u16::from_be_bytes(piece(bytes, at))
}
