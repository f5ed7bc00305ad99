//! Millions of frames over two interfaces that are one sensor, on every CPU, while epochs flip: each frame is
//! accounted for, whether they are one flow, a thousand, a million, or a new one each.
//!
//! The frames come from the kernel's own generator at the speed of the kernel, in network namespaces that the test
//! makes and removes.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use flow::protocol;
use sensor::{After, AttachMode, CaptureOptions, KernelCapture, KernelCounters};
use tests::{Generator, VethPair, allowed_cpus, stay_on_cpu, tables, udp_frame};

const FRAMES: u32 = 3_000_000;
const FRAME_BYTES: usize = 90;
/// Destination port of the first interface's frames; the next interface's is the next port.
const PORT: u16 = 9;
/// The generator's first source address.
const SOURCE: u32 = 10 << 24;
/// Frames that a generator sends between two looks at whether it should go on.
const PART: u32 = 50_000;
/// Drains after the last frame was sent; each waits for a grace period, and softirqs end within one.
const DRAINS_MAX: u32 = 200;

/// Frames of each flow, by interface and number of the flow, and all of them.
struct Drained {
    flows: Vec<Vec<u32>>,
    packets: u64,
    bytes: u64,
    folded: u64,
    folded_bytes: u64,
    folded_without_key: u64,
    drains: u32,
    others: u64,
}

impl Drained {
    fn new(interfaces: usize, flows: u32) -> Result<Self> {
        let flows = vec![0; usize::try_from(flows)?];
        Ok(Self {
            flows: vec![flows; interfaces],
            packets: 0,
            bytes: 0,
            folded: 0,
            folded_bytes: 0,
            folded_without_key: 0,
            drains: 0,
            others: 0,
        })
    }

    fn drain(&mut self, capture: &mut KernelCapture) -> Result<()> {
        let (flows, others) = (&mut self.flows, &mut self.others);
        let totals = capture.drain(&mut |one| {
            let number = u32::from_be_bytes(one.key.source.octets_v4()).wrapping_sub(SOURCE);
            let interface = one.key.destination_port().wrapping_sub(PORT);
            let flow = flows
                .get_mut(usize::from(interface))
                .and_then(|flows| flows.get_mut(usize::try_from(number).ok()?));
            match flow {
                Some(packets) if one.key.protocol() == protocol::UDP => {
                    *packets += u32::try_from(one.packets).unwrap_or(u32::MAX);
                }
                _ => *others += one.packets,
            }
        })?;
        self.packets += totals.packets;
        self.bytes += totals.bytes;
        self.folded += totals.packets_folded;
        for folded in &totals.folded {
            self.folded_bytes += folded.bytes;
            self.folded_without_key += if folded.key.is_none() { folded.packets } else { 0 };
        }
        self.drains += 1;
        Ok(())
    }
}

/// Sends `frames` frames over the interfaces in turn, from each of the CPUs in turn.
fn send(pair: &VethPair, interfaces: usize, flows: u32, cpus: &[usize]) -> Result<()> {
    pair.enter_generator()?;
    let share = FRAMES / u32::try_from(interfaces)?;
    for interface in 0..interfaces {
        let mut frame = udp_frame(FRAME_BYTES)?;
        let port = PORT + u16::try_from(interface)?;
        frame.get_mut(36..38).context("a UDP header")?.copy_from_slice(&port.to_be_bytes());
        // A generator's program keeps its count of flows in a table that one CPU at a time may write.
        let generator = Generator::open(&VethPair::generator_end(interface), flows, &frame)?;
        let mut left = share;
        for cpu in cpus.iter().cycle() {
            if left == 0 {
                break;
            }
            stay_on_cpu(*cpu)?;
            generator.send(left.min(PART))?;
            left -= left.min(PART);
        }
    }
    Ok(())
}

/// Frames by the CPU that counted them, as they stand in the kernel's own table.
fn frames_by_cpu() -> Result<Vec<u64>> {
    let tables = tables(std::process::id())?;
    let table = tables.iter().find(|table| table.name == "CPUS").context("a table of CPUs")?;
    let at = std::mem::offset_of!(flow::kernel::Cpu, frames_seen);
    let rows = table.bytes.chunks(table.entry_bytes);
    let counts = rows.map(|row| {
        let word = row.get(at..)?.first_chunk()?;
        Some(u64::from_le_bytes(*word))
    });
    Ok(counts.flatten().collect())
}

