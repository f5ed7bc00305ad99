//! Takes a report; gives the text that an engineer reads at night: the verdict first, then what to mend, worst first,
//! then what is as it should be, one line each.

use std::fmt::Write as _;

use super::finding::{Finding, Remedy, Severity, counted, number};
use super::{Report, Traffic};

/// Columns of the text; what fits beside another window.
const COLUMNS: usize = 96;
/// Width of the severity's column.
const SEVERITY_COLUMNS: usize = 9;
/// Where the text of a finding starts.
const INDENT: usize = SEVERITY_COLUMNS + 2;
/// Width of a check's name in the list of those that need no words.
const NAME_COLUMNS: usize = 17;

/// Escape sequences, or nothing.
struct Paint {
    in_colours: bool,
}

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.in_colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn severity(&self, severity: Severity, text: &str) -> String {
        let code = match severity {
            Severity::Fault => "1;31",
            Severity::Warning => "1;33",
            Severity::Note => "1;36",
            Severity::Unknown => "2",
            Severity::Fine => "32",
        };
        self.with(code, text)
    }
}

pub(super) fn text(report: &Report, in_colours: bool) -> String {
    let paint = Paint { in_colours };
    let mut text = String::new();
    let worst = match (report.faults, report.warnings) {
        (0, 0) => Severity::Fine,
        (0, _) => Severity::Warning,
        _ => Severity::Fault,
    };
    let verdict = format!("{}: {}", report.subject, report.verdict);
    line(&mut text, &paint.severity(worst, &verdict));
    for about in about(report) {
        line(&mut text, &paint.with("2", &about));
    }
    let (told, listed): (Vec<_>, Vec<_>) = report
        .findings
        .iter()
        .partition(|finding| !matches!(finding.severity, Severity::Fine | Severity::Unknown));
    for finding in told {
        text.push('\n');
        tell(&mut text, finding, &paint);
    }
    if !listed.is_empty() {
        text.push('\n');
    }
    for finding in listed {
        let head = format!("{:<SEVERITY_COLUMNS$}", finding.severity.word());
        let mut lines = wrap(&finding.what, COLUMNS - INDENT - NAME_COLUMNS).into_iter();
        let first = lines.next().unwrap_or_default();
        let name = format!("{:<NAME_COLUMNS$}", finding.check);
        line(&mut text, &format!("{}  {name}{first}", paint.severity(finding.severity, &head)));
        for more in lines {
            line(&mut text, &format!("{:1$}{more}", "", INDENT + NAME_COLUMNS));
        }
    }
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

/// What was looked at, in a line or two.
fn about(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(facts) = &report.interface {
        let mut parts = vec![format!("driver {}", facts.driver.as_deref().unwrap_or("unknown"))];
        parts.extend(report.mode.map(|mode| format!("{mode} XDP")));
        parts.extend(facts.mtu.map(|mtu| format!("MTU {}", number(mtu.into()))));
        parts.extend(facts.channels.map(|channels| counted(channels.rx.into(), "receive queue")));
        parts.extend(report.machine.as_ref().map(|machine| format!("kernel {}", machine.kernel)));
        lines.push(parts.join(", "));
    }
    if let Some(traffic) = &report.traffic {
        lines.push(looked_at(traffic, report.interface.is_some()));
    }
    lines
}

fn looked_at(traffic: &Traffic, is_live: bool) -> String {
    let mut text = counted(traffic.frames, "frame");
    let _infallible = write!(text, ", {}", counted(traffic.bytes, "byte"));
    if let Some(milliseconds) = traffic.duration_ms {
        let seconds = format!("{}.{} s", number(milliseconds / 1000), milliseconds % 1000 / 100);
        let _infallible =
            write!(text, " in {}{seconds}", if is_live { "" } else { "a capture of " });
    }
    let _infallible = write!(text, ", {}", counted(traffic.tcp.conversations, "TCP conversation"));
    text
}

/// A finding in full.
fn tell(text: &mut String, finding: &Finding, paint: &Paint) {
    let word = finding.severity.word().to_uppercase();
    let head = format!("{word:<SEVERITY_COLUMNS$}");
    let name = paint.with("2", &format!("[{}]", finding.check));
    let what = paint.with("1", &finding.what);
    line(text, &format!("{}  {what} {name}", paint.severity(finding.severity, &head)));
    for (label, words) in [("seen", finding.evidence.as_str()), ("why", finding.why)] {
        if !words.is_empty() {
            paragraph(text, label, words, paint);
        }
    }
    let mut label = "mend";
    for remedy in &finding.remedies {
        match remedy {
            Remedy::Advice(words) => paragraph(text, label, words, paint),
            // Never wrapped: it is to be copied.
            Remedy::Command(command) => {
                let label = format!("{label:<6}");
                let command = paint.with("1;32", command);
                line(text, &format!("{:INDENT$}{}{command}", "", paint.with("2", &label)));
            }
        }
        label = "";
    }
}

/// Words behind a label, wrapped and indented.
fn paragraph(text: &mut String, label: &str, words: &str, paint: &Paint) {
    let mut label = format!("{label:<6}");
    for part in wrap(words, COLUMNS - INDENT - 6) {
        line(text, &format!("{:INDENT$}{}{part}", "", paint.with("2", &label)));
        label = " ".repeat(6);
    }
}

/// Breaks words into lines of at most this many columns; a longer word keeps a line of its own.
pub(super) fn wrap(words: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut used = 0;
    for word in words.split_whitespace() {
        let length = word.chars().count();
        match lines.last_mut() {
            Some(last) if used + 1 + length <= columns => {
                last.push(' ');
                last.push_str(word);
                used += 1 + length;
            }
            _ => {
                lines.push(word.to_owned());
                used = length;
            }
        }
    }
    lines
}
