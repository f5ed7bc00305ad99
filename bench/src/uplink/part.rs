//! The sensor's side, as a process of its own on a CPU of its own: seals, spools and delivers with the code of the
//! sensor. In: what to do. Out: one line of JSON with what was measured.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use flow::Books;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use uplink::{
    DeliverOptions, DeliveryEvent, DeliveryTotals, Outbox, OutboxOptions, Shutdown, SpoolHandle,
    deliver, enroll,
};

use super::BATCH_RECORDS;
use crate::codec::mix::Mix;

/// Longest that anything may take.
const PATIENCE: Duration = Duration::from_mins(30);
/// How long the sensor with a full spool is watched.
const WATCHED: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(crate) struct Options {
    /// State folder.
    state: PathBuf,
    #[command(subcommand)]
    job: Job,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Job {
    Enroll { code: String },
    Seal { batches: u64, records: usize },
    Flow { batches: u64 },
    Idle { samples: u64, pause_ms: u64 },
    Drain { bandwidth: Option<u64> },
    Wait,
}

impl Job {
    pub(super) fn arguments(&self) -> Vec<String> {
        match self {
            Self::Enroll { code } => vec!["enroll".to_owned(), code.clone()],
            Self::Seal { batches, records } => {
                vec!["seal".to_owned(), batches.to_string(), records.to_string()]
            }
            Self::Flow { batches } => vec!["flow".to_owned(), batches.to_string()],
            Self::Idle { samples, pause_ms } => {
                vec!["idle".to_owned(), samples.to_string(), pause_ms.to_string()]
            }
            Self::Drain { bandwidth } => {
                let mut arguments = vec!["drain".to_owned()];
                arguments.extend(bandwidth.map(|bandwidth| bandwidth.to_string()));
                arguments
            }
            Self::Wait => vec!["wait".to_owned()],
        }
    }
}

/// What a job found; what it did not look at is not there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) batches: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) elapsed_s: f64,
    /// Time on the CPU, of this process.
    pub(super) cpu_s: Option<f64>,
    /// Of each batch, from sealed to acknowledged.
    pub(super) latencies_ms: Vec<f64>,
    /// Milliseconds since the Unix epoch.
    pub(super) first_ack_ms: Option<u64>,
    pub(super) last_ack_ms: Option<u64>,
    pub(super) rss_bytes: Option<u64>,
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Acknowledgements as they come.
#[derive(Clone)]
struct Acks {
    times: Arc<Mutex<(Option<u64>, Option<u64>)>>,
    told: mpsc::UnboundedSender<()>,
}

impl Acks {
    fn handle(&self, event: &DeliveryEvent) {
        if matches!(event, DeliveryEvent::Acked { .. }) {
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            times.0.get_or_insert_with(now_ms);
            times.1 = Some(now_ms());
            // Only one job listens.
            let _unheard = self.told.send(()).is_err();
        }
    }
}

struct Delivery {
    runtime: tokio::runtime::Runtime,
    task: tokio::task::JoinHandle<Result<DeliveryTotals, uplink::DeliverError>>,
    shutdown: watch::Sender<Shutdown>,
    acks: Acks,
    heard: mpsc::UnboundedReceiver<()>,
}

impl Delivery {
    /// On a thread of its own, as the sensor has it.
    fn start(spool: SpoolHandle, bandwidth: Option<u64>) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (shutdown, wish) = watch::channel(Shutdown::No);
        let (told, heard) = mpsc::unbounded_channel();
        let acks = Acks { times: Arc::default(), told };
        let counted = acks.clone();
        let options = DeliverOptions {
            bandwidth_bytes_per_second_max: bandwidth,
            ..DeliverOptions::new(spool)
        };
        let progress = move |event: DeliveryEvent| counted.handle(&event);
        let task = runtime.spawn(async move { deliver(options, progress, wish).await });
        Ok(Self { runtime, task, shutdown, acks, heard })
    }

    fn end(self, wish: Shutdown) -> Result<(DeliveryTotals, Found)> {
        self.shutdown.send(wish).context("the delivery runs")?;
        let totals = self.runtime.block_on(self.task).context("the delivery failed")??;
        let (first_ack_ms, last_ack_ms) =
            *self.acks.times.lock().unwrap_or_else(PoisonError::into_inner);
        let found = Found {
            batches: totals.batches_acked,
            records: totals.records_acked,
            bytes: totals.bytes_acked,
            first_ack_ms,
            last_ack_ms,
            ..Found::default()
        };
        Ok((totals, found))
    }
}

fn open(state: &std::path::Path) -> Result<Outbox> {
    Ok(Outbox::open(OutboxOptions {
        state_dir: state.to_owned(),
        spool_bytes_max: 1 << 40,
        object_sha256: [0; 32],
        sensor_version: env!("CARGO_PKG_VERSION").to_owned(),
        now_ms: now_ms(),
    })?)
}

/// What the kernel says of this process, in the unit of that line.
fn status(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
}

