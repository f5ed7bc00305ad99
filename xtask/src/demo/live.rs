//! The demo as root: real sockets and injected frames on veth pairs, XDP on the mirror port.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::lab::{self, Host, Lab};
use super::police::{Backend, Place};
use super::processes::Process;
use super::replay::read_books;
use super::summary::Summary;
use super::{Demo, ExpectedFinding, privacy, publish};
use crate::shell;

/// The attacks that [`traffic`] makes.
pub(super) const EXPECTED: &[ExpectedFinding] = super::replay::EXPECTED;
/// Longest time the traffic may take.
const TRAFFIC_TIMEOUT: Duration = Duration::from_mins(3);
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const SITE_PAGES: &str = "10.20.0.10:80";
const SITE_LOGIN: &str = "10.20.0.10:22";
const OFFICE: &str = "10.20.0.20";
const WEB: &str = "198.51.100.80:80";
const CONTROL: &str = "198.51.100.9:8443";

/// Everything that runs while the demo is live, in the order in which it must end.
struct Running {
    sensor: Process,
    servers: [Process; 3],
    backend: Process,
}

pub(super) fn run(demo: &Demo<'_>, out: &Path, once: bool) -> Result<Summary> {
    let lab = demo.stage.step("Four network namespaces, joined by veth pairs", |_| Lab::build())?;
    let backend = Backend::init(demo, lab::BACKEND)?;
    let member = backend.add_member()?;
    let police = Place::Lab(&lab, Host::Police);
    let serving = demo.stage.step("The backend serves", |_| backend.serve(demo, police))?;
    let state = demo.data.join("sensor");
    let config = privacy::configure(demo, privacy::MEMBER)?;
    demo.stage.step("The sensor enrols with a one-time code", |_| {
        let mut enroll = Place::Lab(&lab, Host::Sensor).command("spanwatch-sensor");
        enroll.args(["enroll", &member.code, "--state-dir"]).arg(&state);
        shell::read(enroll.arg("--config").arg(&config))
    })?;
    let summary_file = demo.data.join("sensor-summary.json");
    let sensor = demo.stage.step("The sensor watches the mirror port with XDP", |_| {
        start_sensor(demo, &lab, &state, &summary_file)
    })?;
    let servers = startservers(demo, &lab)?;
    let mut running = Running { sensor, servers, backend: serving };

    let before = lab.frames_mirrored()?;
    demo.stage.step("Page loads, a scan, guessing, a beacon, a flood, a reflection", |_| {
        traffic(demo, &lab, &mut running)
    })?;
    let injected = lab.frames_mirrored()? - before;
    let Running { sensor, servers, backend: serving } = running;
    demo.stage.step("The sensor delivers what it has and ends", |_| sensor.end())?;

    let books = read_books(&summary_file)?;
    let findings =
        demo.stage.step("The member's sensor reveals its own in the findings", |_| {
            privacy::reveal(&state, backend.findings()?)
        })?;
    let summary = Summary::new("live", Some(injected), books, backend.rows_stored()?, findings);
    demo.stage.step("The report is written", |_| backend.report(&member, out))?;
    publish(demo, &summary, out)?;
    if !once {
        let sensor = start_sensor(demo, &lab, &state, &summary_file)?;
        keep_running(demo, Running { sensor, servers, backend: serving })?;
    }
    Ok(summary)
}

fn start_sensor(demo: &Demo<'_>, lab: &Lab, state: &Path, summary: &PathBuf) -> Result<Process> {
    // What an earlier sensor left says nothing about this one.
    if summary.exists() {
        std::fs::remove_file(summary)?;
    }
    let mut run = Place::Lab(lab, Host::Sensor).command("spanwatch-sensor");
    run.args(["run", "--interface", "mirror0", "--output", "uplink", "--state-dir"]).arg(state);
    run.arg("--summary").arg(summary).arg("--config").arg(demo.data.join(privacy::CONFIG_NAME));
    let mut sensor = Process::start("sensor", &demo.data, &mut run)?;
    demo.interrupted.wait_for("the sensor to attach", READY_TIMEOUT, || {
        sensor.ensure_running()?;
        let attached = summary.exists() && read_books(summary)?.xdp_mode.is_some();
        Ok(attached.then_some(()))
    })?;
    Ok(sensor)
}

fn startservers(demo: &Demo<'_>, lab: &Lab) -> Result<[Process; 3]> {
    let start = |name, host, words: &[&str]| -> Result<Process> {
        let mut command = bench(lab, host);
        let mut server =
            Process::start(name, &demo.data, command.args(["traffic", "serve"]).args(words))?;
        demo.interrupted.wait_for(name, READY_TIMEOUT, || {
            server.ensure_running()?;
            Ok(server.has_said("listening").then_some(()))
        })?;
        Ok(server)
    };
    Ok([
        start("site-server", Host::Site, &["--pages", SITE_PAGES, "--login", SITE_LOGIN])?,
        start("web-server", Host::Internet, &["--pages", WEB])?,
        start("control-server", Host::Internet, &["--pages", CONTROL])?,
    ])
}

/// All the traffic, at the same time; returns when the last of it is over and the line is quiet.
fn traffic(demo: &Demo<'_>, lab: &Lab, running: &mut Running) -> Result<()> {
    let capture = demo.data.join("generated.pcap");
    let mut generate = bench(lab, Host::Site);
    generate.args(["generate", "--with", "ipv6,vlan,oddities,syn-flood,reflection", "--out"]);
    shell::read(generate.arg(&capture))?;

    let visit = |name, host, words: &[&str]| {
        let mut command = bench(lab, host);
        Process::start(name, &demo.data, command.arg("traffic").args(words))
    };
    let inject = {
        let mut command = bench(lab, Host::Site);
        command.args(["inject", "--interface", "span0"]).arg(&capture);
        Process::start("inject", &demo.data, &mut command)?
    };
    let internet = Host::Internet;
    let visits = [
        visit("readers", internet, &["pages", "--to", SITE_PAGES, "--from", "203.0.113.30"])?,
        visit("office", Host::Site, &["pages", "--to", WEB, "--from", OFFICE])?,
        visit("scanner", internet, &["scan", "--to", "10.20.0.10", "--from", "203.0.113.66"])?,
        visit("guesser", internet, &["guess", "--to", SITE_LOGIN, "--from", "203.0.113.77"])?,
        visit("beacon", Host::Site, &["beacon", "--to", CONTROL, "--from", OFFICE])?,
    ];
    for visit in visits {
        visit.finish(&demo.interrupted, TRAFFIC_TIMEOUT)?;
        running.sensor.ensure_running()?;
        running.backend.ensure_running()?;
    }
    inject.finish(&demo.interrupted, TRAFFIC_TIMEOUT)?;
    // The last segments of closing connections are still on their way.
    let mut last = 0;
    demo.interrupted.wait_for("the line to be quiet", READY_TIMEOUT, || {
        let now = lab.frames_mirrored()?;
        let quiet = std::mem::replace(&mut last, now) == now;
        thread::sleep(Duration::from_millis(300));
        Ok(quiet.then_some(()))
    })
}

fn keep_running(demo: &Demo<'_>, mut running: Running) -> Result<()> {
    demo.stage
        .say("Sensor and backend keep running; Ctrl-C ends the demo and removes its network.");
    while !demo.interrupted.happened() {
        running.sensor.ensure_running()?;
        running.backend.ensure_running()?;
        thread::sleep(Duration::from_millis(200));
    }
    running.sensor.end()?;
    running.backend.end()
}

fn bench(lab: &Lab, host: Host) -> Command {
    lab.command(host, shell::binary("spanwatch-bench"))
}
