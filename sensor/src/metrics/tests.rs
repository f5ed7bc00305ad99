//! The list of metrics, and clients that behave badly.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use expect_test::expect;

use super::MetricsServer;
use super::exposition::render;
use super::request::{REQUEST_BYTES_MAX, Refusal, Wish, wish};
use crate::summary::Summary;

/// A summary in which everything is known.
fn everything() -> Summary {
    Summary {
        command: "run",
        sensor_version: "0.1.0",
        interfaces: vec!["span0".to_owned()],
        outputs: vec!["uplink"],
        xdp_mode: Some("native"),
        object_sha256: Some("00ff".to_owned()),
        nic_received: Some(1),
        nic_missed: Some(0),
        nic_frames_seen: Some(1),
        nic_frames_in_flight: Some(0),
        interfaces_up: Some(1),
        interfaces_down: Some(0),
        interfaces_gone: Some(0),
        interface_losses: Some(0),
        drain_waited_ms: Some(0),
        epoch_ms: Some(250),
        grace_us: Some(8_000),
        log_fill_permille: Some(3),
        log_fill_permille_max: Some(500),
        key_epoch: Some(20_261_122),
        uplink_connected: Some(true),
        certificate_ends_unix_s: Some(1_700_500_000),
        not_ip: [("arp", 7)].into(),
        malformed: [("ip_header_cut", 2)].into(),
        updated_ms: 1_700_000_000_250,
        ..Summary::default()
    }
}

const REQUESTS: [(&str, u64); 3] = [("answered", 1), ("refused", 0), ("broken", 0)];

/// Name and kind of each metric.
fn list(text: &str) -> Vec<(&str, &str)> {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    kinds.filter_map(|line| line.split_once(' ')).collect()
}

