//! A sensor whose kernel tables are as small as they can be, on a real interface: every total stays exact, what was
//! folded is marked, and summary, metrics and `balance` agree.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use flow::protocol;
use serde_json::Value;
use tests::{LiveSensor, VethPair, read};

const CONFIG: &str = "[capture]\nsets = 1\nlog_slots = 1\n";
const FRAME_BYTES: u64 = 60;
const FRAMES: u32 = 30_000;

/// A TCP SYN without payload.
fn syn(source: u32, destination: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol::TCP, 0, 0]);
    frame.extend(source.to_be_bytes());
    frame.extend(destination.octets());
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0, 0, 0, 0, 0, 0]);
    frame.resize(60, 0);
    frame
}

/// Frames that the sending end's driver has put on the wire; when the other end's queue is full it drops, and
/// leaves them out.
fn frames_sent(pair: &VethPair) -> Result<u64> {
    let namespace = pair.span_namespace().replace("-span", "-gen");
    let text = read(Command::new("ip").args([
        "-n",
        &namespace,
        "-json",
        "-statistics",
        "link",
        "show",
        &VethPair::generator_end(0),
    ]))?;
    let links: Value = serde_json::from_str(&text)?;
    links[0]["stats64"]["tx"]["packets"].as_u64().context("a counter of sent packets")
}

/// Sends, waits until the sensor has them all, and ends it; gives how many arrived.
fn flood(pair: &VethPair, sensor: &mut LiveSensor, frames: &[Vec<u8>]) -> Result<u64> {
    pair.send(0, frames.iter().map(Vec::as_slice))?;
    let sent = frames_sent(pair)?;
    ensure!(sent > u64::from(FRAMES) / 2, "most frames leave: {sent}");
    sensor.wait_until("counting every frame", |sensor| {
        sensor.summary().is_ok_and(|summary| summary["frames_seen"].as_u64() == Some(sent))
    })?;
    sensor.stop()?;
    Ok(sent)
}

fn packets(record: &Value) -> u64 {
    ["initiator_packets", "responder_packets"].iter().filter_map(|key| record[key].as_u64()).sum()
}

fn number(summary: &Value, key: &str) -> Result<u64> {
    summary[key].as_u64().with_context(|| format!("no {key} in {summary}"))
}

/// What must hold however much was folded.
fn check_totals(sensor: &LiveSensor, sent: u64) -> Result<Vec<Value>> {
    let records = sensor.records()?;
    let summary = sensor.summary()?;
    assert_eq!(records.iter().map(packets).sum::<u64>(), sent, "packets in records: {summary}");
    let bytes = records.iter().filter_map(|record| record["initiator_bytes"].as_u64());
    assert_eq!(bytes.sum::<u64>(), sent * FRAME_BYTES, "bytes in records: {summary}");
    let is_folded = |record: &&Value| record["folded"] == true;
    let folded: u64 = records.iter().filter(is_folded).map(packets).sum();
    ensure!(folded > 0, "a table of two flows is too small: {summary}");
    assert_eq!(folded, number(&summary, "packets_folded")?);
    assert_eq!(sent - folded, number(&summary, "packets_in_flows")?);
    assert_eq!(folded, number(&summary, "syns_folded")?, "all were SYNs");
    assert_eq!(folded * FRAME_BYTES, number(&summary, "bytes_folded")?);
    assert_eq!(summary["balanced"], true, "{summary}");
    assert_eq!(number(&summary, "nic_received")?, sent);
    let (code, text) = sensor.balance()?;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("balanced: nothing has disappeared"), "{text}");
    ensure!(sensor.log().contains("flow tables were full"), "it says so: {}", sensor.log());
    Ok(records)
}

#[test]
fn a_flood_is_folded_by_prefix_destination_and_port_with_exact_totals() -> Result<()> {
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    let mut sensor = LiveSensor::start(&pair, CONFIG)?;
    let prefixes = [1_u32, 77, 203, 223];
    let victims = [(Ipv4Addr::new(10, 0, 0, 1), 443), (Ipv4Addr::new(10, 0, 0, 2), 53)];
    let mut expected: BTreeMap<(String, String, u64), u64> = BTreeMap::new();
    let frames: Vec<Vec<u8>> = (0..FRAMES)
        .map(|at| {
            let prefix = prefixes[at as usize % prefixes.len()];
            let (victim, port) = victims[at as usize / 7 % victims.len()];
            let key = (format!("{prefix}.0.0.0"), victim.to_string(), u64::from(port));
            *expected.entry(key).or_default() += 1;
            syn(prefix << 24 | at, victim, port)
        })
        .collect();
    let sent = flood(&pair, &mut sensor, &frames)?;
    let records = check_totals(&sensor, sent)?;
    let mut found: BTreeMap<(String, String, u64), u64> = BTreeMap::new();
    for record in &records {
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        let first = text("initiator").split('.').next().unwrap_or_default().to_owned();
        let key = (format!("{first}.0.0.0"), text("responder"), number(record, "responder_port")?);
        if record["folded"] == true {
            assert_eq!(text("initiator"), key.0, "the prefix's network address");
            assert_eq!(record["end_reason"], "lack_of_resources");
            assert_eq!(record["initiator_tcp_flags"], 2);
            for unknown in ["initiator_port", "community_id", "handshake", "initiator_ttl"] {
                assert!(record.get(unknown).is_none(), "{unknown} is not known: {record}");
            }
        }
        *found.entry(key).or_default() += packets(record);
    }
    if sent == u64::from(FRAMES) {
        assert_eq!(found, expected);
    }
    let summary = sensor.summary()?;
    assert_eq!(number(&summary, "packets_folded_rest")?, 0, "eight keys find room");
    // One record a key: they are merged over the active timeout.
    assert_eq!(number(&summary, "records_folded")?, 8);
    Ok(())
}

#[test]
fn more_destinations_than_totals_are_the_rest_and_still_exact() -> Result<()> {
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    let mut sensor = LiveSensor::start(&pair, CONFIG)?;
    let frames: Vec<Vec<u8>> =
        (0..FRAMES).map(|at| syn(0x0101_0101, Ipv4Addr::from(0x0a00_0000 + at), 80)).collect();
    let sent = flood(&pair, &mut sensor, &frames)?;
    let records = check_totals(&sensor, sent)?;
    let rest: Vec<&Value> = records.iter().filter(|record| record["initiator"] == "::").collect();
    let summary = sensor.summary()?;
    let packets_rest = number(&summary, "packets_folded_rest")?;
    ensure!(packets_rest > 0, "1,024 totals an epoch do not hold 30,000 destinations: {summary}");
    assert_eq!(rest.iter().map(|record| packets(record)).sum::<u64>(), packets_rest);
    for record in rest {
        assert_eq!((&record["folded"], &record["responder"]), (&true.into(), &"::".into()));
        assert!(record.get("responder_port").is_none(), "{record}");
    }
    Ok(())
}
