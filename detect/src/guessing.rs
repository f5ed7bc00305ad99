//! Password guessing: one source that opens many similar short sessions with one login service. In:
//! completed TCP connections that carried data both ways. Knows nothing of what was said in them.

use std::net::IpAddr;

use flow::{Direction, EndReason, Handshake, tcp_flag};

use crate::facts::Facts;
use crate::finding::{
    Confidence, Finding, FindingId, Kind, Severity, Span, Totals, TrafficDirection, escalation,
    grouped, real,
};
use crate::prefix::party;
use crate::watch::{Subject, Watch, WatchCounters};
use crate::{LoginPort, Settings};

const RULE_VERSION: u32 = 1;
/// Sessions held per source and service before the rule is met.
const SESSIONS_MAX: usize = 64;
/// A session of a guesser is over soon: OpenSSH's `LoginGraceTime` is 120 s.
const DURATION_MS_MAX: u64 = 120_000;
/// Packets of the source in one session: below, nothing can have been tried; above, somebody is at
/// work. `SSHCure` has 11 to 51 for SSH, NEMEA 20 to 100 for RDP; servers that refuse early leave 4
/// or 5.
const PACKETS: std::ops::RangeInclusive<u64> = 4..=100;
/// Bytes of the service in one session, at most; NEMEA has 180,000 for RDP, the largest of its
/// bands.
const ANSWER_BYTES_MAX: u64 = 180_000;
/// Longest frame without data: Ethernet with two VLAN tags, IPv6, TCP with all its options.
const LENGTH_WITHOUT_DATA_MAX: u16 = 14 + 8 + 40 + 60;
/// Sessions are similar when the largest has at most this many times the packets of the smallest,
/// and 2.
const SIMILAR: f64 = 1.3;
/// A timer, not a guesser, when the middle gap is at least this long and the gaps hardly differ.
const TIMER_GAP_MS_MIN: u64 = 10_000;
/// Median deviation of a timer's gaps, as a share of the middle gap, at most.
const TIMER_DEVIATION_MAX: f64 = 0.05;

pub(crate) type Triple = (IpAddr, IpAddr, u16);

pub(crate) struct GuessingDetector {
    pairs: Watch<Pair>,
    ports: Vec<LoginPort>,
    rule: Rule,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    sessions: u32,
    sessions_outbound: u32,
    window_ms: u64,
    window_inside_ms: u64,
}

impl Rule {
    const fn threshold(&self, direction: TrafficDirection) -> u32 {
        match direction {
            TrafficDirection::Outbound => self.sessions_outbound,
            _ => self.sessions,
        }
    }

    const fn window_ms(&self, direction: TrafficDirection) -> u64 {
        if direction.is_from_inside() { self.window_inside_ms } else { self.window_ms }
    }
}

/// One source with one login service.
struct Pair {
    rule: Rule,
    /// By start.
    sessions: Vec<Session>,
    evidence: Evidence,
    campaign: Option<Campaign>,
}

#[derive(Clone, Copy)]
struct Campaign {
    sessions: u64,
    /// Start of the campaign when it was found; names it, whatever older record comes later.
    named_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Session {
    start_ms: u64,
    /// Packets of the source.
    packets: u64,
    packets_all: u64,
    bytes_all: u64,
}

#[derive(Clone, Copy)]
struct Evidence {
    source: IpAddr,
    direction: TrafficDirection,
    span: Span,
    totals: Totals,
}

impl Evidence {
    fn of(facts: &Facts<'_>) -> Self {
        let source = facts.record.initiator;
        let (direction, span) = (facts.direction, Span::of(facts.record));
        Self { source, direction, span, totals: Totals::default() }
    }
}

impl GuessingDetector {
    pub(crate) fn new(settings: &Settings) -> Self {
        let rule = Rule {
            sessions: settings.guessing_sessions,
            sessions_outbound: settings.guessing_sessions_outbound,
            window_ms: settings.guessing_window_ms,
            window_inside_ms: settings.guessing_window_inside_ms,
        };
        let pairs = Watch::new(settings.guessing_keys_max as usize);
        Self { pairs, ports: settings.login_ports.clone(), rule }
    }

