//! The books of summaries that add up, that do not, and of files that are none.

use expect_test::expect;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Balance;

fn running() -> Value {
    json!({
        "command": "run", "sensor_version": "0.1.0", "interfaces": ["span0", "span1"], "files": [],
        "outputs": ["uplink"], "xdp_mode": "native", "finished": false,
        "updated_time": "2026-11-21T15:00:00.000Z",
        "nic_received": 1_000_500, "nic_missed": 0, "nic_frames_seen": 1_000_400,
        "nic_frames_in_flight": 130,
        "frames_seen": 1_000_900, "packets_ip": 1_000_890, "packets_not_ip": 8,
        "packets_malformed": 2, "not_ip": {"arp": 7, "lldp": 1}, "malformed": {"ip_header_cut": 2},
        "packets_in_flows": 900_000, "packets_folded": 100_000, "packets_in_cache": 890,
        "packets_in_records": 600_000, "packets_in_open": 400_000,
        "records_out": 5_000, "records_sealed": 4_900, "records_pending": 100, "records_lost": 0,
        "records_recovered": 50, "records_acked": 4_000, "records_acked_earlier": 50,
        "records_waiting": 900, "records_evicted": 0, "records_rejected": 0
    })
}

fn balance(summary: &Value) -> Balance {
    Balance::of(summary).expect("it is a summary")
}

fn text(summary: &Value) -> String {
    let now: Timestamp = "2026-11-21T15:00:02Z".parse().expect("a time");
    balance(summary).to_text(now)
}

#[test]
fn a_running_sensor() {
    expect![[r"
        sensor 0.1.0 on span0, span1 (native mode), running; written 2026-11-21T15:00:00.000Z

          difference
        ≈        100  port      1,000,500 received ≈ 1,000,400 seen + 0 missed (up to 130 on their way)
        =          0  frames    1,000,900 seen = 1,000,890 IP + 8 not IP + 2 malformed
        =          0  not IP    8 not IP = 8 by kind
        =          0  malformed 2 malformed = 2 by reason
        =          0  packets   1,000,890 IP = 900,000 in flows + 100,000 folded + 890 in the kernel's tables
        =          0  records   1,000,000 in flows or folded = 600,000 in records + 400,000 not reported yet
        =          0  batches   5,000 records out = 4,900 sealed + 100 waiting to be sealed + 0 lost
        =          0  uplink    4,950 to deliver = 4,000 acked + 50 acked earlier + 900 waiting + 0 evicted + 0 rejected

        balanced: nothing has disappeared
    "]].assert_eq(&text(&running()));
    assert!(balance(&running()).balanced);
}

#[test]
fn what_does_not_add_up_and_what_is_not_known() {
    let mut summary = running();
    summary["nic_received"] = Value::Null;
    summary["packets_ip"] = json!(1_000_893);
    expect![[r"
        sensor 0.1.0 on span0, span1 (native mode), running; written 2026-11-21T15:00:00.000Z

          difference
        ?    unknown  port      unknown received ? 1,000,400 seen + 0 missed (up to 130 on their way)
        ≠         -3  frames    1,000,900 seen ≠ 1,000,893 IP + 8 not IP + 2 malformed
        =          0  not IP    8 not IP = 8 by kind
        =          0  malformed 2 malformed = 2 by reason
        ≠          3  packets   1,000,893 IP ≠ 900,000 in flows + 100,000 folded + 890 in the kernel's tables
        =          0  records   1,000,000 in flows or folded = 600,000 in records + 400,000 not reported yet
        =          0  batches   5,000 records out = 4,900 sealed + 100 waiting to be sealed + 0 lost
        =          0  uplink    4,950 to deliver = 4,000 acked + 50 acked earlier + 900 waiting + 0 evicted + 0 rejected

        NOT balanced: 2 lines do not add up; 1 line is not known
    "]].assert_eq(&text(&summary));
    let balance = balance(&summary);
    assert!(!balance.balanced);
    let port = &balance.equations[0];
    assert_eq!((port.difference, port.holds), (None, None), "unknown is neither right nor wrong");
}

#[test]
fn a_stopped_sensor_has_nothing_left_anywhere() {
    let mut summary = running();
    summary["finished"] = json!(true);
    let open = balance(&summary);
    let wrong: Vec<_> =
        open.equations.iter().filter(|one| one.holds == Some(false)).map(|one| one.name).collect();
    assert_eq!(wrong, ["packets", "records"], "890 in the cache, 400,000 not reported");
    summary["packets_in_flows"] = json!(900_890);
    summary["packets_in_records"] = json!(1_000_890);
    assert!(balance(&summary).balanced);
}

#[test]
fn frames_on_their_way_excuse_no_more_than_they_are() {
    let mut summary = running();
    for (received, holds) in
        [(1_000_530, true), (1_000_531, false), (1_000_270, true), (1_000_269, false)]
    {
        summary["nic_received"] = json!(received);
        assert_eq!(balance(&summary).equations[0].holds, Some(holds), "{received}");
    }
}

#[test]
fn a_sensor_that_was_killed_is_not_called_running() {
    let mut summary = running();
    summary["updated_time"] = json!("2026-11-21T14:00:00.000Z");
    let told = text(&summary);
    assert!(told.contains("NOT running any more, and not stopped in order"), "{told}");
    assert!(told.contains("3,602 s ago"), "{told}");
}

#[test]
fn json_has_the_same() {
    let balance = serde_json::to_value(balance(&running())).expect("it is plain data");
    assert_eq!(balance["balanced"], true);
    let frames = &balance["equations"][1];
    assert_eq!(frames["left"], json!({"key": "frames_seen", "value": 1_000_900}));
    assert_eq!((&frames["difference"], &frames["holds"]), (&json!(0), &json!(true)));
}

#[test]
fn another_file_is_an_error_that_says_what_is_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("some.json");
    for (content, told) in [
        ("{}", "is no summary of a sensor: it has no `finished`"),
        ("[1]", "is no summary of a sensor: it has no `finished`"),
        ("{\"finished\": true}", "it has no `frames_seen`"),
        ("nothing", "is no summary of a sensor: expected ident at line 1"),
    ] {
        std::fs::write(&file, content).expect("the folder takes a file");
        let error = Balance::read(&file).expect_err("no summary").to_string();
        assert!(error.contains(told), "{error}");
    }
    let error = Balance::read(&folder.path().join("missing")).expect_err("no file");
    assert!(error.to_string().starts_with("cannot read the summary "), "{error}");
}
