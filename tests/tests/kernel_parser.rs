//! One parser, two machines: the same frames through the XDP program (`BPF_PROG_TEST_RUN`) and through
//! `flow::parse` in user space give equal flow tables and equal counters.
//!
//! The frames are those of every Ethernet capture of the shared folder, then cut and damaged copies of them.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use flow::kernel::{not_ip_index, not_ip_name};
use flow::{FlowKey, LinkLayer, Malformed, Observation, Outer, TcpSeen, Walk, Walked, parse_plain};
use sensor::{
    CaptureError, CaptureFile, CapturedFrame, FRAME_BYTES_MAX, FRAME_BYTES_MIN, FrameObserver,
    KernelCounters, KernelTestRun, LinkType, TableSizes,
};
use tests::{capture_folder, skip, stay_on_one_cpu};

/// Frames of each capture that are also tried cut at every length and damaged.
const DAMAGED_PER_FILE: usize = 4;
/// Bytes at the start of a frame that are cut and damaged one by one.
const HEADER_BYTES: usize = 120;

/// What one direction of a flow adds up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    packets: u64,
    bytes: u64,
    tcp: TcpSeen,
    ttl: u8,
    dscp: u8,
    first_flags: u8,
    fragmented: bool,
    interface: u8,
    length_min: u16,
    length_max: u16,
}

/// By key (in domain 0) and outer identity.
type Table = BTreeMap<(FlowKey, Outer), Sum>;

fn add(table: &mut Table, key: FlowKey, outer: Outer, sum: Sum) {
    table
        .entry((key.with_domain(0), outer))
        .and_modify(|one| {
            one.packets += sum.packets;
            one.bytes += sum.bytes;
            one.tcp = one.tcp.merged(sum.tcp);
            one.fragmented |= sum.fragmented;
            one.length_min = one.length_min.min(sum.length_min);
            one.length_max = one.length_max.max(sum.length_max);
        })
        .or_insert(sum);
}

fn of_observation(observation: &Observation) -> Sum {
    Sum {
        packets: observation.packets,
        bytes: observation.bytes,
        tcp: observation.tcp,
        ttl: observation.ttl,
        dscp: observation.dscp,
        first_flags: observation.first_flags,
        fragmented: observation.fragmented,
        interface: observation.interface,
        length_min: observation.length_min,
        length_max: observation.length_max,
    }
}

/// What user space makes of the frames.
#[derive(Default)]
struct UserSpace {
    observer: FrameObserver,
    table: Table,
}

impl UserSpace {
    fn handle_frame(&mut self, frame: &[u8]) {
        let captured = CapturedFrame {
            time_ms: None,
            time_us: None,
            wire_bytes: frame.len() as u64,
            link: LinkType::Ethernet,
            bytes: frame,
        };
        // The short ways of the parser, which most frames take, find what the long one finds.
        if let Some(packet) = parse_plain(frame) {
            let mut walk = Walk::default();
            assert_eq!(walk.run(frame, LinkLayer::Ethernet), Walked::Ip, "{frame:x?}");
            assert_eq!(walk.packet(), packet, "{frame:x?}");
        }
        // The kernel's clock hardly moves during the test; fragments of all files are of one time here, too.
        if let Some(seen) = self.observer.handle_frame(&captured, 0) {
            add(&mut self.table, seen.key, seen.outer, of_observation(&seen));
        }
    }

    /// In the kernel's form; each only grows.
    fn counters(&self) -> KernelCounters {
        let counts = self.observer.counts();
        let mut not_ip = BTreeMap::<usize, u64>::new();
        for (ethertype, frames) in &counts.not_ip {
            *not_ip.entry(not_ip_index(*ethertype)).or_default() += frames;
        }
        KernelCounters {
            frames_seen: counts.frames_seen,
            packets_ip: counts.packets_ip,
            packets_folded: 0,
            packets_duplicate: counts.packets_duplicate,
            packets_not_ip: counts.packets_not_ip(),
            not_ip: not_ip.iter().map(|(index, frames)| (not_ip_name(*index), *frames)).collect(),
            packets_malformed: counts.packets_malformed(),
            malformed: counts.malformed,
            traits: counts.traits,
        }
    }
}

/// Both machines, side by side.
struct Differential {
    kernel: KernelTestRun,
    user: UserSpace,
    /// Frames that `BPF_PROG_TEST_RUN` does not take: their lengths, by file.
    out_of_range: BTreeMap<String, Vec<usize>>,
    frames: u64,
}

impl Differential {
    fn new() -> Result<Self> {
        let kernel = KernelTestRun::load(TableSizes::default())?;
        Ok(Self { kernel, user: UserSpace::default(), out_of_range: BTreeMap::new(), frames: 0 })
    }

