//! Takes a packet; tells whether a mirror has delivered the same one a moment ago. The one place that says what a
//! copy is: for `doctor`, which counts copies, and for whoever removes them, in the kernel and in a replay.
//!
//! A packet is told from every other one by header fields that a switch or router on its way leaves as they are and
//! that its sender changes from one packet to the next. No byte from behind the transport header takes part, and
//! neither do the transport checksums, which are made from such bytes.

use crate::{FlowKey, Frame, Kind, Packet, protocol, tcp_flag};

/// How long after a packet its copy may come. A switch sends both copies within the time that one frame waits in
/// its buffers; the soonest repetition by a sender comes after its retransmission time-out, 200 ms and more, or
/// after one round trip.
pub const COPY_WITHIN_MS: u32 = 20;

/// Copies of one packet that are taken for copies: in and out of two ports are four of the same. Whatever looks the
/// same once more counts as a packet, so that one of four is left of a flood of equal packets.
pub const COPIES_MAX: u64 = 3;

/// Sets of a table of [`RecentSet`]s; a power of two.
pub const RECENT_SETS: u32 = 8192;

/// Packets that a set remembers, the newest ones.
pub const RECENT_WAYS: usize = 4;

/// VLAN tags in [`crate::Outer::layers`]: a mirror's copies may have other ones.
pub(crate) const TAGS_MASK: u64 = 0xff_ffff;

/// Odd constants without structure (fractional digits of π), one for each word that is hashed.
const MULTIPLIERS: [u64; WORDS_MAX + 1] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6d,
    0xc0ac_29b7_c97c_50dd,
    0x3f84_d5b5_b547_0917,
    0x9216_d5d9_8979_fb1b,
    0xd131_0ba6_98df_b5ad,
];
/// Words of a fingerprint, at most.
const WORDS_MAX: usize = 9;

/// A fingerprint of so many words, not to be foreseen without the seed; odd, and so never 0.
#[inline(always)]
pub(crate) const fn fingerprint<const WORDS: usize>(words: [u64; WORDS], seed: u64) -> u64 {
    const { assert!(WORDS <= WORDS_MAX) };
    let mut sum = seed;
    let mut index = 0;
    while index < WORDS {
        let product = (words[index] ^ seed).wrapping_mul(MULTIPLIERS[index]);
        sum = sum.wrapping_add(product ^ product >> 29);
        index += 1;
    }
    let mixed = (sum ^ sum >> 32).wrapping_mul(MULTIPLIERS[WORDS_MAX]);
    (mixed ^ mixed >> 29) | 1
}

/// Of an IP header: where the packet ends in the frame, and the words that name this packet.
pub(crate) struct Internet {
    /// Layer-2 bytes up to the end of the packet.
    pub(crate) end: u64,
    /// IPv4 identification; 0 in IPv6.
    identification: u16,
    /// Flags and offset of a fragment; 0 for a whole packet, and in IPv6.
    fragment: u16,
    /// Number of the header that follows.
    pub(crate) next: u8,
}

impl Internet {
    #[inline(always)]
    pub(crate) fn read<F: Frame + ?Sized>(
        frame: &F,
        network_offset: usize,
        kind: Kind,
        wire_bytes: u64,
    ) -> Option<Self> {
        let header = frame.bytes::<10>(network_offset)?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let network = network_offset as u64;
        if kind.has(Kind::V4) {
            // Segmentation offload leaves 0 in a packet longer than the field can say.
            let total = u64::from(word(2));
            let end = if total == 0 { wire_bytes } else { network + total };
            // "More fragments" and the offset; "don't fragment" says nothing.
            let fragment = word(6) & 0x3fff;
            return Some(Self { end, identification: word(4), fragment, next: header[9] });
        }
        let payload = u64::from(word(4));
        let end = if payload == 0 { wire_bytes } else { network + 40 + payload };
        Some(Self { end, identification: 0, fragment: 0, next: header[6] })
    }
}

/// What a transport header adds to a packet's identity.
#[derive(Clone, Copy, Default)]
struct Transport {
    /// Sequence and acknowledgement number of TCP, identifier and sequence number of an ICMP echo.
    numbers: u64,
    /// Of TCP: header length, flags and window, and above them the sender's time stamp where nothing else tells a
    /// repetition.
    about: u64,
    /// Whether the sender does not send the same again within a moment, an IPv4 identification aside.
    unique: bool,
}

