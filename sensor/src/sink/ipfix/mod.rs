//! Takes records; exports them to an IPFIX collector (RFC 7011, biflows after RFC 5103) over UDP or TCP. A
//! thread of its own sends, behind a bounded queue, so that a collector that is slow or away never holds up
//! the flows. What finds no room in the queue, and what could not be sent, is counted.

mod encoder;
mod exporter;
mod link;
mod template;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use flow::{Books, Record};

use super::{Sink, SinkError, SinkTotals};
use crate::config::{Collector, Transport};
use encoder::{Encoder, MESSAGE_BYTES_MIN};
use exporter::{Exporter, Shared};
use link::Link;

/// Lists of records that wait for the sending thread: with those of one call of the outputs, up to 65,536
/// records, or about 15 MB.
const QUEUE_LISTS_MAX: usize = 64;

/// Messages of one session in memory, as a collector would get them one after another, for whoever compares formats.
pub fn ipfix_messages(
    records: &[Record],
    message_bytes_max: usize,
    export_s: u32,
    out: &mut Vec<u8>,
) {
    let mut encoder = Encoder::new(0, message_bytes_max.max(MESSAGE_BYTES_MIN), u64::MAX);
    let mut keep = |message: encoder::Message<'_>| out.extend_from_slice(message.bytes);
    for record in records {
        encoder.handle_record(record, export_s, &mut keep);
    }
    encoder.poll_message(export_s, &mut keep);
}

/// How records are exported.
#[derive(Clone, Debug)]
pub struct IpfixSettings {
    /// Where to.
    pub collector: Collector,
    /// Observation domain of every message.
    pub domain: u32,
    /// Longest message, bytes; at least 512.
    pub message_bytes_max: usize,
    /// Over UDP, longest time until templates are sent again.
    pub template_interval: Duration,
    /// Over UDP, messages until templates are sent again.
    pub template_messages: u64,
    /// How long to wait for room in the queue: not at all where the flows cannot wait.
    pub patience: Duration,
    /// How long a stopping sensor goes on sending.
    pub closing_time: Duration,
}

/// Exports records.
pub struct IpfixSink {
    collector: Collector,
    patience: Duration,
    closing_time: Duration,
    /// `None` once it has finished.
    queue: Option<Sender<Vec<Record>>>,
    spare: Receiver<Vec<Record>>,
    closing: Sender<Instant>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The queue was full for longer than patience allows: nobody waits again before there is room.
    stalled: bool,
    /// Records that found no room in the queue.
    records_refused: u64,
    /// Failures that were told.
    failures_told: u64,
}

impl IpfixSink {
    /// Starts the sending thread. A collector that does not answer yet is no error; one whose name has no
    /// address is.
    ///
    /// # Errors
    /// When the collector's name is not known, or there is no socket or thread to be had.
    pub fn start(settings: IpfixSettings) -> io::Result<Self> {
        let collector = settings.collector.clone();
        let link = match collector.transport() {
            Transport::Udp => Some(Link::open(&collector)?),
            Transport::Tcp => {
                collector.resolve()?;
                None
            }
        };
        let (patience, closing_time) = (settings.patience, settings.closing_time);
        let (queue, queued) = bounded(QUEUE_LISTS_MAX);
        let (emptied, spare) = bounded(QUEUE_LISTS_MAX);
        let (closing, told) = bounded(1);
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("ipfix".to_owned()).spawn(move || {
                Exporter::new(&settings, &shared, &told, link).run(&queued, &emptied);
            })?
        };
        Ok(Self {
            collector,
            patience,
            closing_time,
            queue: Some(queue),
            spare,
            closing,
            shared,
            thread: Some(thread),
            stalled: false,
            records_refused: 0,
            failures_told: 0,
        })
    }

    fn enqueue(&mut self, records: &[Record]) {
        let Some(queue) = &self.queue else {
            self.records_refused += records.len() as u64;
            return;
        };
        let mut list = self.spare.try_recv().unwrap_or_default();
        list.extend_from_slice(records);
        let refused = match queue.try_send(list) {
            Ok(()) => {
                self.stalled = false;
                return;
            }
            Err(TrySendError::Full(list)) if !self.stalled && !self.patience.is_zero() => {
                match queue.send_timeout(list, self.patience) {
                    Ok(()) => return,
                    Err(error) => error.into_inner(),
                }
            }
            Err(error) => error.into_inner(),
        };
        self.stalled = true;
        self.records_refused += refused.len() as u64;
    }

    /// Tells a new failure, once.
    fn tell(&mut self) -> Result<(), SinkError> {
        let failures = self.shared.failures.load(Relaxed);
        let is_new = failures > self.failures_told;
        self.failures_told = failures;
        match self.shared.fault() {
            Some(fault) if is_new => Err(SinkError::Export {
                to: self.collector.to_string(),
                source: io::Error::other(fault),
            }),
            _ => Ok(()),
        }
    }
}

impl Sink for IpfixSink {
    fn name(&self) -> &'static str {
        "ipfix"
    }

    fn handle_records(
        &mut self,
        records: &[Record],
        _books: &Books,
        _now_ms: u64,
    ) -> Result<(), SinkError> {
        self.enqueue(records);
        Ok(())
    }

    fn advance(&mut self, _books: &Books, _now_ms: u64) -> Result<(), SinkError> {
        self.tell()
    }

    fn finish(&mut self, _books: &Books, _now_ms: u64) -> Result<(), SinkError> {
        self.queue = None;
        let _told_already = self.closing.try_send(Instant::now() + self.closing_time);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            let source = io::Error::other("the sending thread stopped by a fault of its own");
            return Err(SinkError::Export { to: self.collector.to_string(), source });
        }
        self.tell()
    }

    fn totals(&self) -> SinkTotals {
        SinkTotals {
            records_exported: self.shared.records_exported.load(Relaxed),
            records_unsent: self.shared.records_unsent.load(Relaxed) + self.records_refused,
            ..SinkTotals::default()
        }
    }

    fn recovers(&self) -> bool {
        true
    }

    fn still_fails(&self) -> bool {
        self.shared.fault().is_some()
    }
}
