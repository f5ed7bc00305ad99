//! In: the figures of every row, and what is asked of them. Out: a table for people, or JSON for programs.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::captures::{Capture, Shape};
use super::programs::{Program, Setup};
use super::report::Counted;
use super::targets::Judged;

/// One program on one capture.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) program: Program,
    pub(super) command: String,
    /// In the capture, as `generate` was asked.
    pub(super) packets: u64,
    pub(super) flows: u64,
    pub(super) runs: usize,
    /// Medians, as the next two.
    pub(super) elapsed_s: f64,
    pub(super) cpu_s: f64,
    pub(super) rss_bytes: f64,
    pub(super) ratio_to_cat: Option<f64>,
    /// What the program says.
    pub(super) counted: Option<Counted>,
}

impl Row {
    /// The time that its rates are by.
    fn busy_s(&self) -> f64 {
        if self.program.sleeps() { self.cpu_s } else { self.elapsed_s }
    }

    /// Of the packets that it accounts for.
    pub(super) fn packets_per_s(&self) -> f64 {
        let lost = u64::try_from(self.lost().unwrap_or(0)).unwrap_or(0);
        as_float(self.packets - lost.min(self.packets)) / self.busy_s()
    }

    pub(super) fn flows_per_s(&self) -> f64 {
        as_float(self.flows) / self.busy_s()
    }

    /// Packets that it did not count; negative if it counted more, `None` if it does not say.
    pub(super) fn lost(&self) -> Option<i64> {
        let counted = self.counted?;
        Some(self.packets.cast_signed() - counted.packets.cast_signed())
    }
}

#[derive(Serialize)]
struct Document<'a> {
    rows: Vec<Line<'a>>,
    targets: &'a [Judged],
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    packets_per_s: f64,
    flows_per_s: f64,
    ratio_to_cat: Option<f64>,
    rss_bytes: f64,
    elapsed_s: f64,
    cpu_s: f64,
    runs: usize,
    packets: u64,
    flows: u64,
    packets_counted: Option<u64>,
    flows_counted: Option<u64>,
    command: &'a str,
}

impl<'a> From<&'a Row> for Line<'a> {
    fn from(row: &'a Row) -> Self {
        let rounded = |value: f64, parts: f64| (value * parts).round() / parts;
        Self {
            name: &row.name,
            packets_per_s: row.packets_per_s().round(),
            flows_per_s: row.flows_per_s().round(),
            ratio_to_cat: row.ratio_to_cat.map(|ratio| rounded(ratio, 1_000.0)),
            rss_bytes: row.rss_bytes,
            elapsed_s: rounded(row.elapsed_s, 10_000.0),
            cpu_s: rounded(row.cpu_s, 10_000.0),
            runs: row.runs,
            packets: row.packets,
            flows: row.flows,
            packets_counted: row.counted.map(|counted| counted.packets),
            flows_counted: row.counted.and_then(|counted| counted.flows),
            command: &row.command,
        }
    }
}

pub(super) fn json(rows: &[Row], targets: &[Judged]) -> Result<String> {
    let rows = rows.iter().map(Line::from).collect();
    let mut text = serde_json::to_string_pretty(&Document { rows, targets })
        .context("cannot write the figures as JSON")?;
    text.push('\n');
    Ok(text)
}

/// What is told above and below the table.
pub(super) struct About<'a> {
    pub(super) cpu: usize,
    pub(super) rounds: usize,
    pub(super) captures: Vec<&'a Capture>,
    pub(super) setup: &'a Setup,
}

