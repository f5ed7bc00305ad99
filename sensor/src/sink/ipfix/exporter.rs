//! The thread that sends: takes records from a bounded queue, gives messages to the collector. While a
//! connection is down it tries again with growing pauses, and the queue holds what it can. Whatever could
//! not be sent is counted, and nothing here keeps a stopping sensor for longer than it was told.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use flow::Record;
use jiff::Timestamp;

use super::IpfixSettings;
use super::encoder::{Encoder, Message};
use super::link::{Before, Link};
use crate::config::Transport;

/// Longest time that records wait for their message to be full.
const FLUSH_PERIOD: Duration = Duration::from_millis(250);
/// Pause before a connection is tried again; it doubles up to half a minute.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_DOUBLINGS_MAX: u32 = 6;

/// What both threads know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Records in messages that the network took.
    pub(super) records_exported: AtomicU64,
    /// Records that were given up here.
    pub(super) records_unsent: AtomicU64,
    /// Messages and connections that failed.
    pub(super) failures: AtomicU64,
    failing: AtomicBool,
    /// What fails at the moment.
    fault: Mutex<Option<String>>,
}

impl Shared {
    /// What fails at the moment.
    pub(super) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fail(&self, error: &io::Error) {
        self.failures.fetch_add(1, Relaxed);
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        self.failing.store(true, Relaxed);
    }

    fn works(&self) {
        // Asked for each message: the text is touched only when there is one.
        if self.failing.swap(false, Relaxed) {
            *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// The sending thread's part.
pub(super) struct Exporter<'a> {
    settings: &'a IpfixSettings,
    /// By when it has to be done, once that was said.
    closing: &'a Receiver<Instant>,
    deadline: Option<Instant>,
    encoder: Encoder,
    session: Session<'a>,
    /// When templates were last sent again.
    announced: Instant,
}

/// Where messages go at the moment, and what became of them.
struct Session<'a> {
    link: Option<Link>,
    shared: &'a Shared,
    /// Attempts to connect since a message last got through; one that failed counts.
    attempts: u32,
    /// Records in the latest message, of which the system may still tell that it met nobody.
    records_unsettled: u64,
}

impl<'a> Exporter<'a> {
    /// `link` is the first session's, where there is one already.
    pub(super) fn new(
        settings: &'a IpfixSettings,
        shared: &'a Shared,
        closing: &'a Receiver<Instant>,
        link: Option<Link>,
    ) -> Self {
        Self {
            settings,
            closing,
            deadline: None,
            encoder: encoder(settings),
            session: Session { link, shared, attempts: 0, records_unsettled: 0 },
            announced: Instant::now(),
        }
    }