fn cpu_s() -> Option<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u32::try_from(time.tv_sec).ok()?;
    let nanos = u32::try_from(time.tv_nsec).ok()?;
    Some(f64::from(seconds) + f64::from(nanos) / 1e9)
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let found = match &options.job {
        Job::Enroll { code } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(enroll(code, &options.state)).context("enrolling")?;
            Found::default()
        }
        Job::Seal { batches, records } => seal(&options.state, *batches, *records)?,
        Job::Flow { batches } => flow(&options.state, *batches)?,
        Job::Idle { samples, pause_ms } => idle(&options.state, *samples, *pause_ms)?,
        Job::Drain { bandwidth } => {
            let (spool, _) = SpoolHandle::open(&options.state)?;
            let started = Instant::now();
            let (_, found) = Delivery::start(spool, *bandwidth)?
                .end(Shutdown::WhenEmpty { within: PATIENCE })?;
            Found { elapsed_s: started.elapsed().as_secs_f64(), cpu_s: cpu_s(), ..found }
        }
        Job::Wait => wait(&options.state)?,
    };
    let text = serde_json::to_string(&found).context("the figures are numbers")?;
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).context("standard output")
}

fn seal(state: &std::path::Path, batches: u64, records: usize) -> Result<Found> {
    let mut outbox = open(state)?;
    // Sealing is measured elsewhere: the same records again and again.
    let batch = Mix::new(1).records(records);
    let started = Instant::now();
    let mut bytes = 0;
    for _ in 0..batches {
        bytes += outbox.seal(&batch, &Books::default(), now_ms())?.bytes;
    }
    let elapsed_s = started.elapsed().as_secs_f64();
    let records = outbox.totals().records_sealed;
    Ok(Found { batches, records, bytes, elapsed_s, cpu_s: cpu_s(), ..Found::default() })
}

/// Seals and delivers at once, as fast as it goes.
fn flow(state: &std::path::Path, batches: u64) -> Result<Found> {
    let mut outbox = open(state)?;
    // Some different batches, made before: making records is the aggregator's part.
    let mut flows = Mix::new(1);
    let made: Vec<_> = (0..8).map(|_| flows.records(BATCH_RECORDS)).collect();
    let mut delivery = Delivery::start(outbox.spool(), None)?;
    // The connection stands when the first batch is acknowledged.
    outbox.seal(&made[0], &Books::default(), now_ms())?;
    delivery.heard.blocking_recv().context("the delivery runs")?;
    let cpu_before_s = cpu_s();
    let started = Instant::now();
    for batch in made.iter().cycle().take(usize::try_from(batches)?) {
        outbox.seal(batch, &Books::default(), now_ms())?;
    }
    let (totals, found) = delivery.end(Shutdown::WhenEmpty { within: PATIENCE })?;
    let elapsed_s = started.elapsed().as_secs_f64();
    ensure!(totals.batches_acked == batches + 1, "not everything was acknowledged: {totals:?}");
    let first = made.first().map_or(0, Vec::len) as u64;
    Ok(Found {
        batches,
        records: found.records - first,
        elapsed_s,
        cpu_s: cpu_s().zip(cpu_before_s).map(|(after, before)| after - before),
        ..found
    })
}

/// One batch at a time, on a line that is otherwise idle.
fn idle(state: &std::path::Path, samples: u64, pause_ms: u64) -> Result<Found> {
    let mut outbox = open(state)?;
    let batch = Mix::new(1).records(BATCH_RECORDS);
    let mut delivery = Delivery::start(outbox.spool(), None)?;
    let mut latencies_ms = Vec::new();
    for sample in 0..=samples {
        outbox.seal(&batch, &Books::default(), now_ms())?;
        let sealed = Instant::now();
        delivery.heard.blocking_recv().context("the delivery runs")?;
        // The first one waits for the connection.
        if sample > 0 {
            latencies_ms.push(sealed.elapsed().as_secs_f64() * 1e3);
        }
        std::thread::sleep(Duration::from_millis(pause_ms + sample * 7 % 40));
    }
    let (_, found) = delivery.end(Shutdown::Now)?;
    Ok(Found { latencies_ms, ..found })
}

/// A sensor whose backend is away: opens the spool, tries to deliver, and seals on.
fn wait(state: &std::path::Path) -> Result<Found> {
    let started = Instant::now();
    let mut outbox = open(state)?;
    let elapsed_s = started.elapsed().as_secs_f64();
    let delivery = Delivery::start(outbox.spool(), None)?;
    outbox.seal(&Mix::new(1).records(BATCH_RECORDS), &Books::default(), now_ms())?;
    std::thread::sleep(WATCHED);
    let waiting = outbox.totals();
    let rss_bytes = status("VmRSS").map(|kib| kib * 1024);
    delivery.end(Shutdown::Now)?;
    Ok(Found {
        batches: waiting.batches_waiting,
        records: waiting.records_waiting,
        bytes: waiting.spool_bytes,
        elapsed_s,
        rss_bytes,
        ..Found::default()
    })
}
