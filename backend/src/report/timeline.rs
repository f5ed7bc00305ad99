//! The period as a line: which parts were observed, and when something happened on it. Draws bars,
//! no text.

use detect::{Finding, Kind};

use super::advice::advice;
use super::model::{Coverage, Interval, ReportInput};
use super::view::{ActivityView, Bar, CoverageView};
use super::words::{self, count, moment, number, real};

/// Width of the coverage drawing in its own units.
const WIDTH: f64 = 1_000.0;
/// Height of the coverage drawing.
const HEIGHT: f64 = 28.0;
/// Height of a spark line.
const SPARK_HEIGHT: f64 = 22.0;
/// Width of one bar of a spark line with its gap.
const SPARK_STEP: f64 = 6.0;
/// Gaps listed by name.
const GAPS_MAX: usize = 6;
/// A gap shorter than this is no gap: batches come in their own rhythm.
const GAP_MS_MIN: u64 = 5 * 60_000;

/// The period and what was observed of it.
pub(super) struct Timeline {
    from_ms: u64,
    to_ms: u64,
    /// In order, apart, and inside the period.
    observed: Vec<Interval>,
    step_ms: u64,
}

impl Timeline {
    pub(super) fn new(input: &ReportInput) -> Self {
        let (from_ms, to_ms) = (input.period.from_ms, input.period.to_ms);
        let observed = merged(&input.coverage.observed, from_ms, to_ms);
        Self { from_ms, to_ms, observed, step_ms: step_ms(to_ms - from_ms) }
    }

    pub(super) const fn period_ms(&self) -> u64 {
        self.to_ms - self.from_ms
    }

    pub(super) fn observed_ms(&self) -> u64 {
        self.observed.iter().map(|part| part.to_ms - part.from_ms).sum()
    }

    /// What one bar of a spark line stands for.
    pub(super) const fn step_name(&self) -> &'static str {
        match self.step_ms {
            60_000 => "minute",
            600_000 => "ten minutes",
            3_600_000 => "hour",
            86_400_000 => "day",
            _ => "week",
        }
    }

    /// The stretches that nobody observed.
    fn gaps(&self) -> Vec<Interval> {
        let mut gaps = Vec::new();
        let mut from_ms = self.from_ms;
        for part in &self.observed {
            gaps.push(Interval { from_ms, to_ms: part.from_ms });
            from_ms = part.to_ms;
        }
        gaps.push(Interval { from_ms, to_ms: self.to_ms });
        gaps.retain(|gap| gap.to_ms > gap.from_ms);
        gaps
    }

    pub(super) fn coverage(&self, coverage: &Coverage) -> CoverageView {
        let (observed_ms, period_ms) = (self.observed_ms(), self.period_ms());
        let mut gaps = self.gaps();
        gaps.sort_by_key(|gap| std::cmp::Reverse(gap.to_ms - gap.from_ms));
        gaps.retain(|gap| gap.to_ms - gap.from_ms >= GAP_MS_MIN);
        let hidden = gaps.len().saturating_sub(GAPS_MAX);
        gaps.truncate(GAPS_MAX);
        gaps.sort_unstable();
        let named = |gap: &Interval| {
            let length = words::duration(gap.to_ms - gap.from_ms);
            format!("{} – {} ({length})", moment(gap.from_ms), moment(gap.to_ms))
        };
        let sentence = match (coverage.sensors, observed_ms) {
            (0, 0) => "No sensor is enrolled for this site, so nothing was observed.".to_owned(),
            (_, 0) => "Nothing was observed. The rest of this report is empty for that reason, and for no other."
                .to_owned(),
            _ => format!(
                "{} were observed ({}), by {}.",
                words::of(observed_ms, period_ms),
                words::percent(observed_ms, period_ms),
                if coverage.sensors_heard == coverage.sensors {
                    count(coverage.sensors, "sensor", "sensors")
                } else {
                    format!(
                        "{} of {}",
                        number(coverage.sensors_heard),
                        count(coverage.sensors, "sensor", "sensors")
                    )
                }
            ),
        };
        CoverageView {
            bar_label: format!(
                "Observed time: {} of the period",
                words::percent(observed_ms, period_ms)
            ),
            sentence,
            bar: self.observed.iter().map(|part| self.bar(part)).collect(),
            from: moment(self.from_ms),
            to: moment(self.to_ms),
            gaps: if observed_ms == 0 { Vec::new() } else { gaps.iter().map(named).collect() },
            gaps_more: (hidden > 0).then(|| {
                format!("and {} more, each shorter than those above", number(hidden as u64))
            }),
            facts: facts(coverage, observed_ms),
        }
    }

    fn bar(&self, part: &Interval) -> Bar {
        let place = |at_ms: u64| real(at_ms - self.from_ms) / real(self.period_ms()) * WIDTH;
        let x = place(part.from_ms);
        // A minute of a month must be visible too.
        Bar { x, width: (place(part.to_ms) - x).max(1.0), y: 0.0, height: HEIGHT }
    }

    /// One line for each kind, with the number of campaigns going on in each step of the period.
    pub(super) fn activity(
        &self,
        findings: &[&Finding],
        before: Option<&[(Kind, u64)]>,
    ) -> Vec<ActivityView> {
        let view = |kind: Kind| {
            let of_kind: Vec<&Finding> =
                findings.iter().filter(|finding| finding.kind == kind).copied().collect();
            let campaigns = of_kind.len() as u64;
            let earlier = before.map(|before| {
                before.iter().filter(|(known, _)| *known == kind).map(|(_, count)| *count).sum()
            });
            if campaigns == 0 && earlier.unwrap_or(0) == 0 {
                return None;
            }
            let counts = self.spark(&of_kind);
            let busiest = counts.iter().copied().max().unwrap_or(0);
            Some(ActivityView {
                title: advice(kind).title,
                campaigns: number(campaigns),
                sources: number(of_kind.iter().map(|finding| finding.sources).sum()),
                records: number(of_kind.iter().map(|finding| finding.records).sum()),
                change: change(campaigns, earlier),
                bars: bars(&counts, busiest),
                spark_width: counts.len() * 6,
                bars_label: format!(
                    "At most {} at once in one {}",
                    number(busiest),
                    self.step_name()
                ),
            })
        };
        Kind::ALL.into_iter().filter_map(view).collect()
    }

    /// How many of these campaigns went on in each step.
    fn spark(&self, findings: &[&Finding]) -> Vec<u64> {
        let steps = self.period_ms().div_ceil(self.step_ms);
        let going_on = |step: u64| {
            let from_ms = self.from_ms + step * self.step_ms;
            let to_ms = (from_ms + self.step_ms).min(self.to_ms);
            let overlaps =
                |finding: &&&Finding| finding.first_ms < to_ms && finding.last_ms >= from_ms;
            findings.iter().filter(overlaps).count() as u64
        };
        (0..steps).map(going_on).collect()
    }
}

