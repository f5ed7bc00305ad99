//! One header each: takes what is behind it, gives the header with it. Lengths are right, checksums are not
//! computed: no parser of a mirror port can rely on them.

/// `EtherType` of IPv4.
pub const IPV4: u16 = 0x0800;
/// `EtherType` of IPv6.
pub const IPV6: u16 = 0x86dd;

/// Pieces in a row.
fn joined(pieces: &[&[u8]]) -> Vec<u8> {
    pieces.concat()
}

fn length(pieces: &[&[u8]]) -> u16 {
    let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
    u16::try_from(bytes).expect("a test's packet is shorter than 64 KiB")
}

/// Ethernet II.
#[must_use]
pub fn ethernet(ethertype: u16, behind: &[u8]) -> Vec<u8> {
    let addresses = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    joined(&[&addresses, &ethertype.to_be_bytes(), behind])
}

/// What stands behind the tag's own `EtherType`: identifier, next `EtherType`.
#[must_use]
pub fn tag(identifier: u16, ethertype: u16, behind: &[u8]) -> Vec<u8> {
    joined(&[&identifier.to_be_bytes(), &ethertype.to_be_bytes(), behind])
}

/// A stack of labels, outermost first.
#[must_use]
pub fn mpls(labels: &[u32], behind: &[u8]) -> Vec<u8> {
    let mut stack = Vec::new();
    for (place, label) in (1..).zip(labels) {
        let last = u32::from(place == labels.len());
        stack.extend((label << 12 | last << 8 | 64).to_be_bytes());
    }
    joined(&[&stack, behind])
}

/// A session of PPP over Ethernet; `protocol` is PPP's (0x0021 IPv4, 0x0057 IPv6).
#[must_use]
pub fn pppoe(session: u16, protocol: u16, behind: &[u8]) -> Vec<u8> {
    let size = length(&[behind]) + 2;
    let [a, b] = session.to_be_bytes();
    joined(&[&[0x11, 0, a, b], &size.to_be_bytes(), &protocol.to_be_bytes(), behind])
}

/// IPv4 addresses, options and fragment field.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
    /// A multiple of four bytes.
    pub options: &'a [u8],
    /// Flags and offset.
    pub fragment: u16,
}

impl Ipv4<'_> {
    /// Without options, not a fragment.
    #[must_use]
    pub const fn plain(source: [u8; 4], destination: [u8; 4]) -> Self {
        Self { source, destination, options: &[], fragment: 0 }
    }

    /// The packet.
    #[must_use]
    pub fn packet(&self, protocol: u8, behind: &[u8]) -> Vec<u8> {
        let words = u8::try_from(5 + self.options.len() / 4).expect("at most 40 bytes of options");
        let total = length(&[&[0; 20], self.options, behind]);
        let [identifier_high, identifier_low] = [0x12, 0x34];
        joined(&[
            &[0x40 | words, 0],
            &total.to_be_bytes(),
            &[identifier_high, identifier_low],
            &self.fragment.to_be_bytes(),
            &[64, protocol, 0, 0],
            &self.source,
            &self.destination,
            self.options,
            behind,
        ])
    }
}

/// An IPv6 packet; `next` is what stands first behind the fixed header.
#[must_use]
pub fn ipv6(source: [u8; 16], destination: [u8; 16], next: u8, behind: &[u8]) -> Vec<u8> {
    let size = length(&[behind]);
    joined(&[&[0x60, 0, 0, 0], &size.to_be_bytes(), &[next, 64], &source, &destination, behind])
}

/// An IPv6 extension header of eight bytes (hop-by-hop, routing, destination options: all one padding option).
#[must_use]
pub fn extension(next: u8, behind: &[u8]) -> Vec<u8> {
    joined(&[&[next, 0, 1, 4, 0, 0, 0, 0], behind])
}

/// An IPv6 fragment header; `fragment` is the offset with the more-fragments bit.
#[must_use]
pub fn fragment(next: u8, fragment: u16, behind: &[u8]) -> Vec<u8> {
    joined(&[&[next, 0], &fragment.to_be_bytes(), &[0, 0, 0, 7], behind])
}

