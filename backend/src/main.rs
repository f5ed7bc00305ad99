//! `spanwatch-backend`: errors and exit code only. 0 done, 1 failed, 2 wrong command line or settings.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use backend::cli::Cli;
use backend::config::ConfigError;
use backend::folder::FolderError;
use clap::Parser;
use rustix::fs::Mode;
use tokio::runtime::Builder;
use tracing_subscriber::EnvFilter;

/// What the log says when `SPANWATCH_LOG` does not: the storage engine's own chatter is left out.
const LOG_FILTER: &str =
    "info,deltalake=warn,deltalake_core=warn,buoyant_kernel=warn,datafusion=warn";
/// The query engine walks an expression once a level: enough for the deepest that a question's length allows.
const STACK_BYTES: usize = 32 << 20;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Everything that this program makes is for its own user: keys, codes' hashes, people's addresses.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let filter = EnvFilter::try_from_env("SPANWATCH_LOG").unwrap_or_else(|_| LOG_FILTER.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed standard error leaves nothing to tell anybody.
            drop(writeln!(std::io::stderr(), "error: {}", told(&error)));
            ExitCode::from(if is_settings(&error) { 2 } else { 1 })
        }
    }
}

/// On a worker and not on the main thread, for its stack and so that a panic in the query engine is an error.
fn run(cli: Cli) -> anyhow::Result<()> {
    let runtime =
        Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build()?;
    let running = runtime.spawn(async move { cli.run(&mut std::io::stdout()).await });
    runtime.block_on(running).context("this program has a fault")?
}

/// The message and its causes, without those that it repeats.
fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        let cause = cause.trim_end();
        if told.is_empty() {
            told.push_str(cause);
        } else if !told.contains(cause) {
            told.push_str(": ");
            told.push_str(cause);
        }
    }
    told
}

fn is_settings(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<ConfigError>()
            || matches!(
                cause.downcast_ref(),
                Some(FolderError::Config(_) | FolderError::Address(_))
            )
    })
}
