//! Traffic made with real sockets: `serve` is the watched site, the other roles visit it or are run inside it.
//! Every loop is bounded in count; every connection has a time limit.

mod serve;
mod visit;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};

/// Longest time one connection may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// What `traffic` takes.
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// A small site: pages on one port, a log-in that refuses everybody on another. Serves until it is ended.
    Serve {
        /// Where pages are served.
        #[arg(long)]
        pages: SocketAddr,
        /// Where the log-in listens.
        #[arg(long)]
        login: Option<SocketAddr>,
    },
    /// Load pages.
    Pages {
        /// The server.
        #[arg(long)]
        to: SocketAddr,
        /// Address to come from.
        #[arg(long)]
        from: IpAddr,
        /// How many pages.
        #[arg(long, default_value_t = 40)]
        count: u32,
        /// Time between two page loads, ms.
        #[arg(long, default_value_t = 150)]
        pause_ms: u64,
    },
    /// Try to connect to one port after another.
    Scan {
        /// The host to try.
        #[arg(long)]
        to: IpAddr,
        /// Address to come from.
        #[arg(long)]
        from: IpAddr,
        /// First port to try.
        #[arg(long, default_value_t = 1_000)]
        first_port: u16,
        /// How many ports to try.
        #[arg(long, default_value_t = 100)]
        count: u16,
    },
    /// Log in with one password after another.
    Guess {
        /// The log-in.
        #[arg(long)]
        to: SocketAddr,
        /// Address to come from.
        #[arg(long)]
        from: IpAddr,
        /// How many passwords.
        #[arg(long, default_value_t = 25)]
        count: u32,
        /// Time between two attempts, ms.
        #[arg(long, default_value_t = 200)]
        pause_ms: u64,
    },
    /// Call home at a steady period.
    Beacon {
        /// Whom to call.
        #[arg(long)]
        to: SocketAddr,
        /// Address to come from.
        #[arg(long)]
        from: IpAddr,
        /// How many calls.
        #[arg(long, default_value_t = 110)]
        count: u32,
        /// Time from one call to the next, ms.
        #[arg(long, default_value_t = 600)]
        period_ms: u64,
    },
}

pub(crate) fn run(options: &Options) -> Result<()> {
    match options.role {
        Role::Serve { pages, login } => serve::run(pages, login),
        Role::Pages { to, from, count, pause_ms } => {
            visit::pages(to, from, count, Duration::from_millis(pause_ms))
        }
        Role::Scan { to, from, first_port, count } => visit::scan(to, from, first_port, count),
        Role::Guess { to, from, count, pause_ms } => {
            visit::guess(to, from, count, Duration::from_millis(pause_ms))
        }
        Role::Beacon { to, from, count, period_ms } => {
            visit::beacon(to, from, count, Duration::from_millis(period_ms))
        }
    }
}
