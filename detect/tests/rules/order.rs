//! Disorder: what arrives a little late, and any order within one second.

use detect::{Detection, Finding, Settings};
use flow::Record;
use proptest::prelude::*;

use crate::records::{connection, datagram, findings, outside, own, refused, syn_ack, unanswered};

/// A little of everything: a scan, a flood, reflection, guessing, a beacon, backscatter, and page
/// loads.
fn mixture() -> Vec<Record> {
    let mut records = Vec::new();
    for number in 0..300_u32 {
        let at_ms = u64::from(number) * 400;
        let port = u16::try_from(number).expect("below 300");
        records.push(refused(at_ms, outside(1), own(1), 1 + port));
        records.push(unanswered(at_ms, outside(2), own(number), 23));
        records.push(syn_ack(at_ms, (outside(3), 80), (own(number), 5_000)));
        records.push(connection(at_ms, 40, (own(4), 50_000), (outside(4), 443), (9, 900)));
        records.push(connection(
            at_ms,
            300,
            (outside(5), port),
            (own(5), 22),
            (20 + at_ms % 3, 3_000),
        ));
        records.push(connection(
            at_ms / 7 * 3 + at_ms * 31 % 60_000,
            at_ms % 9_000,
            (own(6), port),
            (outside(6), 443),
            (7 + at_ms % 40, 4_000),
        ));
        for forged in 0..8 {
            records.push(unanswered(at_ms, outside(10_000 + number * 8 + forged), own(2), 443));
            records.push(unanswered(at_ms, outside(20_000 + number * 8 + forged), own(2), 443));
            records.push(unanswered(at_ms, outside(30_000 + number * 8 + forged), own(2), 443));
            records.push(datagram(
                at_ms,
                (outside(50_000 + number * 8 + forged), 53),
                (own(7), 99),
                60_000,
            ));
        }
    }
    records.sort_by_key(|record| record.end_ms);
    records
}

/// What matters of a finding, without what only rounds differently.
fn essence(findings: Vec<Finding>) -> Vec<(String, String, u64, u64)> {
    let essence = |finding: Finding| {
        (finding.id.to_string(), finding.kind.to_string(), finding.records, finding.first_ms)
    };
    findings.into_iter().map(essence).collect()
}

#[test]
fn the_mixture_holds_one_of_each() {
    let kinds: Vec<&str> =
        findings(&mixture()).iter().map(|finding| finding.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "vertical_scan",
            "horizontal_scan",
            "syn_flood",
            "password_guessing",
            "reflection",
            "beacon",
            "backscatter"
        ]
    );
}

#[test]
fn the_same_records_give_the_same_findings() {
    assert_eq!(findings(&mixture()), findings(&mixture()));
}

#[test]
fn records_up_to_a_minute_late_change_no_finding() {
    let mut late = mixture();
    late.sort_by_key(|record| record.end_ms + record.start_ms % 7 * 8_000);
    let names = |findings: Vec<Finding>| -> Vec<String> {
        findings.iter().map(|finding| finding.id.to_string()).collect()
    };
    assert_eq!(names(findings(&late)), names(findings(&mixture())));
}

#[test]
fn polling_often_and_once_end_alike() {
    let mut detection = Detection::new(Settings::default());
    let mut latest = std::collections::BTreeMap::new();
    for record in &mixture() {
        detection.handle_record(record);
        if record.end_ms % 1_000 == 0 {
            latest
                .extend(detection.poll_findings().into_iter().map(|finding| (finding.id, finding)));
        }
    }
    latest.extend(detection.finish().into_iter().map(|finding| (finding.id, finding)));
    let mut often: Vec<Finding> = latest.into_values().collect();
    often.sort_by_key(|finding| (finding.kind, finding.id));
    let ids = |findings: &[Finding]| -> Vec<_> {
        findings.iter().map(|finding| (finding.id, finding.records)).collect()
    };
    assert_eq!(ids(&often), ids(&findings(&mixture())));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_order_within_a_second_does_not_matter(seed in any::<u64>()) {
        let mut shuffled = mixture();
        let mut state = seed;
        shuffled.sort_by_cached_key(|record| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (record.end_ms / 1_000, state >> 33)
        });
        prop_assert_eq!(essence(findings(&shuffled)), essence(findings(&mixture())));
    }
}
