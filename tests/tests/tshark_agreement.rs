//! A third opinion on every shared capture: packets per 5-tuple and direction of TCP and UDP over IPv4 and IPv6, of
//! the innermost packet where there is a tunnel, from our replay and from tshark. What the two see differently is
//! listed below with who is right, and why; anything new fails, and so does an entry that no longer holds.
//!
//! The frames of all captures go through tshark in a few files, one for each kind of link, each dissected on its own:
//! without reassembly, without names, without guessing protocols from what earlier frames held. A message that quotes
//! a packet (ICMP) is not a tunnel. A later fragment has no ports for tshark; here it is given those of the first
//! fragment before the comparison, since our replay does so.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use flow::{Record, protocol};
use sensor::{AggregatorSettings, CaptureFile, LinkType, Replay};
use tests::{capture_files, capture_folder, read, skip};

/// A file, how many packets only tshark and only we have under some 5-tuple, and why.
const KNOWN: [(&str, u64, u64, &str); 5] = [
    (
        "decode/nDPI/tests/cfgs/default/pcap/capwap.pcap",
        5,
        11,
        "both: CAPWAP (RFC 5415) carries frames of a wireless network, and is no tunnel that is entered; the flow is \
         that of its carrier, where tshark goes on to what the wireless client sent",
    ),
    ("decode/nDPI/tests/cfgs/default/pcap/capwap_data.pcapng", 14, 14, "both: CAPWAP, as above"),
    (
        "decode/tcpdump/tests/bigtcp-ipv4-geneve-ipv4.pcap",
        1,
        1,
        "ours: a frame of 80 KB before segmentation, whose UDP length is 0 because the field cannot say it; tshark \
         takes that for broken and stops at the carrier, while the Geneve header behind it is whole",
    ),
    (
        "decode/tcpdump/tests/bigtcp-ipv6-geneve-ipv4.pcap",
        0,
        1,
        "ours: as above; here tshark reads no ports at all behind an IPv6 payload length of 0",
    ),
    (
        "decode/zeek/testing/btest/Traces/ipv6-reassembly-state-leak.pcap",
        30,
        0,
        "ours: later fragments that come more than 30 s after the first one, when Linux has given the datagram up too \
         (RFC 8200 allows 60 s); they have no ports any more, while this test lends those of the first one for good",
    ),
];

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

/// Sender, receiver, their ports, protocol.
type Tuple = (IpAddr, IpAddr, u16, u16, u8);
type Table = BTreeMap<Tuple, u64>;

/// One file: what our replay makes of it, and which frames of which link it gave to tshark.
struct Capture {
    name: String,
    ours: Table,
    /// Link and number (from 0) of each frame in that link's file.
    frames: Vec<(u32, usize)>,
}

/// Files that tshark reads: one for each kind of link.
#[derive(Default)]
struct Bundles {
    files: BTreeMap<u32, (Vec<u8>, usize)>,
}

impl Bundles {
    /// Adds a frame in the classic capture format; gives where it is.
    fn add(&mut self, link: u32, wire_bytes: u64, frame: &[u8]) -> Result<(u32, usize)> {
        let (bytes, count) = self.files.entry(link).or_insert_with(|| {
            let words = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, link];
            (words.iter().flat_map(|word| word.to_le_bytes()).collect(), 0)
        });
        let lengths = [u32::try_from(frame.len())?, u32::try_from(wire_bytes)?];
        // One second apart: time decides nothing here, but tshark wants it in order.
        for word in [u32::try_from(*count)? + 1, 0, lengths[0], lengths[1]] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend_from_slice(frame);
        *count += 1;
        Ok((link, *count - 1))
    }
}

fn add_record(table: &mut Table, record: &Record) {
    if !matches!(record.protocol, protocol::TCP | protocol::UDP) || !record.ports_known {
        return;
    }
    let (here, there) = (record.initiator, record.responder);
    let (near, far) = (record.initiator_port, record.responder_port);
    for (tuple, packets) in [
        ((here, there, near, far, record.protocol), record.from_initiator.packets),
        ((there, here, far, near, record.protocol), record.from_responder.packets),
    ] {
        if packets > 0 {
            *table.entry(tuple).or_default() += packets;
        }
    }
}

/// Replays a file, and hands its frames on; `None` when nothing in it can be read.
fn capture(name: String, path: &Path, bundles: &mut Bundles) -> Result<Option<Capture>> {
    let file = File::open(path).with_context(|| name.clone())?;
    let Ok(mut source) = CaptureFile::open(file) else { return Ok(None) };
    let mut replay = Replay::new(AggregatorSettings::default(), 250);
    let mut one = Capture { name, ours: Table::new(), frames: Vec::new() };
    // A file that breaks off is compared up to there.
    while let Ok(Some(frame)) = source.next_frame() {
        let number = LINKS.iter().find(|(link, _)| *link == frame.link);
        let (_, link) = number.with_context(|| format!("{}: {:?}", one.name, frame.link))?;
        one.frames.push(bundles.add(*link, frame.wire_bytes, frame.bytes)?);
        let ours = &mut one.ours;
        replay.handle_frame(&frame, &mut |record| add_record(ours, &record));
    }
    let ours = &mut one.ours;
    replay.finish(&mut |record| add_record(ours, &record));
    Ok(Some(one))
}

