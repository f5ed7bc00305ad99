//! Takes records; gives the column section of a batch, and the way back. Never decompresses more than the
//! record count allows.
//!
//! ```text
//! section  29 columns, in the order of COLUMNS
//! column   ┌───────────────┬────────────────┬──────────────────────────────────────────────────────┐
//!          │ plain bytes   │ stored bytes   │ as they are when both lengths are equal, else one    │
//!          │ varint        │ varint         │ zstd frame                                           │
//!          └───────────────┴────────────────┴──────────────────────────────────────────────────────┘
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flow::{Direction, EndReason, Handshake, Outer, Record, RoleEvidence};
use foldhash::fast::RandomState;

use super::dictionary::{self, Values};
use crate::reader::{DecodeError, Reader, unzigzag, write_varint, zigzag};

/// Levels above 3 gain less than 2 % on flow columns and cost twice the time.
const ZSTD_LEVEL: i32 = 3;
/// Bytes of a shape: protocol, bits, handshake, role, end reason, interface; of both directions all TCP flags, first
/// ones, the code point; the two words of the outer identity.
const SHAPE: usize = 28;
/// Those before the outer identity.
const SHAPE_FRONT: usize = 12;
/// Bytes of an address: IPv4 as `::ffff:a.b.c.d`; the shape's bits say which version it is.
const ADDRESS: usize = 16;
const PORT: usize = 2;
/// Longest varint.
const VARINT: usize = 10;

/// Name and longest plain form, in bytes a record, of each column.
const COLUMNS: [(&str, usize); 29] = [
    ("column end", VARINT),
    ("column duration", VARINT),
    ("column shape entries", SHAPE),
    ("column shape index", VARINT),
    ("column shape singles", SHAPE),
    ("column initiator entries", ADDRESS),
    ("column initiator index", VARINT),
    ("column initiator singles", ADDRESS),
    ("column responder entries", ADDRESS),
    ("column responder index", VARINT),
    ("column responder singles", ADDRESS),
    ("column initiator port entries", PORT),
    ("column initiator port index", VARINT),
    ("column initiator port singles", PORT),
    ("column responder port entries", PORT),
    ("column responder port index", VARINT),
    ("column responder port singles", PORT),
    ("column initiator packets", VARINT),
    ("column initiator length min", VARINT),
    ("column initiator length spread", VARINT),
    ("column initiator bytes", VARINT),
    ("column initiator ttl", 1),
    ("column responder packets", VARINT),
    ("column responder length min", VARINT),
    ("column responder length spread", VARINT),
    ("column responder bytes", VARINT),
    ("column responder ttl", 1),
    ("column handshake rtt low", 1),
    ("column handshake rtt high", VARINT),
];

const PORTS_KNOWN: u8 = 1;
const INITIATOR_V4: u8 = 2;
const RESPONDER_V4: u8 = 4;
const FOLDED: u8 = 8;
const INITIATOR_FRAGMENTED: u8 = 16;
const RESPONDER_FRAGMENTED: u8 = 32;
const HANDSHAKE_RTT_KNOWN: u8 = 64;
const BITS: u8 = PORTS_KNOWN
    | INITIATOR_V4
    | RESPONDER_V4
    | FOLDED
    | INITIATOR_FRAGMENTED
    | RESPONDER_FRAGMENTED
    | HANDSHAKE_RTT_KNOWN;