    fn handle_frame(&mut self, name: &str, frame: &[u8]) -> Result<()> {
        match self.kernel.feed(frame, 1) {
            Ok(_) => {
                self.frames += 1;
                self.user.handle_frame(frame);
            }
            Err(CaptureError::TestRun { .. })
                if frame.len() < FRAME_BYTES_MIN || frame.len() > FRAME_BYTES_MAX =>
            {
                self.out_of_range.entry(name.to_owned()).or_default().push(frame.len());
            }
            Err(error) => return Err(error).with_context(|| format!("{name}: a frame")),
        }
        Ok(())
    }

    /// Drains the kernel and requires that both have the same.
    fn compare(&mut self, name: &str) -> Result<()> {
        let mut table = Table::new();
        let totals = self.kernel.drain(&mut |observation| {
            add(&mut table, observation.key, observation.outer, of_observation(&observation));
        })?;
        let user = std::mem::take(&mut self.user.table);
        let (counted, expected) = (self.kernel.counters(), self.user.counters());
        ensure!(counted == expected, "{name}: {counted:?} is not {expected:?}");
        ensure!(totals.folded.is_empty(), "{name}: nothing had to be folded");
        for (key, sum) in &user {
            let found = table.get(key);
            ensure!(found == Some(sum), "{name}: {key:?}: {found:?} is not {sum:?}");
        }
        for key in table.keys() {
            ensure!(user.contains_key(key), "{name}: only the kernel has {key:?}");
        }
        Ok(())
    }
}

/// Every file below a folder, in a stable order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind != "md" && kind != "csv") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Gives the Ethernet frames of a capture, up to where it breaks off.
fn ethernet_frames(path: &Path, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    // Broken captures are the replay's business; here the frames before the fault count.
    let Ok(mut capture) = CaptureFile::open(file) else { return Ok(()) };
    while let Ok(Some(frame)) = capture.next_frame() {
        if frame.link == LinkType::Ethernet {
            visit(frame.bytes)?;
        }
    }
    Ok(())
}

/// A small generator (xorshift64*): the same frames in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Root, or a reason not to run.
fn may_load_programs() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    skip("loading an XDP program needs root");
    false
}

#[test]
fn every_ethernet_capture_gives_the_same_flows_in_the_kernel_and_in_user_space() -> Result<()> {
    let Some(folder) = capture_folder() else { return Ok(()) };
    if !may_load_programs() {
        return Ok(());
    }
    // The first packet of a flow decides its TTL, so all frames have to meet one CPU's tables.
    stay_on_one_cpu()?;
    let mut both = Differential::new()?;
    let mut captures = 0;
    for path in files(&folder)? {
        let name = path.strip_prefix(&folder)?.display().to_string();
        let before = both.frames;
        ethernet_frames(&path, &mut |frame| both.handle_frame(&name, frame))?;
        both.compare(&name)?;
        captures += u32::from(both.frames > before);
    }
    for (name, lengths) in &both.out_of_range {
        println!(
            "{name}: {} frames that a test run does not take, lengths {lengths:?}",
            lengths.len()
        );
    }
    println!("{} frames of {captures} captures", both.frames);
    ensure!(captures > 0, "no Ethernet capture in {}", folder.display());
    Ok(())
}

#[test]
fn cut_and_damaged_frames_too() -> Result<()> {
    let Some(folder) = capture_folder() else { return Ok(()) };
    if !may_load_programs() {
        return Ok(());
    }
    // The first packet of a flow decides its TTL, so all frames have to meet one CPU's tables.
    stay_on_one_cpu()?;
    let mut both = Differential::new()?;
    let mut random = Random(0x5eed_5eed_5eed_5eed);
    for path in files(&folder)? {
        let name = path.strip_prefix(&folder)?.display().to_string();
        let mut taken = 0;
        ethernet_frames(&path, &mut |frame| {
            taken += 1;
            if taken > DAMAGED_PER_FILE || frame.len() > FRAME_BYTES_MAX {
                return Ok(());
            }
            for length in FRAME_BYTES_MIN..frame.len().min(HEADER_BYTES) {
                both.handle_frame(&name, frame.get(..length).unwrap_or(frame))?;
            }
            let mut damaged = frame.to_vec();
            let headers = damaged.len().clamp(1, HEADER_BYTES) as u64;
            for _ in 0..HEADER_BYTES {
                let at = usize::try_from(random.next() % headers)?;
                let bits = random.next().to_le_bytes()[0];
                if let Some(byte) = damaged.get_mut(at) {
                    *byte ^= bits;
                }
                both.handle_frame(&name, &damaged)?;
            }
            Ok(())
        })?;
        both.compare(&name)?;
    }
    println!("{} frames", both.frames);
    let malformed = both.kernel.counters().malformed;
    let reasons = malformed.iter().filter(|frames| **frames > 0).count();
    // A frame shorter than an Ethernet header cannot be tried here, but a cut VLAN tag can.
    ensure!(reasons == Malformed::ALL.len(), "every reason was met: {malformed:?}");
    Ok(())
}
