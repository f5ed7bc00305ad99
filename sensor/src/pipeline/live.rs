//! Takes a source that is drained again and again (the kernel's cache); runs one thread that drains
//! and one that aggregates, with a bounded channel between, until it is told to stop. Then nothing
//! is left anywhere.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use flow::{Books, Malformed, Observation};

use super::{Options, Outcome, Patience, PipelineError, SENSOR_VERSION, Stage, wall_ms};
use crate::aggregate::Aggregator;
use crate::config::{Config, Cpu};
use crate::summary::Summary;

/// Observations handed over at once.
const CHUNK_OBSERVATIONS: usize = 4_096;
/// Chunks between the threads. When they are all full the drain waits, and the kernel's cache takes
/// more, or folds and counts.
const CHUNKS_MAX: usize = 64;

/// How often an epoch is looked at, to end it early when the source fills.
const LOOKS_PER_EPOCH: u32 = 10;
/// Shortest time between two looks.
const LOOK_MIN: Duration = Duration::from_millis(5);
/// A source that is fuller than this is drained at once.
const FILL_PERMILLE_MAX: u32 = 500;
/// Shortest time between two warnings that packets are being folded.
const FOLD_WARNING_PERIOD: Duration = Duration::from_mins(1);

/// Why a source cannot be read.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// What a source has counted since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The part of the books that the source knows: port, frames, packets, folded.
    pub books: Books,
    /// Frames that are not IP by what they carry.
    pub not_ip: Vec<(&'static str, u64)>,
    /// Malformed frames by the number of their reason.
    pub malformed: [u64; Malformed::ALL.len()],
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

    /// Ends the epoch and gives everything that was counted in it.
    ///
    /// # Errors
    /// When that is not possible; the capture cannot go on.
    fn drain(&mut self, visit: &mut dyn FnMut(Observation)) -> Result<(), SourceError>;

    /// What was counted so far.
    ///
    /// # Errors
    /// When it cannot be read.
    fn counts(&mut self) -> Result<Counts, SourceError>;

    /// How full the fullest buffer is, 0 to 1,000: it is drained early when it fills.
    fn fill_permille(&self) -> u32;

    /// Lets no more frames in. What was counted stays to be drained.
    ///
    /// # Errors
    /// When that is not possible.
    fn stop(&mut self) -> Result<(), SourceError>;
}

/// From the drain to the aggregator.
enum Message {
    Observations(Vec<Observation>),
    EpochEnd { now_ms: u64, counts: Counts },
    Fault(String),
}

/// Runs until `stop` gives a message; a second one ends the wait for the backend.
///
/// # Errors
/// When an output cannot be opened or a thread not be started.
pub fn run_source(
    config: &Config,
    options: &Options,
    mut source: Box<dyn Source>,
    stop: &Receiver<()>,
) -> Result<Outcome, PipelineError> {
    let facts = source.facts();
    let summary = Summary {
        command: "run",
        sensor_version: SENSOR_VERSION,
        interfaces: facts.interfaces,
        xdp_mode: facts.xdp_mode,
        object_sha256: Some(hexadecimal(&facts.object_sha256)),
        ..Summary::default()
    };
    let mut stage = Stage::open(config, options, summary, facts.object_sha256)?;
    let (chunks, received) = bounded(CHUNKS_MAX);
    let (empties, spare) = bounded(CHUNKS_MAX);
    let period = Duration::from_millis(config.capture.epoch_ms.get());
    let drain_cpu = config.capture.drain_cpu;
    let mut drain = Drain { out: chunks, spare, chunk: Vec::with_capacity(CHUNK_OBSERVATIONS) };
    thread::scope(|scope| {
        thread::Builder::new()
            .name("drain".to_owned())
            .spawn_scoped(scope, move || {
                pin(drain_cpu, "drain");
                if let Err(error) = drain.run(source.as_mut(), period, stop) {
                    let _receiver_gone = drain.out.send(Message::Fault(error));
                }
            })
            .map_err(|source| PipelineError::Start { what: "the drain", source })?;
        let config = &config;
        let stage = &mut stage;
        let aggregate = move || {
            pin(config.flows.aggregate_cpu, "aggregator");
            Live {
                aggregator: Aggregator::new(config.aggregator()),
                counts: Counts::default(),
                fold_warned: None,
            }
            .run(&received, &empties, stage);
        };
        thread::Builder::new()
            .name("aggregate".to_owned())
            .spawn_scoped(scope, aggregate)
            .map(|_scoped| ())
            .map_err(|source| PipelineError::Start { what: "the aggregator", source })
    })?;
    let grace = Duration::from_millis(config.uplink.shutdown_grace_ms.get());
    Ok(stage.finish(Patience::Total(grace), Some(stop), ""))
}

