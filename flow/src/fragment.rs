//! Takes the first fragment of a datagram, which has the ports; gives them to the later ones, which have none.
//! A bounded table of the newest; what is no longer in it stays a flow without ports.

use crate::{Address, FlowKey, Kind, Outer, Packet};

/// Whether a packet is a piece of a datagram; the number is the datagram's identification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    /// A whole datagram.
    #[default]
    Whole,
    /// The first piece.
    First(u32),
    /// A later piece.
    Later(u32),
}

/// Entries of a fragment table; a power of two.
pub const FRAGMENTS: u32 = 1024;

/// What is remembered of one first fragment: one cache line, integers only.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct FragmentSlot {
    source: Address,
    destination: Address,
    outer: Outer,
    /// The tail of the first fragment's [`FlowKey`]; 0 in an empty entry.
    tail: u64,
    identification: u32,
    /// When it came, in the table's own unit; wraps.
    time: u32,
}

const _: () = assert!(size_of::<FragmentSlot>() == 64);

/// The place of a datagram's entry in a table of [`FRAGMENTS`].
#[inline(always)]
#[must_use]
pub const fn fragment_place(key: &FlowKey, identification: u32) -> u32 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed =
        key.source.low ^ key.source.high.rotate_left(17) ^ key.destination.low.rotate_left(31);
    let mixed = mixed ^ key.destination.high.rotate_left(47) ^ (identification as u64) << 7;
    (mixed.wrapping_mul(MULTIPLIER) >> 40) as u32 & (FRAGMENTS - 1)
}

impl FragmentSlot {
    /// Takes a first fragment, in place of what was here.
    #[inline(always)]
    pub fn remember(&mut self, packet: &Packet, identification: u32, time: u32) {
        self.source = packet.key.source;
        self.destination = packet.key.destination;
        self.outer = packet.outer;
        self.tail = packet.key.tail;
        self.identification = identification;
        self.time = time;
    }

    /// The later fragment's key with the ports of its first one; `None` when that is not here, or is older than
    /// `age_max`. IPv4 counts identifications by protocol, IPv6 does not (RFC 6864, RFC 8200).
    #[inline(always)]
    #[must_use]
    pub fn recall(
        &self,
        packet: &Packet,
        identification: u32,
        time: u32,
        age_max: u32,
    ) -> Option<FlowKey> {
        const PROTOCOL: u64 = 0xff << 32;
        let key = &packet.key;
        let same_protocol = (self.tail ^ key.tail) & PROTOCOL == 0 || !key.kind().has(Kind::V4);
        let same = self.tail != 0
            && self.identification == identification
            && self.source == key.source
            && self.destination == key.destination
            && self.outer == packet.outer
            && same_protocol
            && time.wrapping_sub(self.time) <= age_max;
        same.then_some(FlowKey { tail: self.tail, ..*key })
    }
}
