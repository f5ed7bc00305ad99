//! In: which encapsulation. Out: the headers that come before an IP packet in it, and where its lengths stand.

use clap::ValueEnum;
use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet_packet::ipv4::{self, Ipv4Packet};

const VLAN: u16 = 0x8100;
const OUTER_IPV4_BYTES: usize = 20;
/// Shortest frame that Ethernet carries, its check sequence left out.
pub(crate) const FRAME_BYTES_MIN: usize = 60;

/// The IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

impl Version {
    fn ethertype(self) -> [u8; 2] {
        match self {
            Self::V4 => [0x08, 0x00],
            Self::V6 => [0x86, 0xdd],
        }
    }
}

/// What an IP packet is carried in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encapsulation {
    /// Ethernet and nothing else.
    Plain,
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
    /// IP in IPv4 (RFC 2003, RFC 4213).
    Ipip,
    /// GTP-U (3GPP TS 29.281).
    Gtp,
}

/// Headers of a frame up to its IP packet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers {
    /// The headers, their lengths and the outer checksum still 0.
    pub(crate) bytes: Vec<u8>,
    lengths: Vec<Length>,
    /// Where the IPv4 header between the ends of a tunnel begins.
    outer: Option<usize>,
}

/// A length of 16 bits that depends on what follows.
#[derive(Clone, Copy, Debug)]
struct Length {
    /// Where it stands.
    at: usize,
    /// The first byte that it counts.
    from: usize,
}

impl Encapsulation {
    /// Whether a whole frame is inside, not a packet alone.
    pub(crate) fn carries_frames(self) -> bool {
        matches!(self, Self::Erspan | Self::Vxlan | Self::Geneve)
    }

    /// The headers before a packet of this IP version.
    pub(crate) fn headers(self, version: Version) -> Headers {
        let ethertype = version.ethertype();
        let inside = u16::from_be_bytes(ethertype);
        match self {
            Self::Plain => Headers::ethernet(inside),
            Self::Vlan => Headers::ethernet(VLAN).tag(100, inside),
            Self::Qinq => Headers::ethernet(0x88a8).tag(200, VLAN).tag(30, inside),
            // Label, traffic class, bottom of the stack, time to live.
            Self::Mpls => Headers::ethernet(0x8847).then(&[0, 0x10, 0, 64, 0, 0x20, 0x01, 64]),
            Self::Pppoe => {
                let protocol = match version {
                    Version::V4 => [0x00, 0x21],
                    Version::V6 => [0x00, 0x57],
                };
                // Version and type 1, session 7; the length begins with the PPP protocol.
                Headers::ethernet(0x8864).then(&[0x11, 0, 0, 7]).length(2).then(&protocol)
            }
            Self::Gre => Headers::outer(IpNextHeaderProtocols::Gre).then(&[0, 0]).then(&ethertype),
            Self::Erspan => {
                // GRE with a sequence number; version 1, VLAN 100, session 5; port 3.
                let headers = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 100, 0, 5, 0, 0, 0, 3];
                Headers::outer(IpNextHeaderProtocols::Gre).then(&headers).frame(inside)
            }
            Self::Vxlan => Headers::udp(4_789).then(&[0x08, 0, 0, 0, 0, 0, 42, 0]).frame(inside),
            Self::Geneve => {
                Headers::udp(6_081).then(&[0, 0, 0x65, 0x58, 0, 0, 42, 0]).frame(inside)
            }
            Self::Ipip => Headers::outer(match version {
                Version::V4 => IpNextHeaderProtocols::Ipv4,
                Version::V6 => IpNextHeaderProtocols::Ipv6,
            }),
            // Version 1, a user packet, its length, tunnel 9.
            Self::Gtp => Headers::udp(2_152).then(&[0x30, 0xff]).length(6).then(&[0, 0, 0, 9]),
        }
    }
}

impl Headers {
    fn ethernet(ethertype: u16) -> Self {
        Self::default().frame(ethertype)
    }

    /// An Ethernet header.
    fn frame(self, ethertype: u16) -> Self {
        self.then(&[0x02, 0, 0, 0, 0, 0x02, 0x02, 0, 0, 0, 0, 0x01]).then(&ethertype.to_be_bytes())
    }

    /// Ethernet, and the IPv4 header between the ends of a tunnel.
    fn outer(protocol: IpNextHeaderProtocol) -> Self {
        let mut headers = Self::ethernet(0x0800);
        let start = headers.bytes.len();
        headers.outer = Some(start);
        headers
            .then(&[0x45, 0])
            .length_from(start)
            .then(&[0, 0, 0, 0, 57, protocol.0, 0, 0])
            .then(&[192, 0, 2, 1])
            .then(&[192, 0, 2, 2])
    }

    /// A datagram between the ends of a tunnel, without a checksum as tunnels send it.
    fn udp(port: u16) -> Self {
        let headers = Self::outer(IpNextHeaderProtocols::Udp);
        let start = headers.bytes.len();
        headers.then(&[0xc0, 0x01]).then(&port.to_be_bytes()).length_from(start).then(&[0, 0])
    }

    fn tag(self, identifier: u16, ethertype: u16) -> Self {
        self.then(&identifier.to_be_bytes()).then(&ethertype.to_be_bytes())
    }

    fn then(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// A length that counts what is more than so many bytes behind its own beginning.
    fn length(self, after: usize) -> Self {
        let from = self.bytes.len() + after;
        self.length_from(from)
    }

    /// A length that counts from this byte of the frame on.
    fn length_from(mut self, from: usize) -> Self {
        let at = self.bytes.len();
        self.lengths.push(Length { at, from });
        self.then(&[0, 0])
    }

    /// Fills in the lengths and the checksum of a frame that begins with these headers and is `frame_bytes` long on
    /// the wire, padding left out; `frame` may hold less than that, but all of the headers.
    pub(crate) fn close(&self, frame: &mut [u8], frame_bytes: usize) {
        for Length { at, from } in &self.lengths {
            let bytes = u16::try_from(frame_bytes - from).unwrap_or(u16::MAX);
            frame[*at..at + 2].copy_from_slice(&bytes.to_be_bytes());
        }
        if let Some(outer) = self.outer {
            let header = &mut frame[outer..outer + OUTER_IPV4_BYTES];
            let packet = Ipv4Packet::new(header).expect("20 bytes hold an IPv4 header");
            let checksum = ipv4::checksum(&packet);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
    }

    /// A frame that carries this packet, as long as Ethernet asks for.
    pub(crate) fn around(&self, packet: &[u8]) -> Vec<u8> {
        let mut frame = [&self.bytes, packet].concat();
        let frame_bytes = frame.len();
        self.close(&mut frame, frame_bytes);
        frame.resize(frame_bytes.max(FRAME_BYTES_MIN), 0);
        frame
    }
}
