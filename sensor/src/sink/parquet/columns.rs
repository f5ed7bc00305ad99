//! Takes what records say; gives the columns of a Parquet file: name, type, and the values of many records.
//! Names and order are those of the CSV output.

use std::ops::Range;
use std::sync::Arc;

use ::parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int32Type, Int64Type};
use ::parquet::errors::Result;
use ::parquet::file::writer::SerializedColumnWriter;
use ::parquet::schema::types::{Type, TypePtr};
use bytes::Bytes;

use super::super::known::{Known, end_reason_name, handshake_name, role_name, tunnels_text};

/// Where a column's values come from, and with that its type.
#[derive(Clone, Copy)]
pub(super) enum Values {
    /// Milliseconds since the Unix epoch: TIMESTAMP in UTC.
    Time(fn(&Known) -> Option<u64>),
    /// A count. Signed, since some engines know no other 64 bits.
    Count(fn(&Known) -> u64),
    /// A number of 8 bits without a sign.
    Int8(fn(&Known) -> Option<u8>),
    /// A number of 16 bits without a sign.
    Int16(fn(&Known) -> Option<u16>),
    /// A number of 32 bits without a sign.
    Int32(fn(&Known) -> Option<u32>),
    /// True or false.
    Bool(fn(&Known) -> Option<bool>),
    /// Text.
    Text(fn(&Known) -> Option<String>),
    /// One of a few words.
    Word(fn(&Known) -> Option<&'static str>),
}

/// A column.
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Whether a record may lack it.
    optional: bool,
    values: Values,
}

const fn always(name: &'static str, values: Values) -> Column {
    Column { name, optional: false, values }
}

const fn maybe(name: &'static str, values: Values) -> Column {
    Column { name, optional: true, values }
}

macro_rules! side_columns {
    ($from:ident, $side:literal) => {
        [
            always(concat!($side, "_packets"), Values::Count(|it| it.$from.packets)),
            always(concat!($side, "_bytes"), Values::Count(|it| it.$from.bytes)),
            maybe(concat!($side, "_tcp_flags"), Values::Int8(|it| it.$from.tcp_flags)),
            maybe(concat!($side, "_ttl"), Values::Int8(|it| it.$from.ttl)),
            maybe(concat!($side, "_dscp"), Values::Int8(|it| it.$from.dscp)),
            maybe(concat!($side, "_first_flags"), Values::Int8(|it| it.$from.first_flags)),
            maybe(concat!($side, "_fragmented"), Values::Bool(|it| it.$from.fragmented)),
            maybe(concat!($side, "_length_min"), Values::Int16(|it| it.$from.length_min)),
            maybe(concat!($side, "_length_max"), Values::Int16(|it| it.$from.length_max)),
        ]
    };
}

const BEFORE_SIDES: [Column; 13] = [
    maybe("start_time", Values::Time(|it| it.start_ms)),
    maybe("end_time", Values::Time(|it| it.end_ms)),
    maybe("community_id", Values::Text(|it| Some(it.community_id()?.as_str().to_owned()))),
    maybe("ip_version", Values::Int8(Known::ip_version)),
    maybe("protocol", Values::Int8(|it| it.protocol)),
    always("initiator", Values::Text(|it| Some(it.initiator.to_string()))),
    maybe("initiator_port", Values::Int16(|it| it.initiator_port)),
    always("responder", Values::Text(|it| Some(it.responder.to_string()))),
    maybe("responder_port", Values::Int16(|it| it.responder_port)),
    maybe("vlan_outer", Values::Int16(|it| it.vlan_outer)),
    maybe("vlan_inner", Values::Int16(|it| it.vlan_inner)),
    maybe("mpls_label", Values::Int32(|it| it.mpls_label)),
    maybe("tunnels", Values::Text(|it| tunnels_text(it.outer))),
];
const INITIATOR: [Column; 9] = side_columns!(from_initiator, "initiator");
const RESPONDER: [Column; 9] = side_columns!(from_responder, "responder");
const BEHIND_SIDES: [Column; 7] = [
    maybe("handshake", Values::Word(|it| it.handshake.map(handshake_name))),
    maybe("handshake_rtt_us", Values::Int32(|it| it.handshake_rtt_us)),
    maybe("interface", Values::Int8(|it| it.interface)),
    always("role", Values::Word(|it| Some(role_name(it.role)))),
    always("end_reason", Values::Word(|it| Some(end_reason_name(it.end_reason)))),
    always("folded", Values::Bool(|it| Some(it.folded))),
    maybe("initiator_prefix_bits", Values::Int8(|it| it.prefix_bits)),
];

/// Every column, in the order of the file.
pub(super) fn columns() -> impl Iterator<Item = Column> {
    BEFORE_SIDES.into_iter().chain(INITIATOR).chain(RESPONDER).chain(BEHIND_SIDES)
}

