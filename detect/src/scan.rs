//! Vertical and horizontal scans: one source whose connection attempts fail at many ports of one
//! target, or at one port of many targets. In: TCP openings and how they ended. Never judges UDP,
//! whose silence says nothing.

use std::net::IpAddr;

use crate::Settings;
use crate::distinct::{Distinct, address_item, paired};
use crate::facts::{Facts, Opening};
use crate::finding::{
    Confidence, Finding, FindingId, Kind, Severity, Span, Totals, TrafficDirection, escalation,
    grouped, real,
};
use crate::prefix::party;
use crate::recent::Recent;
use crate::watch::{Subject, Watch, WatchCounters};

const RULE_VERSION: u32 = 1;
/// Counted exactly up to here: nmap's default of 1,000 ports is told as it is.
const EXACT_MAX: usize = 1_024;

/// Which of the two scans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Vertical,
    Horizontal,
}

/// What stays the same during one campaign besides the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fixed {
    Target(IpAddr),
    Port(u16),
}

impl Fixed {
    fn item(self) -> u32 {
        match self {
            Self::Target(target) => address_item(target),
            Self::Port(port) => u32::from(port),
        }
    }
}

type ScanKey = (IpAddr, Fixed);

pub(crate) struct ScanDetector {
    shape: Shape,
    keys: Watch<Scan>,
    sources: Watch<Source>,
    rule: Rule,
}

/// The lines of one shape, as the subjects need them.
#[derive(Clone, Copy, Debug)]
struct Rule {
    shape: Shape,
    window_s: u64,
    count: u32,
    count_inside: u32,
    failed_share: f64,
    apart: u32,
}

impl Rule {
    const fn threshold(&self, direction: TrafficDirection) -> u32 {
        if direction.is_from_inside() { self.count_inside } else { self.count }
    }

    /// Room for the evidence before the rule is met; twice the threshold, so that the ratio can be
    /// judged.
    const fn recent_max(&self, direction: TrafficDirection) -> usize {
        self.threshold(direction) as usize * 2
    }
}

/// One source with one target or one port.
struct Scan {
    rule: Rule,
    recent: Recent,
    answered: Distinct,
    evidence: Evidence,
    stage: Stage,
}

enum Stage {
    Watching,
    Campaign(Campaign),
    /// This source has so many campaigns that they are told as one.
    Merged,
}

struct Campaign {
    failed: Distinct,
    /// Start of the campaign when it was found; names it, whatever older record comes later.
    named_ms: u64,
}

/// What is told besides the count.
#[derive(Clone, Copy, Debug)]
struct Evidence {
    source: IpAddr,
    direction: TrafficDirection,
    span: Span,
    totals: Totals,
    completed: bool,
}

impl Evidence {
    fn new(facts: &Facts<'_>) -> Self {
        Self {
            source: facts.record.initiator,
            direction: facts.direction,
            span: Span::of(facts.record),
            totals: Totals::default(),
            completed: false,
        }
    }

    fn add(&mut self, facts: &Facts<'_>) {
        self.span.extend(Span::of(facts.record));
        // The smallest address of a /64 speaks for it, whichever came first.
        self.source = self.source.min(facts.record.initiator);
        self.completed |= facts.record.handshake == flow::Handshake::Established;
    }
}

impl ScanDetector {
    pub(crate) fn new(shape: Shape, settings: &Settings) -> Self {
        let (count, count_inside, failed_share) = match shape {
            Shape::Vertical => (settings.vertical_ports, settings.vertical_ports, 0.0),
            Shape::Horizontal => (
                settings.horizontal_targets,
                settings.horizontal_targets_inside,
                settings.horizontal_failed_share,
            ),
        };
        let rule = Rule {
            shape,
            window_s: settings.scan_window_ms / 1000,
            count,
            count_inside,
            failed_share,
            apart: settings.scan_campaigns_apart,
        };
        let keys_max = settings.scan_keys_max as usize;
        Self { shape, keys: Watch::new(keys_max), sources: Watch::new(keys_max / 4), rule }
    }

    pub(crate) fn handle(&mut self, facts: &Facts<'_>) {
        if facts.opening == Opening::NotSeen {
            return;
        }
        let record = facts.record;
        let (target, port) = (record.responder, record.responder_port);
        let (fixed, item) = match self.shape {
            Shape::Vertical => (Fixed::Target(target), u32::from(port)),
            Shape::Horizontal => (Fixed::Port(port), address_item(target)),
        };
        let source = party(record.initiator);
        let rule = self.rule;
        // Answers matter only beside failures; servers' clients alone must not fill the table.
        if facts.opening == Opening::Answered && self.keys.get(&(source, fixed)).is_none() {
            return;
        }
        let (mut goes_to_source, mut is_full) = (false, false);
        let make = || Scan::new(rule, facts);
        self.keys.note((source, fixed), facts.at_s, make, |scan| {
            goes_to_source = scan.add(facts, item);
            is_full = scan.is_full();
        });
        if goes_to_source {
            let make = || Source::new(rule, facts);
            self.sources.note(source, facts.at_s, make, |all| {
                all.add(fixed.item(), paired(fixed.item(), item), facts);
            });
        }
        if is_full {
            self.judge();
        }
    }

