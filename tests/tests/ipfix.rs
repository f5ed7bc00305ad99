//! The IPFIX export, received by others: `nfcapd` of nfdump stores the flows that the replay's own JSON has, and
//! tshark dissects every message without a complaint, over UDP and over TCP.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tests::{Process, capture_files, capture_folder, program, read, skip};

const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
const SOON: Duration = Duration::from_mins(1);

/// Captures with VLAN tags, IPv6, VXLAN, ICMP and connections of every end. So few that a collector's socket takes
/// their messages at once: over UDP nobody waits.
const CAPTURES: [&str; 8] = [
    "decode/zeek/testing/btest/Traces/vlan-collisions.pcap",
    "decode/zeek/testing/btest/Traces/http-qinq-0.pcap",
    "decode/zeek/testing/btest/Traces/ftp/ipv6-multiline-reply.pcap",
    "decode/nDPI/tests/cfgs/default/pcap/lru_ipv6_caches.pcapng",
    "decode/suricata-verify/tests/vxlan-decoder-03/vxlan.pcap",
    "decode/suricata-verify/tests/bug-4663-03/icmp_and_ssh.pcap",
    "decode/tcpreplay/test/test.rewrite_vlan802.1ad",
    "decode/tcpdump/tests/icmp6_mobileprefix_asan.pcap",
];

fn captures() -> Result<Option<Vec<PathBuf>>> {
    let Some(folder) = capture_folder() else { return Ok(None) };
    let files = CAPTURES.map(|name| folder.join(name));
    let missing = files.iter().find(|file| !file.is_file());
    ensure!(missing.is_none(), "{missing:?} is not among the captures");
    Ok(Some(files.to_vec()))
}

fn is_there(tool: &str, asked: &[&str]) -> bool {
    let there = Command::new(tool).args(asked).output().is_ok();
    if !there {
        skip(&format!("{tool} is not installed"));
    }
    there
}

/// Replays captures to a collector; gives the summary and the records as JSON.
fn export(files: &[PathBuf], collector: &str, place: &Path) -> Result<(Value, Vec<Value>)> {
    let (records, summary) = (place.join("records.json"), place.join("summary.json"));
    let mut command = Command::new(program("spanwatch-sensor")?);
    command.arg("replay").args(files).args(["--output", "ipfix", "--collector", collector]);
    command.args(["--output", "json", "--out"]).arg(&records).arg("--summary").arg(&summary);
    // Damaged captures are told, and end with 1.
    let output = command.output().context("the sensor starts")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(summary.is_file(), "{said}");
    let summary: Value = serde_json::from_slice(&fs::read(&summary)?)?;
    ensure!(summary["records_unsent"] == 0, "{said}");
    ensure!(summary["records_exported"] == summary["records_out"], "{said}");
    let text = fs::read_to_string(&records)?;
    let records = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    Ok((summary, records))
}

/// What both can say of a flow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    addresses: [IpAddr; 2],
    protocol: u64,
    /// Ports; of ICMP type and code, where the code is known.
    ports: Option<[u64; 2]>,
    packets: [u64; 2],
    bytes: [u64; 2],
    vlan: u64,
    /// The initiator's; where it sent nothing, nfdump prints the responder's.
    tcp_flags: Option<u64>,
    times: [String; 2],
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

/// Whether an ICMP message asks for no answer, so that its code is known.
fn has_code(protocol: u64, kind: u64) -> bool {
    match protocol {
        1 => !matches!(kind, 0 | 8..=10 | 13..=18),
        _ => !matches!(kind, 128..=131 | 133..=136 | 139 | 140 | 144 | 145),
    }
}

fn ours(record: &Value) -> Result<Flow> {
    let protocol = number(record, "protocol");
    let ports = [number(record, "initiator_port"), number(record, "responder_port")];
    let is_icmp = matches!(protocol, 1 | 58);
    let time = |key| text(record, key).trim_end_matches('Z').to_owned();
    Ok(Flow {
        addresses: [text(record, "initiator").parse()?, text(record, "responder").parse()?],
        protocol,
        ports: (!is_icmp || has_code(protocol, ports[0])).then_some(ports),
        packets: [number(record, "initiator_packets"), number(record, "responder_packets")],
        bytes: [number(record, "initiator_bytes"), number(record, "responder_bytes")],
        vlan: number(record, "vlan_outer"),
        tcp_flags: record["initiator_tcp_flags"].as_u64(),
        times: [time("start_time"), time("end_time")],
    })
}

