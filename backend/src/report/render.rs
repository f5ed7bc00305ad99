//! Takes the data of a report; gives the page as HTML. Decides what is shown and in which words;
//! asks nobody.

use std::collections::BTreeSet;
use std::net::IpAddr;

use askama::Template;
use detect::{Confidence, Finding, KeyScope, Kind, Severity, TrafficDirection};

use super::advice::{self, advice};
use super::model::{PeriodName, PortRow, ReportInput, SourceRow, TargetRow};
use super::timeline::Timeline;
use super::view::{
    AdviceView, FindingView, Number, Page, PortView, SentView, SourceView, TargetView, Todo,
};
use super::words::{self, count, list, moment, number, real};

/// Findings in the table; a longer one is read by nobody.
const FINDINGS_SHOWN_MAX: usize = 20;
/// Rows of the "top ten" tables.
const TOP_MAX: usize = 10;
/// Lines of the list to do first.
const STEPS_MAX: usize = 5;
/// Below this share of the period, bringing the sensor back comes first.
const OBSERVED_SHARE_MIN: f64 = 0.9;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The period must end after it begins.
    #[error("report period ends at {to_ms} ms, which is not after its start at {from_ms} ms")]
    Period {
        /// First moment.
        from_ms: u64,
        /// Claimed end.
        to_ms: u64,
    },
    /// The page could not be written; a fault of this program.
    #[error("report page could not be written")]
    Template(#[from] askama::Error),
}

/// The report as one HTML page that needs nothing else: no script, no picture, no address to fetch.
///
/// # Errors
/// When the period does not end after it begins.
pub fn render(input: &ReportInput) -> Result<String, RenderError> {
    let (from_ms, to_ms) = (input.period.from_ms, input.period.to_ms);
    if from_ms >= to_ms {
        return Err(RenderError::Period { from_ms, to_ms });
    }
    Ok(page(input).render()?)
}

fn page(input: &ReportInput) -> Page {
    let timeline = Timeline::new(input);
    let findings = ranked(&input.findings);
    let is_observed = timeline.observed_ms() > 0;
    let period = period(input);
    let kinds: BTreeSet<Kind> = findings.iter().map(|finding| finding.kind).collect();
    let outbound = findings.iter().filter(|finding| is_concern_inside(finding));
    let hidden = findings.len().saturating_sub(FINDINGS_SHOWN_MAX);
    Page {
        member_name: input.member_name.clone(),
        member: input.member.clone(),
        force: input.force.clone(),
        title: format!("Security report for {}, {period}", input.member_name),
        period,
        period_name: match input.period.name {
            PeriodName::Weekly => "Weekly report",
            PeriodName::Monthly => "Monthly report",
            PeriodName::Custom => "Report",
        },
        report_id: input.report_id.clone(),
        version: input.version.clone(),
        generated: moment(input.generated_ms),
        tone: tone(&findings, &timeline),
        summary: summary(&findings, &timeline, input),
        numbers: numbers(&findings, &timeline),
        todo: todo(&findings, &timeline, input),
        coverage: timeline.coverage(&input.coverage),
        is_observed,
        findings: findings
            .iter()
            .take(FINDINGS_SHOWN_MAX)
            .map(|one| finding_view(one, input))
            .collect(),
        findings_more: (hidden > 0).then(|| {
            let shown = FINDINGS_SHOWN_MAX;
            format!(
                "{} more, none of them more severe than the {shown} shown.",
                number(hidden as u64)
            )
        }),
        activity: timeline.activity(&findings, input.campaigns_before.as_deref()),
        activity_step: timeline.step_name(),
        compares: input.campaigns_before.is_some(),
        sources: input.sources.iter().take(TOP_MAX).map(source_view).collect(),
        ports: port_views(&input.ports),
        targets: target_views(&input.targets),
        outbound: outbound.take(FINDINGS_SHOWN_MAX).map(|one| finding_view(one, input)).collect(),
        advice: kinds.into_iter().map(advice_view).collect(),
        contacts: &advice::CONTACTS,
        sent: SentView {
            batches: number(input.sent.batches),
            bytes: input.sent.bytes.map_or_else(|| "not known".to_owned(), words::bytes),
            records: number(input.sent.records),
            privacy: privacy(input),
        },
        fields_sent: advice::FIELDS_SENT,
        limits: &advice::LIMITS,
    }
}

