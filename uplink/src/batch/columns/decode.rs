//! Takes a column section; gives the records. Never allocates by what the bytes claim: the record count, which
//! the caller has bounded, bounds every column.
#![expect(
    clippy::cast_possible_truncation,
    reason = "a batch has at most 65,536 records; wider values were checked"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flow::{Direction, Record};

use super::dictionary;
use super::numbers::Word;
use super::predicted_bytes;
use super::shape::{self, Extent, KINDS, Sent, Shape};
use super::unpacker::Unpacker;
use crate::reader::{DecodeError, unzigzag};

/// Where the next record of a shape has its values in each column.
type Cursors = [u32; CURSORS];
const DURATION: usize = 0;
const INITIATOR: usize = 1;
const RESPONDER: usize = 2;
const PORTS: usize = 3;
const RTT: usize = 4;
/// Of each side: what many packets say, a length, a TTL.
const MANY: [usize; 2] = [5, 8];
const LENGTH: [usize; 2] = [6, 9];
const TTL: [usize; 2] = [7, 10];
/// The last one is not in use: four are advanced at once.
const CURSORS: usize = 12;

/// A shape, while its records are read.
struct Group {
    template: Record,
    are_v4: [bool; 2],
    sent: [Sent; 2],
    is_instant: bool,
    /// Where its values begin in each column.
    starts: Extent,
    count: usize,
    at: Cursors,
    /// 1 where each record has a value of its own, 0 where all have the same one.
    step: Cursors,
}

impl Group {
    fn new(shape: Shape, template: Record, starts: Extent, count: usize) -> Self {
        Self {
            template,
            are_v4: shape.are_v4(),
            sent: shape.sent(),
            is_instant: shape.is_instant(),
            starts,
            count,
            at: [0; CURSORS],
            step: [0; CURSORS],
        }
    }

    /// Sets the cursors. What a shape says lies behind the values of all records, see [`Columns`]: so every record is
    /// filled in the same way, and a processor has nothing to guess.
    fn set_out(&mut self, totals: &Extent) {
        let Self { template, are_v4, sent, is_instant, starts, at, step, .. } = self;
        let mut set = |cursor: usize, is_own: bool, place: usize| {
            at[cursor] = place as u32;
            step[cursor] = u32::from(is_own);
        };
        let own_or = |is_own: bool, own: usize, same: usize| if is_own { own } else { same };
        set(DURATION, !*is_instant, own_or(!*is_instant, starts.durations, totals.durations));
        set(PORTS, true, starts.records);
        let has_rtt = template.handshake_rtt_us.is_some();
        set(RTT, has_rtt, own_or(has_rtt, starts.rtts, totals.rtts));
        for (side, cursor) in [INITIATOR, RESPONDER].into_iter().enumerate() {
            set(cursor, true, address_start(starts, totals, side, are_v4[side]));
            let [any, one, many] = starts.sides[side];
            let [any_end, one_end, many_end] = totals.sides[side];
            let (many, length, any) = match sent[side] {
                Sent::Nothing => (many_end, many_end + one_end, any_end),
                Sent::One => (many_end + 1, many_end + one, any),
                Sent::Many => (many, many, any),
            };
            set(MANY[side], sent[side] == Sent::Many, many);
            set(LENGTH[side], sent[side] != Sent::Nothing, length);
            set(TTL[side], sent[side] != Sent::Nothing, any);
        }
    }
}

/// Where the places of the addresses of a shape's records begin.
fn address_start(starts: &Extent, totals: &Extent, side: usize, is_v4: bool) -> usize {
    let [v4, v6] = starts.addresses[side];
    if is_v4 { v4 } else { totals.addresses[side][0] + v6 }
}

/// The addresses of all initiators, or of all responders.
struct Addresses {
    /// First those of IPv4.
    values: Vec<IpAddr>,
    /// The place of each record's address among them, likewise.
    places: Vec<u32>,
}