fn theirs(record: &Value, ours: &Flow) -> Result<Flow> {
    let address = |side: &str| {
        let (v4, v6) =
            (text(record, &format!("{side}4_addr")), text(record, &format!("{side}6_addr")));
        [v4, v6].concat().parse::<IpAddr>().with_context(|| record.to_string())
    };
    let protocol = number(record, "proto");
    let ports = if matches!(protocol, 1 | 58) {
        // Without a code nfdump does not read the type, and prints 0 for both.
        ours.ports.map(|_| [number(record, "icmp_type"), number(record, "icmp_code")])
    } else {
        Some([number(record, "src_port"), number(record, "dst_port")])
    };
    let flags = text(record, "tcp_flags").bytes();
    Ok(Flow {
        addresses: [address("src")?, address("dst")?],
        protocol,
        ports,
        packets: [number(record, "in_packets"), number(record, "out_packets")],
        bytes: [number(record, "in_bytes"), number(record, "out_bytes")],
        vlan: number(record, "src_vlan"),
        tcp_flags: ours
            .tcp_flags
            .map(|_| flags.fold(0, |bits, flag| bits << 1 | u64::from(flag != b'.'))),
        times: ["first", "last"].map(|key| text(record, key).to_owned()),
    })
}

/// The line of the kernel's table for the socket on this port.
fn socket_line(port: u16) -> Result<Option<Vec<String>>> {
    let table = fs::read_to_string("/proc/net/udp").context("the kernel's table of sockets")?;
    let place = format!("0100007F:{port:04X}");
    let mut lines = table.lines().map(|line| line.split_whitespace().map(str::to_owned));
    Ok(lines.find_map(|words| {
        let words: Vec<String> = words.collect();
        (words.get(1) == Some(&place)).then_some(words)
    }))
}

#[test]
fn nfcapd_stores_the_flows_that_the_replay_has() -> Result<()> {
    let Some(files) = captures()? else { return Ok(()) };
    if !is_there("nfcapd", &["-V"]) || !is_there("nfdump", &["-V"]) {
        return Ok(());
    }
    let place = tempfile::tempdir()?;
    let store = place.path().join("store");
    fs::create_dir(&store)?;
    // The port is free again when the collector takes it.
    let port = UdpSocket::bind(ANY_PORT)?.local_addr()?.port();
    let mut command = Command::new("nfcapd");
    command.args(["-b", "127.0.0.1", "-p", &port.to_string(), "-t", "3600", "-B", "4000000"]);
    let log = place.path().join("nfcapd.log");
    let mut collector = Process::start(command.arg("-w").arg(&store).env("TZ", "UTC"), &log)?;
    collector
        .wait_until("listening", SOON, |_| socket_line(port).is_ok_and(|line| line.is_some()))?;
    let (_, records) = export(&files, &format!("udp://127.0.0.1:{port}"), place.path())?;
    let mut last = Vec::new();
    collector.wait_until("having read all messages", SOON, |_| {
        last = socket_line(port).ok().flatten().unwrap_or_default();
        last.get(4).is_some_and(|queues| queues.ends_with(":00000000"))
    })?;
    ensure!(last.last().is_some_and(|dropped| dropped == "0"), "messages were dropped: {last:?}");
    collector.terminate(SOON)?;
    let said = fs::read_to_string(&log)?;
    ensure!(said.contains("Sequence Errors: 0, Bad Packets: 0"), "{said}");

    let mut nfdump = Command::new("nfdump");
    nfdump.args(["-o", "json", "-R"]).arg(&store).env("TZ", "UTC");
    let stored: Vec<Value> = serde_json::from_str(&read(&mut nfdump)?)?;
    ensure!(stored.len() == records.len(), "{} of {} records", stored.len(), records.len());
    // They come in the order in which they were sent.
    let mut different = Vec::new();
    let mut seen = BTreeMap::new();
    for (record, stored) in records.iter().zip(&stored) {
        let ours = ours(record)?;
        let theirs = theirs(stored, &ours)?;
        for (what, holds) in [
            ("IPv6", ours.addresses[0].is_ipv6()),
            ("VLAN", ours.vlan != 0),
            ("answered", ours.packets[1] > 0),
            ("not answered", ours.packets[1] == 0),
            ("ICMP", matches!(ours.protocol, 1 | 58)),
        ] {
            *seen.entry(what).or_insert(0) += u32::from(holds);
        }
        if ours != theirs {
            different.push(format!("{ours:?}\n{theirs:?}"));
        }
    }
    println!("{} flows, among them {seen:?}", records.len());
    ensure!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n\n"));
    ensure!(seen.values().all(|count| *count > 0), "not every kind of flow is there: {seen:?}");
    Ok(())
}

