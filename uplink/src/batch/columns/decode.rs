//! Takes a column section; gives the records. Never allocates by what the bytes claim: the record count, which
//! the caller has bounded, bounds every column.
#![expect(
    clippy::cast_possible_truncation,
    reason = "a batch has at most 65,536 records; wider values were checked"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flow::{Direction, Record};

use super::dictionary::{self, Coded};
use super::numbers::Word;
use super::predicted_bytes;
use super::shape::{self, Extent, KINDS, Sent};
use super::unpacker::Unpacker;
use crate::reader::{DecodeError, unzigzag};

/// A shape, while its records are read.
struct Group {
    template: Record,
    are_v4: [bool; 2],
    sent: [Sent; 2],
    is_instant: bool,
    /// Where its values begin in each column.
    starts: Extent,
    /// How many records it has, and how many of them were read.
    count: usize,
    read: usize,
}

struct Addresses {
    v4: Coded<u32>,
    v6: Coded<u128>,
}

impl Addresses {
    fn read(
        unpacker: &mut Unpacker<'_>,
        [v4, v6]: [&'static str; 2],
        cuts: [[usize; 2]; KINDS - 1],
        counts: [usize; 2],
    ) -> Result<Self, DecodeError> {
        let v4 = dictionary::read(unpacker, v4, cuts.map(|[v4, _]| v4), counts[0])?;
        let v6 = dictionary::read(unpacker, v6, cuts.map(|[_, v6]| v6), counts[1])?;
        Ok(Self { v4, v6 })
    }

    #[inline]
    fn get(&self, is_v4: bool, at: usize) -> IpAddr {
        if is_v4 {
            IpAddr::V4(Ipv4Addr::from_bits(self.v4.values[self.v4.places[at] as usize]))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(self.v6.values[self.v6.places[at] as usize]))
        }
    }

    /// The places of the values of each record of a shape.
    fn places(&self, is_v4: bool, start: [usize; 2], count: usize) -> &[u32] {
        if is_v4 {
            &self.v4.places[start[0]..start[0] + count]
        } else {
            &self.v6.places[start[1]..start[1] + count]
        }
    }

    /// Room for a value of each IPv4 address, and of each IPv6 address.
    fn latest<T: Copy>(&self) -> [Vec<Option<T>>; 2] {
        [self.v4.values.len(), self.v6.values.len()].map(|count| vec![None; count])
    }
}

/// Values that hardly change while the address is the same, being put together.
struct Steady<T> {
    first: std::vec::IntoIter<T>,
    change: std::vec::IntoIter<T>,
    /// In the order of records by shape.
    values: Vec<T>,
}

impl<T: Word> Steady<T> {
    fn read(
        unpacker: &mut Unpacker<'_>,
        name: &'static str,
        count: usize,
    ) -> Result<Self, DecodeError> {
        let first = unpacker.number(name, count, "at most the number of values")?;
        let values = Vec::with_capacity(count);
        let first_values = unpacker.column(name, first)?.into_iter();
        let change = unpacker.column(name, count - first)?.into_iter();
        Ok(Self { first: first_values, change, values })
    }

    /// Puts the values of some records together; `None` when those that were read do not go with their addresses.
    fn advance(
        &mut self,
        places: &[u32],
        latest: &mut [Option<T>],
        changed: impl Fn(T, T) -> Option<T>,
    ) -> Option<()> {
        for place in places {
            let latest = &mut latest[*place as usize];
            let value = match *latest {
                None => self.first.next()?,
                Some(before) => changed(before, self.change.next()?)?,
            };
            *latest = Some(value);
            self.values.push(value);
        }
        Some(())
    }
}

struct Side {
    packets: Vec<u64>,
    length_min: Vec<u16>,
    spread: Vec<u16>,
    bytes: Vec<u64>,
    length: Vec<u16>,
    ttl: Steady<u8>,
}

