//! What the page shows, ready to print: every number is a text, every time is UTC. Made by the
//! renderer, read by the template, which decides nothing.

use askama::Template;

/// The page.
#[derive(Template)]
#[template(path = "report.html")]
pub(super) struct Page {
    pub(super) member_name: String,
    pub(super) member: String,
    pub(super) force: Option<String>,
    pub(super) title: String,
    pub(super) period: String,
    pub(super) period_name: &'static str,
    pub(super) report_id: String,
    pub(super) version: String,
    pub(super) generated: String,
    pub(super) tone: &'static str,
    pub(super) summary: Vec<String>,
    pub(super) numbers: [Number; 3],
    pub(super) todo: Vec<Todo>,
    pub(super) coverage: CoverageView,
    pub(super) is_observed: bool,
    pub(super) findings: Vec<FindingView>,
    pub(super) findings_more: Option<String>,
    pub(super) activity: Vec<ActivityView>,
    pub(super) activity_step: &'static str,
    pub(super) compares: bool,
    pub(super) sources: Vec<SourceView>,
    pub(super) ports: Vec<PortView>,
    pub(super) targets: Vec<TargetView>,
    pub(super) outbound: Vec<FindingView>,
    pub(super) advice: Vec<AdviceView>,
    pub(super) contacts: &'static [(&'static str, &'static str)],
    pub(super) sent: SentView,
    pub(super) fields_sent: &'static str,
    pub(super) limits: &'static [&'static str],
}

/// One of the three numbers.
pub(super) struct Number {
    pub(super) value: String,
    pub(super) label: String,
    pub(super) note: String,
}

/// One line of the list to do first.
pub(super) struct Todo {
    pub(super) text: String,
    pub(super) why: String,
}

/// What was seen.
pub(super) struct CoverageView {
    pub(super) sentence: String,
    pub(super) bar: Vec<Bar>,
    pub(super) bar_label: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) gaps: Vec<String>,
    pub(super) gaps_more: Option<String>,
    pub(super) facts: Vec<(&'static str, String)>,
}

/// A bar of a drawing: x, width, y, height, in the drawing's own units.
pub(super) struct Bar {
    pub(super) x: f64,
    pub(super) width: f64,
    pub(super) y: f64,
    pub(super) height: f64,
}

/// One finding.
pub(super) struct FindingView {
    pub(super) severity: &'static str,
    pub(super) severity_class: &'static str,
    pub(super) title: &'static str,
    pub(super) summary: String,
    pub(super) direction: &'static str,
    pub(super) confidence: &'static str,
    pub(super) first: String,
    pub(super) last: String,
    pub(super) target: String,
    pub(super) measured: String,
    pub(super) threshold: String,
    pub(super) window: String,
    pub(super) evidence: String,
    pub(super) rule: String,
    pub(super) technique: String,
    /// Which of its addresses are pseudonyms.
    pub(super) pseudonyms: Vec<String>,
    pub(super) is_forgeable: bool,
    pub(super) id: String,
}

/// One kind of activity.
pub(super) struct ActivityView {
    pub(super) title: &'static str,
    pub(super) campaigns: String,
    pub(super) sources: String,
    pub(super) records: String,
    pub(super) change: String,
    pub(super) bars: Vec<Bar>,
    pub(super) spark_width: usize,
    pub(super) bars_label: String,
}

/// One source.
pub(super) struct SourceView {
    pub(super) address: String,
    pub(super) pseudonym: Option<String>,
    pub(super) attempts: String,
    pub(super) targets: String,
    pub(super) kinds: String,
    pub(super) may_be_forged: bool,
    pub(super) seen: String,
}

/// One port.
pub(super) struct PortView {
    pub(super) port: String,
    pub(super) name: &'static str,
    pub(super) attempts: String,
    pub(super) sources: String,
    pub(super) answered: String,
    pub(super) is_answered: bool,
    /// Width of the bar, percent of the largest.
    pub(super) share: f64,
}

/// One own address.
pub(super) struct TargetView {
    pub(super) address: String,
    pub(super) pseudonym: Option<String>,
    pub(super) attempts: String,
    pub(super) sources: String,
    pub(super) ports_answering: String,
    pub(super) share: f64,
}

/// Advice on one kind.
pub(super) struct AdviceView {
    pub(super) title: &'static str,
    pub(super) meaning: &'static str,
    pub(super) steps: &'static [&'static str],
}

/// What left the site.
pub(super) struct SentView {
    pub(super) batches: String,
    pub(super) bytes: String,
    pub(super) records: String,
    /// What stayed, and what was hidden of the rest; one sentence each.
    pub(super) privacy: Vec<String>,
}
