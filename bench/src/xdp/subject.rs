//! One design, loaded and ready to be given frames, with whatever has to run beside it: for the product a thread
//! that flips and drains epochs as the sensor does, for the ring its consumer. In: frames. Out: how long a frame took,
//! and how many packets were found again.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use aya::maps::{PerCpuHashMap, RingBuf};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use sensor::{Feeder, KernelTestRun, TableSizes};

use super::Setting;
use super::cpus::{Cpus, stay_on};
use super::rows::{Design, Row};

/// The object is read in place, which wants it aligned as a file in memory would be.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);
static COMPARISON: &Aligned<[u8]> =
    &Aligned(*include_bytes!("../../../sensor-ebpf/prebuilt/comparison.bpf.o"));

const FLOOR: &str = "floor_drop";
const RING: &str = "RING";
const LRU: &str = "LRU";
/// Smallest sizes of the tables that a row does not use.
const LRU_UNUSED: u32 = 64;
const RING_UNUSED_BYTES: u32 = 1 << 16;

/// How often the sensor looks at the fill of the log within an epoch, how far apart at least, and from which fill
/// on it ends the epoch early.
const LOOKS_PER_EPOCH: u32 = 10;
const LOOK_MIN: Duration = Duration::from_millis(5);
const FILL_PERMILLE_MAX: u32 = 500;
/// How often the consumer of the ring looks; the ring has room for 20 times as long.
const RING_LOOK: Duration = Duration::from_millis(1);

/// Packets that were found in slots, log and coarse totals, or counted as copies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// All of them.
    pub(super) packets: u64,
    /// Those that were only in coarse totals.
    pub(super) folded: u64,
    /// Epochs that ended meanwhile.
    pub(super) epochs: u64,
}

/// A design at work.
pub(super) struct Subject {
    program: Runner,
    floor: Runner,
    beside: Beside,
}

/// What runs a program.
enum Runner {
    Feeder(Box<Feeder>),
    Program(&'static str),
}

/// What runs beside the frames.
enum Beside {
    /// The thread that drains the product's tables.
    Reader(Thread<Found>),
    /// The consumer of the ring.
    Consumer(Box<Ebpf>, Thread<u64>),
    /// Nothing; the table is read at the end.
    Table(Box<Ebpf>),
}

/// A thread that works until it is told to stop.
struct Thread<T> {
    stop: Sender<()>,
    thread: JoinHandle<Result<T>>,
}

impl<T: Send + 'static> Thread<T> {
    fn start(
        cpu: usize,
        work: impl FnOnce(&Receiver<()>) -> Result<T> + Send + 'static,
    ) -> Result<Self> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || {
                stay_on(cpu)?;
                work(&stopped)
            })
            .context("cannot start the reading thread")?;
        Ok(Self { stop, thread })
    }

    fn finish(self) -> Result<T> {
        drop(self.stop);
        self.thread.join().map_err(|_panic| anyhow!("the reading thread panicked"))?
    }
}

impl Subject {
    /// Loads what the row measures, and starts what runs beside it on this CPU.
    pub(super) fn start(row: &Row, setting: Setting) -> Result<Self> {
        let Setting { cpus: Cpus { reader: reader_cpu, .. }, epoch, sizes, .. } = setting;
        match row.design {
            Design::Lru => {
                let ebpf = load(row, "lru_drop", &[(RING, RING_UNUSED_BYTES)])?;
                Ok(Self {
                    program: Runner::Program("lru_drop"),
                    floor: Runner::Program(FLOOR),
                    beside: Beside::Table(Box::new(ebpf)),
                })
            }
            Design::Ring => {
                let mut ebpf = load(row, "ring_drop", &[(LRU, LRU_UNUSED)])?;
                let ring = ebpf.take_map(RING).context("the object has a ring")?;
                let mut ring = RingBuf::try_from(ring).context("it is a ring")?;
                let consumer = Thread::start(reader_cpu, move |stop| Ok(consume(&mut ring, stop)))?;
                Ok(Self {
                    program: Runner::Program("ring_drop"),
                    floor: Runner::Program(FLOOR),
                    beside: Beside::Consumer(Box::new(ebpf), consumer),
                })
            }
            Design::Drop
            | Design::Choose
            | Design::Parse
            | Design::Product
            | Design::ProductOnFlows
            | Design::Deduplicate
            | Design::DeduplicateCopies => {
                let (mut kernel, program) = product(row, sizes)?;
                let program = kernel.feeder(program)?;
                let floor = kernel.feeder(FLOOR)?;
                let reader = Thread::start(reader_cpu, move |stop| read(&mut kernel, epoch, stop))?;
                Ok(Self {
                    program: Runner::Feeder(Box::new(program)),
                    floor: Runner::Feeder(Box::new(floor)),
                    beside: Beside::Reader(reader),
                })
            }
        }
    }

    /// Gives the frame to the design this many times; nanoseconds a frame.
    pub(super) fn feed(&self, frame: &[u8], packets: u32) -> Result<u64> {
        self.run(&self.program, frame, packets)
    }

    /// The same to a program that only drops.
    pub(super) fn floor(&self, frame: &[u8], packets: u32) -> Result<u64> {
        self.run(&self.floor, frame, packets)
    }

