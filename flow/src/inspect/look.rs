//! Takes one frame; counts what the frame alone tells, and gives what has to be compared with others.

use super::InspectTotals;
use crate::{
    FlowKey, Frame, Kind, LinkLayer, Packet, Parsed,
    kernel::{not_ip_index, stack_word},
    parse, protocol, tcp_flag,
};

/// What one packet has that others are compared with. The program keeps one for each CPU in a table while it looks
/// at a frame: integers only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The flow, in domain 0.
    pub key: FlowKey,
    /// Fingerprint of what a repetition by the sender would change (the IP identification, lengths, sequence
    /// numbers, the transport checksum), with the flow; 0 when a repetition could look the same.
    pub identity: u64,
    /// Of a TCP packet; else zeros.
    pub segment: Segment,
    /// VLAN tags, as [`crate::kernel::stack_word`] packs them.
    pub tags: u32,
    /// TTL or hop limit.
    pub ttl: u32,
    /// 1 when [`Seen::segment`] holds one.
    pub has_segment: u32,
}

const _: () = assert!(size_of::<Seen>() == 40 + 8 + size_of::<Segment>() + 12);

/// What a TCP packet tells of its conversation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number; it counts only with the flag.
    pub acknowledgement: u32,
    /// Payload bytes, by the length that the IP header gives.
    pub payload: u32,
    /// VLAN tags of the frame.
    pub tags: u32,
    /// CPU that the frame arrived on.
    pub cpu: u16,
    /// TCP flags.
    pub flags: u8,
    /// Explicit padding.
    pub padding: u8,
}

const _: () = assert!(size_of::<Segment>() == 20);

/// What a look is told beside the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Length of the frame on the wire, layer-2 bytes.
    pub wire_bytes: u64,
    /// The interface's own hardware address, its six bytes in the lower 48 bits; 0 where there is none.
    pub own_address: u64,
    /// Makes fingerprints that nobody outside can foresee.
    pub seed: u64,
    /// CPU that the frame arrived on.
    pub cpu: u16,
}

/// Ways to carry one network inside another that are recognised by a number in the outer headers.
pub const ENCAPSULATIONS: [&str; ENCAPSULATION_KINDS] =
    ["pppoe", "mpls", "gre", "ip_in_ip", "6in4", "esp", "ah", "l2tp", "vxlan", "geneve", "gtp_u"];
/// How many there are.
pub(super) const ENCAPSULATION_KINDS: usize = 11;
/// What carries nothing else inside.
const PLAIN: usize = ENCAPSULATION_KINDS;

/// The name that output uses for an index into [`InspectTotals::encapsulated`].
#[must_use]
pub const fn encapsulation_name(index: usize) -> &'static str {
    if index < ENCAPSULATION_KINDS { ENCAPSULATIONS[index] } else { "none" }
}

/// Odd constants without structure (fractional digits of π), one for each word that is hashed.
const MULTIPLIERS: [u64; 8] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6d,
    0xc0ac_29b7_c97c_50dd,
    0x3f84_d5b5_b547_0917,
];

/// A fingerprint of seven words; never 0.
#[inline(always)]
const fn fingerprint(words: [u64; 7], seed: u64) -> u64 {
    let mut sum = seed;
    let mut index = 0;
    while index < 7 {
        let product = (words[index] ^ seed).wrapping_mul(MULTIPLIERS[index]);
        sum = sum.wrapping_add(product ^ product >> 29);
        index += 1;
    }
    let mixed = (sum ^ sum >> 32).wrapping_mul(MULTIPLIERS[7]);
    (mixed ^ mixed >> 29) | 1
}

impl Seen {
    /// The canonical key of its conversation, that key's fingerprint, and which of the two directions this is.
    #[inline(always)]
    #[must_use]
    pub fn conversation(&self, seed: u64) -> (FlowKey, u64, usize) {
        let (key, is_reversed) = self.key.canonical();
        let words = [
            key.source.high,
            key.source.low,
            key.destination.high,
            key.destination.low,
            key.tail,
            0,
            0,
        ];
        (key, fingerprint(words, seed), usize::from(is_reversed))
    }
}

/// Where the headers of a packet start; 0 where that is not known.
struct Headers {
    network: usize,
    transport: usize,
}