/// Appends the column section. Every record's end is at or after its start.
pub(super) fn encode(records: &[Record], end_ms: u64, out: &mut Vec<u8>) -> std::io::Result<()> {
    let mut columns: Vec<Vec<u8>> = Vec::with_capacity(COLUMNS.len());
    let mut ends = Vec::with_capacity(records.len() * 2);
    let mut durations = Vec::with_capacity(records.len() * 2);
    let mut previous = end_ms;
    for record in records {
        write_varint(&mut ends, zigzag(record.end_ms.wrapping_sub(previous).cast_signed()));
        write_varint(&mut durations, record.end_ms.wrapping_sub(record.start_ms));
        previous = record.end_ms;
    }
    columns.extend([ends, durations]);
    let mut push = |streams: dictionary::Streams| {
        columns.extend([streams.entries, streams.index, streams.singles]);
    };
    push(dictionary::encode(records.iter().map(shape)));
    push(dictionary::encode(records.iter().map(|r| octets(r.initiator))));
    push(dictionary::encode(records.iter().map(|r| octets(r.responder))));
    push(dictionary::encode(records.iter().map(|r| r.initiator_port.to_be_bytes())));
    push(dictionary::encode(records.iter().map(|r| r.responder_port.to_be_bytes())));
    columns.extend(encode_direction(records, |r| &r.from_initiator));
    columns.extend(encode_direction(records, |r| &r.from_responder));
    columns.extend(encode_handshake_rtts(records));

    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    for plain in &columns {
        let compressed = compressor.compress(plain)?;
        let stored = if compressed.len() < plain.len() { &compressed } else { plain };
        write_varint(out, length(plain));
        write_varint(out, length(stored));
        out.extend_from_slice(stored);
    }
    Ok(())
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn shape(record: &Record) -> [u8; SHAPE] {
    let mut bits = 0;
    for (set, bit) in [
        (record.ports_known, PORTS_KNOWN),
        (record.initiator.is_ipv4(), INITIATOR_V4),
        (record.responder.is_ipv4(), RESPONDER_V4),
        (record.folded, FOLDED),
        (record.from_initiator.fragmented, INITIATOR_FRAGMENTED),
        (record.from_responder.fragmented, RESPONDER_FRAGMENTED),
        (record.handshake_rtt_us.is_some(), HANDSHAKE_RTT_KNOWN),
    ] {
        bits |= if set { bit } else { 0 };
    }
    let mut shape = [0; SHAPE];
    let (front, outer) = shape.split_at_mut(SHAPE_FRONT);
    let (initiator, responder) = (&record.from_initiator, &record.from_responder);
    front.copy_from_slice(&[
        record.protocol,
        bits,
        record.handshake as u8,
        record.role as u8,
        record.end_reason as u8,
        record.interface,
        initiator.tcp_flags,
        initiator.first_flags,
        initiator.dscp,
        responder.tcp_flags,
        responder.first_flags,
        responder.dscp,
    ]);
    let (layers, ids) = outer.split_at_mut(8);
    layers.copy_from_slice(&record.outer.layers.to_le_bytes());
    ids.copy_from_slice(&record.outer.ids.to_le_bytes());
    shape
}

fn octets(address: IpAddr) -> [u8; ADDRESS] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// What the bytes of a direction are when all packets but the longest have the least length; wraps, because
/// only the difference from it is kept.
fn predicted_bytes(packets: u64, length_min: u16, length_max: u16) -> u64 {
    match packets.checked_sub(1) {
        None => 0,
        Some(others) => {
            others.wrapping_mul(u64::from(length_min)).wrapping_add(u64::from(length_max))
        }
    }
}

fn encode_direction(records: &[Record], side: fn(&Record) -> &Direction) -> [Vec<u8>; 5] {
    let mut columns: [Vec<u8>; 5] = std::array::from_fn(|_| Vec::with_capacity(records.len() * 2));
    let [packets, length_min, spread, bytes, ttl] = &mut columns;
    for direction in records.iter().map(side) {
        let predicted =
            predicted_bytes(direction.packets, direction.length_min, direction.length_max);
        write_varint(packets, direction.packets);
        write_varint(length_min, u64::from(direction.length_min));
        let between = i64::from(direction.length_max) - i64::from(direction.length_min);
        write_varint(spread, zigzag(between));
        write_varint(bytes, zigzag(direction.bytes.wrapping_sub(predicted).cast_signed()));
        ttl.push(direction.ttl);
    }
    columns
}

/// The latest round-trip time of each responder: the next one hardly differs from it.
type LatestRtts = HashMap<IpAddr, u32, RandomState>;

/// Of each record that has one: how much it differs from the latest of the same responder, at first from 0. The lowest
/// byte, which nothing shortens, and the rest, which is mostly 0.
fn encode_handshake_rtts(records: &[Record]) -> [Vec<u8>; 2] {
    let mut latest = LatestRtts::default();
    let mut columns = [const { Vec::new() }; 2];
    let [low, high] = &mut columns;
    for record in records {
        if let Some(rtt_us) = record.handshake_rtt_us {
            let before_us = latest.insert(record.responder, rtt_us).unwrap_or(0);
            let difference = zigzag(i64::from(rtt_us) - i64::from(before_us));
            let [lowest, ..] = difference.to_le_bytes();
            low.push(lowest);
            write_varint(high, difference >> 8);
        }
    }
    columns
}

fn decode_handshake_rtt(
    [low, high]: &mut [Reader<'_>; 2],
    latest: &mut LatestRtts,
    responder: IpAddr,
) -> Result<u32, DecodeError> {
    let latest_us = latest.entry(responder).or_insert(0);
    let lowest = low.u8("handshake rtt")?;
    let offset = high.offset();
    let told = high.varint("handshake rtt")?;
    let rtt_us = told
        .checked_mul(0x100)
        .and_then(|rest| i64::from(*latest_us).checked_add(unzigzag(rest | u64::from(lowest))))
        .and_then(|rtt_us| u32::try_from(rtt_us).ok())
        .ok_or_else(|| high.value_at("handshake rtt", offset, told, "within 0 to 4294967295"))?;
    *latest_us = rtt_us;
    Ok(rtt_us)
}

/// Reads a column section of `count` records, which the caller has bounded.
pub(super) fn decode(
    section: &[u8],
    count: usize,
    end_ms: u64,
) -> Result<Vec<Record>, DecodeError> {
    let columns = decompress(section, count)?;
    let column = |number: usize| Reader::new(COLUMNS[number].0, &columns[number]);
    let names = |n: usize| [COLUMNS[n].0, COLUMNS[n + 1].0, COLUMNS[n + 2].0];
    let mut ends = column(0);
    let mut durations = column(1);
    let mut shapes = Values::<SHAPE>::new(names(2), &columns[2], &columns[3], &columns[4])?;
    let mut initiators = Values::<ADDRESS>::new(names(5), &columns[5], &columns[6], &columns[7])?;
    let mut responders = Values::<ADDRESS>::new(names(8), &columns[8], &columns[9], &columns[10])?;
    let mut initiator_ports =
        Values::<PORT>::new(names(11), &columns[11], &columns[12], &columns[13])?;
    let mut responder_ports =
        Values::<PORT>::new(names(14), &columns[14], &columns[15], &columns[16])?;
    let mut from_initiator: [Reader<'_>; 5] = std::array::from_fn(|n| column(17 + n));
    let mut from_responder: [Reader<'_>; 5] = std::array::from_fn(|n| column(22 + n));
    let mut handshake_rtts: [Reader<'_>; 2] = std::array::from_fn(|n| column(27 + n));
    let mut latest_rtts = LatestRtts::default();

    let mut records = Vec::with_capacity(count);
    let mut previous = end_ms;
    for _ in 0..count {
        let end_ms = previous.wrapping_add_signed(unzigzag(ends.varint("end")?));
        previous = end_ms;
        let offset = durations.offset();
        let duration = durations.varint("duration")?;
        let start_ms = end_ms.checked_sub(duration).ok_or_else(|| {
            durations.value_at("duration", offset, duration, "at most the end time")
        })?;
        let mut record = decode_shape(shapes.value()?)?;
        record.start_ms = start_ms;
        record.end_ms = end_ms;
        record.initiator = address(initiators.value()?, record.initiator, COLUMNS[5].0)?;
        record.responder = address(responders.value()?, record.responder, COLUMNS[8].0)?;
        record.initiator_port = u16::from_be_bytes(initiator_ports.value()?);
        record.responder_port = u16::from_be_bytes(responder_ports.value()?);
        decode_direction(&mut from_initiator, &mut record.from_initiator)?;
        decode_direction(&mut from_responder, &mut record.from_responder)?;
        if let Some(rtt_us) = &mut record.handshake_rtt_us {
            let responder = record.responder;
            *rtt_us = decode_handshake_rtt(&mut handshake_rtts, &mut latest_rtts, responder)?;
        }
        records.push(record);
    }
    ends.end()?;
    durations.end()?;
    shapes.end()?;
    initiators.end()?;
    responders.end()?;
    initiator_ports.end()?;
    responder_ports.end()?;
    from_initiator.iter().chain(&from_responder).try_for_each(Reader::end)?;
    handshake_rtts.iter().try_for_each(Reader::end)?;
    Ok(records)
}

fn decompress(section: &[u8], count: usize) -> Result<Vec<Vec<u8>>, DecodeError> {
    const PLACE: &str = "column section";
    let mut reader = Reader::new(PLACE, section);
    let mut decompressor = zstd::bulk::Decompressor::new()
        .map_err(|error| reader.malformed_at("zstd", 0, error.to_string()))?;
    let mut columns = Vec::with_capacity(COLUMNS.len());
    for (name, width) in COLUMNS {
        let offset = reader.offset();
        let plain = reader.varint(name)?;
        let plain_length =
            usize::try_from(plain).ok().filter(|length| *length <= count * width).ok_or_else(
                || reader.value_at(name, offset, plain, "a length that the record count allows"),
            )?;
        let stored = reader.varint(name)?;
        let stored_length =
            usize::try_from(stored).ok().filter(|length| *length <= plain_length).ok_or_else(
                || reader.value_at(name, offset, stored, "at most as long as the plain form"),
            )?;
        let bytes = reader.take(name, stored_length)?;
        if stored_length == plain_length {
            columns.push(bytes.to_vec());
            continue;
        }
        let column = decompressor
            .decompress(bytes, plain_length)
            .map_err(|error| reader.malformed_at(name, offset, format!("zstd: {error}")))?;
        if column.len() != plain_length {
            let got = length(&column);
            return Err(reader.value_at(name, offset, got, "as long as its plain length says"));
        }
        columns.push(column);
    }
    reader.end()?;
    Ok(columns)
}

/// A record with what the shape says; its addresses are the unspecified ones of the right versions.
fn decode_shape(shape: [u8; SHAPE]) -> Result<Record, DecodeError> {
    let reader = Reader::new("shape", &shape);
    let unknown = |field, offset, value: u8| {
        reader.value_at(field, offset, u64::from(value), "a known number")
    };
    let [protocol, bits, handshake, role, end_reason, interface, directions @ ..] = shape;
    let [flags, first, dscp, flags_back, first_back, dscp_back, outer @ ..] = directions;
    if bits & !BITS != 0 {
        return Err(unknown("bits", 1, bits));
    }
    if interface > Record::INTERFACE_MAX {
        return Err(reader.value_at("interface", 5, u64::from(interface), "at most 7"));
    }
    for (offset, dscp) in [(8, dscp), (11, dscp_back)] {
        if dscp > Direction::DSCP_MAX {
            return Err(reader.value_at("dscp", offset, u64::from(dscp), "at most 63"));
        }
    }
    let direction = |tcp_flags, first_flags, dscp, fragmented| Direction {
        tcp_flags,
        first_flags,
        dscp,
        fragmented: bits & fragmented != 0,
        ..Direction::default()
    };
    let unspecified = |bit| {
        if bits & bit != 0 {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        }
    };
    let (words, _) = outer.as_chunks::<8>();
    let [layers, ids] = [0, 1].map(|at| words.get(at).copied().map_or(0, u64::from_le_bytes));
    let outer = Outer { layers, ids };
    if !outer.is_valid() {
        return Err(reader.value_at(
            "outer identity",
            SHAPE_FRONT,
            layers,
            "one that a frame can have",
        ));
    }
    Ok(Record {
        start_ms: 0,
        end_ms: 0,
        initiator: unspecified(INITIATOR_V4),
        responder: unspecified(RESPONDER_V4),
        initiator_port: 0,
        responder_port: 0,
        protocol,
        ports_known: bits & PORTS_KNOWN != 0,
        outer,
        from_initiator: direction(flags, first, dscp, INITIATOR_FRAGMENTED),
        from_responder: direction(flags_back, first_back, dscp_back, RESPONDER_FRAGMENTED),
        handshake: Handshake::try_from(handshake).map_err(|n| unknown("handshake", 2, n))?,
        handshake_rtt_us: (bits & HANDSHAKE_RTT_KNOWN != 0).then_some(0),
        interface,
        role: RoleEvidence::try_from(role).map_err(|n| unknown("role", 3, n))?,
        end_reason: EndReason::try_from(end_reason).map_err(|n| unknown("end reason", 4, n))?,
        folded: bits & FOLDED != 0,
    })
}

/// The address in these octets, of the version that `version` has.
fn address(
    octets: [u8; ADDRESS],
    version: IpAddr,
    place: &'static str,
) -> Result<IpAddr, DecodeError> {
    let v6 = Ipv6Addr::from(octets);
    if version.is_ipv6() {
        return Ok(IpAddr::V6(v6));
    }
    v6.to_ipv4_mapped().map(IpAddr::V4).ok_or_else(|| {
        let reason = format!("{v6} is not an IPv4-mapped address, but its shape says IPv4");
        Reader::new(place, &[]).malformed_at("address", 0, reason)
    })
}

fn decode_direction(
    columns: &mut [Reader<'_>; 5],
    direction: &mut Direction,
) -> Result<(), DecodeError> {
    let [packets, length_min, spread, bytes, ttl] = columns;
    direction.packets = packets.varint("packets")?;
    let offset = length_min.offset();
    let least = length_min.varint("length")?;
    direction.length_min = u16::try_from(least)
        .map_err(|_large| length_min.value_at("length", offset, least, "at most 65535"))?;
    let offset = spread.offset();
    let folded = spread.varint("spread")?;
    direction.length_max = i64::from(direction.length_min)
        .checked_add(unzigzag(folded))
        .and_then(|most| u16::try_from(most).ok())
        .ok_or_else(|| spread.value_at("spread", offset, folded, "within 0 to 65535"))?;
    let predicted = predicted_bytes(direction.packets, direction.length_min, direction.length_max);
    direction.bytes = predicted.wrapping_add_signed(unzigzag(bytes.varint("bytes")?));
    direction.ttl = ttl.u8("ttl")?;
    Ok(())
}
