//! SYN floods: a service that gets openings which nobody completes. In: TCP openings, by service
//! and 10-second slot. Judges the victim, never the sources: their addresses are easily forged.

use std::net::IpAddr;

use flow::{Handshake, tcp_flag};

use crate::Settings;
use crate::distinct::{Distinct, address_item};
use crate::facts::Facts;
use crate::finding::{
    Confidence, Finding, FindingId, Kind, Severity, Span, Totals, TrafficDirection, escalation,
    grouped, real,
};
use crate::slots::{SLOT_S, Slots};
use crate::watch::{Subject, Watch, WatchCounters};

const RULE_VERSION: u32 = 1;
/// A flood that pauses no longer than this is one campaign; NEMEA repeats an event within 5 min
/// under one name.
const PAUSE_S: u64 = 300;
/// Sources counted exactly per slot and campaign.
const EXACT_MAX: usize = 256;
/// In a campaign a slot counts from this share of the threshold on: first and last slot are rarely
/// full.
const PARTIAL: f64 = 0.25;

pub(crate) struct FloodDetector {
    services: Watch<Service>,
    rule: Rule,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    half_open: f64,
    completion_max: f64,
    many_half_open: f64,
    many_completion_max: f64,
}

/// One port of one host.
struct Service {
    rule: Rule,
    slots: Slots<Slot>,
    campaign: Option<Campaign>,
}

struct Slot {
    half_open: u64,
    completed: u64,
    evidence: Evidence,
    /// Part of the campaign; what comes later into this slot goes to the campaign as well.
    is_counted: bool,
}

#[derive(Clone)]
struct Evidence {
    span: Span,
    totals: Totals,
    sources: Distinct,
    /// The smallest source, told when it is the only one.
    source: IpAddr,
    from_inside: u64,
    direction: TrafficDirection,
}

struct Campaign {
    id: FindingId,
    evidence: Evidence,
    half_open_peak: u64,
}

impl FloodDetector {
    pub(crate) fn new(settings: &Settings) -> Self {
        let per_slot = |per_s: u32| f64::from(per_s) * real(SLOT_S);
        let rule = Rule {
            half_open: per_slot(settings.flood_half_open_per_s),
            completion_max: settings.flood_completion_max,
            many_half_open: per_slot(settings.flood_many_half_open_per_s),
            many_completion_max: settings.flood_many_completion_max,
        };
        Self { services: Watch::new(settings.flood_keys_max as usize), rule }
    }

    pub(crate) fn handle(&mut self, facts: &Facts<'_>) {
        let record = facts.record;
        let sent = record.from_initiator.tcp_flags;
        if facts.is_continuation || !record.ports_known || sent & tcp_flag::SYN == 0 {
            return;
        }
        let is_half_open = match record.handshake {
            Handshake::Syn => true,
            // A reset after the SYN-ACK is a half-open scan's tidy end, it leaves nothing open.
            Handshake::SynAck => sent & tcp_flag::RST == 0,
            Handshake::Established => false,
            Handshake::None | Handshake::Rejected | Handshake::OneWay => return,
        };
        let key = (record.responder, record.responder_port);
        // What an own service completes counts from the start. Elsewhere the first half-open
        // connection starts the watch, or every place on the Internet that somebody calls would
        // need a line.
        let is_elsewhere = facts.direction == TrafficDirection::Outbound;
        if is_elsewhere && !is_half_open && self.services.get(&key).is_none() {
            return;
        }
        let rule = self.rule;
        let make = || Service { rule, slots: Slots::new(), campaign: None };
        self.services.note(key, facts.at_s, make, |service| service.add(facts, is_half_open));
    }

    pub(crate) const fn is_crowded(&self) -> bool {
        self.services.is_crowded()
    }

    pub(crate) fn judge(&mut self) {
        self.services.judge(|key, service| service.judge(key));
    }

    pub(crate) fn poll(&mut self, findings: &mut Vec<Finding>) {
        self.services.poll(findings);
    }

    pub(crate) const fn counters(&self) -> WatchCounters {
        self.services.counters()
    }
}

impl Service {
    fn add(&mut self, facts: &Facts<'_>, is_half_open: bool) {
        let make = || Slot {
            half_open: 0,
            completed: 0,
            evidence: Evidence::of(facts),
            is_counted: false,
        };
        let Some(slot) = self.slots.at(Slots::<Slot>::index(facts.at_s), make) else { return };
        if !is_half_open {
            slot.completed += 1;
            return;
        }
        slot.half_open += 1;
        slot.evidence.add(facts);
        if let Some(campaign) = self.campaign.as_mut().filter(|_| slot.is_counted) {
            campaign.evidence.add(facts);
            campaign.half_open_peak = campaign.half_open_peak.max(slot.half_open);
        }
    }

    /// The slots that cross a line. In a campaign a part of it is enough.
    fn crossings(&self, part: f64) -> Vec<u64> {
        // The best of the slots so far stands for what the service usually completes: of the last
        // minute's connections not all are known yet, since one is told when it ends.
        let mut completed = 0;
        let mut crossings = Vec::new();
        for (index, slot) in self.slots.iter() {
            completed = slot.completed.max(completed);
            if self.rule.is_crossed(slot, completed, part) {
                crossings.push(index);
            }
        }
        crossings
    }

