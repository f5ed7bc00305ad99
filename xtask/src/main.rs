//! `cargo xtask`: set-up, the eBPF object, the demo, tests, CI. In: a task's name. Out: its result, and an exit code
//! of 0 only when all of it held.

mod ci;
mod demo;
mod ebpf;
mod fuzz;
mod setup;
mod shell;
mod simulate;
mod tidy;

use std::fmt::Display;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Prints one line for the person at the terminal.
#[expect(clippy::print_stdout, reason = "what a task says is its output")]
pub(crate) fn say(text: impl Display) {
    println!("{text}");
}

/// Tasks of the project.
#[derive(Parser)]
#[command(name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show the whole path at work: traffic, sensor, link, backend, findings, report.
    Demo(demo::Options),
    /// Build everything and run every test; kernel tests too when root.
    Test,
    /// Everything beside the tests that must hold: format, lints, documentation, licences, eBPF.
    Ci,
    /// Check the rules of the house that no compiler checks.
    Tidy,
    /// Give readers, parser, aggregator and decoder random input (nightly Rust), and report what breaks.
    Fuzz(fuzz::Options),
    /// Run the link's simulation over many seeds, and name the first that ends wrongly.
    Simulate(simulate::Options),
    /// Build or verify the eBPF object.
    #[command(subcommand)]
    Ebpf(ebpf::Command),
}

fn main() -> ExitCode {
    let outcome = run(Arguments::parse().task);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the program's own error report")]
            {
                eprintln!("xtask: {error:#}");
            }
            ExitCode::from(1)
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Demo(options) => demo::run(&options),
        Task::Test => ci::test(),
        Task::Ci => ci::all(),
        Task::Tidy => tidy::run(),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Simulate(options) => simulate::run(&options),
        Task::Ebpf(command) => ebpf::run(command),
    }
}
