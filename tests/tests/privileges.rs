//! The rights of a sensor at work: it has none, on any of its threads, and seals, spools and writes all the same.
#![forbid(unsafe_code)]

use std::fs;
use std::ops::Range;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{Process, Station, VethPair, program, read, udp_frame};

/// Where it is in such a frame: each is a flow of its own.
const SOURCE_PORT: Range<usize> = 34..36;
const TIMEOUT: Duration = Duration::from_mins(1);
/// Flows end soon, so that there is something to spool.
const CONFIG: &str = "[flows]\nidle_timeout_ms = 100\n[uplink]\nshutdown_grace_ms = 0\n";

/// One line of a thread's `status`.
fn status<'text>(text: &'text str, key: &str) -> Result<&'text str> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.map(str::trim).with_context(|| format!("no {key} in {text}"))
}

fn summary(station: &Station) -> Option<Value> {
    serde_json::from_slice(&fs::read(station.path("summary.json")).ok()?).ok()
}

#[test]
fn a_running_sensor_has_no_capability_and_spools_all_the_same() -> Result<()> {
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    let station = Station::new()?;
    let config = station.path("sensor.toml");
    fs::write(&config, CONFIG)?;
    let mut run = Command::new("ip");
    run.args(["netns", "exec", pair.span_namespace()]).arg(program("spanwatch-sensor")?);
    run.args(["run", "--interface", &VethPair::span_end(0)]);
    run.args(["--output", "uplink", "--output", "json", "--out"]).arg(station.path("flows.json"));
    run.arg("--config").arg(&config).arg("--state-dir").arg(station.sensor_folder());
    run.arg("--summary").arg(station.path("summary.json"));
    let mut sensor = Process::start(&mut run, &station.path("sensor.log"))?;
    sensor.wait_until("attached", TIMEOUT, |_| summary(&station).is_some())?;

    let frames = (0..200_u16).map(|port| {
        let mut frame = udp_frame(60)?;
        frame[SOURCE_PORT].copy_from_slice(&port.to_be_bytes());
        Ok(frame)
    });
    let frames = frames.collect::<Result<Vec<_>>>()?;
    pair.send(0, frames.iter().map(Vec::as_slice))?;
    let sealed = |summary: &Value| summary["records_sealed"].as_u64().unwrap_or(0);
    sensor.wait_until("sealed", TIMEOUT, |_| {
        summary(&station).is_some_and(|summary| sealed(&summary) >= 200)
    })?;

    let mut names = Vec::new();
    for thread in fs::read_dir(format!("/proc/{}/task", sensor.id()))? {
        let text = fs::read_to_string(thread?.path().join("status"))?;
        let name = status(&text, "Name")?.to_owned();
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let held = u64::from_str_radix(status(&text, set)?, 16)?;
            assert_eq!(held, 0, "{set} of thread {name}");
        }
        assert_eq!(status(&text, "NoNewPrivs")?, "1", "thread {name}");
        names.push(name);
    }
    for name in ["drain", "aggregate", "delivery", "signals"] {
        ensure!(names.iter().any(|held| held == name), "no thread {name} among {names:?}");
    }

    sensor.terminate(TIMEOUT)?;
    let waiting = fs::read_dir(station.sensor_folder().join("spool"))?.count();
    assert!(waiting > 0, "nothing was spooled");
    let summary = summary(&station).context("a summary")?;
    assert_eq!(summary["finished"], true, "written to the end: {summary}");
    assert_eq!(summary["records_waiting"], summary["records_sealed"], "{summary}");
    let records = fs::read_to_string(station.path("flows.json"))?.lines().count();
    assert_eq!(summary["records_out"], records, "{summary}");
    assert!(!pair.is_attached(0)?, "the program has gone with its file descriptor");

    // What waits goes out once the backend is back.
    let backend = station.serve()?;
    read(&mut station.sensor_command("deliver")?)?;
    backend.terminate(TIMEOUT)?;
    let rows = station.query("SELECT count(*) AS n FROM flows")?;
    assert_eq!(rows[0]["n"], summary["records_sealed"]);
    Ok(())
}
