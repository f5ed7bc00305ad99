//! The programs of the table: which are installed, how each is called, and what is to be known of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::captures::{Capture, Shape};
use super::measure::{Usage, measured};
use super::report::{self, Counted};

/// Seconds after which a probe that hangs is ended.
const PATIENCE_S: &str = "900";

/// What reads a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// `cat` to `/dev/null`: what reading alone costs.
    Cat,
    /// Wireshark's counter of packets: reading and looking at each packet's header in the file.
    Capinfos,
    /// The sensor, to an output that writes nothing.
    Null,
    /// The sensor, to a file of JSON lines.
    Json,
    Softflowd,
    Nfpcapd,
    Argus,
    Pmacctd,
}

impl Program {
    const PEERS: [Self; 4] = [Self::Softflowd, Self::Nfpcapd, Self::Argus, Self::Pmacctd];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cat => "cat",
            Self::Capinfos => "capinfos",
            Self::Null => "replay",
            Self::Json => "replay, JSON",
            Self::Softflowd => "softflowd",
            Self::Nfpcapd => "nfpcapd",
            Self::Argus => "argus",
            Self::Pmacctd => "pmacctd",
        }
    }

    /// Debian's packages; none for what is always there.
    fn packages(self) -> &'static str {
        match self {
            Self::Cat | Self::Null | Self::Json => "",
            Self::Capinfos => "wireshark-common",
            Self::Softflowd => "softflowd",
            Self::Nfpcapd => "nfdump",
            Self::Argus => "argus-server argus-client",
            Self::Pmacctd => "pmacct",
        }
    }

    /// Programs that it takes to run it and to read what it counted.
    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Cat => &["cat"],
            Self::Capinfos => &["capinfos"],
            Self::Null | Self::Json => &[],
            Self::Softflowd => &["softflowd"],
            Self::Nfpcapd => &["nfpcapd", "nfdump"],
            Self::Argus => &["argus", "racount"],
            Self::Pmacctd => &["pmacctd"],
        }
    }

    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::Null | Self::Json)
    }

    pub(super) fn is_peer(self) -> bool {
        Self::PEERS.contains(&self)
    }

    /// Whether its rates are by CPU time because it sleeps: pmacctd for seconds before it reads and before it ends,
    /// argus for a second at its end.
    pub(super) fn sleeps(self) -> bool {
        matches!(self, Self::Argus | Self::Pmacctd)
    }

    /// Those that read a capture of this shape.
    pub(super) fn of(shape: Shape, with_peers: bool) -> Vec<Self> {
        let mut programs = match shape {
            Shape::Mix | Shape::Few | Shape::New => vec![Self::Cat, Self::Capinfos, Self::Null],
            Shape::Open => vec![Self::Cat, Self::Null, Self::Json],
            Shape::Lone => vec![Self::Cat, Self::Null],
        };
        if with_peers && matches!(shape, Shape::Mix | Shape::Few | Shape::New) {
            programs.extend(Self::PEERS);
        }
        programs
    }
}

/// What is installed, and where to write.
#[derive(Debug)]
pub(super) struct Setup {
    sensor: PathBuf,
    replay_arguments: Vec<String>,
    scratch: PathBuf,
    missing: Vec<Program>,
}

impl Setup {
    pub(super) fn find(
        folder: &Path,
        sensor: Option<&Path>,
        replay_arguments: &[String],
    ) -> Result<Self> {
        let sensor = match sensor {
            Some(sensor) => sensor.to_owned(),
            None => std::env::current_exe()
                .context("this program's own file")?
                .with_file_name("spanwatch-sensor"),
        };
        ensure!(
            sensor.is_file(),
            "{} is not there; build it, or name another with --sensor",
            sensor.display()
        );
        let scratch = folder.join("scratch");
        fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
        let candidates = [Program::Cat, Program::Capinfos].into_iter().chain(Program::PEERS);
        let missing = candidates.filter(|program| !program.files().iter().all(is_installed));
        Ok(Self {
            missing: missing.collect(),
            sensor,
            replay_arguments: replay_arguments.to_vec(),
            scratch,
        })
    }

    pub(super) fn has(&self, program: Program) -> bool {
        !self.missing.contains(&program)
    }

    /// What to install for those that are missing: their names, and Debian's packages.
    pub(super) fn missing(&self) -> Option<(Vec<&'static str>, Vec<&'static str>)> {
        let names: Vec<_> = self.missing.iter().map(|program| program.name()).collect();
        let packages = self.missing.iter().map(|program| program.packages()).collect();
        (!names.is_empty()).then_some((names, packages))
    }

