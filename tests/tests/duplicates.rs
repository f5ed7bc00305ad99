//! A mirror that delivers every frame twice: with `deduplicate` each packet is counted once, in the kernel, live and in
//! a replay alike; without it nothing is removed; and no packet is missing from the books either way.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flow::Observation;
use sensor::{
    CapturedFrame, FRAME_BYTES_MAX, FRAME_BYTES_MIN, FrameObserver, KernelTestRun, LinkType,
    TableSizes,
};
use serde_json::Value;
use tests::frames::{layers, samples};
use tests::{
    ETHERNET_LINK, LiveSensor, PcapFile, Random, VethPair, mirrored, program, read, skip,
    stay_on_one_cpu,
};

/// 2026-01-05 09:00:00 UTC, as long after the Unix epoch.
const START: Duration = Duration::from_hours(491_001);
/// From a frame to its copy, in a capture.
const SOON: Duration = Duration::from_micros(40);
const DEDUPLICATE: &str = "[capture]\ndeduplicate = true\n";

/// Conversations as they are, no two packets alike.
fn single() -> Vec<Vec<u8>> {
    mirrored(20, 6, 700).into_iter().map(|frame| frame.bytes).collect()
}

/// The frame as it leaves a router: other hardware addresses, a hop less, and another checksum.
fn routed(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..12].copy_from_slice(&[2, 0x77, 0, 0, 0, 9, 2, 0x77, 0, 0, 0, 8]);
    frame[22] -= 1;
    frame[24] = frame[24].wrapping_add(1);
    frame
}

fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let [high, low] = vlan.to_be_bytes();
    frame.splice(12..12, [0x81, 0x00, high, low]);
    frame
}

/// The frames, each with what a mirror makes of it a second time.
fn twice(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let copy = |(number, frame): (usize, &Vec<u8>)| match number % 3 {
        0 => frame.clone(),
        1 => routed(frame),
        _ => tagged(&routed(frame), 30),
    };
    let pairs =
        frames.iter().enumerate().map(|(number, frame)| [frame.clone(), copy((number, frame))]);
    pairs.flatten().collect()
}

/// What packets add up to, by flow.
type Sums = BTreeMap<String, (u64, u64)>;

fn add(sums: &mut Sums, seen: &Observation) {
    let sum = sums.entry(format!("{:?} {:?}", seen.key.with_domain(0), seen.outer)).or_default();
    sum.0 += seen.packets;
    sum.1 += seen.bytes;
}

/// As a replay sees them, all at one moment: the flows, and how many packets were removed.
fn observed(frames: &[Vec<u8>], deduplicate: bool) -> (Sums, u64) {
    let mut observer = FrameObserver::new(deduplicate);
    let mut sums = Sums::new();
    for bytes in frames {
        let frame = CapturedFrame {
            time_ms: Some(1_000),
            time_us: Some(1_000_000),
            wire_bytes: bytes.len() as u64,
            link: LinkType::Ethernet,
            bytes,
        };
        if let Some(seen) = observer.handle_frame(&frame, 1_000) {
            add(&mut sums, &seen);
        }
    }
    let counts = observer.counts();
    let packets: u64 = sums.values().map(|(packets, _)| packets).sum();
    assert_eq!(counts.packets_ip, packets + counts.packets_duplicate);
    (sums, counts.packets_duplicate)
}

/// The same in the kernel.
fn counted(kernel: &mut KernelTestRun, frames: &[Vec<u8>]) -> Result<(Sums, u64)> {
    let before = kernel.counters();
    for frame in frames {
        kernel.feed(frame, 1)?;
    }
    let mut sums = Sums::new();
    let totals = kernel.drain(&mut |seen| add(&mut sums, &seen))?;
    let counters = kernel.counters();
    let duplicate = counters.packets_duplicate - before.packets_duplicate;
    ensure!(totals.packets_folded == 0, "the tables are large enough");
    assert_eq!(counters.frames_seen - before.frames_seen, frames.len() as u64);
    assert_eq!(counters.packets_ip - before.packets_ip, totals.packets + duplicate);
    Ok((sums, duplicate))
}

fn may_load_programs() -> Result<bool> {
    if !rustix::process::geteuid().is_root() {
        skip("loading an XDP program needs root");
        return Ok(false);
    }
    stay_on_one_cpu()?;
    Ok(true)
}

