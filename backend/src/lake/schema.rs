//! Takes flow records; gives the columns of the lake's table, and records back from them. The one place that
//! knows both shapes. Never reads or writes a file.
//!
//! Signed integers, 16-byte addresses and UTC microseconds, because those are what every engine that reads
//! Parquet agrees on. What is not known is NULL, never 0.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Date32Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType as ArrowType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::arrow::error::ArrowError;
use deltalake::kernel::{DataType, PrimitiveType, StructField};
use detect::KeyScope;
use flow::{Address, Direction, EndReason, Handshake, Pseudonyms, Record, RoleEvidence, protocol};
use thiserror::Error;
use uplink::Batch;

use super::outer::{labels, outer, tunnels};

/// The table's only partition column: the UTC day of `start_time`.
pub(super) const PARTITION: &str = "day";

const MS_A_DAY: i64 = 86_400_000;
/// The end of the year 9999: the last moment that every engine's timestamp and date text can hold.
pub const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// What a column holds, in the words of both type systems.
#[derive(Clone, Copy)]
enum Kind {
    Address,
    Bool,
    Day,
    Int,
    Long,
    Text,
    Time,
}

impl Kind {
    fn delta(self) -> DataType {
        DataType::Primitive(match self {
            Self::Address => PrimitiveType::Binary,
            Self::Bool => PrimitiveType::Boolean,
            Self::Day => PrimitiveType::Date,
            Self::Int => PrimitiveType::Integer,
            Self::Long => PrimitiveType::Long,
            Self::Text => PrimitiveType::String,
            Self::Time => PrimitiveType::Timestamp,
        })
    }

