//! Takes records; appends their columns. Keeps the memory that it needed, and the compressor's, for the next batch.
#![expect(clippy::cast_possible_truncation, reason = "a batch has at most 65,536 records")]

use std::net::IpAddr;

use flow::{Direction, Record};

use super::dictionary::Dictionary;
use super::distinct::Distinct;
use super::numbers::Word;
use super::packer::Packer;
use super::predicted_bytes;
use super::shape::{self, Extent, KINDS, Sent, Shape};
use crate::reader::{write_varint, zigzag};

/// Makes column sections.
pub(in crate::batch) struct Encoder {
    packer: Packer,
    order: Order,
    ends: Vec<u64>,
    durations: Vec<u64>,
    handshake_rtts: Steady<u64>,
    addresses: [Addresses; 2],
    initiator_ports: Vec<u16>,
    responder_ports: Vec<u16>,
    responder_port: Dictionary<u16>,
    sides: [Side; 2],
}

/// Milliseconds of ends are sorted by their lowest bits, then by so many more: 70 minutes. What spans longer is
/// sorted another way.
const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;

/// Records whose values are taken together: so many fit the first-level cache.
const AT_HAND: usize = 64;

/// The records by end, and by shape.
#[derive(Default)]
struct Order {
    ends: Vec<u64>,
    /// Numbers of records.
    by_end: Vec<u32>,
    /// Ends, less the first one, and below them numbers: as they come, and sorted by the lowest bits of the end.
    keys: Vec<u64>,
    sorted: Vec<u64>,
    distinct: Distinct<Shape>,
    /// The number of each record's shape among the different ones.
    shape_of: Vec<u32>,
    /// Its number in the batch, by end.
    of_record: Vec<u32>,
    shapes: Vec<Shape>,
    /// Where each shape begins in `records`, and the end of the last one.
    starts: Vec<usize>,
    /// Numbers of records, those of a shape together.
    records: Vec<u32>,
    /// Where the values of each kind but the last end.
    cuts: [Extent; KINDS - 1],
}

impl Order {
    fn fill(&mut self, records: &[Record]) {
        // Once over the records: they are more than a processor's caches hold.
        self.ends.clear();
        let ends = &mut self.ends;
        let shapes = records.iter().map(|record| {
            ends.push(record.end_ms);
            Shape::of(record)
        });
        self.distinct.fill(shapes, &mut self.shape_of);
        self.by_end();
        let distinct = self.distinct.values();
        let mut ranked: Vec<_> = (0..)
            .zip(distinct)
            .map(|(number, (shape, count))| (shape.kind(), !count, number))
            .collect();
        ranked.sort_unstable();
        let mut rank_of = vec![0; distinct.len()];
        let mut next = Vec::with_capacity(distinct.len());
        self.shapes.clear();
        self.starts.clear();
        self.cuts = [Extent::default(); KINDS - 1];
        let mut start = 0;
        for (rank, (kind, _, number)) in (0..).zip(ranked) {
            let (shape, count) = distinct[number];
            rank_of[number] = rank;
            self.shapes.push(shape);
            self.starts.push(start);
            next.push(start);
            start += count as usize;
            for cut in &mut self.cuts[kind.min(KINDS - 1)..] {
                cut.add(shape, count as usize);
            }
        }
        self.starts.push(start);
        self.records.clear();
        self.records.resize(records.len(), 0);
        self.of_record.clear();
        self.of_record.extend(self.by_end.iter().map(|record| {
            let rank: u32 = rank_of[self.shape_of[*record as usize] as usize];
            let place = &mut next[rank as usize];
            self.records[*place] = *record;
            *place += 1;
            rank
        }));
    }

