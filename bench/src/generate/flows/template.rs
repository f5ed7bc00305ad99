//! In: a protocol, an IP version, an encapsulation. Out: frames of it with right lengths and checksums, by changing
//! what differs in a frame that was made once. Payloads are zeros and, beyond the snap length, not even made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet_packet::tcp::TcpFlags;

use super::identity::Protocol;
use crate::generate::encapsulation::{Encapsulation, FRAME_BYTES_MIN, Headers, Version};
use crate::generate::frames::{self, Ends};

const ETHERNET: usize = 14;
const ICMP_ECHO: [u8; 2] = [8, 0];
const ICMP6_ECHO: [u8; 2] = [128, 129];

/// What is in one packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) ends: Ends,
    pub(super) from_initiator: bool,
    /// How many of its flow were before it.
    pub(super) number: u32,
    /// TCP only, as the two that follow.
    pub(super) flags: u8,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
}

/// A frame without payload of one kind of flow.
#[derive(Clone, Debug)]
pub(super) struct Template {
    frame: Vec<u8>,
    around: Headers,
    version: Version,
    protocol: Protocol,
    /// Where the IP header begins.
    ip: usize,
    /// Where the transport header begins.
    transport: usize,
}

impl Template {
    pub(super) fn new(protocol: Protocol, version: Version, encapsulation: Encapsulation) -> Self {
        let (ends, ip_bytes) = match version {
            Version::V4 => (Ends::new((Ipv4Addr::UNSPECIFIED, 0), (Ipv4Addr::UNSPECIFIED, 0)), 20),
            Version::V6 => (Ends::new((Ipv6Addr::UNSPECIFIED, 0), (Ipv6Addr::UNSPECIFIED, 0)), 40),
        };
        let (inner, transport_bytes) = match protocol {
            Protocol::Tcp => (frames::tcp(ends, TcpFlags::ACK, 0, 0), 20),
            Protocol::Udp => (frames::udp(ends, 0, &[]), 8),
            Protocol::Icmp => (frames::frame(ends, icmp(version), &[0; 8], &[]), 8),
        };
        let around = encapsulation.headers(version);
        let ip = around.bytes.len();
        let packet = inner.get(ETHERNET..ETHERNET + ip_bytes + transport_bytes);
        let packet = packet.expect("the frame was made with these headers");
        let frame = [&around.bytes, packet].concat();
        Self { frame, around, version, protocol, ip, transport: ip + ip_bytes }
    }

    /// Bytes of all headers.
    pub(super) fn headers_bytes(&self) -> usize {
        self.frame.len()
    }

    /// Makes the frame of a packet with so many bytes of payload, or as much of it as is captured; returns how long
    /// it was on the wire.
    pub(super) fn write(
        &self,
        frame: &mut Vec<u8>,
        packet: &Packet,
        payload_bytes: usize,
        snap_bytes: usize,
    ) -> usize {
        frame.clear();
        frame.extend_from_slice(&self.frame);
        let end = frame.len() + payload_bytes;
        self.around.close(frame, end);
        let ends = if packet.from_initiator { packet.ends } else { packet.ends.reversed() };
        let pseudo = self.write_ip(frame, ends, packet.number, end);
        self.write_transport(frame, ends, packet, payload_bytes, pseudo);
        let wire_bytes = end.max(FRAME_BYTES_MIN);
        frame.resize(wire_bytes.min(snap_bytes), 0);
        wire_bytes
    }

    /// Returns the sum over the pseudo header (RFC 9293, RFC 8200).
    fn write_ip(&self, frame: &mut [u8], ends: Ends, number: u32, end: usize) -> u32 {
        let header = &mut frame[self.ip..self.transport];
        let transport_bytes = low_16(end - self.transport);
        let addresses = match (ends.source.0, ends.destination.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                put(header, 2, &low_16(end - self.ip).to_be_bytes());
                put(header, 4, &low_16(number as usize).to_be_bytes());
                put(header, 10, &[0, 0]);
                put(header, 12, &source.octets());
                put(header, 16, &destination.octets());
                let checksum = folded(sum(header));
                put(header, 10, &checksum.to_be_bytes());
                sum(&header[12..])
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                put(header, 4, &transport_bytes.to_be_bytes());
                put(header, 8, &source.octets());
                put(header, 24, &destination.octets());
                sum(&header[8..])
            }
            _ => unreachable!("both ends of a flow have one IP version"),
        };
        let protocol = match self.protocol {
            Protocol::Tcp => IpNextHeaderProtocols::Tcp,
            Protocol::Udp => IpNextHeaderProtocols::Udp,
            Protocol::Icmp => icmp(self.version),
        };
        addresses + u32::from(protocol.0) + u32::from(transport_bytes)
    }

    fn write_transport(
        &self,
        frame: &mut [u8],
        ends: Ends,
        packet: &Packet,
        payload_bytes: usize,
        pseudo: u32,
    ) {
        let header = &mut frame[self.transport..];
        let ports = [ends.source.1, ends.destination.1].map(u16::to_be_bytes);
        let checksum_at = match self.protocol {
            Protocol::Tcp => {
                put(header, 0, ports.as_flattened());
                put(header, 4, &packet.sequence.to_be_bytes());
                put(header, 8, &packet.acknowledgement.to_be_bytes());
                put(header, 13, &[packet.flags]);
                16
            }
            Protocol::Udp => {
                put(header, 0, ports.as_flattened());
                put(header, 4, &low_16(header.len() + payload_bytes).to_be_bytes());
                6
            }
            Protocol::Icmp => {
                let types = match self.version {
                    Version::V4 => ICMP_ECHO,
                    Version::V6 => ICMP6_ECHO,
                };
                put(header, 0, &[types[usize::from(!packet.from_initiator)]]);
                // Identifier: the client's port, which it has no other use for; request and reply have one number.
                put(header, 4, &packet.ends.source.1.to_be_bytes());
                put(header, 6, &low_16((packet.number / 2) as usize).to_be_bytes());
                2
            }
        };
        put(header, checksum_at, &[0, 0]);
        let has_pseudo = self.protocol != Protocol::Icmp || self.version == Version::V6;
        let mut checksum = folded(sum(header) + if has_pseudo { pseudo } else { 0 });
        if self.protocol == Protocol::Udp && checksum == 0 {
            // 0 would say that there is none (RFC 768).
            checksum = u16::MAX;
        }
        put(header, checksum_at, &checksum.to_be_bytes());
    }
}

fn icmp(version: Version) -> IpNextHeaderProtocol {
    match version {
        Version::V4 => IpNextHeaderProtocols::Icmp,
        Version::V6 => IpNextHeaderProtocols::Icmpv6,
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// What fits 16 bits of it.
fn low_16(number: usize) -> u16 {
    let [.., high, low] = number.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// Sum of the 16-bit words of a header; of a few dozen, so that it cannot overflow.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(2);
    words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum()
}

/// The Internet checksum (RFC 1071) of words with this sum.
fn folded(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !u16::try_from(sum).expect("two folds leave 16 bits of a small sum")
}
