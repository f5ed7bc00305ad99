//! In: addresses, ports, flags, payload. Out: one well-formed Ethernet frame with right checksums.

use std::net::IpAddr;

use pnet_base::MacAddr;
use pnet_packet::ethernet::{EtherTypes, MutableEthernetPacket};
use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet_packet::ipv4::{self, MutableIpv4Packet};
use pnet_packet::ipv6::MutableIpv6Packet;
use pnet_packet::tcp::{self, MutableTcpPacket};
use pnet_packet::udp::{self, MutableUdpPacket};
use pnet_packet::vlan::{ClassOfService, MutableVlanPacket};

const ETHERNET: usize = 14;
const TAG: usize = 4;
const TCP: usize = 20;
const UDP: usize = 8;

/// Who speaks to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) source: (IpAddr, u16),
    pub(crate) destination: (IpAddr, u16),
}

impl Ends {
    pub(crate) fn new(
        source: (impl Into<IpAddr>, u16),
        destination: (impl Into<IpAddr>, u16),
    ) -> Self {
        Self {
            source: (source.0.into(), source.1),
            destination: (destination.0.into(), destination.1),
        }
    }

    pub(crate) fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }
}

/// A TCP segment in a frame; `flags` as in RFC 9293.
pub(crate) fn tcp(ends: Ends, flags: u8, sequence: u32, payload: usize) -> Vec<u8> {
    let mut segment = vec![0; TCP + payload];
    {
        let mut packet = MutableTcpPacket::new(&mut segment)
            .expect("the buffer was made as long as a TCP header and its payload");
        packet.set_source(ends.source.1);
        packet.set_destination(ends.destination.1);
        packet.set_sequence(sequence);
        packet.set_data_offset(5);
        packet.set_flags(flags);
        packet.set_window(64_240);
        let checksum = match (ends.source.0, ends.destination.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                tcp::ipv4_checksum(&packet.to_immutable(), &source, &destination)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                tcp::ipv6_checksum(&packet.to_immutable(), &source, &destination)
            }
            _ => unreachable!("both ends of a conversation have one IP version"),
        };
        packet.set_checksum(checksum);
    }
    frame(ends, IpNextHeaderProtocols::Tcp, &segment, &[])
}

/// A UDP datagram in a frame, behind the VLAN tags given (outermost first).
pub(crate) fn udp(ends: Ends, payload: usize, vlans: &[u16]) -> Vec<u8> {
    let mut datagram = vec![0; UDP + payload];
    {
        let length = u16::try_from(datagram.len()).expect("a datagram fits 65,535 bytes");
        let mut packet = MutableUdpPacket::new(&mut datagram)
            .expect("the buffer was made as long as a UDP header and its payload");
        packet.set_source(ends.source.1);
        packet.set_destination(ends.destination.1);
        packet.set_length(length);
        let checksum = match (ends.source.0, ends.destination.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                udp::ipv4_checksum(&packet.to_immutable(), &source, &destination)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                udp::ipv6_checksum(&packet.to_immutable(), &source, &destination)
            }
            _ => unreachable!("both ends of a conversation have one IP version"),
        };
        packet.set_checksum(checksum);
    }
    frame(ends, IpNextHeaderProtocols::Udp, &datagram, vlans)
}

/// An Ethernet frame of any type with a payload of zeros, 60 bytes long as the shortest on a wire.
pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 60.max(ETHERNET + payload.len())];
    bytes[..6].copy_from_slice(&[0xff; 6]);
    bytes[6..12].copy_from_slice(&[0x02, 0, 0, 0, 0, 0x01]);
    bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
    bytes[ETHERNET..ETHERNET + payload.len()].copy_from_slice(payload);
    bytes
}

/// Any IP packet in a frame, behind the VLAN tags given (outermost first).
pub(crate) fn frame(
    ends: Ends,
    protocol: IpNextHeaderProtocol,
    payload: &[u8],
    vlans: &[u16],
) -> Vec<u8> {
    let (ethertype, packet) = match (ends.source.0, ends.destination.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut bytes = vec![0; 20 + payload.len()];
            let total = u16::try_from(bytes.len()).expect("an IPv4 packet fits 65,535 bytes");
            let mut packet = MutableIpv4Packet::new(&mut bytes)
                .expect("the buffer was made as long as an IPv4 header and its payload");
            packet.set_version(4);
            packet.set_header_length(5);
            packet.set_total_length(total);
            packet.set_ttl(57);
            packet.set_next_level_protocol(protocol);
            packet.set_source(source);
            packet.set_destination(destination);
            packet.set_payload(payload);
            let checksum = ipv4::checksum(&packet.to_immutable());
            packet.set_checksum(checksum);
            (EtherTypes::Ipv4, bytes)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut bytes = vec![0; 40 + payload.len()];
            let length = u16::try_from(payload.len()).expect("a payload fits 65,535 bytes");
            let mut packet = MutableIpv6Packet::new(&mut bytes)
                .expect("the buffer was made as long as an IPv6 header and its payload");
            packet.set_version(6);
            packet.set_payload_length(length);
            packet.set_next_header(protocol);
            packet.set_hop_limit(57);
            packet.set_source(source);
            packet.set_destination(destination);
            packet.set_payload(payload);
            (EtherTypes::Ipv6, bytes)
        }
        _ => unreachable!("both ends of a conversation have one IP version"),
    };
    let header = ETHERNET + vlans.len() * TAG;
    let mut bytes = vec![0; 60.max(header + packet.len())];
    {
        let mut outer =
            MutableEthernetPacket::new(&mut bytes).expect("the buffer is at least 60 bytes long");
        outer.set_destination(MacAddr::new(0x02, 0, 0, 0, 0, 0x02));
        outer.set_source(MacAddr::new(0x02, 0, 0, 0, 0, 0x01));
        outer.set_ethertype(if vlans.is_empty() {
            ethertype
        } else if vlans.len() > 1 {
            EtherTypes::QinQ
        } else {
            EtherTypes::Vlan
        });
    }
    for (depth, vlan) in vlans.iter().enumerate() {
        let mut tag = MutableVlanPacket::new(&mut bytes[ETHERNET + depth * TAG..])
            .expect("the buffer was made with room for every tag");
        tag.set_priority_code_point(ClassOfService(0));
        tag.set_vlan_identifier(*vlan);
        tag.set_ethertype(if depth + 1 == vlans.len() { ethertype } else { EtherTypes::Vlan });
    }
    bytes[header..header + packet.len()].copy_from_slice(&packet);
    bytes
}