impl Addresses {
    fn read(
        unpacker: &mut Unpacker<'_>,
        [v4, v6]: [&'static str; 2],
        cuts: [[usize; 2]; KINDS - 1],
        [count_v4, count_v6]: [usize; 2],
    ) -> Result<Self, DecodeError> {
        let mut places = vec![0; count_v4 + count_v6];
        let (places_v4, places_v6) = places.split_at_mut(count_v4);
        let cuts_v4 = cuts.map(|[v4, _]| v4);
        let v4: Vec<u32> = dictionary::read(unpacker, v4, cuts_v4, 0, places_v4)?;
        let cuts_v6 = cuts.map(|[_, v6]| v6);
        let v6: Vec<u128> = dictionary::read(unpacker, v6, cuts_v6, v4.len(), places_v6)?;
        let mut values = Vec::with_capacity(v4.len() + v6.len());
        values.extend(v4.into_iter().map(|v4| IpAddr::V4(Ipv4Addr::from_bits(v4))));
        values.extend(v6.into_iter().map(|v6| IpAddr::V6(Ipv6Addr::from_bits(v6))));
        Ok(Self { values, places })
    }

    #[inline]
    fn get(&self, at: u32) -> IpAddr {
        self.values[self.places[at as usize] as usize]
    }
}

/// Values that hardly change while the address is the same.
#[derive(Default)]
struct Steady<T> {
    /// The first ones of an address, then what changed.
    read: Vec<T>,
    first: usize,
    next_first: usize,
    next_change: usize,
    /// In the order of records by shape, in the end a 0.
    values: Vec<T>,
}

impl<T: Word> Steady<T> {
    fn read(
        unpacker: &mut Unpacker<'_>,
        name: &'static str,
        count: usize,
    ) -> Result<Self, DecodeError> {
        let first = unpacker.number(name, count, "at most the number of values")?;
        let mut read = vec![T::default(); count];
        let (first_values, change) = read.split_at_mut(first);
        unpacker.fill(name, first_values)?;
        unpacker.fill(name, change)?;
        let values = Vec::with_capacity(count + 1);
        Ok(Self { read, first, next_first: 0, next_change: first, values })
    }

    /// Puts the values of some records together. `latest` has the latest one of each address, and whether there is one.
    fn advance(&mut self, places: &[u32], latest: &mut [(T, bool)], changed: impl Fn(T, T) -> T) {
        let Self { read, next_first, next_change, values, .. } = self;
        values.extend(places.iter().map(|place| {
            let latest = &mut latest[*place as usize];
            let (before, is_known) = *latest;
            // Whether an address is new is hard to guess, so that nothing is to depend on a guess.
            let at = if is_known { *next_change } else { *next_first };
            *next_change += usize::from(is_known);
            *next_first += usize::from(!is_known);
            // `end` tells when there are too few.
            let read = read.get(at).copied().unwrap_or_default();
            let value = if is_known { changed(before, read) } else { read };
            *latest = (value, true);
            value
        }));
    }

    /// Whether as many were read as the addresses need.
    fn end(&mut self) -> bool {
        self.values.push(T::default());
        (self.next_first, self.next_change) == (self.first, self.read.len())
    }
}

/// What initiators sent, or responders.
struct Side {
    /// These three of sides that sent many packets, then of one that sent nothing, then of one that sent one.
    packets: Vec<u64>,
    spread: Vec<u16>,
    bytes: Vec<u64>,
    /// Of sides that sent many packets, then of those that sent one, in the end a 0.
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
        let mut side = Self {
            packets: vec![0; many + 2],
            spread: vec![0; many + 2],
            bytes: vec![0; many + 2],
            length: vec![0; many + one + 1],
            ttl: Steady::default(),
        };
        side.packets[many + 1] = 1;
        unpacker.fill(packets, &mut side.packets[..many])?;
        unpacker.fill(length_min, &mut side.length[..many])?;
        unpacker.fill(spread, &mut side.spread[..many])?;
        unpacker.fill(bytes, &mut side.bytes[..many])?;
        let lengths = &mut side.length[many..many + one];
        unpacker.pieces(length, cuts.map(|[_, one, _]| one), lengths)?;
        side.ttl = Steady::read(unpacker, ttl, any)?;
        Ok(side)
    }

