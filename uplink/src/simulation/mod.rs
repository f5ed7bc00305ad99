//! The whole link from one seed, on a virtual clock: the sensor's session and spool, the backend's reception and
//! ledger, the code that the shells drive, around a link and two disks that do whatever links and disks do. Each seed
//! ends with the same check: the set stored is the set sealed but for what was refused or given up, and none was stored
//! twice.
//!
//! Faults, at any step: messages that are late, overtake each other and come twice, cuts of which neither end needs
//! to be told, partitions, restarts of either end, power that goes at any single operation of the sensor's disk, a
//! commit that fails, or is through and nobody hears of it, full disks, bad sectors, a spool that evicts, jumps of both
//! clocks.
//!
//! `SPANWATCH_SEED=n` runs one seed, `SPANWATCH_SEEDS=n` so many from 0; `cargo xtask simulate` does both.

mod backend;
mod disk;
mod sensor;
mod world;

use world::World;

/// A seed takes about a tenth of a millisecond.
const SEEDS: u64 = 4_000;
/// A broken end must be found out within so many.
const SEEDS_TO_FIND_OUT: u64 = 4_000;

/// One end made wrong, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// The store says "stored" before the commit.
    AckBeforeCommit,
    /// The store takes what it has for new.
    DuplicateUnknown,
    /// The sensor removes what it has sent.
    RemovesBeforeAck,
    /// The backend hands over batches in the order in which they arrive.
    TakesAnyOrder,
    /// The store takes later batches after one that it could not store.
    GoesOnAfterRetry,
    /// The backend greets a connection while a former one still hands batches over.
    GreetsEarly,
    /// The sensor's disk does not sync.
    DiskLies,
}

/// What happened in some seeds: faults that never happen prove nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    steps: u64,
    connections: u64,
    cuts: u64,
    sensor_restarts: u64,
    backend_restarts: u64,
    disk_operations: u64,
    disk_errors: u64,
    sealed: u64,
    stored: u64,
    refused: u64,
    evicted: u64,
    evicted_and_stored: u64,
}

impl Figures {
    fn add(&mut self, other: Self) {
        for (total, more) in [
            (&mut self.steps, other.steps),
            (&mut self.connections, other.connections),
            (&mut self.cuts, other.cuts),
            (&mut self.sensor_restarts, other.sensor_restarts),
            (&mut self.backend_restarts, other.backend_restarts),
            (&mut self.disk_operations, other.disk_operations),
            (&mut self.disk_errors, other.disk_errors),
            (&mut self.sealed, other.sealed),
            (&mut self.stored, other.stored),
            (&mut self.refused, other.refused),
            (&mut self.evicted, other.evicted),
            (&mut self.evicted_and_stored, other.evicted_and_stored),
        ] {
            *total += more;
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| unreachable!("{variable}={text}: {error}")))
}

#[test]
fn every_sealed_batch_is_stored_once_whatever_happens() {
    let first = number("SPANWATCH_SEED");
    let count = if first.is_some() { 1 } else { SEEDS };
    let (first, count) = (first.unwrap_or(0), number("SPANWATCH_SEEDS").unwrap_or(count));
    let started = std::time::Instant::now();
    let mut figures = Figures::default();
    for seed in first..first + count {
        match World::new(seed, None).run() {
            Ok(more) => figures.add(more),
            Err(fault) => unreachable!("SPANWATCH_SEED={seed}: {fault}"),
        }
    }
    eprintln!("{count} seeds from {first} in {:.1?}: {figures:#?}", started.elapsed());
    if count >= SEEDS {
        let Figures { cuts, sensor_restarts, backend_restarts, refused, evicted, .. } = figures;
        assert!(
            [cuts, sensor_restarts, backend_restarts, refused, evicted]
                .iter()
                .all(|n| *n > count / 4)
        );
    }
}

#[test]
fn a_broken_end_is_found_out() {
    for broken in [
        Broken::AckBeforeCommit,
        Broken::DuplicateUnknown,
        Broken::RemovesBeforeAck,
        Broken::TakesAnyOrder,
        Broken::GoesOnAfterRetry,
        Broken::GreetsEarly,
        Broken::DiskLies,
    ] {
        let found = (0..SEEDS_TO_FIND_OUT)
            .find_map(|seed| Some((seed, World::new(seed, Some(broken)).run().err()?)));
        let Some((seed, fault)) = found else {
            unreachable!("{broken:?} was not found out by {SEEDS_TO_FIND_OUT} seeds")
        };
        eprintln!("{broken:?}: SPANWATCH_SEED={seed}: {fault}");
    }
}
