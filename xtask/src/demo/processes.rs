//! Child processes of the demo: started with their output in a file, asked to end, and never left behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal};

/// How long a process may take to end after it was asked to; then it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(50);

/// Whether the person at the terminal has pressed Ctrl-C.
#[derive(Clone)]
pub(super) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// From now on Ctrl-C and SIGTERM are noted instead of ending this program.
    pub(super) fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag))
                .context("cannot watch for signals")?;
        }
        Ok(Self(flag))
    }

    pub(super) fn happened(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks again and again until `ready` gives something; an error after `timeout` or Ctrl-C.
    pub(super) fn wait_for<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut ready: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(value) = ready()? {
                return Ok(value);
            }
            ensure!(!self.happened(), "interrupted while waiting for {what}");
            ensure!(Instant::now() < deadline, "{what}: not within {} s", timeout.as_secs());
            thread::sleep(POLL);
        }
    }
}

/// A running program; ended when dropped.
pub(super) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program whose output goes to `<folder>/<name>.log`.
    pub(super) fn start(name: &'static str, folder: &Path, command: &mut Command) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let errors = file.try_clone().context("cannot share a log file")?;
        // A process group of its own: Ctrl-C reaches the demo alone, which then ends all in order.
        std::os::unix::process::CommandExt::process_group(command, 0);
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log })
    }

    /// An error, with the end of its log, when the process is no longer there.
    pub(super) fn ensure_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("asking for a child's state")? {
            bail!("{} ended by itself ({status}):\n{}", self.name, self.log_end());
        }
        Ok(())
    }

    /// Whether the log holds this text yet.
    pub(super) fn has_said(&self, text: &str) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains(text))
    }

    /// Waits until the process ends by itself, well.
    pub(super) fn finish(mut self, interrupted: &Interrupted, timeout: Duration) -> Result<()> {
        let name = self.name;
        let status =
            interrupted.wait_for(&format!("the end of {name}"), timeout, || self.exit_status())?;
        ensure!(status.success(), "{name} failed ({status}):\n{}", self.log_end());
        Ok(())
    }

    /// Asks the process to end (SIGTERM) and waits until it has, well.
    pub(super) fn end(mut self) -> Result<()> {
        self.terminate();
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            if let Some(status) = self.exit_status()? {
                ensure!(status.success(), "{} failed ({status}):\n{}", self.name, self.log_end());
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{} did not end within {} s", self.name, END_TIMEOUT.as_secs());
            }
            thread::sleep(POLL);
        }
    }

    fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("asking for a child's state")
    }

    fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // A process that has just ended by itself needs no signal.
            rustix::process::kill_process(pid, Signal::TERM).ok();
        }
    }

    fn log_end(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
            let deadline = Instant::now() + Duration::from_secs(5);
            while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                thread::sleep(POLL);
            }
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
