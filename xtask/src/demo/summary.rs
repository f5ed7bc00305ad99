//! The demo's result: the books from the wire to the stored row, what was found, and whether that is right.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One finding, as far as the demo compares it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) kind: String,
    pub(super) source: Option<String>,
    pub(super) target: Option<String>,
}

/// One finding with the key that its pseudonyms are of.
#[derive(Debug)]
pub(super) struct Scoped {
    pub(super) finding: Found,
    /// `None`: there are none in it.
    pub(super) key_epoch: Option<u32>,
}

impl Found {
    pub(super) fn new(kind: &str, source: Option<&str>, target: Option<&str>) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self { kind: kind.to_owned(), source: owned(source), target: owned(target) }
    }
}

/// The sensor's side of the books, as `spanwatch-sensor --summary` writes it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct SensorBooks {
    pub(super) frames_seen: u64,
    pub(super) packets_in_flows: u64,
    pub(super) packets_not_ip: u64,
    pub(super) packets_malformed: u64,
    pub(super) packets_folded: u64,
    pub(super) records_sealed: u64,
    pub(super) records_acked: u64,
    pub(super) xdp_mode: Option<String>,
}

/// What `summary.json` holds.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) mode: &'static str,
    /// `null` where nobody but the sensor counted.
    pub(super) frames_injected: Option<u64>,
    pub(super) frames_seen: u64,
    pub(super) packets_in_flows: u64,
    pub(super) packets_not_ip: u64,
    pub(super) packets_malformed: u64,
    pub(super) packets_folded: u64,
    pub(super) records_sealed: u64,
    pub(super) records_acked: u64,
    pub(super) rows_stored: u64,
    pub(super) findings: Vec<Found>,
    pub(super) xdp_mode: Option<String>,
    pub(super) balanced: bool,
}

impl Summary {
    pub(super) fn new(
        mode: &'static str,
        frames_injected: Option<u64>,
        sensor: SensorBooks,
        rows_stored: u64,
        findings: Vec<Found>,
    ) -> Self {
        let accounted = sensor.packets_in_flows
            + sensor.packets_folded
            + sensor.packets_not_ip
            + sensor.packets_malformed;
        let balanced = frames_injected.is_none_or(|injected| injected == sensor.frames_seen)
            && sensor.frames_seen == accounted
            && sensor.records_sealed == sensor.records_acked
            && sensor.records_acked == rows_stored;
        Self {
            mode,
            frames_injected,
            frames_seen: sensor.frames_seen,
            packets_in_flows: sensor.packets_in_flows,
            packets_not_ip: sensor.packets_not_ip,
            packets_malformed: sensor.packets_malformed,
            packets_folded: sensor.packets_folded,
            records_sealed: sensor.records_sealed,
            records_acked: sensor.records_acked,
            rows_stored,
            findings,
            xdp_mode: sensor.xdp_mode,
            balanced,
        }
    }

    /// What is missing from, and what is too much in the findings.
    pub(super) fn compare(&self, expected: &[Found]) -> (Vec<Found>, Vec<Found>) {
        let expected: BTreeSet<_> = expected.iter().cloned().collect();
        let found: BTreeSet<_> = self.findings.iter().cloned().collect();
        (
            expected.difference(&found).cloned().collect(),
            found.difference(&expected).cloned().collect(),
        )
    }

    /// For the person at the terminal.
    pub(super) fn to_text(&self) -> String {
        let injected =
            self.frames_injected.map_or_else(|| "unknown".to_owned(), |frames| frames.to_string());
        let verdict = |equal: bool| if equal { "=" } else { "≠" };
        let behind_sensor = self.packets_in_flows
            + self.packets_folded
            + self.packets_not_ip
            + self.packets_malformed;
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            writeln!(text, "  {name:<34}{value:>12}").expect("writing to a string never fails");
        };
        line("frames on the mirror port", &injected);
        let seen = verdict(self.frames_injected.is_none_or(|frames| frames == self.frames_seen));
        line(&format!("{seen} frames seen"), &self.frames_seen.to_string());
        line(
            &format!("{} packets in flows", verdict(self.frames_seen == behind_sensor)),
            &self.packets_in_flows.to_string(),
        );
        line("  + packets folded", &self.packets_folded.to_string());
        line("  + not IP", &self.packets_not_ip.to_string());
        line("  + malformed", &self.packets_malformed.to_string());
        line("records sealed", &self.records_sealed.to_string());
        line(
            &format!("{} records acknowledged", verdict(self.records_sealed == self.records_acked)),
            &self.records_acked.to_string(),
        );
        line(
            &format!("{} rows stored", verdict(self.records_acked == self.rows_stored)),
            &self.rows_stored.to_string(),
        );
        line("the books balance", if self.balanced { "yes" } else { "NO" });
        text
    }
}

/// The alerts among what `spanwatch-backend findings --json` prints; what is only classified (backscatter) is
/// none.
pub(super) fn findings(json: &str) -> Result<Vec<Scoped>> {
    let all: Vec<Value> = serde_json::from_str(json).context("the findings are no JSON list")?;
    let mut found = Vec::new();
    for value in all {
        let key_epoch = value["key_scope"]["key_epoch"].as_u64();
        let key_epoch = key_epoch.map(u32::try_from).transpose().context("no key epoch")?;
        let finding: Found =
            serde_json::from_value(value).context("a finding lacks kind, source or target")?;
        if finding.kind != "backscatter" {
            found.push(Scoped { finding, key_epoch });
        }
    }
    Ok(found)
}
