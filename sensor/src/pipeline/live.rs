//! Takes a source that is drained again and again (the kernel's cache); runs one thread that drains
//! and one that aggregates, with a bounded channel between, until it is told to stop. Then nothing
//! is left anywhere, and nothing attached, also when one of them fails.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use flow::{Books, Malformed, Observation};

use super::drain::{Drain, EpochEnd, EpochFacts, Message};
use super::folding::Folding;
use super::{
    Options, Outcome, Patience, PipelineError, SENSOR_VERSION, Stage, aggregating_cpu, flow_table,
    wall_ms,
};
use crate::aggregate::{FlowTable, Identities, Identity};
use crate::capture::{Folded, LogFill};
use crate::config::{Config, Cpu};
use crate::sink::Outputs;
use crate::summary::Summary;
use crate::top::{Counted, Feed};
use crate::traits::PacketTraits;

/// Chunks between the threads. When they are all full the drain waits, and the kernel's cache takes
/// more, or folds and counts.
const CHUNKS_MAX: usize = 64;

/// Shortest time between two warnings that packets are being folded.
const FOLD_WARNING_PERIOD: Duration = Duration::from_mins(1);

/// Why a source cannot be read.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// What a source has counted since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The part of the books that the source knows: port, frames, packets.
    pub books: Books,
    /// Frames that are not IP by what they carry.
    pub not_ip: Vec<(&'static str, u64)>,
    /// Malformed frames by the number of their reason.
    pub malformed: [u64; Malformed::ALL.len()],
    /// What is counted of IP packets beside their flows.
    pub traits: PacketTraits,
    /// The interfaces, where the source has any.
    pub port: PortCounts,
}

/// What a source knows of its interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounts {
    /// Frames the program had been given when the interfaces' own counters were read; `None` where they
    /// are not known.
    pub nic_frames_seen: Option<u64>,
    /// Frames that were on their way while they were read: those counters can be off by as many.
    pub nic_frames_in_flight: Option<u64>,
    /// Interfaces that are up.
    pub interfaces_up: Option<u64>,
    /// Interfaces that are down, or without a carrier.
    pub interfaces_down: Option<u64>,
    /// Interfaces that are no longer there.
    pub interfaces_gone: Option<u64>,
    /// Times that an interface went down or away.
    pub interface_losses: Option<u64>,
}

/// What a source is, for the summary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFacts {
    /// Interfaces that it listens on.
    pub interfaces: Vec<String>,
    /// How the kernel program is attached.
    pub xdp_mode: Option<&'static str>,
    /// SHA-256 of the kernel program; zeros when there is none.
    pub object_sha256: [u8; 32],
}

/// Something that counts frames by itself and is emptied now and then.
pub trait Source: Send {
    /// What it is.
    fn facts(&self) -> SourceFacts;

    /// Ends the epoch and gives everything that was counted in it: observations to `visit`, and what was
    /// counted in coarse totals only.
    ///
    /// # Errors
    /// When that is not possible; the capture cannot go on.
    fn drain(&mut self, visit: &mut dyn FnMut(Observation)) -> Result<Vec<Folded>, SourceError>;

    /// What was counted so far.
    ///
    /// # Errors
    /// When it cannot be read.
    fn counts(&mut self) -> Result<Counts, SourceError>;

    /// How full the fullest log is: it is drained early when it fills.
    fn log_fill(&self) -> LogFill;

    /// How long ending the last epoch took.
    fn grace(&self) -> Duration;

    /// Why nothing will ever come any more, when that is so.
    fn ended(&self) -> Option<String> {
        None
    }

    /// Lets no more frames in. What was counted stays to be drained. A second time it does nothing.
    ///
    /// # Errors
    /// When that is not possible.
    fn stop(&mut self) -> Result<(), SourceError>;
}

/// Runs until `stop` gives a message; a second one ends the wait for the backend.
///
/// # Errors
/// When an output cannot be opened or a thread not be started.
pub fn run_source(
    config: &Config,
    options: &Options,
    source: Box<dyn Source>,
    stop: &Receiver<()>,
) -> Result<Outcome, PipelineError> {
    run_watched(config, options, source, stop, None)
}

