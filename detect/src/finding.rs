//! What a detector tells: one campaign, with all that is needed to check it.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One source tried many ports of one target.
    VerticalScan,
    /// One source tried one port of many targets.
    HorizontalScan,
    /// A service was given connection openings that nobody completed.
    SynFlood,
    /// One source opened many similar short sessions with a login service.
    PasswordGuessing,
    /// A target got answers that it never asked for from many amplifying servers.
    Reflection,
    /// A host inside calls the same place outside at regular times.
    Beacon,
    /// Answers to packets that somebody else sent in the receiver's name. Informational, never an
    /// alert.
    Backscatter,
}

impl Kind {
    /// Every kind, in the order of the type.
    pub const ALL: [Self; 7] = [
        Self::VerticalScan,
        Self::HorizontalScan,
        Self::SynFlood,
        Self::PasswordGuessing,
        Self::Reflection,
        Self::Beacon,
        Self::Backscatter,
    ];

    /// The name in JSON, in SQL and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VerticalScan => "vertical_scan",
            Self::HorizontalScan => "horizontal_scan",
            Self::SynFlood => "syn_flood",
            Self::PasswordGuessing => "password_guessing",
            Self::Reflection => "reflection",
            Self::Beacon => "beacon",
            Self::Backscatter => "backscatter",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// How much it matters to the member; the five steps of Shadowserver's reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know; nothing to do.
    Informational,
    /// Background noise of the Internet, or a weak sign.
    Low,
    /// Look at it this week.
    Medium,
    /// Look at it today.
    High,
    /// Drop everything.
    Critical,
}

impl Severity {
    /// The name in JSON and in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// How sure the rule is that it saw what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// There are ordinary explanations.
    Low,
    /// Ordinary explanations are rare.
    Medium,
    /// No ordinary explanation is known.
    High,
}

impl Confidence {
    /// The name in JSON and in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Which way the traffic went, as far as the member's own addresses tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrafficDirection {
    /// From outside to an own address.
    Inbound,
    /// From an own address to the outside.
    Outbound,
    /// Between two own addresses.
    Internal,
    /// Between two addresses that are not known as own.
    Unknown,
}

impl TrafficDirection {
    /// The name in JSON and in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Internal => "internal",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the source is an own address.
    #[must_use]
    pub const fn is_from_inside(self) -> bool {
        matches!(self, Self::Outbound | Self::Internal)
    }
}

impl fmt::Display for TrafficDirection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Names one campaign for ever: a hash of kind, source, target, port and first window. The same
/// records give the same identifier. Unique within one member; 32 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FindingId([u8; 16]);

/// A text that is no finding's identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("finding identifier {0:?} is not 32 hexadecimal digits")]
pub struct FindingIdError(String);

impl FindingId {
    pub(crate) fn of(
        kind: Kind,
        source: Option<IpAddr>,
        target: Option<IpAddr>,
        port: Option<u16>,
        first_window: u64,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"spanwatch finding 1\0");
        hasher.update(kind.as_str().as_bytes());
        for address in [source, target] {
            match address {
                None => hasher.update(&[0]),
                Some(IpAddr::V4(v4)) => hasher.update(&[4]).update(&v4.octets()),
                Some(IpAddr::V6(v6)) => hasher.update(&[6]).update(&v6.octets()),
            };
        }
        hasher.update(&port.map_or(u32::MAX, u32::from).to_le_bytes());
        hasher.update(&first_window.to_le_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }

    fn within(self, key_scope: &KeyScope) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"spanwatch finding of a key 1\0").update(&self.0);
        hasher.update(key_scope.sensor.as_bytes()).update(&key_scope.key_epoch.to_le_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }

    /// The identifier's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for FindingId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for FindingId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "FindingId({self})")
    }
}

impl FromStr for FindingId {
    type Err = FindingIdError;

    fn from_str(text: &str) -> Result<Self, FindingIdError> {
        let malformed = || FindingIdError(text.to_owned());
        if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        match u128::from_str_radix(text, 16) {
            Ok(number) => Ok(Self(number.to_be_bytes())),
            Err(_) => Err(malformed()),
        }
    }
}

impl TryFrom<String> for FindingId {
    type Error = FindingIdError;

    fn try_from(text: String) -> Result<Self, FindingIdError> {
        text.parse()
    }
}

