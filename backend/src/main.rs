//! `spanwatch-backend`: errors and exit code only. 0 done, 1 failed, 2 wrong command line.

use std::io::Write;
use std::process::ExitCode;

use backend::cli::Cli;
use clap::Parser;
use rustix::fs::Mode;
use tracing_subscriber::EnvFilter;

/// What the log says when `SPANWATCH_LOG` does not: the storage engine's own chatter is left out.
const LOG_FILTER: &str = "info,deltalake=warn,deltalake_core=warn,buoyant_kernel=warn,datafusion=warn";

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // Everything that this program makes is for its own user: keys, codes' hashes, people's addresses.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let filter = EnvFilter::try_from_env("SPANWATCH_LOG").unwrap_or_else(|_| LOG_FILTER.into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match cli.run(&mut std::io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed standard error leaves nothing to tell anybody.
            drop(writeln!(std::io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
