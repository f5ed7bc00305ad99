//! Reflection victims: a host that gets UDP answers from many amplifying servers without having
//! asked. In: UDP flows of one direction, by victim and 10-second slot. Never judges flows whose
//! request was seen.

use std::net::IpAddr;

use flow::{Direction, Record, protocol};

use crate::Settings;
use crate::distinct::{Distinct, address_item};
use crate::facts::{FactFinder, Facts};
use crate::finding::{
    Confidence, Finding, FindingId, Kind, Severity, Span, Totals, TrafficDirection, escalation,
    grouped, real,
};
use crate::slots::{SLOT_S, Slots};
use crate::watch::{Subject, Watch, WatchCounters};

const RULE_VERSION: u32 = 1;
/// Ports of protocols that answer with more than they were asked, with a name for people.
const AMPLIFIERS: [(u16, &str); 25] = [
    (17, "QOTD"),
    (19, "Chargen"),
    (53, "DNS"),
    (69, "TFTP"),
    (111, "Portmap"),
    (123, "NTP"),
    (137, "NetBIOS"),
    (161, "SNMP"),
    (389, "CLDAP"),
    (427, "SLP"),
    (520, "RIP"),
    (1434, "SQL Server"),
    (1900, "SSDP"),
    (3283, "Apple Remote Desktop"),
    (3702, "WS-Discovery"),
    (4500, "IPsec"),
    (5353, "mDNS"),
    (5683, "CoAP"),
    (10001, "Ubiquiti"),
    (11211, "memcached"),
    (27015, "Source engine"),
    (32414, "Plex"),
    (37810, "DHDiscover"),
    (47808, "BACnet"),
    (30718, "Lantronix"),
];
/// An attack that pauses no longer than this is one campaign.
const PAUSE_S: u64 = 300;
/// Reflectors counted exactly.
const EXACT_MAX: usize = 256;

pub(crate) struct ReflectionDetector {
    victims: Watch<Victim>,
    rule: Rule,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    reflectors: u64,
    bytes: u64,
    packets: u64,
}

struct Victim {
    rule: Rule,
    slots: Slots<Slot>,
    campaign: Option<Campaign>,
}

struct Slot {
    bytes: u64,
    packets: u64,
    evidence: Evidence,
    is_counted: bool,
}

#[derive(Clone)]
struct Evidence {
    span: Span,
    totals: Totals,
    reflectors: Distinct,
    /// Records by place in [`AMPLIFIERS`].
    ports: [u64; AMPLIFIERS.len()],
    /// The port that was hit, while it is the same one in all records.
    target_port: Option<u16>,
    direction: TrafficDirection,
}

struct Campaign {
    id: FindingId,
    evidence: Evidence,
    bytes_peak: u64,
    packets_peak: u64,
}

/// What went one way without a word back.
struct Unasked<'a> {
    reflector: IpAddr,
    victim: IpAddr,
    victim_port: u16,
    /// Place in [`AMPLIFIERS`]; `None` for a fragment without ports.
    amplifier: Option<usize>,
    sent: &'a Direction,
}

impl<'a> Unasked<'a> {
    /// Who is called initiator is a guess where no request was seen, so either side may be the
    /// reflector.
    fn find(record: &'a Record) -> Option<Self> {
        if record.protocol != protocol::UDP {
            return None;
        }
        let (forth, back) = (&record.from_initiator, &record.from_responder);
        let (reflector, port, victim, victim_port, sent) = match (forth.packets, back.packets) {
            (1.., 0) => (
                record.initiator,
                record.initiator_port,
                record.responder,
                record.responder_port,
                forth,
            ),
            (0, 1..) => (
                record.responder,
                record.responder_port,
                record.initiator,
                record.initiator_port,
                back,
            ),
            _ => return None,
        };
        if victim.is_multicast() || victim == IpAddr::from([255; 4]) {
            return None;
        }
        let amplifier = AMPLIFIERS.iter().position(|&(known, _)| known == port);
        if record.ports_known && amplifier.is_none() {
            return None;
        }
        Some(Self { reflector, victim, victim_port, amplifier, sent })
    }
}

