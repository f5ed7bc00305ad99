use std::collections::HashSet;

use flow::{EndReason, Record, protocol};

use super::Mix;

fn share(records: &[Record], is: impl Fn(&Record) -> bool) -> usize {
    records.iter().filter(|record| is(record)).count() * 100 / records.len()
}

#[test]
fn the_same_seed_gives_the_same_records_and_another_gives_others() {
    assert_eq!(Mix::new(7).records(2_000), Mix::new(7).records(2_000));
    assert_ne!(Mix::new(7).records(2_000), Mix::new(8).records(2_000));
}

#[test]
fn records_are_such_as_a_sensor_writes() {
    for record in Mix::new(3).records(20_000) {
        assert!(record.start_ms <= record.end_ms, "{record:?}");
        assert_eq!(record.initiator.is_ipv4(), record.responder.is_ipv4(), "{record:?}");
        for side in [record.from_initiator, record.from_responder] {
            let (least, most) = (u64::from(side.length_min), u64::from(side.length_max));
            assert!(side.bytes >= side.packets * least, "{record:?}");
            assert!(side.bytes <= side.packets * most, "{record:?}");
            assert!(side.packets != 1 || least == most, "{record:?}");
            assert!(most <= 1_514, "{record:?}");
        }
        assert!(record.handshake_rtt_us.is_none() || record.protocol == protocol::TCP);
    }
}

#[test]
fn the_shares_are_those_that_the_description_names() {
    let records = Mix::new(4).records(40_000);
    assert!((52..=62).contains(&share(&records, |r| r.protocol == protocol::TCP)));
    assert!((22..=28).contains(&share(&records, |r| r.responder_port == 53)));
    assert!((8..=22).contains(&share(&records, |r| r.initiator.is_ipv6())));
    assert!((5..=20).contains(&share(&records, |r| r.end_reason == EndReason::ActiveTimeout)));
    let one_packet = |r: &Record| r.from_initiator.packets + r.from_responder.packets == 1;
    assert!((10..=25).contains(&share(&records, one_packet)));
    let sources: HashSet<_> = records.iter().map(|record| record.initiator).collect();
    assert!(sources.len() > 4_000, "scans come from everywhere");
}
