//! Captures of real attacks, through the sensor's own replay, to the findings. One threat a file;
//! the negatives must not raise what they look like.
//!
//! The captures are not ours to ship: they lie in the folder that `SPANWATCH_PCAPS` names, or in
//! `../shared/pcaps` beside the workspace. Without it the tests say so and pass.
#![forbid(unsafe_code)]

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use detect::{Detection, Finding, Kind, Settings, Severity, TrafficDirection};
use sensor::{AggregatorSettings, Replay, replay_all};

/// How often a live capture drains the kernel's cache.
const EPOCH_MS: u64 = 1_000;

/// The capture of this name, or `None` where the folder is absent.
#[expect(clippy::print_stdout, reason = "a test that skips says so and why")]
fn capture(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SPANWATCH_PCAPS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps"),
        PathBuf::from,
    );
    let attack = folder.join("attack");
    if attack.is_dir() {
        return Some(attack.join(name));
    }
    println!("skipped: {} is absent, so {name} cannot be read", attack.display());
    None
}

/// What is found in a capture; a poll every `poll_every` records, as a backend does it.
fn findings(name: &str, poll_every: usize) -> anyhow::Result<Option<Vec<Finding>>> {
    let Some(path) = capture(name) else { return Ok(None) };
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let mut records = Vec::new();
    let mut replay = Replay::new(AggregatorSettings::default(), EPOCH_MS);
    let mut keep = |record| records.push(record);
    replay_all(&mut replay, file, &mut keep).with_context(|| path.display().to_string())?;
    replay.finish(&mut keep);
    let mut detection = Detection::new(Settings::default());
    let mut latest = std::collections::BTreeMap::new();
    let mut keep = |found: Vec<Finding>| {
        latest.extend(found.into_iter().map(|finding| (finding.id, finding)));
    };
    for some in records.chunks(poll_every) {
        for record in some {
            detection.handle_record(record);
        }
        keep(detection.poll_findings());
    }
    keep(detection.finish());
    let mut findings: Vec<Finding> = latest.into_values().collect();
    findings.sort_by_key(|finding| (finding.kind, finding.first_ms));
    Ok(Some(findings))
}

/// The one finding that a capture holds, the same with few polls and many; `None` where the capture
/// is absent.
fn only(name: &str) -> anyhow::Result<Option<Finding>> {
    let Some(mut found) = findings(name, usize::MAX)? else { return Ok(None) };
    let often = findings(name, 100)?.context("the capture was there a moment ago")?;
    let essence = |findings: &[Finding]| -> Vec<_> {
        findings.iter().map(|finding| (finding.id, finding.kind, finding.records)).collect()
    };
    assert_eq!(essence(&often), essence(&found), "polls must not change what is found");
    assert_eq!(found.len(), 1, "{found:#?}");
    Ok(found.pop())
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().expect("the table holds valid addresses")
}

#[test]
fn nmap_syn_scan_is_one_vertical_scan() -> anyhow::Result<()> {
    let Some(scan) = only("vertical_scan_nmap_syn.pcap")? else { return Ok(()) };
    assert_eq!(scan.kind, Kind::VerticalScan);
    assert_eq!((scan.source, scan.target), (Some(ip("172.16.0.8")), Some(ip("64.13.134.52"))));
    // 1,000 ports, of which a few answered.
    assert!((990.0..=1_000.0).contains(&scan.measured), "{}", scan.measured);
    assert_eq!((scan.direction, scan.severity), (TrafficDirection::Outbound, Severity::High));
    Ok(())
}

#[test]
fn ssh_guesser_is_password_guessing() -> anyhow::Result<()> {
    let Some(guessing) = only("ssh_guessing.pcap")? else { return Ok(()) };
    assert_eq!(guessing.kind, Kind::PasswordGuessing);
    assert_eq!(guessing.source, Some(ip("192.168.56.1")));
    assert_eq!((guessing.target, guessing.target_port), (Some(ip("192.168.56.103")), Some(22)));
    assert_eq!((guessing.records, guessing.packets), (11, 431));
    Ok(())
}

#[test]
fn spoofed_flood_has_one_victim_and_no_scanner() -> anyhow::Result<()> {
    let Some(flood) = only("syn_flood_spoofed.pcap")? else { return Ok(()) };
    assert_eq!(flood.kind, Kind::SynFlood);
    assert_eq!((flood.target, flood.target_port), (Some(ip("10.10.10.10")), Some(25_565)));
    assert!(flood.spoofable && flood.source.is_none());
    assert!(flood.sources.abs_diff(37_623) < 37_623 / 15, "{}", flood.sources);
    assert!(flood.packets > 37_000, "{}", flood.packets);
    assert!((1_600.0..3_784.1).contains(&flood.measured), "{}", flood.measured);
    Ok(())
}

#[test]
fn amplified_answers_have_one_victim() -> anyhow::Result<()> {
    let Some(reflection) = only("amplification_bacnet.pcapng")? else { return Ok(()) };
    assert_eq!(reflection.kind, Kind::Reflection);
    assert_eq!(reflection.target, Some(ip("10.10.10.1")));
    assert!((5_300..6_700).contains(&reflection.sources), "{}", reflection.sources);
    for port in ["47808", "37810"] {
        assert!(reflection.summary.contains(port), "{}", reflection.summary);
    }
    Ok(())
}

#[test]
fn two_second_caller_is_a_beacon() -> anyhow::Result<()> {
    let Some(beacon) = only("beacon_2s.pcap")? else { return Ok(()) };
    assert_eq!(beacon.kind, Kind::Beacon);
    assert_eq!(beacon.source, Some(ip("147.32.80.37")));
    assert_eq!((beacon.target, beacon.target_port), (Some(ip("141.193.213.21")), Some(443)));
    assert!(beacon.records > 280, "{}", beacon.records);
    Ok(())
}

#[test]
fn backscatter_is_called_that_and_nothing_else() -> anyhow::Result<()> {
    let Some(found) = findings("negative_backscatter.pcap", 100)? else { return Ok(()) };
    assert!(!found.is_empty());
    for finding in &found {
        assert_eq!((finding.kind, finding.severity), (Kind::Backscatter, Severity::Informational));
        assert_eq!(finding.source, Some(ip("202.229.120.98")));
    }
    Ok(())
}

#[test]
fn address_requests_and_page_loads_stay_silent() -> anyhow::Result<()> {
    for name in ["negative_dhcp_flood.pcap", "negative_wikipedia.pcap"] {
        let Some(found) = findings(name, 100)? else { return Ok(()) };
        assert!(found.is_empty(), "{name}: {found:#?}");
    }
    Ok(())
}
