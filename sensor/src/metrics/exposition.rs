//! Takes the summary; gives it in the text format of `OpenMetrics`. Each name is the summary's key with
//! `spanwatch_` before it, and `_total` behind it where it only grows. What is not known is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use flow::kernel::{CARRIERS, NOT_IP_KINDS, carrier_name, not_ip_name};
use flow::{Malformed, Notes};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::summary::Summary;
use crate::traits::FRAGMENT_NAMES;

/// Of what [`render`] gives.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text of one scrape; `requests` are those to the server itself, by outcome.
pub(super) fn render(summary: &Summary, requests: &[(&'static str, u64)]) -> String {
    let mut registry = Registry::with_prefix("spanwatch");
    let scrape = Scrape { summary: summary.clone(), requests: requests.to_vec() };
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("writing to a string cannot fail");
    text
}

#[derive(Debug)]
struct Scrape {
    summary: Summary,
    requests: Vec<(&'static str, u64)>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_info(&mut encoder)?;
        let summary = &self.summary;
        for (name, help, value) in counters(summary) {
            let Some(value) = value else { continue };
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        let not_ip = (0..NOT_IP_KINDS).map(not_ip_name);
        let not_ip: Vec<_> =
            not_ip.map(|kind| (kind, summary.not_ip.get(kind).copied().unwrap_or(0))).collect();
        family(
            &mut encoder,
            "packets_not_ip",
            "Frames without IP, by what they carry.",
            "kind",
            &not_ip,
        )?;
        let malformed: Vec<_> = Malformed::ALL
            .iter()
            .map(|reason| reason.name())
            .map(|reason| (reason, summary.malformed.get(reason).copied().unwrap_or(0)))
            .collect();
        let help = "Frames that say they carry IP and are broken, by reason.";
        family(&mut encoder, "packets_malformed", help, "reason", &malformed)?;
        if summary.has_uplink() {
            let of = |kept: &BTreeMap<&'static str, u64>| {
                ["internal", "trusted"].map(|why| (why, kept.get(why).copied().unwrap_or(0)))
            };
            for (name, help, kept) in [
                ("records_kept", "Records kept at home, by reason.", &summary.records_kept),
                ("packets_kept", "Packets in them.", &summary.packets_kept),
                ("bytes_kept", "Layer-2 bytes in them.", &summary.bytes_kept),
            ] {
                family(&mut encoder, name, help, "reason", &of(kept))?;
            }
        }
        // Two forms of one protocol share a name.
        let carriers: BTreeSet<_> = (0..CARRIERS).map(carrier_name).collect();
        let of =
            |counts: &BTreeMap<&'static str, u64>, name| counts.get(name).copied().unwrap_or(0);
        let carried: Vec<_> =
            carriers.into_iter().map(|name| (name, of(&summary.carried, name))).collect();
        let help = "IP packets by what carried them; one in several counts once for each.";
        family(&mut encoder, "packets_carried", help, "by", &carried)?;
        let noted = Notes::NAMES.map(|name| (name, of(&summary.noted, name)));
        let help = "IP packets of which something else is to be told.";
        family(&mut encoder, "packets_noted", help, "what", &noted)?;
        let fragments = FRAGMENT_NAMES.map(|name| (name, of(&summary.fragments, name)));
        let help = "Fragments, by what is known of their ports.";
        family(&mut encoder, "fragments", help, "kind", &fragments)?;
        for (name, help, value) in gauges(summary) {
            let Some(value) = value else { continue };
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        let help = "When these numbers were of, seconds since the Unix epoch.";
        let metric =
            encoder.encode_descriptor("updated_time_seconds", help, None, MetricType::Gauge)?;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of this millennium fit")]
        let seconds = summary.updated_ms as f64 / 1000.0;
        ConstGauge::new(seconds).encode(metric)?;
        let help = "Requests for these metrics, by how they ended.";
        family(&mut encoder, "metrics_requests", help, "outcome", &self.requests)
    }
}

impl Scrape {
    fn encode_info(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let summary = &self.summary;
        let interfaces = summary.interfaces.join(",");
        let mut labels = vec![("version", summary.sensor_version), ("interfaces", &interfaces)];
        labels.extend(summary.xdp_mode.map(|mode| ("xdp_mode", mode)));
        labels.extend(summary.object_sha256.as_deref().map(|hash| ("object_sha256", hash)));
        let help = "What this sensor is.";
        let mut metric = encoder.encode_descriptor("sensor", help, None, MetricType::Info)?;
        metric.encode_info(&labels)
    }
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    values: &[(&'static str, u64)],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (is, value) in values {
        ConstCounter::new(*value).encode(family.encode_family(&[(label, *is)])?)?;
    }
    Ok(())
}

/// Name, meaning, value.
type Metric = (&'static str, &'static str, Option<u64>);

fn counters(summary: &Summary) -> Vec<Metric> {
    let mut counters = vec![
        (
            "nic_received",
            "Frames the network cards received, as their drivers count them.",
            summary.nic_received,
        ),
        (
            "nic_missed",
            "Frames the network cards received and dropped before the program.",
            summary.nic_missed,
        ),
        (
            "nic_frames_seen",
            "Frames the program had been given when the drivers' counters were read.",
            summary.nic_frames_seen,
        ),
        (
            "interface_losses",
            "Times that an interface went down or away.",
            summary.interface_losses,
        ),
        ("packets_cut", "IP packets shorter than their header says.", Some(summary.packets_cut)),
        ("frames_seen", "Frames the program was given.", Some(summary.frames_seen)),
        ("packets_ip", "Frames with a usable IP header.", Some(summary.packets_ip)),
        (
            "packets_in_flows",
            "IP packets in the record of their own flow, written or open.",
            Some(summary.packets_in_flows),
        ),
        (
            "packets_folded",
            "IP packets in folded totals, written or open, because a kernel table was full.",
            Some(summary.packets_folded),
        ),
        (
            "packets_folded_rest",
            "Those of them of which nothing but number and length is known.",
            Some(summary.packets_folded_rest),
        ),
        ("bytes_folded", "Layer-2 bytes of the folded packets.", Some(summary.bytes_folded)),
        (
            "syns_folded",
            "TCP packets with SYN and without ACK among the folded packets.",
            Some(summary.syns_folded),
        ),
        ("packets_duplicate", "Copies of packets, removed.", Some(summary.packets_duplicate)),
        (
            "packets_in_records",
            "Packets in the records given to the outputs.",
            Some(summary.packets_in_records),
        ),
        ("epochs", "Drains of the kernel's tables.", Some(summary.epochs)),
        (
            "epochs_early",
            "Drains that came before their time because a log filled.",
            Some(summary.epochs_early),
        ),
        (
            "drain_waited_ms",
            "How long the drain has waited for the aggregator to take what it gave.",
            summary.drain_waited_ms,
        ),
        ("flows_opened", "Flows that began.", Some(summary.flows_opened)),
        (
            "flows_evicted",
            "Flows that ended early because the flow table was full.",
            Some(summary.flows_evicted),
        ),
        (
            "openings_one_way",
            "Records of openings told as one-way because the mirror shows one direction only.",
            Some(summary.openings_one_way),
        ),
        ("records_out", "Records handed to the outputs.", Some(summary.records_out)),
        ("records_folded", "Records of folded totals among them.", Some(summary.records_folded)),
        (
            "records_missed",
            "Records that an output that had failed did not get.",
            Some(summary.records_missed),
        ),
        ("output_failures", "Failed calls of outputs.", Some(summary.output_failures)),
        (
            "records_exported",
            "Records given to the network on their way to a collector.",
            Some(summary.records_exported),
        ),
        (
            "records_unsent",
            "Records that could not be sent to the collector.",
            Some(summary.records_unsent),
        ),
        ("files_deleted", "Old files that outputs deleted.", Some(summary.files_deleted)),
    ];
    if summary.has_uplink() {
        counters.extend(uplink_counters(summary));
    }
    counters
}

fn uplink_counters(summary: &Summary) -> [Metric; 11] {
    [
        (
            "records_recovered",
            "Records of earlier starts that waited in the spool when this one began.",
            Some(summary.records_recovered),
        ),
        ("records_sealed", "Records sealed into batches.", Some(summary.records_sealed)),
        (
            "records_acked",
            "Records of this start that the backend has acknowledged.",
            Some(summary.records_acked),
        ),
        (
            "records_acked_earlier",
            "Records of earlier starts that it has acknowledged since this one.",
            Some(summary.records_acked_earlier),
        ),
        (
            "records_rejected",
            "Records that the backend refused for good.",
            Some(summary.records_rejected),
        ),
        (
            "records_evicted",
            "Sealed records that a full spool gave up.",
            Some(summary.records_evicted),
        ),
        (
            "records_lost",
            "Records never sealed because the spool could not be written.",
            Some(summary.records_lost),
        ),
        (
            "batches_quarantined",
            "Spool files found damaged at the start.",
            Some(summary.batches_quarantined),
        ),
        ("pseudonyms_given", "Addresses sent as pseudonyms.", Some(summary.pseudonyms_given)),
        (
            "pseudonyms_cached",
            "Those of them whose pseudonym was still in memory.",
            Some(summary.pseudonyms_cached),
        ),
        ("keys_removed", "Old keys of pseudonyms that were removed.", Some(summary.keys_removed)),
    ]
}

fn gauges(summary: &Summary) -> Vec<Metric> {
    let mut gauges = vec![
        ("interfaces_up", "Interfaces that are up.", summary.interfaces_up),
        (
            "interfaces_down",
            "Interfaces that are down or without a carrier.",
            summary.interfaces_down,
        ),
        ("interfaces_gone", "Interfaces that are no longer there.", summary.interfaces_gone),
        (
            "nic_frames_in_flight",
            "Frames that were on their way when the drivers' counters were read.",
            summary.nic_frames_in_flight,
        ),
        (
            "packets_in_cache",
            "IP packets that the kernel's tables still hold.",
            Some(summary.packets_in_cache),
        ),
        (
            "packets_in_open",
            "Packets of flows and folded totals that are not reported yet.",
            Some(summary.packets_in_open),
        ),
        ("epoch_ms", "How long the latest epoch lasted.", summary.epoch_ms),
        ("grace_us", "How long the kernel took to end it.", summary.grace_us),
        (
            "log_fill_permille",
            "How full the fullest log was at its end.",
            summary.log_fill_permille.map(u64::from),
        ),
        (
            "log_fill_permille_max",
            "The most of all epochs.",
            summary.log_fill_permille_max.map(u64::from),
        ),
        ("flows_open", "Flows in the flow table.", Some(summary.flows_open)),
        ("flows_open_max", "Flows that it can hold.", Some(summary.flows_open_max)),
    ];
    if summary.has_uplink() {
        gauges.extend([
            ("records_pending", "Records that wait to be sealed.", Some(summary.records_pending)),
            (
                "records_waiting",
                "Sealed records that wait in the spool.",
                Some(summary.records_waiting),
            ),
            ("spool_bytes", "Bytes in the spool.", Some(summary.spool_bytes)),
            (
                "key_epoch",
                "Number of the key epoch of pseudonyms.",
                summary.key_epoch.map(u64::from),
            ),
            ("keys_kept", "Keys of pseudonyms on the disk.", Some(summary.keys_kept)),
            ("spool_bytes_max", "Bytes that it may hold.", Some(summary.spool_bytes_max)),
            (
                "uplink_connected",
                "1 while there is a connection to the backend.",
                summary.uplink_connected.map(u64::from),
            ),
            (
                "certificate_ends_unix_s",
                "When the certificate ends, seconds since the Unix epoch.",
                summary.certificate_ends_unix_s,
            ),
        ]);
    }
    gauges
}
