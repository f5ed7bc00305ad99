//! The receiving ends: the backend's own program, and the plain one of this program. In: a folder. Out: a process that
//! listens on loopback, on one CPU; ended when dropped.

use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// The unit of times in `/proc/PID/stat`, the same on all but one long-gone machine that Linux ran on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `spanwatch-backend serve`: the lake, detection and all.
    Lake,
    /// Batches in one file, synced.
    File,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Lake => "lake",
            Self::File => "file",
        }
    }
}

/// A program that stays on one CPU, and ends when this one does, whatever ends it.
pub(super) fn on_cpu(cpu: usize, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "--cpu-list", &cpu.to_string()]).arg(program);
    command
}

/// What a receiving end is started with.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) kind: Kind,
    pub(super) program: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) cpu: usize,
    pub(super) address: String,
}

/// A running one.
pub(super) struct Backend {
    child: Child,
    /// The plain one's; the other's is made by a command.
    pub(super) code: Option<String>,
}

impl Site {
    pub(super) fn new(kind: Kind, program: &Path, folder: PathBuf, cpu: usize) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let socket = UdpSocket::bind("127.0.0.1:0").context("a free port on loopback")?;
        let address = socket.local_addr()?.to_string();
        Ok(Self { kind, program: program.to_owned(), folder, cpu, address })
    }

    /// Sets up what needs setting up; gives a code for a sensor, if it takes a command to make one.
    pub(super) fn init(&self) -> Result<Option<String>> {
        if self.kind == Kind::File {
            return Ok(None);
        }
        let data = self.folder.join("data");
        self.read(Command::new(&self.program).arg("init").arg("--data").arg(&data).args([
            "--listen",
            &self.address,
            "--address",
            &self.address,
        ]))?;
        let mut add = Command::new(&self.program);
        add.args(["member", "add", "--name", "Bench", "--json", "--data"]).arg(&data);
        let added: Value = serde_json::from_str(&self.read(&mut add)?)?;
        Ok(Some(added["code"].as_str().context("a code for a sensor")?.to_owned()))
    }

    fn read(&self, command: &mut Command) -> Result<String> {
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?}: {}: {told}", output.status);
        String::from_utf8(output.stdout).context("the output is no text")
    }

    /// Starts it, and waits until sensors can connect.
    pub(super) fn serve(&self) -> Result<Backend> {
        let mut command = on_cpu(self.cpu, &self.program);
        match self.kind {
            Kind::Lake => command.args(["serve", "--data"]).arg(self.folder.join("data")),
            Kind::File => command.arg("uplink-intake").arg(&self.folder).arg(&self.address),
        };
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.join("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("cannot start setpriv and taskset (util-linux)")?;
        let output = child.stdout.take().context("it has an output")?;
        let mut backend = Backend { child, code: None };
        let mut lines = BufReader::new(output).lines();
        loop {
            let Some(line) = lines.next() else {
                bail!("{} ended; see {}", self.program.display(), self.folder.join("log").display())
            };
            let line = line?;
            if let Some(code) = line.strip_prefix("code ") {
                backend.code = Some(code.to_owned());
            }
            if line.starts_with("listening on") {
                return Ok(backend);
            }
        }
    }
}

impl Backend {
    /// Time on the CPU so far, with what it has started; `None` where the kernel does not say.
    pub(super) fn cpu_s(&self) -> Option<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // The second field is the program's name in brackets, which may hold anything.
        let (_, fields) = text.rsplit_once(") ")?;
        let ticks = |number: usize| fields.split(' ').nth(number)?.parse::<u32>().ok();
        Some(f64::from(ticks(11)?.checked_add(ticks(12)?)?) / TICKS_PER_SECOND)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ended = self.child.kill().is_err();
        let _collected = self.child.wait().is_err();
    }
}