    /// What a record's side sent.
    #[expect(clippy::inline_always, reason = "called twice a record")]
    #[inline(always)]
    fn get(&self, at: &Cursors, side: usize, template: &Direction) -> Direction {
        let many = at[MANY[side]] as usize;
        let packets = self.packets[many];
        let length_min = self.length[at[LENGTH[side]] as usize];
        let length_max = length_min.wrapping_add(self.spread[many]);
        let predicted = predicted_bytes(packets, length_min, length_max);
        Direction {
            packets,
            bytes: predicted.wrapping_add(self.bytes[many]),
            ttl: self.ttl.values[at[TTL[side]] as usize],
            length_min,
            length_max,
            ..*template
        }
    }
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

/// Every column but those of shapes and ends. Behind the values of records lie those that a shape says.
struct Columns {
    /// In the end a 0.
    durations: Vec<u64>,
    addresses: [Addresses; 2],
    initiator_ports: Vec<u16>,
    responder_ports: Vec<u16>,
    /// The place of each record's port among them.
    responder_port_places: Vec<u32>,
    sides: [Side; 2],
    handshake_rtts: Steady<u64>,
}

impl Columns {
    fn read(
        unpacker: &mut Unpacker<'_>,
        cuts: [Extent; KINDS - 1],
        totals: &Extent,
    ) -> Result<Self, DecodeError> {
        let mut durations = vec![0; totals.durations + 1];
        let at = cuts.map(|cut| cut.durations);
        unpacker.pieces("duration", at, &mut durations[..totals.durations])?;
        let names = ["initiator v4", "initiator v6"];
        let at = cuts.map(|cut| cut.addresses[0]);
        let initiators = Addresses::read(unpacker, names, at, totals.addresses[0])?;
        let names = ["responder v4", "responder v6"];
        let at = cuts.map(|cut| cut.addresses[1]);
        let responders = Addresses::read(unpacker, names, at, totals.addresses[1])?;
        let at = cuts.map(|cut| cut.records);
        let mut initiator_ports = vec![0; totals.records];
        unpacker.pieces("initiator port", at, &mut initiator_ports)?;
        let mut responder_port_places = vec![0; totals.records];
        let responder_ports =
            dictionary::read(unpacker, "responder port", at, 0, &mut responder_port_places)?;
        let sides = [
            Side::read(unpacker, SIDES[0], cuts.map(|cut| cut.sides[0]), totals.sides[0])?,
            Side::read(unpacker, SIDES[1], cuts.map(|cut| cut.sides[1]), totals.sides[1])?,
        ];
        Ok(Self {
            durations,
            addresses: [initiators, responders],
            initiator_ports,
            responder_ports,
            responder_port_places,
            sides,
            handshake_rtts: Steady::read(unpacker, "handshake rtt", totals.rtts)?,
        })
    }

