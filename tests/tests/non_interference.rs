//! What is behind the transport header makes no difference: with every byte of it replaced, the kernel's tables and
//! counters, what is drained from them, and the records are the same. With one bit of an address changed they are
//! not.
//!
//! The time stamps of slots are left out of the comparison: they say when the test ran. Which set of the cache a
//! flow is in depends on a random number of each start, so slots are compared in sorted order. Records are compared
//! whole, times too, because there the capture's clock is the only one.
#![forbid(unsafe_code)]

use std::mem::offset_of;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use flow::kernel::CoarseSlot;
use flow::{Observation, Record, Slot, TcpSeen};
use sensor::{
    AggregatorSettings, CapturedFrame, DrainTotals, KernelCounters, KernelTestRun, LinkType,
    Replay, TableSizes,
};
use tests::frames::{Sample, samples};
use tests::{Random, skip, stay_on_one_cpu, tables};

const PAYLOAD_BYTES: usize = 200;
const SEEDS: [u64; 4] = [1, 2, 3, 0xdead_beef];
/// Small, so that reading all of them is quick.
const SIZES: TableSizes = TableSizes { sets: 512, log_slots: 64 };
const EPOCH_MS: u64 = 250;

/// One observation without its times and its process's number for the outer identity.
type Seen = (flow::FlowKey, String, u64, u64, TcpSeen, u8, [u16; 2]);

fn seen(one: &Observation) -> Seen {
    // All that is left is the tags and tunnels that the number stands for.
    let outer = Observation { key: one.key.with_domain(0), first_ms: 0, last_ms: 0, ..*one };
    (
        outer.key,
        format!("{outer:?}"),
        one.packets,
        one.bytes,
        one.tcp,
        one.ttl,
        [one.length_min, one.length_max],
    )
}

/// Everything that frames leave behind in the kernel.
struct Left {
    /// Tables by name, slot by slot or entry by entry, empty ones left out.
    tables: Vec<(String, Vec<Vec<u8>>)>,
    seen: Vec<Seen>,
    totals: String,
    counters: KernelCounters,
}

/// Only one test at a time looks for the tables of this process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn of_kernel(frames: &[Vec<u8>]) -> Result<Left> {
    let _alone = alone();
    let mut kernel = KernelTestRun::load(SIZES)?;
    for frame in frames {
        kernel.feed(frame, 1)?;
    }
    let mut raw = Vec::new();
    for table in tables(std::process::id())? {
        // The random number is in the constants; they were written before any frame came.
        if table.name == ".rodata" || table.name.ends_with("rodata") {
            continue;
        }
        let step = if table.name == "SETS" { size_of::<Slot>() } else { table.entry_bytes };
        let mut entries: Vec<Vec<u8>> = table.bytes.chunks(step).map(<[u8]>::to_vec).collect();
        for entry in &mut entries {
            without_times(&table.name, entry);
        }
        entries.retain(|entry| entry.iter().any(|byte| *byte != 0));
        entries.sort();
        raw.push((table.name, entries));
    }
    raw.sort();
    let mut all = Vec::new();
    let totals: DrainTotals = kernel.drain(&mut |one| all.push(seen(&one)))?;
    all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    ensure!(totals.folded.is_empty(), "the tables are large enough");
    Ok(Left { tables: raw, seen: all, totals: format!("{totals:?}"), counters: kernel.counters() })
}

/// Blanks the time stamps, and nothing else, of a slot.
fn without_times(table: &str, entry: &mut [u8]) {
    let mut blank = |at: usize, bytes: &[u8]| {
        for (byte, keep) in entry.iter_mut().skip(at).zip(bytes) {
            *byte &= keep;
        }
    };
    match table {
        "SETS" | "LOG" => {
            blank(offset_of!(Slot, first), &[0; 4]);
            // Bits 14 and 15 say which SYN was seen.
            blank(offset_of!(Slot, last_and_syn), &(!Slot::LAST_MAX).to_le_bytes());
        }
        "COARSE" => {
            blank(offset_of!(CoarseSlot, first), &[0; 4]);
            blank(offset_of!(CoarseSlot, last), &[0; 4]);
        }
        _ => {}
    }
}

fn of_replay(frames: &[Vec<u8>]) -> Vec<Record> {
    let mut replay = Replay::new(AggregatorSettings::default(), EPOCH_MS);
    let mut records = Vec::new();
    for (number, frame) in (0_u64..).zip(frames) {
        let frame = CapturedFrame {
            time_ms: Some(1_700_000_000_000 + number * 7),
            wire_bytes: frame.len() as u64,
            link: LinkType::Ethernet,
            bytes: frame,
        };
        replay.handle_frame(&frame, &mut |record| records.push(record));
    }
    replay.finish(&mut |record| records.push(record));
    records
}

