//! Runs the simulation of the link (`uplink/src/simulation`) over many seeds. In: how many, from which. Out: what
//! happened in them, or the first seed that ends wrongly, and how to run it alone.

use anyhow::Result;
use clap::Args;

use crate::shell;

/// What `simulate` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// How many seeds.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    seeds: u64,
    /// The first one.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
}

/// Runs it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut command = shell::cargo();
    command.args(["test", "-p", "uplink", "--locked", "--lib", "--"]);
    command.args(["simulation::every_sealed_batch", "--nocapture"]);
    command.env("SPANWATCH_SEEDS", options.seeds.to_string());
    command.env("SPANWATCH_SEED", options.from.to_string());
    shell::run(&mut command)
}