    fn arrow(self) -> ArrowType {
        match self {
            Self::Address => ArrowType::Binary,
            Self::Bool => ArrowType::Boolean,
            Self::Day => ArrowType::Date32,
            Self::Int => ArrowType::Int32,
            Self::Long => ArrowType::Int64,
            Self::Text => ArrowType::Utf8,
            Self::Time => ArrowType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// Name, kind, whether it may be NULL.
const COLUMNS: [(&str, Kind, bool); 47] = [
    (PARTITION, Kind::Day, false),
    ("member", Kind::Text, false),
    ("sensor", Kind::Text, false),
    ("boot_epoch", Kind::Long, false),
    ("sequence", Kind::Long, false),
    ("position", Kind::Int, false),
    ("received_time", Kind::Time, false),
    ("start_time", Kind::Time, false),
    ("end_time", Kind::Time, false),
    ("ip_version", Kind::Int, false),
    ("initiator", Kind::Address, false),
    ("responder", Kind::Address, false),
    ("initiator_port", Kind::Int, true),
    ("responder_port", Kind::Int, true),
    ("protocol", Kind::Int, false),
    ("ports_known", Kind::Bool, false),
    ("vlan_outer", Kind::Int, true),
    ("vlan_inner", Kind::Int, true),
    ("mpls_label", Kind::Int, true),
    ("tunnels", Kind::Text, true),
    ("initiator_packets", Kind::Long, false),
    ("initiator_bytes", Kind::Long, false),
    ("initiator_tcp_flags", Kind::Int, true),
    ("initiator_ttl", Kind::Int, true),
    ("initiator_dscp", Kind::Int, true),
    ("initiator_first_flags", Kind::Int, true),
    ("initiator_fragmented", Kind::Bool, true),
    ("initiator_length_min", Kind::Int, true),
    ("initiator_length_max", Kind::Int, true),
    ("responder_packets", Kind::Long, false),
    ("responder_bytes", Kind::Long, false),
    ("responder_tcp_flags", Kind::Int, true),
    ("responder_ttl", Kind::Int, true),
    ("responder_dscp", Kind::Int, true),
    ("responder_first_flags", Kind::Int, true),
    ("responder_fragmented", Kind::Bool, true),
    ("responder_length_min", Kind::Int, true),
    ("responder_length_max", Kind::Int, true),
    ("handshake", Kind::Text, false),
    ("handshake_rtt_us", Kind::Long, true),
    ("interface", Kind::Int, true),
    ("role", Kind::Text, false),
    ("end_reason", Kind::Text, false),
    ("folded", Kind::Bool, false),
    ("initiator_pseudonym", Kind::Bool, false),
    ("responder_pseudonym", Kind::Bool, false),
    ("key_epoch", Kind::Long, true),
];

/// Columns that make records again, in the order in which [`records`] wants them.
pub const RECORD_COLUMNS: &str = "start_time, end_time, ip_version, initiator, responder, initiator_port, \
     responder_port, protocol, vlan_outer, vlan_inner, mpls_label, tunnels, initiator_packets, initiator_bytes, \
     initiator_tcp_flags, initiator_ttl, initiator_dscp, initiator_first_flags, initiator_fragmented, \
     initiator_length_min, initiator_length_max, responder_packets, responder_bytes, responder_tcp_flags, \
     responder_ttl, responder_dscp, responder_first_flags, responder_fragmented, responder_length_min, \
     responder_length_max, handshake, handshake_rtt_us, interface, role, end_reason, folded, \
     initiator_pseudonym, responder_pseudonym";

/// Why a batch does not fit the table. Remedy: look at the batch; the backend refuses it for good.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// A number that a signed column cannot hold, or a time outside the years 1970 to 9999.
    #[error("record {position}: {column} {value} is above {maximum}")]
    TooLarge {
        /// Which record of the batch.
        position: usize,
        /// Which of its values.
        column: &'static str,
        /// The value.
        value: u64,
        /// The largest that fits.
        maximum: u64,
    },
    /// A row of the table that is no record. Remedy: somebody else wrote into the lake; restore it.
    #[error("the lake holds a row that is no record: {column} {value}")]
    NoRecord {
        /// Which column.
        column: &'static str,
        /// What it holds.
        value: String,
    },
    /// Arrow refused.
    #[error("columns could not be made")]
    Arrow(#[from] ArrowError),
}

/// The columns as Delta Lake declares them.
pub(super) fn delta_columns() -> Vec<StructField> {
    COLUMNS.iter().map(|(name, kind, null)| StructField::new(*name, kind.delta(), *null)).collect()
}

fn arrow_schema() -> SchemaRef {
    let fields: Vec<Field> =
        COLUMNS.iter().map(|(name, kind, null)| Field::new(*name, kind.arrow(), *null)).collect();
    Arc::new(Schema::new(fields))
}

/// Whether every value of a batch fits the columns; asked before the batch is taken.
///
/// # Errors
///
/// Names the first value that does not.
pub fn check(batch: &Batch) -> Result<(), SchemaError> {
    let long = i64::MAX.unsigned_abs();
    let header = &batch.header;
    let numbers = [
        ("boot_epoch", header.boot_epoch, long),
        ("sequence", header.sequence, long),
        ("sealed_ms", header.sealed_ms, TIME_MS_MAX),
        ("start_ms", header.start_ms, TIME_MS_MAX),
        ("end_ms", header.end_ms, TIME_MS_MAX),
    ];
    fits(0, &numbers)?;
    for (position, record) in batch.records.iter().enumerate() {
        let numbers = [
            ("start_ms", record.start_ms, TIME_MS_MAX),
            ("end_ms", record.end_ms, TIME_MS_MAX),
            ("initiator_packets", record.from_initiator.packets, long),
            ("initiator_bytes", record.from_initiator.bytes, long),
            ("responder_packets", record.from_responder.packets, long),
            ("responder_bytes", record.from_responder.bytes, long),
        ];
        fits(position, &numbers)?;
    }
    Ok(())
}

fn fits(position: usize, numbers: &[(&'static str, u64, u64)]) -> Result<(), SchemaError> {
    match numbers.iter().find(|(_, value, maximum)| value > maximum) {
        Some(&(column, value, maximum)) => {
            Err(SchemaError::TooLarge { position, column, value, maximum })
        }
        None => Ok(()),
    }
}

/// The rows of one batch that [`check`] passed.
pub(super) fn rows(batch: &Batch, received_ms: u64) -> Result<RecordBatch, SchemaError> {
    let header = &batch.header;
    let records = &batch.records;
    let count = records.len();
    let same_long =
        |value: u64| -> ArrayRef { Arc::new(Int64Array::from(vec![signed(value); count])) };
    let same_text = |value: &str| -> ArrayRef { Arc::new(StringArray::from(vec![value; count])) };
    let int = |pick: &dyn Fn(&Record) -> Option<u16>| -> ArrayRef {
        Arc::new(records.iter().map(|record| pick(record).map(i32::from)).collect::<Int32Array>())
    };
    let time = |pick: &dyn Fn(&Record) -> u64| -> ArrayRef { times(records.iter().map(pick)) };
    let text = |pick: &dyn Fn(&Record) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(records.iter().map(pick)))
    };

    let days: Date32Array = records.iter().map(|record| Some(day(record.start_ms))).collect();
    let positions: Int32Array = (0..count).map(|position| i32::try_from(position).ok()).collect();
    let flag = |pick: &dyn Fn(&Record) -> bool| -> ArrayRef {
        Arc::new(records.iter().map(|record| Some(pick(record))).collect::<BooleanArray>())
    };
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(days),
        same_text(header.member.as_str()),
        same_text(header.sensor.as_str()),
        same_long(header.boot_epoch),
        same_long(header.sequence),
        Arc::new(positions),
        times(std::iter::repeat_n(received_ms, count)),
        time(&|record| record.start_ms),
        time(&|record| record.end_ms),
        int(&|record| Some(if record.initiator.is_ipv4() { 4 } else { 6 })),
        addresses(records, |record| record.initiator),
        addresses(records, |record| record.responder),
        int(&|record| (record.ports_known && !record.folded).then_some(record.initiator_port)),
        int(&|record| record.ports_known.then_some(record.responder_port)),
        int(&|record| Some(u16::from(record.protocol))),
        flag(&|record| record.ports_known),
        int(&|record| Some(record.outer.vlans().0[0]).filter(|vlan| *vlan != 0)),
        int(&|record| Some(record.outer.vlans().0[1]).filter(|vlan| *vlan != 0)),
        labels(records),
        tunnels(records),
    ];
    columns.extend(direction_columns(records, |record| &record.from_initiator));
    columns.extend(direction_columns(records, |record| &record.from_responder));
    columns.extend([
        text(&|record| handshake_text(record.handshake)),
        Arc::new(records.iter().map(|r| r.handshake_rtt_us.map(i64::from)).collect::<Int64Array>()),
        int(&|record| Some(u16::from(record.interface)).filter(|number| *number != 0)),
        text(&|record| role_text(record.role)),
        text(&|record| end_reason_text(record.end_reason)),
        flag(&|record| record.folded),
        flag(&|record| record.pseudonyms.initiator),
        flag(&|record| record.pseudonyms.responder),
        Arc::new(Int64Array::from(vec![header.key_epoch.map(i64::from); count])),
    ]);
    Ok(RecordBatch::try_new(arrow_schema(), columns)?)
}

fn direction_columns(records: &[Record], side: impl Fn(&Record) -> &Direction) -> [ArrayRef; 9] {
    let long = |pick: fn(&Direction) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(records.iter().map(|r| signed(pick(side(r))))))
    };
    let seen = |pick: fn(&Direction) -> u16| -> ArrayRef {
        let value = |r| Some(side(r)).filter(|d| d.packets > 0).map(|d| i32::from(pick(d)));
        Arc::new(records.iter().map(value).collect::<Int32Array>())
    };
    let flags = |r: &Record| {
        (r.protocol == protocol::TCP && side(r).packets > 0).then(|| i32::from(side(r).tcp_flags))
    };
    // Of a first packet, or of single packets: nothing is known of those in folded totals.
    let told = |r: &Record| !r.folded && side(r).packets > 0;
    let dscp = |r: &Record| told(r).then(|| i32::from(side(r).dscp));
    // Seen in an earlier part of the flow, perhaps; where it is 0 there was no packet yet.
    let first_flags = |r: &Record| {
        let known = r.protocol == protocol::TCP && !r.folded;
        (known && (told(r) || side(r).first_flags != 0)).then(|| i32::from(side(r).first_flags))
    };
    let fragmented = |r: &Record| told(r).then(|| side(r).fragmented);
    [
        long(|direction| direction.packets),
        long(|direction| direction.bytes),
        Arc::new(records.iter().map(flags).collect::<Int32Array>()),
        seen(|direction| u16::from(direction.ttl)),
        Arc::new(records.iter().map(dscp).collect::<Int32Array>()),
        Arc::new(records.iter().map(first_flags).collect::<Int32Array>()),
        Arc::new(records.iter().map(fragmented).collect::<BooleanArray>()),
        seen(|direction| direction.length_min),
        seen(|direction| direction.length_max),
    ]
}

