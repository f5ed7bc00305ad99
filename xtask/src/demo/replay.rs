//! The demo without privileges: a capture goes through the sensor's `replay`, over a real link on loopback, into a
//! real backend.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::police::{Backend, Place};
use super::processes::Process;
use super::summary::{SensorBooks, Summary};
use super::{Demo, ExpectedFinding, privacy, publish};
use crate::shell;

/// A capture of any length a person would try a demo with.
const REPLAY_TIMEOUT: Duration = Duration::from_mins(30);

/// The attacks in the generated capture.
pub(super) const EXPECTED: &[ExpectedFinding] = &[
    ("vertical_scan", Some("203.0.113.66"), Some("10.20.0.10")),
    ("password_guessing", Some("203.0.113.77"), Some("10.20.0.10")),
    ("syn_flood", None, Some("10.20.0.10")),
    ("reflection", None, Some("10.20.0.20")),
    ("beacon", Some("10.20.0.20"), Some("198.51.100.9")),
];

/// Makes a capture with every kind of traffic.
pub(super) fn generate(demo: &Demo<'_>) -> Result<PathBuf> {
    let capture = demo.data.join("generated.pcap");
    let mut generate = Place::Loopback.command("spanwatch-bench");
    demo.stage.step("A capture is generated", |_| {
        shell::read(generate.args(["generate", "--out"]).arg(&capture))
    })?;
    Ok(capture)
}

pub(super) fn run(
    demo: &Demo<'_>,
    capture: &Path,
    mode: &'static str,
    out: &Path,
) -> Result<Summary> {
    let address = free_address()?;
    let backend = Backend::init(demo, &address)?;
    let member = backend.add_member()?;
    let serving =
        demo.stage.step("The backend serves", |_| backend.serve(demo, Place::Loopback))?;
    let sensor = demo.data.join("sensor");
    let told = if mode == "capture" { privacy::CAPTURE } else { privacy::MEMBER };
    let config = privacy::configure(demo, told)?;
    demo.stage.step("The sensor enrols with a one-time code", |_| {
        let mut enroll = Place::Loopback.command("spanwatch-sensor");
        enroll.args(["enroll", &member.code, "--state-dir"]).arg(&sensor);
        shell::read(enroll.arg("--config").arg(&config))
    })?;
    let summary_file = demo.data.join("sensor-summary.json");
    demo.stage.step("The capture is replayed and delivered", |_| {
        let mut replay = Place::Loopback.command("spanwatch-sensor");
        replay.arg("replay").arg(capture).args(["--output", "uplink", "--state-dir"]).arg(&sensor);
        replay.arg("--summary").arg(&summary_file).arg("--config").arg(&config);
        Process::start("sensor", &demo.data, &mut replay)?.finish(&demo.interrupted, REPLAY_TIMEOUT)
    })?;
    serving.end()?;
    let books = read_books(&summary_file)?;
    let frames = count_frames(capture)?;
    let findings =
        demo.stage.step("The member's sensor reveals its own in the findings", |_| {
            privacy::reveal(&sensor, backend.findings()?)
        })?;
    let summary = Summary::new(mode, Some(frames), books, backend.rows_stored()?, findings);
    demo.stage.step("The report is written", |_| backend.report(&member, out))?;
    publish(demo, &summary, out)?;
    Ok(summary)
}

/// Reads what the sensor has written about its own books.
pub(super) fn read_books(path: &Path) -> Result<SensorBooks> {
    let json = std::fs::read_to_string(path)
        .with_context(|| format!("the sensor wrote no {}", path.display()))?;
    serde_json::from_str(&json).with_context(|| format!("{} lacks a count", path.display()))
}

/// The frames in a capture, counted by another reader than the sensor's.
fn count_frames(capture: &Path) -> Result<u64> {
    let mut count = Place::Loopback.command("spanwatch-bench");
    let frames = shell::read(count.arg("count").arg(capture))?;
    frames.trim().parse().with_context(|| format!("`count` printed {frames:?}"))
}

/// A loopback address that nobody uses at the moment.
fn free_address() -> Result<String> {
    let socket = UdpSocket::bind("127.0.0.1:0").context("no free port on loopback")?;
    Ok(socket.local_addr().context("a bound socket has an address")?.to_string())
}