    fn judge(&mut self, &(target, port): &(IpAddr, u16)) -> bool {
        let first = self.crossings(1.0).first().copied();
        if self.campaign.is_none() && first.is_none() {
            return false;
        }
        let crossings = self.crossings(PARTIAL);
        let mut told = false;
        for (index, slot) in self.slots.iter_mut() {
            if slot.is_counted || !crossings.contains(&index) {
                told |= slot.is_counted;
                continue;
            }
            slot.is_counted = true;
            told = true;
            if let Some(campaign) = &mut self.campaign {
                campaign.evidence.absorb(&slot.evidence);
                campaign.half_open_peak = campaign.half_open_peak.max(slot.half_open);
            } else if let Some(first) = first {
                let window = first * SLOT_S / PAUSE_S;
                self.campaign = Some(Campaign {
                    id: FindingId::of(Kind::SynFlood, None, Some(target), Some(port), window),
                    evidence: slot.evidence.clone(),
                    half_open_peak: slot.half_open,
                });
            }
        }
        told
    }
}

impl Rule {
    /// Whether a slot crosses a line where the service usually completes so many openings.
    fn is_crossed(&self, slot: &Slot, completed: u64, part: f64) -> bool {
        let half_open = real(slot.half_open);
        let completion = real(completed) / (half_open + real(completed)).max(1.0);
        let is_each_another = slot.evidence.sources.count() * 2 >= slot.half_open;
        half_open >= self.half_open * part && completion <= self.completion_max
            || half_open >= self.many_half_open * part
                && completion <= self.many_completion_max
                && is_each_another
    }
}

impl Evidence {
    fn of(facts: &Facts<'_>) -> Self {
        Self {
            span: Span::of(facts.record),
            totals: Totals::default(),
            sources: Distinct::new(EXACT_MAX),
            source: facts.record.initiator,
            from_inside: 0,
            direction: facts.direction,
        }
    }

    fn add(&mut self, facts: &Facts<'_>) {
        let record = facts.record;
        self.span.extend(Span::of(record));
        self.totals.add(record);
        self.sources.insert(address_item(record.initiator));
        self.source = self.source.min(record.initiator);
        self.from_inside += u64::from(facts.direction.is_from_inside());
    }

    fn absorb(&mut self, other: &Self) {
        self.span.extend(other.span);
        self.totals.absorb(&other.totals);
        self.sources.absorb(&other.sources);
        self.source = self.source.min(other.source);
        self.from_inside += other.from_inside;
    }
}

impl Subject for Service {
    type Key = (IpAddr, u16);

    fn is_over(&self, at_s: u64) -> bool {
        let last_ms = self.campaign.as_ref().map(|campaign| campaign.evidence.span.last_ms);
        last_ms.is_some_and(|last_ms| at_s > last_ms / 1000 + PAUSE_S)
    }

    fn renew(&mut self) {
        self.campaign = None;
        self.slots.clear();
    }

    fn finding(&self, &(target, port): &(IpAddr, u16)) -> Option<Finding> {
        let campaign = self.campaign.as_ref()?;
        let Evidence { span, totals, sources, source, from_inside, direction } = &campaign.evidence;
        // An estimate may lie above what is possible.
        let count = sources.count().min(totals.records);
        let measured = real(campaign.half_open_peak) / real(SLOT_S);
        // The higher line, once it is crossed, whichever was crossed first.
        let is_over_all = real(campaign.half_open_peak) >= self.rule.half_open;
        let line = if is_over_all { self.rule.half_open } else { self.rule.many_half_open };
        let threshold = line / real(SLOT_S);
        // A stack that wants to connect sends its SYN again; a forger has no reason to.
        let is_repeated = totals.packets >= totals.records * 2;
        let about = if sources.is_exact() { "" } else { "about " };
        let from = match (count, *from_inside * 2 > totals.records) {
            (1, _) => source.to_string(),
            (_, true) => format!("{about}{} addresses inside the network", grouped(count)),
            (_, false) => format!("{about}{} addresses", grouped(count)),
        };
        let summary = format!(
            "port {port} of {target} got {} connection openings from {from} that nobody completed, up to {} a \
             second",
            grouped(totals.records),
            grouped(campaign.half_open_peak / SLOT_S),
        );
        Some(Finding {
            id: campaign.id,
            kind: Kind::SynFlood,
            rule: "flood.syn".into(),
            rule_version: RULE_VERSION,
            severity: if count == 1 { Severity::Medium } else { Severity::High },
            confidence: if is_repeated { Confidence::Medium } else { Confidence::High },
            direction: *direction,
            source: (count == 1).then_some(*source),
            target: Some(target),
            target_port: Some(port),
            sources: count,
            targets: 1,
            first_ms: span.first_ms,
            last_ms: span.last_ms,
            window_ms: SLOT_S * 1000,
            measured,
            measured_unit: "half-open connections/s".into(),
            threshold,
            escalation: escalation(measured, threshold),
            spoofable: true,
            records: totals.records,
            packets: totals.packets,
            bytes: totals.bytes,
            technique: "T1498.001".into(),
            summary,
            key_scope: None,
        })
    }
}
