//! A backend on loopback with one member and one enrolled sensor, all in a temporary folder.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Process, VethPair, program, read};

const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// Backend, member, sensor.
pub struct Station {
    folder: TempDir,
    /// Namespaces of backend and sensor; none is that of the test.
    namespaces: Option<[String; 2]>,
    /// The member's identifier.
    pub member: String,
}

/// A backend that serves.
pub type Backend = Process;

impl Station {
    /// Makes a backend and a member, and enrols a sensor.
    ///
    /// # Errors
    ///
    /// When any of the programs fails.
    pub fn new() -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").context("a free port on loopback")?;
        let address = socket.local_addr()?.to_string();
        drop(socket);
        Self::at(&address, None)
    }

    /// The same with a wire between the two: the backend at the listening end of a pair, the sensor at the other.
    ///
    /// # Errors
    ///
    /// When any of the programs fails.
    pub fn across(pair: &VethPair) -> Result<Self> {
        let address = SocketAddr::new(pair.connect()?, 7_443).to_string();
        let namespaces = [pair.span_namespace(), pair.generator_namespace()].map(str::to_owned);
        Self::at(&address, Some(namespaces))
    }

    fn at(address: &str, namespaces: Option<[String; 2]>) -> Result<Self> {
        let folder = tempfile::tempdir().context("a temporary folder")?;
        let mut station = Self { folder, namespaces, member: String::new() };
        read(station.backend_command("init")?.args(["--listen", address, "--address", address]))?;
        let mut add = station.command("spanwatch-backend", 0)?;
        add.args(["member", "add", "--data"]).arg(station.backend_folder());
        let added: Value = serde_json::from_str(&read(add.args(["--name", "Test", "--json"]))?)?;
        let text = |key: &str| -> Result<String> {
            Ok(added[key].as_str().with_context(|| format!("no {key} in {added}"))?.to_owned())
        };
        station.member = text("member")?;
        let backend = station.serve()?;
        read(station.sensor_command("enroll")?.arg(text("code")?))?;
        backend.terminate(READY_TIMEOUT)?;
        Ok(station)
    }

    /// Starts the backend and waits until sensors can connect.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn serve(&self) -> Result<Backend> {
        let log = self.path("backend.log");
        let before = std::fs::read_to_string(&log).map_or(0, |log| log.matches(READY).count());
        let mut backend = Process::start(&mut self.backend_command("serve")?, &log)?;
        backend
            .wait_until("listening", READY_TIMEOUT, |log| log.matches(READY).count() > before)?;
        Ok(backend)
    }

    fn command(&self, name: &str, side: usize) -> Result<Command> {
        let path = program(name)?;
        let Some(namespaces) = &self.namespaces else { return Ok(Command::new(path)) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespaces[side]]).arg(path);
        Ok(command)
    }

    /// A subcommand of the backend on its data folder.
    ///
    /// # Errors
    ///
    /// When the program was not built.
    pub fn backend_command(&self, verb: &str) -> Result<Command> {
        let mut command = self.command("spanwatch-backend", 0)?;
        command.args([verb, "--data"]).arg(self.backend_folder());
        Ok(command)
    }

    /// A subcommand of the sensor on its state folder.
    ///
    /// # Errors
    ///
    /// When the program was not built.
    pub fn sensor_command(&self, verb: &str) -> Result<Command> {
        let mut command = self.command("spanwatch-sensor", 1)?;
        command.args([verb, "--state-dir"]).arg(self.sensor_folder());
        Ok(command)
    }

    /// A capture made by the project's own generator.
    ///
    /// # Errors
    ///
    /// When the generator fails.
    pub fn generate(&self, with: &str) -> Result<PathBuf> {
        let capture = self.path("generated.pcap");
        let mut generate = Command::new(program("spanwatch-bench")?);
        read(generate.args(["generate", "--with", with, "--out"]).arg(&capture))?;
        Ok(capture)
    }

    /// The rows that a query gives.
    ///
    /// # Errors
    ///
    /// When the query fails.
    pub fn query(&self, sql: &str) -> Result<Vec<Value>> {
        let mut query = self.backend_command("query")?;
        let json = read(query.args(["--format", "json", "--limit", "0"]).arg(sql))?;
        serde_json::from_str(&json).with_context(|| format!("no JSON list: {json}"))
    }

    /// A path inside the station's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The sensor's state folder.
    #[must_use]
    pub fn sensor_folder(&self) -> PathBuf {
        self.path("sensor")
    }

    /// Where the backend keeps everything.
    #[must_use]
    pub fn backend_folder(&self) -> PathBuf {
        self.path("backend")
    }

    /// The station's own folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

const READY: &str = "listening on";
