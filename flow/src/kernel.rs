//! The memory that the XDP program and the sensor share, beside [`Slot`]: what is where, and how it is indexed.
//!
//! Integers only, explicit padding. Each region of a table belongs to one CPU, which alone writes it; user space
//! reads the half (epoch) that the program has left. Nothing here ever holds a byte from behind a transport
//! header.

use crate::{Address, FlowKey, Kind, Malformed, Notes, Outer, Slot, TunnelKind, Vlans};

/// `BPF_F_MMAPABLE`: user space maps the array's memory and reads it without system calls.
pub const MMAPABLE: u32 = 1 << 10;

/// Value of [`Cpu::region`] for a CPU that was not online when the sensor started.
pub const NO_REGION: u32 = u32::MAX;

/// First set of a CPU without a region: beyond every table, and so is every number that a hash is added to it.
const NO_SET: u32 = 1 << 31;

/// Slots of a set: where a flow key may be.
pub const WAYS: usize = 2;

/// Coarse totals that a region and epoch hold by key; a power of two.
pub const COARSE_PLACES: u32 = 1024;

/// The same and the rest, which comes first and holds every key that found no place.
pub const COARSE_SLOTS: u32 = 1 + COARSE_PLACES;

/// Outer identities beyond a single VLAN tag that a region can tell apart.
pub const OUTERS: u32 = 4096;

/// Places of the table of outer identities that are looked at before one counts as unknown.
pub const OUTER_PROBES: u32 = 8;

/// Domain of a packet whose outer identity found no place in the table; such packets are only folded.
pub const DOMAIN_UNKNOWN: u16 = u16::MAX;

/// First domain that stands for a place in the table; below it a domain is the identifier of a single VLAN tag.
pub const DOMAIN_INTERNED: u16 = 4096;

/// How long a first fragment lends its ports to later ones, in ticks: 30 s at 250 Hz, 7.5 s at 1,000 Hz, 75 s at
/// 100 Hz. RFC 8200 has a receiver wait 60 s, Linux waits 30.
pub const FRAGMENT_TICKS_MAX: u32 = 7_500;

/// One set of the cache.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Set(pub [Slot; WAYS]);

const _: () = assert!(size_of::<Set>() == 128);

/// EtherTypes that are counted one by one; what is none of them is counted as `other`, and an IEEE 802.3
/// length (up to 1,500) as `ieee_802_3`.
pub const ETHERTYPES: [(u16, &str); 10] = [
    (0x0806, "arp"),
    (0x8847, "mpls"),
    (0x8848, "mpls_multicast"),
    (0x8863, "pppoe_discovery"),
    (0x8864, "pppoe_session"),
    (0x888e, "eapol"),
    (0x8892, "profinet"),
    (0x88cc, "lldp"),
    (0x88f7, "ptp"),
    (0x8809, "slow_protocols"),
];

/// Index into [`Cpu::not_ip`] of an IEEE 802.3 frame.
pub const NOT_IP_802_3: usize = ETHERTYPES.len();
/// Index into [`Cpu::not_ip`] of every other EtherType.
pub const NOT_IP_OTHER: usize = NOT_IP_802_3 + 1;
/// Entries of [`Cpu::not_ip`].
pub const NOT_IP_KINDS: usize = NOT_IP_OTHER + 1;

/// Index into [`Cpu::not_ip`] for an EtherType.
#[inline(always)]
#[must_use]
pub const fn not_ip_index(ethertype: u16) -> usize {
    if ethertype <= 1500 {
        return NOT_IP_802_3;
    }
    let mut index = 0;
    while index < ETHERTYPES.len() {
        if ETHERTYPES[index].0 == ethertype {
            return index;
        }
        index += 1;
    }
    NOT_IP_OTHER
}

/// The name that metrics and summaries use for an index into [`Cpu::not_ip`].
#[must_use]
pub const fn not_ip_name(index: usize) -> &'static str {
    match index {
        NOT_IP_802_3 => "ieee_802_3",
        NOT_IP_OTHER => "other",
        _ if index < ETHERTYPES.len() => ETHERTYPES[index].1,
        _ => "unknown",
    }
}

