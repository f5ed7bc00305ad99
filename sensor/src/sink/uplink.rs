//! Takes records; seals them into batches that the outbox stores on disk. Never waits for the
//! network. While the disk refuses, it holds a bounded number of records and tries again; what does
//! not fit is counted.

use flow::{Books, Record};
use uplink::Outbox;

use super::{Sink, SinkError, SinkTotals};

/// Records held while the spool cannot be written: eight batches of the usual size.
const PENDING_RECORDS_MAX: usize = 65_536;

/// How often it is told that a full spool gives up records.
const EVICTION_WARNING_PERIOD_MS: u64 = 60_000;

/// When a batch is sealed.
#[derive(Clone, Copy, Debug)]
pub struct SealingSettings {
    /// Records of one batch.
    pub batch_records_max: usize,
    /// Longest time before a batch is sealed, milliseconds.
    pub batch_interval_ms: u64,
    /// Size of the spool, as the outbox was told.
    pub spool_bytes_max: u64,
}

/// Seals records.
pub struct UplinkSink {
    outbox: Outbox,
    settings: SealingSettings,
    pending: Vec<Record>,
    /// When the oldest pending record came.
    waiting_since_ms: Option<u64>,
    failing: bool,
    records_lost: u64,
    /// When it was last told that the spool gives up records.
    eviction_warned_ms: Option<u64>,
}

impl UplinkSink {
    /// A sink in front of an open outbox.
    #[must_use]
    pub fn new(outbox: Outbox, settings: SealingSettings) -> Self {
        Self {
            outbox,
            settings,
            pending: Vec::with_capacity(settings.batch_records_max),
            waiting_since_ms: None,
            failing: false,
            records_lost: 0,
            eviction_warned_ms: None,
        }
    }

    fn seal(&mut self, books: &Books, now_ms: u64) -> Result<(), SinkError> {
        let count = self.pending.len().min(self.settings.batch_records_max);
        match self.outbox.seal(&self.pending[..count], books, now_ms) {
            Ok(sealed) => {
                self.failing = false;
                if sealed.evicted_records > 0 {
                    self.warn_of_eviction(now_ms);
                }
                self.pending.drain(..count);
                self.waiting_since_ms = (!self.pending.is_empty()).then_some(now_ms);
                Ok(())
            }
            Err(error) => {
                self.failing = true;
                Err(SinkError::Spool(Box::new(error)))
            }
        }
    }

    fn warn_of_eviction(&mut self, now_ms: u64) {
        let is_due = |at: u64| now_ms.abs_diff(at) >= EVICTION_WARNING_PERIOD_MS;
        if self.eviction_warned_ms.is_none_or(is_due) {
            self.eviction_warned_ms = Some(now_ms);
            tracing::warn!(
                "the spool is full ({} bytes): {} records so far were given up before the backend \
                 had them",
                self.settings.spool_bytes_max,
                self.outbox.totals().records_evicted
            );
        }
    }
}

impl Sink for UplinkSink {
    fn name(&self) -> &'static str {
        "uplink"
    }

    fn handle_records(
        &mut self,
        records: &[Record],
        books: &Books,
        now_ms: u64,
    ) -> Result<(), SinkError> {
        self.pending.extend_from_slice(records);
        let excess = self.pending.len().saturating_sub(PENDING_RECORDS_MAX);
        if excess > 0 {
            self.pending.drain(..excess);
            self.records_lost += excess as u64;
        }
        self.waiting_since_ms.get_or_insert(now_ms);
        // A spool that refused is tried again when time has passed, not at every record.
        while !self.failing && self.pending.len() >= self.settings.batch_records_max {
            self.seal(books, now_ms)?;
        }
        Ok(())
    }

    fn advance(&mut self, books: &Books, now_ms: u64) -> Result<(), SinkError> {
        let Some(since_ms) = self.waiting_since_ms else {
            return Ok(());
        };
        if now_ms.saturating_sub(since_ms) < self.settings.batch_interval_ms && now_ms >= since_ms {
            return Ok(());
        }
        self.seal(books, now_ms)?;
        while self.pending.len() >= self.settings.batch_records_max {
            self.seal(books, now_ms)?;
        }
        Ok(())
    }

    fn finish(&mut self, books: &Books, now_ms: u64) -> Result<(), SinkError> {
        while !self.pending.is_empty() {
            if let Err(error) = self.seal(books, now_ms) {
                self.records_lost += self.pending.len() as u64;
                self.pending.clear();
                return Err(error);
            }
        }
        Ok(())
    }

    fn totals(&self) -> SinkTotals {
        let totals = self.outbox.totals();
        SinkTotals {
            records_sealed: totals.records_sealed,
            batches_sealed: totals.batches_sealed,
            records_evicted: totals.records_evicted,
            records_waiting: totals.records_waiting,
            records_lost: self.records_lost,
            records_pending: self.pending.len() as u64,
            spool_bytes: totals.spool_bytes,
            batches_quarantined: totals.recovery.batches_quarantined,
            ..SinkTotals::default()
        }
    }

    fn recovers(&self) -> bool {
        true
    }

    fn still_fails(&self) -> bool {
        self.failing
    }

    fn is_crowded(&self) -> bool {
        self.outbox.totals().spool_bytes > self.settings.spool_bytes_max / 4 * 3
    }
}
