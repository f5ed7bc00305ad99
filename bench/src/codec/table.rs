//! In: the figures of every row. Out: a table for people, or JSON for programs.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use flow::Record;
use serde::Serialize;

const OURS: &str = "spanwatch";
const BYTES_TARGET: f64 = 15.0;
const ENCODE_NS_TARGET: f64 = 120.0;
const DECODE_NS_TARGET: f64 = 60.0;
/// How large our bytes may be, as a part of another row's.
const RATIO_TARGETS: [(&str, f64); 2] = [("arrow-ipc+zstd1", 0.65), ("json+zstd3", 0.4)];

/// What a row came to; times in nanoseconds a flow.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) bytes_per_flow: f64,
    pub(super) encode_ns: f64,
    pub(super) decode_ns: f64,
}

/// What sealing and opening are made of, nanoseconds a flow.
pub(super) struct Parts {
    pub(super) columns: f64,
    pub(super) compression: f64,
    pub(super) checksum: f64,
    pub(super) signature: f64,
    pub(super) seal: f64,
    pub(super) verify: f64,
    pub(super) unpack: f64,
    pub(super) open: f64,
}

#[derive(Serialize)]
struct Document<'a> {
    rows: &'a [Figure],
}

pub(super) fn json(figures: &[Figure]) -> Result<String> {
    let text = serde_json::to_string_pretty(&Document { rows: figures });
    Ok(text.context("cannot write the figures as JSON")? + "\n")
}

pub(super) fn text(
    about: &str,
    batches: &[Vec<Record>],
    figures: &[Figure],
    parts: &Parts,
) -> String {
    let records = batches.first().map_or(0, Vec::len);
    let mut text = format!("{} batches of {records}, {about}; CPU time\n\n", batches.len());
    let ours = figures.iter().find(|figure| figure.name == OURS);
    let width = figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
    line(
        &mut text,
        format_args!(
            "{:<width$}  {:>10}  {:>9}  {:>9}  {:>17}",
            "row", "bytes/flow", "encode ns", "decode ns", "bytes of spanwatch"
        ),
    );
    for figure in figures {
        let Figure { name, bytes_per_flow, encode_ns, decode_ns } = figure;
        let ratio = ours.map_or(f64::NAN, |ours| ours.bytes_per_flow / bytes_per_flow);
        line(
            &mut text,
            format_args!(
                "{name:<width$}  {bytes_per_flow:>10.2}  {encode_ns:>9.1}  {decode_ns:>9.1}  {ratio:>16.3} x",
            ),
        );
    }
    if let Some(ours) = ours {
        judge(&mut text, ours, figures);
    }
    let Parts { columns, compression, checksum, signature, seal, verify, unpack, open } = parts;
    line(&mut text, format_args!("\nWhat spanwatch is made of, ns a flow"));
    line(
        &mut text,
        format_args!(
            "  seal {seal:.1}: columns {columns:.1}, compression {compression:.1}, BLAKE3 {checksum:.1}, \
             Ed25519 and header {signature:.1}"
        ),
    );
    line(
        &mut text,
        format_args!(
            "  open {open:.1}: BLAKE3 {checksum:.1}, Ed25519 {verify:.1}, unpacking and records {unpack:.1}"
        ),
    );
    text
}

fn judge(text: &mut String, ours: &Figure, figures: &[Figure]) {
    line(text, format_args!("\nTargets"));
    let mut told = |what: &str, value: f64, target: f64, digits: usize| {
        let verdict = if value <= target { "met" } else { "missed" };
        line(
            text,
            format_args!("  {what:<34} {value:>7.digits$}  at most {target:>6.digits$}: {verdict}"),
        );
    };
    told("bytes a flow", ours.bytes_per_flow, BYTES_TARGET, 2);
    for (name, target) in RATIO_TARGETS {
        if let Some(other) = figures.iter().find(|figure| figure.name == name) {
            let ratio = ours.bytes_per_flow / other.bytes_per_flow;
            told(&format!("bytes, ratio to {name}"), ratio, target, 3);
        }
    }
    told("encode, ns a flow", ours.encode_ns, ENCODE_NS_TARGET, 1);
    told("decode, ns a flow", ours.decode_ns, DECODE_NS_TARGET, 1);
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a text takes whatever is written to it");
}