fn addresses(records: &[Record], pick: impl Fn(&Record) -> IpAddr) -> ArrayRef {
    let mut builder = BinaryBuilder::with_capacity(records.len(), records.len() * 16);
    for record in records {
        builder.append_value(address_bytes(pick(record)));
    }
    Arc::new(builder.finish())
}

/// An address as the lake holds it: 16 bytes, IPv4 as `::ffff:a.b.c.d`.
#[must_use]
pub fn address_bytes(ip: IpAddr) -> [u8; 16] {
    Address::from(ip).octets()
}

/// An address from the lake's 16 bytes; an IPv4-mapped one is shown as the IPv4 address it stands for.
#[must_use]
pub fn address_from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 16] = bytes.try_into().ok()?;
    let ip = Ipv6Addr::from(octets);
    Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4))
}

fn times(milliseconds: impl Iterator<Item = u64>) -> ArrayRef {
    let values = milliseconds.map(|ms| signed(ms).saturating_mul(1000));
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

/// Exact for what [`check`] passed.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn day(ms: u64) -> i32 {
    i32::try_from(signed(ms) / MS_A_DAY).unwrap_or(i32::MAX)
}

/// How many days, and so how many files, a batch touches.
#[must_use]
pub fn days(batch: &Batch) -> usize {
    let mut days: Vec<i32> = batch.records.iter().map(|record| day(record.start_ms)).collect();
    days.sort_unstable();
    days.dedup();
    days.len()
}

