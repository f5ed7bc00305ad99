//! Takes the books; gives them as a file for machines and as text for people.

mod capture;
mod names;
mod sketch;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use flow::kernel::{carrier_name, not_ip_index, not_ip_name};
use flow::{Books, Malformed, Notes};
use jiff::Timestamp;
use serde::Serialize;

use crate::aggregate::AggregatorTotals;
use crate::pipeline::{FoldingTotals, PortCounts};
use crate::privacy::PrivacyTotals;
use crate::traits::{FRAGMENT_NAMES, PacketTraits};

pub use capture::{
    CaptureSummary, EthertypeSummary, HostSummary, ProtocolSummary, ServiceSummary, UnlistedHosts,
};
pub(crate) use names::service_name as port_name;
pub(crate) use tally::CaptureTally;

/// Name of the file in the state folder that a running sensor keeps its summary in.
pub const SUMMARY_NAME: &str = "summary.json";

/// One capture file of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileSummary {
    /// Its path, as it was given.
    pub path: PathBuf,
    /// Frames read from it.
    pub frames: u64,
    /// Bytes read from it, as they are in the file.
    pub bytes: u64,
    /// What it is compressed with.
    pub compression: Option<&'static str>,
    /// Why it was not read to its end.
    pub error: Option<String>,
}