    pub(crate) const fn is_crowded(&self) -> bool {
        self.keys.is_crowded() || self.sources.is_crowded()
    }

    pub(crate) fn judge(&mut self) {
        let (rule, sources) = (self.rule, &mut self.sources);
        self.keys.judge(|&(source, fixed), scan| {
            match scan.stage {
                Stage::Campaign(_) => return true,
                Stage::Merged => return false,
                Stage::Watching => {}
            }
            if !scan.is_met() {
                return false;
            }
            let named_ms = scan.recent.first_ms().unwrap_or(scan.evidence.span.first_ms);
            scan.evidence.span.first_ms = named_ms;
            scan.evidence.totals = scan.recent.totals();
            let evidence = scan.evidence;
            let mut is_apart = false;
            let make = || Source::of(rule, evidence);
            sources.note(source, evidence.span.last_ms / 1000, make, |all| {
                is_apart = all.admit(evidence.span);
                if !is_apart {
                    let items = scan.recent.items().map(|item| paired(fixed.item(), item));
                    all.absorb(fixed.item(), items, &evidence);
                }
            });
            scan.stage = if is_apart {
                let mut failed = Distinct::new(EXACT_MAX);
                scan.recent.items().for_each(|item| failed.insert(item));
                Stage::Campaign(Campaign { failed, named_ms })
            } else {
                Stage::Merged
            };
            scan.recent.clear();
            is_apart
        });
        self.sources.judge(|_, all| all.merged.is_some());
    }

    pub(crate) fn poll(&mut self, findings: &mut Vec<Finding>) {
        self.keys.poll(findings);
        self.sources.poll(findings);
    }

    pub(crate) const fn counters(&self) -> WatchCounters {
        let (mut keys, sources) = (self.keys.counters(), self.sources.counters());
        keys.findings_dropped_total += sources.findings_dropped_total;
        keys
    }
}

impl Scan {
    fn new(rule: Rule, facts: &Facts<'_>) -> Self {
        Self {
            rule,
            recent: Recent::default(),
            answered: Distinct::new(EXACT_MAX),
            evidence: Evidence::new(facts),
            stage: Stage::Watching,
        }
    }

    /// Takes one opening; gives whether it belongs to the source's merged campaign.
    fn add(&mut self, facts: &Facts<'_>, item: u32) -> bool {
        if matches!(self.stage, Stage::Watching) && self.recent.len() == 0 {
            self.evidence = Evidence::new(facts);
        }
        self.evidence.add(facts);
        if facts.opening == Opening::Answered {
            self.answered.insert(item);
            return false;
        }
        match &mut self.stage {
            Stage::Watching => {
                let items_max = self.rule.recent_max(facts.direction);
                self.recent.insert(item, facts.record, items_max);
                false
            }
            Stage::Campaign(campaign) => {
                campaign.failed.insert(item);
                self.evidence.totals.add(facts.record);
                false
            }
            Stage::Merged => true,
        }
    }

    /// Whether the next item would push out evidence: then judgement cannot wait for the end of the
    /// second.
    const fn is_full(&self) -> bool {
        self.recent.len() >= self.rule.recent_max(self.evidence.direction)
    }

    fn is_met(&mut self) -> bool {
        let failed = self.recent.prune(self.rule.window_s) as u64;
        let answered = real(self.answered.count());
        failed >= u64::from(self.rule.threshold(self.evidence.direction))
            && real(failed) >= self.rule.failed_share * (real(failed) + answered)
    }
}

impl Subject for Scan {
    type Key = ScanKey;

    fn is_over(&self, at_s: u64) -> bool {
        at_s > self.evidence.span.last_ms / 1000 + self.rule.window_s
    }

    fn renew(&mut self) {
        self.recent.clear();
        self.answered = Distinct::new(EXACT_MAX);
        self.evidence.totals = Totals::default();
        self.evidence.completed = false;
        self.stage = Stage::Watching;
    }

    fn finding(&self, &(source, fixed): &ScanKey) -> Option<Finding> {
        let Stage::Campaign(Campaign { failed, named_ms }) = &self.stage else { return None };
        let (target, port) = match fixed {
            Fixed::Target(target) => (Some(target), None),
            Fixed::Port(port) => (None, Some(port)),
        };
        let count = failed.count();
        let about = if failed.is_exact() { "" } else { "about " };
        let (count_text, answered) = (grouped(count), self.answered.count());
        let shown = self.evidence.source;
        let summary = match fixed {
            Fixed::Target(target) => format!(
                "{shown} tried {about}{count_text} ports of {target} that did not answer{}",
                also_answered(answered)
            ),
            Fixed::Port(port) => format!(
                "{shown} tried port {port} of {about}{count_text} hosts that did not answer{}",
                also_answered(answered)
            ),
        };
        let targets = if target.is_some() { 1 } else { count };
        let name = Name { source, target, port, named_ms: *named_ms };
        Some(self.rule.finding(&name, targets, count, &self.evidence, summary))
    }
}