    /// Runs a program on a capture; gives what it used and, if it tells, what it counted.
    pub(super) fn run(
        &self,
        program: Program,
        capture: &Capture,
    ) -> Result<(Usage, Option<Counted>)> {
        // Nothing of an earlier run may be taken for this one's.
        fs::remove_dir_all(&self.scratch).with_context(|| self.scratch.display().to_string())?;
        fs::create_dir_all(self.path("flows"))
            .with_context(|| self.scratch.display().to_string())?;
        if program == Program::Pmacctd {
            fs::write(self.path("pmacctd.conf"), self.pmacctd(capture))?;
        }
        let log = File::create(self.path("log")).context("a file for what a program says")?;
        let mut command = self.command(program, capture);
        if program == Program::Cat {
            command.stdout(File::create("/dev/null")?);
        } else {
            command.stdout(log.try_clone()?);
        }
        command.stderr(log);
        let usage = measured(&mut command).with_context(|| {
            let said = fs::read_to_string(self.path("log")).unwrap_or_default();
            format!("{}\n{}", shown(&command), said.trim_end())
        })?;
        let counted = match program {
            Program::Cat => None,
            Program::Capinfos => Some(report::capinfos(&self.path("log"))?),
            Program::Null | Program::Json => Some(report::summary(&self.path("summary.json"))?),
            Program::Softflowd => Some(report::softflowd(&self.path("log"))?),
            Program::Nfpcapd => Some(report::nfdump(&self.path("flows"))?),
            Program::Argus => Some(report::racount(&self.path("argus.out"))?),
            Program::Pmacctd => Some(report::pmacctd(&self.path("pmacctd.csv"))?),
        };
        Ok((usage, counted))
    }

    /// What is typed to run a program on a capture.
    pub(super) fn typed(&self, program: Program, capture: &Capture) -> String {
        let line = shown(&self.command(program, capture));
        if program == Program::Cat { line + " > /dev/null" } else { line }
    }

    /// The file that a program is told more by, if there is one: its name and what is in it.
    pub(super) fn told(&self, program: Program, capture: &Capture) -> Option<(PathBuf, String)> {
        let text = || (self.path("pmacctd.conf"), self.pmacctd(capture));
        (program == Program::Pmacctd).then(text)
    }

    fn command(&self, program: Program, capture: &Capture) -> Command {
        let mut command = match program {
            Program::Null | Program::Json => Command::new(&self.sensor),
            Program::Cat => Command::new("cat"),
            Program::Capinfos => Command::new("capinfos"),
            peer => {
                let mut command = Command::new("timeout");
                command.args([PATIENCE_S, peer.name()]);
                command
            }
        };
        let capture_path = &capture.path;
        match program {
            Program::Cat => command.arg(capture_path),
            Program::Capinfos => command.args(["-c", "-M"]).arg(capture_path),
            Program::Null | Program::Json => {
                command.arg("replay").arg(capture_path).args(&self.replay_arguments);
                command.arg("--summary").arg(self.path("summary.json"));
                if program == Program::Json {
                    command.args(["--output", "json", "--out"]).arg(self.path("flows.json"))
                } else {
                    command.args(["--output", "null"])
                }
            }
            Program::Softflowd => {
                // In the foreground, IPv6 too, with room for every flow, and nothing outside the scratch folder.
                command.args([
                    "-d",
                    "-6",
                    "-m",
                    &(u64::from(capture.flows) * 2 + 1_000).to_string(),
                ]);
                command.arg("-p").arg(self.path("softflowd.pid"));
                command.arg("-c").arg(self.path("softflowd.ctl")).arg("-r").arg(capture_path)
            }
            Program::Nfpcapd => {
                // The cache is of flows of one direction.
                command.args(["-B", &(u64::from(capture.flows) * 2 + 524_288).to_string()]);
                command.arg("-w").arg(self.path("flows")).arg("-r").arg(capture_path)
            }
            Program::Argus => {
                command.arg("-w").arg(self.path("argus.out")).arg("-r").arg(capture_path)
            }
            Program::Pmacctd => command.arg("-f").arg(self.path("pmacctd.conf")),
        };
        command
    }

    fn pmacctd(&self, capture: &Capture) -> String {
        let output = self.path("pmacctd.csv");
        format!(
            "daemonize: false\npcap_savefile: {}\nplugins: print\n\
             aggregate: src_host, dst_host, src_port, dst_port, proto\n\
             print_output: csv\nprint_output_file: {}\nprint_output_file_append: true\n\
             print_refresh_time: 3600\nplugin_buffer_size: 1024000\nplugin_pipe_size: 102400000\n",
            capture.path.display(),
            output.display()
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }
}

fn is_installed(name: &&str) -> bool {
    // Debian keeps daemons where an ordinary user's path does not look; they need not be started from there.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// A command as one would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.display().to_string()).collect::<Vec<_>>().join(" ")
}
