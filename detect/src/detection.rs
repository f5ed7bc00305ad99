//! Where records meet all detectors, in the order in which one needs what another found.

use flow::Record;
use serde::Serialize;

use crate::backscatter::BackscatterDetector;
use crate::beacon::BeaconDetector;
use crate::facts::FactFinder;
use crate::flood::FloodDetector;
use crate::guessing::GuessingDetector;
use crate::reflection::ReflectionDetector;
use crate::scan::{ScanDetector, Shape};
use crate::watch::WatchCounters;
use crate::{Finding, Settings};

/// All detectors over the records of one member.
///
/// Feed records roughly in the order in which they ended; a minute of disorder is fine. Rules are
/// judged when a second is complete, so the order within a second does not matter.
/// [`Detection::poll_findings`] gives what is new or grew; store it by [`Finding::id`], later
/// replaces earlier.
///
/// ```
/// use detect::{Detection, Settings};
///
/// let mut detection = Detection::new(Settings::default());
/// assert!(detection.poll_findings().is_empty());
/// ```
pub struct Detection {
    facts: FactFinder,
    vertical: ScanDetector,
    horizontal: ScanDetector,
    flood: FloodDetector,
    guessing: GuessingDetector,
    reflection: ReflectionDetector,
    beacon: BeaconDetector,
    backscatter: BackscatterDetector,
    /// The second in which the latest record ended.
    current_s: u64,
    records_in_total: u64,
    records_folded_total: u64,
}

/// What was taken in, and how full each detector's table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Records handled.
    pub records_in_total: u64,
    /// Those of them that are totals of many flows. No rule judges them: who sent what is not known, and a network
    /// address is nobody who scans.
    pub records_folded_total: u64,
    /// Split flows whose continuation can no longer be recognised.
    pub continued_evicted_total: u64,
    /// Vertical scans.
    pub vertical_scan: WatchCounters,
    /// Horizontal scans.
    pub horizontal_scan: WatchCounters,
    /// SYN floods.
    pub syn_flood: WatchCounters,
    /// Password guessing.
    pub password_guessing: WatchCounters,
    /// Reflection.
    pub reflection: WatchCounters,
    /// Beacons.
    pub beacon: WatchCounters,
    /// Backscatter.
    pub backscatter: WatchCounters,
}

impl Detection {
    /// Detectors that have seen nothing.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "the caller has no further use for it")]
    pub fn new(settings: Settings) -> Self {
        Self {
            facts: FactFinder::new(&settings),
            vertical: ScanDetector::new(Shape::Vertical, &settings),
            horizontal: ScanDetector::new(Shape::Horizontal, &settings),
            flood: FloodDetector::new(&settings),
            guessing: GuessingDetector::new(&settings),
            reflection: ReflectionDetector::new(&settings),
            beacon: BeaconDetector::new(&settings),
            backscatter: BackscatterDetector::new(&settings),
            current_s: 0,
            records_in_total: 0,
            records_folded_total: 0,
        }
    }

    /// Reads what a record will need, and changes nothing. With many members' hosts the tables are larger than any
    /// cache; whoever has several records calls this for each of the next dozen or so before handling them, and so
    /// waits for memory once instead of once a record.
    pub fn prepare(&self, record: &Record) {
        if !record.folded {
            self.beacon.prepare(record);
        }
    }

    /// Takes one record.
    pub fn handle_record(&mut self, record: &Record) {
        let end_s = record.end_ms / 1000;
        if end_s > self.current_s || self.is_crowded() {
            self.judge();
            self.current_s = self.current_s.max(end_s);
        }
        self.records_in_total += 1;
        if record.folded {
            self.records_folded_total += 1;
            return;
        }
        let facts = self.facts.facts(record);
        self.vertical.handle(&facts);
        self.horizontal.handle(&facts);
        self.flood.handle(&facts);
        self.guessing.handle(&facts);
        self.reflection.handle(&facts, &self.facts);
        self.beacon.handle(&facts);
        self.backscatter.handle(&facts, &self.facts);
    }

    /// Findings that are new or changed since the last poll.
    #[must_use]
    pub fn poll_findings(&mut self) -> Vec<Finding> {
        self.judge();
        let mut findings = Vec::new();
        self.vertical.poll(&mut findings);
        self.horizontal.poll(&mut findings);
        self.flood.poll(&mut findings);
        self.guessing.poll(&mut findings);
        self.reflection.poll(&mut findings);
        self.beacon.poll(&mut findings);
        self.backscatter.poll(&mut findings);
        findings
    }

    /// The last findings, when no record will follow. The same as a poll: nothing is held back.
    #[must_use]
    pub fn finish(&mut self) -> Vec<Finding> {
        self.poll_findings()
    }

    /// What was taken in, and how full each table is.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        Counters {
            records_in_total: self.records_in_total,
            records_folded_total: self.records_folded_total,
            continued_evicted_total: self.facts.continued_evicted_total(),
            vertical_scan: self.vertical.counters(),
            horizontal_scan: self.horizontal.counters(),
            syn_flood: self.flood.counters(),
            password_guessing: self.guessing.counters(),
            reflection: self.reflection.counters(),
            beacon: self.beacon.counters(),
            backscatter: self.backscatter.counters(),
        }
    }

    const fn is_crowded(&self) -> bool {
        self.vertical.is_crowded()
            || self.horizontal.is_crowded()
            || self.flood.is_crowded()
            || self.guessing.is_crowded()
            || self.reflection.is_crowded()
            || self.beacon.is_crowded()
            || self.backscatter.is_crowded()
    }

    fn judge(&mut self) {
        self.vertical.judge();
        self.horizontal.judge();
        self.flood.judge();
        self.guessing.judge();
        self.reflection.judge();
        // After guessing: who guesses passwords at a steady pace is no beacon.
        self.beacon.judge(&self.guessing);
        self.backscatter.judge();
    }
}