/// Most severe first, then surest, then newest.
fn ranked(findings: &[Finding]) -> Vec<&Finding> {
    let mut ranked: Vec<&Finding> = findings.iter().collect();
    ranked.sort_by_key(|finding| {
        let rank = (finding.severity, finding.confidence, finding.last_ms);
        (std::cmp::Reverse(rank), finding.id)
    });
    ranked
}

fn period(input: &ReportInput) -> String {
    const DAY_MS: u64 = 86_400_000;
    let (from_ms, to_ms) = (input.period.from_ms, input.period.to_ms);
    if from_ms.is_multiple_of(DAY_MS) && to_ms.is_multiple_of(DAY_MS) {
        let last = words::day(to_ms - 1);
        let first = words::day(from_ms);
        if first == last { first } else { format!("{first} to {last}") }
    } else if words::day(from_ms) == words::day(to_ms) {
        format!("{}, {} to {}", words::day(from_ms), words::clock(from_ms), words::clock(to_ms))
    } else {
        format!("{} to {}", moment(from_ms), moment(to_ms))
    }
}

fn is_attack(finding: &Finding) -> bool {
    finding.severity > Severity::Informational
}

fn needs_attention(finding: &Finding) -> bool {
    finding.severity >= Severity::Medium
}

fn is_concern_inside(finding: &Finding) -> bool {
    is_attack(finding) && (finding.kind == Kind::Beacon || finding.direction.is_from_inside())
}

/// How the front page looks: one word for the style sheet.
fn tone(findings: &[&Finding], timeline: &Timeline) -> &'static str {
    let worst = findings.iter().map(|finding| finding.severity).max();
    match worst {
        _ if timeline.observed_ms() == 0 => "unknown",
        Some(Severity::High | Severity::Critical) => "urgent",
        Some(Severity::Medium) => "attention",
        Some(Severity::Informational | Severity::Low) | None => "calm",
    }
}

/// The paragraph at the top, for somebody who reads nothing else.
fn summary(findings: &[&Finding], timeline: &Timeline, input: &ReportInput) -> Vec<String> {
    let (observed_ms, period_ms) = (timeline.observed_ms(), timeline.period_ms());
    if observed_ms == 0 {
        let mut sentences = vec![
            "Nothing was observed in this period: no sensor at your site sent any data. Whether you were attacked \
             is therefore not known – this is not the same as “no attacks”."
                .to_owned(),
        ];
        if !findings.is_empty() {
            sentences.push(format!(
                "{} from records that lie partly outside the period {} listed below.",
                count(findings.len() as u64, "finding", "findings"),
                if findings.len() == 1 { "is" } else { "are" }
            ));
        }
        return sentences;
    }
    let mut sentences = Vec::new();
    let (seen, attention) = (tally(findings, is_attack), tally(findings, needs_attention));
    let hours = format!("the {}", words::hours(observed_ms));
    if seen == 0 {
        sentences.push(format!("In {hours} that were observed, no sign of an attack was found."));
    } else if attention == 0 {
        sentences.push(format!(
            "In {hours} that were observed, we saw {} of the kind that every address on the Internet gets. \
             Nothing needs your attention today.",
            count(seen, "attempt", "series of attempts")
        ));
    } else {
        sentences.push(format!(
            "In {hours} that were observed, we saw {}; {} your attention: {}.",
            count(seen, "attack or suspicious event", "attacks and suspicious events"),
            match (seen == attention, attention) {
                (true, 1) => "it needs".to_owned(),
                (true, 2) => "both need".to_owned(),
                (true, _) => "all need".to_owned(),
                (false, 1) => "1 needs".to_owned(),
                (false, _) => format!("{} need", number(attention)),
            },
            by_kind(findings, needs_attention)
        ));
        let inside =
            tally(findings, |finding| needs_attention(finding) && is_concern_inside(finding));
        sentences.extend(match inside {
            0 => None,
            _ if inside == attention && inside == 1 => {
                Some("It began inside your own network.".to_owned())
            }
            _ if inside == attention => {
                Some("All of these began inside your own network.".to_owned())
            }
            1 => Some("One of these began inside your own network.".to_owned()),
            _ => Some(format!("{} of these began inside your own network.", number(inside))),
        });
        if seen > attention {
            sentences.push(
                "The rest is of the kind that every address on the Internet gets.".to_owned(),
            );
        }
    }
    if real(observed_ms) < OBSERVED_SHARE_MIN * real(period_ms) {
        sentences.push(format!(
            "The other {} of the period were not observed, and nothing is known about them.",
            words::duration(period_ms - observed_ms)
        ));
    }
    let evicted = input.coverage.records_evicted;
    if evicted > 0 {
        sentences.push(format!(
            "{} were lost before they could be sent, so some of it may be missing here.",
            count(evicted, "record", "records")
        ));
    }
    sentences
}

