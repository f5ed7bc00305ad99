//! Takes capture files; gives what two machines make of the same frames: our replay, and tshark. What is compared and
//! what they may differ in is the tests' business.
//!
//! The frames of all captures go through tshark in a few files, one for each kind of link, each dissected on its own:
//! without reassembly, without names, without guessing protocols from what earlier frames held. A message that quotes
//! a packet (ICMP) is not a tunnel. A later fragment has no ports for tshark; here it is given those of the first
//! fragment, since our replay does so.

mod conversations;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use flow::protocol;
use sensor::{AggregatorSettings, CaptureFile, LinkType, Replay};

use crate::{PcapFile, read, skip};
pub use conversations::{Conversation, Size, conversations};
use table::add;
pub use table::{Opinion, Sum, Table, Tuple, missing};

/// A capture, and what the two make of it.
pub struct Compared {
    /// Its path below the folder.
    pub name: String,
    /// By our replay.
    pub ours: Opinion,
    /// By tshark.
    pub theirs: Opinion,
}

/// Whether tshark can be run; says so, as a test that is skipped, where it cannot.
#[must_use]
pub fn has_tshark() -> bool {
    if Command::new("tshark").arg("--version").output().is_ok_and(|run| run.status.success()) {
        return true;
    }
    skip("tshark is not installed");
    false
}

/// Runs every capture through both.
///
/// # Errors
///
/// When a file cannot be read or tshark does not run.
pub fn compared(folder: &Path, paths: &[PathBuf]) -> Result<Vec<Compared>> {
    let mut bundles = Bundles::default();
    let mut captures = Vec::new();
    for path in paths {
        let name = path.strip_prefix(folder)?.display().to_string();
        captures.extend(capture(name, path, &mut bundles)?);
    }
    let place = tempfile::tempdir()?;
    let mut all: BTreeMap<u32, Vec<Told>> = BTreeMap::new();
    thread::scope(|scope| -> Result<()> {
        let mut running = Vec::new();
        for (link, file) in &bundles.files {
            let path = place.path().join(format!("{link}.pcap"));
            file.write(&path)?;
            running.push((*link, file.frames(), scope.spawn(move || tshark(&path))));
        }
        for (link, count, tshark) in running {
            let lines = tshark.join().unwrap_or_else(|_| bail!("a thread panicked"))?;
            ensure!(lines.len() == count, "link {link}: {} lines of {count}", lines.len());
            all.insert(link, lines.iter().map(|line| told(line)).collect::<Result<_>>()?);
        }
        Ok(())
    })?;
    let compared = |one: Capture| {
        let theirs = theirs(&one, &all)?;
        Ok(Compared { name: one.name, ours: one.ours, theirs })
    };
    captures.into_iter().map(compared).collect()
}

/// The registry's numbers of the link types that occur.
const LINKS: [(LinkType, u32); 8] = [
    (LinkType::Null, 0),
    (LinkType::Ethernet, 1),
    (LinkType::Ppp, 9),
    (LinkType::Hdlc, 104),
    (LinkType::Raw, 101),
    (LinkType::Cooked, 113),
    (LinkType::Ipv4, 228),
    (LinkType::Ipv6, 229),
];

/// One file: what our replay makes of it, and which frames of which link it gave to tshark.
struct Capture {
    name: String,
    ours: Opinion,
    /// Link and number (from 0) of each frame in that link's file.
    frames: Vec<(u32, usize)>,
}

/// Files that tshark reads: one for each kind of link.
#[derive(Default)]
struct Bundles {
    files: BTreeMap<u32, PcapFile>,
}

impl Bundles {
    /// Adds a frame; gives where it is.
    fn add(&mut self, link: u32, wire_bytes: u64, frame: &[u8]) -> Result<(u32, usize)> {
        let file = self.files.entry(link).or_insert_with(|| PcapFile::new(link));
        let number = file.frames();
        // One second apart: time decides nothing here, but tshark wants it in order.
        let at = Duration::from_secs(u64::try_from(number)? + 1);
        file.add(at, wire_bytes, frame)?;
        Ok((link, number))
    }
}

