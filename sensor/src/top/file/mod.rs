//! Takes capture files; reads them as if they came over the wire, as fast as is wished, and feeds
//! the picture. Writes no records: that is what `replay` does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flow::{Books, Observation};

use super::feed::{Counted, Feed, Position};
use crate::aggregate::{Aggregator, FlowTable as _};
use crate::config::Config;
use crate::pcap::{CaptureFile, CaptureFileError};
use crate::pipeline::{
    FoldingTotals, Input, Outcome, Pacer, SENSOR_VERSION, Speed, Stop, input_name, input_size,
};
use crate::replay::{FrameObserver, ReplayClock, Tick};
use crate::summary::{CaptureTally, FileSummary, Summary};

/// While a frame is waited for, the picture moves on this often.
const WAIT: Duration = Duration::from_millis(200);
/// Observations handed over at once.
const PENDING_MAX: usize = 256;
/// Frames between two looks at whether to go on.
const FRAMES_PER_LOOK: u64 = 1_024;

/// What the reader is told while it reads.
pub(super) struct Control {
    /// Ends it.
    pub(super) stop: Arc<Stop>,
    /// It is to wait.
    pub(super) holds: Arc<AtomicBool>,
}

/// Reads files into a feed.
pub(super) struct Reader {
    control: Control,
    feed: Feed,
    /// Says when frames are due; none when they are due at once.
    pacer: Option<Pacer>,
    observer: FrameObserver,
    clock: ReplayClock,
    aggregator: Aggregator,
    pending: Vec<Observation>,
    tally: CaptureTally,
    summary: Summary,
    position: Position,
    /// Bytes read of all files so far, as they are in the files.
    bytes_read: Arc<AtomicU64>,
    /// The latest epoch's end. Never goes back: where another capture's clock is behind,
    /// `behind_ms` is added.
    now_ms: u64,
    behind_ms: u64,
}

impl Reader {
    pub(super) fn new(config: &Config, speed: Speed, control: Control, feed: Feed) -> Self {
        Self {
            control,
            feed,
            pacer: Pacer::new(speed),
            observer: FrameObserver::new(config.capture.deduplicate),
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
            tally: CaptureTally::default(),
            position: Position::default(),
            bytes_read: Arc::default(),
            now_ms: 0,
            behind_ms: 0,
        }
    }

    /// Reads all files, or until it is stopped. A faulty file is told in the outcome; its good
    /// frames count.
    pub(super) fn run(mut self, files: &[PathBuf]) -> Outcome {
        self.position.bytes = files.iter().map(|file| input_size(file)).sum();
        let mut faults = Vec::new();
        for (number, path) in (1..).zip(files) {
            self.position.file = number;
            faults.extend(self.read(path));
            if self.control.stop.is_requested() {
                self.tally.stopped = true;
                break;
            }
        }
        self.flush();
        self.position.ended = true;
        self.show(self.position.time_ms + self.behind_ms, true);
        let Self { mut summary, observer, mut aggregator, mut tally, .. } = self;
        aggregator.finish(&mut |record| tally.handle_record(&record));
        summary.finished = true;
        describe(&mut summary, &observer, &aggregator);
        let text = tally.to_text(observer.counts()) + &summary.to_text();
        Outcome { summary, faults, text }
    }

    /// Reads a file; gives what is wrong with it.
    fn read(&mut self, path: &Path) -> Option<String> {
        if let Some(pacer) = &mut self.pacer {
            pacer.handle_file();
        }
        let frames_before = self.observer.counts().frames_seen;
        let bytes_before = self.bytes_read.load(Ordering::Relaxed);
        let mut told = FileSummary { path: path.to_owned(), ..FileSummary::default() };
        let read = self.read_frames(path, &mut told);
        told.frames = self.observer.counts().frames_seen - frames_before;
        told.bytes = self.bytes_read.load(Ordering::Relaxed) - bytes_before;
        // What was stopped in the middle of a file is not at fault.
        told.error = read.err().filter(|_| !self.control.stop.is_requested()).map(|error| {
            let cause = std::error::Error::source(&error);
            cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
        });
        let fault = told.error.as_ref().map(|error| format!("{}: {error}", input_name(path)));
        self.tally.handle_file(&told);
        self.summary.files.push(told);
        fault
    }

    fn read_frames(&mut self, path: &Path, told: &mut FileSummary) -> Result<(), CaptureFileError> {
        let input = Input::open(path, &self.control.stop, &self.bytes_read)?;
        let mut file = CaptureFile::open(input)?;
        told.compression = file.compression();
        let mut frames: u64 = 0;
        loop {
            let Some(frame) = file.next_frame()? else { return Ok(()) };
            let time_ms = frame.time_ms.unwrap_or(self.position.time_ms);
            if !self.wait_for(time_ms, frames.is_multiple_of(FRAMES_PER_LOOK)) {
                return Ok(());
            }
            frames += 1;
            self.position.time_ms = time_ms;
            self.tally.handle_link(frame.link);
            match self.clock.handle_time(time_ms) {
                Tick::Same => {}
                Tick::Epoch { now_ms } => {
                    self.flush();
                    let Self { aggregator, tally, .. } = self;
                    aggregator.advance(now_ms, &mut |record| tally.handle_record(&record));
                    self.show(now_ms, false);
                }
                Tick::Separate => {
                    self.flush();
                    let Self { aggregator, tally, .. } = self;
                    aggregator.finish(&mut |record| tally.handle_record(&record));
                    self.behind_ms = self.now_ms.saturating_sub(time_ms);
                }
            }
            self.pending.extend(self.observer.handle_frame(&frame, time_ms));
            if self.pending.len() >= PENDING_MAX {
                self.flush();
            }
        }
    }

    /// Waits until a frame of this time is due, and says whether to go on; looks at that where
    /// `looks`, too.
    fn wait_for(&mut self, time_ms: u64, looks: bool) -> bool {
        loop {
            let holds = self.control.holds.load(Ordering::Relaxed);
            let left = match &mut self.pacer {
                _ if holds => Some(WAIT),
                Some(pacer) => {
                    let now = Instant::now();
                    let due = pacer.handle_time(time_ms, now);
                    due.map(|due| due.saturating_duration_since(now))
                }
                None => None,
            };
            let Some(left) = left else {
                return !looks || !self.control.stop.is_requested();
            };
            if self.control.stop.wait(left.min(WAIT)) {
                return false;
            }
            if holds {
                self.pacer.iter_mut().for_each(Pacer::restart);
            } else {
                self.flush();
                let at_ms = self.pacer.as_ref().and_then(|pacer| pacer.time_ms(Instant::now()));
                self.show(at_ms.unwrap_or(0).min(time_ms) + self.behind_ms, false);
            }
        }
    }

    fn flush(&mut self) {
        let Self { aggregator, pending, tally, .. } = self;
        aggregator.handle_observations(pending, &mut |record| tally.handle_record(&record));
        for seen in &mut self.pending {
            seen.first_ms += self.behind_ms;
            seen.last_ms += self.behind_ms;
        }
        self.feed.handle_observations(&self.pending);
        self.pending.clear();
    }

    fn show(&mut self, now_ms: u64, is_last: bool) {
        self.now_ms = self.now_ms.max(now_ms);
        self.position.bytes_read = self.bytes_read.load(Ordering::Relaxed);
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
        packets_duplicate: counts.packets_duplicate,
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
