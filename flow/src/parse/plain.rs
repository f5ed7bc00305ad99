//! Takes a frame of one of the few shapes that most frames have; reads it at constant places. Gives nothing for any
//! other frame, which a [`Walk`](super::Walk) then takes.

use super::{ETHERNET_HEADER, ETHERTYPE_OFFSET, Packet, ethertype, ip, tunnel};
use crate::{Address, FlowKey, Frame, Kind, Outer, TunnelKind, protocol};

const IPV4_HEADER: usize = 20;
const TAG: usize = 4;
const UDP_HEADER: usize = 8;
const VXLAN_HEADER: usize = 8;
const GRE_HEADER: usize = 4;

/// Parses an Ethernet frame of the plain case: no tag, no option, no extension header, no fragment, no tunnel, TCP or
/// UDP. `None` for any other frame, whatever is the matter with it.
#[inline(always)]
pub fn parse_plain<F: Frame + ?Sized>(frame: &F) -> Option<Packet> {
    let carried = ethertype_at(frame, ETHERTYPE_OFFSET)?;
    packet_at(frame, ETHERNET_HEADER, carried, Outer::default())
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

/// The total length of a header without options that is no fragment.
#[inline(always)]
fn plain_length(header: &[u8; IPV4_HEADER]) -> Option<usize> {
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let is_fragment = u16::from_be_bytes([header[6], header[7]]) & ip::FRAGMENT_BITS != 0;
    let is_plain = header[0] == 0x45 && !is_fragment && total_length >= IPV4_HEADER;
    is_plain.then_some(total_length)
}

#[inline(always)]
fn ipv4_at<F: Frame + ?Sized>(frame: &F, offset: usize, outer: Outer) -> Option<Packet> {
    let header = frame.bytes::<IPV4_HEADER>(offset)?;
    let total_length = plain_length(&header)?;
    let source = Address::from_v4([header[12], header[13], header[14], header[15]]);
    let destination = Address::from_v4([header[16], header[17], header[18], header[19]]);
    let transport_offset = offset + IPV4_HEADER;
    let (ports, tcp_flags) = transport_at(frame, transport_offset, header[9])?;
    Some(Packet {
        key: FlowKey::new(source, destination, ports, header[9], Kind::V4, 0),
        outer,
        tcp_flags,
        ttl: header[8],
        network_offset: offset,
        transport_offset,
        length_told: offset + total_length,
        ..Packet::default()
    })
}

#[inline(always)]
fn ipv6_at<F: Frame + ?Sized>(frame: &F, offset: usize, outer: Outer) -> Option<Packet> {
    let header = frame.bytes::<40>(offset)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let payload_length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let [source, destination] = ip::v6_addresses(&header);
    let transport_offset = offset + 40;
    let (ports, tcp_flags) = transport_at(frame, transport_offset, header[6])?;
    Some(Packet {
        key: FlowKey::new(source, destination, ports, header[6], Kind(0), 0),
        outer,
        tcp_flags,
        ttl: header[7],
        network_offset: offset,
        transport_offset,
        length_told: ip::v6_length_told(offset, payload_length),
        ..Packet::default()
    })
}

/// Ports and TCP flags; `None` when the header is cut, is neither TCP nor UDP, or has a tunnel behind it.
#[inline(always)]
fn transport_at<F: Frame + ?Sized>(frame: &F, offset: usize, number: u8) -> Option<([u16; 2], u8)> {
    if number == protocol::TCP {
        // One byte more than is looked at: a header cut right behind its flags is the walk's business.
        let header = frame.bytes::<15>(offset)?;
        let source = u16::from_be_bytes([header[0], header[1]]);
        let destination = u16::from_be_bytes([header[2], header[3]]);
        return Some(([source, destination], header[13]));
    }
    if number != protocol::UDP {
        return None;
    }
    let [a, b, c, d] = frame.bytes::<4>(offset)?;
    let ports = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    (!tunnel::is_udp_tunnel(ports[1])).then_some((ports, 0))
}
