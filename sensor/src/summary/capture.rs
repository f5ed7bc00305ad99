//! Takes what was counted of a replay; gives it as an object for machines and as text for people, at
//! most 80 columns wide.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use flow::kernel::carrier_name;
use flow::{EndReason, Malformed, Notes};
use serde::Serialize;

use super::names::{ethertype_name, protocol_name, service_name};
use super::sketch::HOSTS_MAX;
use super::tally::{CaptureTally, Sum};
use super::{grouped, line, short, short_bytes, time};
use crate::pcap::LinkType;
use crate::replay::FrameCounts;
use crate::traits::{FRAGMENT_NAMES, PacketTraits};

/// Hosts and services in the object.
const TOP: usize = 100;
/// EtherTypes in the object.
const ETHERTYPES: usize = 64;
/// Of each, how many people are shown.
const HOST_LINES_MAX: usize = 8;
const SERVICE_LINES_MAX: usize = 6;
const PROTOCOL_LINES_MAX: usize = 4;
/// Kinds of frames without IP that are told one by one.
const NOT_IP_LINES_MAX: usize = 8;

/// What was in the captures of a replay. Sums of hosts, services and protocols are of the records that
/// were given out: while it runs, flows that are open are not in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CaptureSummary {
    /// It ended by a signal, before the end of the files.
    pub stopped: bool,
    /// Files that were read, in full or up to a fault.
    pub files: u64,
    /// Bytes read, as they are in the files.
    pub file_bytes: u64,
    /// How long that took; not known before the end.
    pub elapsed_ms: Option<u64>,
    /// Time of the earliest frame, RFC 3339.
    pub first_time: Option<String>,
    /// Time of the latest frame, RFC 3339.
    pub last_time: Option<String>,
    /// From the one to the other.
    pub span_ms: Option<u64>,
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// Frames captured shorter than they were on the wire.
    pub frames_snapped: u64,
    /// Frames without a time of their own.
    pub frames_undated: u64,
    /// Frames by link type; those that were not seen are left out.
    pub links: BTreeMap<&'static str, u64>,
    /// Frames without IP by EtherType (or length, up to 1,500), those with the most frames first.
    pub ethertypes: Vec<EthertypeSummary>,
    /// Records by why they were written.
    pub end_reasons: BTreeMap<&'static str, u64>,
    /// Bytes in all records.
    pub record_bytes: u64,
    /// The hosts with the most bytes, the most first.
    pub hosts: Vec<HostSummary>,
    /// What is known of the other hosts.
    pub hosts_unlisted: UnlistedHosts,
    /// The TCP and UDP ports of responders with the most bytes, the most first.
    pub services: Vec<ServiceSummary>,
    /// Every IP protocol that was seen, the one with the most bytes first.
    pub protocols: Vec<ProtocolSummary>,
}

/// Frames of one kind without IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EthertypeSummary {
    /// The EtherType, hexadecimal.
    pub ethertype: String,
    /// Its name; empty where there is none.
    pub name: &'static str,
    /// How many.
    pub frames: u64,
}

/// What one host sent and received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostSummary {
    /// Its address; an IPv4-mapped IPv6 address counts as the IPv4 one.
    pub address: IpAddr,
    /// Layer-2 bytes; at least as many.
    pub bytes: u64,
    /// How many more there can have been at most; 0: the figures are exact.
    pub bytes_short_max: u64,
    /// Packets.
    pub packets: u64,
    /// Records in which it is one of the two sides; a long flow has several.
    pub records: u64,
}

/// What is known of hosts that are not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UnlistedHosts {
    /// Hosts that are kept at once, at most. As long as there are no more, every figure is exact.
    pub hosts_max: u64,
    /// Bytes that a host can have had at most that is not kept.
    pub bytes_max: u64,
}

/// What came to one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceSummary {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The responder's port.
    pub port: u16,
    /// What usually listens there; empty where that is not known.
    pub name: &'static str,
    /// Layer-2 bytes of both directions.
    pub bytes: u64,
    /// Packets of both directions.
    pub packets: u64,
    /// Records.
    pub records: u64,
}

