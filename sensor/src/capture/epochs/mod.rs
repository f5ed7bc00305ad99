//! The loaded object and its tables: flips the epoch, waits until no program writes the old half, and gives
//! every slot of it. Knows nothing of interfaces.

mod outers;
mod totals;

use std::time::{Duration, Instant};

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::util::{KernelVersion, nr_cpus, online_cpus};
use aya::{Ebpf, EbpfLoader};
use flow::kernel::{
    COARSE_SLOTS, CoarseSlot, Cpu, DOMAIN_UNKNOWN, NO_REGION, OUTERS, Set, block, epoch_word,
    not_ip_name,
};
use flow::{
    FRAGMENTS, FlowKey, HANDSHAKES, HandshakeSlot, Observation, OpeningTime, Outer, RECENT_SETS,
    Record, Slot, TcpSeen, handshake_fingerprint, handshake_place,
};
use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};

use super::clock::{TickTime, Ticks};
use super::error::system_error;
use super::memory::Table;
use super::{CaptureError, Programs, object};
use outers::Outers;
pub use totals::{DrainTotals, Folded, KernelCounters, LogFill};

/// The program whose test run reads the tick counter.
pub(super) const CLOCK: &str = "clock";
/// Shortest frame that the kernel takes in a test run: an Ethernet header.
pub(super) const CLOCK_FRAME: [u8; 14] = [0; 14];
/// Kernel that first has everything the object needs (XDP links are the youngest).
const KERNEL_NEEDED: (u8, u8, &str) = (5, 9, "5.9");
/// A slot this many generations old gets a younger tag, long before its tag comes round again after 65,536.
const TAG_AGE_MAX: u16 = 0x4000;

/// How large the kernel's tables are, for each CPU that is online at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    /// Sets of two slots in each of the two epochs; a power of two, 1 to 65,536. 128 bytes each.
    pub sets: u32,
    /// Slots of the log in each of the two epochs; 1 to 1,048,576. 64 bytes each.
    pub log_slots: u32,
}

impl Default for TableSizes {
    /// 8 Ki slots, both halves of which a CPU's second-level cache holds, and a log that takes a flood of new flows
    /// while an epoch ends (`docs/adr/0003-the-new-flow-path.md`): 33 MiB a CPU.
    ///
    /// At 1.5 million new flows a second on one CPU the log is full after 170 ms; it must last for a grace period
    /// (8 to 16 ms), the scan of the other half and the time between two looks. See `docs/metrics.md`.
    fn default() -> Self {
        Self { sets: 4096, log_slots: 262_144 }
    }
}

impl TableSizes {
    /// Most sets of a CPU and epoch.
    pub const SETS_MAX: u32 = 65_536;
    /// Most slots of a CPU's and epoch's log.
    pub const LOG_SLOTS_MAX: u32 = 1_048_576;

    fn check(self) -> Result<Self, CaptureError> {
        let size = |what, value: u32, most: u32| CaptureError::Size {
            what,
            value: u64::from(value),
            least: 1,
            most: u64::from(most),
        };
        if !self.sets.is_power_of_two() || self.sets > Self::SETS_MAX {
            return Err(size("the number of sets (a power of two)", self.sets, Self::SETS_MAX));
        }
        if self.log_slots == 0 || self.log_slots > Self::LOG_SLOTS_MAX {
            return Err(size("the number of log slots", self.log_slots, Self::LOG_SLOTS_MAX));
        }
        Ok(self)
    }
}

/// The XDP object in the kernel, with its tables mapped here.
pub(super) struct Epochs {
    ebpf: Ebpf,
    sizes: TableSizes,
    regions: u32,
    cpus: Table<Cpu>,
    sets: Table<Set>,
    log: Table<Slot>,
    coarse: Table<CoarseSlot>,
    identities: Table<Outer>,
    handshakes: Handshakes,
    generation: u32,
    ticks: Ticks,
    outers: Outers,
    /// What CPUs without a region had counted at the last drain.
    strays: Vec<Stray>,
    /// Packets whose outer identity found no number here; the kernel counted them as placed.
    packets_unnumbered: u64,
    /// How long the kernel took to end the last epoch.
    grace: Duration,
}