/// Replays captures to a socket of this test; gives the messages.
fn over_udp(files: &[PathBuf], place: &Path) -> Result<(Value, Vec<Vec<u8>>)> {
    let socket = UdpSocket::bind(ANY_PORT)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let port = socket.local_addr()?.port();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiving = scope.spawn(|| -> Result<Vec<Vec<u8>>> {
            let mut messages = Vec::new();
            let mut buffer = vec![0; 65_536];
            loop {
                // Looked at before the socket: what was sent before that is in it.
                let last = done.load(Relaxed);
                match socket.recv(&mut buffer) {
                    Ok(length) => messages.push(buffer[..length].to_vec()),
                    Err(_nothing_more) if last => return Ok(messages),
                    Err(_nothing_yet) => {}
                }
            }
        });
        let exported = export(files, &format!("udp://127.0.0.1:{port}"), place);
        done.store(true, Relaxed);
        let messages = receiving.join().unwrap_or_else(|_| bail!("the receiver panicked"))?;
        Ok((exported?.0, messages))
    })
}

/// The same over TCP.
fn over_tcp(files: &[PathBuf], place: &Path) -> Result<(Value, Vec<Vec<u8>>)> {
    let listener = TcpListener::bind(ANY_PORT)?;
    let port = listener.local_addr()?.port();
    let receiving = thread::spawn(move || -> Result<Vec<u8>> {
        let (mut stream, _) = listener.accept()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let (summary, _) = export(files, &format!("tcp://127.0.0.1:{port}"), place)?;
    let bytes = receiving.join().unwrap_or_else(|_| bail!("the receiver panicked"))?;
    let mut messages = Vec::new();
    let mut rest = bytes.as_slice();
    while let [_, _, high, low, ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (message, behind) = rest.split_at_checked(length).context("the last message is cut")?;
        messages.push(message.to_vec());
        rest = behind;
    }
    Ok((summary, messages))
}

/// The messages as a capture of raw IPv4 packets to port 4739.
fn capture(messages: &[Vec<u8>], protocol: u8) -> Result<Vec<u8>> {
    let words = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 101];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut sequence: u32 = 1;
    for (time_s, message) in (1_u32..).zip(messages) {
        let mut transport = [4_000_u16, 4_739].map(u16::to_be_bytes).concat();
        if protocol == 17 {
            transport.extend(u16::try_from(message.len() + 8)?.to_be_bytes());
            transport.extend([0, 0]);
        } else {
            transport.extend(sequence.to_be_bytes());
            transport.extend([0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
            sequence = sequence.wrapping_add(u32::try_from(message.len())?);
        }
        let length = 20 + transport.len() + message.len();
        let mut packet = vec![0x45, 0];
        packet.extend(u16::try_from(length)?.to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, protocol, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
        packet.extend(&transport);
        packet.extend(message);
        let length = u32::try_from(length)?;
        bytes.extend([time_s, 0, length, length].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(&packet);
    }
    Ok(bytes)
}

#[test]
fn tshark_dissects_every_message() -> Result<()> {
    let Some(folder) = capture_folder() else { return Ok(()) };
    if !is_there("tshark", &["--version"]) {
        return Ok(());
    }
    // Every kind of flow that there is, but not the largest captures.
    let mut files = capture_files(&folder)?;
    files.retain(|file| file.metadata().is_ok_and(|metadata| metadata.len() < 1 << 20));
    let place = tempfile::tempdir()?;
    for (name, protocol, exported) in
        [("udp", 17, over_udp(&files, place.path())?), ("tcp", 6, over_tcp(&files, place.path())?)]
    {
        let (summary, messages) = exported;
        let records = summary["records_out"].as_u64().context("the summary counts records")?;
        ensure!(records > 5_000, "there is something to dissect: {records}");
        let path = place.path().join(format!("{name}.pcap"));
        fs::write(&path, capture(&messages, protocol)?)?;
        let decode_as = format!("{name}.port==4739,cflow");
        let tshark = || {
            let mut command = Command::new("tshark");
            command.args(["-n", "-d", &decode_as, "-r"]).arg(&path);
            command
        };
        let faulty = read(tshark().args(["-Y", "_ws.malformed || _ws.expert || !cflow"]))?;
        ensure!(faulty.is_empty(), "{name}: tshark complains:\n{faulty}");
        let text = read(tshark().args(["-V", "-O", "cflow"]))?;
        let unknown = text.lines().filter(|line| line.to_lowercase().contains("no template"));
        ensure!(unknown.count() == 0, "{name}: data without a template");
        let is_flow = |line: &&str| {
            let number = line.trim().strip_prefix("Flow ").map(str::trim);
            number.is_some_and(|number| number.parse::<u64>().is_ok())
        };
        let dissected = text.lines().filter(is_flow).count() as u64;
        println!("{name}: {} messages, {dissected} records", messages.len());
        ensure!(dissected == records, "{name}: {dissected} of {records} records");
    }
    Ok(())
}
