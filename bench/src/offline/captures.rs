//! In: which capture. Out: its file, made by `generate` unless this program has made it before.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

/// By how much everything is smaller in a quick run.
const QUICK: u32 = 250;

/// A capture of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Shape {
    /// 5 M packets, 1 M flows by Zipf's law, IPv4 and IPv6, frames as on a line, 128 bytes captured.
    Mix,
    /// 5 M packets of 64 bytes, 1,000 flows.
    Few,
    /// 2 M packets, each a new flow.
    New,
    /// 1 M packets, each a flow that stays open.
    Open,
    /// 1 M packets of one flow.
    Lone,
}

impl Shape {
    pub(super) const ALL: [Self; 5] = [Self::Mix, Self::Few, Self::New, Self::Open, Self::Lone];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mix => "mix",
            Self::Few => "few",
            Self::New => "new",
            Self::Open => "open",
            Self::Lone => "lone",
        }
    }

    /// Packets and flows.
    fn counts(self) -> (u32, u32) {
        match self {
            Self::Mix => (5_000_000, 1_000_000),
            Self::Few => (5_000_000, 1_000),
            Self::New => (2_000_000, 2_000_000),
            Self::Open => (1_000_000, 1_000_000),
            Self::Lone => (1_000_000, 1),
        }
    }

    fn arguments(self) -> &'static str {
        match self {
            Self::Mix => "--snap-bytes 128",
            Self::Few => "--sizes even --frame-bytes 64 --ipv6 0",
            Self::New | Self::Open => "--sizes one --frame-bytes 64",
            Self::Lone => "--frame-bytes 64",
        }
    }
}

/// A capture on the disk.
#[derive(Clone, Debug)]
pub(super) struct Capture {
    pub(super) shape: Shape,
    pub(super) path: PathBuf,
    pub(super) packets: u32,
    pub(super) flows: u32,
    /// What made it, for people.
    pub(super) command: String,
    pub(super) bytes: u64,
}

impl Capture {
    /// The capture in this folder; made now if it is not there, or was made by another build of this program.
    pub(super) fn made(shape: Shape, quick: bool, folder: &Path) -> Result<Self> {
        let part = if quick { QUICK } else { 1 };
        let (packets, flows) = shape.counts();
        let (packets, flows) = (packets / part, flows.div_ceil(part));
        let path = folder.join(format!("{}-{packets}.pcap", shape.name()));
        let mut arguments = vec!["generate".to_owned()];
        for (flag, number) in [("--packets", packets), ("--flows", flows), ("--seed", 1)] {
            arguments.extend([flag.to_owned(), number.to_string()]);
        }
        arguments.extend(shape.arguments().split(' ').map(str::to_owned));
        let command = format!("spanwatch-bench {} --out {}", arguments.join(" "), path.display());

        let program = std::env::current_exe().context("this program's own file")?;
        let built = program.metadata().and_then(|metadata| metadata.modified());
        let built = built.context("this program's own file")?;
        let built = built.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mark = format!("{command}\n{built}\n");
        let mark_path = path.with_extension("made-by");
        let is_made = path.is_file() && fs::read_to_string(&mark_path).is_ok_and(|old| old == mark);
        if !is_made {
            // What breaks off half way is no capture.
            let unfinished = path.with_extension("unfinished");
            let mut generate = Command::new(&program);
            generate.args(&arguments).arg("--out").arg(&unfinished);
            let status = generate.status().context("cannot start this program again")?;
            ensure!(status.success(), "`{command}` ended with {status}");
            fs::rename(&unfinished, &path).with_context(|| path.display().to_string())?;
            fs::write(&mark_path, mark).with_context(|| mark_path.display().to_string())?;
        }
        let bytes = path.metadata().with_context(|| path.display().to_string())?.len();
        Ok(Self { shape, path, packets, flows, command, bytes })
    }

    /// Reads it once, so that it is in the page cache.
    pub(super) fn warm(&self) -> Result<()> {
        let name = self.path.display();
        let mut file = File::open(&self.path).with_context(|| format!("cannot open {name}"))?;
        io::copy(&mut file, &mut io::sink()).with_context(|| format!("cannot read {name}"))?;
        Ok(())
    }
}