#[expect(clippy::print_stdout, reason = "the figures of the run, for whoever looks at them")]
fn three_million(flows: u32) -> Result<()> {
    const INTERFACES: usize = 2;
    /// One at a time: they would take the CPUs from each other, and each looks for its process's tables.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(pair) = VethPair::new(INTERFACES)? else { return Ok(()) };
    let cpus = allowed_cpus()?;
    pair.enter_span()?;
    let mut capture = KernelCapture::attach(&CaptureOptions {
        interfaces: pair.span_ends(),
        after: After::Drop,
        mode: Some(AttachMode::Native),
        ..CaptureOptions::default()
    })?;
    let share = FRAMES / u32::try_from(INTERFACES)?;
    let flows_there = if flows == 0 { share } else { flows };
    let mut drained = Drained::new(INTERFACES, flows_there)?;
    thread::scope(|scope| -> Result<()> {
        let sender = scope.spawn(|| send(&pair, INTERFACES, flows, &cpus));
        while !sender.is_finished() {
            drained.drain(&mut capture)?;
        }
        sender.join().unwrap_or_else(|_| bail!("the sender panicked"))
    })?;
    for _ in 0..DRAINS_MAX {
        if capture.counters()?.frames_seen >= u64::from(FRAMES) {
            break;
        }
        drained.drain(&mut capture)?;
    }
    capture.detach()?;
    drained.drain(&mut capture)?;
    let counters = capture.counters()?;
    let nic = capture.nic_statistics()?;
    let by_cpu = frames_by_cpu()?;
    let missed = nic.missed.unwrap_or(0);
    println!(
        "flows {flows_there}: {} frames seen, {missed} lost by the interface before, {} folded, {} drains, \
         by CPU {by_cpu:?}",
        counters.frames_seen, drained.folded, drained.drains
    );
    account(&drained, &counters)?;
    // The books from the wire on.
    ensure!(
        nic.received.is_none_or(|received| received == counters.frames_seen + missed)
            || nic.received == Some(counters.frames_seen),
        "the driver received {nic:?}"
    );
    assert_eq!(counters.frames_seen + missed, u64::from(FRAMES), "seen, or missed and counted");
    ensure!(drained.drains > 3, "epochs flipped meanwhile: {}", drained.drains);
    assert_eq!(by_cpu.iter().sum::<u64>(), counters.frames_seen);
    let used = by_cpu.iter().filter(|frames| **frames > 0).count();
    assert_eq!(used, cpus.len(), "each CPU counted some: {by_cpu:?}");

    // Every flow has exactly its share, unless the interface lost frames or the tables were too small for them.
    if missed == 0 && drained.folded == 0 {
        for (interface, flows) in drained.flows.iter().enumerate() {
            let mut shares: BTreeMap<u32, u32> = BTreeMap::new();
            for packets in flows {
                *shares.entry(*packets).or_default() += 1;
            }
            let (least, over) = (share / flows_there, share % flows_there);
            let mut expected = BTreeMap::from([(least, flows_there - over), (least + 1, over)]);
            expected.retain(|_, flows| *flows > 0);
            assert_eq!(shares, expected, "interface {interface}: flows by their packets");
        }
    } else if flows_there <= 1000 {
        assert_eq!(drained.folded, 0, "a thousand flows fit the cache");
    }
    Ok(())
}

/// Every packet is in exactly one total, and none is unknown.
fn account(drained: &Drained, counters: &KernelCounters) -> Result<()> {
    assert_eq!(counters.packets_ip, counters.frames_seen);
    assert_eq!((counters.packets_not_ip, counters.packets_malformed), (0, 0));
    assert_eq!(drained.packets + drained.folded, counters.packets_ip);
    assert_eq!(counters.packets_folded, drained.folded);
    let bytes = counters.packets_ip * u64::try_from(FRAME_BYTES)?;
    assert_eq!(drained.bytes + drained.folded_bytes, bytes);
    let in_flows: u64 = drained.flows.iter().flatten().map(|packets| u64::from(*packets)).sum();
    assert_eq!(in_flows, drained.packets, "in flows that were sent");
    assert_eq!((drained.others, drained.folded_without_key), (0, 0), "none is unknown");
    Ok(())
}

#[test]
fn three_million_frames_of_one_flow() -> Result<()> {
    three_million(1)
}

#[test]
fn three_million_frames_of_a_thousand_flows() -> Result<()> {
    three_million(1000)
}

#[test]
fn three_million_frames_of_a_million_flows() -> Result<()> {
    three_million(1_000_000)
}

#[test]
fn three_million_frames_of_a_new_flow_each() -> Result<()> {
    three_million(0)
}