impl ReflectionDetector {
    pub(crate) fn new(settings: &Settings) -> Self {
        let rule = Rule {
            reflectors: u64::from(settings.reflection_sources),
            bytes: settings.reflection_bits_per_s.saturating_mul(SLOT_S) / 8,
            packets: settings.reflection_packets_per_s.saturating_mul(SLOT_S),
        };
        Self { victims: Watch::new(settings.reflection_keys_max as usize), rule }
    }

    pub(crate) fn handle(&mut self, facts: &Facts<'_>, finder: &FactFinder) {
        let Some(unasked) = Unasked::find(facts.record) else { return };
        let direction = finder.direction(unasked.reflector, unasked.victim);
        if direction == TrafficDirection::Outbound {
            return;
        }
        // Fragments weigh, but a host that only ever gets fragments is nobody's victim.
        if unasked.amplifier.is_none() && self.victims.get(&unasked.victim).is_none() {
            return;
        }
        let rule = self.rule;
        let make = || Victim { rule, slots: Slots::new(), campaign: None };
        self.victims.note(unasked.victim, facts.at_s, make, |victim| {
            victim.add(facts.record, &unasked, direction);
        });
    }

    pub(crate) const fn is_crowded(&self) -> bool {
        self.victims.is_crowded()
    }

    pub(crate) fn judge(&mut self) {
        self.victims.judge(|key, victim| victim.judge(*key));
    }

    pub(crate) fn poll(&mut self, findings: &mut Vec<Finding>) {
        self.victims.poll(findings);
    }

    pub(crate) const fn counters(&self) -> WatchCounters {
        self.victims.counters()
    }
}

impl Victim {
    /// Spreads a record evenly over the slots it lasted: a long record must not look like a burst.
    fn add(&mut self, record: &Record, unasked: &Unasked<'_>, direction: TrafficDirection) {
        let index = |at_ms: u64| Slots::<Slot>::index(at_ms / 1000);
        let last = index(record.end_ms);
        let first = index(record.start_ms).max(Slots::<Slot>::oldest_beside(last));
        let parts = last - first + 1;
        for index in first..=last {
            let make = || Slot {
                bytes: 0,
                packets: 0,
                evidence: Evidence::of(record, direction),
                is_counted: false,
            };
            let Some(slot) = self.slots.at(index, make) else { continue };
            slot.bytes += unasked.sent.bytes / parts;
            slot.packets += unasked.sent.packets / parts;
            // The record itself is evidence once, where it ended.
            let is_end = index == last;
            slot.evidence.add(record, unasked, is_end);
            if let Some(campaign) = self.campaign.as_mut().filter(|_| slot.is_counted) {
                campaign.evidence.add(record, unasked, is_end);
                campaign.bytes_peak = campaign.bytes_peak.max(slot.bytes);
                campaign.packets_peak = campaign.packets_peak.max(slot.packets);
            }
        }
    }

    fn judge(&mut self, target: IpAddr) -> bool {
        let Rule { reflectors, bytes, packets } = self.rule;
        let mut told = false;
        for (index, slot) in self.slots.iter_mut() {
            if slot.is_counted {
                told = true;
                continue;
            }
            let is_met = slot.evidence.reflectors.count() >= reflectors
                && (slot.bytes >= bytes || slot.packets >= packets);
            if !is_met {
                continue;
            }
            slot.is_counted = true;
            told = true;
            if let Some(campaign) = &mut self.campaign {
                campaign.evidence.absorb(&slot.evidence);
                campaign.bytes_peak = campaign.bytes_peak.max(slot.bytes);
                campaign.packets_peak = campaign.packets_peak.max(slot.packets);
            } else {
                let first_window = index * SLOT_S / PAUSE_S;
                self.campaign = Some(Campaign {
                    id: FindingId::of(Kind::Reflection, None, Some(target), None, first_window),
                    evidence: slot.evidence.clone(),
                    bytes_peak: slot.bytes,
                    packets_peak: slot.packets,
                });
            }
        }
        told
    }
}