impl From<FindingId> for String {
    fn from(id: FindingId) -> Self {
        id.to_string()
    }
}

/// Which key made the pseudonyms in the records that a finding rests on: those of another sensor, or of another key
/// epoch, stand for other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyScope {
    /// Whose key it is.
    pub sensor: String,
    /// Its number at that sensor.
    pub key_epoch: u32,
}

/// One campaign as it stands now. A later finding with the same [`Finding::id`] replaces it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Names the campaign.
    pub id: FindingId,
    /// What happened.
    pub kind: Kind,
    /// The rule that was met; `docs/detectors.md` has a section of this name.
    pub rule: Cow<'static, str>,
    /// Counts up whenever the rule would judge the same records otherwise.
    pub rule_version: u32,
    /// How much it matters.
    pub severity: Severity,
    /// How sure the rule is.
    pub confidence: Confidence,
    /// Which way the traffic went.
    pub direction: TrafficDirection,
    /// Who did it, when it is one address. Of backscatter: the attacked host whose answers these
    /// are.
    pub source: Option<IpAddr>,
    /// Whom it was done to, when it is one address.
    pub target: Option<IpAddr>,
    /// The port it was done to, when it is one.
    pub target_port: Option<u16>,
    /// Different sources; above a few hundred an estimate within about 3 %.
    pub sources: u64,
    /// Different targets; above 1,024 an estimate within about 3 %.
    pub targets: u64,
    /// Start of the first record, milliseconds since the Unix epoch.
    pub first_ms: u64,
    /// End of the last record, milliseconds since the Unix epoch.
    pub last_ms: u64,
    /// The window that the rule looks at, milliseconds.
    pub window_ms: u64,
    /// What the rule measured: the whole campaign's count, or its worst window's rate.
    pub measured: f64,
    /// The unit of `measured` and `threshold`.
    pub measured_unit: Cow<'static, str>,
    /// What it takes to meet the rule.
    pub threshold: f64,
    /// How many powers of ten `measured` lies above `threshold`: tell people again when this grows,
    /// not otherwise.
    pub escalation: u8,
    /// Whether the source addresses may be forged, because no source completed a TCP handshake.
    pub spoofable: bool,
    /// Flow records that count as evidence.
    pub records: u64,
    /// Packets of these records, both ways.
    pub packets: u64,
    /// Bytes of these records, both ways.
    pub bytes: u64,
    /// MITRE ATT&CK technique, such as `T1046`; empty where none fits.
    pub technique: Cow<'static, str>,
    /// One sentence for people.
    pub summary: String,
    /// Which key's pseudonyms own addresses in it may be; `None`: none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_scope: Option<KeyScope>,
}

impl Finding {
    /// The same finding of records with pseudonyms of one key: another one than that of equal addresses under any other
    /// key, and under none.
    #[must_use]
    pub fn within(self, key_scope: KeyScope) -> Self {
        let id = self.id.within(&key_scope);
        Self { id, key_scope: Some(key_scope), ..self }
    }
}

/// Powers of ten between threshold and measured value.
pub(crate) fn escalation(measured: f64, threshold: f64) -> u8 {
    let (mut steps, mut bound) = (0, threshold * 10.0);
    while measured >= bound && steps < 9 && bound > 0.0 {
        steps += 1;
        bound *= 10.0;
    }
    steps
}

/// A count as a measured value.
#[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^53")]
pub(crate) const fn real(count: u64) -> f64 {
    count as f64
}

/// Records, packets and bytes that count as evidence.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) records: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Totals {
    pub(crate) const fn add(&mut self, record: &flow::Record) {
        self.records += 1;
        self.packets += record.from_initiator.packets + record.from_responder.packets;
        self.bytes += record.from_initiator.bytes + record.from_responder.bytes;
    }

    pub(crate) const fn absorb(&mut self, other: &Self) {
        self.records += other.records;
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// First and last moment of the evidence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) first_ms: u64,
    pub(crate) last_ms: u64,
}

impl Span {
    pub(crate) const fn of(record: &flow::Record) -> Self {
        Self { first_ms: record.start_ms, last_ms: record.end_ms }
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.first_ms = self.first_ms.min(other.first_ms);
        self.last_ms = self.last_ms.max(other.last_ms);
    }
}

/// A number as people write it: `37,841`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
