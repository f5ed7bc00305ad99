//! Kills, cuts and new addresses under load, over a wire between two namespaces: what was sealed is stored, row by row,
//! and once. `SPANWATCH_KILLS=n` kills each side so often, `SPANWATCH_SEED=n` chooses the moments.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flow::Record;
use serde_json::Value;
use tests::{Process, Random, Station, VethPair};

const TIMEOUT: Duration = Duration::from_mins(3);
/// What thousands of small batches take, sixteen to a commit.
const DRAIN_TIMEOUT: Duration = Duration::from_mins(10);
/// Kills of each side; `SPANWATCH_KILLS=20` is the whole run.
const KILLS: u64 = 5;
/// Longest time between two faults, milliseconds.
const PAUSE_MS: u64 = 250;
/// Small batches, so that there are many moments to kill at and few rows to compare.
const BATCH_RECORDS: usize = 100;
const ROWS: &str = "SELECT boot_epoch, sequence, ip(initiator) AS initiator, initiator_port, \
    ip(responder) AS responder, responder_port, initiator_packets, initiator_bytes, \
    responder_packets, responder_bytes FROM flows";

/// Addresses, ports and counts of one record.
type Row = (String, String, [u64; 6]);
/// Boot epoch and sequence.
type Key = (u64, u64);

fn setting(name: &str) -> Result<Option<u64>> {
    let text = std::env::var(name).ok();
    text.map(|text| text.parse().with_context(|| format!("{name}={text}"))).transpose()
}

fn row_of(record: &Record) -> Row {
    let (there, back) = (&record.from_initiator, &record.from_responder);
    let ports = [record.initiator_port, record.responder_port].map(u64::from);
    let counts = [there.packets, there.bytes, back.packets, back.bytes];
    let numbers = [ports[0], ports[1], counts[0], counts[1], counts[2], counts[3]];
    (record.initiator.to_string(), record.responder.to_string(), numbers)
}

/// Adds every batch that waits in the spool: sealed, and perhaps on its way.
fn note_sealed(spool: &Path, sealed: &mut BTreeMap<Key, Vec<Row>>) -> Result<()> {
    for entry in fs::read_dir(spool)? {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "batch") {
            continue;
        }
        // Acknowledged and removed since the folder was listed: then it was noted before, or the rows tell.
        let Ok(bytes) = fs::read(&path) else { continue };
        let batch = uplink::open(&bytes).with_context(|| path.display().to_string())?;
        let key = (batch.header.boot_epoch, batch.header.sequence);
        let rows: Vec<Row> = batch.records.iter().map(row_of).collect();
        let before = sealed.insert(key, rows.clone());
        ensure!(before.is_none_or(|before| before == rows), "{key:?} was sealed twice");
    }
    Ok(())
}

fn stored(station: &Station) -> Result<BTreeMap<Key, Vec<Row>>> {
    let mut stored = BTreeMap::<Key, Vec<Row>>::new();
    for row in station.query(ROWS)? {
        let number = |key: &str| row[key].as_u64().with_context(|| format!("no {key} in {row}"));
        let text = |key: &str| -> Result<String> {
            Ok(row[key].as_str().with_context(|| format!("no {key} in {row}"))?.to_owned())
        };
        let numbers = [
            number("initiator_port")?,
            number("responder_port")?,
            number("initiator_packets")?,
            number("initiator_bytes")?,
            number("responder_packets")?,
            number("responder_bytes")?,
        ];
        let key = (number("boot_epoch")?, number("sequence")?);
        stored.entry(key).or_default().push((text("initiator")?, text("responder")?, numbers));
    }
    Ok(stored)
}

struct Scene<'a> {
    station: &'a Station,
    capture: &'a Path,
    random: Random,
}

impl Scene<'_> {
    fn sensor(&self) -> Result<Process> {
        let config = self.station.path("sensor.toml");
        // No patience at the end either: `deliver` does the rest.
        let limits = format!("batch_records_max = {BATCH_RECORDS}\nshutdown_grace_ms = 0\n");
        fs::write(&config, format!("[uplink]\n{limits}"))?;
        let mut replay = self.station.sensor_command("replay")?;
        replay.args(["--output", "uplink", "--config"]).arg(&config).arg(self.capture);
        Process::start(&mut replay, &self.station.path("sensor.log"))
    }

    /// A fault comes at any time.
    fn pause(&mut self) {
        std::thread::sleep(Duration::from_millis((self.random.word() >> 33) % PAUSE_MS));
    }

    fn chance(&mut self, one_in: u64) -> bool {
        (self.random.word() >> 33).is_multiple_of(one_in)
    }
}