fn tally(findings: &[&Finding], counts: fn(&Finding) -> bool) -> u64 {
    findings.iter().filter(|finding| counts(finding)).count() as u64
}

/// "2 port scans, 1 SYN flood and …".
fn by_kind(findings: &[&Finding], counts: fn(&Finding) -> bool) -> String {
    let part = |kind: Kind| {
        let of_kind = |finding: &&&Finding| finding.kind == kind && counts(finding);
        let many = findings.iter().filter(of_kind).count() as u64;
        let text = advice(kind);
        let title = in_sentence(text.title);
        (many > 0).then(|| match many {
            1 => format!("one case of {title}"),
            _ => format!("{} {}", number(many), text.titles),
        })
    };
    list(&Kind::ALL.into_iter().filter_map(part).collect::<Vec<String>>())
}

/// A detector's summary as a sentence: its first letter large.
fn capitalised(summary: &str) -> String {
    let mut letters = summary.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A title within a sentence: its first letter small, unless it begins with an abbreviation.
fn in_sentence(title: &str) -> String {
    let mut letters = title.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(std::iter::once(second)).chain(letters).collect()
        }
        _ => title.to_owned(),
    }
}

fn numbers(findings: &[&Finding], timeline: &Timeline) -> [Number; 3] {
    let (observed_ms, period_ms) = (timeline.observed_ms(), timeline.period_ms());
    let counted = |number_of: u64| match observed_ms {
        0 if number_of == 0 => "–".to_owned(),
        _ => number(number_of),
    };
    let unknown = |note: String| match observed_ms {
        0 => "not observed, so not known".to_owned(),
        _ => note,
    };
    let (seen, attention) = (tally(findings, is_attack), tally(findings, needs_attention));
    let high = tally(findings, |finding| finding.severity >= Severity::High);
    [
        Number {
            value: counted(attention),
            label: if attention == 1 { "needs your attention" } else { "need your attention" }
                .to_owned(),
            note: unknown(match high {
                0 => "none of them of high severity".to_owned(),
                _ => format!("{} of high severity or above", number(high)),
            }),
        },
        Number {
            value: counted(seen),
            label: "attacks and suspicious events".to_owned(),
            note: unknown("each counted once, however long it went on".to_owned()),
        },
        Number {
            value: words::percent(observed_ms, period_ms),
            label: "of the period observed".to_owned(),
            note: words::of(observed_ms, period_ms),
        },
    ]
}

