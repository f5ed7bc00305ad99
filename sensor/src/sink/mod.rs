//! Takes records; hands them to every output. An output that fails does not stop the others: its
//! error is told once, and what it did not get is counted.

mod files;
mod ipfix;
mod known;
mod parquet;
#[cfg(test)]
mod records;
#[cfg(test)]
mod tests;
mod text;
mod uplink;

use std::io;

use flow::{Books, Record};
use thiserror::Error;

use crate::privacy::PrivacyTotals;

pub use self::parquet::ParquetSink;
pub use files::{Files, Rotation};
pub use ipfix::{IpfixSettings, IpfixSink, ipfix_messages};
pub use text::{JsonLines, TextSink};
pub use uplink::{SealingSettings, UplinkSink};

/// Records handed over at once.
const BUFFER_RECORDS: usize = 1_024;

/// Why an output did not take records.
#[derive(Debug, Error)]
pub enum SinkError {
    /// A file or a pipe cannot be written: the disk is full, or the reader has gone.
    #[error("cannot write {to}")]
    Write {
        /// Which one.
        to: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A collector cannot be reached, or does not take what is sent.
    #[error("cannot send to {to}")]
    Export {
        /// Which one.
        to: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A batch cannot be sealed or stored in the spool.
    #[error("cannot spool")]
    Spool(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What an output has done for the books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkTotals {
    /// Records sealed into batches.
    pub records_sealed: u64,
    /// Batches sealed.
    pub batches_sealed: u64,
    /// Sealed records that a full spool gave up.
    pub records_evicted: u64,
    /// Sealed records that wait in the spool, those of earlier starts included.
    pub records_waiting: u64,
    /// Records that were never sealed because the spool could not be written.
    pub records_lost: u64,
    /// Records that wait to be sealed.
    pub records_pending: u64,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// Spool files that were found damaged, and moved aside.
    pub batches_quarantined: u64,
    /// Records of earlier calls that were held back when they could not be written.
    pub records_unwritten: u64,
    /// Records that were given to the network on their way to a collector.
    pub records_exported: u64,
    /// Records that could not be.
    pub records_unsent: u64,
    /// Complete files that were deleted because there were too many.
    pub files_deleted: u64,
    /// What was kept at home, and which pseudonyms were given, on the way to the backend.
    pub privacy: PrivacyTotals,
}

/// Where records go.
pub trait Sink: Send {
    /// Its name in configuration and messages.
    fn name(&self) -> &'static str;

    /// Takes records. `books` are the counts when they were handed over, `now_ms` the time of day.
    ///
    /// # Errors
    /// When they cannot be written now or ever.
    fn handle_records(
        &mut self,
        records: &[Record],
        books: &Books,
        now_ms: u64,
    ) -> Result<(), SinkError>;

    /// Does what is due: flush, seal.
    ///
    /// # Errors
    /// When it cannot be done.
    fn advance(&mut self, books: &Books, now_ms: u64) -> Result<(), SinkError>;

    /// Writes out everything that is held back.
    ///
    /// # Errors
    /// When it cannot be done.
    fn finish(&mut self, books: &Books, now_ms: u64) -> Result<(), SinkError>;

    /// What it adds to the books.
    fn totals(&self) -> SinkTotals {
        SinkTotals::default()
    }

    /// Whether it may be called again after an error.
    fn recovers(&self) -> bool {
        false
    }

    /// Whether the fault of an earlier call lasts although this one gave no error, because it did
    /// not try.
    fn still_fails(&self) -> bool {
        false
    }

    /// Whether a source that can wait should wait, lest this output give records up.
    fn is_crowded(&self) -> bool {
        false
    }
}

/// Takes records and drops them: for measuring.
pub struct NullSink;

impl Sink for NullSink {
    fn name(&self) -> &'static str {
        "null"
    }

    fn handle_records(&mut self, _: &[Record], _: &Books, _: u64) -> Result<(), SinkError> {
        Ok(())
    }

    fn advance(&mut self, _books: &Books, _now_ms: u64) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self, _books: &Books, _now_ms: u64) -> Result<(), SinkError> {
        Ok(())
    }
}

/// One output and how it fares.
struct Output {
    sink: Box<dyn Sink>,
    /// It is failing: the error was told and is not told again until it works.
    failing: bool,
    /// It has failed for good.
    dead: bool,
    failures: u64,
    /// What the latest failure was.
    fault: Option<String>,
    records_missed: u64,
}

/// All outputs of a sensor.
pub struct Outputs {
    each_output: Vec<Output>,
    buffer: Vec<Record>,
    books: Books,
    now_ms: u64,
}

impl Outputs {
    /// Outputs, in the order in which they get each record.
    #[must_use]
    pub fn new(sinks: Vec<Box<dyn Sink>>) -> Self {
        let each_output = sinks
            .into_iter()
            .map(|sink| Output {
                sink,
                failing: false,
                dead: false,
                failures: 0,
                fault: None,
                records_missed: 0,
            })
            .collect();
        Self {
            each_output,
            buffer: Vec::with_capacity(BUFFER_RECORDS),
            books: Books::default(),
            now_ms: 0,
        }
    }

    /// Their names, in that order.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.each_output.iter().map(|output| output.sink.name()).collect()
    }

    /// Takes one record.
    pub fn handle_record(&mut self, record: Record) {
        self.books.records_out += 1;
        self.buffer.push(record);
        if self.buffer.len() == BUFFER_RECORDS {
            self.flush();
        }
    }

    /// Takes the state of the capture and the time of day; lets every output do what is due. The
    /// fields about records in `captured` are ignored: the outputs know them.
    pub fn advance(&mut self, captured: &Books, now_ms: u64) {
        self.update(captured, now_ms);
        self.flush();
        let (books, now_ms) = (self.books, self.now_ms);
        self.each(|sink| sink.advance(&books, now_ms));
        self.update(captured, now_ms);
    }

    /// Writes out everything that is held back.
    pub fn finish(&mut self, captured: &Books, now_ms: u64) {
        self.update(captured, now_ms);
        self.flush();
        let (books, now_ms) = (self.books, self.now_ms);
        self.each(|sink| sink.finish(&books, now_ms));
        self.update(captured, now_ms);
    }

    /// The books with what the outputs did.
    #[must_use]
    pub fn books(&self) -> Books {
        self.books
    }

    /// The sum of what the outputs did.
    #[must_use]
    pub fn totals(&self) -> SinkTotals {
        self.each_output.iter().map(|output| output.sink.totals()).fold(
            SinkTotals::default(),
            |sum, one| SinkTotals {
                records_sealed: sum.records_sealed + one.records_sealed,
                batches_sealed: sum.batches_sealed + one.batches_sealed,
                records_evicted: sum.records_evicted + one.records_evicted,
                records_waiting: sum.records_waiting + one.records_waiting,
                records_lost: sum.records_lost + one.records_lost,
                records_pending: sum.records_pending + one.records_pending,
                spool_bytes: sum.spool_bytes + one.spool_bytes,
                batches_quarantined: sum.batches_quarantined + one.batches_quarantined,
                records_unwritten: sum.records_unwritten + one.records_unwritten,
                records_exported: sum.records_exported + one.records_exported,
                records_unsent: sum.records_unsent + one.records_unsent,
                files_deleted: sum.files_deleted + one.files_deleted,
                // There is one link at most.
                privacy: if one.privacy == PrivacyTotals::default() {
                    sum.privacy
                } else {
                    one.privacy
                },
            },
        )
    }

    /// Failed calls of all outputs.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.each_output.iter().map(|output| output.failures).sum()
    }