/// The day of all records, as `2026-01-05`; `None` when there are several, or it has no such name.
pub(super) fn only_day(records: &[Record]) -> Option<String> {
    let (first, others) = records.split_first()?;
    let days = day(first.start_ms);
    if others.iter().any(|record| day(record.start_ms) != days) {
        return None;
    }
    let date = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(days)).ok()?;
    Some(date.to_string())
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('?'));
        }
        text
    })
}

macro_rules! texts {
    ($to:ident $from:ident $type:ty { $($variant:ident $text:literal),+ $(,)? }) => {
        fn $to(value: $type) -> &'static str {
            match value { $(<$type>::$variant => $text),+ }
        }

        fn $from(text: &str) -> Option<$type> {
            match text { $($text => Some(<$type>::$variant),)+ _ => None }
        }
    };
}

texts!(handshake_text handshake_from Handshake {
    None "none", Syn "syn", SynAck "syn_ack", Established "established", Rejected "rejected",
    OneWay "one_way",
});
texts!(role_text role_from RoleEvidence {
    Handshake "handshake", FirstPacket "first_packet", PortRank "port_rank", Guess "guess",
});
texts!(end_reason_text end_reason_from EndReason {
    IdleTimeout "idle_timeout", ActiveTimeout "active_timeout", EndOfFlow "end_of_flow",
    ForcedEnd "forced_end", LackOfResources "lack_of_resources",
});

