//! Takes records; writes Parquet files. Records are held until a row group is full, so nothing can be read
//! of a file before it is complete; until then it is called `.partial`. The memory it takes is bounded by
//! the row group.

mod columns;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::types::{ColumnPath, TypePtr};
use flow::{Books, Record};

use super::files::Files;
use super::known::Known;
use super::{Sink, SinkError, SinkTotals};
use columns::{columns, schema};

/// Row groups of one file, the format's own limit.
const GROUPS_MAX: usize = i16::MAX as usize;

/// Writes Parquet files.
pub struct ParquetSink {
    /// `None` once writing has failed.
    writer: Option<SerializedFileWriter<Files>>,
    /// What the file is called, for messages.
    place: String,
    schema: TypePtr,
    properties: WriterPropertiesPtr,
    /// Rows that wait for their group to be full.
    rows: Vec<Known>,
    group_records_max: usize,
    /// Records in the groups of the file in hand.
    records_in_file: u64,
    /// Records that the call in hand has brought.
    records_brought: u64,
    records_unwritten: u64,
    deleted: u64,
}

impl ParquetSink {
    /// `files` has to be one for files that are of use only when whole.
    ///
    /// # Errors
    /// When the beginning of a file cannot be written.
    pub fn new(files: Files, group_records_max: usize) -> Result<Self, SinkError> {
        let place = files.to_string();
        let fails = |error| failed(&place, error);
        let schema = schema().map_err(fails)?;
        let properties = Arc::new(properties());
        let writer = SerializedFileWriter::new(files, Arc::clone(&schema), Arc::clone(&properties))
            .map_err(fails)?;
        Ok(Self {
            writer: Some(writer),
            place,
            schema,
            properties,
            rows: Vec::new(),
            group_records_max,
            records_in_file: 0,
            records_brought: 0,
            records_unwritten: 0,
            deleted: 0,
        })
    }

    /// Writes the rows that are held as a row group.
    fn write_group(&mut self) -> Result<(), ParquetError> {
        let Some(writer) = self.writer.as_mut().filter(|_| !self.rows.is_empty()) else {
            return Ok(());
        };
        let mut group = writer.next_row_group()?;
        for column in columns() {
            let Some(mut values) = group.next_column()? else {
                return Err(ParquetError::General(format!("no room for column {}", column.name)));
            };
            column.write(&self.rows, &mut values)?;
            values.close()?;
        }
        group.close()?;
        self.records_in_file += self.rows.len() as u64;
        self.rows.clear();
        Ok(())
    }

    /// Ends the file in hand, and begins the next one when there is more to come.
    fn turn(&mut self, now_ms: u64, goes_on: bool) -> Result<(), ParquetError> {
        self.write_group()?;
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let mut files = writer.into_inner()?;
        self.place = files.to_string();
        if goes_on { files.next(now_ms) } else { files.complete() }?;
        self.records_in_file = 0;
        self.deleted = files.deleted();
        if goes_on {
            self.place = files.to_string();
            let (schema, properties) = (Arc::clone(&self.schema), Arc::clone(&self.properties));
            self.writer = Some(SerializedFileWriter::new(files, schema, properties)?);
        }
        Ok(())
    }

    fn is_due(&self, now_ms: u64) -> bool {
        let has_rows = self.records_in_file > 0 || !self.rows.is_empty();
        has_rows && self.writer.as_ref().is_some_and(|writer| writer.inner().is_due(0, now_ms))
    }

    fn write(&mut self, records: &[Record], now_ms: u64) -> Result<(), ParquetError> {
        if self.is_due(now_ms) {
            self.turn(now_ms, true)?;
        }
        for record in records {
            self.rows.push(Known::of(record));
            self.records_brought += 1;
            if self.rows.len() < self.group_records_max {
                continue;
            }
            self.write_group()?;
            let groups = self.writer.as_ref().map_or(0, |file| file.flushed_row_groups().len());
            if self.is_due(now_ms) || groups == GROUPS_MAX {
                self.turn(now_ms, true)?;
            }
        }
        Ok(())
    }

    /// Does something that writes. When that fails the file gets no end, so that nothing of it can be
    /// read: all of its records are counted as not written (those that this call brought, whoever called
    /// counts).
    fn counting(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<(), ParquetError>,
    ) -> Result<(), SinkError> {
        self.records_brought = 0;
        act(self).map_err(|error| {
            let in_file = self.records_in_file + self.rows.len() as u64;
            self.records_unwritten += in_file.saturating_sub(self.records_brought);
            self.writer = None;
            failed(&self.place, error)
        })
    }
}

fn properties() -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("spanwatch-sensor ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Chunk);
    // Nearly every value is another one: a dictionary would only cost.
    for column in ["start_time", "end_time"] {
        properties = properties
            .set_column_dictionary_enabled(ColumnPath::from(column), false)
            .set_column_encoding(ColumnPath::from(column), Encoding::DELTA_BINARY_PACKED);
    }
    properties.set_column_dictionary_enabled(ColumnPath::from("community_id"), false).build()
}

fn failed(place: &str, error: ParquetError) -> SinkError {
    SinkError::Write { to: place.to_owned(), source: io::Error::other(error) }
}

impl Sink for ParquetSink {
    fn name(&self) -> &'static str {
        "parquet"
    }

    fn handle_records(
        &mut self,
        records: &[Record],
        _books: &Books,
        now_ms: u64,
    ) -> Result<(), SinkError> {
        self.counting(|sink| sink.write(records, now_ms))
    }

    fn advance(&mut self, _books: &Books, now_ms: u64) -> Result<(), SinkError> {
        if !self.is_due(now_ms) {
            return Ok(());
        }
        self.counting(|sink| sink.turn(now_ms, true))
    }

    fn finish(&mut self, _books: &Books, now_ms: u64) -> Result<(), SinkError> {
        self.counting(|sink| sink.turn(now_ms, false))
    }

    fn totals(&self) -> SinkTotals {
        SinkTotals {
            records_unwritten: self.records_unwritten,
            files_deleted: self.deleted,
            ..SinkTotals::default()
        }
    }
}