#[derive(Clone, Copy, Default)]
struct Stray {
    packets: u64,
    bytes: u64,
    syns: u64,
}

impl Epochs {
    /// Loads the object, sizes and maps its tables, and reads the clock. Nothing is attached.
    ///
    /// `interfaces` are the numbers that the kernel gives them, in the sensor's order. `copies` says how many ticks
    /// after a packet its copy may come; without it the programs that remove copies have no table.
    pub(super) fn load(
        sizes: TableSizes,
        interfaces: &[u32],
        copies: Option<u32>,
    ) -> Result<Self, CaptureError> {
        object::check(object::OBJECT)?;
        Self::load_object(object::OBJECT, [&[], &[]], sizes, interfaces, copies)
    }

    /// Loads any object with these tables, unchecked, after setting constants of its own and the sizes of tables of
    /// its own.
    pub(super) fn load_object(
        object: &[u8],
        own: [&[(&str, u32)]; 2],
        sizes: TableSizes,
        interfaces: &[u32],
        copies: Option<u32>,
    ) -> Result<Self, CaptureError> {
        let sizes = sizes.check()?;
        check_kernel()?;
        let to_io = |(path, error): (&'static str, std::io::Error)| {
            CaptureError::Cpus(std::io::Error::new(error.kind(), format!("{path}: {error}")))
        };
        let online = online_cpus().map_err(to_io)?;
        let possible = nr_cpus().map_err(to_io)?;
        let rows = online.iter().map(|cpu| *cpu as usize + 1).max().unwrap_or(1).max(possible);
        let regions = bounded_u32("the number of online CPUs", online.len())?;
        let rows = bounded_u32("the number of CPUs", rows)?;
        let factors = hash_factors();
        let constants = Constants { factors, interfaces: numbered(interfaces), copies };
        let mut ebpf = load_object(object, own, sizes, [rows, regions], &constants)?;
        let mut cpus: Table<Cpu> = Table::take(&mut ebpf, "CPUS")?;
        let generation = 1;
        // Field by field: a whole row would bring along what this process has where the alignment leaves a gap.
        let begin = |row: &mut Cpu, region| {
            row.epoch = epoch_word(generation, region, sizes.sets);
            row.region = region;
            row.sets = sizes.sets;
        };
        let all = cpus.len();
        for row in cpus.quiet(0, all) {
            begin(row, NO_REGION);
        }
        for (region, number) in (0..regions).zip(&online) {
            if let [row] = cpus.quiet(*number as usize, 1) {
                begin(row, region);
            }
        }
        load_program(&mut ebpf, CLOCK)?;
        let ticks = Ticks::calibrate(|| run(&ebpf, CLOCK, &CLOCK_FRAME, 1).map(|ran| ran.verdict))?;
        Ok(Self {
            sets: Table::take(&mut ebpf, "SETS")?,
            log: Table::take(&mut ebpf, "LOG")?,
            coarse: Table::take(&mut ebpf, "COARSE")?,
            identities: Table::take(&mut ebpf, "OUTER_IDENTITIES")?,
            handshakes: Handshakes { times: Table::take(&mut ebpf, "HANDSHAKE_TIMES")?, factors },
            strays: vec![Stray::default(); cpus.len()],
            outers: Outers::new(regions),
            packets_unnumbered: 0,
            grace: Duration::ZERO,
            ebpf,
            sizes,
            regions,
            cpus,
            generation,
            ticks,
        })
    }

    /// Runs a loaded program on a frame, without any interface.
    pub(super) fn run(
        &self,
        program: &'static str,
        frame: &[u8],
        repeat: u32,
    ) -> Result<Ran, CaptureError> {
        run(&self.ebpf, program, frame, repeat)
    }

    pub(super) const fn tick_ns(&self) -> u64 {
        self.ticks.tick_ns()
    }