/// Counts one frame; gives the packet in it, or `None` when it holds no IP packet. [`compare`] adds what it is
/// compared by; the two are apart so that the program can lay the packet down in memory between them.
#[inline(always)]
pub fn look<F: Frame + ?Sized>(
    frame: &F,
    link: LinkLayer,
    about: &Look,
    totals: &mut InspectTotals,
) -> Option<Seen> {
    totals.frames += 1;
    totals.bytes += about.wire_bytes;
    if about.wire_bytes > totals.frame_bytes_max {
        totals.frame_bytes_max = about.wire_bytes;
    }
    if about.wire_bytes > super::FRAME_BYTES_PLAIN {
        totals.frames_jumbo += 1;
    }
    if matches!(link, LinkLayer::Ethernet)
        && let Some(to) = frame.bytes::<6>(0)
    {
        if to[0] & 1 != 0 {
            totals.frames_group += 1;
        } else if u64::from_be_bytes([0, 0, to[0], to[1], to[2], to[3], to[4], to[5]])
            == about.own_address
        {
            totals.frames_own += 1;
        }
    }
    let packet = match parse(frame, link) {
        Parsed::Ip(packet) => packet,
        Parsed::NotIp(ethertype) => {
            count(&mut totals.not_ip, not_ip_index(ethertype));
            count(&mut totals.encapsulated, encapsulation_of_ethertype(ethertype));
            return None;
        }
        Parsed::Malformed(_) => {
            totals.packets_malformed += 1;
            return None;
        }
    };
    totals.packets_ip += 1;
    count(&mut totals.encapsulated, encapsulation_of_packet(&packet));
    let tags = tags(&packet);
    if tags != 0 {
        let counter = if packet.vlans.0[1] == 0 {
            &mut totals.frames_tagged
        } else {
            &mut totals.frames_tagged_twice
        };
        *counter += 1;
    }
    Some(Seen { key: packet.key, tags, ttl: u32::from(packet.ttl), ..Seen::default() })
}

#[inline(always)]
fn count<const N: usize>(counters: &mut [u64; N], index: usize) {
    if let Some(counter) = counters.get_mut(index) {
        *counter += 1;
    }
}

/// VLAN tags in one word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "two identifiers of 16 bits each")]
const fn tags(packet: &Packet) -> u32 {
    stack_word(packet.vlans) as u32
}

#[inline(always)]
const fn encapsulation_of_ethertype(ethertype: u16) -> usize {
    match ethertype {
        0x8864 => 0,
        0x8847 | 0x8848 => 1,
        _ => PLAIN,
    }
}

/// By protocol number, and for UDP by the port that the protocol is assigned.
#[inline(always)]
const fn encapsulation_of_packet(packet: &Packet) -> usize {
    match packet.key.protocol() {
        47 => 2,
        4 => 3,
        41 => 4,
        50 => 5,
        51 => 6,
        115 => 7,
        protocol::UDP => match packet.key.destination_port() {
            1701 => 7,
            4789 | 8472 => 8,
            6081 => 9,
            2152 => 10,
            _ => PLAIN,
        },
        _ => PLAIN,
    }
}

/// Finds the headers of a packet that the parser has already accepted. Behind IPv6 extension headers the
/// transport header counts as not known.
#[inline(always)]
fn headers<F: Frame + ?Sized>(frame: &F, link: LinkLayer, key: &FlowKey) -> Headers {
    const TAGS_MAX: usize = 4;
    let unknown = Headers { network: 0, transport: 0 };
    let network = match link {
        LinkLayer::Network { offset, .. } => offset,
        LinkLayer::Ethernet => {
            let mut offset = 12;
            let mut tags = 0;
            while tags <= TAGS_MAX {
                let Some(ethertype) = frame.bytes::<2>(offset) else { return unknown };
                offset += 2;
                if !matches!(u16::from_be_bytes(ethertype), 0x8100 | 0x88a8 | 0x9100) {
                    break;
                }
                offset += 2;
                tags += 1;
            }
            offset
        }
    };
    if key.kind().has(Kind::V4) {
        let Some([first]) = frame.bytes::<1>(network) else { return unknown };
        return Headers { network, transport: network + usize::from(first & 0x0f) * 4 };
    }
    let Some([next]) = frame.bytes::<1>(network + 6) else { return unknown };
    let is_plain = next == key.protocol();
    Headers { network, transport: if is_plain { network + 40 } else { 0 } }
}

