//! Runs the fuzz targets of `fuzz/`. In: a target's name, or none for all of them, and for how long. Out: an error at
//! the first finding, which names the file that shows it. Installs cargo-fuzz beside the other tools; nightly Rust has
//! to be there.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::shell;

/// The binaries of `fuzz/Cargo.toml`.
const TARGETS: [&str; 8] = [
    "aggregator",
    "batch",
    "compressed",
    "enrolment",
    "frame",
    "pcap",
    "pcapng",
    "session_messages",
];
/// The version that the targets were run with.
const CARGO_FUZZ: &str = "0.13.2";
/// What one input may take at most: a few kilobytes of compressed zeros are much to read.
const LIMITS: [&str; 3] = ["-timeout=25", "-rss_limit_mb=2048", "-max_len=8192"];

/// What `fuzz` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Target; without it all of them, one after another.
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// How long each is run, seconds.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Put inputs that go new ways into the committed corpus afterwards.
    #[arg(long)]
    keep: bool,
}

/// Runs the targets.
pub(crate) fn run(options: &Options) -> Result<()> {
    let toolchains = shell::read(Command::new("rustup").args(["toolchain", "list"]))?;
    if !toolchains.lines().any(|line| line.starts_with("nightly")) {
        bail!("fuzzing needs nightly Rust: rustup toolchain install nightly --profile minimal");
    }
    let tools = shell::target_folder().join("tools");
    if !tools.join("bin/cargo-fuzz").is_file() {
        shell::run(
            shell::cargo()
                .args(["install", "--locked", "--debug", "--version", CARGO_FUZZ, "--root"])
                .arg(&tools)
                .arg("cargo-fuzz"),
        )?;
    }
    let chosen =
        TARGETS.iter().filter(|name| options.target.as_deref().is_none_or(|t| t == **name));
    for target in chosen {
        crate::say(format_args!("==> {target}, {} s", options.seconds));
        fuzz(&tools, target, options).with_context(|| {
            format!("target `{target}`: the file that shows it is in fuzz/artifacts/{target}")
        })?;
    }
    Ok(())
}

fn fuzz(tools: &Path, target: &str, options: &Options) -> Result<()> {
    let folder = shell::workspace().join("fuzz");
    let committed = folder.join("corpus").join(target);
    // What is found on the way stays out of the repository.
    let found = folder.join("target/corpus").join(target);
    fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
    let with = |first: &Path, second: &Path, setting: &str| {
        let mut command = shell::bare("rustup");
        command.current_dir(&folder).args(["run", "nightly"]).arg(tools.join("bin/cargo-fuzz"));
        command.args(["run", target]).arg(first).arg(second).arg("--").args(LIMITS).arg(setting);
        shell::run(&mut command)
    };
    with(&found, &committed, &format!("-max_total_time={}", options.seconds))?;
    if options.keep {
        with(&committed, &found, "-merge=1")?;
    }
    Ok(())
}
