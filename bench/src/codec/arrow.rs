//! In: records. Out: an Arrow IPC stream of one record batch, each field in a column of its own type, and back
//! to columns in memory.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Result;
use arrow_array::{
    ArrayRef, BooleanArray, FixedSizeBinaryArray, RecordBatch, TimestampMillisecondArray,
    UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use flow::{Direction, Record};

use super::formats::Format;

/// Arrow IPC streams.
pub(super) struct Arrow;

impl Format for Arrow {
    fn encode(&mut self, records: &[Record]) -> Result<Vec<u8>> {
        let batch = RecordBatch::try_from_iter_with_nullable(columns(records)?)?;
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
        writer.write(&batch)?;
        writer.finish()?;
        Ok(writer.into_inner()?)
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut records = 0;
        for batch in StreamReader::try_new(bytes, None)? {
            records += std::hint::black_box(batch?).num_rows();
        }
        Ok(records)
    }
}

/// A column: name, values, whether some may be unknown.
type Column = (String, ArrayRef, bool);

fn columns(records: &[Record]) -> Result<Vec<Column>> {
    let time = |of: fn(&Record) -> u64| -> ArrayRef {
        let signed = records.iter().map(|record| of(record).cast_signed());
        Arc::new(TimestampMillisecondArray::from_iter_values(signed))
    };
    let address = |of: fn(&Record) -> IpAddr| -> Result<ArrayRef> {
        let octets = records.iter().map(|record| match of(record) {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        });
        Ok(Arc::new(FixedSizeBinaryArray::try_from_iter(octets)?))
    };
    let byte = |of: fn(&Record) -> u8| -> ArrayRef {
        Arc::new(UInt8Array::from_iter_values(records.iter().map(of)))
    };
    let port = |of: fn(&Record) -> u16| -> ArrayRef {
        Arc::new(UInt16Array::from_iter_values(records.iter().map(of)))
    };
    let word = |of: fn(&Record) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(records.iter().map(of)))
    };
    let bool = |of: fn(&Record) -> bool| -> ArrayRef {
        Arc::new(records.iter().map(|record| Some(of(record))).collect::<BooleanArray>())
    };
    let rtts: ArrayRef =
        Arc::new(records.iter().map(|record| record.handshake_rtt_us).collect::<UInt32Array>());
    let mut columns: Vec<Column> = [
        ("start_ms", time(|r| r.start_ms)),
        ("end_ms", time(|r| r.end_ms)),
        ("initiator", address(|r| r.initiator)?),
        ("responder", address(|r| r.responder)?),
        // What tells ::ffff:a.b.c.d in an IPv6 packet from a.b.c.d.
        ("initiator_v4", bool(|r| r.initiator.is_ipv4())),
        ("responder_v4", bool(|r| r.responder.is_ipv4())),
        ("initiator_port", port(|r| r.initiator_port)),
        ("responder_port", port(|r| r.responder_port)),
        ("protocol", byte(|r| r.protocol)),
        ("ports_known", bool(|r| r.ports_known)),
        ("outer_layers", word(|r| r.outer.layers)),
        ("outer_ids", word(|r| r.outer.ids)),
        ("handshake", byte(|r| r.handshake as u8)),
        ("interface", byte(|r| r.interface)),
        ("role", byte(|r| r.role as u8)),
        ("end_reason", byte(|r| r.end_reason as u8)),
        ("folded", bool(|r| r.folded)),
    ]
    .map(|(name, column)| (name.to_owned(), column, false))
    .into();
    columns.push(("handshake_rtt_us".to_owned(), rtts, true));
    side("initiator", records, |r| &r.from_initiator, &mut columns);
    side("responder", records, |r| &r.from_responder, &mut columns);
    Ok(columns)
}

fn side(
    name: &str,
    records: &[Record],
    of: impl Fn(&Record) -> &Direction + Copy,
    columns: &mut Vec<Column>,
) {
    let sides = || records.iter().map(of);
    let word = |get: fn(&Direction) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(sides().map(get)))
    };
    let byte = |get: fn(&Direction) -> u8| -> ArrayRef {
        Arc::new(UInt8Array::from_iter_values(sides().map(get)))
    };
    let length = |get: fn(&Direction) -> u16| -> ArrayRef {
        Arc::new(UInt16Array::from_iter_values(sides().map(get)))
    };
    let fragmented: ArrayRef =
        Arc::new(sides().map(|side| Some(side.fragmented)).collect::<BooleanArray>());
    columns.extend(
        [
            ("packets", word(|d| d.packets)),
            ("bytes", word(|d| d.bytes)),
            ("tcp_flags", byte(|d| d.tcp_flags)),
            ("ttl", byte(|d| d.ttl)),
            ("dscp", byte(|d| d.dscp)),
            ("first_flags", byte(|d| d.first_flags)),
            ("fragmented", fragmented),
            ("length_min", length(|d| d.length_min)),
            ("length_max", length(|d| d.length_max)),
        ]
        .map(|(field, column)| (format!("{name}_{field}"), column, false)),
    );
}
