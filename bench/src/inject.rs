//! In: a pcap file of Ethernet frames and an interface. Out: those frames on the wire, as far apart as they were
//! captured. Who falls behind does not catch up in a burst: what follows is sent later by as much. Sends nothing
//! but what the file holds.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pnet_datalink::{Channel, Config};
use serde::Serialize;

/// What `inject` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Interface to send from; one end of a veth pair in a namespace made for the purpose.
    #[arg(long)]
    interface: String,
    /// The capture.
    file: PathBuf,
}

/// What was done, as one JSON line on standard output.
#[derive(Serialize)]
struct Sent {
    frames: u64,
    bytes: u64,
    /// How much longer it took than the capture.
    late_ms: u64,
}

/// By how much a frame may be late before the frames that follow are sent later, too: less than any answer in a
/// network of some size takes, so that the order of a question and its answer stays to be seen.
const LATE_MAX: Duration = Duration::from_millis(10);

pub(crate) fn run(options: &Options) -> Result<()> {
    let name = options.file.display();
    let file = File::open(&options.file).with_context(|| format!("cannot open {name}"))?;
    let mut reader =
        PcapReader::new(BufReader::new(file)).with_context(|| format!("{name} is no pcap file"))?;
    let link = reader.header().datalink;
    ensure!(link == DataLink::ETHERNET, "{name} holds {link:?} frames, not Ethernet");

    let interface = pnet_datalink::interfaces()
        .into_iter()
        .find(|candidate| candidate.name == options.interface)
        .with_context(|| format!("there is no interface {}", options.interface))?;
    let Channel::Ethernet(mut sender, _) = pnet_datalink::channel(&interface, Config::default())
        .with_context(|| format!("cannot send raw frames from {}", interface.name))?
    else {
        bail!("{} does not carry Ethernet", interface.name);
    };

    let mut sent = Sent { frames: 0, bytes: 0, late_ms: 0 };
    let started = Instant::now();
    let mut delay = Duration::ZERO;
    let mut first: Option<Duration> = None;
    while let Some(packet) = reader.next_packet() {
        let packet = packet.with_context(|| format!("{name}, frame {}", sent.frames + 1))?;
        let due = packet.timestamp.saturating_sub(*first.get_or_insert(packet.timestamp));
        if let Some(wait) = (due + delay).checked_sub(started.elapsed()) {
            thread::sleep(wait);
        }
        let late = started.elapsed().saturating_sub(due + delay);
        delay += late.saturating_sub(LATE_MAX);
        sender
            .send_to(&packet.data, None)
            .context("the interface took no frame")?
            .with_context(|| format!("frame {} was not sent", sent.frames + 1))?;
        sent.frames += 1;
        sent.bytes += u64::try_from(packet.data.len()).context("a frame longer than memory")?;
    }
    sent.late_ms = u64::try_from(delay.as_millis()).context("a delay of ages")?;
    serde_json::to_writer(std::io::stdout(), &sent).context("cannot write the result")?;
    Ok(())
}
