//! Takes capture files; reads them as if they came over the wire, as fast as is wished, and feeds the picture. Writes
//! no records: that is what `replay` does.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use flow::{Books, Observation};

use super::feed::{Counted, Feed, Position};
use super::speed::{Pace, Speed};
use crate::aggregate::Aggregator;
use crate::config::Config;
use crate::pcap::{CaptureFile, CaptureFileError};
use crate::pipeline::{FoldingTotals, Outcome, SENSOR_VERSION};
use crate::replay::{FrameObserver, ReplayClock, Tick};
use crate::summary::{FileSummary, Summary, frames_text};

/// While a frame is waited for, the picture moves on this often.
const WAIT: Duration = Duration::from_millis(200);
/// Observations handed over at once.
const PENDING_MAX: usize = 256;
/// Frames between two looks at whether to go on.
const FRAMES_PER_LOOK: u64 = 1_024;

/// What the reader is told while it reads.
pub(super) struct Control {
    /// A message, or nobody left to send one, ends it.
    pub(super) stop: Receiver<()>,
    /// It is to wait.
    pub(super) holds: Arc<AtomicBool>,
}

/// Reading was stopped.
struct Stopped;

/// Reads files into a feed.
pub(super) struct Reader {
    control: Control,
    feed: Feed,
    pace: Pace,
    observer: FrameObserver,
    clock: ReplayClock,
    aggregator: Aggregator,
    pending: Vec<Observation>,
    summary: Summary,
    position: Position,
    /// Bytes of the files before this one.
    bytes_before: u64,
    /// The latest epoch's end. Never goes back: where another capture's clock is behind, `behind_ms` is added.
    now_ms: u64,
    behind_ms: u64,
}

impl Reader {
    pub(super) fn new(config: &Config, speed: Speed, control: Control, feed: Feed) -> Self {
        Self {
            control,
            feed,
            pace: Pace::new(speed),
            observer: FrameObserver::default(),
            clock: ReplayClock::new(
                config.capture.epoch_ms.get(),
                config.flows.idle_timeout_ms.get(),
            ),
            aggregator: Aggregator::new(config.aggregator()),
            pending: Vec::with_capacity(PENDING_MAX),
            summary: Summary {
                command: "top",
                sensor_version: SENSOR_VERSION,
                flows_open_max: config.flows.flows_open_max.get(),
                ..Summary::default()
            },
            position: Position::default(),
            bytes_before: 0,
            now_ms: 0,
            behind_ms: 0,
        }
    }

    /// Reads all files, or until it is stopped. A faulty file is told in the outcome; its good frames count.
    pub(super) fn run(mut self, files: &[PathBuf]) -> Outcome {
        let sizes = files.iter().map(|file| {
            let metadata = file.metadata().ok()?;
            metadata.is_file().then_some(metadata.len())
        });
        self.position.bytes = sizes.sum();
        let mut faults = Vec::new();
        for (number, path) in (1..).zip(files) {
            self.position.file = number;
            self.pace.restart();
            let frames_before = self.observer.counts().frames_seen;
            let read = self.read(path);
            let error = match &read {
                Ok(Ok(()) | Err(Stopped)) => None,
                Err(error) => {
                    let cause = std::error::Error::source(error);
                    Some(
                        cause
                            .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
                    )
                }
            };
            faults.extend(error.iter().map(|error| format!("{}: {error}", path.display())));
            self.summary.files.push(FileSummary {
                path: path.clone(),
                frames: self.observer.counts().frames_seen - frames_before,
                error,
            });
            self.bytes_before += path.metadata().map_or(0, |metadata| metadata.len());
            if matches!(read, Ok(Err(Stopped))) {
                break;
            }
        }
        self.flush();
        self.position.ended = true;
        self.show(self.position.time_ms + self.behind_ms, true);
        self.aggregator.finish(&mut |_record| {});
        let (mut summary, counts) = (self.summary, self.observer.counts());
        summary.finished = true;
        describe(&mut summary, &self.observer, &self.aggregator);
        let text = format!("{}{}", frames_text(counts), summary.to_text());
        Outcome { summary, faults, text }
    }

