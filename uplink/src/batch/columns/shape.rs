//! Takes what many records have in common, protocol, flags, how they ended; gives columns with one row for each such
//! shape, and the way back. Never holds what differs from record to record.
#![expect(clippy::cast_possible_truncation, reason = "fields are taken out of a wider number")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flow::{Direction, EndReason, Handshake, Outer, Pseudonyms, Record, RoleEvidence};

use super::distinct::Key;
use super::packer::Packer;
use super::unpacker::Unpacker;
use crate::reader::DecodeError;

const PORTS_KNOWN: u16 = 1;
const INITIATOR_V4: u16 = 2;
const RESPONDER_V4: u16 = 4;
const FOLDED: u16 = 8;
const INITIATOR_FRAGMENTED: u16 = 16;
const RESPONDER_FRAGMENTED: u16 = 32;
const HANDSHAKE_RTT_KNOWN: u16 = 64;
const INSTANT: u16 = 128;
/// Two bits each; see [`Sent`].
const INITIATOR_SENT: u32 = 8;
const RESPONDER_SENT: u32 = 10;
const INITIATOR_PSEUDONYM: u16 = 1 << 12;
const RESPONDER_PSEUDONYM: u16 = 1 << 13;
const BITS: u16 = (1 << 14) - 1;

/// How much a side sent, as far as it decides which columns have values of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Nothing: it has no values.
    Nothing = 0,
    /// One packet, or what looks like it: length and TTL say all.
    One = 1,
    /// Anything else.
    Many = 2,
}

impl Sent {
    fn of(side: &Direction) -> Self {
        let Direction { packets, bytes, ttl, length_min, length_max, .. } = *side;
        if packets == 1 && length_min == length_max && bytes == u64::from(length_min) {
            Self::One
        } else if packets == 0 && bytes == 0 && ttl == 0 && (length_min | length_max) == 0 {
            Self::Nothing
        } else {
            Self::Many
        }
    }
}

/// Kinds of records that columns keep apart where their values have little in common.
pub(super) const KINDS: usize = 3;

/// How many values records have in each column.
#[derive(Clone, Copy, Default)]
pub(super) struct Extent {
    pub(super) records: usize,
    pub(super) durations: usize,
    pub(super) rtts: usize,
    /// Of initiators, then of responders: IPv4 addresses, IPv6 addresses.
    pub(super) addresses: [[usize; 2]; 2],
    /// Likewise: sides that sent anything, one packet, more.
    pub(super) sides: [[usize; 3]; 2],
}

impl Extent {
    /// Adds so many records of a shape.
    pub(super) fn add(&mut self, shape: Shape, count: usize) {
        self.records += count;
        self.durations += if shape.is_instant() { 0 } else { count };
        self.rtts += if shape.has_handshake_rtt() { count } else { 0 };
        for (side, is_v4) in shape.are_v4().into_iter().enumerate() {
            self.addresses[side][usize::from(!is_v4)] += count;
        }
        for (side, sent) in shape.sent().into_iter().enumerate() {
            self.sides[side][0] += if sent == Sent::Nothing { 0 } else { count };
            self.sides[side][1] += if sent == Sent::One { count } else { 0 };
            self.sides[side][2] += if sent == Sent::Many { count } else { 0 };
        }
    }
}

/// What a record says beside times, addresses, ports and counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// The first eleven fields of the format, a byte each but for the bits, which are two.
    fields: u128,
    outer: Outer,
}

impl Key for Shape {
    fn words(self) -> [u64; 2] {
        // What lies on top of each other here differs in few bits only.
        let outer = self.outer.layers.rotate_left(32) ^ self.outer.ids.rotate_left(17);
        [self.fields as u64, (self.fields >> 64) as u64 ^ outer]
    }
}

/// Name and place in `fields` of each field of a byte.
const FIELDS: [(&str, u32); 11] = [
    ("shape protocol", 16),
    ("shape handshake", 24),
    ("shape role", 32),
    ("shape end reason", 40),
    ("shape interface", 48),
    ("shape initiator flags", 56),
    ("shape initiator first flags", 64),
    ("shape initiator dscp", 72),
    ("shape responder flags", 80),
    ("shape responder first flags", 88),
    ("shape responder dscp", 96),
];

