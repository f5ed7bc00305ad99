//! Takes records; keeps at home what `privacy` says, and seals the rest, with its pseudonyms, into batches that the
//! outbox stores on disk. Never waits for the network, never sends an address that should have a
//! pseudonym. While the disk refuses, it holds a bounded number of records and tries again; what does
//! not fit is counted.

use flow::{Books, Record};
use uplink::{Outbox, SealedInfo};

use super::{Sink, SinkError, SinkTotals};
use crate::privacy::Privacy;

/// Records held while the spool cannot be written: eight batches of the usual size.
const PENDING_RECORDS_MAX: usize = 65_536;

/// How often the backend is told of what is kept at home, at least, when there is nothing else to send.
const KEPT_PERIOD_MS: u64 = 60_000;

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
    privacy: Privacy,
    settings: SealingSettings,
    /// As they were seen.
    pending: Vec<Record>,
    /// Those of one batch, made ready.
    prepared: Vec<Record>,
    /// When something was kept at home that no batch says.
    kept_since_ms: Option<u64>,
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
    pub fn new(outbox: Outbox, privacy: Privacy, settings: SealingSettings) -> Self {
        Self {
            outbox,
            privacy,
            settings,
            pending: Vec::with_capacity(settings.batch_records_max),
            prepared: Vec::with_capacity(settings.batch_records_max),
            kept_since_ms: None,
            waiting_since_ms: None,
            failing: false,
            records_lost: 0,
            eviction_warned_ms: None,
        }
    }

    fn seal(&mut self, books: &Books, now_ms: u64) -> Result<(), SinkError> {
        let count = self.pending.len().min(self.settings.batch_records_max);
        match self.seal_first(count, books, now_ms) {
            Ok(sealed) => {
                self.failing = false;
                self.kept_since_ms = None;
                if sealed.evicted_records > 0 {
                    self.warn_of_eviction(now_ms);
                }
                self.pending.drain(..count);
                self.waiting_since_ms = (!self.pending.is_empty()).then_some(now_ms);
                Ok(())
            }
            Err(error) => {
                self.failing = true;
                Err(SinkError::Spool(error))
            }
        }
    }

    /// Seals the first of the pending records. They stay as they are, so that it can be tried again.
    fn seal_first(
        &mut self,
        count: usize,
        books: &Books,
        now_ms: u64,
    ) -> Result<SealedInfo, Box<dyn std::error::Error + Send + Sync>> {
        self.prepared.clear();
        self.prepared.extend_from_slice(&self.pending[..count]);
        let key_epoch = self.privacy.prepare(&mut self.prepared, now_ms)?;
        let books = self.privacy.totals().books(*books);
        Ok(self.outbox.seal_pseudonyms(&self.prepared, key_epoch, &books, now_ms)?)
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
        let before = self.pending.len();
        self.pending.extend(records.iter().filter(|record| !self.privacy.keeps(record)));
        if self.pending.len() - before < records.len() {
            self.kept_since_ms.get_or_insert(now_ms);
        }
        let excess = self.pending.len().saturating_sub(PENDING_RECORDS_MAX);
        if excess > 0 {
            self.pending.drain(..excess);
            self.records_lost += excess as u64;
        }
        if !self.pending.is_empty() {
            self.waiting_since_ms.get_or_insert(now_ms);
        }
        // A spool that refused is tried again when time has passed, not at every record.
        while !self.failing && self.pending.len() >= self.settings.batch_records_max {
            self.seal(books, now_ms)?;
        }
        Ok(())
    }

    fn advance(&mut self, books: &Books, now_ms: u64) -> Result<(), SinkError> {
        let is_due = |since_ms: Option<u64>, period_ms: u64| {
            // A clock that was set back is no reason to wait longer.
            since_ms.is_some_and(|since_ms| {
                now_ms < since_ms || now_ms.saturating_sub(since_ms) >= period_ms
            })
        };
        // A batch without records, if need be: it says how many were kept.
        if !is_due(self.waiting_since_ms, self.settings.batch_interval_ms)
            && !is_due(self.kept_since_ms, KEPT_PERIOD_MS)
        {
            return Ok(());
        }
        self.seal(books, now_ms)?;
        while self.pending.len() >= self.settings.batch_records_max {
            self.seal(books, now_ms)?;
        }
        Ok(())
    }

    fn finish(&mut self, books: &Books, now_ms: u64) -> Result<(), SinkError> {
        while !self.pending.is_empty() || self.kept_since_ms.is_some() {
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
            privacy: self.privacy.totals(),
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
