//! What is behind the transport header makes no difference: with every byte of it replaced, the kernel's tables and
//! counters, what is drained from them, and the records are the same. With one bit of an address changed they are
//! not. Nor does the program make a difference to a frame: what it passes on is what it was given.
//!
//! The time stamps of slots are left out of the comparison: they say when the test ran. Which set of the cache a
//! flow is in depends on a random number of each start, so slots are compared in sorted order. Records are compared
//! whole, times too, because there the capture's clock is the only one.
#![forbid(unsafe_code)]

use std::mem::offset_of;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use aya::EbpfLoader;
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use flow::kernel::CoarseSlot;
use flow::{
    FragmentSlot, HandshakeSlot, LinkLayer, Notes, Observation, OpeningTime, Packet, Parsed,
    RECENT_WAYS, RecentSet, Record, Slot, TcpSeen, packet_identity, parse, protocol,
};
use sensor::{
    AggregatorSettings, CapturedFrame, DrainTotals, FRAME_BYTES_MAX, FRAME_BYTES_MIN,
    KernelCounters, KernelTestRun, LinkType, Replay, TableSizes,
};
use tests::frames::{Sample, samples};
use tests::{
    Random, capture_files, capture_folder, ethernet_frames, skip, stay_on_one_cpu, tables,
};

const PAYLOAD_BYTES: usize = 200;
const SEEDS: [u64; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0xdead_beef];
const SEEDS_IN_KERNEL: [u64; 2] = [1, 0xdead_beef];
/// So many sets that hardly ever three of the flows meet in one, of which the third would go to the log; and no more,
/// so that reading all of them is quick.
const SIZES: TableSizes = TableSizes { sets: 16_384, log_slots: 64 };
const EPOCH_MS: u64 = 250;

/// One observation without its times and its process's number for the outer identity.
type Seen = (flow::FlowKey, String, u64, u64, TcpSeen, u8, [u16; 2]);

fn seen(one: &Observation) -> Seen {
    // All that is left is the tags and tunnels that the number stands for.
    let outer = Observation {
        key: one.key.with_domain(0),
        first_ms: 0,
        last_ms: 0,
        opening: OpeningTime::Unknown,
        ..*one
    };
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
    left_in(KernelTestRun::load(SIZES)?, frames)
}

/// The same where copies are removed.
fn of_deduplicating_kernel(frames: &[Vec<u8>]) -> Result<Left> {
    let _alone = alone();
    left_in(KernelTestRun::load_deduplicating(SIZES)?, frames)
}

fn left_in(mut kernel: KernelTestRun, frames: &[Vec<u8>]) -> Result<Left> {
    for frame in frames {
        kernel.feed(frame, 1)?;
    }
    let mut raw = Vec::new();
    for table in tables(std::process::id())? {
        // The random number is in the constants; they were written before any frame came.
        if table.name == ".rodata" || table.name.ends_with("rodata") {
            continue;
        }
        // Which packets share an entry hangs on the random number.
        let step = match table.name.as_str() {
            "SETS" => size_of::<Slot>(),
            "RECENT_PACKETS" => size_of::<RecentSet>() / RECENT_WAYS,
            _ => table.entry_bytes,
        };
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
            // The bits above the time say what the first packet was like, and which SYN was seen.
            let keep = (!Slot::TICKS_MASK).to_le_bytes();
            blank(offset_of!(Slot, first), &keep);
            blank(offset_of!(Slot, last_and_syn), &[keep[0], keep[1]]);
        }
        "COARSE" => {
            blank(offset_of!(CoarseSlot, first), &[0; 4]);
            blank(offset_of!(CoarseSlot, last), &[0; 4]);
        }
        // When the first fragment came; the last field, behind the number of the datagram.
        "FIRST_FRAGMENTS" => blank(size_of::<FragmentSlot>() - 4, &[0; 4]),
        // Two times, each with a tag that hangs on the random number.
        "HANDSHAKE_TIMES" => blank(0, &[0; size_of::<HandshakeSlot>()]),
        // Fingerprints that hang on the random number, and times; what is left says how many copies came of each.
        "RECENT_PACKETS" => blank(0, &[0x03, 0, 0, 0, 0, 0, 0, 0]),
        _ => {}
    }
}