/// Steps of which at most about sixty make the period.
const fn step_ms(period_ms: u64) -> u64 {
    match period_ms {
        0..3_600_001 => 60_000,
        3_600_001..36_000_001 => 600_000,
        36_000_001..259_200_001 => 3_600_000,
        259_200_001..5_356_800_001 => 86_400_000,
        _ => 7 * 86_400_000,
    }
}

/// Overlaps joined, and cut to the period.
fn merged(intervals: &[Interval], from_ms: u64, to_ms: u64) -> Vec<Interval> {
    let cut = |part: &Interval| Interval {
        from_ms: part.from_ms.max(from_ms),
        to_ms: part.to_ms.min(to_ms),
    };
    let mut parts: Vec<Interval> =
        intervals.iter().map(cut).filter(|part| part.from_ms < part.to_ms).collect();
    parts.sort_unstable();
    let mut merged: Vec<Interval> = Vec::new();
    for part in parts {
        match merged.last_mut() {
            Some(last) if part.from_ms <= last.to_ms => last.to_ms = last.to_ms.max(part.to_ms),
            _ => merged.push(part),
        }
    }
    merged
}

fn bars(counts: &[u64], busiest: u64) -> Vec<Bar> {
    let bar = |(at, &count): (usize, &u64)| {
        let height = real(count) / real(busiest.max(1)) * SPARK_HEIGHT;
        let x = real(at as u64) * SPARK_STEP;
        // An empty step keeps a hairline, so that the row of steps can be seen.
        let height = height.max(1.0);
        Bar { x, width: SPARK_STEP - 1.5, y: SPARK_HEIGHT - height, height }
    };
    counts.iter().enumerate().map(bar).collect()
}

fn change(now: u64, before: Option<u64>) -> String {
    let Some(before) = before else { return "no earlier report".to_owned() };
    match now.cmp(&before) {
        std::cmp::Ordering::Equal => "as before".to_owned(),
        std::cmp::Ordering::Greater => format!("{} more", number(now - before)),
        std::cmp::Ordering::Less => format!("{} fewer", number(before - now)),
    }
}

fn facts(coverage: &Coverage, observed_ms: u64) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if observed_ms > 0 {
        let Coverage { frames_seen, frames_missed, packets_not_ip, packets_malformed, .. } =
            coverage;
        facts.push(("Packets seen", number(*frames_seen)));
        facts.push((
            "Packets lost by the network card",
            match frames_missed {
                Some(missed) => format!(
                    "{} ({})",
                    number(*missed),
                    words::percent(*missed, frames_seen.saturating_add(*missed))
                ),
                None => words::known(None),
            },
        ));
        facts.push(("Seen but not analysed: not IP", number(*packets_not_ip)));
        facts.push(("Seen but not analysed: broken headers", number(*packets_malformed)));
        facts.push((
            "Seen but only counted, because a table was full",
            number(coverage.packets_folded),
        ));
        if coverage.packets_duplicate > 0 {
            let told = "Seen twice, because the mirror sends copies, and analysed once";
            facts.push((told, number(coverage.packets_duplicate)));
        }
        facts.push(("Records lost before they could be sent", number(coverage.records_evicted)));
    }
    facts.push((
        "Taken as your own addresses",
        if coverage.own_prefixes.is_empty() {
            "all private addresses; your public addresses are not known to us".to_owned()
        } else {
            coverage.own_prefixes.join(", ")
        },
    ));
    facts
}
