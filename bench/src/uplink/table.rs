//! In: what was found. Out: rows, as a table for people or as JSON for programs.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::backend::Kind;
use super::part::Found;

/// One line; what a row does not measure is not there.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Row {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    flows_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_flow: Option<f64>,
    /// Of the sensor's side, sealing included where it seals.
    #[serde(skip_serializing_if = "Option::is_none")]
    sensor_cpu_ns_per_flow: Option<f64>,
    /// Of the receiving end, one batch more included.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_cpu_ns_per_flow: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_p99_ms: Option<f64>,
    /// The backend's commit interval: after how long a quiet it commits, and after how long in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    quiet_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_wait_ms: Option<f64>,
    /// From "listening" to the first acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    resume_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cap_bytes_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batches_waiting: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_empty_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_s: Option<f64>,
    batches: u64,
    flows: u64,
}

#[expect(clippy::cast_precision_loss, reason = "no run has 2^53 of anything")]
fn float(count: u64) -> f64 {
    count as f64
}

fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(at).copied()
}

impl Row {
    fn of(kind: Kind, name: &str, found: &Found) -> Self {
        Self {
            name: format!("{} {name}", kind.name()),
            batches: found.batches,
            flows: found.records,
            bytes_per_flow: Some(float(found.bytes) / float(found.records.max(1))),
            ..Self::default()
        }
    }

    pub(super) fn flow(kind: Kind, found: &Found, backend_cpu_s: Option<f64>) -> Self {
        let flows = float(found.records);
        Self {
            flows_per_s: Some(flows / found.elapsed_s),
            bytes_per_s: Some(float(found.bytes) / found.elapsed_s),
            sensor_cpu_ns_per_flow: found.cpu_s.map(|cpu_s| cpu_s * 1e9 / flows),
            backend_cpu_ns_per_flow: backend_cpu_s.map(|cpu_s| cpu_s * 1e9 / flows),
            ..Self::of(kind, "flow", found)
        }
    }

    pub(super) fn idle(kind: Kind, found: &Found, interval_ms: Option<(f64, f64)>) -> Self {
        let mut sorted = found.latencies_ms.clone();
        sorted.sort_by(f64::total_cmp);
        Self {
            ack_p50_ms: percentile(&sorted, 50),
            ack_p99_ms: percentile(&sorted, 99),
            quiet_ms: interval_ms.map(|(quiet_ms, _)| quiet_ms),
            group_wait_ms: interval_ms.map(|(_, group_wait_ms)| group_wait_ms),
            ..Self::of(kind, "idle", found)
        }
    }

    pub(super) fn resume(
        kind: Kind,
        found: &Found,
        listening_ms: u64,
        cap: Option<u64>,
    ) -> Result<Self> {
        let (first, last) =
            found.first_ack_ms.zip(found.last_ack_ms).context("something was acknowledged")?;
        ensure!(first >= listening_ms, "a batch was acknowledged before anybody listened");
        let drained_s = float(last - listening_ms) / 1e3;
        Ok(Self {
            resume_ms: Some(float(first - listening_ms)),
            flows_per_s: Some(float(found.records) / drained_s),
            bytes_per_s: Some(float(found.bytes) / drained_s),
            cap_bytes_per_s: cap.map(float),
            ..Self::of(kind, if cap.is_some() { "cap" } else { "resume" }, found)
        })
    }

    pub(super) fn memory(without: &Found, with: &Found) -> Result<Self> {
        Ok(Self {
            name: "memory".to_owned(),
            batches_waiting: Some(with.batches),
            rss_bytes: Some(with.rss_bytes.context("the kernel says how much memory is used")?),
            rss_empty_bytes: without.rss_bytes,
            open_s: Some(with.elapsed_s),
            batches: with.batches,
            flows: with.records,
            ..Self::default()
        })
    }
}

#[derive(Serialize)]
struct Document<'a> {
    rows: &'a [Row],
}

pub(super) fn json(rows: &[Row]) -> Result<String> {
    let mut text = serde_json::to_string_pretty(&Document { rows })
        .context("cannot write the figures as JSON")?;
    text.push('\n');
    Ok(text)
}

fn cell(value: Option<f64>, per: f64, decimals: usize) -> String {
    value.map_or_else(String::new, |value| format!("{:.decimals$}", value / per))
}

pub(super) fn text(rows: &[Row], shared: Option<usize>) -> String {
    let mut text = String::from(
        "From sealed to acknowledged, on loopback, synced on both sides; one CPU each.\n\n\
         row           k flows/s    MB/s  B/flow  sensor ns/flow  backend ns/flow  p50 ms  p99 ms  resume ms\n",
    );
    for row in rows.iter().filter(|row| row.rss_bytes.is_none()) {
        // Writing to a string cannot fail.
        let _written = writeln!(
            text,
            "{:<12}  {:>9}  {:>6}  {:>6}  {:>14}  {:>15}  {:>6}  {:>6}  {:>9}",
            row.name,
            cell(row.flows_per_s, 1e3, 0),
            cell(row.bytes_per_s, 1e6, 1),
            cell(row.bytes_per_flow, 1.0, 1),
            cell(row.sensor_cpu_ns_per_flow, 1.0, 0),
            cell(row.backend_cpu_ns_per_flow, 1.0, 0),
            cell(row.ack_p50_ms, 1.0, 1),
            cell(row.ack_p99_ms, 1.0, 1),
            cell(row.resume_ms, 1.0, 0),
        );
    }
    text.push('\n');
    for row in rows {
        // The same.
        let _written = match (row.rss_bytes, row.rss_empty_bytes, row.cap_bytes_per_s, row.quiet_ms)
        {
            (Some(rss), Some(empty), ..) => writeln!(
                text,
                "memory: {:.1} MiB resident with {} batches waiting, {:.1} MiB with none: {:+.1} bytes a batch; \
                 opened in {:.1} s",
                float(rss) / float(1 << 20),
                row.batches_waiting.unwrap_or(0),
                float(empty) / float(1 << 20),
                (float(rss) - float(empty)) / float(row.batches_waiting.unwrap_or(1).max(1)),
                row.open_s.unwrap_or(0.0),
            ),
            (_, _, Some(cap), _) => writeln!(text, "{}: capped to {:.1} MB/s", row.name, cap / 1e6),
            (.., Some(quiet)) => writeln!(
                text,
                "{}: the backend commits after {quiet:.0} ms of quiet, after {:.0} ms in any case",
                row.name,
                row.group_wait_ms.unwrap_or(0.0),
            ),
            _ => Ok(()),
        };
    }
    if let Some(cpu) = shared {
        let _written = writeln!(text, "Both sides shared CPU {cpu}: there was no other.");
    }
    text
}