/// What to do first, most pressing on top.
fn todo(findings: &[&Finding], timeline: &Timeline, input: &ReportInput) -> Vec<Todo> {
    let mut todo = Vec::new();
    let (observed_ms, period_ms) = (timeline.observed_ms(), timeline.period_ms());
    let is_down = real(observed_ms) < OBSERVED_SHARE_MIN * real(period_ms);
    let sensor = Todo {
        text:
            "Check that the sensor is switched on, gets mirrored traffic and reaches the Internet."
                .to_owned(),
        why: match (input.coverage.sensors, input.coverage.sensors_heard) {
            (0, _) => "No sensor is enrolled for your site yet.".to_owned(),
            (sensors, 0) => format!(
                "Nothing came from {} in this period.",
                if sensors == 1 {
                    "the sensor".to_owned()
                } else {
                    format!("any of {} sensors", number(sensors))
                }
            ),
            _ => format!(
                "{} of the period were not observed.",
                words::duration(period_ms - observed_ms)
            ),
        },
    };
    if is_down && observed_ms == 0 {
        todo.push(sensor);
    } else {
        todo.extend(todo_findings(findings));
        if is_down {
            todo.push(sensor);
        }
    }
    let (missed, seen) = (input.coverage.frames_missed.unwrap_or(0), input.coverage.frames_seen);
    if missed > 0 && real(missed) > 0.001 * real(seen + missed) {
        todo.push(Todo {
            text: "Ask whoever runs the sensor why its network card loses packets.".to_owned(),
            why: format!(
                "{} of the mirrored packets were lost.",
                words::percent(missed, seen + missed)
            ),
        });
    }
    todo.truncate(STEPS_MAX);
    todo
}

/// One line for each kind that needs attention, in the order of its worst finding.
fn todo_findings(findings: &[&Finding]) -> Vec<Todo> {
    let mut done = BTreeSet::new();
    let worst =
        findings.iter().filter(|finding| needs_attention(finding) && done.insert(finding.kind));
    let line = |finding: &&Finding| {
        let same =
            findings.iter().filter(|other| other.kind == finding.kind && needs_attention(other));
        let others = same.count() as u64 - 1;
        let more = match others {
            0 => String::new(),
            _ => format!(" – and {} more like it", number(others)),
        };
        let why = format!("{}{more}.", capitalised(&finding.summary));
        Todo { text: advice(finding.kind).first.to_owned(), why }
    };
    worst.map(line).collect()
}

/// What became of addresses and traffic before anything left the site.
fn privacy(input: &ReportInput) -> Vec<String> {
    let mut told = Vec::new();
    let (internal, trusted) =
        (input.coverage.records_kept_internal, input.coverage.records_kept_trusted);
    if internal + trusted > 0 {
        told.push(format!(
            "{} of traffic within your own network and {} of traffic with networks that you trust were kept at your \
             site.",
            count(internal, "record", "records"),
            count(trusted, "record", "records")
        ));
    }
    let epochs: Vec<String> = input
        .sent
        .keys
        .iter()
        .map(|key| format!("{} of sensor {}", key.key_epoch, key.sensor))
        .collect();
    if !epochs.is_empty() {
        told.push(format!(
            "Addresses of your own clients were sent as pseudonyms, of key {} {}. The keys are at your site only: \
             spanwatch-sensor reveal shows there whom a pseudonym stands for.",
            if epochs.len() == 1 { "epoch" } else { "epochs" },
            list(&epochs)
        ));
    }
    if input.sent.batches_in_clear > 0 {
        told.push(format!(
            "In {} all addresses are as they were seen: pseudonyms were switched off at your site, or it has none to \
             hide.",
            count(input.sent.batches_in_clear, "batch", "batches")
        ));
    }
    told
}

/// How a pseudonym is marked.
fn pseudonym_note(key: &KeyScope) -> String {
    format!("own client, pseudonym of key epoch {} of {}", key.key_epoch, key.sensor)
}

/// How whoever has the key finds out whom a finding is about.
fn pseudonym_notes(finding: &Finding, input: &ReportInput) -> Vec<String> {
    let Some(key) = &finding.key_scope else { return Vec::new() };
    let named = BTreeSet::from([finding.source, finding.target]);
    let is_pseudonym = |address: &IpAddr| input.pseudonyms.contains(&(*address, key.clone()));
    let note = |address: IpAddr| {
        format!(
            "{address} is an {}: spanwatch-sensor reveal --epoch {} {address} on that sensor shows which",
            pseudonym_note(key),
            key.key_epoch
        )
    };
    named.into_iter().flatten().filter(is_pseudonym).map(note).collect()
}

