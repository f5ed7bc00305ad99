//! Power cuts in the middle of a run, on either side: every sealed record is stored, and once.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{Process, Station, read};

const TIMEOUT: Duration = Duration::from_mins(3);
/// Flows in the generated capture; no two of them share client address and port.
const FLOWS: usize = 200_000;
/// Small batches, so that there are many moments to cut at.
const CONFIG: &str = "[uplink]\nbatch_records_max = 500\nshutdown_grace_ms = 120000\n\
                      [privacy]\nown_prefixes = []\n";
const ROWS: &str = "SELECT boot_epoch, sequence, ip(initiator) AS initiator, initiator_port, \
    initiator_packets, initiator_bytes, responder_packets, responder_bytes FROM flows";

/// What identifies a flow of the capture, and its counts.
type Flow = (String, u64, [u64; 4]);

fn flow(row: &Value) -> Result<Flow> {
    let number = |key: &str| row[key].as_u64().with_context(|| format!("no {key} in {row}"));
    let initiator = row["initiator"].as_str().context("no initiator")?.to_owned();
    let counts = [
        number("initiator_packets")?,
        number("initiator_bytes")?,
        number("responder_packets")?,
        number("responder_bytes")?,
    ];
    Ok((initiator, number("initiator_port")?, counts))
}

/// The flows that the sensor finds in a capture, without any link.
fn flows_of(station: &Station, capture: &Path) -> Result<BTreeSet<Flow>> {
    let mut replay = station.sensor_command("replay")?;
    let lines = read(replay.args(["--output", "json"]).arg(capture))?;
    let flows: BTreeSet<Flow> =
        lines.lines().map(|line| flow(&serde_json::from_str(line)?)).collect::<Result<_>>()?;
    ensure!(flows.len() == FLOWS, "{} flows in the capture", flows.len());
    Ok(flows)
}

fn start_replay(station: &Station, capture: &Path) -> Result<Process> {
    let config = station.path("sensor.toml");
    std::fs::write(&config, CONFIG)?;
    let mut replay = station.sensor_command("replay")?;
    replay.args(["--output", "uplink", "--config"]).arg(&config).arg(capture);
    replay.arg("--summary").arg(station.path("summary.json"));
    Process::start(&mut replay, &station.path("sensor.log"))
}

/// How often the backend has committed, over all its starts.
fn commits(backend: &Process) -> usize {
    backend.log().matches("elapsed_ms").count()
}

fn wait_for_commits(backend: &mut Process, more: usize) -> Result<()> {
    let before = commits(backend);
    backend.wait_until("a few commits later", TIMEOUT, |log| {
        log.matches("elapsed_ms").count() >= before + more
    })
}

#[test]
fn a_backend_killed_again_and_again_stores_every_row_once() -> Result<()> {
    let station = Station::new()?;
    let capture = station.generate("many-flows")?;
    let expected = flows_of(&station, &capture)?;
    let mut backend = station.serve()?;
    let mut sensor = start_replay(&station, &capture)?;
    for kill in 1..=5 {
        wait_for_commits(&mut backend, 1)?;
        ensure!(sensor.is_running()?, "all was delivered before kill {kill}: nothing is tested");
        backend.kill()?;
        backend = station.serve()?;
    }
    let status = sensor.wait(TIMEOUT)?;
    ensure!(status.success(), "the sensor failed: {status}\n{}", sensor.log());
    backend.terminate(TIMEOUT)?;

    let summary: Value = serde_json::from_slice(&std::fs::read(station.path("summary.json"))?)?;
    for key in ["records_sealed", "records_acked"] {
        assert_eq!(summary[key], FLOWS, "{key} in {summary}");
    }
    let rows = station.query(ROWS)?;
    assert_eq!(rows.len(), FLOWS, "rows");
    let stored: BTreeSet<Flow> = rows.iter().map(flow).collect::<Result<_>>()?;
    assert!(stored == expected, "the stored flows are not those of the capture");
    Ok(())
}

/// The highest sequence that waits in the spool, by boot epoch.
fn highest_waiting(station: &Station) -> Result<BTreeMap<u64, u64>> {
    let mut highest = BTreeMap::new();
    for entry in std::fs::read_dir(station.sensor_folder().join("spool"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // Files that are still being written have another ending.
        let Some((boot_epoch, sequence)) =
            name.strip_suffix(".batch").and_then(|stem| stem.split_once('-'))
        else {
            continue;
        };
        let held: &mut u64 = highest.entry(boot_epoch.parse()?).or_default();
        *held = sequence.parse::<u64>()?.max(*held);
    }
    Ok(highest)
}

#[test]
fn a_sensor_killed_again_and_again_delivers_all_that_it_sealed() -> Result<()> {
    let station = Station::new()?;
    let capture = station.generate("many-flows")?;
    let expected = flows_of(&station, &capture)?;
    let mut sealed = BTreeMap::new();
    for kill in 1..=3 {
        let mut backend = station.serve()?;
        let mut sensor = start_replay(&station, &capture)?;
        wait_for_commits(&mut backend, 1)?;
        ensure!(sensor.is_running()?, "all was delivered before kill {kill}: nothing is tested");
        // The backend first, so that the sensor dies with batches on its disk and others on their way.
        backend.kill()?;
        ensure!(sensor.is_running()?, "the sensor gave up without its backend");
        sensor.kill()?;
        sealed.extend(highest_waiting(&station)?);
    }
    ensure!(sealed.len() >= 3, "batches of {} runs waited: {sealed:?}", sealed.len());
    let backend = station.serve()?;
    let mut last = start_replay(&station, &capture)?;
    let status = last.wait(TIMEOUT)?;
    ensure!(status.success(), "the sensor failed: {status}\n{}", last.log());
    backend.terminate(TIMEOUT)?;
    assert!(highest_waiting(&station)?.is_empty(), "batches were left behind");

    let mut runs: BTreeMap<u64, Vec<(u64, Flow)>> = BTreeMap::new();
    for row in station.query(ROWS)? {
        let number = |key: &str| row[key].as_u64().with_context(|| format!("no {key} in {row}"));
        let stored = (number("sequence")?, flow(&row)?);
        runs.entry(number("boot_epoch")?).or_default().push(stored);
    }
    for (boot_epoch, rows) in &runs {
        let sequences: BTreeSet<u64> = rows.iter().map(|(sequence, _)| *sequence).collect();
        let last = sequences.last().copied().unwrap_or(0);
        assert!(sequences.iter().copied().eq(1..=last), "boot epoch {boot_epoch} has a hole");
        if let Some(highest) = sealed.get(boot_epoch) {
            assert!(last >= *highest, "boot epoch {boot_epoch}: sealed {highest}, stored {last}");
        }
        let flows: BTreeSet<&Flow> = rows.iter().map(|(_, flow)| flow).collect();
        assert_eq!(flows.len(), rows.len(), "boot epoch {boot_epoch} has a row twice");
        assert!(flows.iter().all(|flow| expected.contains(*flow)), "a row that no packet made");
    }
    let complete = runs.values().filter(|rows| rows.len() == FLOWS).count();
    assert!(complete >= 1, "the run that nobody killed is not complete");
    Ok(())
}
