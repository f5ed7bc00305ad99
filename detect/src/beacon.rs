//! Beacons: a host inside that calls one place outside at steady times with steady sizes, as a
//! remote-controlled program does. In: completed connections and answered UDP exchanges, by source,
//! destination and port.

use std::collections::VecDeque;
use std::net::IpAddr;

use flow::{Handshake, Record, protocol};

use crate::Settings;
use crate::distinct::{Distinct, address_item};
use crate::facts::Facts;
use crate::finding::{
    Confidence, Finding, FindingId, Kind, Severity, Span, Totals, TrafficDirection, escalation,
    grouped, real,
};
use crate::guessing::GuessingDetector;
use crate::table::Table;
use crate::watch::{Subject, Watch, WatchCounters};

const RULE_VERSION: u32 = 1;
/// The latest calls kept for the score.
const CALLS_MAX: usize = 128;
/// A caller that was silent for longer starts anew: two days bridge a weekend's office hours.
const PAUSE_S: u64 = 48 * 3_600;
/// Four weeks name a beacon: it goes on for as long as the program runs, and whoever restarts
/// detection with a day of records must give it the same name.
const NAME_WINDOW_S: u64 = 28 * 86_400;
/// Callers counted exactly for one place; a place with more than a sketch can tell is popular
/// either way.
const CALLERS_EXACT_MAX: usize = 64;
/// When the quartiles lie closer than this share of the middle, skew is noise and counts for less.
const SPREAD_MIN: f64 = 0.1;

pub(crate) struct BeaconDetector {
    pairs: Watch<Pair>,
    /// Own hosts by the place they call.
    callers: Table<IpAddr, Distinct>,
    hosts: Distinct,
    ports_ignored: Vec<u16>,
    popular_hosts: u64,
    popular_share: f64,
    rule: Rule,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    long: Line,
    short: Line,
    bytes_max: u64,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    calls: u64,
    span_ms: u64,
    score: f64,
}

/// One caller with one service outside.
struct Pair {
    rule: Rule,
    /// The latest calls, by start.
    calls: VecDeque<Call>,
    calls_total: u64,
    span: Span,
    totals: Totals,
    direction: TrafficDirection,
    found: Option<Found>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    start_ms: u64,
    sent_bytes: u64,
    bytes: u64,
}

#[derive(Clone, Copy)]
struct Found {
    score: f64,
    threshold: f64,
    period_ms: u64,
    span_min_ms: u64,
    /// Start of the first call when it was found; names it, whatever older record comes later.
    named_ms: u64,
}

impl BeaconDetector {
    pub(crate) fn new(settings: &Settings) -> Self {
        let rule = Rule {
            long: Line {
                calls: u64::from(settings.beacon_connections),
                span_ms: settings.beacon_span_ms,
                score: settings.beacon_score,
            },
            short: Line {
                calls: u64::from(settings.beacon_short_connections),
                span_ms: settings.beacon_short_span_ms,
                score: settings.beacon_short_score,
            },
            bytes_max: settings.beacon_bytes_max,
        };
        let keys_max = settings.beacon_keys_max as usize;
        Self {
            pairs: Watch::new(keys_max),
            callers: Table::new(keys_max / 4),
            hosts: Distinct::new(CALLERS_EXACT_MAX),
            ports_ignored: settings.beacon_ports_ignored.clone(),
            popular_hosts: u64::from(settings.beacon_popular_hosts),
            popular_share: settings.beacon_popular_share,
            rule,
        }
    }

    /// See [`crate::Detection::prepare`].
    pub(crate) fn prepare(&self, record: &Record) {
        if self.is_call(record) {
            self.callers.prepare(&record.responder);
            self.pairs.prepare(&(record.initiator, record.responder, record.responder_port));
        }
    }

    fn is_call(&self, record: &Record) -> bool {
        let is_answered = match record.protocol {
            protocol::TCP => record.handshake == Handshake::Established,
            protocol::UDP => record.from_initiator.packets > 0 && record.from_responder.packets > 0,
            _ => false,
        };
        is_answered && record.ports_known && !self.ports_ignored.contains(&record.responder_port)
    }