/// The same, while somebody looks on.
pub(crate) fn run_watched(
    config: &Config,
    options: &Options,
    mut source: Box<dyn Source>,
    stop: &Receiver<()>,
    feed: Option<Feed>,
) -> Result<Outcome, PipelineError> {
    let facts = source.facts();
    let summary = Summary {
        // Who looks on keeps no books for `balance` and serves no metrics.
        command: if feed.is_some() { "top" } else { "run" },
        sensor_version: SENSOR_VERSION,
        interfaces: facts.interfaces,
        xdp_mode: facts.xdp_mode,
        object_sha256: Some(hexadecimal(&facts.object_sha256)),
        ..Summary::default()
    };
    let mut stage = Stage::open(config, options, summary, facts.object_sha256)?;
    let (chunks, received) = bounded(CHUNKS_MAX);
    let (empties, spare) = bounded(CHUNKS_MAX);
    let target = Duration::from_millis(config.capture.epoch_ms.get());
    let longest = Duration::from_millis(config.capture.epoch_ms_max.get());
    let drain_cpu = config.capture.drain_cpu;
    let aggregating_cpu = aggregating_cpu(config);
    let live = Live::new(config, feed)?;
    let mut drain = Drain::new(chunks, spare);
    let faults = thread::scope(|scope| {
        let draining = thread::Builder::new()
            .name("drain".to_owned())
            .spawn_scoped(scope, move || {
                pin(drain_cpu, "drain");
                drain.run(source.as_mut(), target, longest, stop);
            })
            .map_err(|source| PipelineError::Start { what: "the drain", source })?;
        let stage = &mut stage;
        let aggregate = move || {
            pin(aggregating_cpu, "aggregator");
            live.run(&received, &empties, stage);
        };
        let aggregating = thread::Builder::new()
            .name("aggregate".to_owned())
            .spawn_scoped(scope, aggregate)
            .map_err(|source| PipelineError::Start { what: "the aggregator", source })?;
        // A thread that panics drops what it holds: the drain the attachment, the aggregator the channel
        // that the drain needs to go on. So the other one ends too, and nothing stays attached.
        let ended = [("drain", draining.join()), ("aggregator", aggregating.join())];
        Ok(ended
            .into_iter()
            .filter(|(_, ended)| ended.is_err())
            .map(|(thread, _)| format!("the {thread} stopped by a fault of its own"))
            .collect::<Vec<_>>())
    })?;
    stage.faults.extend(faults);
    let grace = Duration::from_millis(config.uplink.shutdown_grace_ms.get());
    Ok(stage.finish(Patience::Total(grace), Some(stop), ""))
}

/// The aggregating thread.
struct Live {
    flows: Box<dyn FlowTable>,
    identities: Identities,
    /// Those of one chunk.
    chunk_identities: Vec<Identity>,
    folding: Folding,
    counts: Counts,
    epochs: Epochs,
    /// When the latest epoch ended, once there was one.
    epoch_end_ms: Option<u64>,
    /// When it was last told that packets are being folded.
    fold_warned: Option<Instant>,
    /// Who looks on.
    feed: Option<Feed>,
}

impl Live {
    fn new(config: &Config, feed: Option<Feed>) -> Result<Self, PipelineError> {
        let (flows, identities) = flow_table(config)?;
        Ok(Self {
            flows,
            identities,
            chunk_identities: Vec::new(),
            folding: Folding::new(config.flows.active_timeout_ms.get()),
            counts: Counts::default(),
            epochs: Epochs::default(),
            epoch_end_ms: None,
            fold_warned: None,
            feed,
        })
    }

    fn run(
        mut self,
        received: &Receiver<Message>,
        empties: &Sender<Vec<Observation>>,
        stage: &mut Stage,
    ) {
        for message in received {
            match message {
                Message::Observations(mut chunk) => {
                    let outputs = &mut stage.outputs;
                    let identify = |seen: &Observation| self.identities.of(&seen.key, seen.outer);
                    self.chunk_identities.clear();
                    self.chunk_identities.extend(chunk.iter().map(identify));
                    self.flows.handle_identified(&chunk, &self.chunk_identities, &mut |record| {
                        outputs.handle_record(record);
                    });
                    if let Some(feed) = &mut self.feed {
                        feed.handle_observations(&chunk);
                    }
                    chunk.clear();
                    let _enough_spares = empties.try_send(chunk);
                }
                Message::EpochEnd(end) => self.handle_epoch_end(*end, stage),
                Message::Fault(fault) => {
                    tracing::error!("{fault}");
                    stage.faults.push(fault);
                }
            }
        }
        self.show(stage, true);
        let outputs = &mut stage.outputs;
        self.flows.finish(&mut |record| outputs.handle_record(record));
        self.folding.finish(&mut |record| outputs.handle_record(record));
        outputs.finish(&self.books(), wall_ms());
        stage.summary.finished = true;
        self.fill_summary(stage, true);
    }