/// UDP over IPv6 and RSTs without an identification: equal packets are common among them.
fn nameless() -> Vec<Vec<u8>> {
    let ends = ([0x20; 16], [0x21; 16]);
    let datagram = layers::udp([40_000, 53], b"question");
    let reset = layers::tcp([40_000, 443], 0x04, &[], b"");
    let packets = [(17, datagram), (6, reset)];
    let frames = packets.map(|(next, behind)| {
        layers::ethernet(layers::IPV6, &layers::ipv6(ends.0, ends.1, next, &behind))
    });
    frames.to_vec()
}

#[test]
fn kernel_and_replay_count_each_packet_once() -> Result<()> {
    let single = single();
    let doubled = twice(&single);
    let alone = observed(&single, false);
    assert_eq!(observed(&doubled, true), (alone.0.clone(), single.len() as u64));
    assert_eq!(observed(&doubled, false).1, 0, "nothing is removed unless it is asked for");
    assert_eq!(observed(&single, true), alone, "nothing is removed that comes once");
    if !may_load_programs()? {
        return Ok(());
    }
    let mut kernel = KernelTestRun::load_deduplicating(TableSizes::default())?;
    assert_eq!(counted(&mut kernel, &doubled)?, observed(&doubled, true));
    // Of what cannot be told from a repetition nothing is removed; of equal packets, three of four.
    let mut kernel = KernelTestRun::load_deduplicating(TableSizes::default())?;
    let nameless: Vec<_> = nameless().into_iter().flat_map(|frame| vec![frame; 9]).collect();
    let counted_nameless = counted(&mut kernel, &nameless)?;
    assert_eq!(counted_nameless, observed(&nameless, true));
    assert_eq!(counted_nameless.1, 0);
    let flood = vec![single[0].clone(); 400];
    let counted_flood = counted(&mut kernel, &flood)?;
    assert_eq!(counted_flood, observed(&flood, true));
    assert_eq!(counted_flood.1, 300);

    let mut plain = KernelTestRun::load(TableSizes::default())?;
    assert_eq!(counted(&mut plain, &doubled)?, observed(&doubled, false));
    Ok(())
}

#[test]
fn kernel_and_replay_agree_on_every_encapsulation() -> Result<()> {
    if !may_load_programs()? {
        return Ok(());
    }
    let mut random = Random::new(11);
    let frames: Vec<_> =
        samples(&mut || random.bytes(200)).into_iter().map(|one| one.frame).collect();
    let takes = |frame: &Vec<u8>| (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&frame.len());
    let doubled: Vec<_> = frames
        .iter()
        .filter(|frame| takes(frame))
        .flat_map(|frame| [frame.clone(), frame.clone()])
        .collect();
    let mut kernel = KernelTestRun::load_deduplicating(TableSizes::default())?;
    let (flows, duplicate) = counted(&mut kernel, &doubled)?;
    assert_eq!((flows, duplicate), observed(&doubled, true));
    println!("{} frames, {duplicate} removed", doubled.len());
    ensure!(duplicate > 20, "most of them have what tells them from repetitions");
    Ok(())
}

/// Frames as a capture, in pairs that are this far apart.
fn write(path: &Path, frames: &[Vec<u8>], apart: Duration) -> Result<()> {
    let mut file = PcapFile::new(ETHERNET_LINK);
    let mut at = START;
    for pair in frames.chunks(2) {
        for (frame, pause) in pair.iter().zip([Duration::from_millis(1), apart]) {
            at += pause;
            file.add(at, frame.len() as u64, frame)?;
        }
    }
    file.write(path)
}

/// Sorted records of a replay, and its books.
fn replayed(path: &Path, more: &[&str]) -> Result<(Vec<String>, Value)> {
    let folder = tempfile::tempdir()?;
    let (out, summary) = (folder.path().join("records.json"), folder.path().join("summary.json"));
    let mut replay = Command::new(program("spanwatch-sensor")?);
    replay.arg("replay").arg(path).args(more).args(["--output", "json", "--out"]).arg(&out);
    read(replay.arg("--summary").arg(&summary))?;
    let text = std::fs::read_to_string(&out)?;
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    let mut balance = Command::new(program("spanwatch-sensor")?);
    // Its exit code is part of what it says.
    read(balance.arg("balance").arg(&summary))?;
    let summary = serde_json::from_slice(&std::fs::read(&summary)?).context("a summary")?;
    Ok((lines, summary))
}