    /// How full the fullest log of the running epoch is.
    pub(super) fn log_fill(&self) -> LogFill {
        let half = (self.generation & 1) as usize;
        let used = (0..self.cpus.len()).map(|row| {
            let cursor = self.cpus.snapshot(row).log_cursor[half];
            cursor_of(cursor, self.generation, self.sizes.log_slots)
        });
        LogFill { used: used.max().unwrap_or(0), slots: self.sizes.log_slots }
    }

    /// How long the kernel took to end the last epoch; zero before the first drain.
    pub(super) const fn grace(&self) -> Duration {
        self.grace
    }

    /// Flips the epoch, waits until no program runs in the old one, gives every slot of it.
    pub(super) fn drain(
        &mut self,
        visit: &mut dyn FnMut(Observation),
    ) -> Result<DrainTotals, CaptureError> {
        let old = self.generation;
        // Wrapping is harmless: 2^32 is even, so the halves keep alternating.
        self.generation = old.wrapping_add(1);
        for row in 0..self.cpus.len() {
            let region = self.cpus.snapshot(row).region;
            self.cpus.publish(row, epoch_word(self.generation, region, self.sizes.sets));
        }
        let flipped = Instant::now();
        membarrier(MembarrierCommand::Global)
            .map_err(|error| CaptureError::Barrier(error.into()))?;
        self.grace = flipped.elapsed();
        let mut drain = Drain {
            time: self.ticks.at_now(),
            outers: &mut self.outers,
            identities: &self.identities,
            handshakes: &self.handshakes,
            visit,
            totals: DrainTotals::default(),
            rest: None,
            packets_unnumbered: 0,
        };
        for row in 0..self.cpus.len() {
            let cpu = self.cpus.snapshot(row);
            let region = cpu.region;
            if region >= self.regions {
                let Some(before) = self.strays.get_mut(row) else { continue };
                drain.stray(&cpu, before);
                continue;
            }
            let block = block(old, region) as usize;
            let log_slots = self.sizes.log_slots as usize;
            let logged = cursor_of(cpu.log_cursor[(old & 1) as usize], old, self.sizes.log_slots);
            for slot in self.log.quiet(block * log_slots, logged as usize) {
                drain.slot(region, slot);
            }
            drain.totals.observations_logged += u64::from(logged);
            let sets = self.sizes.sets as usize;
            let sets = self.sets.quiet(block * sets, sets);
            visit_written(old, sets, |slot| drain.slot(region, slot));
            let coarse = COARSE_SLOTS as usize;
            drain.coarse(region, old, self.coarse.quiet(block * coarse, coarse));
        }
        let (totals, unnumbered) = (drain.totals, drain.packets_unnumbered);
        self.packets_unnumbered += unnumbered;
        Ok(totals)
    }

    /// One CPU's counters between two frames rather than in the middle of one, so that they add up. Under full
    /// load one of a few looks falls between two frames; the last is taken as it is.
    fn settled(&self, row: usize) -> Cpu {
        const LOOKS: u32 = 64;
        let mut cpu = self.cpus.snapshot(row);
        for _ in 1..LOOKS {
            let sorted =
                cpu.packets_ip + cpu.malformed.iter().sum::<u64>() + cpu.not_ip.iter().sum::<u64>();
            if cpu.frames_seen == sorted {
                break;
            }
            cpu = self.cpus.snapshot(row);
        }
        cpu
    }

    pub(super) fn counters(&self) -> KernelCounters {
        let mut counters =
            KernelCounters { packets_folded: self.packets_unnumbered, ..KernelCounters::default() };
        let mut not_ip = [0_u64; flow::kernel::NOT_IP_KINDS];
        for row in 0..self.cpus.len() {
            let cpu = self.settled(row);
            counters.frames_seen += cpu.frames_seen;
            counters.packets_ip += cpu.packets_ip;
            counters.packets_folded += cpu.packets_folded;
            counters.packets_duplicate += cpu.packets_duplicate;
            counters.traits.cut += cpu.packets_cut;
            add(&mut counters.malformed, &cpu.malformed);
            add(&mut counters.traits.noted, &cpu.noted);
            add(&mut counters.traits.carried, &cpu.carried);
            add(&mut counters.traits.fragments, &cpu.fragments);
            add(&mut not_ip, &cpu.not_ip);
        }
        counters.packets_malformed = counters.malformed.iter().sum();
        counters.packets_not_ip = not_ip.iter().sum();
        let named = not_ip.into_iter().enumerate().filter(|(_, frames)| *frames > 0);
        counters.not_ip = named.map(|(index, frames)| (not_ip_name(index), frames)).collect();
        counters
    }
}

