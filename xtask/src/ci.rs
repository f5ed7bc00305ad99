//! What must pass before a change lands: the tests ([`test()`]), and everything else ([`all`]): format, lints,
//! documentation, licences, tidiness, and that the committed eBPF object is what its sources build.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::{ebpf, setup, shell, tidy};

/// Builds everything and runs every test; kernel tests too when root.
pub(crate) fn test() -> Result<()> {
    if shell::is_root() {
        setup::ensure(setup::TEST)?;
        setup::ensure_python()?;
    }
    // The end-to-end tests start the programs that lie in the target folder: build them first.
    shell::run(shell::cargo().args(["build", "--workspace", "--locked"]))?;
    shell::run(shell::cargo().args(["test", "--workspace", "--locked"]))
}

/// What must hold beside the tests, in the order of how soon a mistake shows.
pub(crate) fn all() -> Result<()> {
    timed("format", || shell::run(shell::cargo().args(["fmt", "--all", "--check"])))?;
    timed("tidy", tidy::run)?;
    timed("lints", || {
        shell::run(shell::cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    timed("documentation", || {
        shell::run(
            shell::cargo()
                .args(["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"])
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    })?;
    timed("licences", licences)?;
    timed("eBPF object", ebpf::verify)
}

/// Licences, bans and sources of every dependency. Advisories need a database from outside, so they are checked
/// where it can be fetched: `cargo deny check advisories`.
fn licences() -> Result<()> {
    const VERSION: &str = "0.20.2";
    let tools = shell::target_folder().join("tools");
    let deny = tools.join("bin/cargo-deny");
    if !deny.is_file() {
        shell::run(
            shell::cargo()
                .args(["install", "--locked", "--debug", "--version", VERSION, "--root"])
                .arg(&tools)
                .arg("cargo-deny"),
        )
        .context("cargo-deny is needed for the licence check")?;
    }
    let mut command = Command::new(deny);
    command.current_dir(shell::workspace());
    shell::run(command.args(["--offline", "--locked", "check", "licenses", "bans", "sources"]))
}

fn timed(name: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    crate::say(format_args!("==> {name}"));
    step().with_context(|| format!("step `{name}`"))?;
    crate::say(format_args!("==> {name}: passed in {} s", started.elapsed().as_secs()));
    Ok(())
}
