//! `spanwatch-bench`: makes captures, puts them on a wire, makes traffic with real sockets, and measures the XDP
//! program, the replay, the batch format and the link. In: a scenario, or a capture file. Out: frames, and figures.
//! Of what the sensor makes of the frames it looks at nothing but how many were counted.

mod codec;
mod count;
mod generate;
mod inject;
mod offline;
mod traffic;
mod uplink;
mod xdp;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The harness that performance testers run.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a capture with chosen traffic and attacks, the same for the same seed.
    Generate(generate::Options),
    /// Print how many frames a capture holds.
    Count(count::Options),
    /// Send the frames of a capture out of an interface at the pace they were captured.
    Inject(inject::Options),
    /// Make traffic with real sockets: a small site to serve it, and visitors, some of them hostile.
    Traffic(traffic::Options),
    /// Measure `replay` beside other flow probes on the same captures.
    Offline(offline::Options),
    /// Measure how small and how fast batches are, beside other formats of the same records.
    Codec(codec::Options),
    /// Measure the link from the sealed batch to its acknowledgement, with the backend's program.
    Uplink(uplink::Options),
    #[command(hide = true)]
    UplinkPart(uplink::part::Options),
    #[command(hide = true)]
    UplinkIntake(uplink::intake::Options),
    /// Measure what the XDP program costs a packet, beside other designs; needs root.
    Xdp(xdp::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Generate(options) => generate::run(&options),
        Command::Count(options) => count::run(&options),
        Command::Inject(options) => inject::run(&options),
        Command::Traffic(options) => traffic::run(&options),
        Command::Offline(options) => offline::run(&options),
        Command::Codec(options) => codec::run(&options),
        Command::Uplink(options) => uplink::run(&options),
        Command::UplinkPart(options) => uplink::part::run(&options),
        Command::UplinkIntake(options) => uplink::intake::run(&options),
        Command::Xdp(options) => xdp::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the program's own error report")]
            {
                eprintln!("spanwatch-bench: {error:#}");
            }
            ExitCode::from(1)
        }
    }
}