/// What tshark says of a frame's innermost packet.
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

const FIELDS: [&str; 16] = [
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

/// Walks the headers that tshark names, to the innermost packet.
fn innermost(fields: &[String]) -> Seen {
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
    let mut first: Option<Datagram> = None;
    for header in fields.first().map_or("", String::as_str).split(':') {
        match header {
            "ip" => {
                let [source, destination] = &mut v4;
                addresses = source.address().zip(destination.address());
                let [protocol, number, offset, more] = v4_more.each_mut().map(Values::next);
                let number = number.unwrap_or_default().to_owned();
                let protocol = protocol.and_then(|text| text.parse().ok()).unwrap_or(0);
                let datagram = addresses.map(|(from, to)| (from, to, protocol, number));
                (seen, first) = fragment(datagram, offset != Some("0"), more == Some("1"));
            }
            "ipv6" => {
                let [source, destination] = &mut v6;
                addresses = source.address().zip(destination.address());
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
            "icmp" | "icmpv6" => return Seen::Nothing,
            _ => {}
        }
    }
    seen
}

fn fragment(datagram: Option<Datagram>, later: bool, more: bool) -> (Seen, Option<Datagram>) {
    match datagram {
        Some(datagram) if later => (Seen::Later(datagram), None),
        Some(datagram) if more => (Seen::Nothing, Some(datagram)),
        _ => (Seen::Nothing, None),
    }
}

/// What tshark makes of one capture's frames.
fn theirs(one: &Capture, seen: &BTreeMap<u32, Vec<Seen>>) -> Result<Table> {
    let mut table = Table::new();
    let mut first: HashMap<Datagram, Tuple> = HashMap::new();
    for (link, number) in &one.frames {
        let frame = seen.get(link).and_then(|frames| frames.get(*number));
        let tuple = match frame.context("tshark has a line for each frame")? {
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
        *table.entry(tuple).or_default() += 1;
    }
    Ok(table)
}

/// Packets that one table has and the other has not, and the first 5-tuple of them.
fn missing(from: &Table, of: &Table) -> (u64, Option<Tuple>) {
    let mut total = 0;
    let mut example = None;
    for (tuple, packets) in of {
        let lacks = packets.saturating_sub(from.get(tuple).copied().unwrap_or(0));
        if lacks > 0 {
            example = example.or(Some(*tuple));
            total += lacks;
        }
    }
    (total, example)
}

fn has_tshark() -> bool {
    if Command::new("tshark").arg("--version").output().is_ok_and(|run| run.status.success()) {
        return true;
    }
    skip("tshark is not installed");
    false
}

#[test]
fn tshark_counts_the_same_packets_for_every_flow() -> Result<()> {
    let Some(folder) = capture_folder() else { return Ok(()) };
    if !has_tshark() {
        return Ok(());
    }
    let mut bundles = Bundles::default();
    let mut captures = Vec::new();
    for path in capture_files(&folder)? {
        let name = path.strip_prefix(&folder)?.display().to_string();
        captures.extend(capture(name, &path, &mut bundles)?);
    }
    let place = tempfile::tempdir()?;
    let mut seen: BTreeMap<u32, Vec<Seen>> = BTreeMap::new();
    thread::scope(|scope| -> Result<()> {
        let mut running = Vec::new();
        for (link, (bytes, count)) in &bundles.files {
            let path = place.path().join(format!("{link}.pcap"));
            File::create(&path)?.write_all(bytes)?;
            running.push((*link, *count, scope.spawn(move || tshark(&path))));
        }
        for (link, count, tshark) in running {
            let lines = tshark.join().unwrap_or_else(|_| bail!("a thread panicked"))?;
            ensure!(lines.len() == count, "link {link}: {} lines of {count}", lines.len());
            seen.insert(link, lines.iter().map(|fields| innermost(fields)).collect());
        }
        Ok(())
    })?;

    let (mut flows, mut packets, mut wrong) = (0, 0, Vec::new());
    let mut known: BTreeMap<&str, (u64, u64, &str)> =
        KNOWN.iter().map(|(name, theirs, ours, why)| (*name, (*theirs, *ours, *why))).collect();
    for one in &captures {
        let theirs = theirs(one, &seen)?;
        let (only_theirs, a) = missing(&one.ours, &theirs);
        let (only_ours, b) = missing(&theirs, &one.ours);
        let listed = known.remove(one.name.as_str()).unwrap_or((0, 0, "none"));
        if (only_theirs, only_ours) != (listed.0, listed.1) {
            wrong.push(format!(
                "{}: {only_theirs} packets only tshark has ({a:?}), {only_ours} only we have ({b:?}); \
                 listed: {listed:?}",
                one.name
            ));
        }
        flows += one.ours.len();
        packets += one.ours.values().sum::<u64>();
    }
    println!(
        "{} captures, {flows} flows of one direction, {packets} packets, {} listed differences",
        captures.len(),
        KNOWN.len()
    );
    ensure!(known.is_empty(), "listed, and not among the captures: {known:?}");
    ensure!(wrong.is_empty(), "{} captures differ:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(flows > 1000 && fs::metadata(&folder).is_ok(), "there was something to compare");
    Ok(())
}