    /// Puts TTLs and round-trip times together; false when there are not as many as their addresses need, or when a
    /// time has more than 32 bits.
    fn follow_addresses(&mut self, groups: &[Group], totals: &Extent) -> bool {
        let Self { addresses, sides, handshake_rtts, .. } = self;
        let mut ttls = addresses.each_ref().map(|of| vec![(0, false); of.values.len()]);
        let mut latest_rtts = vec![(0, false); addresses[1].values.len()];
        for Group { template, are_v4, sent, starts, count, .. } in groups {
            for side in [0, 1] {
                let start = address_start(starts, totals, side, are_v4[side]);
                let places = &addresses[side].places[start..start + count];
                if sent[side] != Sent::Nothing {
                    sides[side].ttl.advance(places, &mut ttls[side], u8::wrapping_add);
                }
                if side == 1 && template.handshake_rtt_us.is_some() {
                    // Both below 0 and above 32 bits leave upper bits.
                    handshake_rtts.advance(places, &mut latest_rtts, |before: u64, change| {
                        before.wrapping_add(unzigzag(change).cast_unsigned())
                    });
                }
            }
        }
        let all_rtts = handshake_rtts.values.iter().fold(0, |all, rtt| all | rtt);
        sides.iter_mut().fold(handshake_rtts.end(), |ends, side| ends & side.ttl.end())
            && u32::try_from(all_rtts).is_ok()
    }

    /// The next record of a group, which ends then. Its start lies behind its end when it would be before time began.
    #[expect(clippy::inline_always, reason = "called for each record, in one place")]
    #[inline(always)]
    fn record(&self, group: &mut Group, end_ms: u64) -> Record {
        let Group { at, step, template, .. } = group;
        let responder_port = self.responder_port_places[at[PORTS] as usize];
        let rtt_us = self.handshake_rtts.values[at[RTT] as usize] as u32;
        let record = Record {
            start_ms: end_ms.wrapping_sub(self.durations[at[DURATION] as usize]),
            end_ms,
            initiator: self.addresses[0].get(at[INITIATOR]),
            responder: self.addresses[1].get(at[RESPONDER]),
            initiator_port: self.initiator_ports[at[PORTS] as usize],
            responder_port: self.responder_ports[responder_port as usize],
            from_initiator: self.sides[0].get(at, 0, &template.from_initiator),
            from_responder: self.sides[1].get(at, 1, &template.from_responder),
            handshake_rtt_us: template.handshake_rtt_us.map(|_| rtt_us),
            ..*template
        };
        for (at, step) in at.iter_mut().zip(step) {
            *at = at.wrapping_add(*step);
        }
        record
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
            groups.push(Group::new(shape, template, totals, count));
            totals.add(shape, count);
            cuts.iter_mut().skip(kind).for_each(|cut| *cut = totals);
        }
        for group in &mut groups {
            group.set_out(&totals);
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
    let mut ends: Vec<u64> = unpacker.column("end", count)?;
    let mut columns = Columns::read(&mut unpacker, cuts, &totals)?;
    unpacker.end()?;
    if !columns.follow_addresses(&groups, &totals) {
        let values = columns.handshake_rtts.values.len() as u64;
        let expected = "one of 32 bits for each address";
        return Err(unpacker.value("ttl or handshake rtt", 0, values, expected));
    }
    let Some(mut end_ms) = end_ms.checked_sub(span) else {
        return Err(unpacker.value("end", 0, span, "at most the header's end_ms"));
    };
    for end in &mut ends {
        let Some(later_ms) = end_ms.checked_add(*end) else {
            return Err(unpacker.value("end", 0, *end, "within 64 bits with those before it"));
        };
        (*end, end_ms) = (later_ms, later_ms);
    }
    let mut start_ms = u64::MAX;
    let mut is_backwards = false;
    let mut records: Vec<Record> = Vec::with_capacity(count);
    records.extend(of_record.iter().zip(&ends).map(|(of, end_ms)| {
        let record = columns.record(&mut groups[*of as usize], *end_ms);
        is_backwards |= record.start_ms > record.end_ms;
        start_ms = start_ms.min(record.start_ms);
        record
    }));
    let mut backwards = records.iter().filter(|record| record.start_ms > record.end_ms);
    if let Some(Record { end_ms, .. }) = is_backwards.then(|| backwards.next()).flatten() {
        return Err(unpacker.value("duration", 0, *end_ms, "at most the end time"));
    }
    let range = records.last().map(|last| (start_ms, last.end_ms));
    Ok((records, range))
}