/// A TCP segment with options.
#[must_use]
pub fn tcp(ports: [u16; 2], flags: u8, options: &[u8], behind: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).expect("at most 40 bytes of options");
    joined(&[
        &ports[0].to_be_bytes(),
        &ports[1].to_be_bytes(),
        &[0, 0, 0, 1, 0, 0, 0, 2, words << 4, flags, 0xff, 0xff, 0, 0, 0, 0],
        options,
        behind,
    ])
}

/// A UDP datagram.
#[must_use]
pub fn udp(ports: [u16; 2], behind: &[u8]) -> Vec<u8> {
    let size = length(&[&[0; 8], behind]);
    let [source, destination] = ports.map(u16::to_be_bytes);
    joined(&[&source, &destination, &size.to_be_bytes(), &[0, 0], behind])
}

/// An SCTP packet with one data chunk.
#[must_use]
pub fn sctp(ports: [u16; 2], behind: &[u8]) -> Vec<u8> {
    let size = length(&[&[0; 16], behind]);
    let [source, destination] = ports.map(u16::to_be_bytes);
    joined(&[
        &source,
        &destination,
        &[0, 0, 0, 9, 0, 0, 0, 0, 0, 3],
        &size.to_be_bytes(),
        &[0, 0, 0, 1, 0, 1, 0, 2, 0, 0, 0, 3],
        behind,
    ])
}

/// An ICMP or `ICMPv6` message: type, code, and four bytes that the type gives a meaning.
#[must_use]
pub fn icmp(message: u8, code: u8, behind: &[u8]) -> Vec<u8> {
    joined(&[&[message, code, 0, 0, 0, 1, 0, 1], behind])
}

/// GRE with key and sequence number.
#[must_use]
pub fn gre(protocol: u16, key: u32, behind: &[u8]) -> Vec<u8> {
    joined(&[&[0x30, 0], &protocol.to_be_bytes(), &key.to_be_bytes(), &[0, 0, 0, 1], behind])
}

/// GRE without any option.
#[must_use]
pub fn gre_plain(protocol: u16, behind: &[u8]) -> Vec<u8> {
    joined(&[&[0, 0], &protocol.to_be_bytes(), behind])
}

/// ERSPAN type I: a mirrored frame right behind GRE without a sequence number.
#[must_use]
pub fn erspan_1(frame: &[u8]) -> Vec<u8> {
    gre_plain(0x88be, frame)
}

/// ERSPAN type II for this session.
#[must_use]
pub fn erspan_2(session: u16, frame: &[u8]) -> Vec<u8> {
    let header = [&[0x10, 0x00][..], &session.to_be_bytes(), &[0, 0, 0, 1]].concat();
    joined(&[&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1], &header, frame])
}

/// ERSPAN type III for this session.
#[must_use]
pub fn erspan_3(session: u16, frame: &[u8]) -> Vec<u8> {
    let header = [&[0x20, 0x00][..], &session.to_be_bytes(), &[0; 8]].concat();
    joined(&[&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1], &header, frame])
}

/// A VXLAN datagram's payload.
#[must_use]
pub fn vxlan(network: u32, frame: &[u8]) -> Vec<u8> {
    joined(&[&[8, 0, 0, 0], &(network << 8).to_be_bytes(), frame])
}

/// A Geneve datagram's payload, with one option of eight bytes.
#[must_use]
pub fn geneve(network: u32, frame: &[u8]) -> Vec<u8> {
    let option = [0x01, 0x02, 0x03, 0x01, 0, 0, 0, 0];
    joined(&[&[2, 0, 0x65, 0x58], &(network << 8).to_be_bytes(), &option, frame])
}

/// A GTP-U datagram's payload: a G-PDU without optional fields.
#[must_use]
pub fn gtp_u(tunnel: u32, packet: &[u8]) -> Vec<u8> {
    let size = length(&[packet]);
    joined(&[&[0x30, 0xff], &size.to_be_bytes(), &tunnel.to_be_bytes(), packet])
}

/// An authentication header in front of `behind`.
#[must_use]
pub fn authentication(next: u8, behind: &[u8]) -> Vec<u8> {
    let check_value = [0; 12];
    joined(&[&[next, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], &check_value, behind])
}

/// An encrypted packet: identifier, sequence number, and what nobody can read.
#[must_use]
pub fn esp(behind: &[u8]) -> Vec<u8> {
    joined(&[&[0, 0, 1, 0, 0, 0, 0, 1], behind])
}