fn add(sums: &mut [u64], more: &[u64]) {
    for (sum, one) in sums.iter_mut().zip(more) {
        *sum += one;
    }
}

impl Programs for Epochs {
    fn program(&mut self, name: &'static str) -> Result<&mut Xdp, CaptureError> {
        load_program(&mut self.ebpf, name)
    }
}

/// When connections were opened, and how soon that was answered.
struct Handshakes {
    times: Table<HandshakeSlot>,
    factors: [u64; 5],
}

impl Handshakes {
    /// The time from a connection's SYN to its SYN-ACK, where the kernel's table has it.
    fn rtt_us(&self, key: &FlowKey) -> Option<u32> {
        let fingerprint = handshake_fingerprint(key, &self.factors);
        self.times.snapshot(handshake_place(fingerprint) as usize).rtt_us(fingerprint)
    }
}

/// One drain under way.
struct Drain<'a> {
    time: TickTime,
    outers: &'a mut Outers,
    identities: &'a Table<Outer>,
    handshakes: &'a Handshakes,
    visit: &'a mut dyn FnMut(Observation),
    totals: DrainTotals,
    /// Where in the totals the rest is, once there is one.
    rest: Option<usize>,
    packets_unnumbered: u64,
}

impl Drain<'_> {
    fn slot(&mut self, region: u32, slot: &Slot) {
        // A half that has never been written carries tag 0, which is also a generation's once in 65,536.
        if slot.packets == 0 {
            return;
        }
        let packets = u64::from(slot.packets);
        let first = self.time.recent(slot.first_ticks(), Slot::TICKS_MASK);
        let first_ms = self.time.unix_ms(first);
        let last_ms = self.time.unix_ms(first.wrapping_add(slot.elapsed_ticks()));
        let Some((key, outer)) = self.outers.number(self.identities, region, slot.key) else {
            self.packets_unnumbered += packets;
            self.fold(Folded {
                key: None,
                outer: None,
                packets,
                bytes: slot.bytes(),
                syns: u64::from(slot.last_and_syn & Slot::SYN_SEEN != 0),
                times_ms: Some((first_ms, last_ms)),
            });
            return;
        };
        let syn_ack = slot.last_and_syn & Slot::SYN_ACK_SEEN != 0;
        let rtt_us = if syn_ack { self.handshakes.rtt_us(&slot.key) } else { None };
        self.totals.observations += 1;
        self.totals.packets += packets;
        self.totals.bytes += slot.bytes();
        (self.visit)(Observation {
            key,
            outer,
            packets,
            bytes: slot.bytes(),
            first_ms,
            last_ms,
            tcp: TcpSeen {
                flags: slot.tcp_flags,
                syn: slot.last_and_syn & Slot::SYN_SEEN != 0,
                syn_ack,
            },
            opening: rtt_us.map_or(OpeningTime::Unknown, OpeningTime::After),
            first_flags: slot.first_flags(),
            ttl: slot.ttl,
            dscp: slot.dscp(),
            fragmented: slot.fragmented(),
            interface: slot.interface(),
            length_min: slot.length_min,
            length_max: slot.length_max,
        });
    }

    fn coarse(&mut self, region: u32, old: u32, slots: &[CoarseSlot]) {
        for slot in slots.iter().filter(|slot| slot.generation == old && slot.packets > 0) {
            let numbered = slot.key().map(|key| self.outers.number(self.identities, region, key));
            let (key, outer) = match numbered {
                Some(Some((key, outer))) => (Some(key), Some(outer)),
                Some(None) => (slot.key().map(|key| key.with_domain(DOMAIN_UNKNOWN)), None),
                None => (None, None),
            };
            self.fold(Folded {
                key,
                outer,
                packets: slot.packets,
                bytes: slot.bytes,
                syns: slot.syns,
                times_ms: Some((self.time.unix_ms(slot.first), self.time.unix_ms(slot.last))),
            });
        }
    }

    fn stray(&mut self, cpu: &Cpu, before: &mut Stray) {
        let now =
            Stray { packets: cpu.stray_packets, bytes: cpu.stray_bytes, syns: cpu.stray_syns };
        if now.packets > before.packets {
            self.fold(Folded {
                key: None,
                outer: None,
                packets: now.packets - before.packets,
                bytes: now.bytes.saturating_sub(before.bytes),
                syns: now.syns.saturating_sub(before.syns),
                times_ms: None,
            });
        }
        *before = now;
    }

    /// Each key comes once for each CPU; the rest of all CPUs is one, so that the totals stay few.
    fn fold(&mut self, folded: Folded) {
        self.totals.packets_folded += folded.packets;
        let is_rest = folded.key.is_none() && folded.times_ms.is_some();
        let rest = self.rest.and_then(|at| self.totals.folded.get_mut(at));
        if let Some(rest) = rest.filter(|_| is_rest) {
            rest.merge(&folded);
            return;
        }
        if is_rest {
            self.rest = Some(self.totals.folded.len());
        }
        self.totals.folded.push(folded);
    }
}