/// The records in rows of [`RECORD_COLUMNS`], whatever views or dictionaries the engine chose for them.
///
/// # Errors
///
/// Names the first value that is not one of a record.
pub fn records(rows: &RecordBatch) -> Result<Vec<Record>, SchemaError> {
    let column = |name: &'static str| -> Result<ArrayRef, SchemaError> {
        let found = rows.column_by_name(name).ok_or_else(|| SchemaError::NoRecord {
            column: name,
            value: "is missing".to_owned(),
        })?;
        let (_, kind, _) =
            COLUMNS.iter().find(|(known, _, _)| *known == name).ok_or_else(|| {
                SchemaError::NoRecord {
                    column: name,
                    value: "is not a column of the table".to_owned(),
                }
            })?;
        Ok(cast(found, &kind.arrow())?)
    };
    let (start, end) = (column("start_time")?, column("end_time")?);
    let (version, protocol) = (column("ip_version")?, column("protocol")?);
    let addresses = [column("initiator")?, column("responder")?];
    let ports = [column("initiator_port")?, column("responder_port")?];
    let vlans = [column("vlan_outer")?, column("vlan_inner")?];
    let (labels, tunnels) = (column("mpls_label")?, column("tunnels")?);
    let folded = column("folded")?;
    let pseudonyms = [column("initiator_pseudonym")?, column("responder_pseudonym")?];
    let side = |names: [&'static str; 9]| -> Result<Vec<ArrayRef>, SchemaError> {
        names.into_iter().map(column).collect()
    };
    let initiator = side([
        "initiator_packets",
        "initiator_bytes",
        "initiator_tcp_flags",
        "initiator_ttl",
        "initiator_dscp",
        "initiator_first_flags",
        "initiator_fragmented",
        "initiator_length_min",
        "initiator_length_max",
    ])?;
    let responder = side([
        "responder_packets",
        "responder_bytes",
        "responder_tcp_flags",
        "responder_ttl",
        "responder_dscp",
        "responder_first_flags",
        "responder_fragmented",
        "responder_length_min",
        "responder_length_max",
    ])?;
    let (handshake, role) = (column("handshake")?, column("role")?);
    let (handshake_rtt, interface) = (column("handshake_rtt_us")?, column("interface")?);
    let end_reason = column("end_reason")?;

    let mut records = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        let v4 = int::<u8>(&version, row, "ip_version")? == 4;
        records.push(Record {
            start_ms: milliseconds(&start, row, "start_time")?,
            end_ms: milliseconds(&end, row, "end_time")?,
            initiator: address(&addresses[0], row, v4, "initiator")?,
            responder: address(&addresses[1], row, v4, "responder")?,
            initiator_port: int(&ports[0], row, "initiator_port")?,
            responder_port: int(&ports[1], row, "responder_port")?,
            protocol: int(&protocol, row, "protocol")?,
            // That of the initiator is unknown in folded totals, too.
            ports_known: ports[1].is_valid(row),
            outer: outer(&vlans, &labels, &tunnels, row)?,
            from_initiator: direction(&initiator, row)?,
            from_responder: direction(&responder, row)?,
            handshake: word(&handshake, row, "handshake", handshake_from)?,
            handshake_rtt_us: optional_u32(&handshake_rtt, row, "handshake_rtt_us")?,
            interface: int(&interface, row, "interface")?,
            role: word(&role, row, "role", role_from)?,
            end_reason: word(&end_reason, row, "end_reason", end_reason_from)?,
            folded: folded.as_boolean().value(row),
            pseudonyms: Pseudonyms {
                initiator: pseudonyms[0].as_boolean().value(row),
                responder: pseudonyms[1].as_boolean().value(row),
            },
        });
    }
    Ok(records)
}

/// When each of some rows was received, milliseconds since the Unix epoch.
///
/// # Errors
///
/// When the column is missing or holds a time before 1970.
pub fn received_ms(rows: &RecordBatch) -> Result<Vec<u64>, SchemaError> {
    const COLUMN: &str = "received_time";
    let found = rows.column_by_name(COLUMN).ok_or_else(|| no_record(COLUMN, "is missing"))?;
    let times = cast(found, &Kind::Time.arrow())?;
    (0..rows.num_rows()).map(|row| milliseconds(&times, row, COLUMN)).collect()
}

