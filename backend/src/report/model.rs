//! What a member report says, as plain data. Whoever gathers it asks lake and database; whoever
//! renders it asks nobody. An `Option` that is `None` means "not known", and is printed as that.

use std::collections::BTreeSet;
use std::net::IpAddr;

use detect::{Finding, KeyScope, Kind};

/// Everything that one report says.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportInput {
    /// Who this report is for, as people call them.
    pub member_name: String,
    /// The member's identifier.
    pub member: String,
    /// The police force that runs the service for them, such as "Avon and Somerset Police".
    pub force: Option<String>,
    /// Names this report for ever; shown so that people can refer to it.
    pub report_id: String,
    /// Version of the software that made it.
    pub version: String,
    /// When it was made, milliseconds since the Unix epoch.
    pub generated_ms: u64,
    /// What time it speaks about.
    pub period: Period,
    /// What was seen of that time.
    pub coverage: Coverage,
    /// All findings whose time overlaps the period, in any order; rows beyond what a page holds are
    /// summed up.
    pub findings: Vec<Finding>,
    /// Addresses in the findings that are pseudonyms of own clients, each with its key.
    pub pseudonyms: BTreeSet<(IpAddr, KeyScope)>,
    /// Campaigns by kind in the period before; `None` when there is none to compare with.
    pub campaigns_before: Option<Vec<(Kind, u64)>>,
    /// The sources with most attempts, most first; at most ten are shown.
    pub sources: Vec<SourceRow>,
    /// The ports most tried from outside, most first; at most ten are shown.
    pub ports: Vec<PortRow>,
    /// The own addresses most tried, most first; at most ten are shown.
    pub targets: Vec<TargetRow>,
    /// What left the site for this report.
    pub sent: Sent,
}

/// The time that a report speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// How the report calls it.
    pub name: PeriodName,
    /// First moment, milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// First moment after it, milliseconds since the Unix epoch; more than `from_ms`.
    pub to_ms: u64,
}

/// How a report calls its period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeriodName {
    /// Seven days.
    Weekly,
    /// A calendar month.
    Monthly,
    /// Whatever was asked for.
    Custom,
}

/// What was seen of the period.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coverage {
    /// Sensors enrolled at the site.
    pub sensors: u64,
    /// Sensors that sent anything in the period.
    pub sensors_heard: u64,
    /// When at least one sensor was observing; in any order, may overlap and may stick out of the
    /// period.
    pub observed: Vec<Interval>,
    /// Frames that the sensors were given.
    pub frames_seen: u64,
    /// Frames that the network card lost before a sensor saw them.
    pub frames_missed: Option<u64>,
    /// Frames that carry something other than IP: seen, not analysed.
    pub packets_not_ip: u64,
    /// Frames with broken headers: seen, not analysed.
    pub packets_malformed: u64,
    /// Packets counted in coarse totals only, because a table was full: in no flow, so not
    /// analysed.
    pub packets_folded: u64,
    /// Packets that a sensor removed because its mirror delivered them twice; each is analysed once.
    pub packets_duplicate: u64,
    /// Flow records that a full spool had to drop before they were sent.
    pub records_evicted: u64,
    /// Flow records that stayed at the site because both ends are its own.
    pub records_kept_internal: u64,
    /// Flow records that stayed at the site because an end is in a range that it trusts.
    pub records_kept_trusted: u64,
    /// The member's own address ranges; empty means that private addresses were taken as own.
    pub own_prefixes: Vec<String>,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    /// First moment, milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// First moment after it, milliseconds since the Unix epoch.
    pub to_ms: u64,
}

/// One source of attempts.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceRow {
    /// Its address.
    pub address: IpAddr,
    /// Where it is the pseudonym of an own client: of which key.
    pub pseudonym: Option<KeyScope>,
    /// Connection attempts and other flows from it that a finding counts as evidence.
    pub attempts: u64,
    /// Own addresses it tried.
    pub targets: u64,
    /// What it did.
    pub kinds: Vec<Kind>,
    /// It never completed a TCP handshake, so somebody else may have used its name.
    pub may_be_forged: bool,
    /// First seen in the period, milliseconds since the Unix epoch.
    pub first_ms: u64,
    /// Last seen in the period, milliseconds since the Unix epoch.
    pub last_ms: u64,
}

/// One port that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRow {
    /// Port number.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Flows from outside to this port.
    pub attempts: u64,
    /// Those that an own host answered: a completed handshake, or a datagram back.
    pub answered: u64,
    /// Different sources.
    pub sources: u64,
}

/// One own address that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRow {
    /// Its address.
    pub address: IpAddr,
    /// Where it is the pseudonym of a client: of which key.
    pub pseudonym: Option<KeyScope>,
    /// Flows from outside to it.
    pub attempts: u64,
    /// Different sources.
    pub sources: u64,
    /// Different ports on which it answered.
    pub ports_answering: u64,
}

/// What left the site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Sealed batches.
    pub batches: u64,
    /// Bytes of these batches, as sent; `None` where it was not kept.
    pub bytes: Option<u64>,
    /// Flow records in them.
    pub records: u64,
    /// The keys whose pseudonyms are in them.
    pub keys: Vec<KeyScope>,
    /// Batches with addresses of clients as they are, as far as there were any.
    pub batches_in_clear: u64,
}
