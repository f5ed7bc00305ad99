//! Takes capture files; runs their frames through parser, aggregator and outputs on the capture's
//! own clock, as fast as they can be read or at a chosen pace. A signal ends it between two frames,
//! with everything written that was read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::input::{self, Input};
use super::kernel::stop_on_signals;
use super::progress::Progress;
use super::speed::Pacer;
use super::stop::Stop;
use super::{
    FoldingTotals, Options, Outcome, Patience, PipelineError, SENSOR_VERSION, Stage,
    aggregating_cpu, flow_table, pin, wall_ms,
};
use crate::config::Config;
use crate::pcap::{CaptureFile, CaptureFileError};
use crate::replay::{Replay, ReplayClock};
use crate::summary::{CaptureTally, FileSummary, Summary};

/// Frames between two looks at the machine's clock.
const FRAMES_PER_LOOK: u64 = 4_096;
/// How often outputs flush and the progress bar moves.
const FLUSH_PERIOD: Duration = Duration::from_millis(250);

/// Why a file was not read to its end although it is whole.
const STOPPED: &str = "stopped before its end";

/// Replays `files` one after another, as one capture; `-` is standard input. SIGINT, SIGTERM or SIGHUP
/// end it early.
///
/// # Errors
/// When an output cannot be opened. A faulty file is told in [`Outcome::faults`]; its good frames
/// count.
pub fn replay(
    config: &Config,
    options: &Options,
    files: &[PathBuf],
) -> Result<Outcome, PipelineError> {
    let summary =
        Summary { command: "replay", sensor_version: SENSOR_VERSION, ..Summary::default() };
    let stage = Stage::open(config, options, summary, [0; 32])?;
    let (flows, identities) = flow_table(config)?;
    let clock = ReplayClock::new(config.capture.epoch_ms.get(), config.flows.idle_timeout_ms.get());
    pin(aggregating_cpu(config), "replaying");
    let (signals, handle) = stop_on_signals()
        .map_err(|source| PipelineError::Start { what: "the signal handler", source })?;
    let mut offline = Offline {
        replay: Replay::with_flows(flows, identities, clock)
            .deduplicating(config.capture.deduplicate),
        stage,
        tally: CaptureTally::default(),
        progress: options.progress.then(|| Progress::new(files)),
        pacer: Pacer::new(options.speed),
        stop: Arc::new(Stop::new(signals)),
        flushed: Instant::now(),
        grace: Duration::from_millis(config.uplink.shutdown_grace_ms.get()),
        patient: true,
    };
    let started = Instant::now();
    offline.stage.outputs.advance(&offline.replay.books(), wall_ms());
    let mut read = 0;
    for file in files {
        offline.read(file);
        if offline.stop.is_requested() || offline.stage.outputs.all_dead() {
            break;
        }
        read += 1;
    }
    let Offline { mut replay, mut stage, mut tally, progress, stop, grace, .. } = offline;
    let outputs = &mut stage.outputs;
    replay.finish(&mut |record| {
        tally.handle_record(&record);
        outputs.handle_record(record);
    });
    outputs.finish(&replay.books(), wall_ms());
    if let Some(progress) = progress {
        progress.finish();
    }
    if stop.is_requested() {
        let told =
            format!("stopped by a signal: files read to their end: {read} of {}", files.len());
        stage.faults.push(told);
        tally.stopped = true;
    }
    stage.summary.finished = true;
    tally.elapsed = Some(started.elapsed());
    fill_summary(&mut stage, &replay, &tally, true);
    let text = tally.to_text(replay.counts());
    let mut outcome = stage.finish(Patience::SinceAck(grace), Some(stop.signals()), &text);
    if replay.counts().frames_seen == 0 && !outcome.faults.is_empty() {
        // The fault says it all; a page of zeros before it would hide it.
        outcome.text.clear();
    }
    handle.close();
    Ok(outcome)
}

struct Offline {
    replay: Replay,
    stage: Stage,
    tally: CaptureTally,
    progress: Option<Progress>,
    /// Says when frames are due; none when they are due at once.
    pacer: Option<Pacer>,
    stop: Arc<Stop>,
    flushed: Instant,
    grace: Duration,
    /// The backend takes batches, as far as is known: a full spool is worth waiting for.
    patient: bool,
}