    fn read(&mut self, path: &PathBuf) -> Result<Result<(), Stopped>, CaptureFileError> {
        let source = File::open(path).map_err(CaptureFileError::Open)?;
        let mut file = CaptureFile::open(source)?;
        let mut frames: u64 = 0;
        loop {
            self.position.bytes_read = self.bytes_before + file.offset();
            let Some(frame) = file.next_frame()? else { return Ok(Ok(())) };
            let time_ms = frame.time_ms.unwrap_or(self.position.time_ms);
            if let Err(stopped) = self.wait_for(time_ms, frames.is_multiple_of(FRAMES_PER_LOOK)) {
                return Ok(Err(stopped));
            }
            frames += 1;
            self.position.time_ms = time_ms;
            match self.clock.handle_time(time_ms) {
                Tick::Same => {}
                Tick::Epoch { now_ms } => {
                    self.flush();
                    self.aggregator.advance(now_ms, &mut |_record| {});
                    self.show(now_ms, false);
                }
                Tick::Separate => {
                    self.flush();
                    self.aggregator.finish(&mut |_record| {});
                    self.behind_ms = self.now_ms.saturating_sub(time_ms);
                }
            }
            self.pending.extend(self.observer.handle_frame(&frame, time_ms));
            if self.pending.len() >= PENDING_MAX {
                self.flush();
            }
        }
    }

    /// Waits until a frame of this time is due; looks whether to go on at all, at least where `looks`.
    fn wait_for(&mut self, time_ms: u64, looks: bool) -> Result<(), Stopped> {
        let mut wait = self.pace.wait(time_ms, Instant::now());
        if wait.is_zero() && !looks {
            return Ok(());
        }
        loop {
            let holds = self.control.holds.load(Ordering::Relaxed);
            if holds {
                self.pace.restart();
                wait = WAIT;
            }
            match self.control.stop.recv_timeout(wait.min(WAIT)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
            }
            if wait.is_zero() {
                return Ok(());
            }
            if holds {
                wait = WAIT;
                if !self.control.holds.load(Ordering::Relaxed) {
                    wait = self.pace.wait(time_ms, Instant::now());
                }
                continue;
            }
            self.flush();
            if let Some(now_ms) = self.pace.time_ms(Instant::now()) {
                self.show(now_ms.min(time_ms) + self.behind_ms, false);
            }
            wait = self.pace.wait(time_ms, Instant::now());
        }
    }

    fn flush(&mut self) {
        self.aggregator.handle_observations(&self.pending, &mut |_record| {});
        for seen in &mut self.pending {
            seen.first_ms += self.behind_ms;
            seen.last_ms += self.behind_ms;
        }
        self.feed.handle_observations(&self.pending);
        self.pending.clear();
    }

    fn show(&mut self, now_ms: u64, is_last: bool) {
        self.now_ms = self.now_ms.max(now_ms);
        let totals = self.aggregator.totals();
        let counted = Counted {
            frames: self.observer.counts().frames_seen,
            packets: totals.packets_in,
            bytes: totals.bytes_in,
            flows: totals.flows_opened,
        };
        let Self { feed, summary, observer, aggregator, position, .. } = self;
        feed.handle_epoch(self.now_ms, counted, is_last, || {
            describe(summary, observer, aggregator);
            (summary.clone(), Some(position.clone()))
        });
    }
}

/// Brings the summary up to date.
fn describe(summary: &mut Summary, observer: &FrameObserver, aggregator: &Aggregator) {
    let (counts, totals) = (observer.counts(), aggregator.totals());
    let books = Books {
        frames_seen: counts.frames_seen,
        packets_ip: counts.packets_ip,
        packets_not_ip: counts.packets_not_ip(),
        packets_malformed: counts.packets_malformed(),
        packets_in_flows: totals.packets_in,
        records_out: totals.records_out,
        ..Books::default()
    };
    summary.handle_books(&books, &totals, &FoldingTotals::default(), aggregator.flows_open());
    summary.handle_ethertypes(&counts.not_ip);
    summary.handle_malformed(&counts.malformed);
    summary.handle_traits(&counts.traits);
}

#[cfg(test)]
mod tests;
