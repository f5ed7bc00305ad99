//! A wire and a capture of it agree: frames that are sent over a veth pair to a live sensor give the flows that
//! `replay` gives of the file they were sent from. Times differ by what sending takes, so parts of a flow between
//! timeouts are put together before the comparison.
//!
//! The capture holds generated traffic (page loads over IPv4 and IPv6, look-ups behind VLAN tags, frames that are not
//! IP, scans, conversations in every encapsulation) and what of the shared captures fits on a wire: Ethernet, not cut,
//! no frame longer than the interface takes.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flow::{FlowKey, LinkLayer, Parsed, parse};
use sensor::{CaptureFile, LinkType};
use serde_json::Value;
use tests::{
    ETHERNET_LINK, LiveSensor, PcapFile, VethPair, capture_files, capture_folder, program, read,
    stay_on_one_cpu,
};

/// 2026-01-05 09:00:00 UTC, as long after the Unix epoch.
const START: Duration = Duration::from_hours(491_001);
/// Between two frames at least, so that the interface's queue has room.
const GAP_MIN: Duration = Duration::from_micros(150);
/// Between two frames at most; longer pauses teach nothing here.
const GAP_MAX: Duration = Duration::from_millis(5);
/// From the first packet of a flow to the first answer at least: two ticks of a slow kernel's clock, which then can
/// tell who was first.
const ANSWER_MIN: Duration = Duration::from_millis(20);
/// Frames that are taken of one shared capture.
const FRAMES_MAX: usize = 30;
/// What an interface of 1,500 bytes takes.
const FRAME_BYTES_MAX: usize = 1_514;

/// The frames of a capture that can be sent; `None` when there is something in it that cannot.
fn sendable(path: &Path) -> Option<Vec<(u64, Vec<u8>)>> {
    let mut source = CaptureFile::open(File::open(path).ok()?).ok()?;
    let mut frames: Vec<(u64, Vec<u8>)> = Vec::new();
    while let Ok(Some(frame)) = source.next_frame() {
        let is_whole = frame.bytes.len() as u64 == frame.wire_bytes;
        let fits = (14..=FRAME_BYTES_MAX).contains(&frame.bytes.len());
        if frame.link != LinkType::Ethernet || !is_whole || !fits {
            return None;
        }
        frames.push((frame.time_ms?, frame.bytes.to_vec()));
    }
    Some(frames)
}

/// A capture to send.
struct Sent {
    file: PcapFile,
    /// Time of its latest frame.
    at: Duration,
    /// For each flow which direction came first, and when; when the other one came, too.
    flows: HashMap<FlowKey, (bool, Duration, bool)>,
}

impl Sent {
    /// Adds frames, with the pauses between them as they were, within limits.
    fn add(&mut self, frames: &[(u64, Vec<u8>)]) -> Result<()> {
        let mut before_ms = frames.first().map_or(0, |(time_ms, _)| *time_ms);
        for (time_ms, frame) in frames {
            let pause = Duration::from_millis(time_ms.saturating_sub(before_ms));
            before_ms = *time_ms;
            self.at += pause.clamp(GAP_MIN, GAP_MAX);
            if let Parsed::Ip(packet) = parse(frame.as_slice(), LinkLayer::Ethernet) {
                let (key, turned) = packet.key.canonical();
                let flow = self.flows.entry(key).or_insert((turned, self.at, false));
                let (first, first_at, is_answered) = *flow;
                if turned != first && !is_answered {
                    self.at = self.at.max(first_at + ANSWER_MIN);
                    flow.2 = true;
                }
            }
            self.file.add(self.at, frame.len() as u64, frame)?;
        }
        Ok(())
    }
}

/// Everything that is sent, in one capture; and how many shared captures are in it.
fn capture(folder: &Path, shared: &Path) -> Result<(PcapFile, usize)> {
    let mut sent = Sent { file: PcapFile::new(ETHERNET_LINK), at: START, flows: HashMap::new() };
    let generated = folder.join("generated.pcap");
    for arguments in [
        "--with pages,ipv6,vlan,oddities,vertical-scan",
        // A SYN says who began, whatever the ticks of the clock.
        "--packets 4000 --flows 400 --protocols tcp=100 --conversations --packets-per-s 2000 \
         --ipv6 30 --frame-bytes 200 --encapsulate \
         vlan=9,qinq=9,mpls=9,pppoe=9,gre=9,erspan=9,vxlan=9,geneve=9,ipip=9,gtp=9",
    ] {
        let mut generate = Command::new(program("spanwatch-bench")?);
        generate.arg("generate").args(arguments.split_whitespace()).arg("--out").arg(&generated);
        read(&mut generate)?;
        sent.add(&sendable(&generated).context("generated frames fit a wire")?)?;
    }
    let mut captures = 0;
    for path in capture_files(shared)? {
        if let Some(frames) = sendable(&path) {
            sent.add(frames.get(..FRAMES_MAX).unwrap_or(&frames))?;
            captures += 1;
        }
    }
    Ok((sent.file, captures))
}

