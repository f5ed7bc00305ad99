//! In: the rows. Out: for each target what was wanted and what was found.

use std::fmt;

use serde::Serialize;

use super::captures::Shape;
use super::programs::Program;
use super::table::Row;

/// How often the rate of the fastest other probe is asked for.
const TIMES_FASTEST_PEER: f64 = 8.0;

/// One target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Judged {
    pub(super) name: String,
    /// At least so much, or at most.
    pub(super) wanted: f64,
    pub(super) at_most: bool,
    pub(super) measured: f64,
    pub(super) is_met: bool,
}

impl Judged {
    fn at_least(name: impl Into<String>, wanted: f64, measured: f64) -> Self {
        let is_met = measured >= wanted;
        Self { name: name.into(), wanted, at_most: false, measured, is_met }
    }

    fn at_most(name: impl Into<String>, wanted: f64, measured: f64) -> Self {
        let is_met = measured <= wanted;
        Self { name: name.into(), wanted, at_most: true, measured, is_met }
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, verdict) = (&self.name, if self.is_met { "met" } else { "MISSED" });
        let sign = if self.at_most { "<=" } else { ">=" };
        let digits = if self.measured < 100.0 { 2 } else { 0 };
        let (wanted, measured) = (self.wanted, self.measured);
        write!(f, "{name:<58} {sign} {wanted:>5} {measured:>9.digits$}  {verdict}")
    }
}

/// Every target for which there are rows.
pub(super) fn judged(rows: &[Row]) -> Vec<Judged> {
    let row = |shape, program| {
        rows.iter().find(|row| row.shape == shape && row.program == program && row.runs > 0)
    };
    let mut targets = Vec::new();
    for (shape, wanted) in [(Shape::Mix, 12.0), (Shape::Few, 20.0), (Shape::New, 5.0)] {
        if let Some(row) = row(shape, Program::Null) {
            let name = format!("{}, million packets/s", row.name);
            targets.push(Judged::at_least(name, wanted, row.packets_per_s() / 1e6));
        }
    }
    // A probe that loses packets does less than what is measured.
    let is_whole = |row: &&Row| row.lost() == Some(0);
    let peers = rows.iter().filter(|row| row.shape == Shape::Mix && row.program.is_peer());
    let peers = peers.filter(is_whole);
    let fastest = peers.max_by(|a, b| a.packets_per_s().total_cmp(&b.packets_per_s()));
    if let (Some(own), Some(peer)) = (row(Shape::Mix, Program::Null), fastest) {
        let name = format!("{}, times the fastest peer ({})", own.name, peer.program.name());
        let times = own.packets_per_s() / peer.packets_per_s();
        targets.push(Judged::at_least(name, TIMES_FASTEST_PEER, times));
    }
    if let Some(ratio) = row(Shape::Few, Program::Null).and_then(|row| row.ratio_to_cat) {
        targets.push(Judged::at_most("few replay, times the time of cat", 2.0, ratio));
    }
    if let Some(row) = row(Shape::Open, Program::Json) {
        let name = format!("{}, million flows/s", row.name);
        targets.push(Judged::at_least(name, 1.0, row.flows_per_s() / 1e6));
    }
    let (open, lone) = (row(Shape::Open, Program::Null), row(Shape::Lone, Program::Null));
    if let (Some(open), Some(lone)) = (open, lone) {
        #[expect(clippy::cast_precision_loss, reason = "a million flows")]
        let bytes = (open.rss_bytes - lone.rss_bytes) / (open.flows - lone.flows) as f64;
        targets.push(Judged::at_most("resident memory of an open flow, bytes", 220.0, bytes));
    }
    targets
}