/// Gives the slots that this generation wrote. Those of long ago get a younger tag, so that no slot is ever taken
/// for one of the generation that has the same tag 65,536 flips later.
fn visit_written(generation: u32, sets: &mut [Set], mut visit: impl FnMut(&Slot)) {
    #[expect(clippy::cast_possible_truncation, reason = "a tag is the lower half of a generation")]
    let tag = generation as u16;
    for slot in sets.iter_mut().flat_map(|set| &mut set.0) {
        let age = tag.wrapping_sub(slot.generation());
        if age == 0 {
            visit(slot);
        } else if age >= TAG_AGE_MAX {
            // One generation ago the other half was written: in this half the tag stands for nothing.
            slot.bytes_generation = u64::from(tag.wrapping_sub(1));
        }
    }
}

/// The slots in a log whose cursor word this is, when it belongs to the generation.
fn cursor_of(cursor: u64, generation: u32, capacity: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the count")]
    let count = cursor as u32;
    if cursor >> 32 == u64::from(generation) { count.min(capacity) } else { 0 }
}

/// The outcome of a test run.
pub(super) struct Ran {
    pub(super) verdict: u32,
    pub(super) nanoseconds: u64,
}

pub(super) fn check_kernel() -> Result<(), CaptureError> {
    let (major, minor, needed) = KERNEL_NEEDED;
    let found = KernelVersion::current();
    if found.as_ref().is_ok_and(|found| *found < KernelVersion::new(major, minor, 0)) {
        let found = rustix::system::uname().release().to_string_lossy().into_owned();
        return Err(CaptureError::KernelTooOld { found, needed });
    }
    if !membarrier_query().contains(MembarrierQuery::GLOBAL) {
        return Err(CaptureError::NoBarrier);
    }
    Ok(())
}

pub(super) fn bounded_u32(what: &'static str, value: usize) -> Result<u32, CaptureError> {
    /// Beyond this the largest table's index would leave 32 bits.
    const MOST: usize = 1024;
    match u32::try_from(value) {
        Ok(number) if value <= MOST => Ok(number),
        _ => Err(CaptureError::Size { what, value: value as u64, least: 1, most: MOST as u64 }),
    }
}

/// What the program is told when it is loaded.
struct Constants {
    factors: [u64; 5],
    interfaces: [u32; Record::INTERFACE_MAX as usize],
    /// Ticks after a packet that its copy may come, where copies are removed.
    copies: Option<u32>,
}

/// Those of the interfaces that have a number in records; 0 where there is none.
fn numbered(interfaces: &[u32]) -> [u32; Record::INTERFACE_MAX as usize] {
    std::array::from_fn(|at| interfaces.get(at).copied().unwrap_or(0))
}