/// Everything that was counted, in one flat object. `null` means not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// `run` or `replay`.
    pub command: &'static str,
    /// Version of the sensor.
    pub sensor_version: &'static str,
    /// Interfaces that were listened on.
    pub interfaces: Vec<String>,
    /// Outputs, by name.
    pub outputs: Vec<&'static str>,
    /// Capture files that were read.
    pub files: Vec<FileSummary>,
    /// What was in them.
    pub capture: Option<CaptureSummary>,
    /// How the kernel program is attached.
    pub xdp_mode: Option<&'static str>,
    /// SHA-256 of the kernel program, hexadecimal.
    pub object_sha256: Option<String>,
    /// See [`Books`].
    pub nic_received: Option<u64>,
    /// See [`Books`].
    pub nic_missed: Option<u64>,
    /// Frames that the program had been given when these two were read.
    pub nic_frames_seen: Option<u64>,
    /// Frames that were on their way at that moment: those two can be off by as many.
    pub nic_frames_in_flight: Option<u64>,
    /// Interfaces that are up.
    pub interfaces_up: Option<u64>,
    /// Interfaces that are down, or without a carrier.
    pub interfaces_down: Option<u64>,
    /// Interfaces that are no longer there.
    pub interfaces_gone: Option<u64>,
    /// Times that an interface went down or away.
    pub interface_losses: Option<u64>,
    /// See [`Books`].
    pub frames_seen: u64,
    /// See [`Books`].
    pub packets_ip: u64,
    /// See [`Books`].
    pub packets_in_flows: u64,
    /// See [`Books`].
    pub packets_folded: u64,
    /// See [`Books`].
    pub packets_duplicate: u64,
    /// IP packets that the kernel's tables still hold.
    pub packets_in_cache: u64,
    /// See [`Books`].
    pub packets_not_ip: u64,
    /// See [`Books`].
    pub packets_malformed: u64,
    /// Frames that are not IP by what they carry; kinds that were not seen are left out.
    pub not_ip: BTreeMap<&'static str, u64>,
    /// Malformed frames by reason.
    pub malformed: BTreeMap<&'static str, u64>,
    /// IP packets shorter than their header says.
    pub packets_cut: u64,
    /// IP packets by what carried them; kinds that were not seen are left out.
    pub carried: BTreeMap<&'static str, u64>,
    /// IP packets by what else is to be told of them.
    pub noted: BTreeMap<&'static str, u64>,
    /// Fragments: first ones, later ones that got the ports of their first one, later ones without.
    pub fragments: BTreeMap<&'static str, u64>,
    /// Packets in the records that were given out, folded ones included.
    pub packets_in_records: u64,
    /// Packets of flows and folded totals that are not reported yet.
    pub packets_in_open: u64,
    /// Layer-2 bytes of the packets in folded totals.
    pub bytes_folded: u64,
    /// TCP packets with SYN and without ACK among those packets.
    pub syns_folded: u64,
    /// Those of the packets in folded totals of which nothing but number and length is known.
    pub packets_folded_rest: u64,
    /// Records of folded totals among `records_out`.
    pub records_folded: u64,
    /// Drains of the kernel's tables.
    pub epochs: u64,
    /// Those of them that came before their time because a log filled.
    pub epochs_early: u64,
    /// How long the drain has waited for the aggregator to take what it gave, milliseconds.
    pub drain_waited_ms: Option<u64>,
    /// How long the latest epoch lasted, milliseconds.
    pub epoch_ms: Option<u64>,
    /// How long the kernel took to end it, microseconds.
    pub grace_us: Option<u64>,
    /// How full the fullest log was at its end, thousandths.
    pub log_fill_permille: Option<u32>,
    /// The most of all epochs.
    pub log_fill_permille_max: Option<u32>,
    /// Flows in the table.
    pub flows_open: u64,
    /// Flows that it can hold.
    pub flows_open_max: u64,
    /// Flows that began.
    pub flows_opened: u64,
    /// Flows that ended early because the table was full.
    pub flows_evicted: u64,
    /// Whether the mirror shows one direction of the traffic only, as far as the flows of late tell.
    pub mirror_one_way: bool,
    /// Records of openings that are told as one-way because of that.
    pub openings_one_way: u64,
    /// See [`Books`].
    pub records_out: u64,
    /// Records of earlier starts that waited in the spool when this one began.
    pub records_recovered: u64,
    /// See [`Books`].
    pub records_sealed: u64,
    /// Records that wait to be sealed.
    pub records_pending: u64,
    /// Records that the backend has acknowledged.
    pub records_acked: u64,
    /// Records of earlier starts that the backend has acknowledged since this one.
    pub records_acked_earlier: u64,
    /// Records that the backend refused for good; they are kept apart on the disk.
    pub records_rejected: u64,
    /// Sealed records that wait in the spool.
    pub records_waiting: u64,
    /// See [`Books`].
    pub records_evicted: u64,
    /// Records that could not be sealed because the spool could not be written.
    pub records_lost: u64,
    /// What was kept at home and not sent to the backend, by reason: records.
    pub records_kept: BTreeMap<&'static str, u64>,
    /// Packets in them.
    pub packets_kept: BTreeMap<&'static str, u64>,
    /// Layer-2 bytes in them.
    pub bytes_kept: BTreeMap<&'static str, u64>,
    /// Addresses that were sent as pseudonyms.
    pub pseudonyms_given: u64,
    /// Those of them whose pseudonym was still in memory.
    pub pseudonyms_cached: u64,
    /// The number of the key epoch of pseudonyms; unknown where there are none.
    pub key_epoch: Option<u32>,
    /// Keys of pseudonyms on the disk, the current one included.
    pub keys_kept: u64,
    /// Keys that were removed since the start because they were old.
    pub keys_removed: u64,
    /// Bytes in the spool.
    pub spool_bytes: u64,
    /// Bytes that it may hold.
    pub spool_bytes_max: u64,
    /// Whether there is a connection to the backend.
    pub uplink_connected: Option<bool>,
    /// When this sensor's certificate ends, seconds since the Unix epoch.
    pub certificate_ends_unix_s: Option<u64>,
    /// Spool files that were found damaged at the start, and moved aside.
    pub batches_quarantined: u64,
    /// Records that an output that had failed did not get.
    pub records_missed: u64,
    /// Failed calls of outputs.
    pub output_failures: u64,
    /// Records that were given to the network on their way to an IPFIX collector.
    pub records_exported: u64,
    /// Records that could not be sent to the collector.
    pub records_unsent: u64,
    /// Complete files that outputs deleted because there were more than `output.files_max`.
    pub files_deleted: u64,
    /// Whether every frame is accounted for, with nothing left in the kernel's cache.
    pub balanced: bool,
    /// Whether the sensor has stopped.
    pub finished: bool,
    /// When this was written, RFC 3339.
    pub updated_time: String,
    /// The same, milliseconds since the Unix epoch.
    #[serde(skip)]
    pub updated_ms: u64,
}