/// Replays a file, and hands its frames on; `None` when nothing in it can be read.
fn capture(name: String, path: &Path, bundles: &mut Bundles) -> Result<Option<Capture>> {
    let file = File::open(path).with_context(|| name.clone())?;
    let Ok(mut source) = CaptureFile::open(file) else { return Ok(None) };
    let mut replay = Replay::new(AggregatorSettings::default(), 250);
    let mut one = Capture { name, ours: Opinion::default(), frames: Vec::new() };
    // A file that breaks off is compared up to there.
    while let Ok(Some(frame)) = source.next_frame() {
        let number = LINKS.iter().find(|(link, _)| *link == frame.link);
        let (_, link) = number.with_context(|| format!("{}: {:?}", one.name, frame.link))?;
        one.frames.push(bundles.add(*link, frame.wire_bytes, frame.bytes)?);
        let ours = &mut one.ours;
        replay.handle_frame(&frame, &mut |record| ours.handle_record(&record));
    }
    let ours = &mut one.ours;
    replay.finish(&mut |record| ours.handle_record(&record));
    Ok(Some(one))
}

/// What tshark says of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    /// Bytes on the wire.
    bytes: u64,
    /// Sender and receiver of the innermost packet.
    hosts: Option<(IpAddr, IpAddr)>,
    seen: Seen,
}

/// What the innermost packet is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// Nothing of interest.
    Nothing,
    /// TCP or UDP with ports; the fragment's number when it is the first of several.
    Packet(Tuple, Option<Datagram>),
    /// A later fragment of this datagram.
    Later(Datagram),
}

/// Addresses, protocol and number of a datagram in fragments.
type Datagram = (IpAddr, IpAddr, u8, String);

const FIELDS: [&str; 17] = [
    "frame.len",
    "frame.protocols",
    "ip.src",
    "ip.dst",
    "ip.proto",
    "ip.id",
    "ip.frag_offset",
    "ip.flags.mf",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.fraghdr.nxt",
    "ipv6.fraghdr.ident",
    "ipv6.fraghdr.offset",
    "tcp.srcport",
    "tcp.dstport",
    "udp.srcport",
    "udp.dstport",
];

/// Preferences: each frame for itself.
const PREFERENCES: [&str; 6] = [
    "ip.defragment:FALSE",
    "ipv6.defragment:FALSE",
    "tcp.desegment_tcp_streams:FALSE",
    "tcp.try_heuristic_first:FALSE",
    "udp.try_heuristic_first:FALSE",
    "ip.security_flag:FALSE",
];

/// Runs tshark on a file; gives a line of fields for each frame.
fn tshark(path: &Path) -> Result<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(path).args(["-T", "fields", "-E", "occurrence=a"]);
    command.args(["-E", "separator=/t", "-E", "aggregator=;"]);
    for preference in PREFERENCES {
        command.args(["-o", preference]);
    }
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let text = read(&mut command)?;
    Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

/// The values of one field, in the order of the headers.
struct Values<'a>(Option<std::str::Split<'a, char>>);

impl<'a> Values<'a> {
    fn of(fields: &'a [String], name: &str) -> Self {
        let index = FIELDS.iter().position(|field| *field == name);
        let text = index.and_then(|index| fields.get(index)).filter(|text| !text.is_empty());
        Self(text.map(|text| text.split(';')))
    }

    fn next(&mut self) -> Option<&'a str> {
        self.0.as_mut()?.next()
    }

    fn address(&mut self) -> Option<IpAddr> {
        self.next()?.parse().ok()
    }
}

/// What tshark says of a frame, from its line of fields.
fn told(fields: &[String]) -> Result<Told> {
    let bytes = Values::of(fields, "frame.len").next().context("a frame has a length")?.parse()?;
    let (hosts, seen) = innermost(fields);
    Ok(Told { bytes, hosts, seen })
}