/// One CPU's counters and cursors; counters only grow, and only that CPU writes them.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// Which epoch this CPU's programs write, as [`epoch_word`] has it. The only field that user space writes while
    /// programs run.
    pub epoch: u64,
    /// Which region of the tables is this CPU's; [`NO_REGION`] when it has none. Written by user space, once.
    pub region: u32,
    /// Sets of one region and epoch. Written by user space, once.
    pub sets: u32,
    /// Frames the program was given.
    pub frames_seen: u64,
    /// Frames with a usable IP header.
    pub packets_ip: u64,
    /// IP packets that were counted in coarse totals only.
    pub packets_folded: u64,
    /// For each epoch half: the generation in the upper 32 bits, the slots in the log in the lower 32.
    pub log_cursor: [u64; 2],
    /// IP packets seen on a CPU without a region; they are among `packets_folded`.
    pub stray_packets: u64,
    /// Their layer-2 bytes.
    pub stray_bytes: u64,
    /// Those of them that are a TCP SYN without ACK.
    pub stray_syns: u64,
    /// Frames that say IP and are broken, by [`Malformed`].
    pub malformed: [u64; Malformed::ALL.len()],
    /// Frames that are not IP, by [`not_ip_index`].
    pub not_ip: [u64; NOT_IP_KINDS],
    /// IP packets shorter than their header says: cut on the way here, or by whoever copied them.
    pub packets_cut: u64,
    /// IP packets by the bits of [`Notes`].
    pub noted: [u64; Notes::NAMES.len()],
    /// IP packets by what carried them, the names in [`carrier_name`]; one in several counts once for each.
    pub carried: [u64; CARRIERS],
    /// Fragments: first ones, later ones that got their ports, later ones whose ports are unknown.
    pub fragments: [u64; 3],
    /// IP packets that were copies of one a moment before, and are counted nowhere else but in `packets_ip` and what
    /// is counted beside flows.
    pub packets_duplicate: u64,
}

const _: () = assert!(size_of::<Cpu>() == 384);

/// Entries of [`Cpu::carried`].
pub const CARRIERS: usize = 2 + TunnelKind::ALL.len();
/// Index into [`Cpu::carried`] of packets with a VLAN tag; kinds of tunnels follow by their numbers.
pub const CARRIED_VLAN: usize = 0;
/// Index into [`Cpu::carried`] of packets with an MPLS label.
pub const CARRIED_MPLS: usize = CARRIERS - 1;

/// The name that metrics and summaries use for an index into [`Cpu::carried`]; two forms of one protocol share it.
#[must_use]
pub const fn carrier_name(index: usize) -> &'static str {
    match index {
        CARRIED_VLAN => "vlan",
        CARRIED_MPLS => "mpls",
        _ if index < CARRIERS => TunnelKind::ALL[index - 1].name(),
        _ => "unknown",
    }
}

/// Exact totals of packets that found no room in cache and log, by whom they were sent to and the prefix of
/// the network they came from: the first 8 bits of an IPv4 source, the first 16 of an IPv6 source. Wide
/// enough for a flood from everywhere to fit, and narrow enough to tell regions of the Internet apart.
///
/// ```text
///  0               16      24        32      40      48      52     56           60        64
/// ┌───────────────┬───────┬─────────┬───────┬───────┬───────┬──────┬────────────┬─────────┐
/// │ dest. address │ tail  │ packets │ bytes │ SYNs  │ first │ last │ generation │ padding │
/// └───────────────┴───────┴─────────┴───────┴───────┴───────┴──────┴────────────┴─────────┘
/// ```
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct CoarseSlot {
    /// Whom the packets were sent to; all zero in the rest, which holds every key that found no place.
    pub destination: Address,
    /// The tail of a [`FlowKey`] with the source's prefix where the source port stands.
    pub tail: u64,
    /// Packets.
    pub packets: u64,
    /// Layer-2 bytes.
    pub bytes: u64,
    /// TCP packets with SYN and without ACK.
    pub syns: u64,
    /// Lower 32 bits of the jiffies clock at the first packet.
    pub first: u32,
    /// The same at the last packet.
    pub last: u32,
    /// The generation that wrote this slot; another one makes it empty.
    pub generation: u32,
    /// Explicit padding.
    pub padding: u32,
}

