//! The police's side of the demo: makes a backend and a member, serves, asks it what it holds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Demo;
use super::lab::{Host, Lab};
use super::processes::Process;
use super::summary::{self, Scoped};
use crate::shell;

/// Name of the file that marks a folder as the demo's own.
pub(super) const MARK: &str = ".spanwatch-demo";
const MEMBER: &str = "Example Works Ltd";
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a program runs.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// On the machine itself; talks over loopback only.
    Loopback,
    /// In one of the demo's namespaces.
    Lab(&'a Lab, Host),
}

impl Place<'_> {
    pub(super) fn command(self, program: &str) -> Command {
        match self {
            Self::Loopback => Command::new(shell::binary(program)),
            Self::Lab(lab, host) => lab.command(host, shell::binary(program)),
        }
    }
}

/// What `member add --json` prints.
#[derive(Deserialize)]
pub(super) struct Member {
    pub(super) member: String,
    pub(super) code: String,
}

/// What the demo asks of `status --json`.
#[derive(Deserialize)]
struct Status {
    rows_stored: u64,
}

/// A backend's data folder.
pub(super) struct Backend {
    folder: PathBuf,
}

impl Backend {
    /// The folder where the demo keeps it.
    pub(super) fn existing(demo: &Demo<'_>) -> Self {
        Self { folder: demo.data.join("backend") }
    }

    /// Makes a backend whose sensors reach it at `address`.
    pub(super) fn init(demo: &Demo<'_>, address: &str) -> Result<Self> {
        let backend = Self::existing(demo);
        shell::read(backend.command("init").args(["--listen", address, "--address", address]))?;
        Ok(backend)
    }

    /// Creates the demo's member, with a one-time code for its sensor.
    pub(super) fn add_member(&self) -> Result<Member> {
        let mut add = Command::new(shell::binary("spanwatch-backend"));
        add.args(["member", "add", "--data"]).arg(&self.folder);
        let json = shell::read(add.args(["--name", MEMBER, "--json"]))?;
        serde_json::from_str(&json).context("`member add --json` printed something else")
    }

    /// Starts serving and waits until sensors can connect.
    pub(super) fn serve(&self, demo: &Demo<'_>, place: Place<'_>) -> Result<Process> {
        let mut serve = place.command("spanwatch-backend");
        serve.args(["serve", "--data"]).arg(&self.folder);
        let mut process = Process::start("backend", &demo.data, &mut serve)?;
        demo.interrupted.wait_for("the backend to listen", READY_TIMEOUT, || {
            process.ensure_running()?;
            Ok(process.has_said("listening on").then_some(()))
        })?;
        Ok(process)
    }

    /// Rows in the lake.
    pub(super) fn rows_stored(&self) -> Result<u64> {
        let json = shell::read(self.command("status").arg("--json"))?;
        let status: Status =
            serde_json::from_str(&json).context("`status --json` printed something else")?;
        Ok(status.rows_stored)
    }

    /// The alerts.
    pub(super) fn findings(&self) -> Result<Vec<Scoped>> {
        summary::findings(&shell::read(self.command("findings").arg("--json"))?)
    }

    /// Writes a member's report.
    pub(super) fn report(&self, member: &Member, out: &Path) -> Result<()> {
        let mut report = self.command("report");
        report.args(["--member", &member.member, "--period", "weekly", "--out"]);
        shell::read(report.arg(out.join("report.html"))).map(drop)
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(shell::binary("spanwatch-backend"));
        command.args([verb, "--data"]).arg(&self.folder);
        command
    }
}
