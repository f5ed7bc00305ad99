//! `spanwatch-bench uplink` as a performance tester runs it: the real programs, few batches. No time is asserted.
#![forbid(unsafe_code)]

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{program, read};

#[test]
fn both_receiving_ends_acknowledge_all_and_every_figure_is_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut bench = Command::new(program("spanwatch-bench")?);
    let text = read(bench.args(["uplink", "--quick", "--json", "--dir"]).arg(folder.path()))?;
    let document: Value = serde_json::from_str(&text)?;
    let rows = document["rows"].as_array().context("it has rows")?;
    let figures: [(&str, &[&str]); 8] = [
        ("file flow", &["flows_per_s", "bytes_per_s", "bytes_per_flow", "sensor_cpu_ns_per_flow"]),
        ("file idle", &["ack_p50_ms", "ack_p99_ms"]),
        ("file resume", &["resume_ms", "flows_per_s", "bytes_per_s"]),
        ("file cap", &["resume_ms", "bytes_per_s", "cap_bytes_per_s"]),
        ("lake flow", &["flows_per_s", "bytes_per_s", "bytes_per_flow", "sensor_cpu_ns_per_flow"]),
        ("lake idle", &["ack_p50_ms", "ack_p99_ms", "quiet_ms", "group_wait_ms"]),
        ("lake resume", &["resume_ms", "flows_per_s", "bytes_per_s"]),
        ("memory", &["batches_waiting", "rss_bytes", "rss_empty_bytes", "open_s"]),
    ];
    let names: Vec<_> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names, figures.map(|(name, _)| name));
    for (row, (name, wanted)) in rows.iter().zip(figures) {
        for figure in wanted {
            ensure!(row[figure].as_f64() > Some(0.0), "{name}, {figure}: {row}");
        }
        ensure!(row["batches"].as_u64() > Some(0), "{row}");
    }
    // What it made is gone.
    assert_eq!(folder.path().read_dir()?.count(), 0);
    Ok(())
}