    pub(crate) fn handle(&mut self, facts: &Facts<'_>) {
        let record = facts.record;
        let port = record.responder_port;
        let Some(login) = self.ports.iter().find(|login| login.port == port) else { return };
        if facts.direction.is_from_inside() && !login.interactive || !is_try(facts) {
            return;
        }
        let key = (party(record.initiator), record.responder, port);
        let rule = self.rule;
        let make =
            || Pair { rule, sessions: Vec::new(), evidence: Evidence::of(facts), campaign: None };
        self.pairs.note(key, facts.at_s, make, |pair| pair.add(facts));
    }

    /// Whether this source was found guessing at this service.
    pub(crate) fn is_found(&self, source: IpAddr, target: IpAddr, port: u16) -> bool {
        let pair = self.pairs.get(&(party(source), target, port));
        pair.is_some_and(|pair| pair.campaign.is_some())
    }

    pub(crate) const fn is_crowded(&self) -> bool {
        self.pairs.is_crowded()
    }

    pub(crate) fn judge(&mut self) {
        self.pairs.judge(|_, pair| pair.judge());
    }

    pub(crate) fn poll(&mut self, findings: &mut Vec<Finding>) {
        self.pairs.poll(findings);
    }

    pub(crate) const fn counters(&self) -> WatchCounters {
        self.pairs.counters()
    }
}

/// Whether a record may be one try of a password: a whole short connection with data both ways.
fn is_try(facts: &Facts<'_>) -> bool {
    let record = facts.record;
    let (sent, got) = (&record.from_initiator, &record.from_responder);
    !facts.is_continuation
        && record.handshake == Handshake::Established
        && record.end_reason != EndReason::ActiveTimeout
        && record.end_ms.saturating_sub(record.start_ms) <= DURATION_MS_MAX
        && PACKETS.contains(&sent.packets)
        && got.bytes <= ANSWER_BYTES_MAX
        && carried_data(sent)
        && carried_data(got)
}

/// Whether one side said something: nearly every stack marks the end of what it says with PSH, and
/// a long segment is data in any case.
const fn carried_data(side: &Direction) -> bool {
    side.tcp_flags & tcp_flag::PSH != 0 || side.length_max > LENGTH_WITHOUT_DATA_MAX
}

impl Pair {
    fn add(&mut self, facts: &Facts<'_>) {
        let record = facts.record;
        if self.campaign.is_none() && self.sessions.is_empty() {
            self.evidence = Evidence::of(facts);
        }
        self.evidence.source = self.evidence.source.min(record.initiator);
        self.evidence.span.extend(Span::of(record));
        if let Some(campaign) = &mut self.campaign {
            campaign.sessions += 1;
            self.evidence.totals.add(record);
            return;
        }
        let (sent, got) = (&record.from_initiator, &record.from_responder);
        let session = Session {
            start_ms: record.start_ms,
            packets: sent.packets,
            packets_all: sent.packets + got.packets,
            bytes_all: sent.bytes + got.bytes,
        };
        let place = self.sessions.partition_point(|known| *known <= session);
        self.sessions.insert(place, session);
        if self.sessions.len() > SESSIONS_MAX {
            self.sessions.remove(0);
        }
    }