/// Fingerprint of what tells a packet from every other one: addresses, ports, protocol, tunnel, lengths, the IPv4
/// identification and fragment field; of TCP the numbers, flags, window and (without an identification) time stamp, of
/// an ICMP echo identifier and sequence number. Hardware addresses, VLAN tags, TTL, DSCP and checksums are left out: a
/// copy taken behind a switch or router has others. With equal seeds, equal on every machine.
///
/// 0 when a repetition by the sender could look the same: without an identification (IPv6, and IPv4 with 0 in its
/// place) everything but echoes and TCP segments that take sequence numbers.
#[inline(always)]
#[must_use]
pub fn packet_identity<F: Frame + ?Sized>(
    frame: &F,
    packet: &Packet,
    wire_bytes: u64,
    seed: u64,
) -> u64 {
    let FlowKey { source, destination, tail } = packet.key;
    let kind = packet.key.kind();
    let Some(ip) = Internet::read(frame, packet.network_offset, kind, wire_bytes) else { return 0 };
    let (tail, behind) = if packet.transport_offset == 0 {
        // A later fragment. Its ports may be known by the time the copy comes, and not before.
        (u64::from(ip.next) << 32, Transport::default())
    } else {
        (tail, transport_numbers(frame, packet, &ip))
    };
    if ip.identification == 0 && !behind.unique {
        return 0;
    }
    let length = ip.end.wrapping_sub(packet.network_offset as u64);
    let named = u64::from(ip.identification) << 48 | u64::from(ip.fragment) << 32 | length;
    let high = source.high ^ destination.high.rotate_left(32);
    let words = [high, source.low, destination.low, tail, named, behind.numbers, behind.about];
    let layers = packet.outer.layers & !TAGS_MASK;
    if layers == 0 && packet.outer.ids == 0 {
        return fingerprint(words, seed);
    }
    // Not by a loop: what the compiler makes of one the verifier does not follow to its end.
    let [high, near, far, tail, named, numbers, about] = words;
    let ids = packet.outer.ids;
    fingerprint([high, near, far, tail, named, numbers, about, layers, ids], seed)
}

#[inline(always)]
fn transport_numbers<F: Frame + ?Sized>(frame: &F, packet: &Packet, ip: &Internet) -> Transport {
    const ECHO_TYPES: [u8; 4] = [0, 8, 128, 129];
    let transport = packet.transport_offset;
    match packet.key.protocol() {
        protocol::TCP => tcp_numbers(frame, transport, ip),
        protocol::ICMP | protocol::ICMP6 => match frame.bytes::<8>(transport) {
            Some([message, _, _, _, numbers @ ..]) if ECHO_TYPES.contains(&message) => Transport {
                numbers: u64::from(u32::from_be_bytes(numbers)),
                about: 0,
                unique: true,
            },
            _ => Transport::default(),
        },
        // Equal datagrams are common (answers to equal questions): only the identification tells them apart.
        _ => Transport::default(),
    }
}

#[inline(always)]
fn tcp_numbers<F: Frame + ?Sized>(frame: &F, transport: usize, ip: &Internet) -> Transport {
    const TAKES_NUMBERS: u8 = tcp_flag::SYN | tcp_flag::FIN;
    /// Words of a header that has room for a time stamp.
    const WITH_TIME: u8 = 8;
    /// How senders lay it out: twice no operation, kind 8, length 10 (RFC 7323, appendix A).
    const TIME: u64 = 0x0101_080a;
    let Some(header) = frame.bytes::<16>(transport) else { return Transport::default() };
    let word = |at: usize| {
        u64::from(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    let mut about = word(12);
    let words = header[12] >> 4;
    let mut unique = false;
    if ip.identification == 0 {
        let payload = ip.end.saturating_sub(transport as u64 + u64::from(words) * 4);
        unique = payload > 0 || header[13] & TAKES_NUMBERS != 0;
        if words >= WITH_TIME
            && let Some(option) = frame.bytes::<8>(transport + 20).map(u64::from_be_bytes)
            && option >> 32 == TIME
        {
            about |= option << 32;
        }
    }
    Transport { numbers: word(4) << 32 | word(8), about, unique }
}

/// Packets that came a moment ago, the newest first: integers only, written by one CPU.
///
/// Each is one word: 46 bits of the identity, 16 bits of a clock, and how many copies have come.
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecentSet(pub [u64; RECENT_WAYS]);

const _: () = assert!(size_of::<RecentSet>() == 32);

const IDENTITY_SHIFT: u32 = 18;
const TICKS_SHIFT: u32 = 2;
const TICKS_MASK: u32 = 0xffff;
const COPIES_MASK: u64 = 0x3;
const _: () = assert!(COPIES_MAX <= COPIES_MASK);

/// Where a packet is remembered. The bits are others than those that a set keeps.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the highest bits are less than 32")]
pub const fn recent_set(identity: u64) -> u32 {
    (identity >> (u64::BITS - RECENT_SETS.ilog2())) as u32
}

impl RecentSet {
    /// Whether a packet is a copy of one that came no more than `within` ticks ago. If it is not, it is remembered, in
    /// place of the oldest. `within` is at most 1,000; a clock that stepped back by no more than that is forgiven.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "ticks are compared modulo 2^16")]
    pub const fn is_copy(&mut self, identity: u64, now: u32, within: u32) -> bool {
        // The lowest bit of an identity is set, so that no packet is an empty place.
        let fresh = identity << IDENTITY_SHIFT | ((now & TICKS_MASK) as u64) << TICKS_SHIFT;
        let mut way = 0;
        while way < RECENT_WAYS {
            let known = self.0[way];
            if (known ^ fresh) >> IDENTITY_SHIFT == 0 {
                let age = now.wrapping_sub((known >> TICKS_SHIFT) as u32);
                let is_recent = age.wrapping_add(within) & TICKS_MASK <= 2 * within;
                let is_copy = is_recent && known & COPIES_MASK < COPIES_MAX;
                self.0[way] = if is_copy { known + 1 } else { fresh };
                return is_copy;
            }
            way += 1;
        }
        let [first, second, third, _oldest] = self.0;
        self.0 = [fresh, first, second, third];
        false
    }
}
