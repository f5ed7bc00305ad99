//! Takes records; gives the column section of a batch, and the way back. Never decompresses more than the
//! record count allows.
//!
//! ```text
//! section  27 columns, in the order of COLUMNS
//! column   ┌───────────────┬────────────────┬──────────────────────────────────────────────────────┐
//!          │ plain bytes   │ stored bytes   │ as they are when both lengths are equal, else one    │
//!          │ varint        │ varint         │ zstd frame                                           │
//!          └───────────────┴────────────────┴──────────────────────────────────────────────────────┘
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flow::{Direction, EndReason, Handshake, Record, RoleEvidence, Vlans};

use super::dictionary::{self, Values};
use crate::reader::{DecodeError, Reader, unzigzag, write_varint, zigzag};

/// Levels above 3 gain less than 2 % on flow columns and cost twice the time.
const ZSTD_LEVEL: i32 = 3;
/// Bytes of a shape: protocol, bits, handshake, role, end reason, both TCP flags, two VLAN tags.
const SHAPE: usize = 11;
/// Bytes of an address: IPv4 as `::ffff:a.b.c.d`; the shape's bits say which version it is.
const ADDRESS: usize = 16;
const PORT: usize = 2;
/// Longest varint.
const VARINT: usize = 10;

/// Name and longest plain form, in bytes a record, of each column.
const COLUMNS: [(&str, usize); 27] = [
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
];

const PORTS_KNOWN: u8 = 1;
const INITIATOR_V4: u8 = 2;
const RESPONDER_V4: u8 = 4;

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
    ] {
        bits |= if set { bit } else { 0 };
    }
    let [outer, inner] = record.vlans.0.map(u16::to_le_bytes);
    [
        record.protocol,
        bits,
        record.handshake as u8,
        record.role as u8,
        record.end_reason as u8,
        record.from_initiator.tcp_flags,
        record.from_responder.tcp_flags,
        outer[0],
        outer[1],
        inner[0],
        inner[1],
    ]
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
    let [protocol, bits, handshake, role, end_reason, flags, flags_back, vlans @ ..] = shape;
    if bits & !(PORTS_KNOWN | INITIATOR_V4 | RESPONDER_V4) != 0 {
        return Err(unknown("bits", 1, bits));
    }
    let unspecified = |bit| {
        if bits & bit != 0 {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        }
    };
    Ok(Record {
        start_ms: 0,
        end_ms: 0,
        initiator: unspecified(INITIATOR_V4),
        responder: unspecified(RESPONDER_V4),
        initiator_port: 0,
        responder_port: 0,
        protocol,
        ports_known: bits & PORTS_KNOWN != 0,
        vlans: Vlans([
            u16::from_le_bytes([vlans[0], vlans[1]]),
            u16::from_le_bytes([vlans[2], vlans[3]]),
        ]),
        from_initiator: Direction { tcp_flags: flags, ..Direction::default() },
        from_responder: Direction { tcp_flags: flags_back, ..Direction::default() },
        handshake: Handshake::try_from(handshake).map_err(|n| unknown("handshake", 2, n))?,
        role: RoleEvidence::try_from(role).map_err(|n| unknown("role", 3, n))?,
        end_reason: EndReason::try_from(end_reason).map_err(|n| unknown("end reason", 4, n))?,
        folded: false,
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
