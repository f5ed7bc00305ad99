//! Takes a batch header; gives its bytes, and the way back. Never reads behind the header.
//!
//! ```text
//! member        u8 length, text            object    32 bytes, SHA-256
//! sensor        u8 length, text            previous  32 bytes, BLAKE3
//! boot epoch    u64                        version   u8 length, text
//! sequence      u64                        known     u8: bit 0 nic_received, bit 1 nic_missed, bit 2 key epoch
//! start_ms      u64                        books     16 x u64, in the order of flow::Books; 0 where unknown
//! end_ms        u64                        key epoch u32; 0 where there is none
//! sealed_ms     u64
//! records       u32
//! ```
//!
//! The left column comes first, from top to bottom, then the right one.

use flow::Books;

use super::{BatchHeader, RECORDS_MAX, SENSOR_VERSION_LENGTH_MAX};
use crate::IdError;
use crate::reader::{DecodeError, Reader};

const PLACE: &str = "batch header";

/// Appends the header. The caller has checked that the sensor version is at most 64 bytes long.
pub(super) fn encode(header: &BatchHeader, out: &mut Vec<u8>) {
    text(header.member.as_str(), out);
    text(header.sensor.as_str(), out);
    for number in
        [header.boot_epoch, header.sequence, header.start_ms, header.end_ms, header.sealed_ms]
    {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&header.records.to_le_bytes());
    out.extend_from_slice(&header.object_sha256);
    out.extend_from_slice(&header.previous_blake3);
    text(&header.sensor_version, out);
    // Named one by one, so that a new field of Books cannot be forgotten here.
    let Books {
        nic_received,
        nic_missed,
        frames_seen,
        packets_ip,
        packets_not_ip,
        packets_malformed,
        packets_in_flows,
        packets_folded,
        packets_duplicate,
        records_out,
        records_sealed,
        records_evicted,
        records_kept_internal,
        records_kept_trusted,
        packets_kept_internal,
        packets_kept_trusted,
    } = header.books;
    let known = [nic_received.is_some(), nic_missed.is_some(), header.key_epoch.is_some()];
    out.push(known.into_iter().rev().fold(0, |bits, is_known| bits << 1 | u8::from(is_known)));
    for number in [
        nic_received.unwrap_or(0),
        nic_missed.unwrap_or(0),
        frames_seen,
        packets_ip,
        packets_not_ip,
        packets_malformed,
        packets_in_flows,
        packets_folded,
        packets_duplicate,
        records_out,
        records_sealed,
        records_evicted,
        records_kept_internal,
        records_kept_trusted,
        packets_kept_internal,
        packets_kept_trusted,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&header.key_epoch.unwrap_or(0).to_le_bytes());
}

fn text(text: &str, out: &mut Vec<u8>) {
    // Names have at most 64 bytes, and so has the version.
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
}

/// Reads a header.
pub(super) fn decode(bytes: &[u8]) -> Result<BatchHeader, DecodeError> {
    let mut reader = Reader::new(PLACE, bytes);
    let mut header = BatchHeader {
        member: name(&mut reader, "member")?,
        sensor: name(&mut reader, "sensor")?,
        boot_epoch: reader.u64("boot epoch")?,
        sequence: sequence(&mut reader)?,
        start_ms: reader.u64("start_ms")?,
        end_ms: reader.u64("end_ms")?,
        sealed_ms: reader.u64("sealed_ms")?,
        records: records(&mut reader)?,
        object_sha256: reader.array("object")?,
        previous_blake3: reader.array("previous")?,
        sensor_version: version(&mut reader)?,
        books: Books::default(),
        key_epoch: None,
    };
    let offset = reader.offset();
    let known = reader.u8("known")?;
    if known > 7 {
        return Err(reader.value_at("known", offset, u64::from(known), "a set of three bits"));
    }
    header.books = books(&mut reader, known)?;
    header.key_epoch = key_epoch(&mut reader, known & 4 != 0)?;
    reader.end()?;
    Ok(header)
}

fn name<T: std::str::FromStr<Err = IdError>>(
    reader: &mut Reader<'_>,
    field: &'static str,
) -> Result<T, DecodeError> {
    let offset = reader.offset();
    let text = reader.text_u8(field)?;
    text.parse().map_err(|error: IdError| reader.malformed_at(field, offset, error.to_string()))
}

fn sequence(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let offset = reader.offset();
    let sequence = reader.u64("sequence")?;
    if sequence == 0 {
        return Err(reader.value_at("sequence", offset, 0, "at least 1"));
    }
    Ok(sequence)
}

fn records(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    let offset = reader.offset();
    let records = reader.u32("records")?;
    if records > RECORDS_MAX {
        return Err(reader.value_at("records", offset, u64::from(records), "at most 65536"));
    }
    Ok(records)
}

fn version(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let offset = reader.offset();
    let text = reader.text_u8("version")?;
    if text.len() > SENSOR_VERSION_LENGTH_MAX {
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        return Err(reader.value_at("version length", offset, length, "at most 64"));
    }
    Ok(text.to_owned())
}

fn key_epoch(reader: &mut Reader<'_>, is_there: bool) -> Result<Option<u32>, DecodeError> {
    let offset = reader.offset();
    let number = reader.u32("key epoch")?;
    match (is_there, number) {
        (true, 0) => Err(reader.value_at("key epoch", offset, 0, "at least 1")),
        (true, number) => Ok(Some(number)),
        (false, 0) => Ok(None),
        (false, number) => {
            Err(reader.value_at("key epoch", offset, u64::from(number), "0 where there is none"))
        }
    }
}

fn books(reader: &mut Reader<'_>, known: u8) -> Result<Books, DecodeError> {
    let nic_received = optional(reader, "nic_received", known & 1 != 0)?;
    let nic_missed = optional(reader, "nic_missed", known & 2 != 0)?;
    Ok(Books {
        nic_received,
        nic_missed,
        frames_seen: reader.u64("frames_seen")?,
        packets_ip: reader.u64("packets_ip")?,
        packets_not_ip: reader.u64("packets_not_ip")?,
        packets_malformed: reader.u64("packets_malformed")?,
        packets_in_flows: reader.u64("packets_in_flows")?,
        packets_folded: reader.u64("packets_folded")?,
        packets_duplicate: reader.u64("packets_duplicate")?,
        records_out: reader.u64("records_out")?,
        records_sealed: reader.u64("records_sealed")?,
        records_evicted: reader.u64("records_evicted")?,
        records_kept_internal: reader.u64("records_kept_internal")?,
        records_kept_trusted: reader.u64("records_kept_trusted")?,
        packets_kept_internal: reader.u64("packets_kept_internal")?,
        packets_kept_trusted: reader.u64("packets_kept_trusted")?,
    })
}

fn optional(
    reader: &mut Reader<'_>,
    field: &'static str,
    known: bool,
) -> Result<Option<u64>, DecodeError> {
    let offset = reader.offset();
    let value = reader.u64(field)?;
    match (known, value) {
        (true, value) => Ok(Some(value)),
        (false, 0) => Ok(None),
        (false, value) => Err(reader.value_at(field, offset, value, "0 where it is unknown")),
    }
}
