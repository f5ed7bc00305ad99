//! In: which traffic, and a seed. Out: a pcap file, frames in time order, byte-equal for equal input.

mod attacks;
mod benign;
pub(crate) mod frames;

use std::fs::File;
use std::io::BufWriter;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, Endianness, TsResolution};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// The watched site: addresses that the attacks are aimed at and that the beacon comes from.
const SITE_SERVER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 10);
const SITE_OFFICE: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 20);
/// 2026-01-05 09:00:00 UTC, a Monday morning; the default time of the first frame.
const START_UNIX_S: u64 = 1_767_603_600;

/// What `generate` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Traffic to put in, comma separated.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Traffic::DEMO)]
    with: Vec<Traffic>,
    /// Seed of every random choice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Time of the first frame, seconds since the Unix epoch.
    #[arg(long, default_value_t = START_UNIX_S)]
    start_unix_s: u64,
    /// The pcap file to write.
    #[arg(long)]
    out: PathBuf,
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
    let mut timeline = Timeline::new();
    for traffic in &options.with {
        // Each kind draws from its own stream, so that leaving one out does not change the others.
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
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
    write(options, &timeline)
}

fn write(options: &Options, timeline: &Timeline) -> Result<()> {
    let name = options.out.display();
    let file = File::create(&options.out).with_context(|| format!("cannot create {name}"))?;
    let header = PcapHeader {
        snaplen: 65_535,
        datalink: DataLink::ETHERNET,
        ts_resolution: TsResolution::MicroSecond,
        endianness: Endianness::Little,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(BufWriter::new(file), header)
        .with_context(|| format!("cannot write {name}"))?;
    let start = Duration::from_secs(options.start_unix_s);
    for (at, frame) in timeline {
        let length = u32::try_from(frame.len()).context("a frame longer than 4 GiB")?;
        writer
            .write_packet(&PcapPacket::new(start + *at, length, frame))
            .with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
