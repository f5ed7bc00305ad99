//! What it costs a flow to be made ready for the backend, on one core: `cargo bench -p sensor --bench
//! pseudonyms_cputime`. Time is that of the processor. The baseline is the same records with privacy switched off. Each
//! record has one own client; `cached` has as many of them as one finds in an organisation, `new` another one each
//! time, as when the whole range is scanned.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use flow::{Direction, EndReason, Handshake, Outer, Pseudonyms, Record, RoleEvidence};
use rustix::time::{ClockId, clock_gettime};
use sensor::{Privacy, PrivacyConfig};
use tempfile::TempDir;

const RECORDS: u32 = 1_000_000;
const ROUNDS: usize = 5;
/// Records of one batch.
const BATCH: usize = 8_192;
/// Clients of an organisation.
const CLIENTS: u32 = 5_000;
const NOW_MS: u64 = 1_795_348_800_000;

fn records(clients: u32, is_v6: bool) -> Vec<Record> {
    let client = |number: u32| -> IpAddr {
        // Far from its neighbours, so that no order helps.
        let number = (number % clients).wrapping_mul(0x9e37_79b1) >> 8;
        if is_v6 {
            IpAddr::V6(Ipv6Addr::from_bits(0xfd12 << 112 | u128::from(number)))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(10 << 24 | number))
        }
    };
    let outside = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let record = |number: u32| Record {
        start_ms: NOW_MS,
        end_ms: NOW_MS,
        initiator: client(number),
        responder: outside,
        initiator_port: 40_000,
        responder_port: 443,
        protocol: flow::protocol::TCP,
        ports_known: true,
        outer: Outer::default(),
        from_initiator: Direction::default(),
        from_responder: Direction::default(),
        handshake: Handshake::Established,
        handshake_rtt_us: None,
        interface: 1,
        role: RoleEvidence::Handshake,
        end_reason: EndReason::EndOfFlow,
        folded: false,
        pseudonyms: Pseudonyms::default(),
    };
    (0..RECORDS).map(record).collect()
}

/// What this thread has used of its processor.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("it counts from 0");
    Duration::new(seconds, u32::try_from(time.tv_nsec).expect("it is below a billion"))
}

/// Nanoseconds a record: kept or not, copied, made ready.
fn cost(config: &PrivacyConfig, records: &[Record]) -> f64 {
    let state = TempDir::new().expect("a temporary folder");
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let mut privacy = Privacy::open(config, state.path(), NOW_MS).expect("a key");
        let mut batch = Vec::with_capacity(BATCH);
        let began = used();
        for records in records.chunks(BATCH) {
            batch.clear();
            batch.extend(records.iter().filter(|record| !privacy.keeps(record)));
            black_box(privacy.prepare(&mut batch, NOW_MS).expect("a key"));
        }
        rounds.push(used().saturating_sub(began).as_secs_f64() * 1e9 / f64::from(RECORDS));
    }
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn main() {
    let off = PrivacyConfig { own_prefixes: Vec::new(), ..PrivacyConfig::default() };
    let on = PrivacyConfig::default();
    println!("{RECORDS} records, median of {ROUNDS}, ns a record");
    for (name, clients, is_v6) in [
        ("IPv4, cached", CLIENTS, false),
        ("IPv4, new", RECORDS, false),
        ("IPv6, cached", CLIENTS, true),
        ("IPv6, new", RECORDS, true),
    ] {
        let records = records(clients, is_v6);
        let (without, with) = (cost(&off, &records), cost(&on, &records));
        println!("{name:<14} {with:>9.0}, switched off {without:>9.0}");
    }
}
