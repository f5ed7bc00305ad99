//! A sensor that listens on the ends of a veth pair: the real program, with a configuration file, in the pair's
//! namespace. Killed when dropped.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Process, VethPair, program};

const POLL: Duration = Duration::from_millis(20);
/// Longest time that anything may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running sensor, and where it writes.
pub struct LiveSensor {
    folder: TempDir,
    process: Process,
}

impl LiveSensor {
    /// Starts one on every listening end; it is attached when this returns.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(pair: &VethPair, config: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("a temporary folder")?;
        std::fs::write(folder.path().join("sensor.toml"), config)?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", pair.span_namespace()]);
        command.arg(program("spanwatch-sensor")?).args(["run", "--output", "json", "--out"]);
        command.arg(folder.path().join("records.json"));
        // The state folder keeps the summary that `balance` looks for.
        command.arg("--state-dir").arg(folder.path());
        command.arg("--config").arg(folder.path().join("sensor.toml"));
        for end in pair.span_ends() {
            command.args(["--interface", &end]);
        }
        let process = Process::start(&mut command, &folder.path().join("sensor.log"))?;
        let mut sensor = Self { folder, process };
        let ends = pair.span_ends().len();
        sensor.wait_until("attached", |_| {
            (0..ends).all(|end| pair.is_attached(end).unwrap_or(false))
        })?;
        // Attached and drained once: its signal handler stands.
        sensor.wait_until("counting", |sensor| {
            sensor.summary().is_ok_and(|summary| summary["epochs"].as_u64() > Some(0))
        })?;
        Ok(sensor)
    }

    /// What it keeps its books in.
    #[must_use]
    pub fn summary_file(&self) -> PathBuf {
        self.folder.path().join("summary.json")
    }

    /// Its books, about a second old.
    ///
    /// # Errors
    ///
    /// When there are none yet.
    pub fn summary(&self) -> Result<Value> {
        let text = std::fs::read(self.summary_file()).context("the summary")?;
        serde_json::from_slice(&text).context("the summary is JSON")
    }

    /// The records it has written.
    ///
    /// # Errors
    ///
    /// When a line is no JSON.
    pub fn records(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.folder.path().join("records.json"))?;
        text.lines().map(|line| serde_json::from_str(line).context("a record")).collect()
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until something holds.
    ///
    /// # Errors
    ///
    /// When it ends before, or takes too long.
    pub fn wait_until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if holds(self) {
                return Ok(());
            }
            ensure!(self.process.is_running()?, "ended before it was {what}\n{}", self.log());
            ensure!(Instant::now() < deadline, "never {what}\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.context("a child has an id")?, signal)
            .context("signalling the sensor")
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.process.wait(PATIENCE)
    }

    /// Ends it in order, and wants it to end well.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.wait()?;
        ensure!(status.success(), "ended with {status}\n{}", self.log());
        Ok(())
    }

    /// What `balance` says about it: exit code and text.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn balance(&self) -> Result<(Option<i32>, String)> {
        let output = Command::new(program("spanwatch-sensor")?)
            .args(["balance", "--state-dir"])
            .arg(self.folder.path())
            .output()
            .context("starting `balance`")?;
        let text = String::from_utf8(output.stdout).context("it writes text")?;
        Ok((output.status.code(), text + &String::from_utf8_lossy(&output.stderr)))
    }
}