/// What one IP protocol carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProtocolSummary {
    /// Its number.
    pub number: u8,
    /// Its name.
    pub name: String,
    /// Layer-2 bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Records.
    pub records: u64,
}

/// End reasons with what machines and people call them.
const END_REASONS: [(EndReason, &str, &str); 5] = [
    (EndReason::EndOfFlow, "end_of_flow", "closed"),
    (EndReason::IdleTimeout, "idle_timeout", "idle"),
    (EndReason::ActiveTimeout, "active_timeout", "active timeout"),
    (EndReason::ForcedEnd, "forced_end", "end of capture"),
    (EndReason::LackOfResources, "lack_of_resources", "table full"),
];

impl CaptureTally {
    /// As an object.
    pub(crate) fn summary(&self, counts: &FrameCounts) -> CaptureSummary {
        let links = LinkType::ALL.into_iter().zip(self.links).filter(|(_, frames)| *frames > 0);
        let ethertypes = by_frames(counts).into_iter().take(ETHERTYPES);
        let hosts = self.hosts.top(TOP).into_iter().map(|host| HostSummary {
            address: unmapped(host.address.octets()),
            bytes: host.bytes,
            bytes_short_max: host.bytes_short_max,
            packets: host.packets,
            records: host.records,
        });
        let services = self.top_services(TOP).into_iter().map(|(number, port, sum)| {
            let Sum { bytes, packets, records } = sum;
            let protocol = if number == flow::protocol::TCP { "tcp" } else { "udp" };
            let name = service_name(number, port);
            ServiceSummary { protocol, port, name, bytes, packets, records }
        });
        let protocols = self.top_protocols().into_iter().map(|(number, sum)| {
            let Sum { bytes, packets, records } = sum;
            let name = protocol_name(number).into_owned();
            ProtocolSummary { number, name, bytes, packets, records }
        });
        CaptureSummary {
            stopped: self.stopped,
            files: self.files,
            file_bytes: self.file_bytes,
            elapsed_ms: self
                .elapsed
                .map(|elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)),
            first_time: counts.span_ms.map(|(first_ms, _)| time(first_ms)),
            last_time: counts.span_ms.map(|(_, last_ms)| time(last_ms)),
            span_ms: counts.span_ms.map(|(first_ms, last_ms)| last_ms - first_ms),
            wire_bytes: counts.wire_bytes,
            frames_snapped: counts.frames_snapped,
            frames_undated: counts.frames_undated,
            links: links.map(|(link, frames)| (link.name(), frames)).collect(),
            ethertypes: ethertypes
                .map(|(ethertype, frames)| EthertypeSummary {
                    ethertype: format!("0x{ethertype:04x}"),
                    name: ethertype_name(ethertype),
                    frames,
                })
                .collect(),
            end_reasons: END_REASONS
                .into_iter()
                .map(|(reason, name, _)| (name, self.end_reasons[reason as usize]))
                .collect(),
            record_bytes: self.all.bytes,
            hosts: hosts.collect(),
            hosts_unlisted: UnlistedHosts {
                hosts_max: HOSTS_MAX as u64,
                bytes_max: self.hosts.bytes_elsewhere_max(),
            },
            services: services.collect(),
            protocols: protocols.collect(),
        }
    }

    /// For people.
    pub(crate) fn to_text(&self, counts: &FrameCounts) -> String {
        let summary = self.summary(counts);
        let mut text = String::new();
        reading_text(&summary, counts, &mut text);
        not_ip_text(counts, &mut text);
        traits_text(&counts.traits, &mut text);
        for (reason, count) in Malformed::ALL.into_iter().zip(counts.malformed) {
            if count > 0 {
                let told = format!("{} {}: {}", grouped(count), reason.name(), why(reason));
                line(&mut text, "malformed", &told);
            }
        }
        if self.all.records > 0 {
            self.records_text(&mut text);
            summary.tables_text(&mut text);
        }
        text
    }

    /// How many records, and why they ended.
    fn records_text(&self, text: &mut String) {
        let reasons = END_REASONS
            .into_iter()
            .map(|(reason, _, name)| (self.end_reasons[reason as usize], name))
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{} {name}", grouped(count)));
        let mut told = format!("{} =", grouped(self.all.records));
        let mut sign = "";
        for reason in reasons {
            if LABEL_COLUMNS + told.len() + sign.len() + reason.len() + 1 > COLUMNS {
                line(text, "records", &told);
                told.clear();
            }
            write!(told, "{sign} {reason}").expect("writing to a string cannot fail");
            sign = " +";
        }
        line(text, "records", &told);
    }
}