impl Summary {
    /// Takes over the books.
    pub(crate) fn handle_books(
        &mut self,
        books: &Books,
        totals: &AggregatorTotals,
        folding: &FoldingTotals,
        flows_open: usize,
    ) {
        self.nic_received = books.nic_received;
        self.nic_missed = books.nic_missed;
        self.frames_seen = books.frames_seen;
        self.packets_ip = books.packets_ip;
        self.packets_in_flows = books.packets_in_flows;
        self.packets_folded = books.packets_folded;
        self.packets_duplicate = books.packets_duplicate;
        self.packets_in_cache = books.packets_in_cache();
        self.packets_not_ip = books.packets_not_ip;
        self.packets_malformed = books.packets_malformed;
        self.records_out = books.records_out;
        self.records_sealed = books.records_sealed;
        self.records_evicted = books.records_evicted;
        self.packets_in_records = totals.packets_out + folding.packets_out;
        self.packets_in_open =
            (totals.packets_in + folding.packets_in).saturating_sub(self.packets_in_records);
        self.bytes_folded = folding.bytes_in;
        self.syns_folded = folding.syns_in;
        self.packets_folded_rest = folding.packets_rest;
        self.records_folded = folding.records_out;
        self.flows_open = flows_open as u64;
        self.flows_opened = totals.flows_opened;
        self.flows_evicted = totals.flows_evicted;
        self.mirror_one_way = totals.one_way;
        self.openings_one_way = totals.openings_one_way;
        self.balanced = books.balanced()
            && totals.packets_in == books.packets_in_flows
            && folding.packets_in == books.packets_folded
            && (!self.finished || self.packets_in_open == 0);
    }

    /// Takes over what was done on the way to the backend.
    pub(crate) fn handle_privacy(&mut self, totals: &PrivacyTotals) {
        if !self.has_uplink() {
            return;
        }
        let kept = [("internal", totals.internal), ("trusted", totals.trusted)];
        self.records_kept = kept.map(|(reason, kept)| (reason, kept.records)).into();
        self.packets_kept = kept.map(|(reason, kept)| (reason, kept.packets)).into();
        self.bytes_kept = kept.map(|(reason, kept)| (reason, kept.bytes)).into();
        self.pseudonyms_given = totals.pseudonyms_given;
        self.pseudonyms_cached = totals.pseudonyms_cached;
        self.key_epoch = totals.key_epoch;
        self.keys_kept = totals.keys_kept;
        self.keys_removed = totals.keys_removed;
    }

    /// Takes over what is known of the interfaces.
    pub fn handle_port(&mut self, port: &PortCounts) {
        let PortCounts {
            nic_frames_seen,
            nic_frames_in_flight,
            interfaces_up,
            interfaces_down,
            interfaces_gone,
            interface_losses,
        } = *port;
        self.nic_frames_seen = nic_frames_seen;
        self.nic_frames_in_flight = nic_frames_in_flight;
        self.interfaces_up = interfaces_up;
        self.interfaces_down = interfaces_down;
        self.interfaces_gone = interfaces_gone;
        self.interface_losses = interface_losses;
    }

    /// Whether the records go to the backend.
    #[must_use]
    pub fn has_uplink(&self) -> bool {
        self.outputs.contains(&"uplink")
    }

    /// Whether every record that was sealed, or waited from earlier, is somewhere now.
    #[must_use]
    pub fn records_delivered_add_up(&self) -> bool {
        let ended = self.records_acked
            + self.records_acked_earlier
            + self.records_rejected
            + self.records_evicted;
        self.records_recovered + self.records_sealed == ended + self.records_waiting
    }

    /// Takes over the frames that are not IP, by `EtherType`, under the names that the kernel's
    /// counters have.
    pub fn handle_ethertypes(&mut self, not_ip: &BTreeMap<u16, u64>) {
        self.not_ip.clear();
        for (ethertype, count) in not_ip {
            *self.not_ip.entry(not_ip_name(not_ip_index(*ethertype))).or_default() += count;
        }
    }