impl Evidence {
    const fn of(record: &Record, direction: TrafficDirection) -> Self {
        Self {
            span: Span::of(record),
            totals: Totals { records: 0, packets: 0, bytes: 0 },
            reflectors: Distinct::new(EXACT_MAX),
            ports: [0; AMPLIFIERS.len()],
            target_port: None,
            direction,
        }
    }

    fn add(&mut self, record: &Record, unasked: &Unasked<'_>, is_end: bool) {
        self.span.extend(Span::of(record));
        let Some(amplifier) = unasked.amplifier else {
            if is_end {
                self.totals.add(record);
            }
            return;
        };
        self.reflectors.insert(address_item(unasked.reflector));
        if is_end {
            let is_same = self.ports.iter().all(|&records| records == 0)
                || self.target_port == Some(unasked.victim_port);
            self.target_port = is_same.then_some(unasked.victim_port);
            self.ports[amplifier] += 1;
            self.totals.add(record);
        }
    }

    fn absorb(&mut self, other: &Self) {
        self.span.extend(other.span);
        self.totals.absorb(&other.totals);
        self.reflectors.absorb(&other.reflectors);
        if self.target_port != other.target_port {
            self.target_port = None;
        }
        for (mine, theirs) in self.ports.iter_mut().zip(other.ports) {
            *mine += theirs;
        }
    }

    /// The ports that most answers came from, for people.
    fn services(&self) -> String {
        let mut places: Vec<usize> = (0..AMPLIFIERS.len()).collect();
        places.sort_by_key(|&at| std::cmp::Reverse(self.ports[at]));
        let seen = places.into_iter().filter(|&at| self.ports[at] > 0).take(3);
        let names: Vec<String> =
            seen.map(|at| format!("{} (port {})", AMPLIFIERS[at].1, AMPLIFIERS[at].0)).collect();
        names.join(", ")
    }
}

impl Subject for Victim {
    type Key = IpAddr;

    fn is_over(&self, at_s: u64) -> bool {
        let last_ms = self.campaign.as_ref().map(|campaign| campaign.evidence.span.last_ms);
        last_ms.is_some_and(|last_ms| at_s > last_ms / 1000 + PAUSE_S)
    }

    fn renew(&mut self) {
        self.campaign = None;
        self.slots.clear();
    }

    fn finding(&self, &target: &IpAddr) -> Option<Finding> {
        let campaign = self.campaign.as_ref()?;
        let evidence = &campaign.evidence;
        let count = evidence.reflectors.count();
        let about = if evidence.reflectors.is_exact() { "" } else { "about " };
        let is_by_bytes = campaign.bytes_peak >= self.rule.bytes;
        let (measured, threshold, unit) = if is_by_bytes {
            let megabits = |bytes: u64| real(bytes) * 8.0 / real(SLOT_S) / 1e6;
            (megabits(campaign.bytes_peak), megabits(self.rule.bytes), "Mb/s unsolicited")
        } else {
            let rate = |packets: u64| real(packets) / real(SLOT_S);
            (rate(campaign.packets_peak), rate(self.rule.packets), "packets/s unsolicited")
        };
        Some(Finding {
            id: campaign.id,
            kind: Kind::Reflection,
            rule: "flood.reflection".into(),
            rule_version: RULE_VERSION,
            severity: Severity::High,
            confidence: Confidence::High,
            direction: evidence.direction,
            source: None,
            target: Some(target),
            target_port: evidence.target_port,
            sources: count,
            targets: 1,
            first_ms: evidence.span.first_ms,
            last_ms: evidence.span.last_ms,
            window_ms: SLOT_S * 1000,
            measured,
            measured_unit: unit.into(),
            threshold,
            escalation: escalation(measured, threshold),
            // The reflectors are real; it was the victim's address that somebody forged.
            spoofable: false,
            records: evidence.totals.records,
            packets: evidence.totals.packets,
            bytes: evidence.totals.bytes,
            technique: "T1498.002".into(),
            summary: format!(
                "{target} got answers it never asked for from {about}{} servers: {}",
                grouped(count),
                evidence.services()
            ),
            key_scope: None,
        })
    }
}
