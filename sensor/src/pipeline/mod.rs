//! Takes the checked configuration; wires the stages in the order in which a packet meets them and
//! runs them until the input ends or a signal comes. What each stage decides is decided elsewhere.
//!
//! ```text
//! run:     kernel cache ─ drain thread ─┐
//!                                       ├─ aggregator ─ outputs ─ spool ─ delivery thread ─ backend
//! replay:  capture files ───────────────┘
//! deliver:                                                    spool ─ delivery thread ─ backend
//! ```

mod deliver;
mod delivery;
mod drain;
mod folding;
mod input;
mod kernel;
mod live;
mod losses;
mod news;
mod offline;
mod outputs;
mod pace;
mod privileges;
mod progress;
mod shards;
mod speed;
mod stop;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use thiserror::Error;
use uplink::{Outbox, OutboxError, OutboxOptions};

use crate::aggregate::{Aggregator, FlowTable, Identities};
use crate::config::{Collector, Config, Cpu, OutputConfigError};
use crate::metrics::MetricsServer;
use crate::privacy::{Privacy, PrivacyError, announcement};
use crate::sink::{Outputs, SealingSettings, Sink, SinkError, UplinkSink};
use crate::summary::{SUMMARY_NAME, Summary};
use delivery::{Delivery, Ended, Patience};
use live::pin;
use losses::losses;
use shards::Shards;

pub use deliver::{Delivered, deliver};
pub(crate) use folding::FoldingTotals;
pub(crate) use input::{Input, is_stdin, name as input_name, size as input_size};
pub use kernel::run;
pub(crate) use kernel::{listen, stop_on_signals, stop_on_signals_with};
pub(crate) use live::run_watched;
pub use live::{Counts, PortCounts, Source, SourceError, SourceFacts, run_source};
pub use offline::replay;
pub(crate) use speed::Pacer;
pub use speed::{NoSpeed, Speed};
pub(crate) use stop::Stop;

/// Version of this sensor, as batches and summaries carry it.
pub const SENSOR_VERSION: &str = env!("CARGO_PKG_VERSION");
/// How often the summary file is replaced.
const SUMMARY_PERIOD: Duration = Duration::from_secs(1);

/// What a command was told beside the configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// File that keeps the books, see [`Summary`].
    pub summary_file: Option<PathBuf>,
    /// Whether a progress bar may be drawn.
    pub progress: bool,
    /// How fast a capture is replayed.
    pub speed: Speed,
}

/// How a command ended, when it could begin.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The books.
    pub summary: Summary,
    /// What was lost, and what failed to the end, one sentence each; empty when nothing was and did.
    pub faults: Vec<String>,
    /// What people are told at the end.
    pub text: String,
}

