//! What the link costs, from the sealed batch to its acknowledgement: the sensor's own sealing, spool and delivery on
//! one CPU, the receiving end on another, on loopback, every batch synced to disk on both sides. In: the backend's
//! program. Out: a table, or JSON.
//!
//! **The two receiving ends**: `lake` is `spanwatch-backend serve`: Delta Lake, detection, SQLite. `file` appends
//! batches to one file and syncs it once for all that have come: what is left is the link, with TLS, signatures,
//! decompression and decoding.
//!
//! | row | what is done |
//! |---|---|
//! | `flow` | batches of 8,192 records (those of `codec`) are sealed and delivered as fast as it goes; to the end |
//! | `idle` | one batch at a time, from sealed to acknowledged; the connection stands |
//! | `resume` | a full spool, nobody listens, then the backend starts: to the first ack, and how fast it drains |
//! | `cap` | the same with a cap of the bandwidth |
//! | `memory` | a sensor with many batches on disk, and nobody there: resident memory beside that of one without |
//!
//! Both processes stay on their CPU (`taskset`). Where there is only one, they share it, and the table says so.

mod backend;
pub(crate) mod intake;
pub(crate) mod part;
mod table;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use rustix::thread::{CpuSet, sched_getaffinity};

use backend::{Backend, Kind, Site, on_cpu};
use part::{Found, Job};
use table::Row;

/// Records of one batch: the sensor's default.
const BATCH_RECORDS: usize = 8_192;
/// The backend's default: a group is committed when nothing has come for so long, and at the latest after this.
const QUIET_MS: f64 = 100.0;
const GROUP_WAIT_MS: f64 = 1_000.0;
/// Bandwidth of the row `cap`, bytes a second: 100 Mbit/s.
const CAP: u64 = 12_500_000;

/// A row, to be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Flow,
    Idle,
    Resume,
    Cap,
    Memory,
}

/// What `uplink` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Print JSON: rows with the figures.
    #[arg(long)]
    json: bool,
    /// Few batches: shows that everything runs, measures little.
    #[arg(long)]
    quick: bool,
    /// Folder for spools and lakes, on the disk that is to be measured; what a run makes there is removed at its end.
    #[arg(long, default_value = "target/bench/uplink", value_name = "FOLDER")]
    dir: PathBuf,
    /// The backend's program; the one beside this program when it is not given. Without one, only `file` is measured.
    #[arg(long, value_name = "FILE")]
    backend: Option<PathBuf>,
    /// Batches of the row `flow`.
    #[arg(long, default_value_t = 600, value_name = "N")]
    batches: u64,
    /// Spool of the rows `resume` and `cap`, MiB.
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    spool_mib: u64,
    /// How long nobody listens, in the row `resume`, seconds.
    #[arg(long, default_value_t = 20, value_name = "S")]
    outage_s: u64,
    /// Batches that wait, in the row `memory`.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    waiting: u64,
    /// Only these rows; may be given several times.
    #[arg(long, value_enum, value_name = "ROW")]
    only: Vec<Name>,
}

struct Bench<'a> {
    options: &'a Options,
    own: PathBuf,
    sensor_cpu: usize,
    backend_cpu: usize,
    folder: tempdir::Folder,
}

/// Removed at the end.
mod tempdir {
    use std::path::{Path, PathBuf};

    use anyhow::{Context as _, Result};

    pub(super) struct Folder(PathBuf);

    impl Folder {
        pub(super) fn new(parent: &Path) -> Result<Self> {
            let folder = parent.join(format!("run-{}", std::process::id()));
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            Ok(Self(folder.canonicalize()?))
        }

        pub(super) fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // What cannot be removed lies below `target/`, where people look for rubbish.
            let _left = std::fs::remove_dir_all(&self.0).is_err();
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let own = std::env::current_exe().context("this program's own file")?;
    let beside = own.with_file_name("spanwatch-backend");
    let program = options.backend.clone().or_else(|| beside.is_file().then_some(beside));
    let allowed = sched_getaffinity(None).context("cannot ask which CPUs there are")?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let sensor_cpu = cpus.next().context("this process may run on no CPU")?;
    let backend_cpu = cpus.next().unwrap_or(sensor_cpu);
    let folder = tempdir::Folder::new(&options.dir)?;
    let bench = Bench { options, own: own.clone(), sensor_cpu, backend_cpu, folder };
    let mut rows = Vec::new();
    let ends = [Some((Kind::File, own)), program.map(|program| (Kind::Lake, program))];
    for (kind, program) in ends.into_iter().flatten() {
        rows.extend(bench.rows_with(kind, &program)?);
    }
    if bench.wants(Name::Memory) {
        rows.push(bench.memory()?);
    }
    progress("");
    let shared = (sensor_cpu == backend_cpu).then_some(sensor_cpu);
    let text = if options.json { table::json(&rows)? } else { table::text(&rows, shared) };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

impl Bench<'_> {
    fn wants(&self, name: Name) -> bool {
        self.options.only.is_empty() || self.options.only.contains(&name)
    }

