//! However a sensor ends, no program stays on the interface and the next sensor can attach; and whatever happens to
//! an interface, the sensor goes on with the others.
#![forbid(unsafe_code)]

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crossbeam_channel::bounded;
use flow::{Books, Observation};
use rustix::process::Signal;
use sensor::{
    After, CaptureOptions, Config, Counts, Folded, KernelCapture, LogFill, Options, OutputKind,
    Source, SourceError, SourceFacts, TableSizes, run_source,
};
use serde_json::Value;
use tests::{LiveSensor, VethPair, program, read};

#[test]
fn every_signal_that_asks_ends_it_in_order() -> Result<()> {
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut sensor = LiveSensor::start(&pair, "")?;
        sensor.signal(signal)?;
        let status = sensor.wait()?;
        ensure!(status.success(), "{signal:?}: {status}\n{}", sensor.log());
        ensure!(!pair.is_attached(0)?, "{signal:?}: the program is still there");
        assert_eq!(sensor.summary()?["finished"], true, "{signal:?}");
    }
    Ok(())
}

#[test]
fn killed_again_and_again_it_is_never_attached_twice() -> Result<()> {
    let Some(pair) = VethPair::new(2)? else { return Ok(()) };
    for round in 0..5 {
        // Started at once, without waiting for anything; `start` fails if it cannot attach.
        let mut sensor = LiveSensor::start(&pair, "").with_context(|| format!("round {round}"))?;
        sensor.signal(Signal::KILL)?;
        sensor.wait()?;
        for end in 0..2 {
            ensure!(!pair.is_attached(end)?, "round {round}: the program is still there");
        }
        let (code, text) = sensor.balance()?;
        // Its last summary is a few seconds old at most: whether it runs cannot be told from it yet.
        ensure!(code == Some(0) && !text.contains("stopped;"), "{text}");
    }
    Ok(())
}

#[test]
fn a_second_sensor_is_refused_and_does_the_first_no_harm() -> Result<()> {
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    let mut sensor = LiveSensor::start(&pair, "")?;
    let mut second = Command::new("ip");
    second.args(["netns", "exec", pair.span_namespace()]);
    second.arg(program("spanwatch-sensor")?).args(["run", "--output", "null", "--interface"]);
    let output = second.arg(VethPair::span_end(0)).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    ensure!(told.contains("already has an XDP program"), "{told}");
    ensure!(pair.is_attached(0)?, "the first one's program is still there");
    sensor.stop()
}

#[test]
fn under_nohup_a_hang_up_does_not_end_it() -> Result<()> {
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", pair.span_namespace(), "sh", "-c"]);
    command.args(["trap '' HUP; exec \"$@\"", "sh"]).arg(program("spanwatch-sensor")?);
    command.args(["run", "--output", "null", "--interface", &VethPair::span_end(0), "--summary"]);
    command.arg(folder.path().join("summary.json"));
    let mut sensor = tests::Process::start(&mut command, &folder.path().join("log"))?;
    let finished = || -> Option<(bool, u64)> {
        let text = std::fs::read(folder.path().join("summary.json")).ok()?;
        let summary: Value = serde_json::from_slice(&text).ok()?;
        Some((summary["finished"].as_bool()?, summary["epochs"].as_u64()?))
    };
    let patience = Duration::from_secs(30);
    sensor
        .wait_until("counting", patience, |_| finished().is_some_and(|(_, epochs)| epochs > 0))?;
    let pid = i32::try_from(sensor.id()).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.context("a child has an id")?, Signal::HUP)?;
    let before = finished().map_or(0, |(_, epochs)| epochs);
    sensor.wait_until("going on", patience, |_| {
        finished().is_some_and(|(finished, epochs)| !finished && epochs > before + 2)
    })?;
    sensor.terminate(patience)
}

/// The kernel's capture, until a fault.
struct Faulty {
    capture: KernelCapture,
    drains: u32,
}

impl Source for Faulty {
    fn facts(&self) -> SourceFacts {
        SourceFacts::default()
    }