    /// Sends until the queue has no other end any more; emptied lists go back through `spare`.
    pub(super) fn run(mut self, queue: &Receiver<Vec<Record>>, spare: &Sender<Vec<Record>>) {
        let mut flushed = Instant::now();
        loop {
            if !self.connected() {
                break;
            }
            match queue.recv_timeout(FLUSH_PERIOD) {
                Ok(mut records) => {
                    self.export(&records);
                    records.clear();
                    let _enough_spares = spare.try_send(records);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if flushed.elapsed() >= FLUSH_PERIOD {
                self.flush();
                flushed = Instant::now();
            }
        }
        self.flush();
        let session = &mut self.session;
        let latest = session.link.as_ref().map_or(Before::NothingKnown, Link::latest);
        session.settle(latest);
        // Only what came too late for the time that was left.
        let left: u64 = queue.try_iter().map(|records| records.len() as u64).sum();
        session.shared.records_unsent.fetch_add(left, Relaxed);
    }

    fn export(&mut self, records: &[Record]) {
        let export_s = now_s();
        for (at, record) in records.iter().enumerate() {
            if self.session.link.is_none() && !self.connected() {
                let left = (records.len() - at) as u64;
                self.session.shared.records_unsent.fetch_add(left, Relaxed);
                return;
            }
            if self.is_refresh_due() {
                self.encoder.repeat_templates();
                self.announced = Instant::now();
            }
            let Self { encoder, session, .. } = self;
            encoder.handle_record(record, export_s, &mut |message| session.send(message));
        }
    }

    fn flush(&mut self) {
        let Self { encoder, session, .. } = self;
        encoder.poll_message(now_s(), &mut |message| session.send(message));
    }

    /// Over UDP nobody says whether the templates arrived.
    fn is_refresh_due(&self) -> bool {
        self.settings.collector.transport() == Transport::Udp
            && self.announced.elapsed() >= self.settings.template_interval
    }

    /// Whether there is a link, connecting where there is none, for as long as it takes; false when the time
    /// is over.
    fn connected(&mut self) -> bool {
        loop {
            self.look_for_end(Duration::ZERO);
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
            if self.session.link.is_some() {
                return true;
            }
            // What was meant for the session that has ended is counted as not sent.
            self.flush();
            if self.session.attempts > 0 {
                self.wait();
            }
            self.session.attempts = self.session.attempts.saturating_add(1);
            match Link::open(&self.settings.collector) {
                Ok(link) => {
                    // A new session knows no templates, and counts from 0.
                    self.encoder = encoder(self.settings);
                    self.session.link = Some(link);
                    self.session.shared.works();
                }
                Err(error) => self.session.shared.fail(&error),
            }
        }
    }

    /// Waits before the next attempt, longer each time; shorter when it is told to come to an end.
    fn wait(&mut self) {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            std::thread::sleep(PAUSE_MIN.min(left));
        } else {
            let doublings = (self.session.attempts - 1).min(PAUSE_DOUBLINGS_MAX);
            self.look_for_end(PAUSE_MIN * 2_u32.pow(doublings));
        }
    }

    /// Waits until it is told by when it has to be done, if that happens within `pause`.
    fn look_for_end(&mut self, pause: Duration) {
        if self.deadline.is_some() {
            return;
        }
        self.deadline = match self.closing.recv_timeout(pause) {
            Ok(deadline) => Some(deadline),
            Err(RecvTimeoutError::Timeout) => None,
            // Nobody waits any more.
            Err(RecvTimeoutError::Disconnected) => Some(Instant::now()),
        };
    }
}

impl Session<'_> {
    /// Sends a message or counts its records as not sent. A connection that fails is given up; a datagram
    /// that fails says nothing about the next one.
    fn send(&mut self, message: Message<'_>) {
        let records = u64::from(message.records);
        let Some(link) = &mut self.link else {
            self.shared.records_unsent.fetch_add(records, Relaxed);
            return;
        };
        match link.send(message.bytes) {
            Ok(before) => {
                self.settle(before);
                self.records_unsettled = records;
                self.attempts = 0;
            }
            Err(error) => {
                self.settle(Before::NothingKnown);
                self.shared.records_unsent.fetch_add(records, Relaxed);
                self.shared.fail(&error);
                if matches!(self.link, Some(Link::Tcp(_))) {
                    self.link = None;
                    self.attempts = 1;
                }
            }
        }
    }

    /// Counts the latest datagram, now that it is known what became of it.
    fn settle(&mut self, outcome: Before) {
        let records = std::mem::take(&mut self.records_unsettled);
        match outcome {
            Before::NothingKnown => {
                self.shared.records_exported.fetch_add(records, Relaxed);
                if records > 0 {
                    self.shared.works();
                }
            }
            Before::Refused => {
                self.shared.records_unsent.fetch_add(records, Relaxed);
                self.shared.fail(&io::ErrorKind::ConnectionRefused.into());
            }
        }
    }
}

fn encoder(settings: &IpfixSettings) -> Encoder {
    // What a connection has taken needs no repetition.
    let template_messages = match settings.collector.transport() {
        Transport::Udp => settings.template_messages,
        Transport::Tcp => u64::MAX,
    };
    Encoder::new(settings.domain, settings.message_bytes_max, template_messages)
}

/// The time of day, seconds since the Unix epoch, as messages carry it.
fn now_s() -> u32 {
    u32::try_from(Timestamp::now().as_second()).unwrap_or(0)
}
