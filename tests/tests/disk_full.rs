//! Full disks, of the backend and of the sensor: nothing that was acknowledged is lost, nobody panics, the logs stay
//! readable, and everything arrives once there is room. The disks are small ones in memory that the tests mount and
//! remove.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{Disk, Process, Station, VethPair, program, read, udp_frame};

const TIMEOUT: Duration = Duration::from_mins(3);
/// Room for the whole lake of the capture, and little more.
const DISK_MIB: u32 = 64;
/// Flows in the generated capture.
const FLOWS: usize = 200_000;
const CONFIG: &str = "[uplink]\nbatch_records_max = 2000\nshutdown_grace_ms = 120000\n";
const REFUSED: &str = "batches could not be stored";
/// Each is a connection, a batch that is handed back, and an end.
const ATTEMPTS: usize = 3;

fn records_waiting(station: &Station) -> Result<u64> {
    let summary: Value = serde_json::from_slice(&fs::read(station.path("summary.json"))?)?;
    summary["records_waiting"].as_u64().with_context(|| format!("nothing waits: {summary}"))
}

fn lines<'log>(log: &'log str, what: &str) -> Vec<&'log str> {
    log.lines().filter(|line| line.contains(what)).collect()
}

#[test]
fn a_full_backend_disk_is_told_once_and_everything_arrives_when_there_is_room() -> Result<()> {
    let station = Station::new()?;
    let Some(disk) = Disk::below(&station.backend_folder(), DISK_MIB)? else { return Ok(()) };
    let capture = station.generate("many-flows")?;
    let mut backend = station.serve()?;
    disk.fill()?;

    let config = station.path("sensor.toml");
    fs::write(&config, CONFIG)?;
    let mut replay = station.sensor_command("replay")?;
    replay.args(["--output", "uplink", "--config"]).arg(&config).arg(&capture);
    replay.arg("--summary").arg(station.path("summary.json"));
    replay.env("RUST_LOG", "info");
    let mut sensor = Process::start(&mut replay, &station.path("sensor.log"))?;

    let greeted = |log: &str| log.matches("sensor disconnected").count();
    let before = greeted(&backend.log());
    backend.wait_until("several attempts", TIMEOUT, |log| greeted(log) >= before + ATTEMPTS)?;
    ensure!(sensor.is_running()?, "the sensor gave up: {}", sensor.log());
    ensure!(records_waiting(&station)? > 0, "nothing waits while the disk is full");
    disk.make_room()?;
    let status = sensor.wait(TIMEOUT)?;
    ensure!(status.success(), "the sensor failed: {status}\n{}", sensor.log());

    let log = backend.log();
    assert!(!log.contains("panicked") && !log.contains("stack backtrace"), "{log}");
    let told = lines(&log, REFUSED);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(
        told[0].contains("No space left on device")
            && (told[0].contains(".parquet") || told[0].contains(".batches")),
        "{told:?}"
    );
    assert_eq!(lines(&log, "batches can be stored again").len(), 1, "{log}");
    let log = sensor.log();
    let told = lines(&log, "batch not stored now");
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("WARN"), "{told:?}");
    assert_eq!(lines(&log, "the backend stores batches again").len(), 1, "{log}");
    assert_eq!(lines(&log, " connected,").len(), 1, "only the first connection is news: {log}");
    backend.terminate(TIMEOUT)?;

    let rows = station.query("SELECT sequence, count(*) AS n FROM flows GROUP BY sequence")?;
    let number =
        |row: &Value, key: &str| row[key].as_u64().with_context(|| format!("no {key} in {row}"));
    let stored: BTreeMap<u64, u64> = rows
        .iter()
        .map(|row| Ok((number(row, "sequence")?, number(row, "n")?)))
        .collect::<Result<_>>()?;
    assert_eq!(stored.values().sum::<u64>(), FLOWS as u64);
    let last = stored.keys().copied().max().unwrap_or(0);
    assert!(stored.keys().copied().eq(1..=last), "a batch is missing: {stored:?}");
    let mut files = 0;
    for day in fs::read_dir(station.backend_folder().join("lake/flows"))? {
        let day = day?.path();
        if day.is_dir() && !day.ends_with("_delta_log") {
            files += fs::read_dir(&day)?.count();
        }
    }
    let mut status = station.backend_command("status")?;
    let status: Value = serde_json::from_str(&read(status.arg("--json"))?)?;
    assert_eq!(status["lake_files"], files, "no attempt has left a file behind");
    Ok(())
}

/// Flows end and batches are sealed soon.
const SOON: &str = "[flows]\nidle_timeout_ms = 100\n[uplink]\nshutdown_grace_ms = 0\n\
    batch_interval_ms = 100\n";
const FRAMES: u64 = 300;
const CANNOT_SPOOL: &str = "output `uplink`: cannot spool";

#[test]
fn a_sensor_whose_disk_was_full_for_a_while_and_that_lost_nothing_ends_well() -> Result<()> {
    let station = Station::new()?;
    let Some(disk) = Disk::below(&station.sensor_folder(), 4)? else { return Ok(()) };
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    let config = station.path("sensor.toml");
    fs::write(&config, SOON)?;
    let mut run = Command::new("ip");
    run.args(["netns", "exec", pair.span_namespace()]).arg(program("spanwatch-sensor")?);
    run.args(["run", "--interface", &VethPair::span_end(0)]);
    run.args(["--output", "uplink"]).arg("--config").arg(&config);
    run.arg("--state-dir").arg(station.sensor_folder());
    run.arg("--summary").arg(station.path("summary.json"));
    let mut sensor = Process::start(&mut run, &station.path("sensor.log"))?;
    let summary = || -> Option<Value> {
        serde_json::from_slice(&fs::read(station.path("summary.json")).ok()?).ok()
    };
    sensor.wait_until("attached", TIMEOUT, |_| summary().is_some())?;
    disk.fill()?;
    // Half of a new summary may have been there at that moment, and is removed then.
    sensor.wait_until("full", TIMEOUT, |log| log.contains("cannot write the summary"))?;
    disk.fill()?;
    let frame = udp_frame(60)?;
    pair.send(0, (0..FRAMES).map(|_| frame.as_slice()))?;
    sensor.wait_until("failing", TIMEOUT, |log| log.contains(CANNOT_SPOOL))?;
    disk.make_room()?;
    sensor.wait_until("well again", TIMEOUT, |log| log.contains("works again"))?;
    let log = sensor.log();
    // Zero, or this is an error.
    sensor.terminate(TIMEOUT)?;
    let summary = summary().context("a summary")?;
    let number = |key: &str| summary[key].as_u64().with_context(|| format!("no {key}: {summary}"));
    assert!(number("output_failures")? > 0, "the failures stay counted: {summary}");
    assert_eq!((number("records_lost")?, number("records_evicted")?), (0, 0), "{log}");
    assert_eq!(number("packets_in_records")?, FRAMES, "{summary}");
    assert_eq!(number("records_out")?, number("records_sealed")?, "{summary}");
    assert_eq!(number("records_sealed")?, number("records_waiting")?, "{summary}");
    assert_eq!(lines(&log, CANNOT_SPOOL).len(), 1, "told once: {log}");
    Ok(())
}
