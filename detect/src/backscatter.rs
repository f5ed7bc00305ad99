//! Backscatter: an attacked host answers packets that somebody forged in the name of own addresses.
//! In: SYN-ACK and RST without an opening of ours. Informational only; it is nobody's scan.

use std::net::IpAddr;

use flow::{Handshake, Record, protocol, tcp_flag};

use crate::Settings;
use crate::distinct::{Distinct, address_item};
use crate::facts::{FactFinder, Facts};
use crate::finding::{
    Confidence, Finding, FindingId, Kind, Severity, Span, Totals, TrafficDirection, escalation,
    grouped, real,
};
use crate::recent::Recent;
use crate::watch::{Subject, Watch, WatchCounters};

const RULE_VERSION: u32 = 1;
/// How long a target counts.
const WINDOW_S: u64 = 3_600;
/// Backscatter that pauses no longer than this is one campaign: attacks go on for days with breaks.
const PAUSE_S: u64 = 6 * 3_600;
/// Targets counted exactly.
const EXACT_MAX: usize = 1_024;
/// Ports remembered: one more than the rule allows is enough to know.
const PORTS_MAX: usize = 16;

pub(crate) struct BackscatterDetector {
    attacked: Watch<Attacked>,
    targets: u32,
    ports_max: u32,
}

/// A host elsewhere that answers forged packets.
struct Attacked {
    targets_min: u32,
    ports_max: u32,
    recent: Recent,
    ports: Distinct,
    span: Span,
    totals: Totals,
    direction: TrafficDirection,
    campaign: Option<Campaign>,
}

struct Campaign {
    targets: Distinct,
    /// Start of the campaign when it was found; names it, whatever older record comes later.
    named_ms: u64,
}

/// The attacked host, its port, and who got its answer.
struct Answer {
    attacked: IpAddr,
    port: u16,
    target: IpAddr,
}

/// An answer without a question. The receiver may have sent a RST back, as a stack does.
fn unasked(record: &Record) -> Option<Answer> {
    const ANSWERS: u8 = tcp_flag::SYN | tcp_flag::ACK | tcp_flag::RST;
    if record.protocol != protocol::TCP || !record.ports_known {
        return None;
    }
    let (forth, back) = (&record.from_initiator, &record.from_responder);
    let (initiator, responder) =
        ((record.initiator, record.initiator_port), (record.responder, record.responder_port));
    let is_rst_only = |flags: u8| flags & !tcp_flag::ACK == tcp_flag::RST;
    let (sender, sent, receiver) = match record.handshake {
        Handshake::SynAck
            if back.tcp_flags & !ANSWERS == 0
                && (forth.packets == 0 || is_rst_only(forth.tcp_flags)) =>
        {
            (responder, back, initiator)
        }
        Handshake::OneWay if is_rst_only(forth.tcp_flags) && back.packets == 0 => {
            (initiator, forth, responder)
        }
        Handshake::OneWay if is_rst_only(back.tcp_flags) && forth.packets == 0 => {
            (responder, back, initiator)
        }
        _ => return None,
    };
    (sent.packets > 0).then_some(Answer { attacked: sender.0, port: sender.1, target: receiver.0 })
}

impl BackscatterDetector {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            attacked: Watch::new(settings.backscatter_keys_max as usize),
            targets: settings.backscatter_targets,
            ports_max: settings.backscatter_ports_max,
        }
    }

    pub(crate) fn handle(&mut self, facts: &Facts<'_>, finder: &FactFinder) {
        let Some(answer) = unasked(facts.record) else { return };
        let direction = finder.direction(answer.attacked, answer.target);
        if direction.is_from_inside() {
            return;
        }
        let (targets_min, ports_max) = (self.targets, self.ports_max);
        let make = || Attacked {
            targets_min,
            ports_max,
            recent: Recent::default(),
            ports: Distinct::new(PORTS_MAX),
            span: Span::of(facts.record),
            totals: Totals::default(),
            direction,
            campaign: None,
        };
        self.attacked.note(answer.attacked, facts.at_s, make, |attacked| {
            attacked.add(facts.record, &answer);
        });
    }

    pub(crate) const fn is_crowded(&self) -> bool {
        self.attacked.is_crowded()
    }

    pub(crate) fn judge(&mut self) {
        self.attacked.judge(|_, attacked| attacked.judge());
    }

    pub(crate) fn poll(&mut self, findings: &mut Vec<Finding>) {
        self.attacked.poll(findings);
    }

    pub(crate) const fn counters(&self) -> WatchCounters {
        self.attacked.counters()
    }
}

impl Attacked {
    fn add(&mut self, record: &Record, answer: &Answer) {
        if self.campaign.is_none() && self.recent.len() == 0 {
            self.span = Span::of(record);
        }
        self.span.extend(Span::of(record));
        self.ports.insert(u32::from(answer.port));
        let item = address_item(answer.target);
        match &mut self.campaign {
            Some(campaign) => {
                campaign.targets.insert(item);
                self.totals.add(record);
            }
            None => self.recent.insert(item, record, self.targets_min as usize * 2),
        }
    }

    fn judge(&mut self) -> bool {
        if self.campaign.is_some() {
            return true;
        }
        let targets = self.recent.prune(WINDOW_S);
        let is_met =
            targets >= self.targets_min as usize && self.ports.count() <= u64::from(self.ports_max);
        if is_met {
            let mut targets = Distinct::new(EXACT_MAX);
            self.recent.items().for_each(|item| targets.insert(item));
            let named_ms = self.recent.first_ms().unwrap_or(self.span.first_ms);
            self.span.first_ms = named_ms;
            self.totals = self.recent.totals();
            self.recent.clear();
            self.campaign = Some(Campaign { targets, named_ms });
        }
        is_met
    }
}

impl Subject for Attacked {
    type Key = IpAddr;

    fn is_over(&self, at_s: u64) -> bool {
        at_s > self.span.last_ms / 1000 + PAUSE_S
    }

    fn renew(&mut self) {
        self.recent.clear();
        self.ports = Distinct::new(PORTS_MAX);
        self.totals = Totals::default();
        self.campaign = None;
    }

    fn finding(&self, &attacked: &IpAddr) -> Option<Finding> {
        let Campaign { targets, named_ms } = self.campaign.as_ref()?;
        let count = targets.count();
        let threshold = f64::from(self.targets_min);
        let first_window = named_ms / 1000 / PAUSE_S;
        Some(Finding {
            id: FindingId::of(Kind::Backscatter, Some(attacked), None, None, first_window),
            kind: Kind::Backscatter,
            rule: "backscatter.tcp".into(),
            rule_version: RULE_VERSION,
            severity: Severity::Informational,
            confidence: Confidence::Medium,
            direction: self.direction,
            source: Some(attacked),
            target: None,
            target_port: None,
            sources: 1,
            targets: count,
            first_ms: self.span.first_ms,
            last_ms: self.span.last_ms,
            window_ms: WINDOW_S * 1000,
            measured: real(count),
            measured_unit: "receiving addresses".into(),
            threshold,
            escalation: escalation(real(count), threshold),
            spoofable: true,
            records: self.totals.records,
            packets: self.totals.packets,
            bytes: self.totals.bytes,
            technique: "".into(),
            summary: format!(
                "{attacked} answers packets that others sent it in the name of {} addresses here",
                grouped(count)
            ),
            key_scope: None,
        })
    }
}
