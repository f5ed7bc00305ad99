//! What reading captures costs: the sensor's `replay` beside other flow probes, the same captures, the same core, in
//! turns. In: the sensor's program, and the probes that are installed. Out: a table, or JSON.
//!
//! **Method.** `generate` makes the captures, once; they stay in a folder. Each is read before it counts, so that every
//! program finds it in the page cache. Then, in rounds, each program reads each capture once, as a process of its own
//! on one CPU; the figures are medians of the rounds. Time is from start to end of the process, CPU time and memory
//! are what the kernel says of it when it has ended (`wait4`). A program that is much slower than the others runs in
//! the first rounds only; the table says how often each one ran.
//!
//! **What each one counted** is read back from where it says it: packets that a program does not account for are told
//! beside its rate, and its rate then is no rate at which it can be used.
//!
//! **Memory of an open flow** is the difference between two captures of equally many packets: one flow, and each
//! packet a flow of its own, all open until the end; divided by the number of flows.

mod captures;
mod measure;
mod programs;
mod report;
mod table;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use captures::{Capture, Shape};
use measure::{Usage, stay_on_one_cpu};
use programs::{Program, Setup};
use report::Counted;
use table::Row;

/// A program that takes longer than this on a capture runs there once.
const SLOW: Duration = Duration::from_secs(25);
/// One that takes longer than this runs three times at most.
const SLUGGISH: Duration = Duration::from_secs(8);
const SLUGGISH_RUNS_MAX: usize = 3;

/// What `offline` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Print JSON: {"rows": [{"name", "packets_per_s", "flows_per_s", "ratio_to_cat", "rss_bytes", …}]}.
    #[arg(long)]
    json: bool,
    /// Small captures and one round: shows that everything runs, measures nothing.
    #[arg(long)]
    quick: bool,
    /// Rounds; medians are shown.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    runs: u16,
    /// Folder of the captures; they stay there.
    #[arg(long, default_value = "target/bench", value_name = "FOLDER")]
    dir: PathBuf,
    /// The sensor's program; the one beside this program when it is not given.
    #[arg(long, value_name = "FILE")]
    sensor: Option<PathBuf>,
    /// Arguments for every replay, as in --replay-argument=--cpus=1.
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    replay_argument: Vec<String>,
    /// Leave the other flow probes out.
    #[arg(long)]
    without_peers: bool,
    /// Only these captures; may be given several times.
    #[arg(long, value_enum, value_name = "CAPTURE")]
    only: Vec<Shape>,
}

/// One program on one capture, with what it has shown so far.
struct Contest {
    program: Program,
    usages: Vec<Usage>,
    /// Of the latest run.
    counted: Option<Counted>,
}

/// A capture and who reads it.
struct Event {
    capture: Capture,
    contests: Vec<Contest>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let setup = Setup::find(&options.dir, options.sensor.as_deref(), &options.replay_argument)?;
    let cpu = stay_on_one_cpu()?;
    let mut events = Vec::new();
    let chosen = |shape: &Shape| options.only.is_empty() || options.only.contains(shape);
    for shape in Shape::ALL.into_iter().filter(chosen) {
        progress(&format!("making the capture `{}`", shape.name()));
        let capture = Capture::made(shape, options.quick, &options.dir)?;
        let with_peers = !options.without_peers && shape.has_peers();
        let contests = Program::all(shape.programs(), with_peers)
            .filter(|program| setup.has(*program))
            .map(|program| Contest { program, usages: Vec::new(), counted: None })
            .collect();
        events.push(Event { capture, contests });
    }
    let rounds = if options.quick { 1 } else { usize::from(options.runs) };
    for round in 1..=rounds {
        for Event { capture, contests } in &mut events {
            capture.warm()?;
            for contest in contests {
                let name = format!("{}, {}", capture.shape.name(), contest.program.name());
                if contest.is_enough() {
                    continue;
                }
                progress(&format!("round {round} of {rounds}: {name}"));
                let (usage, counted) = setup
                    .run(contest.program, capture)
                    .with_context(|| format!("`{name}` could not be measured"))?;
                contest.usages.push(usage);
                contest.counted = counted;
            }
        }
    }
    progress("");
    let rows = rows(&events, &setup);
    let text = if options.json {
        table::json(&rows)?
    } else {
        table::text(&rows, &events_told(&events), &setup, cpu, rounds)
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
    ensure!(
        rows.iter().all(|row| !row.program.is_ours() || row.is_complete()),
        "the sensor did not count every packet"
    );
    Ok(())
}

impl Contest {
    /// Whether another run would take more time than it is worth.
    fn is_enough(&self) -> bool {
        let Some(slowest) = self.usages.iter().map(|usage| usage.elapsed).max() else {
            return false;
        };
        slowest > SLOW || (slowest > SLUGGISH && self.usages.len() >= SLUGGISH_RUNS_MAX)
    }
}

fn rows(events: &[Event], setup: &Setup) -> Vec<Row> {
    todo!()
}

/// Tells on one line of the terminal what is being done.
fn progress(text: &str) {
    // Whoever cannot see it loses nothing.
    let _unseen = write!(std::io::stderr(), "\r\x1b[K{text}");
}