impl Side {
    fn read(
        unpacker: &mut Unpacker<'_>,
        [packets, length_min, spread, bytes, length, ttl]: [&'static str; 6],
        cuts: [[usize; 3]; KINDS - 1],
        [any, one, many]: [usize; 3],
    ) -> Result<Self, DecodeError> {
        Ok(Self {
            packets: unpacker.column(packets, many)?,
            length_min: unpacker.column(length_min, many)?,
            spread: unpacker.column(spread, many)?,
            bytes: unpacker.column(bytes, many)?,
            length: unpacker.pieces(length, cuts.map(|[_, one, _]| one), one)?,
            ttl: Steady::read(unpacker, ttl, any)?,
        })
    }

    /// Fills in what was sent.
    #[inline]
    fn fill(&self, sent: Sent, [any, one, many]: [usize; 3], side: &mut Direction) {
        match sent {
            Sent::Nothing => return,
            Sent::One => {
                let length = self.length[one];
                (side.packets, side.bytes) = (1, u64::from(length));
                (side.length_min, side.length_max) = (length, length);
            }
            Sent::Many => {
                side.packets = self.packets[many];
                side.length_min = self.length_min[many];
                side.length_max = side.length_min.wrapping_add(self.spread[many]);
                side.bytes = predicted_bytes(side.packets, side.length_min, side.length_max)
                    .wrapping_add(self.bytes[many]);
            }
        }
        side.ttl = self.ttl.values[any];
    }
}

/// Every column but those of shapes and ends.
struct Columns {
    durations: Vec<u64>,
    addresses: [Addresses; 2],
    initiator_ports: Vec<u16>,
    responder_ports: Coded<u16>,
    sides: [Side; 2],
    handshake_rtts: Steady<u64>,
}

const SIDES: [[&str; 6]; 2] = [
    [
        "initiator packets",
        "initiator length min",
        "initiator length spread",
        "initiator bytes",
        "initiator length",
        "initiator ttl",
    ],
    [
        "responder packets",
        "responder length min",
        "responder length spread",
        "responder bytes",
        "responder length",
        "responder ttl",
    ],
];

impl Columns {
    fn read(
        unpacker: &mut Unpacker<'_>,
        cuts: [Extent; KINDS - 1],
        totals: &Extent,
    ) -> Result<Self, DecodeError> {
        let at = cuts.map(|cut| cut.durations);
        let durations = unpacker.pieces("duration", at, totals.durations)?;
        let names = ["initiator v4", "initiator v6"];
        let at = cuts.map(|cut| cut.addresses[0]);
        let initiators = Addresses::read(unpacker, names, at, totals.addresses[0])?;
        let names = ["responder v4", "responder v6"];
        let at = cuts.map(|cut| cut.addresses[1]);
        let responders = Addresses::read(unpacker, names, at, totals.addresses[1])?;
        let at = cuts.map(|cut| cut.records);
        let initiator_ports = unpacker.pieces("initiator port", at, totals.records)?;
        let responder_ports = dictionary::read(unpacker, "responder port", at, totals.records)?;
        let sides = [
            Side::read(unpacker, SIDES[0], cuts.map(|cut| cut.sides[0]), totals.sides[0])?,
            Side::read(unpacker, SIDES[1], cuts.map(|cut| cut.sides[1]), totals.sides[1])?,
        ];
        let handshake_rtts = Steady::<u64>::read(unpacker, "handshake rtt", totals.rtts)?;
        let mut first = handshake_rtts.first.as_slice().iter();
        if let Some(large) = first.find(|rtt| u32::try_from(**rtt).is_err()) {
            return Err(unpacker.value("handshake rtt", 0, *large, "at most 4294967295"));
        }
        let addresses = [initiators, responders];
        Ok(Self { durations, addresses, initiator_ports, responder_ports, sides, handshake_rtts })
    }

    /// Puts TTLs and round-trip times together; `None` when there are not as many as their addresses need.
    fn follow_addresses(&mut self, groups: &[Group]) -> Option<()> {
        let Self { addresses, sides, handshake_rtts, .. } = self;
        let mut ttls = [addresses[0].latest(), addresses[1].latest()];
        let mut latest_rtts = addresses[1].latest();
        let ttl_changed = |before: u8, change: u8| Some(before.wrapping_add(change));
        let rtt_changed = |before: u64, change: u64| {
            let changed = before.checked_add_signed(unzigzag(change))?;
            u32::try_from(changed).is_ok().then_some(changed)
        };
        for Group { template, are_v4, sent, starts, count, .. } in groups {
            for side in [0, 1] {
                let is_v4 = are_v4[side];
                let places = addresses[side].places(is_v4, starts.addresses[side], *count);
                if sent[side] != Sent::Nothing {
                    let latest = &mut ttls[side][usize::from(!is_v4)];
                    sides[side].ttl.advance(places, latest, ttl_changed)?;
                }
                if side == 1 && template.handshake_rtt_us.is_some() {
                    let latest = &mut latest_rtts[usize::from(!is_v4)];
                    handshake_rtts.advance(places, latest, rtt_changed)?;
                }
            }
        }
        Some(())
    }