impl Shape {
    #[inline]
    pub(super) fn of(record: &Record) -> Self {
        let (initiator, responder) = (&record.from_initiator, &record.from_responder);
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        let bits = flag(record.ports_known, PORTS_KNOWN)
            | flag(record.initiator.is_ipv4(), INITIATOR_V4)
            | flag(record.responder.is_ipv4(), RESPONDER_V4)
            | flag(record.folded, FOLDED)
            | flag(initiator.fragmented, INITIATOR_FRAGMENTED)
            | flag(responder.fragmented, RESPONDER_FRAGMENTED)
            | flag(record.handshake_rtt_us.is_some(), HANDSHAKE_RTT_KNOWN)
            | flag(record.start_ms == record.end_ms, INSTANT)
            | flag(record.pseudonyms.initiator, INITIATOR_PSEUDONYM)
            | flag(record.pseudonyms.responder, RESPONDER_PSEUDONYM)
            | (Sent::of(initiator) as u16) << INITIATOR_SENT
            | (Sent::of(responder) as u16) << RESPONDER_SENT;
        let low = u64::from(bits)
            | u64::from(record.protocol) << 16
            | u64::from(record.handshake as u8) << 24
            | u64::from(record.role as u8) << 32
            | u64::from(record.end_reason as u8) << 40
            | u64::from(record.interface) << 48
            | u64::from(initiator.tcp_flags) << 56;
        let high = u64::from(initiator.first_flags)
            | u64::from(initiator.dscp) << 8
            | u64::from(responder.tcp_flags) << 16
            | u64::from(responder.first_flags) << 24
            | u64::from(responder.dscp) << 32;
        Self { fields: u128::from(high) << 64 | u128::from(low), outer: record.outer }
    }

    fn bits(self) -> u16 {
        self.fields as u16
    }

    fn has(self, bit: u16) -> bool {
        self.bits() & bit != 0
    }

    /// Whether initiator and responder have IPv4 addresses.
    pub(super) fn are_v4(self) -> [bool; 2] {
        [self.has(INITIATOR_V4), self.has(RESPONDER_V4)]
    }

    /// Whether start and end are the same millisecond.
    pub(super) fn is_instant(self) -> bool {
        self.has(INSTANT)
    }

    pub(super) fn has_handshake_rtt(self) -> bool {
        self.has(HANDSHAKE_RTT_KNOWN)
    }

    /// 0 where nothing came back, 1 for a packet and its answer, 2 for the rest.
    pub(super) fn kind(self) -> usize {
        match self.sent() {
            [_, Sent::Nothing] => 0,
            [Sent::One, Sent::One] => 1,
            _ => 2,
        }
    }

    /// How much initiator and responder sent; `None` for a number that has no meaning.
    fn checked_sent(self) -> Option<[Sent; 2]> {
        let sent = |at: u32| match self.bits() >> at & 3 {
            0 => Some(Sent::Nothing),
            1 => Some(Sent::One),
            2 => Some(Sent::Many),
            _ => None,
        };
        Some([sent(INITIATOR_SENT)?, sent(RESPONDER_SENT)?])
    }

    /// How much initiator and responder sent.
    pub(super) fn sent(self) -> [Sent; 2] {
        // Both ways to a shape, from a record and through `record`, give one of the three numbers.
        self.checked_sent().unwrap_or([Sent::Many; 2])
    }