    fn drain(&mut self, visit: &mut dyn FnMut(Observation)) -> Result<Vec<Folded>, SourceError> {
        self.drains += 1;
        assert!(self.drains < 3, "a fault");
        Ok(self.capture.drain(visit)?.folded)
    }

    fn counts(&mut self) -> Result<Counts, SourceError> {
        Ok(Counts { books: Books::default(), ..Counts::default() })
    }

    fn log_fill(&self) -> LogFill {
        self.capture.log_fill()
    }

    fn grace(&self) -> Duration {
        self.capture.grace()
    }

    fn stop(&mut self) -> Result<(), SourceError> {
        Ok(self.capture.detach()?)
    }
}

#[test]
fn a_thread_that_panics_detaches() -> Result<()> {
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    pair.enter_span()?;
    let options = CaptureOptions {
        interfaces: pair.span_ends(),
        after: After::Auto,
        mode: None,
        sizes: TableSizes { sets: 1, log_slots: 1 },
        deduplicate: false,
    };
    let capture = KernelCapture::attach(&options)?;
    ensure!(pair.is_attached(0)?, "it is attached");
    let mut config = Config::default();
    config.output.kinds = vec![OutputKind::Null];
    let (_tell, stop) = bounded(1);
    let source = Box::new(Faulty { capture, drains: 0 });
    let outcome = run_source(&config, &Options::default(), source, &stop)?;
    assert_eq!(outcome.faults, ["the drain stopped by a fault of its own"]);
    ensure!(!pair.is_attached(0)?, "the program is still there");
    KernelCapture::attach(&options)?;
    Ok(())
}

fn set(pair: &VethPair, arguments: &[&str]) -> Result<()> {
    read(Command::new("ip").args(["-n", pair.span_namespace(), "link"]).args(arguments)).map(drop)
}

fn frame() -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1]);
    frame.extend([4, 0, 0, 53, 0, 8, 0, 0]);
    frame.resize(60, 0);
    frame
}

fn summary_says(sensor: &LiveSensor, key: &str, value: u64) -> bool {
    sensor.summary().is_ok_and(|summary| summary[key].as_u64() == Some(value))
}

#[test]
fn an_interface_that_goes_down_comes_back_and_one_that_goes_away_leaves_the_others() -> Result<()> {
    let Some(pair) = VethPair::new(2)? else { return Ok(()) };
    let mut sensor = LiveSensor::start(&pair, "")?;
    let ends = [VethPair::span_end(0), VethPair::span_end(1)];
    let frame = frame();

    set(&pair, &["set", &ends[1], "down"])?;
    sensor.wait_until("seeing one down", |sensor| summary_says(sensor, "interfaces_down", 1))?;
    set(&pair, &["set", &ends[1], "up"])?;
    sensor.wait_until("seeing both up", |sensor| summary_says(sensor, "interfaces_up", 2))?;
    pair.send(1, [frame.as_slice()].into_iter())?;
    sensor.wait_until("counting on it again", |sensor| summary_says(sensor, "frames_seen", 1))?;

    set(&pair, &["delete", &ends[1]])?;
    sensor.wait_until("seeing one gone", |sensor| summary_says(sensor, "interfaces_gone", 1))?;
    pair.send(0, [frame.as_slice()].into_iter())?;
    sensor.wait_until("counting on the other", |sensor| summary_says(sensor, "frames_seen", 2))?;
    let summary = sensor.summary()?;
    assert_eq!(summary["interface_losses"], 2, "down once, away once");
    assert_eq!(summary["nic_received"], Value::Null, "what the lost card counted is not known");
    let (code, text) = sensor.balance()?;
    assert_eq!(code, Some(0), "{text}");
    ensure!(text.contains("unknown received ? "), "{text}");

    set(&pair, &["delete", &ends[0]])?;
    let status = sensor.wait()?;
    assert_eq!(status.code(), Some(1), "so that a supervisor starts it again: {}", sensor.log());
    ensure!(sensor.log().contains("no interface is left to listen on"), "{}", sensor.log());
    let summary = sensor.summary()?;
    assert_eq!((&summary["finished"], &summary["balanced"]), (&true.into(), &true.into()));
    assert_eq!(summary["packets_in_records"], 2);
    Ok(())
}
