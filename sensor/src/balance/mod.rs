//! Takes a summary file; gives the books as equations with numbers, for people and for programs. It knows
//! the file's keys only, so that it reads the summary of an older or newer sensor too: what is not
//! there is unknown.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::summary::grouped;

/// Longest file that is read: a summary has a few kilobytes, and one line for each capture of a replay.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// A summary of a running sensor that is older was written by one that runs no longer.
const AGE_MAX_S: i64 = 10;

/// Why there is no balance.
#[derive(Debug, Error)]
pub enum BalanceError {
    /// Name the file that `--summary` wrote; a sensor with a state folder keeps one there while it runs.
    #[error("cannot read the summary {}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is no summary of a sensor: {reason}", file.display())]
    NoSummary {
        /// Which file.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// One number of an equation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Term {
    /// The summary's key.
    pub key: &'static str,
    /// What people call it.
    #[serde(skip)]
    pub word: &'static str,
    /// `None` where it is not known.
    pub value: Option<u64>,
}

/// A number that is the sum of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Equation {
    /// What it is about.
    pub name: &'static str,
    /// The whole.
    pub left: Term,
    /// Its parts.
    pub right: Vec<Term>,
    /// By how much it may be off: what was on its way while the numbers were read.
    pub in_flight: u64,
    /// The whole less its parts; `None` where one of them is not known.
    pub difference: Option<i128>,
    /// Whether it holds; `None` where that is not known.
    pub holds: Option<bool>,
}

/// The books of one sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// `run` or `replay`.
    pub command: String,
    /// Whether the sensor had stopped.
    pub finished: bool,
    /// When the summary was written, RFC 3339.
    pub updated_time: String,
    /// Whether no equation is known not to hold.
    pub balanced: bool,
    /// The books, in the order in which a packet meets them.
    pub equations: Vec<Equation>,
    /// What was listened on or read.
    #[serde(skip)]
    source: String,
}

impl Balance {
    /// Of the summary in a file.
    ///
    /// # Errors
    /// When it cannot be read, or is something else.
    pub fn read(file: &Path) -> Result<Self, BalanceError> {
        let unreadable = |source| BalanceError::Read { file: file.to_owned(), source };
        let no_summary = |reason: String| BalanceError::NoSummary { file: file.to_owned(), reason };
        let mut bytes = Vec::new();
        let opened = File::open(file).map_err(unreadable)?;
        opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(no_summary(format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        let summary: Value =
            serde_json::from_slice(&bytes).map_err(|error| no_summary(error.to_string()))?;
        Self::of(&summary).map_err(|key| no_summary(format!("it has no `{key}`")))
    }

    /// Of a summary; the key that it lacks, when it is none.
    fn of(summary: &Value) -> Result<Self, &'static str> {
        let text = |key: &'static str| summary[key].as_str().map(str::to_owned).ok_or(key);
        let finished = summary["finished"].as_bool().ok_or("finished")?;
        for key in ["frames_seen", "packets_ip"] {
            summary[key].as_u64().ok_or(key)?;
        }
        let command = text("command")?;
        let equations = equations(summary, &command, finished);
        Ok(Self {
            source: source(summary, &command),
            command,
            finished,
            updated_time: text("updated_time")?,
            balanced: !equations.iter().any(|equation| equation.holds == Some(false)),
            equations,
        })
    }

    /// The equations for people. `now` is the time of day.
    #[must_use]
    pub fn to_text(&self, now: Timestamp) -> String {
        let mut text = String::new();
        let mut line = |line: String| {
            writeln!(text, "{line}").expect("writing to a string cannot fail");
        };
        line(format!("{}, {}", self.source, self.state(now)));
        line(String::new());
        line(format!("{:>12}", "difference"));
        for equation in &self.equations {
            let sign = equation.sign();
            let difference = equation.difference.map_or_else(
                || "unknown".to_owned(),
                |difference| {
                    let size = u64::try_from(difference.unsigned_abs()).unwrap_or(u64::MAX);
                    format!("{}{}", if difference < 0 { "-" } else { "" }, grouped(size))
                },
            );
            let term = |term: &Term| {
                let value = term.value.map_or_else(|| "unknown".to_owned(), grouped);
                format!("{value} {}", term.word)
            };
            let right: Vec<String> = equation.right.iter().map(term).collect();
            let in_flight = match equation.in_flight {
                0 => String::new(),
                frames => format!(" (up to {} on their way)", grouped(frames)),
            };
            line(format!(
                "{sign} {difference:>10}  {:<9} {} {sign} {}{in_flight}",
                equation.name,
                term(&equation.left),
                right.join(" + ")
            ));
        }
        line(String::new());
        let wrong = self.equations.iter().filter(|one| one.holds == Some(false)).count();
        let unknown = self.equations.iter().filter(|one| one.holds.is_none()).count();
        let mut verdict = match wrong {
            0 => "balanced: nothing has disappeared".to_owned(),
            1 => "NOT balanced: 1 line does not add up".to_owned(),
            wrong => format!("NOT balanced: {wrong} lines do not add up"),
        };
        match unknown {
            0 => {}
            1 => verdict.push_str("; 1 line is not known"),
            unknown => {
                write!(verdict, "; {unknown} lines are not known")
                    .expect("writing to a string cannot fail");
            }
        }
        line(verdict);
        text
    }

    fn state(&self, now: Timestamp) -> String {
        let written = format!("written {}", self.updated_time);
        if self.finished {
            return format!("stopped; {written}");
        }
        match self.updated_time.parse::<Timestamp>().map(|then| now.as_second() - then.as_second())
        {
            Ok(age_s) if age_s <= AGE_MAX_S => format!("running; {written}"),
            Ok(age_s) => {
                let age_s = grouped(age_s.unsigned_abs());
                format!("NOT running any more, and not stopped in order; {written}, {age_s} s ago")
            }
            Err(_no_time) => format!("running, perhaps; {written}"),
        }
    }
}

impl Equation {
    const fn sign(&self) -> char {
        match self.holds {
            Some(true) => match self.difference {
                Some(0) | None => '=',
                // Within what was on its way.
                Some(_) => '≈',
            },
            Some(false) => '≠',
            None => '?',
        }
    }

