//! The checks: take facts and counts, give findings. Pure functions; the order here is the weight of a finding among
//! those of the same severity.

mod link;
mod queues;
mod reception;
mod tcp;
mod traffic;

use super::finding::Finding;
use super::traffic::Traffic;
use crate::capture::{AttachMode, InterfaceFacts, MachineFacts, NicStatistics};

/// Everything that is known about a live port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Port<'a> {
    pub(super) facts: &'a InterfaceFacts,
    pub(super) machine: &'a MachineFacts,
    /// Where the inspection ran.
    pub(super) mode: Option<AttachMode>,
    /// Why it did not run.
    pub(super) not_run: Option<&'a NotRun>,
    /// What it counted.
    pub(super) traffic: Option<&'a Traffic>,
    /// What card and driver counted meanwhile.
    pub(super) nic: NicStatistics,
}

/// Why the traffic could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotRun {
    /// There is nothing to see: switched off, or no signal.
    Down,
    /// Another XDP program is in the way.
    Occupied,
    /// The kernel lacks something; in its words.
    Kernel(String),
    /// The driver refuses; in the kernel's words.
    Refused(String),
}

/// Judges a live port.
pub(super) fn port(port: &Port<'_>) -> Vec<Finding> {
    let mut findings = link::check(port);
    match port.traffic {
        Some(traffic) => {
            findings.extend(traffic::arrival(port, traffic));
            if traffic.frames > 0 {
                findings.extend(capture(traffic));
                findings.extend(tcp::long_segments(traffic, Some(port.facts)));
            }
        }
        None => findings.push(Finding::unknown(
            "traffic",
            "The traffic was not looked at: see above for what is in the way.",
        )),
    }
    findings.extend(reception::check(port));
    findings.extend(queues::check(port));
    findings
}

/// Judges what was counted in the traffic, wherever it came from.
pub(super) fn capture(traffic: &Traffic) -> Vec<Finding> {
    let mut findings = tcp::check(traffic);
    findings.extend(traffic::check(traffic));
    findings
}

/// Judges a capture file.
pub(super) fn file(traffic: &Traffic) -> Vec<Finding> {
    if traffic.frames == 0 {
        return vec![Finding::unknown("traffic", "The capture holds no frame.")];
    }
    let mut findings = capture(traffic);
    findings.extend(tcp::long_segments(traffic, None));
    findings
}

#[cfg(test)]
mod tests;