#[test]
fn the_list_of_metrics() {
    let text = render(&everything(), &REQUESTS);
    let list: Vec<String> =
        list(&text).iter().map(|(name, kind)| format!("{kind} {name}")).collect();
    expect![[r"
        info spanwatch_sensor
        counter spanwatch_nic_received
        counter spanwatch_nic_missed
        counter spanwatch_nic_frames_seen
        counter spanwatch_interface_losses
        counter spanwatch_packets_cut
        counter spanwatch_frames_seen
        counter spanwatch_packets_ip
        counter spanwatch_packets_in_flows
        counter spanwatch_packets_folded
        counter spanwatch_packets_folded_rest
        counter spanwatch_bytes_folded
        counter spanwatch_syns_folded
        counter spanwatch_packets_duplicate
        counter spanwatch_packets_in_records
        counter spanwatch_epochs
        counter spanwatch_epochs_early
        counter spanwatch_drain_waited_ms
        counter spanwatch_flows_opened
        counter spanwatch_flows_evicted
        counter spanwatch_openings_one_way
        counter spanwatch_records_out
        counter spanwatch_records_folded
        counter spanwatch_records_missed
        counter spanwatch_output_failures
        counter spanwatch_records_exported
        counter spanwatch_records_unsent
        counter spanwatch_files_deleted
        counter spanwatch_records_recovered
        counter spanwatch_records_sealed
        counter spanwatch_records_acked
        counter spanwatch_records_acked_earlier
        counter spanwatch_records_rejected
        counter spanwatch_records_evicted
        counter spanwatch_records_lost
        counter spanwatch_batches_quarantined
        counter spanwatch_pseudonyms_given
        counter spanwatch_pseudonyms_cached
        counter spanwatch_keys_removed
        counter spanwatch_packets_not_ip
        counter spanwatch_packets_malformed
        counter spanwatch_records_kept
        counter spanwatch_packets_kept
        counter spanwatch_bytes_kept
        counter spanwatch_packets_carried
        counter spanwatch_packets_noted
        counter spanwatch_fragments
        gauge spanwatch_interfaces_up
        gauge spanwatch_interfaces_down
        gauge spanwatch_interfaces_gone
        gauge spanwatch_nic_frames_in_flight
        gauge spanwatch_packets_in_cache
        gauge spanwatch_packets_in_open
        gauge spanwatch_epoch_ms
        gauge spanwatch_grace_us
        gauge spanwatch_log_fill_permille
        gauge spanwatch_log_fill_permille_max
        gauge spanwatch_flows_open
        gauge spanwatch_flows_open_max
        gauge spanwatch_records_pending
        gauge spanwatch_records_waiting
        gauge spanwatch_spool_bytes
        gauge spanwatch_key_epoch
        gauge spanwatch_keys_kept
        gauge spanwatch_spool_bytes_max
        gauge spanwatch_uplink_connected
        gauge spanwatch_certificate_ends_unix_s
        gauge spanwatch_updated_time_seconds
        counter spanwatch_metrics_requests
    "]]
    .assert_eq(&(list.join("\n") + "\n"));
}

#[test]
fn one_scrape() {
    let text = render(&everything(), &REQUESTS);
    let some: Vec<&str> = text
        .lines()
        .filter(|line| {
            ["sensor", "frames_seen", "not_ip", "epoch_ms", "updated", "requests", "EOF"]
                .iter()
                .any(|part| line.contains(part))
        })
        .collect();
    expect![[r#"
        # HELP spanwatch_sensor What this sensor is.
        # TYPE spanwatch_sensor info
        spanwatch_sensor_info{version="0.1.0",interfaces="span0",xdp_mode="native",object_sha256="00ff"} 1
        # HELP spanwatch_nic_frames_seen Frames the program had been given when the drivers' counters were read.
        # TYPE spanwatch_nic_frames_seen counter
        spanwatch_nic_frames_seen_total 1
        # HELP spanwatch_frames_seen Frames the program was given.
        # TYPE spanwatch_frames_seen counter
        spanwatch_frames_seen_total 0
        # HELP spanwatch_packets_not_ip Frames without IP, by what they carry.
        # TYPE spanwatch_packets_not_ip counter
        spanwatch_packets_not_ip_total{kind="arp"} 7
        spanwatch_packets_not_ip_total{kind="mpls"} 0
        spanwatch_packets_not_ip_total{kind="mpls_multicast"} 0
        spanwatch_packets_not_ip_total{kind="pppoe_discovery"} 0
        spanwatch_packets_not_ip_total{kind="pppoe_session"} 0
        spanwatch_packets_not_ip_total{kind="eapol"} 0
        spanwatch_packets_not_ip_total{kind="profinet"} 0
        spanwatch_packets_not_ip_total{kind="lldp"} 0
        spanwatch_packets_not_ip_total{kind="ptp"} 0
        spanwatch_packets_not_ip_total{kind="slow_protocols"} 0
        spanwatch_packets_not_ip_total{kind="ieee_802_3"} 0
        spanwatch_packets_not_ip_total{kind="other"} 0
        # HELP spanwatch_epoch_ms How long the latest epoch lasted.
        # TYPE spanwatch_epoch_ms gauge
        spanwatch_epoch_ms 250
        # HELP spanwatch_updated_time_seconds When these numbers were of, seconds since the Unix epoch.
        # TYPE spanwatch_updated_time_seconds gauge
        spanwatch_updated_time_seconds 1700000000.25
        # HELP spanwatch_metrics_requests Requests for these metrics, by how they ended.
        # TYPE spanwatch_metrics_requests counter
        spanwatch_metrics_requests_total{outcome="answered"} 1
        spanwatch_metrics_requests_total{outcome="refused"} 0
        spanwatch_metrics_requests_total{outcome="broken"} 0
        # EOF
    "#]].assert_eq(&(some.join("\n") + "\n"));
}

#[test]
fn what_is_not_known_is_left_out() {
    let nothing = Summary { command: "run", ..Summary::default() };
    let text = render(&nothing, &REQUESTS);
    for absent in [
        "nic_received",
        "nic_missed",
        "interfaces_up",
        "epoch_ms",
        "log_fill",
        "records_acked",
        "spool",
        "uplink",
    ] {
        assert!(!text.contains(absent), "{absent} is not known:\n{text}");
    }
    assert!(text.contains("spanwatch_frames_seen_total 0\n"), "a known 0 is told");
}

#[test]
fn every_metric_is_in_the_documentation_and_every_documented_one_exists() {
    let text = render(&everything(), &REQUESTS);
    let told: BTreeSet<String> = list(&text)
        .into_iter()
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
        .collect();
    let page = include_str!("../../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `spanwatch_"));
    let names = rows.filter_map(|row| row.split(['`', '{']).next());
    let documented: BTreeSet<String> = names.map(|name| format!("spanwatch_{name}")).collect();
    assert_eq!(documented, told);
}

#[test]
fn requests() {
    for (received, expected) in [
        ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Some(Wish::Metrics)),
        ("GET /metrics?name[]=up HTTP/1.0\r\n\r\n", Some(Wish::Metrics)),
        ("HEAD /metrics HTTP/1.1\r\n\r\n", Some(Wish::MetricsHead)),
        ("GET / HTTP/1.1\r\n\r\n", Some(Wish::Refused(Refusal::NoSuchPage))),
        ("POST /metrics HTTP/1.1\r\n\r\n", Some(Wish::Refused(Refusal::NotThisMethod))),
        ("\u{16}\u{3}\u{1} TLS\r\n\r\n", Some(Wish::Refused(Refusal::NotHttp))),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\n", None),
        ("", None),
    ] {
        assert_eq!(wish(received.as_bytes()), expected, "{received:?}");
    }
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
    assert_eq!(wish(many.as_bytes()), Some(Wish::Refused(Refusal::TooLong)));
    let mut long = b"GET /metrics HTTP/1.1\r\na: ".to_vec();
    long.resize(REQUEST_BYTES_MAX - 1, b'b');
    assert_eq!(wish(&long), None);
    long.push(b'b');
    assert_eq!(wish(&long), Some(Wish::Refused(Refusal::TooLong)));
}

fn server() -> MetricsServer {
    MetricsServer::start(([127, 0, 0, 1], 0).into()).expect("loopback has a free port")
}

fn ask(server: &MetricsServer, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address).expect("it listens");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn answers() {
    let server = server();
    let answer = ask(&server, "GET /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503 "), "nothing is known yet: {answer}");
    server.publish(&everything());
    let answer = ask(&server, "GET /metrics HTTP/1.1\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    assert!(body.contains("spanwatch_metrics_requests_total{outcome=\"refused\"} 1\n"), "{body}");
    let answer = ask(&server, "HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(ask(&server, "GET /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
    assert!(ask(&server, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
}

#[test]
fn clients_that_never_finish_neither_stop_the_next_ones_nor_the_pipeline() {
    let server = MetricsServer::start_with(([127, 0, 0, 1], 0).into(), Duration::from_millis(200))
        .expect("loopback has a free port");
    server.publish(&everything());
    // More than there are places for, none of them with a whole request.
    let silent: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).expect("the queue has room");
            stream.write_all(b"GET /metr").expect("it reads or keeps");
            stream
        })
        .collect();
    server.publish(&everything());
    // Those in front are sent away when their time is up.
    let answer = ask(&server, "GET /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    drop(silent);
}

#[test]
fn an_address_that_is_taken_is_an_error_and_a_dropped_server_gives_it_back() {
    let first = server();
    let address = first.address;
    assert!(MetricsServer::start(address).is_err());
    drop(first);
    MetricsServer::start(address).expect("it is free again");
}