    fn handle_epoch_end(&mut self, end: EpochEnd, stage: &mut Stage) {
        let EpochEnd { now_ms, counts, folded, facts } = end;
        let since_ms = self.epoch_end_ms.replace(now_ms).unwrap_or(now_ms).min(now_ms);
        for folded in &folded {
            self.folding.handle(folded, (since_ms, now_ms));
        }
        self.counts = counts;
        self.epochs.handle(facts);
        self.warn_of_folding(!folded.is_empty());
        let outputs = &mut stage.outputs;
        self.flows.advance(now_ms, &mut |record| outputs.handle_record(record));
        self.folding.advance(now_ms, &mut |record| outputs.handle_record(record));
        outputs.advance(&self.books(), now_ms);
        self.fill_summary(stage, false);
        self.show(stage, false);
    }

    /// Tells who looks on.
    fn show(&mut self, stage: &Stage, is_last: bool) {
        let Some(now_ms) = self.epoch_end_ms else { return };
        let Some(mut feed) = self.feed.take() else { return };
        let (totals, folding) = (self.flows.totals(), self.folding.totals());
        let counted = Counted {
            frames: self.counts.books.frames_seen,
            packets: totals.packets_in + folding.packets_in,
            bytes: totals.bytes_in + folding.bytes_in,
            flows: totals.flows_opened,
        };
        feed.handle_epoch(now_ms, counted, is_last, || {
            let mut summary = stage.summary.clone();
            self.fill(&mut summary, &stage.outputs);
            (summary, None)
        });
        self.feed = Some(feed);
    }

    fn warn_of_folding(&mut self, more: bool) {
        if more && self.fold_warned.is_none_or(|at| at.elapsed() >= FOLD_WARNING_PERIOD) {
            self.fold_warned = Some(Instant::now());
            tracing::warn!(
                "the kernel's flow tables were full: {} packets so far are in folded records, with \
                 exact totals by source prefix, destination and port (log {} thousandths full at \
                 most, drain waited {} ms for the aggregator)",
                self.folding.totals().packets_in,
                self.epochs.log_fill_permille_max,
                self.epochs.waited.as_millis()
            );
        }
    }

    fn books(&self) -> Books {
        Books {
            packets_in_flows: self.flows.totals().packets_in,
            // The source's own count runs ahead of what has been drained.
            packets_folded: self.folding.totals().packets_in,
            ..self.counts.books
        }
    }

    fn fill_summary(&self, stage: &mut Stage, at_once: bool) {
        stage.update_summary(|summary, outputs| self.fill(summary, outputs), at_once);
    }

    fn fill(&self, summary: &mut Summary, outputs: &Outputs) {
        let totals = self.flows.totals();
        let (open, folding) = (self.flows.flows_open(), self.folding.totals());
        summary.handle_books(&outputs.books(), &totals, &folding, open);
        summary.not_ip = self.counts.not_ip.iter().copied().collect();
        summary.handle_malformed(&self.counts.malformed);
        summary.handle_traits(&self.counts.traits);
        summary.handle_port(&self.counts.port);
        self.epochs.fill(summary);
    }
}

/// How the epochs went so far.
#[derive(Default)]
struct Epochs {
    latest: EpochFacts,
    count: u64,
    early: u64,
    waited: Duration,
    log_fill_permille_max: u32,
}

impl Epochs {
    fn handle(&mut self, facts: EpochFacts) {
        self.count += 1;
        self.early += u64::from(facts.early);
        self.waited += facts.waited;
        self.log_fill_permille_max = self.log_fill_permille_max.max(facts.log_fill_permille);
        self.latest = facts;
    }

    fn fill(&self, summary: &mut Summary) {
        let whole = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
        summary.epochs = self.count;
        summary.epochs_early = self.early;
        summary.drain_waited_ms = Some(whole(self.waited.as_millis()));
        summary.epoch_ms = Some(whole(self.latest.lasted.as_millis()));
        summary.grace_us = Some(whole(self.latest.grace.as_micros()));
        summary.log_fill_permille = Some(self.latest.log_fill_permille);
        summary.log_fill_permille_max = Some(self.log_fill_permille_max);
    }
}

/// Keeps this thread on one processor, when one is configured.
pub(super) fn pin(cpu: Option<Cpu>, what: &str) {
    let Some(cpu) = cpu else { return };
    let id = usize::try_from(cpu.get()).unwrap_or(usize::MAX);
    if !core_affinity::set_for_current(core_affinity::CoreId { id }) {
        tracing::warn!("the {what} thread cannot be kept on processor {cpu}; it runs on any");
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}