/// How much was read, how fast, and from when it is.
fn reading_text(summary: &CaptureSummary, counts: &FrameCounts, text: &mut String) {
    let files = if summary.files == 1 { "file" } else { "files" };
    let mut told =
        format!("{} {files}, {}", grouped(summary.files), short_bytes(summary.file_bytes));
    if let Some(ms) = summary.elapsed_ms {
        let rate = counts.frames_seen.saturating_mul(1_000) / ms.max(1);
        let (s, rest) = (ms / 1_000, ms % 1_000 / 10);
        write!(told, " read in {s}.{rest:02} s: {} frames/s", short(rate))
            .expect("writing to a string cannot fail");
    }
    line(text, "capture", &told);
    if let (Some(first), Some(last), Some(ms)) =
        (&summary.first_time, &summary.last_time, summary.span_ms)
    {
        let seconds = format!("{}.{:03}", ms / 1_000, ms % 1_000);
        line(text, "time", &format!("{first} to {last} ({seconds} s)"));
    }
    let mut told = format!("{} bytes", grouped(summary.wire_bytes));
    // Of files that lie far apart an average says nothing.
    let is_dense = |ms: &u64| *ms > 0 && counts.frames_seen >= *ms / 1_000;
    if let Some(ms) = summary.span_ms.filter(is_dense) {
        let each_s = |count: u64| {
            let rate = u128::from(count) * 1_000 / u128::from(ms);
            short(u64::try_from(rate).unwrap_or(u64::MAX))
        };
        let bits = each_s(summary.wire_bytes.saturating_mul(8));
        let bits = if bits.contains(' ') { bits } else { format!("{bits} ") };
        let frames = each_s(counts.frames_seen);
        write!(told, ", on average {bits}bit/s in {frames} frames/s")
            .expect("writing to a string cannot fail");
    }
    line(text, "wire", &told);
    for (link, frames) in &summary.links {
        line(text, "link", &format!("{} frames of {link}", grouped(*frames)));
    }
    if summary.frames_snapped > 0 {
        let count = grouped(summary.frames_snapped);
        line(text, "snapped", &format!("{count} frames were captured in part"));
    }
    if summary.frames_undated > 0 {
        let count = grouped(summary.frames_undated);
        line(text, "undated", &format!("{count} frames have no time of their own"));
    }
}

/// Columns that a terminal has at least.
const COLUMNS: usize = 80;
/// Columns before what is told of something.
const LABEL_COLUMNS: usize = 10;

impl CaptureSummary {
    fn tables_text(&self, text: &mut String) {
        table(text, "Top hosts");
        // Of one with less it is not known whether it has more than those that are not kept.
        let certain = |host: &&HostSummary| host.bytes >= self.hosts_unlisted.bytes_max;
        for host in self.hosts.iter().filter(certain).take(HOST_LINES_MAX) {
            let HostSummary { address, bytes, packets, records, .. } = *host;
            let at_least = if host.bytes_short_max > 0 { "≥" } else { "" };
            let told = format!("{at_least}{}", short_bytes(bytes));
            self.row(text, &address.to_string(), &told, Sum { bytes, packets, records });
        }
        if self.hosts_unlisted.bytes_max > 0 {
            writeln!(
                text,
                "  There were more than {} hosts: one that is not kept has had at most\n  {}; \
                 figures with ≥ may lack as much.",
                grouped(self.hosts_unlisted.hosts_max),
                short_bytes(self.hosts_unlisted.bytes_max)
            )
            .expect("writing to a string cannot fail");
        }
        if !self.services.is_empty() {
            table(text, "Top services");
        }
        for service in self.services.iter().take(SERVICE_LINES_MAX) {
            let ServiceSummary { protocol, port, name, bytes, packets, records } = *service;
            let label = format!("{protocol}/{port:<5} {name}");
            self.row(text, &label, &short_bytes(bytes), Sum { bytes, packets, records });
        }
        table(text, "Top protocols");
        for protocol in self.protocols.iter().take(PROTOCOL_LINES_MAX) {
            let ProtocolSummary { ref name, bytes, packets, records, .. } = *protocol;
            self.row(text, name, &short_bytes(bytes), Sum { bytes, packets, records });
        }
        text.push('\n');
    }