impl Offline {
    fn read(&mut self, path: &Path) {
        let frames_before = self.replay.counts().frames_seen;
        let name = input::name(path);
        if let Some(progress) = &mut self.progress {
            progress.handle_file(&name);
        }
        if let Some(pacer) = &mut self.pacer {
            pacer.handle_file();
        }
        let mut told = FileSummary { path: path.to_owned(), ..FileSummary::default() };
        let bytes_read = Arc::new(AtomicU64::new(0));
        let result = self.read_frames(path, &bytes_read, &mut told);
        told.frames = self.replay.counts().frames_seen - frames_before;
        told.bytes = bytes_read.load(Ordering::Relaxed);
        if self.stop.is_requested() {
            told.error = Some(STOPPED.to_owned());
        } else if let Err(error) = result {
            let cause = std::error::Error::source(&error)
                .map_or_else(String::new, |cause| format!(": {cause}"));
            let error = format!("{error}{cause}");
            self.stage.faults.push(format!("{name}: {error}"));
            told.error = Some(error);
        }
        // What is behind a fault is not read.
        let size = input::size(path).unwrap_or(told.bytes);
        if let Some(progress) = &mut self.progress {
            progress.update(size, self.replay.counts().frames_seen);
        }
        self.tally.handle_file(&told);
        self.stage.summary.files.push(told);
    }

    fn read_frames(
        &mut self,
        path: &Path,
        bytes_read: &Arc<AtomicU64>,
        told: &mut FileSummary,
    ) -> Result<(), CaptureFileError> {
        let mut file = CaptureFile::open(Input::open(path, &self.stop, bytes_read)?)?;
        told.compression = file.compression();
        let mut frames: u64 = 0;
        loop {
            let Some(frame) = file.next_frame()? else { return Ok(()) };
            if self.pacer.is_some() && !self.wait_for(frame.time_ms, bytes_read) {
                return Ok(());
            }
            self.tally.handle_link(frame.link);
            let (outputs, tally) = (&mut self.stage.outputs, &mut self.tally);
            let has_ended_an_epoch = self.replay.handle_frame(&frame, &mut |record| {
                tally.handle_record(&record);
                outputs.handle_record(record);
            });
            frames += 1;
            // A slow pipe has few frames in a long time.
            let is_to_look = has_ended_an_epoch || frames.is_multiple_of(FRAMES_PER_LOOK);
            if is_to_look && self.flushed.elapsed() >= FLUSH_PERIOD {
                self.flush(bytes_read);
                if self.stop.is_requested() || self.stage.outputs.all_dead() {
                    return Ok(());
                }
            }
        }
    }

    /// Waits until a frame of this time is due; says whether it is, and nobody wanted to stop before.
    fn wait_for(&mut self, time_ms: Option<u64>, bytes_read: &AtomicU64) -> bool {
        let (Some(pacer), Some(time_ms)) = (&mut self.pacer, time_ms) else { return true };
        let Some(due) = pacer.handle_time(time_ms, Instant::now()) else { return true };
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            if self.stop.wait(left.min(FLUSH_PERIOD)) || self.stage.outputs.all_dead() {
                return false;
            }
            if self.flushed.elapsed() >= FLUSH_PERIOD {
                self.flush(bytes_read);
            }
        }
    }

    fn flush(&mut self, bytes_read: &AtomicU64) {
        if let Some(progress) = &mut self.progress {
            let frames = self.replay.counts().frames_seen;
            progress.update(bytes_read.load(Ordering::Relaxed), frames);
        }
        self.stage.outputs.advance(&self.replay.books(), wall_ms());
        fill_summary(&mut self.stage, &self.replay, &self.tally, false);
        // A capture can wait for the backend, a mirror port cannot.
        while self.patient && self.stage.outputs.is_crowded() && !self.stop.is_requested() {
            self.patient = self.wait_for_ack();
        }
        self.flushed = Instant::now();
    }

    /// Waits until the backend has acknowledged something or somebody wants to stop; says whether
    /// either came in time.
    fn wait_for_ack(&self) -> bool {
        let Some(link) = &self.stage.delivery else { return false };
        let until = Instant::now() + self.grace;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if link.wait_for_ack(left.min(FLUSH_PERIOD)) || self.stop.is_requested() {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }
}

fn fill_summary(stage: &mut Stage, replay: &Replay, tally: &CaptureTally, at_once: bool) {
    stage.update_summary(
        |summary, outputs| {
            let (totals, open) = (replay.flows().totals(), replay.flows().flows_open());
            summary.handle_books(&outputs.books(), &totals, &FoldingTotals::default(), open);
            summary.handle_ethertypes(&replay.counts().not_ip);
            summary.handle_malformed(&replay.counts().malformed);
            summary.handle_traits(&replay.counts().traits);
            summary.capture = Some(tally.summary(replay.counts()));
        },
        at_once,
    );
}
