//! What coarse totals become.

use flow::{Address, Vlans, kernel::CoarseSlot};

use super::*;

fn folded(source: [u8; 4], port: u16, packets: u64, at_ms: u64) -> Folded {
    let [from, to] = [source, [192, 0, 2, 1]].map(Address::from_v4);
    let key = FlowKey::new(from, to, [40_000, port], protocol::TCP, Kind::V4, 7);
    let slot = CoarseSlot {
        destination: key.destination,
        tail: CoarseSlot::tail_of(&key),
        ..CoarseSlot::default()
    };
    Folded {
        key: slot.key(),
        outer: Some(Outer::from_vlans(Vlans([7, 0]))),
        packets,
        bytes: packets * 60,
        syns: packets,
        times_ms: Some((at_ms, at_ms + 1)),
    }
}

fn rest(packets: u64) -> Folded {
    let of_a_key = folded([0; 4], 0, packets, 5);
    Folded { key: None, outer: None, syns: 0, times_ms: None, ..of_a_key }
}

fn finished(mut folding: Folding) -> (Vec<Record>, FoldingTotals) {
    let mut records = Vec::new();
    folding.finish(&mut |record| records.push(record));
    (records, folding.totals())
}

#[test]
fn totals_of_one_prefix_and_destination_are_one_record_that_says_so() {
    let mut folding = Folding::new(1_000);
    folding.handle(&folded([203, 0, 113, 9], 443, 3, 10), (0, 100));
    folding.handle(&folded([203, 200, 1, 2], 443, 4, 5), (100, 200));
    folding.handle(&folded([198, 51, 100, 1], 443, 1, 20), (100, 200));
    let (records, totals) = finished(folding);
    let [far, near] = records.as_slice() else { panic!("two prefixes: {records:?}") };
    assert_eq!(far.initiator, IpAddr::from([198, 0, 0, 0]));
    assert_eq!(near.initiator, IpAddr::from([203, 0, 0, 0]));
    assert_eq!((near.initiator_port, near.responder_port), (0, 443));
    assert_eq!((near.start_ms, near.end_ms), (5, 11));
    assert_eq!((near.from_initiator.packets, near.from_initiator.bytes), (7, 420));
    assert_eq!(
        (near.from_initiator.tcp_flags, near.outer),
        (tcp_flag::SYN, Outer::from_vlans(Vlans([7, 0])))
    );
    assert!(near.folded && near.ports_known);
    assert_eq!(near.end_reason, EndReason::LackOfResources);
    assert_eq!((totals.packets_in, totals.packets_out, totals.records_out), (8, 8, 2));
    assert_eq!((totals.bytes_in, totals.syns_in, totals.packets_rest), (480, 8, 0));
}

#[test]
fn ipv6_keeps_the_first_16_bits_of_the_source() {
    let [from, to] = ["2001:db8::1", "2001:db8::2"]
        .map(|text| Address::from(text.parse::<IpAddr>().expect("an address")));
    let key = FlowKey::new(from, to, [1, 53], protocol::UDP, Kind::default(), 0);
    let tail = CoarseSlot::tail_of(&key);
    let slot = CoarseSlot { destination: to, tail, ..CoarseSlot::default() };
    let of = Folded { key: slot.key(), ..rest(1) };
    let mut folding = Folding::new(1_000);
    folding.handle(&of, (0, 1));
    let (records, _) = finished(folding);
    assert_eq!(records[0].initiator.to_string(), "2001::");
    assert_eq!(records[0].responder.to_string(), "2001:db8::2");
    assert_eq!((records[0].responder_port, records[0].protocol), (53, protocol::UDP));
}

#[test]
fn what_has_no_key_or_no_room_is_the_rest_and_is_counted() {
    let mut folding = Folding::with_bound(1_000, 1);
    folding.handle(&rest(2), (30, 40));
    folding.handle(&folded([203, 0, 113, 9], 443, 3, 10), (0, 100));
    folding.handle(&folded([203, 0, 113, 9], 80, 5, 35), (0, 100));
    let (records, totals) = finished(folding);
    let [keyed, other] = records.as_slice() else { panic!("one key and the rest: {records:?}") };
    assert_eq!((keyed.responder_port, keyed.from_initiator.packets), (443, 3));
    assert_eq!(
        (other.initiator, other.responder),
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), other.initiator)
    );
    assert!(other.folded && !other.ports_known);
    assert_eq!((other.from_initiator.packets, other.start_ms, other.end_ms), (7, 30, 40));
    assert_eq!((totals.packets_rest, totals.packets_out), (7, 10));
}

#[test]
fn records_come_once_a_period_and_nothing_comes_twice() {
    let mut folding = Folding::new(1_000);
    let mut records = Vec::new();
    for epoch in 0..40 {
        folding.handle(&folded([1, 2, 3, 4], 53, 1, epoch * 100), (epoch * 100, epoch * 100 + 100));
        folding.advance(epoch * 100 + 100, &mut |record| records.push(record));
    }
    // Begun at 100, given at 1,100: eleven epochs a record.
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|record| record.from_initiator.packets == 11));
    let (last, totals) = finished(folding);
    assert_eq!((last.len(), totals.packets_in, totals.packets_out), (1, 40, 40));
}