const _: () = assert!(size_of::<CoarseSlot>() == 64);

/// An epoch as [`Cpu::epoch`] has it: the generation in the lower half, of which the lowest bit says which half of the
/// region is written and the lower 16 bits tag the slots; in the upper half the first set of that half, or a number
/// beyond every table for a CPU without a region.
#[must_use]
pub const fn epoch_word(generation: u32, region: u32, sets: u32) -> u64 {
    let first_set = if region == NO_REGION { NO_SET } else { block(generation, region) * sets };
    (first_set as u64) << 32 | generation as u64
}

/// The part of each table that a region writes in an epoch.
#[inline(always)]
#[must_use]
pub const fn block(generation: u32, region: u32) -> u32 {
    region << 1 | (generation & 1)
}

impl CoarseSlot {
    /// Bits of an IPv4 source that are kept.
    pub const PREFIX_BITS_V4: u8 = 8;
    /// Bits of an IPv6 source that are kept.
    pub const PREFIX_BITS_V6: u8 = 16;

    /// The tail that packets of this flow are folded under: the source's prefix in place of its port.
    #[inline(always)]
    #[must_use]
    pub const fn tail_of(key: &FlowKey) -> u64 {
        // An address is two little-endian words over network-order bytes: its first byte is a word's lowest.
        let prefix = if key.kind().has(Kind::V4) {
            key.source.low >> 32 & 0xff
        } else {
            key.source.high & 0xffff
        };
        key.tail & !0xffff | prefix
    }

    /// The key of the totals: its source is the network address of the prefix, its source port 0. `None` for
    /// the rest.
    #[must_use]
    pub const fn key(&self) -> Option<FlowKey> {
        if self.tail == 0 && self.destination.high == 0 && self.destination.low == 0 {
            return None;
        }
        let prefix = self.tail & 0xffff;
        let tail = self.tail & !0xffff;
        let key = FlowKey {
            source: Address { high: prefix, low: 0 },
            destination: self.destination,
            tail,
        };
        if key.kind().has(Kind::V4) {
            let source = Address::from_v4([(prefix & 0xff) as u8, 0, 0, 0]);
            return Some(FlowKey { source, ..key });
        }
        Some(key)
    }
}

/// Where the search for an outer identity begins.
#[inline(always)]
#[must_use]
pub const fn outer_start(outer: &Outer) -> u32 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    ((outer.layers ^ outer.ids.rotate_left(23)).wrapping_mul(MULTIPLIER) >> 52) as u32
}

/// The domain of a place in the table of outer identities.
#[inline(always)]
#[must_use]
pub const fn interned_domain(place: u32) -> u16 {
    DOMAIN_INTERNED + (place & (OUTERS - 1)) as u16
}

/// What a domain stands for, as far as its number alone tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// No outer identity, or a single VLAN tag.
    Plain(Outer),
    /// The outer identity at this place of the region's table.
    Interned(u32),
    /// One that found no place.
    Unknown,
}

impl Domain {
    /// Reads a domain number that the program wrote.
    #[must_use]
    pub const fn from_number(number: u16) -> Self {
        if number < DOMAIN_INTERNED {
            Self::Plain(Outer::from_vlans(Vlans([number, 0])))
        } else if ((number - DOMAIN_INTERNED) as u32) < OUTERS {
            Self::Interned((number - DOMAIN_INTERNED) as u32)
        } else {
            Self::Unknown
        }
    }
}