fn finding_view(finding: &Finding, input: &ReportInput) -> FindingView {
    let (severity, severity_class) = match finding.severity {
        Severity::Critical => ("Critical", "critical"),
        Severity::High => ("High", "high"),
        Severity::Medium => ("Medium", "medium"),
        Severity::Low => ("Low", "low"),
        Severity::Informational => ("For information", "info"),
    };
    let target = match (finding.target, finding.target_port) {
        (Some(IpAddr::V6(target)), Some(port)) => format!("[{target}]:{port}"),
        (Some(target), Some(port)) => format!("{target}:{port}"),
        (Some(target), None) => target.to_string(),
        (None, Some(port)) => format!("{}, port {port}", hosts(finding.targets)),
        (None, None) => hosts(finding.targets),
    };
    FindingView {
        severity,
        severity_class,
        title: advice(finding.kind).title,
        summary: capitalised(&finding.summary),
        direction: match finding.direction {
            TrafficDirection::Inbound => "from outside",
            TrafficDirection::Outbound => "from inside to outside",
            TrafficDirection::Internal => "within your network",
            TrafficDirection::Unknown => "between addresses not known as yours",
        },
        confidence: match finding.confidence {
            Confidence::High => "high",
            Confidence::Medium => "medium",
            Confidence::Low => "low",
        },
        first: words::exact_moment(finding.first_ms),
        last: words::exact_moment(finding.last_ms),
        target,
        measured: format!("{} {}", words::measured(finding.measured), finding.measured_unit),
        threshold: words::measured(finding.threshold),
        window: words::duration(finding.window_ms),
        evidence: format!(
            "{}, {}, {}",
            count(finding.records, "record", "records"),
            count(finding.packets, "packet", "packets"),
            words::bytes(finding.bytes)
        ),
        rule: format!("{} v{}", finding.rule, finding.rule_version),
        technique: finding.technique.to_string(),
        pseudonyms: pseudonym_notes(finding, input),
        is_forgeable: finding.spoofable,
        id: finding.id.to_string(),
    }
}

fn hosts(hosts: u64) -> String {
    count(hosts, "address", "addresses")
}

fn source_view(row: &SourceRow) -> SourceView {
    let kinds: Vec<String> =
        row.kinds.iter().map(|&kind| in_sentence(advice(kind).title)).collect();
    SourceView {
        address: row.address.to_string(),
        pseudonym: row.pseudonym.as_ref().map(pseudonym_note),
        attempts: number(row.attempts),
        targets: number(row.targets),
        kinds: list(&kinds),
        may_be_forged: row.may_be_forged,
        seen: format!("{} – {}", moment(row.first_ms), moment(row.last_ms)),
    }
}

fn port_views(rows: &[PortRow]) -> Vec<PortView> {
    let largest = rows.iter().map(|row| row.attempts).max().unwrap_or(0);
    let view = |row: &PortRow| PortView {
        port: match row.protocol {
            flow::protocol::TCP => format!("{} TCP", row.port),
            flow::protocol::UDP => format!("{} UDP", row.port),
            other => format!("{} (protocol {other})", row.port),
        },
        name: words::service(row.protocol, row.port),
        attempts: number(row.attempts),
        sources: number(row.sources),
        answered: match row.answered {
            0 => "not answered".to_owned(),
            answered if answered >= row.attempts => "answered".to_owned(),
            answered => format!("answered {} times", number(answered)),
        },
        is_answered: row.answered > 0,
        share: share(row.attempts, largest),
    };
    rows.iter().take(TOP_MAX).map(view).collect()
}

fn target_views(rows: &[TargetRow]) -> Vec<TargetView> {
    let largest = rows.iter().map(|row| row.attempts).max().unwrap_or(0);
    let view = |row: &TargetRow| TargetView {
        address: row.address.to_string(),
        pseudonym: row.pseudonym.as_ref().map(pseudonym_note),
        attempts: number(row.attempts),
        sources: number(row.sources),
        ports_answering: number(row.ports_answering),
        share: share(row.attempts, largest),
    };
    rows.iter().take(TOP_MAX).map(view).collect()
}

/// Percent of the largest, for a bar that is never invisible.
fn share(part: u64, largest: u64) -> f64 {
    if part == 0 || largest == 0 { 0.0 } else { (real(part) * 100.0 / real(largest)).max(1.0) }
}

fn advice_view(kind: Kind) -> AdviceView {
    let text = advice(kind);
    AdviceView { title: text.title, meaning: text.meaning, steps: text.steps }
}