fn may_load_programs() -> Result<bool> {
    if !rustix::process::geteuid().is_root() {
        skip("loading an XDP program needs root");
        return Ok(false);
    }
    // The tables are one CPU's own.
    stay_on_one_cpu()?;
    Ok(true)
}

fn zeros() -> Vec<Sample> {
    samples(&mut || vec![0; PAYLOAD_BYTES])
}

fn frames(samples: &[Sample]) -> Vec<Vec<u8>> {
    samples.iter().map(|one| one.frame.clone()).collect()
}

/// The same frames with all payload replaced.
fn with_payload(samples: &[Sample], mut replace: impl FnMut(&mut [u8])) -> Vec<Vec<u8>> {
    let mut frames = frames(samples);
    for (frame, one) in frames.iter_mut().zip(samples) {
        replace(frame.get_mut(one.payload_start..).unwrap_or_default());
    }
    frames
}

impl Left {
    /// Which parts are not the same as in `other`.
    fn differing(&self, other: &Self) -> Vec<&str> {
        let mut parts = Vec::new();
        for (name, entries) in &self.tables {
            if !other.tables.iter().any(|(named, others)| named == name && others == entries) {
                parts.push(name.as_str());
            }
        }
        let beside = [
            ("what is drained", self.seen == other.seen),
            ("totals", self.totals == other.totals),
            ("counters", self.counters == other.counters),
            ("number of tables", self.tables.len() == other.tables.len()),
        ];
        parts.extend(beside.iter().filter(|(_, same)| !same).map(|(part, _)| *part));
        parts
    }
}

#[test]
fn payload_makes_no_difference_to_tables_counters_and_records() -> Result<()> {
    if !may_load_programs()? {
        return Ok(());
    }
    let samples = zeros();
    let before = frames(&samples);
    let (kernel, records) = (of_kernel(&before)?, of_replay(&before));
    ensure!(kernel.counters.packets_ip == samples.len() as u64, "each sample is a packet");
    let slots = kernel.tables.iter().find(|(name, _)| name == "SETS").context("a cache")?;
    assert_eq!(slots.1.len(), samples.len(), "each sample is a flow of its own");

    let ones = with_payload(&samples, |payload| payload.fill(0xff));
    assert_eq!(of_kernel(&ones)?.differing(&kernel), Vec::<&str>::new());
    ensure!(of_replay(&ones) == records, "the records differ");
    for seed in SEEDS {
        let mut random = Random::new(seed);
        let other = with_payload(&samples, |payload| {
            payload.copy_from_slice(&random.bytes(payload.len()));
        });
        ensure!(other != before, "the frames differ");
        assert_eq!(of_kernel(&other)?.differing(&kernel), Vec::<&str>::new(), "seed {seed}");
        ensure!(of_replay(&other) == records, "seed {seed}: the records differ");
    }
    Ok(())
}

#[test]
fn every_single_bit_of_payload_makes_no_difference_to_the_flow() {
    let samples = zeros();
    for one in &samples {
        let expected = of_replay(std::slice::from_ref(&one.frame));
        let mut frame = one.frame.clone();
        for at in one.payload_start..frame.len() {
            for bit in 0..8 {
                frame[at] ^= 1 << bit;
                let same = of_replay(std::slice::from_ref(&frame)) == expected;
                assert!(same, "{}: bit {bit} of byte {at}", one.name);
                frame[at] ^= 1 << bit;
            }
        }
    }
}

#[test]
fn one_bit_of_an_address_makes_one() -> Result<()> {
    if !may_load_programs()? {
        return Ok(());
    }
    let samples = zeros();
    let before = frames(&samples);
    let (kernel, records) = (of_kernel(&before)?, of_replay(&before));
    for (number, one) in samples.iter().enumerate() {
        let source = one.source_octets();
        let mut places = one.frame.windows(source.len());
        let at = places.position(|bytes| bytes == source).context("its address is in it")?;
        let mut changed = before.clone();
        if let Some(byte) = changed.get_mut(number).and_then(|frame| frame.get_mut(at + 2)) {
            *byte ^= 1;
        }
        let differing = of_kernel(&changed)?;
        let differing = differing.differing(&kernel);
        ensure!(
            differing.contains(&"SETS") && differing.contains(&"what is drained"),
            "{}: only {differing:?} differ",
            one.name
        );
        ensure!(!differing.contains(&"counters"), "{}: as many packets", one.name);
        ensure!(of_replay(&changed) != records, "{}: the records are the same", one.name);
    }
    Ok(())
}
