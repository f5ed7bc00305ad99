//! Mirrors that show one direction only, mirrors that show both, and floods on either.

use flow::{EndReason, Handshake, Observation, Record, protocol};

use super::tests::{ACK, CLIENT, FIN, PSH, SERVER, START_MS, SYN, packet};
use super::{Aggregator, AggregatorSettings, AggregatorTotals, FlowTable as _};

/// A conversation from this port, in the first second of which everything happens.
fn client_half(port: u16, at_ms: u64) -> Vec<Observation> {
    [SYN, ACK, ACK | PSH, ACK | FIN]
        .iter()
        .zip(0..)
        .map(|(&flags, step)| ask(port, flags, at_ms + step))
        .collect()
}

fn server_half(port: u16, at_ms: u64) -> Vec<Observation> {
    [SYN | ACK, ACK | PSH, ACK | FIN]
        .iter()
        .zip(0..)
        .map(|(&flags, step)| answer(port, flags, at_ms + step))
        .collect()
}

fn ask(port: u16, flags: u8, at_ms: u64) -> Observation {
    packet(protocol::TCP, (CLIENT, port), (SERVER, 443), flags, at_ms)
}

fn answer(port: u16, flags: u8, at_ms: u64) -> Observation {
    packet(protocol::TCP, (SERVER, 443), (CLIENT, port), flags, at_ms)
}

/// What becomes of these packets, in order of time, and what the table says at the end.
fn run(mut packets: Vec<Observation>) -> (Vec<Record>, AggregatorTotals) {
    packets.sort_by_key(|seen| seen.first_ms);
    let mut records = Vec::new();
    let mut emit = |record| records.push(record);
    let mut aggregator = Aggregator::new(AggregatorSettings::default());
    let mut epoch_end_ms = START_MS;
    for seen in &packets {
        while seen.first_ms >= epoch_end_ms {
            aggregator.advance(epoch_end_ms, &mut emit);
            epoch_end_ms += 250;
        }
        aggregator.handle_observation(seen, &mut emit);
    }
    aggregator.finish(&mut emit);
    (records, aggregator.totals())
}

/// How many records of single packets have each of these.
fn lone(records: &[Record], handshake: Handshake) -> usize {
    let is_lone =
        |record: &&Record| record.from_initiator.packets + record.from_responder.packets == 1;
    records.iter().filter(is_lone).filter(|record| record.handshake == handshake).count()
}

fn lone_syns(count: u16, at_ms: u64) -> impl Iterator<Item = Observation> {
    (0..count).map(move |number| ask(10_000 + number, SYN, at_ms + u64::from(number % 200)))
}

#[test]
fn a_mirror_of_the_askers_makes_no_failed_handshakes() {
    let mut packets: Vec<_> =
        (0..40).flat_map(|n| client_half(40_000 + n, u64::from(n) * 50)).collect();
    packets.extend(lone_syns(25, 900));
    let (records, totals) = run(packets);
    assert!(totals.one_way);
    assert_eq!(totals.openings_one_way, 25);
    assert_eq!((lone(&records, Handshake::OneWay), lone(&records, Handshake::Syn)), (25, 0));
    let established = records.iter().filter(|record| record.handshake == Handshake::Established);
    assert_eq!(established.count(), 40, "an acknowledgement proves the answer");
}

#[test]
fn a_mirror_of_the_answerers_makes_no_backscatter() {
    let mut packets: Vec<_> =
        (0..40).flat_map(|n| server_half(40_000 + n, u64::from(n) * 50)).collect();
    packets.extend((0..7).map(|n| answer(10_000 + n, SYN | ACK, 900)));
    let (records, totals) = run(packets);
    assert!(totals.one_way);
    assert!(records.iter().all(|record| record.handshake == Handshake::OneWay), "{records:?}");
    assert_eq!(totals.openings_one_way, 47);
}

#[test]
fn a_flood_on_a_mirror_of_both_directions_stays_a_flood() {
    let both = |n: u16| {
        let at_ms = u64::from(n) * 50;
        [client_half(40_000 + n, at_ms), server_half(40_000 + n, at_ms)].concat()
    };
    let mut packets: Vec<_> = (0..40).flat_map(both).collect();
    packets.extend(lone_syns(20_000, 900));
    // Made to look like conversations, as far as one side can.
    packets.extend((0..2_000).flat_map(|n| client_half(50_000 + n, 1_000)));
    let (records, totals) = run(packets);
    assert!(!totals.one_way);
    assert_eq!(totals.openings_one_way, 0);
    assert_eq!((lone(&records, Handshake::OneWay), lone(&records, Handshake::Syn)), (0, 20_000));
}

#[test]
fn a_flood_alone_says_nothing_of_the_mirror() {
    let (records, totals) = run(lone_syns(20_000, 0).collect());
    assert!(!totals.one_way);
    assert_eq!(lone(&records, Handshake::Syn), 20_000);
}

#[test]
fn it_is_told_while_it_is_so_and_no_longer() {
    let minute = 60_000;
    let mut packets: Vec<_> =
        (0..300).flat_map(|n| client_half(20_000 + n, u64::from(n) * 1_000)).collect();
    packets.extend((0..10).map(|n| ask(10_000 + n, SYN, 4 * minute)));
    // From here on the mirror is as it should be.
    packets.extend((0..300).flat_map(|n| {
        let at_ms = 6 * minute + u64::from(n) * 1_000;
        [client_half(30_000 + n, at_ms), server_half(30_000 + n, at_ms)].concat()
    }));
    packets.extend((0..10).map(|n| ask(15_000 + n, SYN, 10 * minute)));
    let (records, totals) = run(packets);
    assert!(!totals.one_way);
    assert_eq!((lone(&records, Handshake::OneWay), lone(&records, Handshake::Syn)), (10, 10));
    let idle = |record: &Record| record.end_reason == EndReason::IdleTimeout;
    assert!(records.iter().filter(|record| record.handshake == Handshake::OneWay).all(idle));
}