/// Which key's pseudonyms each of some rows may have, by its sensor and its number; `None` where there are none.
///
/// # Errors
///
/// When a column is missing or holds no such number.
pub fn key_scopes(rows: &RecordBatch) -> Result<Vec<Option<KeyScope>>, SchemaError> {
    let column = |name: &'static str, kind: Kind| -> Result<ArrayRef, SchemaError> {
        let found = rows.column_by_name(name).ok_or_else(|| no_record(name, "is missing"))?;
        Ok(cast(found, &kind.arrow())?)
    };
    let sensors = column("sensor", Kind::Text)?;
    let numbers = column("key_epoch", Kind::Long)?;
    let (sensors, numbers) = (sensors.as_string::<i32>(), numbers.as_primitive::<Int64Type>());
    let scope = |row: usize| -> Result<Option<KeyScope>, SchemaError> {
        if numbers.is_null(row) {
            return Ok(None);
        }
        let number = numbers.value(row);
        let key_epoch =
            u32::try_from(number).map_err(|_out_of_range| no_record("key_epoch", &number))?;
        Ok(Some(KeyScope { sensor: sensors.value(row).to_owned(), key_epoch }))
    };
    (0..rows.num_rows()).map(scope).collect()
}

pub(super) fn no_record(column: &'static str, value: &(impl ToString + ?Sized)) -> SchemaError {
    SchemaError::NoRecord { column, value: value.to_string() }
}

/// NULL reads as 0, which is what a record holds where a flag beside it says "unknown".
pub(super) fn int<T: TryFrom<i32> + Default>(
    array: &ArrayRef,
    row: usize,
    column: &'static str,
) -> Result<T, SchemaError> {
    if array.is_null(row) {
        return Ok(T::default());
    }
    let value = array.as_primitive::<Int32Type>().value(row);
    T::try_from(value).map_err(|_out_of_range| no_record(column, &value))
}

fn milliseconds(array: &ArrayRef, row: usize, column: &'static str) -> Result<u64, SchemaError> {
    let value = array.as_primitive::<TimestampMicrosecondType>().value(row);
    u64::try_from(value / 1000).map_err(|_negative| no_record(column, &value))
}

fn address(
    array: &ArrayRef,
    row: usize,
    v4: bool,
    column: &'static str,
) -> Result<IpAddr, SchemaError> {
    let bytes = array.as_binary::<i32>().value(row);
    let octets: [u8; 16] = bytes
        .try_into()
        .map_err(|_length| no_record(column, &format!("of {} bytes", bytes.len())))?;
    if v4 {
        let [.., a, b, c, d] = octets;
        return Ok(IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
    }
    Ok(IpAddr::V6(Ipv6Addr::from(octets)))
}

fn direction(arrays: &[ArrayRef], row: usize) -> Result<Direction, SchemaError> {
    let long = |array: &ArrayRef, column| {
        let value = array.as_primitive::<Int64Type>().value(row);
        u64::try_from(value).map_err(|_negative| no_record(column, &value))
    };
    Ok(Direction {
        packets: long(&arrays[0], "packets")?,
        bytes: long(&arrays[1], "bytes")?,
        tcp_flags: int(&arrays[2], row, "tcp_flags")?,
        ttl: int(&arrays[3], row, "ttl")?,
        dscp: int(&arrays[4], row, "dscp")?,
        first_flags: int(&arrays[5], row, "first_flags")?,
        fragmented: arrays[6].is_valid(row) && arrays[6].as_boolean().value(row),
        length_min: int(&arrays[7], row, "length_min")?,
        length_max: int(&arrays[8], row, "length_max")?,
    })
}

fn optional_u32(
    array: &ArrayRef,
    row: usize,
    column: &'static str,
) -> Result<Option<u32>, SchemaError> {
    if array.is_null(row) {
        return Ok(None);
    }
    let value = array.as_primitive::<Int64Type>().value(row);
    u32::try_from(value).map(Some).map_err(|_out_of_range| no_record(column, &value))
}

fn word<T>(
    array: &ArrayRef,
    row: usize,
    column: &'static str,
    from: fn(&str) -> Option<T>,
) -> Result<T, SchemaError> {
    let text = array.as_string::<i32>().value(row);
    from(text).ok_or_else(|| no_record(column, text))
}
