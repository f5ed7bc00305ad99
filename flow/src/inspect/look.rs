//! Takes one frame; counts what the frame alone tells, and gives what has to be compared with others.

use super::InspectTotals;
use crate::{
    FlowKey, Fragment, Frame, LinkLayer, Notes, Outer, Packet, Parsed, TunnelKind,
    duplicate::{Internet, TAGS_MASK, fingerprint, packet_identity},
    kernel::{CARRIED_MPLS, CARRIERS, carrier_name, not_ip_index},
    protocol,
};

/// What one packet has that others are compared with. The program keeps one for each CPU in a table while it looks
/// at a frame: integers only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The flow, in domain 0.
    pub key: FlowKey,
    /// What it was carried in, VLAN tags aside.
    pub outer: Outer,
    /// What tells it from every other packet, as [`crate::packet_identity`] has it; 0 when a repetition by the sender
    /// could look the same.
    pub identity: u64,
    /// Of a TCP packet; else zeros.
    pub segment: Segment,
    /// VLAN tags, as the lower 24 bits of [`Outer::layers`] have them.
    pub tags: u32,
    /// TTL or hop limit.
    pub ttl: u32,
    /// 0 whole, 1 a first fragment, 2 a later one.
    pub fragment: u32,
    /// As [`Packet::network_offset`].
    pub network_offset: u32,
    /// As [`Packet::transport_offset`].
    pub transport_offset: u32,
    /// As [`Packet::length_told`].
    pub length_told: u32,
    /// 1 when [`Seen::segment`] holds one.
    pub has_segment: u32,
}

const _: () = assert!(size_of::<Seen>() == 40 + 16 + 8 + size_of::<Segment>() + 28);

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
    /// VLAN tags of the frame, as [`Seen::tags`].
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

/// The second of them.
const TAG_INNER_MASK: u32 = 0xff_f000;
/// Kinds of tunnels there.
const KINDS_MASK: u64 = 0xffff << 24;

/// What carries a network inside and is not entered, and tunnels that could not be.
const UNENTERED: [&str; 4] = ["esp", "ah", "l2tp", "tunnel_closed"];
/// Kinds of tunnels by their numbers, MPLS, and what is not entered.
pub const ENCAPSULATION_KINDS: usize = CARRIERS - 1 + UNENTERED.len();
const MPLS: usize = CARRIED_MPLS - 1;
const PPPOE: usize = TunnelKind::Pppoe as usize - 1;
const ESP: usize = CARRIERS - 1;
const AH: usize = ESP + 1;
const L2TP: usize = ESP + 2;
const CLOSED: usize = ESP + 3;
/// What carries nothing else inside.
const PLAIN: usize = ENCAPSULATION_KINDS;

/// The name that output uses for an index into [`InspectTotals::encapsulated`]; two forms of one protocol share it.
#[must_use]
pub const fn encapsulation_name(index: usize) -> &'static str {
    if index < ESP {
        carrier_name(index + 1)
    } else if index < ENCAPSULATION_KINDS {
        UNENTERED[index - ESP]
    } else {
        "none"
    }
}

impl Seen {
    /// The canonical key of its conversation, that key's fingerprint, and which of the two directions this is. Equal
    /// addresses in other tunnels are another conversation; what each direction has its own of, MPLS labels and the
    /// endpoints of GTP-U, does not count.
    #[inline(always)]
    #[must_use]
    pub fn conversation(&self, seed: u64) -> (FlowKey, u64, usize) {
        let (key, is_reversed) = self.key.canonical();
        let is_paired = !self.outer.kind_numbers().contains(&(TunnelKind::GtpU as usize));
        let words = [
            key.source.high,
            key.source.low,
            key.destination.high,
            key.destination.low,
            key.tail,
            self.outer.layers & KINDS_MASK,
            if is_paired { self.outer.ids } else { 0 },
        ];
        (key, fingerprint(words, seed), usize::from(is_reversed))
    }
}

/// Counts one frame, whatever is in it. What the parser found in it is for [`look_inside`], then [`compare`]: they are
/// apart so that the program can parse as it does when it counts, and lay the packet down in memory.
#[inline(always)]
pub fn look<F: Frame + ?Sized>(
    frame: &F,
    link: LinkLayer,
    about: &Look,
    totals: &mut InspectTotals,
) {
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
}