#[test]
fn a_replay_of_a_doubled_capture_gives_the_records_of_the_single_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("capture.pcap");
    let single = single();
    let packets = single.len() as u64;
    // The same times, and one frame of each pair.
    let mut file = PcapFile::new(ETHERNET_LINK);
    let mut at = START;
    for frame in &single {
        at += Duration::from_millis(1);
        file.add(at, frame.len() as u64, frame)?;
        at += SOON;
    }
    file.write(&path)?;
    let (expected, summary) = replayed(&path, &[])?;
    assert_eq!(summary["packets_duplicate"], 0);
    let removed_none = replayed(&path, &["--deduplicate"])?;
    assert_eq!((&removed_none.0, &removed_none.1["packets_duplicate"]), (&expected, &0.into()));

    write(&path, &twice(&single), SOON)?;
    let (records, summary) = replayed(&path, &["--deduplicate"])?;
    assert_eq!(records, expected);
    assert_eq!(summary["frames_seen"], 2 * packets);
    assert_eq!(summary["packets_ip"], 2 * packets);
    assert_eq!(summary["packets_in_flows"], packets);
    assert_eq!(summary["packets_duplicate"], packets);
    assert_eq!(summary["balanced"], true);
    let shards = replayed(&path, &["--deduplicate", "--cpus", "0,1,0,1"])?;
    assert_eq!(shards.0, expected, "on four threads");
    let (_, summary) = replayed(&path, &[])?;
    assert_eq!(
        (&summary["packets_duplicate"], &summary["packets_in_flows"]),
        (&0.into(), &(2 * packets).into())
    );

    // What is sent again comes later than a copy: a retransmission, a keep-alive.
    write(
        &path,
        &single.iter().flat_map(|frame| [frame.clone(), frame.clone()]).collect::<Vec<_>>(),
        Duration::from_millis(200),
    )?;
    let (_, summary) = replayed(&path, &["--deduplicate"])?;
    assert_eq!(summary["packets_duplicate"], 0);
    assert_eq!(summary["packets_in_flows"], 2 * packets);
    Ok(())
}

#[test]
fn a_live_sensor_removes_copies_and_its_books_close() -> Result<()> {
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    stay_on_one_cpu()?;
    let single = single();
    let doubled = twice(&single);
    for config in [DEDUPLICATE, ""] {
        let mut sensor = LiveSensor::start(&pair, config)?;
        pair.send(0, doubled.iter().map(Vec::as_slice))?;
        let sent = doubled.len() as u64;
        sensor.wait_until("having seen every frame", |sensor| {
            sensor.summary().is_ok_and(|summary| summary["frames_seen"].as_u64() == Some(sent))
        })?;
        sensor.stop()?;
        let summary = sensor.summary()?;
        let number = |key: &str| summary[key].as_u64().context("a number");
        let (in_flows, duplicate) = (number("packets_in_flows")?, number("packets_duplicate")?);
        assert_eq!(number("packets_ip")?, sent);
        assert_eq!(in_flows + duplicate + number("packets_folded")?, sent);
        assert_eq!(summary["balanced"], true);
        let (code, text) = sensor.balance()?;
        assert_eq!(code, Some(0), "{text}");
        ensure!(text.contains("duplicate"), "{text}");
        println!("{sent} sent, {duplicate} removed");
        if config.is_empty() {
            assert_eq!(duplicate, 0, "it was not asked for");
            continue;
        }
        // Never one too many; and one too few only where the sender paused between the two.
        ensure!(duplicate <= single.len() as u64, "{duplicate} of {} copies", single.len());
        ensure!(duplicate > single.len() as u64 / 2, "{duplicate} of {} copies", single.len());
        let packets = |who: &str| -> Result<u64> {
            let of = |record: &Value| record[who].as_u64().unwrap_or(0);
            Ok(sensor.records()?.iter().map(of).sum())
        };
        assert_eq!(packets("initiator_packets")? + packets("responder_packets")?, in_flows);
    }
    Ok(())
}