/// How often the backend has committed, over all its starts.
fn commits(log: &str) -> usize {
    log.matches("elapsed_ms").count()
}

#[test]
fn each_side_killed_again_and_again_on_a_line_that_is_cut_loses_nothing() -> Result<()> {
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    let station = Station::across(&pair)?;
    let capture = station.generate("many-flows")?;
    let seed = setting("SPANWATCH_SEED")?.unwrap_or(1);
    let kills = setting("SPANWATCH_KILLS")?.unwrap_or(KILLS);
    eprintln!("SPANWATCH_SEED={seed} SPANWATCH_KILLS={kills}");
    let mut scene = Scene { station: &station, capture: &capture, random: Random::new(seed) };
    let spool = station.sensor_folder().join("spool");
    let mut sealed = BTreeMap::new();
    let mut backend = station.serve()?;
    let mut sensor = scene.sensor()?;
    let mut host = 2;
    for kill in 1..=kills {
        let before = commits(&backend.log());
        backend.wait_until("another commit", TIMEOUT, |log| commits(log) > before)?;
        if scene.chance(2) {
            pair.set_up(false)?;
            scene.pause();
            pair.set_up(true)?;
        }
        if scene.chance(3) {
            host = if host == 2 { 3 } else { 2 };
            pair.readdress(host)?;
        }
        scene.pause();
        if scene.chance(2) {
            backend.kill()?;
            scene.pause();
            backend = station.serve()?;
            scene.pause();
            sensor.kill()?;
        } else {
            sensor.kill()?;
            scene.pause();
            backend.kill()?;
            backend = station.serve()?;
        }
        note_sealed(&spool, &mut sealed).with_context(|| format!("after kill {kill}"))?;
        sensor = scene.sensor()?;
    }
    sensor.kill()?;
    note_sealed(&spool, &mut sealed)?;
    ensure!(sealed.len() as u64 >= kills, "only {} batches ever waited", sealed.len());
    let mut deliver = station.sensor_command("deliver")?;
    let mut deliver = Process::start(&mut deliver, &station.path("sensor.log"))?;
    let status = deliver.wait(DRAIN_TIMEOUT)?;
    ensure!(status.success(), "not all was delivered: {status}\n{}", deliver.log());
    backend.terminate(TIMEOUT)?;

    let stored = stored(&station)?;
    for (key, rows) in &sealed {
        let mut rows = rows.clone();
        let mut found = stored.get(key).with_context(|| format!("{key:?} is lost"))?.clone();
        rows.sort();
        found.sort();
        assert!(rows == found, "{key:?}: other rows than were sealed");
    }
    // What was acknowledged before a kill was in nobody's spool any more: no epoch has a hole, and no row comes twice.
    let mut epochs = BTreeMap::<u64, Vec<u64>>::new();
    for ((boot_epoch, sequence), rows) in &stored {
        epochs.entry(*boot_epoch).or_default().push(*sequence);
        assert!(rows.len() <= BATCH_RECORDS, "{boot_epoch}/{sequence} is stored twice");
    }
    for (boot_epoch, sequences) in &epochs {
        let last = sequences.last().copied().unwrap_or(0);
        assert!(sequences.iter().copied().eq(1..=last), "boot epoch {boot_epoch} has a hole");
    }
    let batches: usize = stored.len();
    let rows: usize = stored.values().map(Vec::len).sum();
    eprintln!(
        "{kills} kills of each side: {batches} batches, {rows} rows, {} compared",
        sealed.len()
    );
    let summary: Value = serde_json::from_str(&status_of(&station)?)?;
    assert_eq!(summary["rows_stored"], rows, "{summary}");
    assert_eq!(summary["batches_stored"], batches, "{summary}");
    Ok(())
}

fn status_of(station: &Station) -> Result<String> {
    tests::read(station.backend_command("status")?.arg("--json"))
}