    pub(crate) fn handle(&mut self, facts: &Facts<'_>) {
        let record = facts.record;
        let is_outbound =
            matches!(facts.direction, TrafficDirection::Outbound | TrafficDirection::Unknown);
        if !is_outbound || facts.is_continuation || !self.is_call(record) {
            return;
        }
        self.hosts.insert(address_item(record.initiator));
        let make = || Distinct::new(CALLERS_EXACT_MAX);
        self.callers.touch(record.responder, make).0.insert(address_item(record.initiator));
        let key = (record.initiator, record.responder, record.responder_port);
        let rule = self.rule;
        let make = || Pair {
            rule,
            calls: VecDeque::new(),
            calls_total: 0,
            span: Span::of(record),
            totals: Totals::default(),
            direction: facts.direction,
            found: None,
        };
        self.pairs.note(key, facts.at_s, make, |pair| pair.add(facts));
    }

    pub(crate) const fn is_crowded(&self) -> bool {
        self.pairs.is_crowded()
    }

    pub(crate) fn judge(&mut self, guessing: &GuessingDetector) {
        let (callers, hosts) = (&self.callers, self.hosts.count());
        let (popular_hosts, popular_share) = (self.popular_hosts, self.popular_share);
        let is_popular = |place: &IpAddr| {
            let callers = callers.get(place).map_or(0, Distinct::count);
            callers >= popular_hosts && real(callers) >= popular_share * real(hosts)
        };
        self.pairs.judge(|&(source, target, port), pair| {
            let Some(earlier) = pair.found else {
                if is_popular(&target) || guessing.is_found(source, target, port) {
                    return false;
                }
                pair.found = pair.judge();
                return pair.found.is_some();
            };
            // It keeps its name; score and line follow what it does now, as long as it meets one.
            let now = pair.judge().map(|now| Found { named_ms: earlier.named_ms, ..now });
            pair.found = now.or(pair.found);
            true
        });
    }

    pub(crate) fn poll(&mut self, findings: &mut Vec<Finding>) {
        self.pairs.poll(findings);
    }

    pub(crate) const fn counters(&self) -> WatchCounters {
        self.pairs.counters()
    }
}

impl Pair {
    fn add(&mut self, facts: &Facts<'_>) {
        let record = facts.record;
        if self.calls_total == 0 {
            self.span = Span::of(record);
            self.direction = facts.direction;
        }
        self.calls_total += 1;
        self.span.extend(Span::of(record));
        self.totals.add(record);
        let call = Call {
            start_ms: record.start_ms,
            sent_bytes: record.from_initiator.bytes,
            bytes: record.from_initiator.bytes + record.from_responder.bytes,
        };
        // Most calls are the latest.
        let is_latest = self.calls.back().is_none_or(|latest| *latest <= call);
        let mut place = self.calls.len();
        if !is_latest {
            place = self.calls.partition_point(|known| *known <= call);
        }
        if self.calls.len() >= CALLS_MAX {
            // Older than all that are kept, or the oldest makes room.
            if place == 0 {
                return;
            }
            self.calls.pop_front();
            place -= 1;
        }
        self.calls.insert(place, call);
    }

    fn judge(&self) -> Option<Found> {
        let line = self.line()?;
        let starts = self.calls.iter().map(|call| call.start_ms);
        let mut gaps: Vec<u64> =
            starts.clone().zip(starts.skip(1)).map(|(one, next)| next - one).collect();
        let mut sizes: Vec<u64> = self.calls.iter().map(|call| call.sent_bytes).collect();
        let mut bytes: Vec<u64> = self.calls.iter().map(|call| call.bytes).collect();
        bytes.sort_unstable();
        let score = f64::midpoint(steadiness(&mut gaps)?, steadiness(&mut sizes)?);
        let period_ms = gaps.get(gaps.len() / 2).copied()?;
        let is_small = bytes.get(bytes.len() / 2).is_some_and(|&all| all <= self.rule.bytes_max);
        (score >= line.score && period_ms > 0 && is_small).then_some(Found {
            score,
            threshold: line.score,
            period_ms,
            span_min_ms: line.span_ms,
            named_ms: self.span.first_ms,
        })
    }

