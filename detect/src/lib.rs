//! Flow records in, findings out: what a member's traffic says about attacks on it and from it.
//!
//! In: [`flow::Record`]s, roughly in the order in which they ended. Out: [`Finding`]s with the
//! rule, its version, the measured value and the threshold. The rules and where their numbers come
//! from: `docs/detectors.md`.
//!
//! This crate never reads a clock, a file or a socket: the same records give the same findings,
//! from the wire, from a replayed capture and from stored batches years later.
#![forbid(unsafe_code)]

mod backscatter;
mod beacon;
mod detection;
mod distinct;
mod facts;
mod finding;
mod flood;
mod guessing;
mod prefix;
mod recent;
mod reflection;
mod scan;
mod settings;
mod slots;
mod table;
mod watch;

pub use detection::{Counters, Detection};
pub use finding::{
    Confidence, Finding, FindingId, FindingIdError, KeyScope, Kind, Severity, TrafficDirection,
};
pub use prefix::{Prefix, PrefixError};
pub use settings::{LoginPort, Settings};
pub use watch::WatchCounters;
