//! The rights of a sensor at work: it has none, on any of its threads, and seals, spools and writes all the same.
#![forbid(unsafe_code)]

use std::fs;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tests::{Process, Station, program, read, skip};

const SPAN: &str = "span0";
const GENERATOR: &str = "gen0";
const GENERATOR_ADDRESS: &str = "10.12.0.1";
const SPAN_ADDRESS: &str = "10.12.0.2";
const TIMEOUT: Duration = Duration::from_mins(1);
/// Flows end soon, so that there is something to spool.
const CONFIG: &str = "[flows]\nidle_timeout_ms = 100\n[uplink]\nshutdown_grace_ms = 0\n";

/// Two namespaces with a veth pair between them; removed when dropped.
struct Pair {
    span: String,
    generator: String,
}

impl Pair {
    fn new() -> Result<Self> {
        let name = format!("spanwatch-rights-{}", std::process::id());
        let pair = Self { span: format!("{name}-span"), generator: format!("{name}-gen") };
        let (span, generator) = (pair.span.as_str(), pair.generator.as_str());
        ip(&["netns", "add", span])?;
        ip(&["netns", "add", generator])?;
        ip(&[
            "link", "add", SPAN, "netns", span, "type", "veth", "peer", "name", GENERATOR, "netns",
            generator,
        ])?;
        let address = format!("{GENERATOR_ADDRESS}/24");
        ip(&["-n", generator, "address", "add", &address, "dev", GENERATOR])?;
        ip(&["-n", span, "link", "set", SPAN, "up"])?;
        ip(&["-n", generator, "link", "set", GENERATOR, "up"])?;
        let neighbour = ["neighbour", "replace", SPAN_ADDRESS, "lladdr", "02:00:00:00:00:02"];
        let device = ["dev", GENERATOR, "nud", "permanent"];
        ip(&[&["-n", generator], &neighbour[..], &device[..]].concat())?;
        Ok(pair)
    }

    fn send(&self, datagrams: u16) -> Result<()> {
        thread::scope(|scope| {
            let sender = scope.spawn(|| -> Result<()> {
                let namespace = fs::File::open(Path::new("/var/run/netns").join(&self.generator))?;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                let socket = UdpSocket::bind((GENERATOR_ADDRESS, 5000))?;
                for number in 0..datagrams {
                    socket.send_to(b"payload", (SPAN_ADDRESS, 10_000 + number))?;
                }
                Ok(())
            });
            sender.join().unwrap_or_else(|_| bail!("the sender panicked"))
        })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.span, &self.generator] {
            ip(&["netns", "delete", namespace]).ok();
        }
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    read(Command::new("ip").args(arguments))
}

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
    if !rustix::process::geteuid().is_root() {
        skip("network namespaces and XDP need root");
        return Ok(());
    }
    let station = Station::new()?;
    let pair = Pair::new()?;
    let config = station.path("sensor.toml");
    fs::write(&config, CONFIG)?;
    let mut run = Command::new("ip");
    run.args(["netns", "exec", &pair.span]).arg(program("spanwatch-sensor")?);
    run.args(["run", "--interface", SPAN, "--output", "uplink", "--output", "json", "--out"]);
    run.arg(station.path("flows.json")).arg("--config").arg(&config);
    run.arg("--state-dir").arg(station.sensor_folder());
    run.arg("--summary").arg(station.path("summary.json"));
    let mut sensor = Process::start(&mut run, &station.path("sensor.log"))?;
    sensor.wait_until("attached", TIMEOUT, |_| summary(&station).is_some())?;

    pair.send(200)?;
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
    let link = ip(&["-n", &pair.span, "link", "show", SPAN])?;
    assert!(!link.contains("xdp"), "the program has gone with its file descriptor: {link}");

    // What waits goes out once the backend is back.
    let backend = station.serve()?;
    read(&mut station.sensor_command("deliver")?)?;
    backend.terminate(TIMEOUT)?;
    let rows = station.query("SELECT count(*) AS n FROM flows")?;
    assert_eq!(rows[0]["n"], summary["records_sealed"]);
    Ok(())
}