fn also_answered(answered: u64) -> String {
    match answered {
        0 => String::new(),
        1 => "; 1 answered".to_owned(),
        _ => format!("; {} answered", grouped(answered)),
    }
}

/// What names a campaign.
struct Name {
    source: IpAddr,
    target: Option<IpAddr>,
    port: Option<u16>,
    named_ms: u64,
}

impl Rule {
    fn finding(
        &self,
        &Name { source, target, port, named_ms }: &Name,
        targets: u64,
        count: u64,
        evidence: &Evidence,
        summary: String,
    ) -> Finding {
        let (kind, rule, unit, technique) = match self.shape {
            Shape::Vertical => (Kind::VerticalScan, "scan.vertical", "failed ports", "T1046"),
            Shape::Horizontal => {
                (Kind::HorizontalScan, "scan.horizontal", "failed targets", "T1595.001")
            }
        };
        let threshold = f64::from(self.threshold(evidence.direction));
        // From inside it is an own host that does it; from outside it is what every address gets.
        let severity =
            if evidence.direction.is_from_inside() { Severity::High } else { Severity::Low };
        let first_window = named_ms / 1000 / self.window_s.max(1);
        Finding {
            id: FindingId::of(kind, Some(source), target, port, first_window),
            kind,
            rule: rule.into(),
            rule_version: RULE_VERSION,
            severity,
            confidence: Confidence::High,
            direction: evidence.direction,
            source: Some(evidence.source),
            target,
            target_port: port,
            sources: 1,
            targets,
            first_ms: evidence.span.first_ms,
            last_ms: evidence.span.last_ms,
            window_ms: self.window_s * 1000,
            measured: real(count),
            measured_unit: unit.into(),
            threshold,
            escalation: escalation(real(count), threshold),
            spoofable: !evidence.completed,
            records: evidence.totals.records,
            packets: evidence.totals.packets,
            bytes: evidence.totals.bytes,
            technique: technique.into(),
            summary,
            key_scope: None,
        }
    }
}

/// One source with all its campaigns of one shape.
struct Source {
    rule: Rule,
    /// Campaigns that are told one by one.
    apart: u32,
    evidence: Evidence,
    merged: Option<Merged>,
}

struct Merged {
    failed: Distinct,
    fixed: Distinct,
    named_ms: u64,
}

impl Source {
    fn new(rule: Rule, facts: &Facts<'_>) -> Self {
        Self::of(rule, Evidence::new(facts))
    }

    const fn of(rule: Rule, mut evidence: Evidence) -> Self {
        evidence.totals = Totals { records: 0, packets: 0, bytes: 0 };
        Self { rule, apart: 0, evidence, merged: None }
    }

    /// Whether one more campaign may be told by itself.
    fn admit(&mut self, span: Span) -> bool {
        self.evidence.span.extend(span);
        let admitted = self.apart < self.rule.apart;
        self.apart += u32::from(admitted);
        admitted
    }

    fn merged(&mut self, first: Evidence) -> &mut Merged {
        if self.merged.is_none() {
            self.evidence = Evidence { totals: Totals::default(), ..first };
        }
        self.merged.get_or_insert_with(|| Merged {
            failed: Distinct::new(EXACT_MAX),
            fixed: Distinct::new(EXACT_MAX),
            named_ms: first.span.first_ms,
        })
    }

    fn add(&mut self, fixed: u32, item: u32, facts: &Facts<'_>) {
        let merged = self.merged(Evidence::new(facts));
        merged.fixed.insert(fixed);
        merged.failed.insert(item);
        self.evidence.add(facts);
        self.evidence.totals.add(facts.record);
    }

    fn absorb(&mut self, fixed: u32, items: impl Iterator<Item = u32>, evidence: &Evidence) {
        let merged = self.merged(*evidence);
        merged.fixed.insert(fixed);
        items.for_each(|item| merged.failed.insert(item));
        self.evidence.span.extend(evidence.span);
        self.evidence.totals.absorb(&evidence.totals);
        self.evidence.completed |= evidence.completed;
    }
}

impl Subject for Source {
    type Key = IpAddr;

    fn is_over(&self, at_s: u64) -> bool {
        at_s > self.evidence.span.last_ms / 1000 + self.rule.window_s
    }

    fn renew(&mut self) {
        self.apart = 0;
        self.merged = None;
    }

    fn finding(&self, &source: &IpAddr) -> Option<Finding> {
        let Merged { failed, fixed, named_ms } = self.merged.as_ref()?;
        let (count, groups) = (failed.count(), fixed.count());
        let shown = self.evidence.source;
        let (count_text, groups_text) = (grouped(count), grouped(groups));
        let (targets, summary) = match self.rule.shape {
            Shape::Vertical => (
                groups,
                format!("{shown} went on to {groups_text} more hosts, {count_text} ports in all"),
            ),
            Shape::Horizontal => (
                count,
                format!("{shown} went on to {groups_text} more ports, {count_text} tries in all"),
            ),
        };
        let name = Name { source, target: None, port: None, named_ms: *named_ms };
        Some(self.rule.finding(&name, targets, count, &self.evidence, summary))
    }
}
