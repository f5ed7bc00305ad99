//! What is own, and where each rule draws its line. Every default names where its number comes
//! from; the long form is `docs/detectors.md`.

use serde::{Deserialize, Serialize};

use crate::Prefix;

/// A port behind which people and programs log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginPort {
    /// TCP port.
    pub port: u16,
    /// People log in here (SSH, Telnet, remote desktop). Where only programs do (databases, file
    /// shares), many similar short sessions from inside are everyday work, so only sources outside
    /// are judged.
    pub interactive: bool,
}

/// All lines that the rules draw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The member's own addresses. Empty: RFC 1918, RFC 6598, ULA and link-local addresses count as
    /// own.
    pub own_prefixes: Vec<Prefix>,
    /// How long scan evidence counts. 15 min as in simple-scan; NEMEA uses 5 min idle, SLIPS 1 h.
    pub scan_window_ms: u64,
    /// Failed ports of one target. 15 as in `CrowdSec`; of one real host's 13,507 sources in three
    /// days 222 reached it. NEMEA 50, simple-scan 25.
    pub vertical_ports: u32,
    /// Failed targets of one port, source outside. 25 as in `SSHCure` and old Zeek; NEMEA 50,
    /// simple-scan 20.
    pub horizontal_targets: u32,
    /// Failed targets of one port, source inside. 100, since clients fail at many places when a
    /// line is down; simple-scan has 250 for local sources.
    pub horizontal_targets_inside: u32,
    /// Failed share of all targets tried on that port, at least. A third, as in hoststats.
    pub horizontal_failed_share: f64,
    /// Campaigns of one source that are told one by one; further ones are told as one.
    pub scan_campaigns_apart: u32,
    /// Half-open connections a second to one port of one host. 200; a published spoofed flood runs
    /// at 1,600, `FastNetMon`'s default 20,000 packets and NEMEA's 900 a second would miss it.
    pub flood_half_open_per_s: u32,
    /// Completed share of all openings, at most, for that rate. 0.2, as NEMEA has it (less than 80
    /// % answered is abnormal there; a busy server completes far more).
    pub flood_completion_max: f64,
    /// Half-open connections a second that suffice when nearly each has another source. 50, own
    /// judgement.
    pub flood_many_half_open_per_s: u32,
    /// Completed share, at most, for that smaller rate. 5 %.
    pub flood_many_completion_max: f64,
    /// Ports where passwords are guessed. NEMEA's and `SSHCure`'s ports, and those seen in
    /// `CrowdSec`'s hub.
    pub login_ports: Vec<LoginPort>,
    /// How long login sessions count. 10 min, between `CrowdSec`'s slow rule and Zeek's 30 min.
    pub guessing_window_ms: u64,
    /// Similar short sessions of one source outside, or between own hosts. 10, `SSHCure`'s streak;
    /// SLIPS 9.
    pub guessing_sessions: u32,
    /// Similar short sessions from inside to the outside. 30 as in Zeek and SLIPS: fetching source
    /// code over SSH looks the same.
    pub guessing_sessions_outbound: u32,
    /// Own sources must reach their number within this time. 5 min: a check each half minute or
    /// slower never does.
    pub guessing_window_inside_ms: u64,
    /// Reflectors that send to one victim within 10 s. 25, a published rule for 5 min.
    pub reflection_sources: u32,
    /// Unsolicited bits a second, mean over 10 s. 1 Mb/s, the floor of NEMEA's amplification
    /// detector.
    pub reflection_bits_per_s: u64,
    /// Unsolicited packets a second, mean over 10 s, that suffice in place of bits. 1,000, own
    /// judgement: small answers hurt by their number.
    pub reflection_packets_per_s: u64,
    /// Connections for the long beacon rule. 20 (RITA needs 4; below 20 its score is noise on real
    /// traffic).
    pub beacon_connections: u32,
    /// Time between first and last connection for the long rule. 6 h, RITA's shortest.
    pub beacon_span_ms: u64,
    /// Score for the long rule. 0.9, RITA's "high".
    pub beacon_score: f64,
    /// Connections for the short rule. 60, own judgement: a capture of minutes must be judged too.
    pub beacon_short_connections: u32,
    /// Time between first and last connection for the short rule. 1 min, own judgement.
    pub beacon_short_span_ms: u64,
    /// Score for the short rule. 0.95, own judgement; the known 2-second beacon has 0.99.
    pub beacon_short_score: f64,
    /// Median bytes of one call, both ways, at most. 1 MiB, own judgement: a beacon talks little, a
    /// backup or an update much.
    pub beacon_bytes_max: u64,
    /// Destination ports that are called regularly by design: DNS, DHCP, NTP, `NetBIOS`, SNMP, DNS
    /// over TLS, mDNS.
    pub beacon_ports_ignored: Vec<u16>,
    /// Own hosts that call the same place before it can count as popular.
    pub beacon_popular_hosts: u32,
    /// Share of the own hosts seen that makes a place popular, so that calling it says nothing. 0.5
    /// as in RITA.
    pub beacon_popular_share: f64,
    /// Own addresses that got an attacked host's answers within the hour. 10, as in scan-NG.
    pub backscatter_targets: u32,
    /// Ports those answers come from, at most. 2, as in scan-NG.
    pub backscatter_ports_max: u32,
    /// Sources (with a port or a target) that the scan detectors hold, each.
    pub scan_keys_max: u32,
    /// Services that the flood detector holds.
    pub flood_keys_max: u32,
    /// Source, target and port triples that the guessing detector holds.
    pub guessing_keys_max: u32,
    /// Victims that the reflection detector holds.
    pub reflection_keys_max: u32,
    /// Source, target and port triples that the beacon detector holds.
    pub beacon_keys_max: u32,
    /// Attacked hosts that the backscatter classifier holds.
    pub backscatter_keys_max: u32,
    /// Flows split by the active timeout whose continuation is awaited.
    pub continued_keys_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            own_prefixes: Vec::new(),
            scan_window_ms: 15 * 60_000,
            vertical_ports: 15,
            horizontal_targets: 25,
            horizontal_targets_inside: 100,
            horizontal_failed_share: 1.0 / 3.0,
            scan_campaigns_apart: 3,
            flood_half_open_per_s: 200,
            flood_completion_max: 0.2,
            flood_many_half_open_per_s: 50,
            flood_many_completion_max: 0.05,
            login_ports: login_ports(),
            guessing_window_ms: 10 * 60_000,
            guessing_sessions: 10,
            guessing_sessions_outbound: 30,
            guessing_window_inside_ms: 5 * 60_000,
            reflection_sources: 25,
            reflection_bits_per_s: 1_000_000,
            reflection_packets_per_s: 1_000,
            beacon_connections: 20,
            beacon_span_ms: 6 * 3_600_000,
            beacon_score: 0.9,
            beacon_short_connections: 60,
            beacon_short_span_ms: 60_000,
            beacon_short_score: 0.95,
            beacon_bytes_max: 1 << 20,
            beacon_ports_ignored: vec![53, 67, 68, 123, 137, 138, 161, 162, 853, 5353],
            beacon_popular_hosts: 10,
            beacon_popular_share: 0.5,
            backscatter_targets: 10,
            backscatter_ports_max: 2,
            scan_keys_max: 65_536,
            flood_keys_max: 4_096,
            guessing_keys_max: 16_384,
            reflection_keys_max: 1_024,
            beacon_keys_max: 32_768,
            backscatter_keys_max: 4_096,
            continued_keys_max: 65_536,
        }
    }
}

/// Interactive ones first: FTP, SSH (and its usual other ports), Telnet, RDP, VNC, `MikroTik`
/// Winbox; then SMB, SQL Server, `MySQL`, `PostgreSQL`, Windows remote management.
fn login_ports() -> Vec<LoginPort> {
    let people = [21, 22, 23, 2222, 2323, 3389, 5900, 5901, 8291];
    let programs = [445, 1433, 3306, 5432, 5985, 5986];
    let port = |interactive| move |port| LoginPort { port, interactive };
    people.map(port(true)).into_iter().chain(programs.map(port(false))).collect()
}