    fn run(&self, runner: &Runner, frame: &[u8], packets: u32) -> Result<u64> {
        let name = match runner {
            Runner::Feeder(feeder) => return Ok(feeder.feed(frame, packets)?),
            Runner::Program(name) => name,
        };
        let (Beside::Consumer(ebpf, _) | Beside::Table(ebpf)) = &self.beside else {
            return Err(anyhow!("program {name} belongs to no object"));
        };
        let program: &Xdp = ebpf.program(name).context("the object has the program")?.try_into()?;
        let options =
            TestRunOptions { data_in: Some(frame), repeat: packets, ..TestRunOptions::default() };
        let ran = program.test_run(options).with_context(|| format!("running {name}"))?;
        Ok(u64::try_from(ran.duration.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Ends what runs beside, and gives the packets that were found.
    pub(super) fn finish(self) -> Result<Found> {
        match self.beside {
            Beside::Reader(reader) => reader.finish(),
            Beside::Consumer(_ebpf, consumer) => {
                Ok(Found { packets: consumer.finish()?, ..Found::default() })
            }
            Beside::Table(mut ebpf) => {
                let table = ebpf.map_mut(LRU).context("the object has a table")?;
                let table: PerCpuHashMap<_, [u64; 5], [u64; 5]> = table.try_into()?;
                let mut packets = 0;
                for entry in &table {
                    // The first word of each CPU's value is its number of packets.
                    let (_, values) = entry.context("reading the LRU table")?;
                    packets += values.iter().map(|[packets, ..]| packets).sum::<u64>();
                }
                Ok(Found { packets, ..Found::default() })
            }
        }
    }
}

/// The product's tables, and the program that the row asks for.
fn product(row: &Row, sizes: TableSizes) -> Result<(KernelTestRun, &'static str)> {
    let program = match row.design {
        Design::Product => return Ok((KernelTestRun::load(sizes)?, "count_drop")),
        Design::DeduplicateCopies => {
            return Ok((KernelTestRun::load_deduplicating(sizes)?, "deduplicate_drop"));
        }
        Design::Choose => "flows_only",
        Design::Parse => "parse_drop",
        Design::ProductOnFlows => "flows_drop",
        Design::Deduplicate => "flows_deduplicate_drop",
        Design::Drop | Design::Lru | Design::Ring => FLOOR,
    };
    Ok((comparison(row.flows, sizes)?, program))
}

/// The comparison object on the product's tables.
fn comparison(flows: u32, sizes: TableSizes) -> Result<KernelTestRun> {
    let constants = [("FLOWS", flows)];
    let entries = [(LRU, LRU_UNUSED), (RING, RING_UNUSED_BYTES)];
    Ok(KernelTestRun::load_object(&COMPARISON.0, &constants, &entries, sizes)?)
}

/// The comparison object without the product's tables.
fn load(row: &Row, program: &str, entries: &[(&'static str, u32)]) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    loader.override_global("FLOWS", &row.flows, true);
    for (table, entries) in entries {
        loader.map_max_entries(table, *entries);
    }
    let mut ebpf = loader.load(&COMPARISON.0).context("loading the comparison object")?;
    for name in [program, FLOOR] {
        let program: &mut Xdp =
            ebpf.program_mut(name).context("the object has the program")?.try_into()?;
        program.load().with_context(|| format!("loading {name}"))?;
    }
    Ok(ebpf)
}

/// Flips and drains epochs as the sensor's draining thread does, until told to stop; then once more for each half.
fn read(kernel: &mut KernelTestRun, epoch: Duration, stop: &Receiver<()>) -> Result<Found> {
    let mut found = Found::default();
    let mut due = Instant::now() + epoch;
    loop {
        let look = due.min(Instant::now() + (epoch / LOOKS_PER_EPOCH).max(LOOK_MIN));
        let waited = stop.recv_timeout(look.saturating_duration_since(Instant::now()));
        if waited != Err(RecvTimeoutError::Timeout) {
            drain(kernel, &mut found)?;
            drain(kernel, &mut found)?;
            found.packets += kernel.counters().packets_duplicate;
            return Ok(found);
        }
        let now = Instant::now();
        if now >= due || kernel.log_fill().permille() >= FILL_PERMILLE_MAX {
            drain(kernel, &mut found)?;
            due = (due.min(now) + epoch).max(Instant::now());
        }
    }
}

fn drain(kernel: &mut KernelTestRun, found: &mut Found) -> Result<()> {
    // Each observation is looked at, as the aggregator would.
    let mut packets = 0;
    let totals = kernel.drain(&mut |one| packets += one.packets)?;
    found.packets += packets + totals.packets_folded;
    found.folded += totals.packets_folded;
    found.epochs += 1;
    Ok(())
}

/// Takes records until told to stop, and then what is left. It looks every millisecond: looking all the time would
/// take the ring's cache line away from the program again and again.
fn consume<T: std::borrow::Borrow<aya::maps::MapData>>(
    ring: &mut RingBuf<T>,
    stop: &Receiver<()>,
) -> u64 {
    let mut records = 0;
    loop {
        let stopping = stop.recv_timeout(RING_LOOK) != Err(RecvTimeoutError::Timeout);
        while ring.next().is_some() {
            records += 1;
        }
        if stopping {
            return records;
        }
    }
}