    /// Sorts the numbers of the records by their ends; equal ends keep their order.
    fn by_end(&mut self) {
        let first = self.ends.iter().copied().min().unwrap_or(0);
        let span = self.ends.iter().copied().max().unwrap_or(0) - first;
        let numbered = (0_u64..).zip(&self.ends);
        self.by_end.clear();
        if span >= 1 << (2 * DIGIT_BITS) {
            // A batch has at most 65,536 records.
            self.by_end.extend(0..self.ends.len() as u32);
            self.by_end.sort_by_key(|number| self.ends[*number as usize]);
            return;
        }
        self.keys.clear();
        self.keys.extend(numbered.map(|(number, end_ms)| (end_ms - first) << 16 | number));
        let digit = |key: u64, shift: u32| (key >> shift) as usize & (DIGITS - 1);
        let shifts = [16, 16 + DIGIT_BITS];
        let mut places = [[0_u32; DIGITS]; 2];
        for key in &self.keys {
            places[0][digit(*key, shifts[0])] += 1;
            places[1][digit(*key, shifts[1])] += 1;
        }
        for places in &mut places {
            let mut sum = 0;
            for place in places {
                sum += std::mem::replace(place, sum);
            }
        }
        self.sorted.resize(self.keys.len(), 0);
        for key in &self.keys {
            let place = &mut places[0][digit(*key, shifts[0])];
            self.sorted[*place as usize] = *key;
            *place += 1;
        }
        self.by_end.resize(self.keys.len(), 0);
        for key in &self.sorted {
            let place = &mut places[1][digit(*key, shifts[1])];
            self.by_end[*place as usize] = *key as u32 & 0xffff;
            *place += 1;
        }
    }

    /// Each shape, with the numbers of its records.
    fn groups(&self) -> impl Iterator<Item = (Shape, &[u32])> {
        let starts = self.starts.windows(2);
        self.shapes
            .iter()
            .zip(starts)
            .map(|(shape, start)| (*shape, &self.records[start[0]..start[1]]))
    }
}

/// The addresses of all initiators, or of all responders.
#[derive(Default)]
struct Addresses {
    v4: Vec<u32>,
    v6: Vec<u128>,
    dictionary_v4: Dictionary<u32>,
    dictionary_v6: Dictionary<u128>,
}

impl Addresses {
    fn clear(&mut self) {
        self.v4.clear();
        self.v6.clear();
    }

    /// The code of each address of this version.
    fn codes(&self, is_v4: bool) -> &[u32] {
        if is_v4 { self.dictionary_v4.codes() } else { self.dictionary_v6.codes() }
    }

    /// Room for a value of each address that occurs twice, of IPv4, then of IPv6.
    fn latest<T: Word>(&self) -> [Vec<(T, bool)>; 2] {
        let entries = [self.dictionary_v4.entries(), self.dictionary_v6.entries()];
        entries.map(|entries| vec![(T::default(), false); entries + 1])
    }

    /// Appends addresses, which are all of this version.
    #[inline]
    fn extend(&mut self, is_v4: bool, addresses: impl ExactSizeIterator<Item = IpAddr>) {
        if is_v4 {
            self.v4.extend(addresses.map(|address| match address {
                IpAddr::V4(v4) => v4.to_bits(),
                IpAddr::V6(_) => 0,
            }));
        } else {
            self.v6.extend(addresses.map(|address| match address {
                IpAddr::V4(_) => 0,
                IpAddr::V6(v6) => v6.to_bits(),
            }));
        }
    }

    fn write(&mut self, cuts: [[usize; 2]; KINDS - 1], packer: &mut Packer, out: &mut Vec<u8>) {
        self.dictionary_v4.fill(&self.v4);
        self.dictionary_v6.fill(&self.v6);
        self.dictionary_v4.write(cuts.map(|[v4, _]| v4), packer, out);
        self.dictionary_v6.write(cuts.map(|[_, v6]| v6), packer, out);
    }
}

/// Values that hardly change while the address is the same: each is the first of its address, or a change.
#[derive(Default)]
struct Steady<T> {
    /// As they are.
    values: Vec<T>,
    first: Vec<T>,
    change: Vec<T>,
}

impl<T: Word> Steady<T> {
    fn clear(&mut self) {
        self.values.clear();
        self.first.clear();
        self.change.clear();
    }