/// Walks the headers that tshark names, to the innermost packet.
fn innermost(fields: &[String]) -> (Option<(IpAddr, IpAddr)>, Seen) {
    let of = |name| Values::of(fields, name);
    let mut v4 = [of("ip.src"), of("ip.dst")];
    let mut v4_more = [of("ip.proto"), of("ip.id"), of("ip.frag_offset"), of("ip.flags.mf")];
    let mut v6 = [of("ipv6.src"), of("ipv6.dst")];
    let mut v6_fragment =
        [of("ipv6.fraghdr.nxt"), of("ipv6.fraghdr.ident"), of("ipv6.fraghdr.offset")];
    let mut tcp = [of("tcp.srcport"), of("tcp.dstport")];
    let mut udp = [of("udp.srcport"), of("udp.dstport")];
    let mut seen = Seen::Nothing;
    let mut addresses: Option<(IpAddr, IpAddr)> = None;
    // Of a header that breaks off, tshark names the protocol and no address: the packet is its carrier's.
    let mut hosts = None;
    let mut first: Option<Datagram> = None;
    for header in of("frame.protocols").next().unwrap_or("").split(':') {
        match header {
            "ip" => {
                let [source, destination] = &mut v4;
                addresses = source.address().zip(destination.address());
                hosts = addresses.or(hosts);
                let [protocol, number, offset, more] = v4_more.each_mut().map(Values::next);
                let number = number.unwrap_or_default().to_owned();
                let protocol = protocol.and_then(|text| text.parse().ok()).unwrap_or(0);
                let datagram = addresses.map(|(from, to)| (from, to, protocol, number));
                (seen, first) = fragment(datagram, offset != Some("0"), more == Some("1"));
            }
            "ipv6" => {
                let [source, destination] = &mut v6;
                addresses = source.address().zip(destination.address());
                hosts = addresses.or(hosts);
                (seen, first) = (Seen::Nothing, None);
            }
            "ipv6.fraghdr" => {
                let [next, number, offset] = v6_fragment.each_mut().map(Values::next);
                let protocol = next.and_then(|text| text.parse().ok()).unwrap_or(0);
                let number = number.unwrap_or_default().to_owned();
                let datagram = addresses.map(|(from, to)| (from, to, protocol, number));
                (seen, first) = fragment(datagram, offset != Some("0"), true);
            }
            "tcp" | "udp" if !matches!(seen, Seen::Later(_)) => {
                let (ports, number) = match header {
                    "tcp" => (&mut tcp, protocol::TCP),
                    _ => (&mut udp, protocol::UDP),
                };
                let [source, destination] =
                    ports.each_mut().map(|port| port.next().and_then(|text| text.parse().ok()));
                seen = match (addresses, source, destination) {
                    (Some((from, to)), Some(source), Some(destination)) => {
                        Seen::Packet((from, to, source, destination, number), first.take())
                    }
                    _ => Seen::Nothing,
                };
            }
            // What follows is a quotation.
            "icmp" | "icmpv6" => return (hosts, Seen::Nothing),
            _ => {}
        }
    }
    (hosts, seen)
}

fn fragment(datagram: Option<Datagram>, later: bool, more: bool) -> (Seen, Option<Datagram>) {
    match datagram {
        Some(datagram) if later => (Seen::Later(datagram), None),
        Some(datagram) if more => (Seen::Nothing, Some(datagram)),
        _ => (Seen::Nothing, None),
    }
}

/// What tshark makes of one capture's frames.
fn theirs(one: &Capture, told: &BTreeMap<u32, Vec<Told>>) -> Result<Opinion> {
    let mut opinion = Opinion::default();
    let mut first: HashMap<Datagram, Tuple> = HashMap::new();
    for (link, number) in &one.frames {
        let frame = told.get(link).and_then(|frames| frames.get(*number));
        let frame = frame.context("tshark has a line for each frame")?;
        let sum = Sum { packets: 1, bytes: frame.bytes };
        if let Some((source, destination)) = frame.hosts {
            add(&mut opinion.hosts, (source, destination, 0, 0, 0), sum);
        }
        let tuple = match &frame.seen {
            Seen::Nothing => continue,
            Seen::Packet(tuple, datagram) => {
                if let Some(datagram) = datagram {
                    first.insert(datagram.clone(), *tuple);
                }
                *tuple
            }
            Seen::Later(datagram) => match first.get(datagram) {
                Some(tuple) => *tuple,
                None => continue,
            },
        };
        add(&mut opinion.flows, tuple, sum);
    }
    Ok(opinion)
}
