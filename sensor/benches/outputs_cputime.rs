//! How many records a second each output writes, on one core: `cargo bench -p sensor --bench outputs_cputime -- DIR`.
//! Files go to DIR, or to a temporary folder; the page cache takes them. Time is that of the processor, in the
//! kernel too, so that a busy machine does not count. The baseline is `serde_json` with the record as
//! it is, into a buffered file: without Community ID, and times as numbers.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flow::{Books, Direction, EndReason, Handshake, Outer, Pseudonyms, Record, RoleEvidence};
use rustix::time::{ClockId, clock_gettime};
use sensor::{Files, NullSink, ParquetSink, Rotation, Sink, SinkError, TextSink};
use tempfile::TempDir;

const RECORDS: u64 = 1_000_000;
const ROUNDS: usize = 5;
/// Records that the outputs get at once.
const BATCH: usize = 1_024;

/// Writes records with `serde_json`.
struct Baseline(BufWriter<File>);

impl Sink for Baseline {
    fn name(&self) -> &'static str {
        "serde_json"
    }

    fn handle_records(&mut self, records: &[Record], _: &Books, _: u64) -> Result<(), SinkError> {
        for record in records {
            serde_json::to_writer(&mut self.0, record).expect("the folder has room");
            self.0.write_all(b"\n").expect("the folder has room");
        }
        Ok(())
    }

    fn advance(&mut self, _: &Books, _: u64) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self, _: &Books, _: u64) -> Result<(), SinkError> {
        self.0.flush().expect("the folder has room");
        Ok(())
    }
}

/// The same numbers each time (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `end`, which has at most 32 bits.
    fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.next() % u64::from(end)).expect("it is below a number of 32 bits")
    }
}

/// Flows of a minute and more: two in three TCP, one in five IPv6.
fn records() -> Vec<Record> {
    let mut numbers = Numbers(88_172_645_463_325_252);
    (0..RECORDS)
        .map(|at| {
            let (is_tcp, is_v6) = (numbers.below(3) > 0, numbers.below(5) == 0);
            let mut ip = || -> IpAddr {
                if is_v6 {
                    Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(numbers.next())).into()
                } else {
                    Ipv4Addr::from(numbers.below(u32::MAX)).into()
                }
            };
            let (initiator, responder) = (ip(), ip());
            let mut side = || Direction {
                packets: 1 + u64::from(numbers.below(40)),
                bytes: 60 + u64::from(numbers.below(90_000)),
                tcp_flags: if is_tcp { 0x1b } else { 0 },
                first_flags: if is_tcp { 0x02 } else { 0 },
                ttl: 64,
                length_min: 60,
                length_max: 1_514,
                ..Direction::default()
            };
            let (from_initiator, from_responder) = (side(), side());
            let start_ms = 1_780_000_000_000 + at / 10;
            Record {
                start_ms,
                end_ms: start_ms + u64::from(numbers.below(60_000)),
                initiator,
                responder,
                initiator_port: 32_768 + u16::try_from(numbers.below(28_000)).unwrap_or(0),
                responder_port: 443,
                protocol: if is_tcp { 6 } else { 17 },
                ports_known: true,
                outer: Outer::default(),
                from_initiator,
                from_responder,
                handshake: if is_tcp { Handshake::Established } else { Handshake::None },
                handshake_rtt_us: is_tcp.then(|| numbers.below(200_000)),
                interface: 1,
                role: RoleEvidence::FirstPacket,
                end_reason: EndReason::EndOfFlow,
                folded: false,
                pseudonyms: Pseudonyms::default(),
            }
        })
        .collect()
}

fn sinks(folder: &Path) -> Vec<(&'static str, Box<dyn Sink>)> {
    let open = |name: &str, whole| {
        let path = if name == "null" { PathBuf::from("/dev/null") } else { folder.join(name) };
        Files::open(Some(&path), Rotation::default(), whole, 0).expect("the folder takes files")
    };
    let baseline = File::create(folder.join("baseline.json")).expect("the folder takes files");
    let parquet = ParquetSink::new(open("flows.parquet", true), 65_536);
    vec![
        ("serde_json, file", Box::new(Baseline(BufWriter::with_capacity(256 << 10, baseline)))),
        ("null", Box::new(NullSink)),
        ("json, /dev/null", Box::new(TextSink::native(open("null", false)))),
        ("json, file", Box::new(TextSink::native(open("flows.json", false)))),
        ("json ecs, file", Box::new(TextSink::ecs(open("ecs.json", false), &[]))),
        ("json zeek, file", Box::new(TextSink::zeek(open("conn.log", false)))),
        ("csv, file", Box::new(TextSink::csv(open("flows.csv", false)))),
        ("parquet, file", Box::new(parquet.expect("the folder takes files"))),
    ]
}

/// What this thread has used of its processor.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("it counts from 0");
    Duration::new(seconds, u32::try_from(time.tv_nsec).expect("it is below a billion"))
}

fn main() {
    let own = TempDir::new().expect("a temporary folder");
    let named = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let folder = named.map_or_else(|| own.path().to_owned(), PathBuf::from);
    let records = records();
    let mut seconds: Vec<(&str, Vec<f64>)> = Vec::new();
    for _ in 0..ROUNDS {
        for (at, (name, mut sink)) in sinks(&folder).into_iter().enumerate() {
            let began = used();
            for batch in records.chunks(BATCH) {
                sink.handle_records(black_box(batch), &Books::default(), 0).expect("there is room");
            }
            sink.finish(&Books::default(), 0).expect("there is room");
            let took = used().saturating_sub(began).as_secs_f64();
            match seconds.get_mut(at) {
                Some((_, rounds)) => rounds.push(took),
                None => seconds.push((name, vec![took])),
            }
        }
    }
    println!("{RECORDS} records, median of {ROUNDS}; baseline: the first line");
    let medians = seconds.into_iter().map(|(name, mut rounds)| {
        rounds.sort_by(f64::total_cmp);
        (name, rounds[ROUNDS / 2])
    });
    let mut baseline = None;
    for (name, took) in medians {
        let ratio = *baseline.get_or_insert(took) / took;
        let ns = took * 1e9 / f64::from(u32::try_from(RECORDS).expect("a million"));
        println!("{name:<18} {ns:>9.0} ns a record {:>9.2} M records/s {ratio:>9.2} x", 1e3 / ns);
    }
}
