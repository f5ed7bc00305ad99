//! What reading captures costs: the sensor's `replay` beside other flow probes, the same captures, the same core, in
//! turns. In: the sensor's program, and the probes that are installed. Out: a table, or JSON.
//!
//! **Method.** `generate` makes the captures, once; they stay in a folder. Each is read before it counts, so that every
//! program finds it in the page cache. Then, in rounds, each program reads each capture once, as a process of its own
//! on one CPU; the figures are medians of the rounds. Time is from start to end of the process, CPU time and memory
//! are what the kernel says of it when it has ended (`wait4`); rates are by time, of those that sleep by CPU time. A program that is much slower than the others runs in
//! the first rounds only; the table says how often each one ran.
//!
//! **What each one counted** is read back from where it says it: packets that a program does not account for are told
//! beside its rate, which is of those that it does account for. It is not compared with then.
//!
//! **Memory of an open flow** is the difference between two captures of equally many packets: one flow, and each
//! packet a flow of its own, all open until the end; divided by the number of flows.

mod captures;
mod measure;
mod programs;
mod report;
mod table;
mod targets;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use captures::{Capture, Shape};
use measure::{Usage, stay_on_one_cpu};
use programs::{Program, Setup};
use report::Counted;
use table::{About, Row};

/// A program that takes longer than this on a capture runs there once.
const SLOW: Duration = Duration::from_secs(25);
/// One that takes longer than this runs three times at most.
const SLUGGISH: Duration = Duration::from_secs(8);
const SLUGGISH_RUNS_MAX: usize = 3;

/// What `offline` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Print JSON: rows with the figures, and the targets with what was found.
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
        let contests = Program::of(shape, !options.without_peers)
            .into_iter()
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
    let rows: Vec<_> = events.iter().flat_map(|event| event.rows(&setup)).collect();
    let targets = if options.quick { Vec::new() } else { targets::judged(&rows) };
    let text = if options.json {
        table::json(&rows, &targets)?
    } else {
        let captures = events.iter().map(|event| &event.capture).collect();
        let about = About { cpu, rounds, captures, setup: &setup };
        table::text(&about, &rows, &targets)
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
    let short = rows.iter().find(|row| row.program.is_ours() && row.lost() != Some(0));
    ensure!(short.is_none(), "{} did not count every packet", short.map_or("", |row| &row.name));
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

impl Event {
    fn rows(&self, setup: &Setup) -> Vec<Row> {
        let row = |contest: &Contest| Row {
            name: format!("{} {}", self.capture.shape.name(), contest.program.name()),
            shape: self.capture.shape,
            program: contest.program,
            command: setup.typed(contest.program, &self.capture),
            packets: u64::from(self.capture.packets),
            flows: u64::from(self.capture.flows),
            runs: contest.usages.len(),
            elapsed_s: median(&contest.usages, |usage| usage.elapsed.as_secs_f64()),
            cpu_s: median(&contest.usages, |usage| usage.cpu.as_secs_f64()),
            rss_bytes: median(&contest.usages, |usage| bytes(usage.rss_bytes)),
            counted: contest.counted,
            ratio_to_cat: None,
        };
        let mut rows: Vec<_> = self.contests.iter().map(row).collect();
        let cat = rows.iter().find(|row| row.program == Program::Cat).map(|row| row.elapsed_s);
        for row in &mut rows {
            row.ratio_to_cat = cat.map(|cat_s| row.elapsed_s / cat_s);
        }
        rows
    }
}

/// Tells on one line of the terminal, if there is one, what is being done.
fn progress(text: &str) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        // Whoever cannot see it loses nothing.
        let _unseen = write!(terminal, "\r\x1b[K{text}");
    }
}

fn median(usages: &[Usage], of: impl Fn(&Usage) -> f64) -> f64 {
    let mut values: Vec<_> = usages.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
    let lower = values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN);
    f64::midpoint(lower, upper)
}

#[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 bytes")]
fn bytes(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