/// The columns as the file declares them.
pub(super) fn schema() -> Result<TypePtr> {
    let fields = columns().map(|column| column.declared().map(Arc::new)).collect::<Result<_>>()?;
    Ok(Arc::new(Type::group_type_builder("flows").with_fields(fields).build()?))
}

impl Column {
    fn declared(&self) -> Result<Type> {
        let (physical, logical) = match self.values {
            Values::Time(_) => {
                (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MILLIS)))
            }
            Values::Count(_) => (Physical::INT64, None),
            Values::Int8(_) => (Physical::INT32, Some(LogicalType::integer(8, false))),
            Values::Int16(_) => (Physical::INT32, Some(LogicalType::integer(16, false))),
            Values::Int32(_) => (Physical::INT32, Some(LogicalType::integer(32, false))),
            Values::Bool(_) => (Physical::BOOLEAN, None),
            Values::Text(_) | Values::Word(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let repetition = if self.optional { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        Type::primitive_type_builder(self.name, physical)
            .with_repetition(repetition)
            .with_logical_type(logical)
            .build()
    }

    /// Writes the values of all rows.
    pub(super) fn write(
        &self,
        rows: &[Known],
        writer: &mut SerializedColumnWriter<'_>,
    ) -> Result<()> {
        let mut levels = Levels::of(self.optional, rows.len());
        match self.values {
            Values::Time(get) => {
                // What a record knows of time ends in the year 9999.
                let signed = |ms: u64| i64::try_from(ms).ok();
                let values = levels.keep(rows, |row| get(row).and_then(signed));
                writer.typed::<Int64Type>().write_batch(&values, levels.defined(), None)?;
            }
            Values::Count(get) => {
                let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
                let values = levels.keep(rows, |row| Some(signed(get(row))));
                writer.typed::<Int64Type>().write_batch(&values, levels.defined(), None)?;
            }
            Values::Int8(get) => {
                let values = levels.keep(rows, |row| get(row).map(i32::from));
                writer.typed::<Int32Type>().write_batch(&values, levels.defined(), None)?;
            }
            Values::Int16(get) => {
                let values = levels.keep(rows, |row| get(row).map(i32::from));
                writer.typed::<Int32Type>().write_batch(&values, levels.defined(), None)?;
            }
            Values::Int32(get) => {
                // The declared type says that the sign bit is a bit like the others.
                let values = levels.keep(rows, |row| get(row).map(u32::cast_signed));
                writer.typed::<Int32Type>().write_batch(&values, levels.defined(), None)?;
            }
            Values::Bool(get) => {
                let values = levels.keep(rows, get);
                writer.typed::<BoolType>().write_batch(&values, levels.defined(), None)?;
            }
            Values::Text(get) => {
                let values = texts(rows, &mut levels, |row, text| {
                    get(row).map(|value| text.extend_from_slice(value.as_bytes()))
                });
                writer.typed::<ByteArrayType>().write_batch(&values, levels.defined(), None)?;
            }
            Values::Word(get) => {
                let word = |word: &'static str| Bytes::from_static(word.as_bytes()).into();
                let values: Vec<ByteArray> = levels.keep(rows, |row| get(row).map(word));
                writer.typed::<ByteArrayType>().write_batch(&values, levels.defined(), None)?;
            }
        }
        Ok(())
    }
}

/// Which rows have a value.
struct Levels(Option<Vec<i16>>);

impl Levels {
    fn of(optional: bool, rows: usize) -> Self {
        Self(optional.then(|| Vec::with_capacity(rows)))
    }

    /// Notes whether a row has a value.
    fn note(&mut self, has_value: bool) {
        if let Some(levels) = &mut self.0 {
            levels.push(i16::from(has_value));
        }
    }

    /// The values of those rows that have one.
    fn keep<T>(&mut self, rows: &[Known], get: impl Fn(&Known) -> Option<T>) -> Vec<T> {
        let mut values = Vec::with_capacity(rows.len());
        for row in rows {
            let value = get(row);
            self.note(value.is_some());
            values.extend(value);
        }
        values
    }

    fn defined(&self) -> Option<&[i16]> {
        self.0.as_deref()
    }
}

/// Texts of rows, cut out of one piece of memory.
fn texts(
    rows: &[Known],
    levels: &mut Levels,
    append: impl Fn(&Known, &mut Vec<u8>) -> Option<()>,
) -> Vec<ByteArray> {
    let mut all = Vec::new();
    let mut places: Vec<Range<usize>> = Vec::with_capacity(rows.len());
    for row in rows {
        let began = all.len();
        let appended = append(row, &mut all);
        levels.note(appended.is_some());
        places.extend(appended.map(|()| began..all.len()));
    }
    let all = Bytes::from(all);
    places.into_iter().map(|place| all.slice(place).into()).collect()
}