pub(super) fn text(about: &About<'_>, rows: &[Row], targets: &[Judged]) -> String {
    let mut text = String::new();
    let out = &mut text;
    line(
        out,
        format_args!(
            "Each program alone on CPU {}, from the page cache; medians of {} rounds in turns.\n",
            about.cpu, about.rounds
        ),
    );
    for capture in &about.captures {
        line(
            out,
            format_args!(
                "{:<5} {:>9} packets, {:>9} flows, {:>4} MB   {}",
                capture.shape.name(),
                grouped(u64::from(capture.packets)),
                grouped(u64::from(capture.flows)),
                capture.bytes / 1_000_000,
                capture.command,
            ),
        );
    }
    let head = ["", "M packets/s", "M flows/s", "x cat", "s", "CPU s", "RSS MB", "runs", "counted"];
    line(out, format_args!(""));
    put(out, head.map(str::to_owned));
    let mut shape = None;
    for row in rows {
        if shape.is_some_and(|shape| shape != row.shape) {
            line(out, format_args!(""));
        }
        shape = Some(row.shape);
        put(out, cells(row));
    }
    tell_of_programs(out, about, rows);
    if !targets.is_empty() {
        line(out, format_args!("\nTargets:"));
    }
    for judged in targets {
        line(out, format_args!("  {judged}"));
    }
    text
}

fn tell_of_programs(out: &mut String, about: &About<'_>, rows: &[Row]) {
    line(out, format_args!("\nHow each was called, on its first capture; on the others likewise:"));
    let mut told: Vec<Program> = Vec::new();
    for row in rows {
        if told.contains(&row.program) {
            continue;
        }
        told.push(row.program);
        line(out, format_args!("  {}", row.command));
        let capture = about.captures.iter().find(|capture| capture.shape == row.shape);
        let more = capture.and_then(|capture| about.setup.told(row.program, capture));
        if let Some((file, text)) = more {
            let text = text.trim_end().replace('\n', "; ");
            line(out, format_args!("    with, in {}: {text}", file.display()));
        }
    }
    if rows.iter().any(|row| row.program.sleeps()) {
        line(
            out,
            format_args!(
                "\nThe rates of argus and pmacctd are by their CPU time, because they sleep for seconds."
            ),
        );
    }
    if let Some((names, packages)) = about.setup.missing() {
        line(
            out,
            format_args!(
                "\nNot installed: {}. `apt-get install {}`",
                names.join(", "),
                packages.join(" ")
            ),
        );
    }
}

fn cells(row: &Row) -> [String; 9] {
    let counted = match (row.counted, row.lost()) {
        (Some(counted), Some(lost)) => {
            let flows = counted
                .flows
                .map_or_else(String::new, |flows| format!(", {} flows", grouped(flows)));
            match lost {
                0 => format!("all{flows}"),
                1.. => format!("LOST {} packets{flows}", grouped(lost.unsigned_abs())),
                _ => format!("{} packets too many{flows}", grouped(lost.unsigned_abs())),
            }
        }
        _ => String::new(),
    };
    let knows_flows = row.program.is_ours() || row.program.is_peer();
    let flows = if knows_flows { millions(row.flows_per_s()) } else { String::new() };
    [
        row.name.clone(),
        millions(row.packets_per_s()),
        flows,
        row.ratio_to_cat.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        format!("{:.3}", row.elapsed_s),
        format!("{:.3}", row.cpu_s),
        format!("{:.0}", row.rss_bytes / 1e6),
        row.runs.to_string(),
        counted,
    ]
}

fn put(out: &mut String, cells: [String; 9]) {
    let [name, packets, flows, ratio, elapsed, cpu, rss, runs, counted] = cells;
    let text = format!(
        "{name:<18}  {packets:>11}  {flows:>9}  {ratio:>7}  {elapsed:>8}  {cpu:>8}  {rss:>7}  \
         {runs:>4}  {counted}"
    );
    line(out, format_args!("{}", text.trim_end()));
}

fn line(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.write_fmt(arguments).expect("writing to a string cannot fail");
    out.push('\n');
}

fn millions(number: f64) -> String {
    format!("{:.2}", number / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "counts of packets are far below 2^53")]
fn as_float(number: u64) -> f64 {
    number as f64
}

/// 1234567 as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