/// Of the IP header: where the packet ends in the frame, and the words that name this packet.
struct Internet {
    /// Layer-2 bytes up to the end of the packet.
    end: u64,
    /// IPv4 identification; 0 in IPv6.
    identification: u16,
    /// Flags and offset of a fragment; 0 for a whole packet.
    fragment: u16,
}

#[inline(always)]
fn internet<F: Frame + ?Sized>(
    frame: &F,
    headers: &Headers,
    is_v4: bool,
    wire_bytes: u64,
) -> Option<Internet> {
    let header = frame.bytes::<8>(headers.network)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let network = headers.network as u64;
    if is_v4 {
        // Segmentation offload leaves 0 in a packet longer than the field can say.
        let total = u64::from(word(2));
        let end = if total == 0 { wire_bytes } else { network + total };
        // "More fragments" and the offset; "don't fragment" says nothing.
        return Some(Internet { end, identification: word(4), fragment: word(6) & 0x3fff });
    }
    let payload = u64::from(word(4));
    let end = if payload == 0 { wire_bytes } else { network + 40 + payload };
    let is_fragment = header[6] == 44;
    Some(Internet { end, identification: 0, fragment: u16::from(is_fragment) })
}

/// Adds a packet's identity and its segment.
#[inline(always)]
pub fn compare<F: Frame + ?Sized>(
    frame: &F,
    link: LinkLayer,
    about: &Look,
    seen: &mut Seen,
    totals: &mut InspectTotals,
) {
    let key = seen.key;
    let headers = headers(frame, link, &key);
    let is_v4 = key.kind().has(Kind::V4);
    let Some(ip) = internet(frame, &headers, is_v4, about.wire_bytes) else { return };
    if ip.fragment != 0 {
        totals.fragments += 1;
    }
    if about.wire_bytes < ip.end {
        totals.frames_cut += 1;
        let missing = ip.end - about.wire_bytes;
        if missing > totals.cut_bytes_max {
            totals.cut_bytes_max = missing;
        }
    }
    // Of a fragment in IPv6 the identification stands behind the header that is read.
    let mut is_unique = ip.identification != 0;
    let mut words = [0, 0];
    if ip.fragment == 0 && headers.transport != 0 {
        if key.protocol() == protocol::TCP {
            totals.packets_tcp += 1;
            let Some(header) = frame.bytes::<20>(headers.transport) else {
                totals.tcp_cut += 1;
                return;
            };
            let segment = segment(&header, headers.transport as u64, ip.end, seen.tags, about.cpu);
            is_unique |= segment.payload > 0 || segment.flags & tcp_flag::SYN != 0;
            words = [
                u64::from(segment.sequence) << 32 | u64::from(segment.acknowledgement),
                u64::from(segment.flags) << 16
                    | u64::from(u16::from_be_bytes([header[16], header[17]])),
            ];
            seen.segment = segment;
            seen.has_segment = 1;
        } else if key.protocol() == protocol::UDP
            && let Some([.., checksum_high, checksum_low]) = frame.bytes::<8>(headers.transport)
        {
            // Equal datagrams are common (answers to equal questions): only the identification tells them apart.
            let checksum = u16::from_be_bytes([checksum_high, checksum_low]);
            words = [0, u64::from(checksum)];
        }
    }
    if is_unique {
        let length = ip.end - headers.network as u64;
        let named = u64::from(ip.identification) << 48 | u64::from(ip.fragment) << 32 | length;
        let (source, destination) = (key.source, key.destination);
        seen.identity = fingerprint(
            [
                source.high ^ destination.high.rotate_left(32),
                source.low,
                destination.low,
                key.tail,
                named,
                words[0],
                words[1],
            ],
            about.seed,
        );
    }
}

/// Of a TCP header's first 20 bytes.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a packet is at most 64 KiB, or one frame, long"
)]
fn segment(header: &[u8; 20], transport: u64, end: u64, tags: u32, cpu: u16) -> Segment {
    let header_bytes = u64::from(header[12] >> 4) * 4;
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    Segment {
        sequence: word(4),
        acknowledgement: word(8),
        payload: end.saturating_sub(transport + header_bytes) as u32,
        tags,
        cpu,
        flags: header[13],
        padding: 0,
    }
}