    /// Takes over what is counted of IP packets beside their flows.
    pub fn handle_traits(&mut self, traits: &PacketTraits) {
        self.packets_cut = traits.cut;
        self.carried.clear();
        for (index, count) in traits.carried.iter().enumerate().filter(|(_, count)| **count > 0) {
            *self.carried.entry(carrier_name(index)).or_default() += count;
        }
        self.noted = Notes::NAMES.into_iter().zip(traits.noted).collect();
        self.fragments = FRAGMENT_NAMES.into_iter().zip(traits.fragments).collect();
    }

    /// Takes over the reasons for malformed frames, by their numbers.
    pub fn handle_malformed(&mut self, malformed: &[u64; Malformed::ALL.len()]) {
        self.malformed =
            Malformed::ALL.iter().zip(malformed).map(|(why, count)| (why.name(), *count)).collect();
    }

    /// Dates it as of now.
    pub(crate) fn touch(&mut self) {
        let now = Timestamp::now();
        self.updated_ms = u64::try_from(now.as_millisecond()).unwrap_or(0);
        self.updated_time = format!("{now:.3}");
    }

    /// Replaces the file at `path` in one step, so that a reader never sees half of it. What is
    /// there and not a regular file (a device, a pipe, a link) is written to and stays what it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, path: &Path) -> io::Result<()> {
        self.touch();
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return fs::write(path, &text);
        }
        let mut next = path.as_os_str().to_owned();
        next.push(".next");
        let written = fs::write(&next, &text).and_then(|()| fs::rename(&next, path));
        if written.is_err() {
            // On a full disk the half-written file would only stand in the way.
            let _never_made = fs::remove_file(&next);
        }
        written
    }

    /// The books as equations, for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.capture_text(&mut text);
        line(
            &mut text,
            "flows",
            &format!(
                "{} began, {} evicted from a full table; {} records",
                grouped(self.flows_opened),
                grouped(self.flows_evicted),
                grouped(self.records_out)
            ),
        );
        if self.mirror_one_way || self.openings_one_way > 0 {
            let now = if self.mirror_one_way { "shows" } else { "for a while showed" };
            let openings = grouped(self.openings_one_way);
            let told = format!(
                "the mirror {now} one direction of the traffic only; {openings} openings count as one-way, not as \
                 unanswered"
            );
            line(&mut text, "one-way", &told);
        }
        self.delivery_text(&mut text);
        line(&mut text, "balance", if self.balanced { "closed" } else { "OPEN" });
        text
    }

    /// What came from the wire or the files, and where it is.
    fn capture_text(&self, text: &mut String) {
        let known = |number: Option<u64>| number.map_or("unknown".to_owned(), grouped);
        if self.command != "replay" && self.files.is_empty() {
            let (received, missed) = (known(self.nic_received), known(self.nic_missed));
            line(text, "port", &format!("{received} frames received, {missed} missed by the port"));
        }
        line(
            text,
            "frames",
            &format!(
                "{} = {} IP + {} not IP + {} malformed",
                grouped(self.frames_seen),
                grouped(self.packets_ip),
                grouped(self.packets_not_ip),
                grouped(self.packets_malformed)
            ),
        );
        line(
            text,
            "packets",
            &format!(
                "{} = {} in flows + {} folded + {}{} in the cache",
                grouped(self.packets_ip),
                grouped(self.packets_in_flows),
                grouped(self.packets_folded),
                // Who has not asked for that need not ask what it is.
                match self.packets_duplicate {
                    0 => String::new(),
                    copies => format!("{} duplicate + ", grouped(copies)),
                },
                grouped(self.packets_in_cache)
            ),
        );
        if self.packets_folded > 0 {
            line(
                text,
                "folded",
                &format!(
                    "{} packets ({} bytes, {} SYNs) in {} records by source prefix, destination \
                     and port; of {} packets nothing more is known",
                    grouped(self.packets_folded),
                    grouped(self.bytes_folded),
                    grouped(self.syns_folded),
                    grouped(self.records_folded),
                    grouped(self.packets_folded_rest)
                ),
            );
        }
        if self.interfaces_gone.unwrap_or(0) + self.interface_losses.unwrap_or(0) > 0 {
            line(
                text,
                "port",
                &format!(
                    "interfaces: {} up, {} down, {} gone; {} losses in all",
                    known(self.interfaces_up),
                    known(self.interfaces_down),
                    known(self.interfaces_gone),
                    known(self.interface_losses)
                ),
            );
        }
    }

    /// Where the records are.
    fn delivery_text(&self, text: &mut String) {
        let kept = |kept: &BTreeMap<_, u64>, reason| kept.get(reason).copied().unwrap_or(0);
        if self.records_kept.values().sum::<u64>() + self.pseudonyms_given > 0 {
            let epoch = self.key_epoch.map_or_else(
                || "no pseudonyms".to_owned(),
                |epoch| {
                    format!(
                        "{} addresses sent as pseudonyms of key epoch {epoch}",
                        grouped(self.pseudonyms_given)
                    )
                },
            );
            line(
                text,
                "privacy",
                &format!(
                    "{} internal and {} trusted records kept at home; {epoch}",
                    grouped(kept(&self.records_kept, "internal")),
                    grouped(kept(&self.records_kept, "trusted"))
                ),
            );
        }
        if self.records_sealed + self.records_lost > 0 {
            line(
                text,
                "uplink",
                &format!(
                    "{} records sealed, {} of them acknowledged, {} lost unsealed",
                    grouped(self.records_sealed),
                    grouped(self.records_acked),
                    grouped(self.records_lost)
                ),
            );
        }
        if self.records_acked_earlier > 0 {
            let acked = grouped(self.records_acked_earlier);
            line(text, "uplink", &format!("{acked} records of earlier starts acknowledged"));
        }
        if self.records_waiting + self.records_evicted + self.records_rejected > 0 {
            line(
                text,
                "spool",
                &format!(
                    "{} records waiting, {} evicted, {} rejected, earlier starts included",
                    grouped(self.records_waiting),
                    grouped(self.records_evicted),
                    grouped(self.records_rejected)
                ),
            );
        }
        if self.batches_quarantined > 0 {
            let count = grouped(self.batches_quarantined);
            line(text, "spool", &format!("{count} damaged files moved to quarantine"));
        }
        if self.records_exported + self.records_unsent > 0 {
            let (sent, unsent) = (grouped(self.records_exported), grouped(self.records_unsent));
            line(text, "ipfix", &format!("{sent} records exported, {unsent} could not be sent"));
        }
        if self.files_deleted > 0 {
            line(text, "files", &format!("{} old ones deleted", grouped(self.files_deleted)));
        }
        if self.records_missed + self.output_failures > 0 {
            line(
                text,
                "outputs",
                &format!(
                    "{} failed calls, {} records not written",
                    grouped(self.output_failures),
                    grouped(self.records_missed)
                ),
            );
        }
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    writeln!(text, "{name:<9} {value}").expect("writing to a string cannot fail");
}

fn time(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| format!("{ms} ms"), |time| format!("{time:.3}"))
}

/// A number with commas.
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

/// A number in at most three digits, for people, cut off: `12.3 M`.
pub(crate) fn short(number: u64) -> String {
    let (text, unit) = shortened(number);
    if unit.is_empty() { text } else { format!("{text} {unit}") }
}

/// The same for bytes: `12.3 MB`.
pub(crate) fn short_bytes(number: u64) -> String {
    let (text, unit) = shortened(number);
    format!("{text} {unit}B")
}

fn shortened(number: u64) -> (String, &'static str) {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let (mut whole, mut rest, mut unit) = (number, 0, 0);
    while whole >= 1_000 {
        (whole, rest) = (whole / 1_000, whole % 1_000);
        unit += 1;
    }
    let text = match whole {
        _ if unit == 0 || whole >= 100 => whole.to_string(),
        10.. => format!("{whole}.{}", rest / 100),
        _ => format!("{whole}.{:02}", rest / 10),
    };
    (text, UNITS[unit])
}