/// The draining thread.
struct Drain {
    out: Sender<Message>,
    spare: Receiver<Vec<Observation>>,
    chunk: Vec<Observation>,
}

impl Drain {
    fn run(
        &mut self,
        source: &mut dyn Source,
        period: Duration,
        stop: &Receiver<()>,
    ) -> Result<(), String> {
        self.epoch(source)?;
        let mut due = Instant::now() + period;
        loop {
            let look = due.min(Instant::now() + (period / LOOKS_PER_EPOCH).max(LOOK_MIN));
            let stopping = match stop.recv_deadline(look) {
                Err(RecvTimeoutError::Timeout) => false,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
            };
            let now = Instant::now();
            if !stopping && now < due && source.fill_permille() < FILL_PERMILLE_MAX {
                continue;
            }
            if stopping {
                source.stop().map_err(|error| format!("cannot detach: {error}"))?;
            }
            self.epoch(source)?;
            if stopping {
                // The other half of the cache took frames while the first was being emptied.
                return self.epoch(source);
            }
            // After a stall the lost drains are not made up for.
            due = (due.min(now) + period).max(Instant::now());
        }
    }

    fn epoch(&mut self, source: &mut dyn Source) -> Result<(), String> {
        let now_ms = wall_ms();
        source
            .drain(&mut |seen| {
                self.chunk.push(seen);
                if self.chunk.len() == CHUNK_OBSERVATIONS {
                    send(&self.out, &self.spare, &mut self.chunk);
                }
            })
            .map_err(|error| format!("cannot drain the kernel's cache: {error}"))?;
        if !self.chunk.is_empty() {
            send(&self.out, &self.spare, &mut self.chunk);
        }
        let counts =
            source.counts().map_err(|error| format!("cannot read the kernel's counts: {error}"))?;
        let _receiver_gone = self.out.send(Message::EpochEnd { now_ms, counts });
        Ok(())
    }
}

fn send(out: &Sender<Message>, spare: &Receiver<Vec<Observation>>, chunk: &mut Vec<Observation>) {
    let empty = spare.try_recv().unwrap_or_else(|_none| Vec::with_capacity(CHUNK_OBSERVATIONS));
    // The receiver lives until this sender is gone.
    let _receiver_gone = out.send(Message::Observations(std::mem::replace(chunk, empty)));
}

/// The aggregating thread.
struct Live {
    aggregator: Aggregator,
    counts: Counts,
    /// When it was last told that packets are being folded.
    fold_warned: Option<Instant>,
}

impl Live {
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
                    self.aggregator
                        .handle_observations(&chunk, &mut |record| outputs.handle_record(record));
                    chunk.clear();
                    let _enough_spares = empties.try_send(chunk);
                }
                Message::EpochEnd { now_ms, counts } => {
                    self.handle_counts(counts);
                    let outputs = &mut stage.outputs;
                    self.aggregator.advance(now_ms, &mut |record| outputs.handle_record(record));
                    outputs.advance(&self.books(), now_ms);
                    self.fill_summary(stage, false);
                }
                Message::Fault(fault) => {
                    tracing::error!("{fault}");
                    stage.faults.push(fault);
                }
            }
        }
        let outputs = &mut stage.outputs;
        self.aggregator.finish(&mut |record| outputs.handle_record(record));
        outputs.finish(&self.books(), wall_ms());
        stage.summary.finished = true;
        self.fill_summary(stage, true);
    }

    fn handle_counts(&mut self, counts: Counts) {
        let folded = counts.books.packets_folded;
        let more = folded.saturating_sub(self.counts.books.packets_folded);
        if more > 0 && self.fold_warned.is_none_or(|at| at.elapsed() >= FOLD_WARNING_PERIOD) {
            tracing::warn!(
                "the kernel's flow cache was full: {folded} packets so far are in coarse totals only"
            );
            self.fold_warned = Some(Instant::now());
        }
        self.counts = counts;
    }

    fn books(&self) -> Books {
        Books { packets_in_flows: self.aggregator.totals().packets_in, ..self.counts.books }
    }

    fn fill_summary(&self, stage: &mut Stage, at_once: bool) {
        stage.update_summary(
            |summary, outputs| {
                let totals = self.aggregator.totals();
                summary.handle_books(&outputs.books(), &totals, self.aggregator.flows_open());
                summary.not_ip = self.counts.not_ip.iter().copied().collect();
                summary.handle_malformed(&self.counts.malformed);
            },
            at_once,
        );
    }
}

/// Keeps this thread on one processor, when one is configured.
fn pin(cpu: Option<Cpu>, what: &str) {
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
