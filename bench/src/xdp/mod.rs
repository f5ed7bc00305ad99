//! What the XDP program costs a packet. In: the sensor's object, and the object of other designs that is built from
//! the same sources. Out: a table, or JSON, of nanoseconds a packet and of ratios to a program that only drops.
//!
//! **Method.** `BPF_PROG_TEST_RUN` gives a program one and the same frame again and again and measures the time; it
//! touches no interface. A thread stays on one CPU and gives the frames; another one, on another CPU, meanwhile
//! flips and drains epochs as the sensor does. A run goes through the rows; within a row, portions of frames for the
//! row's program alternate with portions for the program that only drops, so that both see the same machine. The
//! time of a run is the mean of the middle half of its portions, which leaves out those during which the machine did
//! something else; what is shown is the median of the runs. The kernel gives whole nanoseconds for a portion,
//! rounded down, so a ratio is good to about three in a hundred.
//!
//! **Many flows.** As the frame is always the same, another program, built from the same sources, puts a flow's
//! number into the key between parser and cache (`sensor-ebpf/src/comparison/flows.rs`). The number is drawn evenly
//! from the flows, the order that caches like least. What that costs is the row `choose`; it is not taken off
//! the other rows, and the ratio is to the plain `drop`. So the rows with many flows are a little dearer than the
//! product is. In the rows `deduplicate …`, where copies are removed, it also makes another
//! packet of the frame each time.
//!
//! **Accounts.** Every packet that was fed must be found in a slot, the log or the coarse totals: `unaccounted` is what
//! is missing, also for the designs that lose packets by their nature. Programs that count nothing (`drop`,
//! `choose`, `parse`) have no account, and nothing missing from it.

mod cpus;
mod frames;
mod rows;
mod subject;
mod table;

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use sensor::{Calls, KernelTestRun, TableSizes};

use cpus::{Cpus, stay_on};
use rows::{Design, ROWS, Row};
use subject::Subject;
use table::Figure;

/// Portions that a row's packets are given in, each after a portion for the floor; one more comes first, unmeasured.
const PORTIONS: u32 = 16;

/// What `xdp` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Print JSON: {"rows": [{"name", "ns", "ratio", "packets", "unaccounted"}]}.
    #[arg(long)]
    json: bool,
    /// Packets of each row in a run.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(20..=1_000_000_000))]
    packets: u32,
    /// Runs; the medians are shown.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: u32,
    /// Only the row of this name; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Length of an epoch, milliseconds; shorter than the sensor's, so that there are many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    epoch_ms: u64,
    /// Sets of two slots of each CPU and epoch, a power of two; the sensor's own number when it is not given.
    #[arg(long)]
    sets: Option<u32>,
    /// Slots of the log of each CPU and epoch; the sensor's own number when it is not given.
    #[arg(long)]
    log_slots: Option<u32>,
}

/// What holds for every row.
#[derive(Clone, Copy, Debug)]
struct Setting {
    cpus: Cpus,
    packets: u32,
    epoch: Duration,
    sizes: TableSizes,
}

/// One row in one run.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    nanoseconds: f64,
    ratio: f64,
    fed: u64,
    found: u64,
    folded: u64,
    epochs: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "loading XDP programs needs root");
    let rows = chosen(&options.only)?;
    let cpus = Cpus::choose()?;
    stay_on(cpus.feeder)?;
    let usual = TableSizes::default();
    let setting = Setting {
        cpus,
        packets: options.packets,
        epoch: Duration::from_millis(options.epoch_ms),
        sizes: TableSizes {
            sets: options.sets.unwrap_or(usual.sets),
            log_slots: options.log_slots.unwrap_or(usual.log_slots),
        },
    };
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); rows.len()];
    for run in 1..=options.runs {
        for (row, samples) in rows.iter().zip(&mut samples) {
            progress(&format!("run {run} of {}: {}", options.runs, row.name));
            let sample = sample(row, setting).with_context(|| format!("row `{}`", row.name))?;
            samples.push(sample);
        }
    }
    progress("");
    let figures: Vec<_> = rows.iter().zip(&samples).map(|(row, runs)| figure(row, runs)).collect();
    let text = if options.json {
        table::json(&figures)?
    } else {
        table::text(setting, options.runs, &figures, &calls()?)
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

fn chosen(names: &[String]) -> Result<Vec<Row>> {
    for name in names {
        if !ROWS.iter().any(|row| row.name == name) {
            let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            bail!("there is no row `{name}`; there are: {}", known.join(", "));
        }
    }
    let is_chosen = |row: &&Row| names.is_empty() || names.iter().any(|name| row.name == name);
    Ok(ROWS.iter().filter(is_chosen).copied().collect())
}

/// Tells on one line of the terminal what is being done.
fn progress(text: &str) {
    // Whoever cannot see it loses nothing.
    let _unseen = write!(std::io::stderr(), "\r\x1b[K{text}");
}

/// Measures a row once.
fn sample(row: &Row, setting: Setting) -> Result<Sample> {
    let subject = Subject::start(row, setting)?;
    let frame = row.around.frame();
    let portion = setting.packets / PORTIONS;
    subject.floor(&frame, portion)?;
    subject.feed(&frame, portion)?;
    let (mut own, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..PORTIONS {
        floor.push(subject.floor(&frame, portion)?);
        own.push(subject.feed(&frame, portion)?);
    }
    let found = subject.finish()?;
    let fed = u64::from(portion) * u64::from(PORTIONS + 1);
    let counts = !matches!(row.design, Design::Drop | Design::Choose | Design::Parse);
    let (own, floor) = (middle(own), middle(floor));
    ensure!(floor > 0.0, "the kernel measured no time for the program that only drops");
    Ok(Sample {
        nanoseconds: own,
        ratio: own / floor,
        fed,
        found: if counts { found.packets } else { fed },
        folded: found.folded,
        epochs: found.epochs,
    })
}

/// The mean of the middle half, which what else the machine does for a moment does not move.
fn middle(mut portions: Vec<u64>) -> f64 {
    portions.sort_unstable();
    let cut = portions.len() / 4;
    let middle = portions.get(cut..portions.len() - cut).unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a sum of a few thousand nanoseconds")]
    let (sum, count) = (middle.iter().sum::<u64>() as f64, middle.len() as f64);
    sum / count
}

/// The medians of a row's runs, and the sums of its accounts.
fn figure(row: &Row, runs: &[Sample]) -> Figure {
    let fed: u64 = runs.iter().map(|run| run.fed).sum();
    let found: u64 = runs.iter().map(|run| run.found).sum();
    Figure {
        name: row.name,
        nanoseconds: median(runs.iter().map(|run| run.nanoseconds)),
        ratio: median(runs.iter().map(|run| run.ratio)),
        target: row.target,
        packets: fed,
        unaccounted: fed.cast_signed() - found.cast_signed(),
        folded: runs.iter().map(|run| run.folded).sum(),
        epochs: runs.iter().map(|run| run.epochs).sum(),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
    let lower = values.get((values.len() - 1) / 2).copied().unwrap_or(f64::NAN);
    f64::midpoint(lower, upper)
}

/// What is left to call in the product's programs, as the kernel has translated them.
fn calls() -> Result<Vec<(&'static str, Calls)>> {
    let mut kernel = KernelTestRun::load(TableSizes::default())?;
    let programs =
        ["count_drop", "count_pass", "count_drop_frags", "count_pass_frags", "deduplicate_drop"];
    programs.into_iter().map(|program| Ok((program, kernel.calls(program)?))).collect()
}

#[cfg(test)]
mod tests;
