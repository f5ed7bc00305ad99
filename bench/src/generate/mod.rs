//! In: which traffic, and a seed. Out: a capture, frames in time order, byte-equal for equal input.

mod attacks;
mod benign;
pub(crate) mod encapsulation;
mod flows;
pub(crate) mod frames;
mod output;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use flows::FlowOptions;
use output::Output;

/// The watched site: addresses that the attacks are aimed at and that the beacon comes from.
const SITE_SERVER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);
const SITE_OFFICE: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 20);
/// 2026-01-05 09:00:00 UTC, a Monday morning; the default time of the first frame.
const START_UNIX_S: u64 = 1_767_603_600;

/// What `generate` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Traffic to put in, comma separated; beside --packets none, and without it all but many-flows, when it is not
    /// given.
    #[arg(long, value_enum, value_delimiter = ',')]
    with: Option<Vec<Traffic>>,
    /// Seed of every random choice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Time of the first frame, seconds since the Unix epoch.
    #[arg(long, default_value_t = START_UNIX_S)]
    start_unix_s: u64,
    /// Bytes of each frame that are captured.
    #[arg(long, default_value_t = 65_535, value_parser = clap::value_parser!(u32).range(14..=262_144))]
    snap_bytes: u32,
    /// Times in nanoseconds instead of microseconds.
    #[arg(long)]
    nanoseconds: bool,
    /// The file to write: pcapng when it is called so, else pcap; - for standard output.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    flows: FlowOptions,
}

/// One kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Traffic {
    /// Page loads over IPv4.
    Pages,
    /// Page loads over IPv6.
    Ipv6,
    /// Name look-ups behind one VLAN tag and behind two.
    Vlan,
    /// Frames that are not IP, and frames that are broken.
    Oddities,
    /// One source tries 100 ports of one host.
    VerticalScan,
    /// One source logs in to SSH 30 times, always refused.
    PasswordGuessing,
    /// 4,800 SYN from as many forged sources to one port within 12 s.
    SynFlood,
    /// Answers of 48 name servers that nobody asked, 5 Mbit/s for 12 s.
    Reflection,
    /// An office machine calls home every 5 s for 8 minutes.
    Beacon,
    /// 200,000 look-ups, each a flow of its own, within 100 s; only when asked for.
    ManyFlows,
}

impl Traffic {
    /// What a capture holds when nothing else is asked for.
    const DEMO: [Self; 9] = [
        Self::Pages,
        Self::Ipv6,
        Self::Vlan,
        Self::Oddities,
        Self::VerticalScan,
        Self::PasswordGuessing,
        Self::SynFlood,
        Self::Reflection,
        Self::Beacon,
    ];
}

/// Frames with the time after the start at which each is on the wire.
type Timeline = Vec<(Duration, Vec<u8>)>;

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut packets = options.flows.packets(options.seed)?;
    let default: &[Traffic] = if packets.is_some() { &[] } else { &Traffic::DEMO };
    let timeline = timeline(options.with.as_deref().unwrap_or(default), options.seed);
    let mut timeline = timeline.into_iter().peekable();
    let mut output = Output::create(&options.out, options.snap_bytes, options.nanoseconds)?;
    let start = Duration::from_secs(options.start_unix_s);
    let snap_bytes = options.snap_bytes as usize;
    let mut write_until = |until: Duration, output: &mut Output| -> Result<()> {
        while let Some((at, frame)) = timeline.next_if(|(at, _)| *at <= until) {
            output.write(start + at, frame.len(), &frame[..frame.len().min(snap_bytes)])?;
        }
        Ok(())
    };
    let mut frame = Vec::new();
    while let Some(packets) = &mut packets {
        let due = packets.due();
        let Some(wire_bytes) = packets.next(&mut frame, snap_bytes) else { break };
        write_until(due, &mut output)?;
        output.write(start + due, wire_bytes, &frame)?;
    }
    write_until(Duration::MAX, &mut output)?;
    output.finish()
}

/// The frames of these kinds of traffic, in time order.
fn timeline(with: &[Traffic], seed: u64) -> Timeline {
    let mut timeline = Timeline::new();
    for traffic in with {
        // Each kind draws from its own stream, so that leaving one out does not change the others.
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(*traffic as u64);
        match traffic {
            Traffic::Pages => benign::pages(&mut timeline, &mut random),
            Traffic::Ipv6 => benign::pages_v6(&mut timeline, &mut random),
            Traffic::Vlan => benign::tagged_lookups(&mut timeline, &mut random),
            Traffic::Oddities => benign::oddities(&mut timeline),
            Traffic::VerticalScan => attacks::vertical_scan(&mut timeline, &mut random),
            Traffic::PasswordGuessing => attacks::password_guessing(&mut timeline, &mut random),
            Traffic::SynFlood => attacks::syn_flood(&mut timeline, &mut random),
            Traffic::Reflection => attacks::reflection(&mut timeline, &mut random),
            Traffic::Beacon => attacks::beacon(&mut timeline, &mut random),
            Traffic::ManyFlows => benign::many_flows(&mut timeline, &mut random),
        }
    }
    timeline.sort_by_key(|(at, _)| *at);
    timeline
}

#[cfg(test)]
mod tests;
