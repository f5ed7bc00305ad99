//! The memory that the XDP program and the sensor share, beside [`Slot`]: what is where, and how it is indexed.
//!
//! Integers only, explicit padding. Each region of a table belongs to one CPU, which alone writes it; user space
//! reads the half (epoch) that the program has left. Nothing here ever holds a byte from behind a transport
//! header.

use crate::{Address, FlowKey, Malformed, Slot, Vlans};

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

/// VLAN stacks of two tags that a region can tell apart.
pub const STACKS: u32 = 4096;

/// Places of the stack table that are looked at before a stack counts as unknown.
pub const STACK_PROBES: u32 = 8;

/// Domain of a packet whose VLAN stack found no place in the stack table; such packets are only folded.
pub const DOMAIN_UNKNOWN: u16 = u16::MAX;

/// First domain that stands for a stack of two tags; below it a domain is the identifier of a single tag.
const DOMAIN_STACKS: u16 = 4096;

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
}

const _: () = assert!(size_of::<Cpu>() == 256);

/// Exact totals of packets that found no room in cache and log, by whom they were sent to.
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
    /// The tail of a [`FlowKey`] with source port 0.
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
    /// The tail that packets of this flow are folded under: without the source port.
    #[inline(always)]
    #[must_use]
    pub const fn tail_of(key: &FlowKey) -> u64 {
        key.tail & !0xffff
    }

    /// The key of the totals, with an unspecified source; `None` for the rest.
    #[must_use]
    pub const fn key(&self) -> Option<FlowKey> {
        if self.tail == 0 && self.destination.high == 0 && self.destination.low == 0 {
            return None;
        }
        let source = Address { high: 0, low: 0 };
        Some(FlowKey { source, destination: self.destination, tail: self.tail })
    }
}

/// A VLAN stack's word in the stack table; 0 is an empty place.
#[inline(always)]
#[must_use]
pub const fn stack_word(vlans: Vlans) -> u64 {
    (vlans.0[0] as u64) << 16 | vlans.0[1] as u64
}

/// The domain of a place in the stack table.
#[inline(always)]
#[must_use]
pub const fn stack_domain(place: u32) -> u16 {
    DOMAIN_STACKS + (place & (STACKS - 1)) as u16
}

/// What a domain stands for, as far as its number alone tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// No tag, or one.
    Vlans(Vlans),
    /// The stack at this place of the region's stack table.
    Stack(u32),
    /// A stack that found no place.
    Unknown,
}

impl Domain {
    /// Reads a domain number that the program wrote.
    #[must_use]
    pub const fn from_number(number: u16) -> Self {
        if number < DOMAIN_STACKS {
            Self::Vlans(Vlans([number, 0]))
        } else if ((number - DOMAIN_STACKS) as u32) < STACKS {
            Self::Stack((number - DOMAIN_STACKS) as u32)
        } else {
            Self::Unknown
        }
    }

    /// The VLAN stack that a word of the stack table stands for.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "each half of the word is one identifier")]
    pub const fn stack_from_word(word: u64) -> Vlans {
        Vlans([(word >> 16) as u16, word as u16])
    }
}