    /// Takes the next values, whose addresses have these codes, apart.
    fn follow(
        &mut self,
        start: &mut usize,
        codes: &[u32],
        latest: &mut [(T, bool)],
        change: impl Fn(T, T) -> T,
    ) {
        let values = &self.values[*start..*start + codes.len()];
        *start += codes.len();
        let (mut first_count, mut change_count) = (self.first.len(), self.change.len());
        // Whether an address is new is hard to guess: each value is written at both ends, and one of them grows.
        self.first.resize(first_count + codes.len(), T::default());
        self.change.resize(change_count + codes.len(), T::default());
        for (value, code) in values.iter().zip(codes) {
            let latest = &mut latest[*code as usize];
            let (before, is_known) = *latest;
            // An address that occurs once has code 0, and never a latest value.
            *latest = (*value, *code > 0);
            self.first[first_count] = *value;
            self.change[change_count] = change(before, *value);
            first_count += usize::from(!is_known);
            change_count += usize::from(is_known);
        }
        self.first.truncate(first_count);
        self.change.truncate(change_count);
    }

    fn write(&self, packer: &mut Packer, out: &mut Vec<u8>) {
        write_varint(out, self.first.len() as u64);
        packer.column(&self.first, out);
        packer.column(&self.change, out);
    }
}

/// What initiators sent, or responders.
#[derive(Default)]
struct Side {
    packets: Vec<u64>,
    length_min: Vec<u16>,
    spread: Vec<u16>,
    bytes: Vec<u64>,
    ttl: Steady<u8>,
    /// Lengths of sides that sent one packet.
    length: Vec<u16>,
}

impl Side {
    fn clear(&mut self) {
        self.packets.clear();
        self.length_min.clear();
        self.spread.clear();
        self.bytes.clear();
        self.ttl.clear();
        self.length.clear();
    }

    /// Appends what sides of a shape sent.
    #[inline]
    fn extend<'a>(
        &mut self,
        sent: Sent,
        sides: impl ExactSizeIterator<Item = &'a Direction> + Clone,
    ) {
        if sent == Sent::Nothing {
            return;
        }
        self.ttl.values.extend(sides.clone().map(|side| side.ttl));
        if sent == Sent::One {
            self.length.extend(sides.map(|side| side.length_min));
            return;
        }
        self.packets.extend(sides.clone().map(|side| side.packets));
        self.length_min.extend(sides.clone().map(|side| side.length_min));
        let spread = |side: &Direction| side.length_max.wrapping_sub(side.length_min);
        self.spread.extend(sides.clone().map(spread));
        self.bytes.extend(sides.map(|side| {
            let Direction { packets, length_min, length_max, bytes, .. } = *side;
            bytes.wrapping_sub(predicted_bytes(packets, length_min, length_max))
        }));
    }

    fn write(&self, cuts: [[usize; 3]; KINDS - 1], packer: &mut Packer, out: &mut Vec<u8>) {
        packer.column(&self.packets, out);
        packer.column(&self.length_min, out);
        packer.column(&self.spread, out);
        packer.column(&self.bytes, out);
        packer.pieces(&self.length, cuts.map(|[_, one, _]| one), out);
        self.ttl.write(packer, out);
    }
}

impl Encoder {
    /// `compresses` is false for measuring what the rest costs.
    pub(in crate::batch) fn new(compresses: bool) -> Self {
        Self {
            packer: Packer::new(compresses),
            order: Order::default(),
            ends: Vec::new(),
            durations: Vec::new(),
            handshake_rtts: Steady::default(),
            addresses: Default::default(),
            initiator_ports: Vec::new(),
            responder_ports: Vec::new(),
            responder_port: Dictionary::default(),
            sides: Default::default(),
        }
    }

