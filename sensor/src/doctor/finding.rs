//! What a check says: how bad it is, what it is, what was seen, why it matters, and what mends it.

use serde::Serialize;

/// How bad it is; the worst comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Frames are lost, or what is counted is wrong.
    Fault,
    /// It works now, and will not under load, or it costs more than it should.
    Warning,
    /// Worth knowing; nothing to mend.
    Note,
    /// It could not be judged.
    Unknown,
    /// As it should be.
    Fine,
}

impl Severity {
    /// The word that output uses.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Warning => "warning",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Fine => "fine",
        }
    }
}

/// One step of a remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// To be copied to a shell of this machine, as root.
    Command(String),
    /// To be done elsewhere: at the switch, at the cable.
    Advice(String),
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check; the name stands in `docs/doctor.md`.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is, one sentence.
    pub what: String,
    /// What was seen, with numbers; empty where `what` says it all.
    pub evidence: String,
    /// Why it matters; empty where nothing is wrong.
    pub why: &'static str,
    /// What mends it, in order.
    pub remedies: Vec<Remedy>,
}

impl Finding {
    pub(super) fn new(check: &'static str, severity: Severity, what: impl Into<String>) -> Self {
        Self {
            check,
            severity,
            what: what.into(),
            evidence: String::new(),
            why: "",
            remedies: Vec::new(),
        }
    }

    pub(super) fn fine(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Fine, what)
    }

    pub(super) fn unknown(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Unknown, what)
    }

    pub(super) fn evidence(mut self, evidence: impl Into<String>) -> Self {
        self.evidence = evidence.into();
        self
    }

    pub(super) const fn why(mut self, why: &'static str) -> Self {
        self.why = why;
        self
    }

    pub(super) fn command(mut self, command: impl Into<String>) -> Self {
        self.remedies.push(Remedy::Command(command.into()));
        self
    }

    pub(super) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.remedies.push(Remedy::Advice(advice.into()));
        self
    }
}

/// A number with a comma between thousands.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 frame`, `2 frames`, with the thousands marked.
pub(super) fn counted(value: u64, what: &str) -> String {
    let plural = if value == 1 { "" } else { "s" };
    format!("{} {what}{plural}", number(value))
}

/// A share in per cent. What is there is never shown as 0, and what is not all never as 100.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let tenths = super::thresholds::permille(part, whole);
    match tenths {
        0 if part > 0 => "under 0.1 %".to_owned(),
        _ => format!("{}.{} %", tenths / 10, tenths % 10),
    }
}
