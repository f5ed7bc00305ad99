//! The workspace's own programs, started as processes that never outlive the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal};

const POLL: Duration = Duration::from_millis(20);

/// Where a program of the workspace lies; `cargo xtask test` builds them all before the tests.
///
/// # Errors
///
/// When it was not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("a test knows where it lies")?;
    // Tests lie in `<target>/<profile>/deps/`.
    let folder = test.ancestors().nth(2).context("a test lies in a target folder")?;
    let path = folder.join(name);
    ensure!(path.is_file(), "{} is not built; `cargo build --workspace`", path.display());
    Ok(path)
}

/// Runs a command to its end and gives its standard output.
///
/// # Errors
///
/// When it fails, with what it said.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).context("the output is no text")
}

/// A running program whose output goes to a file; killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program.
    ///
    /// # Errors
    ///
    /// When it cannot be started or its log not be written.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| log.display().to_string())?;
        let errors = file.try_clone().context("sharing a log file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has said so far, and what said programs before it with the same log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the condition holds; an error when it ends before, or after `timeout`.
    ///
    /// # Errors
    ///
    /// See above; the end of the log is in the message.
    pub fn wait_until(
        &mut self,
        what: &str,
        timeout: Duration,
        mut holds: impl FnMut(&str) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !holds(&self.log()) {
            if let Some(status) = self.child.try_wait()? {
                bail!("ended before {what}: {status}\n{}", self.log());
            }
            ensure!(Instant::now() < deadline, "not {what} within {timeout:?}\n{}", self.log());
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    ///
    /// When it has not ended in time.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "still running after {timeout:?}\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// Whether it is still there.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    ///
    /// When it does not, or not well.
    pub fn terminate(mut self, timeout: Duration) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.context("a child has an id")?, Signal::TERM)
            .context("asking a child to end")?;
        let status = self.wait(timeout)?;
        ensure!(status.success(), "ended with {status}\n{}", self.log());
        Ok(())
    }

    /// Ends it as a power cut would: SIGKILL.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("killing a child")?;
        self.child.wait().context("collecting a killed child").map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