fn of_replay(frames: &[Vec<u8>]) -> Vec<Record> {
    let mut replay = Replay::new(AggregatorSettings::default(), EPOCH_MS);
    let mut records = Vec::new();
    for (number, frame) in (0_u64..).zip(frames) {
        let frame = CapturedFrame {
            time_ms: Some(1_700_000_000_000 + number * 7),
            time_us: Some((1_700_000_000_000 + number * 7) * 1_000),
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
        // Loading the programs takes the kernel's verifier seconds, so it tries some of the seeds.
        if SEEDS_IN_KERNEL.contains(&seed) {
            let differing = of_kernel(&other)?;
            assert_eq!(differing.differing(&kernel), Vec::<&str>::new(), "seed {seed}");
        }
        ensure!(of_replay(&other) == records, "seed {seed}: the records differ");
    }
    Ok(())
}

/// The frames with other payload, and other transport checksums, as other payload has them.
fn with_payload_and_checksum(samples: &[Sample], random: &mut Random) -> Vec<Vec<u8>> {
    let mut frames =
        with_payload(samples, |payload| payload.copy_from_slice(&random.bytes(payload.len())));
    for frame in &mut frames {
        let Parsed::Ip(packet) = parse(frame.as_slice(), LinkLayer::Ethernet) else { continue };
        let at = match packet.key.protocol() {
            protocol::TCP => 16,
            protocol::UDP => 6,
            protocol::ICMP | protocol::ICMP6 => 2,
            _ => continue,
        };
        if packet.transport_offset != 0
            && let Some(checksum) = frame
                .get_mut(packet.transport_offset + at..)
                .and_then(|rest| rest.first_chunk_mut::<2>())
        {
            checksum.copy_from_slice(&random.bytes(2));
        }
    }
    frames
}

#[test]
fn payload_and_its_checksum_make_no_difference_where_copies_are_removed() -> Result<()> {
    let samples = zeros();
    let identities = |frames: &[Vec<u8>]| -> Vec<u64> {
        let identity = |frame: &Vec<u8>| match parse(frame.as_slice(), LinkLayer::Ethernet) {
            Parsed::Ip(packet) => packet_identity(frame.as_slice(), &packet, frame.len() as u64, 7),
            _ => 0,
        };
        frames.iter().map(identity).collect()
    };
    let before = frames(&samples);
    let expected = identities(&before);
    ensure!(expected.iter().filter(|identity| **identity != 0).count() > samples.len() / 2);
    for seed in SEEDS {
        let other = with_payload_and_checksum(&samples, &mut Random::new(seed));
        ensure!(identities(&other) == expected, "seed {seed}: the fingerprints differ");
    }
    if !may_load_programs()? {
        return Ok(());
    }
    // Each frame, and a copy that has other payload: what it is taken for must not hang on that either.
    let doubled = |other: &[Vec<u8>]| -> Vec<Vec<u8>> {
        before.iter().zip(other).flat_map(|(one, other)| [one.clone(), other.clone()]).collect()
    };
    let kernel = of_deduplicating_kernel(&doubled(&before))?;
    ensure!(kernel.counters.packets_duplicate > 0, "there are copies");
    let other = with_payload_and_checksum(&samples, &mut Random::new(3));
    let differing = of_deduplicating_kernel(&doubled(&other))?;
    assert_eq!(differing.differing(&kernel), Vec::<&str>::new());
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

/// What is drained after these frames alone.
fn drained(kernel: &mut KernelTestRun, frame: &[u8]) -> Result<Vec<Seen>> {
    kernel.feed(frame, 1)?;
    let mut all = Vec::new();
    kernel.drain(&mut |one| all.push(seen(&one)))?;
    Ok(all)
}

#[test]
fn one_bit_of_an_address_makes_one() -> Result<()> {
    if !may_load_programs()? {
        return Ok(());
    }
    let samples = zeros();
    let before = frames(&samples);
    let mut changed = before.clone();
    for (frame, one) in changed.iter_mut().zip(&samples) {
        let source = one.source_octets();
        let mut places = one.frame.windows(source.len());
        let at = places.position(|bytes| bytes == source).context("its address is in it")?;
        if let Some(byte) = frame.get_mut(at + 2) {
            *byte ^= 1;
        }
    }
    let alone = alone();
    let mut kernel = KernelTestRun::load(SIZES)?;
    for ((old, new), one) in before.iter().zip(&changed).zip(&samples) {
        let (seen_old, seen_new) = (drained(&mut kernel, old)?, drained(&mut kernel, new)?);
        assert_eq!((seen_old.len(), seen_new.len()), (1, 1), "{}: one flow", one.name);
        ensure!(seen_old != seen_new, "{}: another address is the same flow", one.name);
        let records = |frame: &Vec<u8>| of_replay(std::slice::from_ref(frame));
        ensure!(records(old) != records(new), "{}: another address is the same record", one.name);
    }
    drop(kernel);
    drop(alone);
    let (kernel, other) = (of_kernel(&before)?, of_kernel(&changed)?);
    let differing = other.differing(&kernel);
    ensure!(
        differing.contains(&"SETS") && differing.contains(&"what is drained"),
        "only {differing:?} differ"
    );
    ensure!(!differing.contains(&"counters"), "as many packets of each kind");
    Ok(())
}

/// Where the payload of a frame's innermost packet begins; `None` where that is not behind a transport header: a later
/// fragment, or a packet whose payload was looked into for a tunnel.
fn payload_start(frame: &[u8], packet: &Packet) -> Option<usize> {
    const TUNNEL_PORTS: [u16; 4] = [4789, 8472, 6081, 2152];
    let at = packet.transport_offset;
    if at == 0 || packet.notes != Notes::default() {
        return None;
    }
    let header = match packet.key.protocol() {
        protocol::TCP => usize::from(frame.get(at + 12)? >> 4).max(5) * 4,
        protocol::UDP if TUNNEL_PORTS.contains(&packet.key.destination_port()) => return None,
        protocol::UDP | protocol::ICMP | protocol::ICMP6 => 8,
        protocol::SCTP => 12,
        protocol::GRE => return None,
        _ => 0,
    };
    Some(at + header)
}

#[test]
fn payload_of_every_capture_makes_no_difference_to_the_parser() -> Result<()> {
    let Some(folder) = capture_folder() else { return Ok(()) };
    let mut random = Random::new(7);
    let (mut tried, mut frames, mut bytes) = (0_u64, 0_u64, 0);
    for path in capture_files(&folder)? {
        let name = path.strip_prefix(&folder)?.display().to_string();
        ethernet_frames(&path, &mut |frame| {
            frames += 1;
            let Parsed::Ip(packet) = parse(frame, LinkLayer::Ethernet) else { return Ok(()) };
            let Some(start) = payload_start(frame, &packet) else { return Ok(()) };
            let mut other = frame.to_vec();
            let payload = other.get_mut(start..).unwrap_or_default();
            payload.copy_from_slice(&random.bytes(payload.len()));
            bytes += payload.len();
            ensure!(
                parse(other.as_slice(), LinkLayer::Ethernet) == Parsed::Ip(packet),
                "{name}: frame {frames}"
            );
            tried += 1;
            Ok(())
        })?;
    }
    println!("{tried} of {frames} frames, {bytes} bytes of payload replaced");
    ensure!(tried > frames / 2, "most frames have a payload that can be replaced");
    Ok(())
}

#[test]
fn no_frame_is_changed() -> Result<()> {
    const FRAMES_MAX: usize = 3;
    const XDP_PASS: u32 = 2;
    #[repr(C, align(64))]
    struct Aligned<T: ?Sized>(T);
    static OBJECT: &Aligned<[u8]> =
        &Aligned(*include_bytes!("../../sensor-ebpf/prebuilt/spanwatch.bpf.o"));
    if !may_load_programs()? {
        return Ok(());
    }
    let _alone = alone();
    // A row of each table for every CPU; room for a few flows in the others.
    let mut loader = EbpfLoader::new();
    for table in ["CPUS", "WALKS", "OUTER_IDENTITIES", "FIRST_FRAGMENTS", "COARSE"] {
        loader.map_max_entries(table, 4096);
    }
    let mut ebpf = loader.load(&OBJECT.0).context("loading the object")?;
    let program = ebpf.program_mut("count_pass").context("it has this program")?;
    let program: &mut Xdp = program.try_into()?;
    program.load()?;
    let mut passed = 0_u64;
    let mut pass = |frame: &[u8], name: &str| -> Result<()> {
        if frame.len() < FRAME_BYTES_MIN || frame.len() > FRAME_BYTES_MAX {
            return Ok(());
        }
        let mut out = vec![0; frame.len() + 64];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        let ran = program.test_run(options).with_context(|| name.to_owned())?;
        assert_eq!(ran.return_value, XDP_PASS, "{name}");
        let length = usize::try_from(ran.data_size_out)?;
        ensure!(out.get(..length) == Some(frame), "{name}: the frame was changed");
        passed += 1;
        Ok(())
    };
    for one in samples(&mut || Random::new(5).bytes(PAYLOAD_BYTES)) {
        pass(&one.frame, one.name)?;
    }
    if let Some(folder) = capture_folder() {
        for path in capture_files(&folder)? {
            let mut taken = 0;
            ethernet_frames(&path, &mut |frame| {
                taken += 1;
                if taken > FRAMES_MAX { Ok(()) } else { pass(frame, &path.display().to_string()) }
            })?;
        }
    }
    println!("{passed} frames passed on as they came");
    Ok(())
}