    fn new(name: &'static str, left: Term, right: Vec<Term>) -> Self {
        let known = |term: &Term| term.value.map(i128::from);
        let sum = right.iter().map(known).sum::<Option<i128>>();
        let difference = known(&left).zip(sum).map(|(whole, sum)| whole - sum);
        let holds = difference.map(|difference| difference == 0);
        Self { name, left, right, in_flight: 0, difference, holds }
    }

    /// The same where some of it may have been on its way.
    fn with_in_flight(mut self, in_flight: Option<u64>) -> Self {
        self.in_flight = in_flight.unwrap_or(0);
        let most = i128::from(self.in_flight);
        self.holds = self.difference.map(|difference| (-most..=most).contains(&difference));
        self
    }
}

fn source(summary: &Value, command: &str) -> String {
    let names = |key: &str, name: &dyn Fn(&Value) -> Option<String>| -> String {
        let list = summary[key].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(name).collect::<Vec<_>>().join(", ")
    };
    let version = summary["sensor_version"].as_str().unwrap_or("of unknown version");
    let own = |value: &Value| value.as_str().map(str::to_owned);
    if command == "run" {
        let mode = summary["xdp_mode"].as_str().unwrap_or("unknown");
        let interfaces = names("interfaces", &own);
        return format!("sensor {version} on {interfaces} ({mode} mode)");
    }
    let files = names("files", &|file| own(&file["path"]));
    format!("sensor {version}, {command} of {files}")
}

/// The books, in the order in which a packet meets them.
fn equations(summary: &Value, command: &str, finished: bool) -> Vec<Equation> {
    let value = |key: &str| summary[key].as_u64();
    let term = |key: &'static str, word: &'static str| Term { key, word, value: value(key) };
    let sum = |key: &'static str, word: &'static str| Term {
        key,
        word,
        value: summary[key]
            .as_object()
            .and_then(|parts| parts.values().map(Value::as_u64).sum::<Option<u64>>()),
    };
    let mut equations = Vec::new();
    if command == "run" {
        let right = vec![term("nic_frames_seen", "seen"), term("nic_missed", "missed")];
        let port = Equation::new("port", term("nic_received", "received"), right);
        equations.push(port.with_in_flight(value("nic_frames_in_flight")));
    }
    equations.push(Equation::new(
        "frames",
        term("frames_seen", "seen"),
        vec![
            term("packets_ip", "IP"),
            term("packets_not_ip", "not IP"),
            term("packets_malformed", "malformed"),
        ],
    ));
    let kinds = vec![sum("not_ip", "by kind")];
    equations.push(Equation::new("not IP", term("packets_not_ip", "not IP"), kinds));
    let reasons = vec![sum("malformed", "by reason")];
    equations.push(Equation::new("malformed", term("packets_malformed", "malformed"), reasons));
    let mut packets = vec![term("packets_in_flows", "in flows"), term("packets_folded", "folded")];
    // A sensor that could not remove copies has removed none.
    if !summary["packets_duplicate"].is_null() {
        packets.push(term("packets_duplicate", "duplicate"));
    }
    let mut records = vec![term("packets_in_records", "in records")];
    if !finished {
        packets.push(term("packets_in_cache", "in the kernel's tables"));
        records.push(term("packets_in_open", "not reported yet"));
    }
    equations.push(Equation::new("packets", term("packets_ip", "IP"), packets));
    let taken = value("packets_in_flows").zip(value("packets_folded"));
    let taken = Term {
        key: "packets_in_flows + packets_folded",
        word: "in flows or folded",
        value: taken.map(|(in_flows, folded)| in_flows + folded),
    };
    equations.push(Equation::new("records", taken, records));
    let is_uplink = |output: &Value| output.as_str() == Some("uplink");
    if summary["outputs"].as_array().is_some_and(|outputs| outputs.iter().any(is_uplink)) {
        equations.extend(uplink(&term, summary));
    }
    equations
}

fn uplink(term: &dyn Fn(&'static str, &'static str) -> Term, summary: &Value) -> [Equation; 2] {
    let begun = summary["records_sealed"].as_u64().zip(summary["records_recovered"].as_u64());
    let begun = Term {
        key: "records_sealed + records_recovered",
        word: "to deliver",
        value: begun.map(|(sealed, recovered)| sealed + recovered),
    };
    let mut sealed = vec![
        term("records_sealed", "sealed"),
        term("records_pending", "waiting to be sealed"),
        term("records_lost", "lost"),
    ];
    // A sensor that could not keep any at home has kept none.
    if let Some(kept) = summary["records_kept"].as_object().filter(|kept| !kept.is_empty()) {
        sealed.push(Term {
            key: "records_kept",
            word: "kept at home",
            value: kept.values().map(Value::as_u64).sum(),
        });
    }
    let delivered = vec![
        term("records_acked", "acked"),
        term("records_acked_earlier", "acked earlier"),
        term("records_waiting", "waiting"),
        term("records_evicted", "evicted"),
        term("records_rejected", "rejected"),
    ];
    [
        Equation::new("batches", term("records_out", "records out"), sealed),
        Equation::new("uplink", begun, delivered),
    ]
}