    /// Runs one job of the sensor to its end.
    fn job(&self, state: &Path, job: &Job) -> Result<Found> {
        finish(self.start(state, job)?)
    }

    fn start(&self, state: &Path, job: &Job) -> Result<Child> {
        let mut command = on_cpu(self.sensor_cpu, &self.own);
        command.arg("uplink-part").arg(state).args(job.arguments());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().context("cannot start setpriv and taskset (util-linux)")
    }

    /// A receiving end that serves, and a sensor that it knows.
    fn site(&self, kind: Kind, program: &Path, name: &str) -> Result<(Site, Backend, PathBuf)> {
        let folder = self.folder.path().join(format!("{}-{name}", kind.name()));
        let site = Site::new(kind, program, folder.join("backend"), self.backend_cpu)?;
        let made = site.init()?;
        let backend = site.serve()?;
        let code = made.or_else(|| backend.code.clone()).context("a code for a sensor")?;
        let state = folder.join("sensor");
        self.job(&state, &Job::Enroll { code })?;
        Ok((site, backend, state))
    }

    fn rows_with(&self, kind: Kind, program: &Path) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let quick = self.options.quick;
        if self.wants(Name::Flow) {
            progress(&format!("{}: as fast as it goes", kind.name()));
            let (_site, backend, state) = self.site(kind, program, "flow")?;
            let batches = if quick { 20 } else { self.options.batches };
            let before_s = backend.cpu_s();
            let found = self.job(&state, &Job::Flow { batches })?;
            let backend_cpu_s = backend.cpu_s().zip(before_s).map(|(after, before)| after - before);
            rows.push(Row::flow(kind, &found, backend_cpu_s));
        }
        if self.wants(Name::Idle) {
            progress(&format!("{}: one at a time", kind.name()));
            let (_site, _backend, state) = self.site(kind, program, "idle")?;
            let samples = if quick { 5 } else { 100 };
            let found = self.job(&state, &Job::Idle { samples, pause_ms: 150 })?;
            let interval_ms = (kind == Kind::Lake).then_some((QUIET_MS, GROUP_WAIT_MS));
            rows.push(Row::idle(kind, &found, interval_ms));
        }
        for (name, cap) in [(Name::Resume, None), (Name::Cap, Some(CAP))] {
            // The cap has nothing to do with who receives.
            if self.wants(name) && (cap.is_none() || kind == Kind::File) {
                rows.push(self.resume(kind, program, cap)?);
            }
        }
        Ok(rows)
    }

    fn resume(&self, kind: Kind, program: &Path, cap: Option<u64>) -> Result<Row> {
        let name = if cap.is_some() { "cap" } else { "resume" };
        let (site, backend, state) = self.site(kind, program, name)?;
        // It has been there before, as in every outage.
        self.job(&state, &Job::Flow { batches: 1 })?;
        drop(backend);
        progress(&format!("{}, {name}: filling a spool", kind.name()));
        let probe = self.job(&state, &Job::Seal { batches: 1, records: BATCH_RECORDS })?;
        let mib = if self.options.quick { 4 } else { self.options.spool_mib };
        let mib = if cap.is_some() { mib.min(128) } else { mib };
        let batches = (mib << 20) / probe.bytes.max(1);
        self.job(&state, &Job::Seal { batches, records: BATCH_RECORDS })?;
        let sensor = self.start(&state, &Job::Drain { bandwidth: cap })?;
        let outage_s = if self.options.quick { 3 } else { self.options.outage_s };
        progress(&format!("{}, {name}: nobody there for {outage_s} s", kind.name()));
        std::thread::sleep(Duration::from_secs(outage_s));
        let backend = site.serve()?;
        let listening_ms = now_ms();
        progress(&format!("{}, {name}: draining {mib} MiB", kind.name()));
        let found = finish(sensor)?;
        drop(backend);
        ensure!(found.batches > batches, "{} of {batches} batches arrived", found.batches);
        Row::resume(kind, &found, listening_ms, cap)
    }

    fn memory(&self) -> Result<Row> {
        let (_site, backend, state) = self.site(Kind::File, &self.own, "memory")?;
        drop(backend);
        progress("memory: a sensor with an empty spool");
        let without = self.job(&state, &Job::Wait)?;
        let waiting = if self.options.quick { 500 } else { self.options.waiting };
        progress(&format!("memory: sealing {waiting} batches"));
        self.job(&state, &Job::Seal { batches: waiting, records: 20 })?;
        progress("memory: a sensor with a full spool");
        let with = self.job(&state, &Job::Wait)?;
        Row::memory(&without, &with)
    }
}

fn finish(sensor: Child) -> Result<Found> {
    let output = sensor.wait_with_output().context("waiting for the sensor's side")?;
    if !output.status.success() {
        bail!("the sensor's side ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the sensor's side gives figures")
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Tells on one line of the terminal, if there is one, what is being done.
fn progress(text: &str) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        // Whoever cannot see it loses nothing.
        let _unseen = write!(terminal, "\r\x1b[K{text}");
    }
}