fn load_object(
    object: &[u8],
    own: [&[(&str, u32)]; 2],
    sizes: TableSizes,
    [rows, regions]: [u32; 2],
    constants: &Constants,
) -> Result<Ebpf, CaptureError> {
    let halves = regions * 2;
    let (ticks, seed) = (constants.copies.unwrap_or(0), random());
    let recent = constants.copies.map_or(1, |_| regions * RECENT_SETS);
    let mut loader = EbpfLoader::new();
    loader
        .override_global("LOG_SLOTS", &sizes.log_slots, true)
        .override_global("HASH_FACTORS", &constants.factors, true)
        .override_global("INTERFACES", &constants.interfaces, true)
        .override_global("COPY_TICKS", &ticks, true)
        .override_global("IDENTITY_SEED", &seed, true)
        .map_max_entries("RECENT_PACKETS", recent)
        .map_max_entries("CPUS", rows)
        .map_max_entries("SETS", halves * sizes.sets)
        .map_max_entries("LOG", halves * sizes.log_slots)
        .map_max_entries("COARSE", halves * COARSE_SLOTS)
        .map_max_entries("OUTER_IDENTITIES", regions * OUTERS)
        .map_max_entries("FIRST_FRAGMENTS", regions * FRAGMENTS)
        .map_max_entries("HANDSHAKE_TIMES", HANDSHAKES)
        .map_max_entries("WALKS", rows);
    let [own_constants, tables] = own;
    for (name, value) in own_constants {
        loader.override_global(name, value, true);
    }
    for (name, entries) in tables {
        loader.map_max_entries(name, *entries);
    }
    loader.load(object).map_err(to_load)
}

pub(super) fn to_load(error: aya::EbpfError) -> CaptureError {
    match error {
        aya::EbpfError::MapError(aya::maps::MapError::CreateError { io_error, .. })
            if io_error.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            CaptureError::NotPermitted { operation: "creating the flow tables", source: io_error }
        }
        other => CaptureError::Load(Box::new(other)),
    }
}

/// A secret number.
pub(super) fn random() -> u64 {
    let [number, ..] = hash_factors();
    number
}

/// Secret, so that nobody outside can choose addresses that share a set. The standard library draws the keys of its
/// hash tables from the system's random source; numbers hashed with one of them are as good as any other way to it.
/// Odd, so that no bit of a key is lost.
fn hash_factors() -> [u64; 5] {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new();
    std::array::from_fn(|index| random.hash_one(index) | 1)
}

pub(super) fn load_program<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut Xdp, CaptureError> {
    let failed = |source| CaptureError::Program { program: name, source: Box::new(source) };
    let program: &mut Xdp = ebpf
        .program_mut(name)
        .ok_or(CaptureError::Table { table: name, source: None })?
        .try_into()
        .map_err(failed)?;
    if program.fd().is_err() {
        program.load().map_err(|error| match system_error(&error) {
            Some(number) if number == rustix::io::Errno::PERM.raw_os_error() => {
                let source = std::io::Error::from_raw_os_error(number);
                CaptureError::NotPermitted { operation: "loading an XDP program", source }
            }
            _ => failed(error),
        })?;
    }
    Ok(program)
}

pub(super) fn run(
    ebpf: &Ebpf,
    program: &'static str,
    frame: &[u8],
    repeat: u32,
) -> Result<Ran, CaptureError> {
    let failed =
        |source| CaptureError::TestRun { program, bytes: frame.len(), source: Box::new(source) };
    let loaded: &Xdp = ebpf
        .program(program)
        .ok_or(CaptureError::Table { table: program, source: None })?
        .try_into()
        .map_err(failed)?;
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
    let result = loaded.test_run(options).map_err(failed)?;
    let nanoseconds = u64::try_from(result.duration.as_nanos()).unwrap_or(u64::MAX);
    Ok(Ran { verdict: result.return_value, nanoseconds })
}

#[cfg(test)]
mod tests;