/// Counts what the parser found in the frame; gives the packet, or `None` when there is none.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "24 bits of tags; an offset is at most OFFSET_MAX, a length that and 65,575"
)]
pub fn look_inside(parsed: &Parsed, totals: &mut InspectTotals) -> Option<Seen> {
    let packet = match parsed {
        Parsed::Ip(packet) => packet,
        Parsed::NotIp(ethertype) => {
            count(&mut totals.not_ip, not_ip_index(*ethertype));
            count(&mut totals.encapsulated, encapsulation_of_ethertype(*ethertype));
            return None;
        }
        Parsed::Malformed(_) => {
            totals.packets_malformed += 1;
            return None;
        }
    };
    totals.packets_ip += 1;
    count_encapsulations(packet, totals);
    let tags = (packet.outer.layers & TAGS_MASK) as u32;
    if tags & TAG_INNER_MASK != 0 {
        totals.frames_tagged_twice += 1;
    } else if tags != 0 {
        totals.frames_tagged += 1;
    }
    Some(Seen {
        key: packet.key,
        outer: Outer { layers: packet.outer.layers & !TAGS_MASK, ids: packet.outer.ids },
        tags,
        ttl: u32::from(packet.ttl),
        fragment: match packet.fragment {
            Fragment::Whole => 0,
            Fragment::First(_) => 1,
            Fragment::Later(_) => 2,
        },
        network_offset: packet.network_offset as u32,
        transport_offset: packet.transport_offset as u32,
        length_told: packet.length_told as u32,
        ..Seen::default()
    })
}

#[inline(always)]
fn count<const N: usize>(counters: &mut [u64; N], index: usize) {
    if let Some(counter) = counters.get_mut(index) {
        *counter += 1;
    }
}

#[inline(always)]
const fn encapsulation_of_ethertype(ethertype: u16) -> usize {
    match ethertype {
        0x8864 => PPPOE,
        0x8847 | 0x8848 => MPLS,
        _ => PLAIN,
    }
}

/// A packet that came out of several counts once for each.
#[inline(always)]
fn count_encapsulations(packet: &Packet, totals: &mut InspectTotals) {
    let counters = &mut totals.encapsulated;
    if packet.outer.layers & !TAGS_MASK != 0 {
        for kind in packet.outer.kind_numbers() {
            if kind != 0 {
                count(counters, kind - 1);
            }
        }
        if packet.outer.mpls_label().is_some() {
            count(counters, MPLS);
        }
    }
    if packet.notes.has(Notes::TUNNEL_CLOSED) {
        count(counters, CLOSED);
    }
    count(counters, encapsulation_inside(packet));
}

/// What the parser does not enter, by protocol number, and for UDP by the port that the protocol is assigned.
#[inline(always)]
const fn encapsulation_inside(packet: &Packet) -> usize {
    match packet.key.protocol() {
        50 => ESP,
        115 => L2TP,
        protocol::UDP if packet.key.destination_port() == 1701 => L2TP,
        _ => PLAIN,
    }
}

/// Adds a packet's identity and its segment.
#[inline(always)]
pub fn compare<F: Frame + ?Sized>(
    frame: &F,
    about: &Look,
    seen: &mut Seen,
    totals: &mut InspectTotals,
) {
    let key = seen.key;
    if seen.fragment != 0 {
        totals.fragments += 1;
    }
    // What the outermost header says; 0 is unknown.
    let told = u64::from(seen.length_told);
    if about.wire_bytes < told {
        totals.frames_cut += 1;
        let missing = told - about.wire_bytes;
        if missing > totals.cut_bytes_max {
            totals.cut_bytes_max = missing;
        }
    }
    let packet = Packet {
        key,
        outer: seen.outer,
        network_offset: seen.network_offset as usize,
        transport_offset: seen.transport_offset as usize,
        ..Packet::default()
    };
    seen.identity = packet_identity(frame, &packet, about.wire_bytes, about.seed);
    let network = packet.network_offset;
    let Some(ip) = Internet::read(frame, network, key.kind(), about.wire_bytes) else { return };
    if ip.next == protocol::AH {
        count(&mut totals.encapsulated, AH);
    }
    let transport = packet.transport_offset;
    if seen.fragment == 0 && transport != 0 && key.protocol() == protocol::TCP {
        totals.packets_tcp += 1;
        let Some(header) = frame.bytes::<20>(transport) else {
            totals.tcp_cut += 1;
            return;
        };
        seen.segment = segment(&header, transport as u64, ip.end, seen.tags, about.cpu);
        seen.has_segment = 1;
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