    /// A record of this shape: its times, ports and counts are 0, its addresses the unspecified ones of the right
    /// versions.
    fn record(self) -> Result<Record, (&'static str, u64, &'static str)> {
        let byte = |number: usize| (self.fields >> FIELDS[number].1) as u8;
        let unknown =
            |number: usize| move |value: u8| (FIELDS[number].0, u64::from(value), "a known number");
        if self.bits() & !BITS != 0 || self.checked_sent().is_none() {
            return Err(("shape bits", u64::from(self.bits()), "a set of known bits"));
        }
        let interface = byte(4);
        if interface > Record::INTERFACE_MAX {
            return Err((FIELDS[4].0, u64::from(interface), "at most 7"));
        }
        for number in [7, 10] {
            if byte(number) > Direction::DSCP_MAX {
                return Err((FIELDS[number].0, u64::from(byte(number)), "at most 63"));
            }
        }
        if !self.outer.is_valid() {
            return Err(("shape outer layers", self.outer.layers, "one that a frame can have"));
        }
        let side = |first: usize, fragmented| Direction {
            tcp_flags: byte(first),
            first_flags: byte(first + 1),
            dscp: byte(first + 2),
            fragmented: self.has(fragmented),
            ..Direction::default()
        };
        let [initiator, responder] = self.are_v4().map(|is_v4| {
            if is_v4 {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            } else {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            }
        });
        Ok(Record {
            start_ms: 0,
            end_ms: 0,
            initiator,
            responder,
            initiator_port: 0,
            responder_port: 0,
            protocol: byte(0),
            ports_known: self.has(PORTS_KNOWN),
            outer: self.outer,
            from_initiator: side(5, INITIATOR_FRAGMENTED),
            from_responder: side(8, RESPONDER_FRAGMENTED),
            handshake: Handshake::try_from(byte(1)).map_err(unknown(1))?,
            handshake_rtt_us: self.has_handshake_rtt().then_some(0),
            interface,
            role: RoleEvidence::try_from(byte(2)).map_err(unknown(2))?,
            end_reason: EndReason::try_from(byte(3)).map_err(unknown(3))?,
            folded: self.has(FOLDED),
            pseudonyms: Pseudonyms {
                initiator: self.has(INITIATOR_PSEUDONYM),
                responder: self.has(RESPONDER_PSEUDONYM),
            },
        })
    }
}

/// Appends the columns of shapes.
pub(super) fn write(shapes: &[Shape], packer: &mut Packer, out: &mut Vec<u8>) {
    let bits: Vec<u16> = shapes.iter().map(|shape| shape.bits()).collect();
    packer.column(&bits, out);
    for (_, at) in FIELDS {
        let field: Vec<u8> = shapes.iter().map(|shape| (shape.fields >> at) as u8).collect();
        packer.column(&field, out);
    }
    for word in [|shape: &Shape| shape.outer.layers, |shape: &Shape| shape.outer.ids] {
        let words: Vec<u64> = shapes.iter().map(word).collect();
        packer.column(&words, out);
    }
}

/// Reads so many shapes; each with the record to begin from.
pub(super) fn read(
    unpacker: &mut Unpacker<'_>,
    count: usize,
    may_have_pseudonyms: bool,
) -> Result<Vec<(Shape, Record)>, DecodeError> {
    let bits: Vec<u16> = unpacker.column("shape bits", count)?;
    let is_pseudonym = |bits: &&u16| **bits & (INITIATOR_PSEUDONYM | RESPONDER_PSEUDONYM) != 0;
    if let Some(bits) = bits.iter().find(is_pseudonym).filter(|_| !may_have_pseudonyms) {
        let wanted = "one without pseudonyms, since there is no key epoch";
        return Err(unpacker.value("shape bits", 0, u64::from(*bits), wanted));
    }
    let mut shapes: Vec<Shape> =
        bits.iter().map(|bits| Shape { fields: u128::from(*bits), ..Shape::default() }).collect();
    for (name, at) in FIELDS {
        let field: Vec<u8> = unpacker.column(name, count)?;
        for (shape, value) in shapes.iter_mut().zip(field) {
            shape.fields |= u128::from(value) << at;
        }
    }
    let layers: Vec<u64> = unpacker.column("shape outer layers", count)?;
    let ids: Vec<u64> = unpacker.column("shape outer ids", count)?;
    let outer = layers.into_iter().zip(ids).map(|(layers, ids)| Outer { layers, ids });
    let with_outer = shapes.into_iter().zip(outer).map(|(shape, outer)| Shape { outer, ..shape });
    with_outer
        .map(|shape| match shape.record() {
            Ok(record) => Ok((shape, record)),
            Err((field, value, expected)) => Err(unpacker.value(field, 0, value, expected)),
        })
        .collect()
}