/// What tells a flow from others, ends in the order of their text.
type Key = Vec<String>;

/// A flow, its parts put together.
#[derive(Clone, Debug, Default, PartialEq)]
struct Flow {
    /// The initiator comes second among the ends of the key.
    turned: bool,
    role: Value,
    handshake: Value,
    /// What initiator and responder sent.
    sides: [Side; 2],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Side {
    packets: u64,
    bytes: u64,
    tcp_flags: u64,
    /// Of the first packet.
    ttl: Option<u64>,
    length_min: Option<u64>,
    length_max: Option<u64>,
}

impl Side {
    fn of(record: &Value, who: &str) -> Self {
        let number = |what: &str| record[format!("{who}_{what}")].as_u64();
        Self {
            packets: number("packets").unwrap_or(0),
            bytes: number("bytes").unwrap_or(0),
            tcp_flags: number("tcp_flags").unwrap_or(0),
            ttl: number("ttl"),
            length_min: number("length_min"),
            length_max: number("length_max"),
        }
    }

    /// This, and then the other.
    fn then(self, other: &Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            tcp_flags: self.tcp_flags | other.tcp_flags,
            ttl: self.ttl.or(other.ttl),
            length_min: self.length_min.into_iter().chain(other.length_min).min(),
            length_max: self.length_max.max(other.length_max),
        }
    }
}

/// The flows of a sensor's records.
fn flows(mut records: Vec<Value>) -> BTreeMap<Key, Flow> {
    records.sort_by_key(|record| record["start_time"].to_string());
    let mut flows = BTreeMap::<Key, Flow>::new();
    for record in &records {
        let end = |who: &str| format!("{} {}", record[who], record[format!("{who}_port")]);
        let (initiator, responder) = (end("initiator"), end("responder"));
        let turned = initiator > responder;
        let mut key = if turned { vec![responder, initiator] } else { vec![initiator, responder] };
        let outer = ["protocol", "vlan_outer", "vlan_inner", "mpls_label", "tunnels", "folded"];
        key.extend(outer.map(|name| record[name].to_string()));
        let sides = [Side::of(record, "initiator"), Side::of(record, "responder")];
        // Role and handshake are those of the first part.
        if let Some(flow) = flows.get_mut(&key) {
            let parts = if flow.turned == turned { [0, 1] } else { [1, 0] };
            for (side, part) in flow.sides.iter_mut().zip(parts) {
                *side = std::mem::take(side).then(&sides[part]);
            }
        } else {
            let (role, handshake) = (record["role"].clone(), record["handshake"].clone());
            flows.insert(key, Flow { turned, role, handshake, sides });
        }
    }
    flows
}

fn records(path: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines().map(|line| serde_json::from_str(line).context("a record")).collect()
}

#[test]
fn a_wire_and_a_capture_of_it_give_the_same_flows() -> Result<()> {
    let Some(shared) = capture_folder() else { return Ok(()) };
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    stay_on_one_cpu()?;
    let folder = tempfile::tempdir()?;
    let (file, captures) = capture(folder.path(), &shared)?;
    let path = folder.path().join("sent.pcap");
    file.write(&path)?;

    let out = folder.path().join("replayed.json");
    let mut replay = Command::new(program("spanwatch-sensor")?);
    read(replay.arg("replay").arg(&path).args(["--output", "json", "--out"]).arg(&out))?;
    let replayed = flows(records(&out)?);

    let mut sensor = LiveSensor::start(&pair, "")?;
    let mut inject = Command::new("ip");
    inject.args(["netns", "exec", pair.generator_namespace()]);
    inject.arg(program("spanwatch-bench")?).arg("inject");
    inject.args(["--interface", &VethPair::generator_end(0)]).arg(&path);
    let sent: Value = serde_json::from_str(&read(&mut inject)?)?;
    assert_eq!(sent["frames"].as_u64(), u64::try_from(file.frames()).ok());
    sensor.wait_until("having seen every frame", |sensor| {
        sensor.summary().is_ok_and(|summary| summary["frames_seen"] == sent["frames"])
    })?;
    sensor.stop()?;
    let live = flows(sensor.records()?);

    println!("{} frames of {captures} captures, {} flows", file.frames(), replayed.len());
    ensure!(captures > 50 && replayed.len() > 800, "there was something to compare");
    let keys: BTreeSet<_> = replayed.keys().chain(live.keys()).collect();
    let wrong: Vec<_> = keys
        .into_iter()
        .filter(|key| replayed.get(*key) != live.get(*key))
        .map(|key| format!("{key:?}\n  {:?}\n  {:?}", replayed.get(key), live.get(key)))
        .collect();
    ensure!(
        wrong.is_empty(),
        "{} flows differ, from the capture and live:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}
