//! A backend whose disk is full: nothing that was acknowledged is lost, nobody panics, the logs stay readable, and
//! everything arrives once there is room. The disk is a small one in memory that the test mounts and removes.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{Process, Station, read, skip};

const TIMEOUT: Duration = Duration::from_mins(3);
/// Room for the whole lake of the capture, and little more.
const DISK: &str = "size=64m";
/// Flows in the generated capture.
const FLOWS: usize = 200_000;
const CONFIG: &str = "[uplink]\nbatch_records_max = 2000\nshutdown_grace_ms = 120000\n";
const REFUSED: &str = "batches could not be stored";
/// Each is a connection, a batch that is handed back, and an end.
const ATTEMPTS: usize = 3;

/// A small disk; gone when dropped.
struct Disk(PathBuf);

impl Disk {
    /// Puts a folder with what is in it onto a disk of its own; `None`, after saying so, without the privilege.
    fn below(folder: &Path) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            skip("mounting a small disk needs root");
            return Ok(None);
        }
        let aside = folder.with_extension("aside");
        fs::rename(folder, &aside)?;
        fs::create_dir(folder)?;
        read(Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(folder))?;
        let disk = Self(folder.to_owned());
        let from = aside.join(".");
        read(Command::new("cp").arg("-a").arg(from).arg(folder))?;
        fs::remove_dir_all(&aside)?;
        Ok(Some(disk))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves no byte.
    fn fill(&self) -> Result<()> {
        let mut file = fs::File::create(self.filler())?;
        let block = vec![0; 4096];
        while let Ok(()) = file.write_all(&block) {}
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("the filler was there")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        read(Command::new("umount").arg("--lazy").arg(&self.0)).ok();
    }
}

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
    let Some(disk) = Disk::below(&station.backend_folder())? else { return Ok(()) };
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
        told[0].contains("No space left on device") && told[0].contains(".parquet"),
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