    fn row(&self, text: &mut String, label: &str, bytes: &str, sum: Sum) {
        let permille = u128::from(sum.bytes) * 1_000 / u128::from(self.record_bytes.max(1));
        let share = format!("{}.{} %", permille / 10, permille % 10);
        let (packets, records) = (grouped(sum.packets), grouped(sum.records));
        let row = format!("  {label:<38} {bytes:>8} {share:>7} {packets:>11} {records:>10}");
        writeln!(text, "{row}").expect("writing to a string cannot fail");
    }
}

fn table(text: &mut String, title: &str) {
    writeln!(
        text,
        "\n{title:<40} {:>8} {:>7} {:>11} {:>10}",
        "bytes", "share", "packets", "records"
    )
    .expect("writing to a string cannot fail");
}

/// Kinds of frames without IP, those with the most frames first.
fn by_frames(counts: &FrameCounts) -> Vec<(u16, u64)> {
    let mut kinds: Vec<(u16, u64)> =
        counts.not_ip.iter().map(|(ethertype, count)| (*ethertype, *count)).collect();
    kinds.sort_by_key(|(ethertype, count)| (std::cmp::Reverse(*count), *ethertype));
    kinds
}

fn not_ip_text(counts: &FrameCounts, text: &mut String) {
    let kinds = by_frames(counts);
    for (ethertype, count) in kinds.iter().take(NOT_IP_LINES_MAX) {
        let kind = match ethertype_name(*ethertype) {
            "" => format!("EtherType 0x{ethertype:04x}"),
            name => format!("{name} (0x{ethertype:04x})"),
        };
        line(text, "not IP", &format!("{} {kind}", grouped(*count)));
    }
    let rest: u64 = kinds.iter().skip(NOT_IP_LINES_MAX).map(|(_, count)| count).sum();
    if rest > 0 {
        line(text, "not IP", &format!("{} of other kinds", grouped(rest)));
    }
}

fn traits_text(traits: &PacketTraits, text: &mut String) {
    let mut told = |what: &str, count: u64, rest: &str| {
        if count > 0 {
            line(text, what, &format!("{} {rest}", grouped(count)));
        }
    };
    for (index, count) in traits.carried.iter().enumerate() {
        told("carried", *count, &format!("packets in {}", carrier_name(index)));
    }
    told("cut", traits.cut, "packets are shorter than their header says");
    for (name, count) in Notes::NAMES.into_iter().zip(traits.noted) {
        told("noted", count, &format!("packets {name}"));
    }
    for (name, count) in FRAGMENT_NAMES.into_iter().zip(traits.fragments) {
        told("fragments", count, name);
    }
}

fn why(reason: Malformed) -> &'static str {
    match reason {
        Malformed::LinkHeaderCut => "shorter than a link-layer header",
        Malformed::IpHeaderCut => "it ends inside the IP header",
        Malformed::IpVersion => "not the IP version that was announced",
        Malformed::IpHeaderLength => "an IPv4 header of less than 20 bytes",
        Malformed::IpTotalLength => "a total length shorter than the IP header",
    }
}

fn unmapped(octets: [u8; 16]) -> IpAddr {
    let v6 = Ipv6Addr::from(octets);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}