    /// Appends the column section of at most 65,536 records, each of which ends at or after its start.
    pub(in crate::batch) fn encode(&mut self, records: &[Record], end_ms: u64, out: &mut Vec<u8>) {
        self.order.fill(records);
        let packer = &mut self.packer;
        write_varint(out, self.order.shapes.len() as u64);
        shape::write(&self.order.shapes, packer, out);
        packer.column(&self.order.of_record, out);

        let ends = self.order.by_end.iter().map(|number| self.order.ends[*number as usize]);
        let mut before = ends.clone().next().unwrap_or(end_ms);
        // The header's end is the latest one, which `check` has made sure of.
        write_varint(out, end_ms.wrapping_sub(before));
        self.ends.clear();
        self.ends.extend(ends.map(|end| end - std::mem::replace(&mut before, end)));
        packer.column(&self.ends, out);

        self.gather(records);
        let packer = &mut self.packer;
        let cuts = self.order.cuts;
        packer.pieces(&self.durations, cuts.map(|cut| cut.durations), out);
        for (side, addresses) in self.addresses.iter_mut().enumerate() {
            addresses.write(cuts.map(|cut| cut.addresses[side]), packer, out);
        }
        packer.pieces(&self.initiator_ports, cuts.map(|cut| cut.records), out);
        self.responder_port.fill(&self.responder_ports);
        self.responder_port.write(cuts.map(|cut| cut.records), packer, out);
        self.follow_addresses();
        for (number, side) in self.sides.iter().enumerate() {
            side.write(cuts.map(|cut| cut.sides[number]), &mut self.packer, out);
        }
        self.handshake_rtts.write(&mut self.packer, out);
    }

    /// Collects the values of the records, shape by shape.
    fn gather(&mut self, records: &[Record]) {
        let Self { order, durations, addresses, sides, handshake_rtts, .. } = self;
        let [initiators, responders] = addresses;
        let [from_initiator, from_responder] = sides;
        let (initiator_ports, responder_ports) =
            (&mut self.initiator_ports, &mut self.responder_ports);
        initiators.clear();
        responders.clear();
        from_initiator.clear();
        from_responder.clear();
        durations.clear();
        handshake_rtts.clear();
        initiator_ports.clear();
        responder_ports.clear();
        for (shape, numbers) in order.groups() {
            let [initiator_sent, responder_sent] = shape.sent();
            let [initiator_v4, responder_v4] = shape.are_v4();
            // Few at a time, so that they are at hand until all columns have their values.
            for numbers in numbers.chunks(AT_HAND) {
                let some = || numbers.iter().map(|number| &records[*number as usize]);
                if !shape.is_instant() {
                    durations.extend(some().map(|of| of.end_ms.wrapping_sub(of.start_ms)));
                }
                initiators.extend(initiator_v4, some().map(|of| of.initiator));
                responders.extend(responder_v4, some().map(|of| of.responder));
                initiator_ports.extend(some().map(|of| of.initiator_port));
                responder_ports.extend(some().map(|of| of.responder_port));
                from_initiator.extend(initiator_sent, some().map(|of| &of.from_initiator));
                from_responder.extend(responder_sent, some().map(|of| &of.from_responder));
                if shape.has_handshake_rtt() {
                    let rtts = some().map(|of| u64::from(of.handshake_rtt_us.unwrap_or_default()));
                    handshake_rtts.values.extend(rtts);
                }
            }
        }
    }

    /// Takes TTLs and round-trip times apart: the first of each address, and how the others differ from the latest one.
    fn follow_addresses(&mut self) {
        let Self { order, addresses, sides, handshake_rtts, .. } = self;
        let mut latest_ttls = addresses.each_ref().map(Addresses::latest);
        let mut latest_rtts = addresses[1].latest();
        // Where the next values of each column begin.
        let (mut codes_at, mut ttls_at, mut rtts_at) = ([[0; 2]; 2], [0; 2], 0);
        for (shape, numbers) in order.groups() {
            for (side, is_v4) in shape.are_v4().into_iter().enumerate() {
                let version = usize::from(!is_v4);
                let codes_at = &mut codes_at[side][version];
                let codes = &addresses[side].codes(is_v4)[*codes_at..*codes_at + numbers.len()];
                *codes_at += numbers.len();
                if shape.sent()[side] != Sent::Nothing {
                    let latest = &mut latest_ttls[side][version];
                    let change = |before: u8, ttl: u8| ttl.wrapping_sub(before);
                    sides[side].ttl.follow(&mut ttls_at[side], codes, latest, change);
                }
                if side == 1 && shape.has_handshake_rtt() {
                    let latest = &mut latest_rtts[version];
                    let change =
                        |before: u64, rtt: u64| zigzag(rtt.wrapping_sub(before).cast_signed());
                    handshake_rtts.follow(&mut rtts_at, codes, latest, change);
                }
            }
        }
    }
}