/// Why a command could not begin, or had to stop.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// Give `--interface NAME`, or set `capture.interfaces`.
    #[error("no interface is given: use --interface NAME, or set capture.interfaces")]
    NoInterface,
    /// A file for output cannot be made.
    #[error("cannot create {}", file.display())]
    Create {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The settings of the outputs do not go together.
    #[error(transparent)]
    OutputConfig(OutputConfigError),
    /// An output cannot write what its file begins with.
    #[error("an output cannot begin")]
    Output(#[source] SinkError),
    /// The collector's name has no address, or there is no socket to be had.
    #[error("cannot export to {collector}")]
    Collector {
        /// Where to.
        collector: Collector,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The uplink cannot be used: enrol first, or see what the outbox says.
    #[error("cannot use the uplink's folder {}", folder.display())]
    Uplink {
        /// Which folder.
        folder: PathBuf,
        /// What the outbox said.
        #[source]
        source: OutboxError,
    },
    /// What goes to the backend cannot be made ready: nothing is sent.
    #[error("cannot protect addresses on their way to the backend")]
    Privacy(#[source] PrivacyError),
    /// The system gives no thread, timer or signal handler.
    #[error("cannot start {what}")]
    Start {
        /// What was to be started.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another program listens there (`ss -ltnp` says which), or the address is not this machine's.
    #[error("cannot serve metrics on {listen}")]
    Metrics {
        /// Where.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel side cannot be set up.
    #[error("cannot capture")]
    Capture(#[source] SourceError),
}

/// The outputs and what belongs to them.
struct Stage {
    outputs: Outputs,
    delivery: Option<Delivery>,
    summary_files: Vec<PathBuf>,
    metrics: Option<MetricsServer>,
    summary: Summary,
    summary_written: Option<Instant>,
    /// The summary cannot be written: that was told.
    summary_failing: bool,
    faults: Vec<String>,
}

impl Stage {
    fn open(
        config: &Config,
        options: &Options,
        summary: Summary,
        object_sha256: [u8; 32],
    ) -> Result<Self, PipelineError> {
        config.output.check().map_err(PipelineError::OutputConfig)?;
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        let mut delivery = None;
        let mut recovered = None;
        let mut kinds = config.output.kinds.clone();
        kinds.sort_by_key(|kind| *kind as u8);
        kinds.dedup();
        for kind in kinds {
            let can_wait = summary.command == "replay";
            let Some(sink) = outputs::open(kind, config, can_wait)? else {
                let (sink, running, waiting) = open_uplink(config, object_sha256)?;
                sinks.push(Box::new(sink));
                delivery = Some(running);
                recovered = Some(waiting);
                continue;
            };
            sinks.push(sink);
        }
        let outputs = Outputs::new(sinks);
        let summary = Summary {
            outputs: outputs.names(),
            records_recovered: recovered.unwrap_or(0),
            flows_open_max: config.flows.flows_open_max.get(),
            spool_bytes_max: config.uplink.spool_bytes_max.get(),
            ..summary
        };
        let metrics = match config.metrics.listen {
            Some(listen) if summary.command == "run" => Some(
                MetricsServer::start(listen.get())
                    .map_err(|source| PipelineError::Metrics { listen: listen.get(), source })?,
            ),
            _ => None,
        };
        let mut stage = Self {
            outputs,
            delivery,
            summary_files: options.summary_file.iter().cloned().collect(),
            metrics,
            summary,
            summary_written: None,
            summary_failing: false,
            faults: Vec::new(),
        };
        if let Some(file) = &options.summary_file {
            stage
                .summary
                .write(file)
                .map_err(|source| PipelineError::Create { file: file.clone(), source })?;
        }
        if stage.summary.command == "run" && config.uplink.state_dir.is_dir() {
            // `balance` looks here. Whoever runs without a state folder does without.
            let file = config.uplink.state_dir.join(SUMMARY_NAME);
            match stage.summary.write(&file) {
                Ok(()) => stage.summary_files.push(file),
                Err(error) => tracing::debug!("no summary in {}: {error}", file.display()),
            }
        }
        Ok(stage)
    }

    /// Brings the summary up to date, and whoever reads it, when that is due.
    fn update_summary(&mut self, fill: impl FnOnce(&mut Summary, &Outputs), at_once: bool) {
        let due = self.summary_written.is_none_or(|at| at.elapsed() >= SUMMARY_PERIOD);
        let is_read = !self.summary_files.is_empty() || self.metrics.is_some();
        if !at_once && (!due || !is_read) {
            return;
        }
        fill(&mut self.summary, &self.outputs);
        let totals = self.outputs.totals();
        self.summary.records_missed = self.outputs.records_missed();
        self.summary.output_failures = self.outputs.failures();
        self.summary.records_exported = totals.records_exported;
        self.summary.records_unsent = totals.records_unsent;
        self.summary.files_deleted = totals.files_deleted;
        self.summary.handle_privacy(&totals.privacy);
        self.fill_uplink();
        self.publish_summary();
        self.summary_written = Some(Instant::now());
    }

    /// The delivery goes on meanwhile, and a batch leaves the spool a moment before it is counted as
    /// acknowledged: the numbers are read until they are of one moment.
    fn fill_uplink(&mut self) {
        const LOOKS: u32 = 64;
        let summary = &mut self.summary;
        for _ in 0..LOOKS {
            let totals = self.outputs.totals();
            summary.records_lost = totals.records_lost;
            summary.records_pending = totals.records_pending;
            summary.batches_quarantined = totals.batches_quarantined;
            summary.records_waiting = totals.records_waiting;
            summary.spool_bytes = totals.spool_bytes;
            let Some(delivery) = &self.delivery else { return };
            summary.records_acked = delivery.records_acked();
            summary.records_acked_earlier = delivery.records_acked_earlier();
            summary.records_rejected = delivery.records_rejected();
            summary.uplink_connected = delivery.connected();
            summary.certificate_ends_unix_s = Some(delivery.certificate_ends_unix_s());
            if summary.records_delivered_add_up() {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn publish_summary(&mut self) {
        self.summary.touch();
        if let Some(metrics) = &self.metrics {
            metrics.publish(&self.summary);
        }
        for file in &self.summary_files {
            match self.summary.write(file) {
                Ok(()) => self.summary_failing = false,
                Err(error) if !self.summary_failing => {
                    self.summary_failing = true;
                    tracing::error!("cannot write the summary {}: {error}", file.display());
                }
                Err(_told) => {}
            }
        }
    }

    /// Waits for the backend as long as `patience` says, and closes the books.
    fn finish(
        mut self,
        patience: Patience,
        hurry: Option<&crossbeam_channel::Receiver<()>>,
        text_before: &str,
    ) -> Outcome {
        if let Some(delivery) = self.delivery.take() {
            let Ended {
                records_acked,
                records_acked_earlier,
                records_rejected,
                records_waiting,
                fault,
                batches_waiting: _,
            } = delivery.finish(patience, hurry);
            self.summary.records_acked = records_acked;
            self.summary.records_acked_earlier = records_acked_earlier;
            self.summary.records_rejected = records_rejected;
            self.summary.records_waiting = records_waiting;
            self.summary.spool_bytes = self.outputs.totals().spool_bytes;
            self.summary.uplink_connected = Some(false);
            self.faults.extend(fault);
        }
        self.publish_summary();
        if self.summary_failing {
            self.faults.push("the summary could not be written".to_owned());
        }
        self.faults.extend(self.outputs.faults());
        self.faults.extend(losses(&self.summary));
        let text = format!("{text_before}{}", self.summary.to_text());
        Outcome { summary: self.summary, faults: self.faults, text }
    }
}

/// The table of open flows, in as many pieces as there are processors for it.
fn flow_table(config: &Config) -> Result<(Box<dyn FlowTable>, Identities), PipelineError> {
    let settings = config.aggregator();
    let identities = Identities::new(settings.apart_by);
    let flows: Box<dyn FlowTable> = if config.flows.cpus.len() > 1 {
        let shards = Shards::start(settings, &identities, &config.flows.cpus)
            .map_err(|source| PipelineError::Start { what: "the aggregators", source })?;
        Box::new(shards)
    } else {
        Box::new(Aggregator::with_identities(settings, identities.clone()))
    };
    Ok((flows, identities))
}

/// The processor of the thread that builds the flows itself; several do so on threads of their own.
fn aggregating_cpu(config: &Config) -> Option<Cpu> {
    match config.flows.cpus[..] {
        [only] => Some(only),
        _ => None,
    }
}

fn open_uplink(
    config: &Config,
    object_sha256: [u8; 32],
) -> Result<(UplinkSink, Delivery, u64), PipelineError> {
    let settings = &config.uplink;
    let outbox = Outbox::open(OutboxOptions {
        state_dir: settings.state_dir.clone(),
        spool_bytes_max: settings.spool_bytes_max.get(),
        object_sha256,
        sensor_version: SENSOR_VERSION.to_owned(),
        now_ms: wall_ms(),
    })
    .map_err(|source| PipelineError::Uplink { folder: settings.state_dir.clone(), source })?;
    let privacy = Privacy::open(&config.privacy, &settings.state_dir, wall_ms())
        .map_err(PipelineError::Privacy)?;
    for (told, is_warning) in announcement(&config.privacy) {
        if is_warning { tracing::warn!("{told}") } else { tracing::info!("{told}") }
    }
    outbox.spool().set_sent_bytes_max(settings.sent_bytes_max.get());
    let totals = outbox.totals();
    // What an earlier identity left is evicted from the start, so it was found, too.
    let waiting = totals.records_waiting + totals.recovery.records_superseded;
    let delivery = Delivery::start(outbox.spool(), outbox.boot_epoch(), &config.uplink)
        .map_err(|source| PipelineError::Start { what: "the delivery", source })?;
    let sealing = SealingSettings {
        batch_records_max: usize::try_from(settings.batch_records_max.get())
            .expect("the range of the setting ends at 65,536"),
        batch_interval_ms: settings.batch_interval_ms.get(),
        spool_bytes_max: settings.spool_bytes_max.get(),
    };
    Ok((UplinkSink::new(outbox, privacy, sealing), delivery, waiting))
}

/// The time of day, milliseconds since the Unix epoch; 0 on a machine whose clock stands before it.
fn wall_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}