    /// The line that these calls may be held against, the long one first.
    fn line(&self) -> Option<Line> {
        let span_ms = self.calls.back()?.start_ms.checked_sub(self.span.first_ms)?;
        let is_enough = |line: &&Line| self.calls_total >= line.calls && span_ms >= line.span_ms;
        [&self.rule.long, &self.rule.short].into_iter().find(is_enough).copied()
    }
}

/// How steady some values are, from 0 to 1: the mean of RITA's two marks, symmetry (Bowley's skew
/// of the quartiles) and narrowness (median deviation over median). `None` for fewer than three
/// values.
fn steadiness(values: &mut [u64]) -> Option<f64> {
    values.sort_unstable();
    if values.len() < 3 {
        return None;
    }
    let (low, middle, high) = (quantile(values, 1), quantile(values, 2), quantile(values, 3));
    if middle <= 0.0 {
        return Some(0.0);
    }
    let spread = (high - low).max(middle * SPREAD_MIN);
    let symmetry = 1.0 - ((low + high - 2.0 * middle) / spread).abs().min(1.0);
    let mut deviations: Vec<u64> = {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive value among them"
        )]
        let centre = middle.round() as u64;
        values.iter().map(|value| value.abs_diff(centre)).collect()
    };
    deviations.sort_unstable();
    let narrowness = (1.0 - quantile(&deviations, 2) / middle).max(0.0);
    Some(f64::midpoint(symmetry, narrowness))
}

/// The value below which so many quarters of the sorted values lie, between two of them where
/// needed.
fn quantile(sorted: &[u64], quarters: usize) -> f64 {
    let scaled = sorted.len().saturating_sub(1) * quarters;
    let (at, rest) = (scaled / 4, real((scaled % 4) as u64) / 4.0);
    let value = |at: usize| sorted.get(at).map_or(0.0, |&value| real(value));
    let (low, high) = (value(at), value((at + 1).min(sorted.len().saturating_sub(1))));
    low + (high - low) * rest
}

impl Subject for Pair {
    type Key = (IpAddr, IpAddr, u16);

    fn is_over(&self, at_s: u64) -> bool {
        at_s > self.span.last_ms / 1000 + PAUSE_S
    }

    fn renew(&mut self) {
        self.calls.clear();
        self.calls_total = 0;
        self.totals = Totals::default();
        self.found = None;
    }

    fn finding(&self, &(source, target, port): &Self::Key) -> Option<Finding> {
        let Found { score, threshold, period_ms, span_min_ms, named_ms } = self.found?;
        let is_long = span_min_ms == self.rule.long.span_ms;
        let first_window = named_ms / 1000 / NAME_WINDOW_S;
        let kind = Kind::Beacon;
        Some(Finding {
            id: FindingId::of(kind, Some(source), Some(target), Some(port), first_window),
            kind,
            rule: if is_long { "beacon.long" } else { "beacon.short" }.into(),
            rule_version: RULE_VERSION,
            severity: Severity::Medium,
            confidence: if is_long { Confidence::Medium } else { Confidence::Low },
            direction: self.direction,
            source: Some(source),
            target: Some(target),
            target_port: Some(port),
            sources: 1,
            targets: 1,
            first_ms: self.span.first_ms,
            last_ms: self.span.last_ms,
            window_ms: span_min_ms,
            measured: score,
            measured_unit: "steadiness (0 to 1)".into(),
            threshold,
            escalation: escalation(real(self.calls_total), real(self.rule.short.calls)),
            spoofable: false,
            records: self.totals.records,
            packets: self.totals.packets,
            bytes: self.totals.bytes,
            technique: "T1071".into(),
            summary: format!(
                "{source} called port {port} of {target} {} times, every {} with hardly any difference",
                grouped(self.calls_total),
                period(period_ms)
            ),
            key_scope: None,
        })
    }
}

/// A period for people.
fn period(period_ms: u64) -> String {
    match period_ms {
        0..10_000 => format!("{}.{} s", period_ms / 1000, period_ms % 1000 / 100),
        10_000..120_000 => format!("{} s", period_ms / 1000),
        120_000..7_200_000 => format!("{} min", period_ms / 60_000),
        _ => format!("{} h", period_ms / 3_600_000),
    }
}
