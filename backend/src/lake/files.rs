//! Takes batches; gives the Parquet files of their rows, one a day. What the library puts stays in memory
//! ([`super::durable::Staging`]). Never writes to the disk.
//!
//! This is most of what storing a flow costs, so each column is written in the way that is cheap for what it holds;
//! any reader of Parquet reads all of them. Measured with `spanwatch-bench uplink`; see `docs/performance.md`.

use datafusion::parquet::basic::{Compression, Encoding, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use datafusion::parquet::schema::types::ColumnPath;
use deltalake::kernel::{Add, PrimitiveType};
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use deltalake::{DeltaTable, DeltaTableError};

use super::{LakeError, Received, delta, schema};

/// Integers that are packed as differences, without a dictionary: a look-up for each value costs two to four times as
/// much. Those where a dictionary saves most of the bytes (packets, TTL, the responder's port) have one.
const PACKED: [&str; 23] = [
    "boot_epoch",
    "sequence",
    "position",
    "received_time",
    "start_time",
    "end_time",
    "ip_version",
    "initiator_port",
    "protocol",
    "initiator_bytes",
    "initiator_tcp_flags",
    "initiator_dscp",
    "initiator_first_flags",
    "initiator_length_min",
    "initiator_length_max",
    "responder_bytes",
    "responder_tcp_flags",
    "responder_dscp",
    "responder_first_flags",
    "responder_length_min",
    "responder_length_max",
    "handshake_rtt_us",
    "interface",
];

/// Columns whose minima and maxima a reader can use to pass over a file or a page: what the log has
/// ([`super::STATISTICS_COLUMNS`]), and what is the same in a whole batch. Of the others a page has nearly all values.
const WITH_STATISTICS: [&str; 8] = [
    "member",
    "sensor",
    "boot_epoch",
    "sequence",
    "received_time",
    "start_time",
    "end_time",
    "responder_port",
];

/// Makes Parquet of the rows.
pub(super) async fn encode(
    table: &DeltaTable,
    path: &str,
    batches: &[Received],
) -> Result<Vec<Add>, LakeError> {
    let failed = |source| delta(path, source);
    let properties = writer_properties().map_err(|source| failed(source.into()))?;
    let mut writer =
        RecordBatchWriter::for_table(table).map_err(failed)?.with_writer_properties(properties);
    for Received { batch, received_ms, .. } in batches {
        if batch.records.is_empty() {
            continue;
        }
        let rows = schema::rows(batch, *received_ms)?;
        // Most batches are of one day, and then there is nothing to sort out, which would copy every value.
        if let Some(day) = schema::only_day(&batch.records) {
            let day = PrimitiveType::Date
                .parse_scalar(&day)
                .map_err(|source| failed(DeltaTableError::from(source)))?;
            let values = [(schema::PARTITION.to_owned(), day)].into_iter().collect();
            let mode = deltalake::writer::WriteMode::Default;
            writer.write_partition(rows, &values, mode).await.map_err(failed)?;
        } else {
            writer.write(rows).await.map_err(failed)?;
        }
    }
    writer.flush().await.map_err(failed)
}

fn writer_properties() -> Result<WriterProperties, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_statistics_enabled(EnabledStatistics::None);
    for column in PACKED {
        properties = properties
            .set_column_dictionary_enabled(ColumnPath::from(column), false)
            .set_column_encoding(ColumnPath::from(column), Encoding::DELTA_BINARY_PACKED);
    }
    for column in WITH_STATISTICS {
        properties = properties
            .set_column_statistics_enabled(ColumnPath::from(column), EnabledStatistics::Page);
    }
    Ok(properties.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_with_a_setting_is_one_of_the_table() {
        let columns = schema::delta_columns();
        let known = |name: &str| columns.iter().any(|column| column.name() == name);
        let logged = super::super::STATISTICS_COLUMNS.split(',');
        for name in PACKED.into_iter().chain(WITH_STATISTICS).chain(logged.clone()) {
            assert!(known(name), "{name}");
        }
        for name in logged {
            assert!(WITH_STATISTICS.contains(&name), "the log has no minimum of {name} otherwise");
        }
    }
}