    fn judge(&mut self) -> bool {
        if self.campaign.is_some() {
            return true;
        }
        let direction = self.evidence.direction;
        let window_s = self.rule.window_ms(direction) / 1000;
        let newest_s = self.sessions.last().map_or(0, |newest| newest.start_ms / 1000);
        let recent = |session: &&Session| newest_s - session.start_ms / 1000 <= window_s;
        let sessions: Vec<Session> = self.sessions.iter().filter(recent).copied().collect();
        let enough = self.rule.threshold(direction) as usize;
        if largest_similar(&sessions) < enough || direction.is_from_inside() && is_timer(&sessions)
        {
            return false;
        }
        let named_ms = sessions.first().map_or(self.evidence.span.first_ms, |first| first.start_ms);
        self.evidence.span.first_ms = named_ms;
        self.evidence.totals = Totals {
            records: sessions.len() as u64,
            packets: sessions.iter().map(|session| session.packets_all).sum(),
            bytes: sessions.iter().map(|session| session.bytes_all).sum(),
        };
        self.campaign = Some(Campaign { sessions: sessions.len() as u64, named_ms });
        self.sessions = Vec::new();
        true
    }
}

/// The most sessions that are similar to each other.
fn largest_similar(sessions: &[Session]) -> usize {
    let mut packets: Vec<u64> = sessions.iter().map(|session| session.packets).collect();
    packets.sort_unstable();
    let mut from = 0;
    let mut largest = 0;
    for to in 0..packets.len() {
        while real(packets[to]) > real(packets[from]) * SIMILAR + 2.0 {
            from += 1;
        }
        largest = largest.max(to + 1 - from);
    }
    largest
}

/// Whether the sessions come at a steady pace, as a monitoring check or a scheduled job does.
fn is_timer(sessions: &[Session]) -> bool {
    let gaps = sessions.windows(2).map(|pair| pair[1].start_ms - pair[0].start_ms);
    let mut gaps: Vec<u64> = gaps.collect();
    gaps.sort_unstable();
    let Some(&middle) = gaps.get(gaps.len() / 2) else { return false };
    let mut deviations: Vec<u64> = gaps.iter().map(|gap| gap.abs_diff(middle)).collect();
    deviations.sort_unstable();
    let deviation = deviations.get(deviations.len() / 2).copied().unwrap_or(0);
    middle >= TIMER_GAP_MS_MIN && real(deviation) <= real(middle) * TIMER_DEVIATION_MAX
}

impl Subject for Pair {
    type Key = Triple;

    fn is_over(&self, at_s: u64) -> bool {
        at_s > (self.evidence.span.last_ms + self.rule.window_ms) / 1000
    }

    fn renew(&mut self) {
        self.sessions.clear();
        self.evidence.totals = Totals::default();
        self.campaign = None;
    }

    fn finding(&self, &(source, target, port): &Triple) -> Option<Finding> {
        let Campaign { sessions, named_ms } = self.campaign?;
        let Evidence { source: shown, direction, span, totals } = self.evidence;
        let threshold = f64::from(self.rule.threshold(direction));
        let escalation = escalation(real(sessions), threshold);
        let first_window = named_ms / self.rule.window_ms.max(1);
        let severity = match (direction.is_from_inside(), escalation) {
            (false, 0) => Severity::Medium,
            _ => Severity::High,
        };
        let confidence = match (direction, escalation) {
            (TrafficDirection::Outbound, 0) => Confidence::Low,
            (_, 0) => Confidence::Medium,
            _ => Confidence::High,
        };
        Some(Finding {
            id: FindingId::of(
                Kind::PasswordGuessing,
                Some(source),
                Some(target),
                Some(port),
                first_window,
            ),
            kind: Kind::PasswordGuessing,
            rule: "guessing.sessions".into(),
            rule_version: RULE_VERSION,
            severity,
            confidence,
            direction,
            source: Some(shown),
            target: Some(target),
            target_port: Some(port),
            sources: 1,
            targets: 1,
            first_ms: span.first_ms,
            last_ms: span.last_ms,
            window_ms: self.rule.window_ms(direction),
            measured: real(sessions),
            measured_unit: "similar short sessions".into(),
            threshold,
            escalation,
            spoofable: false,
            records: totals.records,
            packets: totals.packets,
            bytes: totals.bytes,
            technique: "T1110".into(),
            summary: format!(
                "{shown} opened {} similar short sessions with the login service on port {port} of {target}",
                grouped(sessions)
            ),
            key_scope: None,
        })
    }
}
