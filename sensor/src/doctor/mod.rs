//! Finds what breaks a mirror port, and says what mends it. In: an interface, or a capture file. Out: a report for the
//! engineer who has to mend it.
//!
//! On an interface it asks the kernel and the driver how they are set, lets the inspection program count for some
//! seconds in place of the sensor's, and judges both. No packet byte comes to user space, and nothing is changed:
//! the commands are printed, not run.

mod checks;
mod file;
mod finding;
mod live;
mod render;
mod thresholds;
mod traffic;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use crate::capture::{
    After, AttachMode, CaptureError, InterfaceFacts, MachineFacts, NicStatistics,
};
use crate::pcap::CaptureFileError;

pub use file::{Inspector, doctor_file};
pub use finding::{Finding, Remedy, Severity};
pub use live::doctor_interface;
pub use traffic::{Tcp, Traffic};

/// How to look at an interface.
#[derive(Clone, Debug)]
pub struct DoctorOptions {
    /// Its name.
    pub interface: String,
    /// How long to listen.
    pub listen: Duration,
    /// Stop as soon as so many frames have been seen.
    pub frames: Option<u64>,
    /// What happens to a frame after it was looked at.
    pub after: After,
    /// `None`: native, and generic where the driver cannot.
    pub mode: Option<AttachMode>,
}

/// Why nothing could be examined.
#[derive(Debug, Error)]
pub enum DoctorError {
    /// No such interface, or no permission.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Not a capture.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: CaptureFileError,
    },
    /// The signal handler could not be set up.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// What was examined, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Name of the interface or file.
    pub subject: String,
    /// One sentence.
    pub verdict: String,
    /// Number of faults.
    pub faults: usize,
    /// Number of warnings.
    pub warnings: usize,
    /// All findings, the worst first.
    pub findings: Vec<Finding>,
    /// Where the inspection ran: `native` or `generic`.
    pub mode: Option<&'static str>,
    /// What kernel and driver say about the interface.
    pub interface: Option<InterfaceFacts>,
    /// What the kernel says about the machine.
    pub machine: Option<MachineFacts>,
    /// What card and driver counted meanwhile.
    pub nic: Option<Nic>,
    /// What was counted in the traffic.
    pub traffic: Option<Traffic>,
}

/// What card and driver counted; `None` is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Nic {
    /// Frames received.
    pub received: Option<u64>,
    /// Frames lost before the program.
    pub missed: Option<u64>,
    /// Frames dropped at a place that is not known.
    pub unclear: Option<u64>,
}

impl From<NicStatistics> for Nic {
    fn from(statistics: NicStatistics) -> Self {
        let NicStatistics { received, missed, unclear } = statistics;
        Self { received, missed, unclear }
    }
}

impl Report {
    /// Sorts the findings and sums them up.
    fn new(subject: String, mut findings: Vec<Finding>) -> Self {
        // Within a severity the order of the checks stays: it is their weight.
        findings.sort_by_key(|finding| finding.severity);
        let count =
            |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        let (faults, warnings) = (count(Severity::Fault), count(Severity::Warning));
        let unknown = count(Severity::Unknown);
        let plural = |number: usize| if number == 1 { "" } else { "s" };
        let mut parts = Vec::new();
        if faults > 0 {
            let names = findings.iter().filter(|finding| finding.severity == Severity::Fault);
            let names: Vec<_> = names.map(|finding| finding.check).collect();
            parts.push(format!("{faults} fault{} ({})", plural(faults), names.join(", ")));
        } else if warnings > 0 {
            parts.push("no fault".to_owned());
        } else {
            parts.push("nothing is wrong".to_owned());
        }
        if warnings > 0 {
            parts.push(format!("{warnings} warning{}", plural(warnings)));
        }
        let mut verdict = parts.join(", ");
        if unknown > 0 {
            let _infallible = write!(verdict, "; {unknown} could not be judged");
        }
        Self { subject, verdict, faults, warnings, findings, ..Self::default() }
    }

    /// The report for people, in colours or plain.
    #[must_use]
    pub fn text(&self, in_colours: bool) -> String {
        render::text(self, in_colours)
    }
}

#[cfg(test)]
mod tests;