    /// What the latest failure of each output was that still fails, and how many there were. One that
    /// works again is not among them: what it lost, if anything, the totals say.
    pub fn faults(&self) -> impl Iterator<Item = String> {
        let failing = self.each_output.iter().filter(|output| output.failing || output.dead);
        failing.filter_map(|output| {
            let fault = output.fault.as_ref()?;
            let times = if output.failures == 1 { "" } else { ", not only once" };
            Some(format!("{fault}{times}"))
        })
    }

    /// Records that an output that has failed for good did not get, or got in part only.
    #[must_use]
    pub fn records_missed(&self) -> u64 {
        let missed =
            |output: &Output| output.records_missed + output.sink.totals().records_unwritten;
        self.each_output.iter().map(missed).sum()
    }

    /// Whether every output has failed for good: nothing that is read has an effect any more.
    #[must_use]
    pub fn all_dead(&self) -> bool {
        !self.each_output.is_empty() && self.each_output.iter().all(|output| output.dead)
    }

    /// Whether a source that can wait should wait, lest an output give records up.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.each_output.iter().any(|output| output.sink.is_crowded())
    }

    fn update(&mut self, captured: &Books, now_ms: u64) {
        let totals = self.totals();
        self.now_ms = now_ms;
        self.books = Books {
            records_out: self.books.records_out,
            records_sealed: totals.records_sealed,
            records_evicted: totals.records_evicted,
            ..totals.privacy.books(*captured)
        };
    }

    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        let (books, now_ms) = (self.books, self.now_ms);
        self.each(|sink| sink.handle_records(&buffer, &books, now_ms));
        for output in self.each_output.iter_mut().filter(|output| output.dead) {
            output.records_missed += buffer.len() as u64;
        }
        self.buffer = buffer;
        self.buffer.clear();
    }

    fn each(&mut self, mut act: impl FnMut(&mut dyn Sink) -> Result<(), SinkError>) {
        for output in self.each_output.iter_mut().filter(|output| !output.dead) {
            match act(output.sink.as_mut()) {
                Ok(()) if output.failing && !output.sink.still_fails() => {
                    output.failing = false;
                    tracing::info!("output `{}` works again", output.sink.name());
                }
                Ok(()) => {}
                Err(error) => {
                    output.failures += 1;
                    output.dead = !output.sink.recovers();
                    let cause = std::error::Error::source(&error)
                        .map_or_else(String::new, |cause| format!(": {cause}"));
                    let fault = format!("output `{}`: {error}{cause}", output.sink.name());
                    if !output.failing {
                        tracing::error!("{fault}");
                    }
                    output.fault = Some(fault);
                    output.failing = true;
                }
            }
        }
    }
}