    /// Fills in the next record of a group, which ends then; `None` when it would start before time did.
    #[inline]
    fn fill(&self, group: &mut Group, end_ms: u64, record: &mut Record) -> Option<()> {
        let number = group.read;
        group.read += 1;
        let starts = &group.starts;
        record.end_ms = end_ms;
        record.start_ms = if group.is_instant {
            end_ms
        } else {
            end_ms.checked_sub(self.durations[starts.durations + number])?
        };
        let [initiators, responders] = &self.addresses;
        let [initiator_v4, responder_v4] = group.are_v4;
        let at = starts.addresses.map(|at| at.map(|at| at + number));
        record.initiator = initiators.get(initiator_v4, at[0][usize::from(!initiator_v4)]);
        record.responder = responders.get(responder_v4, at[1][usize::from(!responder_v4)]);
        let at = starts.records + number;
        record.initiator_port = self.initiator_ports[at];
        record.responder_port =
            self.responder_ports.values[self.responder_ports.places[at] as usize];
        let at = starts.sides.map(|at| at.map(|at| at + number));
        self.sides[0].fill(group.sent[0], at[0], &mut record.from_initiator);
        self.sides[1].fill(group.sent[1], at[1], &mut record.from_responder);
        if let Some(rtt_us) = &mut record.handshake_rtt_us {
            *rtt_us = self.handshake_rtts.values[starts.rtts + number] as u32;
        }
        Some(())
    }
}

/// The shapes, and which record has which.
struct Groups {
    by_number: Vec<Group>,
    /// Numbers of groups, by end.
    of_record: Vec<u32>,
    /// Where the values of each kind but the last end.
    cuts: [Extent; KINDS - 1],
    totals: Extent,
}

impl Groups {
    fn read(
        unpacker: &mut Unpacker<'_>,
        count: usize,
        may_have_pseudonyms: bool,
    ) -> Result<Self, DecodeError> {
        let shape_count = unpacker.number("shapes", count, "at most one for each record")?;
        let shapes = shape::read(unpacker, shape_count, may_have_pseudonyms)?;
        let of_record: Vec<u32> = unpacker.column("shape", count)?;
        if let Some(of) = of_record.iter().find(|of| **of as usize >= shape_count) {
            return Err(unpacker.value("shape", 0, u64::from(*of), "a shape's number"));
        }
        let mut counts = vec![0; shape_count];
        for of in &of_record {
            counts[*of as usize] += 1;
        }
        let mut groups = Vec::with_capacity(shape_count);
        let (mut totals, mut cuts) = (Extent::default(), [Extent::default(); KINDS - 1]);
        let mut kind = 0;
        for ((shape, template), count) in shapes.into_iter().zip(counts) {
            if shape.kind() < kind {
                let told = shape.kind() as u64;
                return Err(unpacker.value("shape", 0, told, "in the order of kinds"));
            }
            kind = shape.kind();
            groups.push(Group {
                template,
                are_v4: shape.are_v4(),
                sent: shape.sent(),
                is_instant: shape.is_instant(),
                starts: totals,
                count,
                read: 0,
            });
            totals.add(shape, count);
            cuts.iter_mut().skip(kind).for_each(|cut| *cut = totals);
        }
        Ok(Self { by_number: groups, of_record, cuts, totals })
    }
}

/// Records, with their earliest start and their latest end if there are any.
type Ranged = (Vec<Record>, Option<(u64, u64)>);

/// Reads a column section of `count` records, which the caller has bounded. Pseudonyms are refused unless allowed.
pub(in crate::batch) fn decode(
    section: &[u8],
    count: usize,
    end_ms: u64,
    may_have_pseudonyms: bool,
) -> Result<Ranged, DecodeError> {
    let mut unpacker = Unpacker::new(section);
    let Groups { by_number: mut groups, of_record, cuts, totals } =
        Groups::read(&mut unpacker, count, may_have_pseudonyms)?;
    let span = unpacker.varint("end")?;
    let ends: Vec<u64> = unpacker.column("end", count)?;
    let mut columns = Columns::read(&mut unpacker, cuts, &totals)?;
    unpacker.end()?;
    if columns.follow_addresses(&groups).is_none() {
        let values = columns.handshake_rtts.values.len() as u64;
        return Err(unpacker.value("ttl or handshake rtt", 0, values, "one for each address"));
    }
    let mut records: Vec<Record> = Vec::with_capacity(count);
    let Some(mut end_ms) = end_ms.checked_sub(span) else {
        return Err(unpacker.value("end", 0, span, "at most the header's end_ms"));
    };
    let mut start_ms = u64::MAX;
    for (of, end) in of_record.iter().zip(&ends) {
        let Some(later_ms) = end_ms.checked_add(*end) else {
            return Err(unpacker.value("end", 0, *end, "within 64 bits with those before it"));
        };
        end_ms = later_ms;
        let group = &mut groups[*of as usize];
        // Filled in where it lies, so that it is copied once.
        records.push(group.template);
        let Some(record) = records.last_mut() else { break };
        if columns.fill(group, end_ms, record).is_none() {
            return Err(unpacker.value("duration", 0, end_ms, "at most the end time"));
        }
        start_ms = start_ms.min(record.start_ms);
    }
    let range = records.last().map(|last| (start_ms, last.end_ms));
    Ok((records, range))
}
