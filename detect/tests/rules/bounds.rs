//! A million forged sources, services and victims: tables stay within their bounds, count what they
//! lost, and still find who is really there.

use std::collections::BTreeMap;

use detect::{Detection, Finding, FindingId, Kind, Settings};

use crate::records::{findings, outside, own, refused, unanswered};

fn small() -> Settings {
    Settings {
        scan_keys_max: 1_024,
        flood_keys_max: 64,
        guessing_keys_max: 64,
        reflection_keys_max: 64,
        beacon_keys_max: 64,
        backscatter_keys_max: 64,
        continued_keys_max: 64,
        ..Settings::default()
    }
}

#[test]
fn a_million_forged_sources_stay_within_the_bounds() {
    let mut detection = Detection::new(Settings { scan_keys_max: 32_768, ..small() });
    for number in 0..1_000_000_u32 {
        let at_ms = u64::from(number) / 20;
        detection.handle_record(&unanswered(at_ms, outside(number), own(1), 443));
        // Among them a patient scanner, a port each second.
        if number % 20_000 == 0 {
            let port = u16::try_from(number / 20_000).expect("below 50");
            detection.handle_record(&refused(at_ms, outside(2_000_000), own(2), 1 + port));
        }
    }
    let findings = detection.finish();
    let kinds: Vec<Kind> = findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [Kind::VerticalScan, Kind::SynFlood], "{findings:#?}");
    assert_eq!(findings[0].records, 50);
    let counters = detection.counters();
    assert_eq!(counters.records_in_total, 1_000_050);
    assert_eq!((counters.vertical_scan.keys, counters.vertical_scan.keys_max), (32_768, 32_768));
    assert_eq!(counters.vertical_scan.keys_evicted_total, 1_000_001 - 32_768);
    assert_eq!(counters.syn_flood.keys, 1);
}

#[test]
fn a_million_attacked_services_stay_within_the_bounds() {
    let mut detection = Detection::new(small());
    for number in 0..1_000_000_u32 {
        detection.handle_record(&unanswered(
            u64::from(number) / 20,
            outside(number),
            own(number),
            443,
        ));
    }
    let counters = detection.counters();
    assert_eq!((counters.syn_flood.keys, counters.syn_flood.keys_evicted_total), (64, 999_936));
}

#[test]
fn campaigns_beyond_the_table_are_told_before_they_go() {
    let mut detection = Detection::new(Settings { scan_keys_max: 16, ..Settings::default() });
    for source in 0..500_u32 {
        for port in 0..20 {
            let at_ms = u64::from(source) * 1_000;
            detection.handle_record(&refused(at_ms, outside(source), own(1), 1 + port));
        }
    }
    // Some are told while they grow; as everywhere, later replaces earlier.
    let told = detection.finish().into_iter().map(|finding| (finding.id, finding));
    let latest: BTreeMap<FindingId, Finding> = told.collect();
    let counters = detection.counters().vertical_scan;
    assert_eq!(latest.len(), 500, "{counters:?}");
    assert!(latest.values().all(|finding| finding.records == 20));
    assert_eq!(counters.findings_dropped_total, 0);
}

#[test]
fn a_finding_survives_json() {
    let records: Vec<_> = (0..20).map(|port| refused(0, outside(1), own(1), port)).collect();
    let finding = findings(&records).remove(0);
    let text = serde_json::to_string(&finding).expect("a finding is plain data");
    assert!(text.contains(r#""kind":"vertical_scan""#), "{text}");
    assert!(text.contains(&format!(r#""id":"{}""#, finding.id)), "{text}");
    let back: Finding = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(back, finding);
    assert_eq!(finding.id.to_string().parse::<FindingId>(), Ok(finding.id));
    for malformed in ["", "0", "zz", "+0000000000000000000000000000000"] {
        malformed.parse::<FindingId>().expect_err(malformed);
    }
}

#[test]
fn settings_survive_json_and_refuse_unknown_names() {
    let text = serde_json::to_string(&Settings::default()).expect("settings are plain data");
    let back: Settings = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(back, Settings::default());
    serde_json::from_str::<Settings>(r#"{"vertical_portz": 3}"#).expect_err("a misspelt name");
    let some: Settings =
        serde_json::from_str(r#"{"own_prefixes": ["192.0.2.0/24"]}"#).expect("the rest is default");
    assert_eq!(some.vertical_ports, 15);
}
