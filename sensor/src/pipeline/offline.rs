//! Takes capture files; runs their frames through parser, aggregator and outputs on the capture's
//! own clock.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    FoldingTotals, Options, Outcome, Patience, PipelineError, SENSOR_VERSION, Stage,
    aggregating_cpu, flow_table, pin, wall_ms,
};
use crate::config::Config;
use crate::pcap::{CaptureFile, CaptureFileError};
use crate::replay::{Replay, ReplayClock};
use crate::summary::{FileSummary, Summary, frames_text};

/// Frames between two looks at the machine's clock.
const FRAMES_PER_LOOK: u64 = 4_096;
/// How often outputs flush and the progress bar moves.
const FLUSH_PERIOD: Duration = Duration::from_millis(250);

/// Replays `files` one after another, as one capture.
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
    let mut offline = Offline {
        replay: Replay::with_flows(flows, identities, clock),
        stage,
        bar: options.progress.then(|| progress_bar(files)),
        flushed: Instant::now(),
        grace: Duration::from_millis(config.uplink.shutdown_grace_ms.get()),
        patient: true,
    };
    offline.stage.outputs.advance(&offline.replay.books(), wall_ms());
    for file in files {
        offline.read(file);
        if offline.stage.outputs.all_dead() {
            break;
        }
    }
    let Offline { mut replay, mut stage, bar, grace, .. } = offline;
    let outputs = &mut stage.outputs;
    replay.finish(&mut |record| outputs.handle_record(record));
    outputs.finish(&replay.books(), wall_ms());
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    stage.summary.finished = true;
    fill_summary(&mut stage, &replay, true);
    Ok(stage.finish(Patience::SinceAck(grace), None, &frames_text(replay.counts())))
}

struct Offline {
    replay: Replay,
    stage: Stage,
    bar: Option<ProgressBar>,
    flushed: Instant,
    grace: Duration,
    /// The backend takes batches, as far as is known: a full spool is worth waiting for.
    patient: bool,
}

impl Offline {
    fn read(&mut self, path: &PathBuf) {
        let frames_before = self.replay.counts().frames_seen;
        let size = path.metadata().map_or(0, |metadata| metadata.len());
        let before = self.bar.as_ref().map_or(0, ProgressBar::position);
        let error = self.read_frames(path).err().map(|error| {
            let cause = std::error::Error::source(&error)
                .map_or_else(String::new, |cause| format!(": {cause}"));
            format!("{error}{cause}")
        });
        if let Some(bar) = &self.bar {
            bar.set_position(before + size);
        }
        if let Some(error) = &error {
            self.stage.faults.push(format!("{}: {error}", path.display()));
        }
        self.stage.summary.files.push(FileSummary {
            path: path.clone(),
            frames: self.replay.counts().frames_seen - frames_before,
            error,
        });
    }

    fn read_frames(&mut self, path: &PathBuf) -> Result<(), CaptureFileError> {
        let source = File::open(path).map_err(CaptureFileError::Open)?;
        let before = self.bar.as_ref().map_or(0, ProgressBar::position);
        let mut file = CaptureFile::open(source)?;
        let mut frames: u64 = 0;
        loop {
            let Some(frame) = file.next_frame()? else { return Ok(()) };
            let outputs = &mut self.stage.outputs;
            self.replay.handle_frame(&frame, &mut |record| outputs.handle_record(record));
            frames += 1;
            if frames.is_multiple_of(FRAMES_PER_LOOK) && self.flushed.elapsed() >= FLUSH_PERIOD {
                if let Some(bar) = &self.bar {
                    bar.set_position(before + file.offset());
                }
                self.flush();
                if self.stage.outputs.all_dead() {
                    return Ok(());
                }
            }
        }
    }

    fn flush(&mut self) {
        self.stage.outputs.advance(&self.replay.books(), wall_ms());
        fill_summary(&mut self.stage, &self.replay, false);
        // A capture can wait for the backend, a mirror port cannot.
        while self.patient && self.stage.outputs.is_crowded() {
            self.patient =
                self.stage.delivery.as_ref().is_some_and(|link| link.wait_for_ack(self.grace));
        }
        self.flushed = Instant::now();
    }
}

fn fill_summary(stage: &mut Stage, replay: &Replay, at_once: bool) {
    stage.update_summary(
        |summary, outputs| {
            let (totals, open) = (replay.flows().totals(), replay.flows().flows_open());
            summary.handle_books(&outputs.books(), &totals, &FoldingTotals::default(), open);
            summary.handle_ethertypes(&replay.counts().not_ip);
            summary.handle_malformed(&replay.counts().malformed);
            summary.handle_traits(&replay.counts().traits);
        },
        at_once,
    );
}

fn progress_bar(files: &[PathBuf]) -> ProgressBar {
    let bytes = files.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum();
    let style =
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            .unwrap_or_else(|_invalid| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style)
}
