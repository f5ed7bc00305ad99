//! Roles, handshakes, timeouts and bounds, one small conversation at a time.

use std::net::IpAddr;

use flow::{
    Address, EndReason, FlowKey, Handshake, Kind, Observation, OpeningTime, Outer, Record,
    RoleEvidence, TcpSeen, Vlans, protocol,
};

use super::entry::Entry;
use super::{Aggregator, AggregatorSettings, FlowTable as _};

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
/// A day in 2026: times are as large as real ones.
pub(super) const START_MS: u64 = 1_780_000_000_000;

pub(super) const CLIENT: &str = "192.0.2.1";
pub(super) const SERVER: &str = "198.51.100.2";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal address")
}

/// The time of a SYN or SYN-ACK.
fn opening(tcp_flags: u8, time_ms: u64) -> OpeningTime {
    if tcp_flags & SYN == 0 {
        return OpeningTime::Unknown;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the lower 32 bits are wanted")]
    OpeningTime::At((time_ms * 1_000) as u32)
}

/// One packet at `at_ms` after the start.
pub(super) fn packet(
    number: u8,
    from: (&str, u16),
    to: (&str, u16),
    tcp_flags: u8,
    at_ms: u64,
) -> Observation {
    let (source, destination) = (Address::from(ip(from.0)), Address::from(ip(to.0)));
    let time_ms = START_MS + at_ms;
    Observation {
        key: FlowKey::new(source, destination, [from.1, to.1], number, Kind::V4, 0),
        outer: Outer::default(),
        packets: 1,
        bytes: 60,
        first_ms: time_ms,
        last_ms: time_ms,
        tcp: TcpSeen::from_flags(tcp_flags),
        opening: opening(tcp_flags, time_ms),
        first_flags: tcp_flags,
        ttl: 64,
        dscp: 0,
        fragmented: false,
        interface: 0,
        length_min: 60,
        length_max: 60,
    }
}

fn ask(flags: u8, at_ms: u64) -> Observation {
    packet(protocol::TCP, (CLIENT, 40_000), (SERVER, 443), flags, at_ms)
}

fn answer(flags: u8, at_ms: u64) -> Observation {
    packet(protocol::TCP, (SERVER, 443), (CLIENT, 40_000), flags, at_ms)
}

/// Runs packets through, ending an epoch every 250 ms of their time, in the given order.
fn run_with(settings: AggregatorSettings, packets: &[Observation]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut emit = |record| records.push(record);
    let mut aggregator = Aggregator::new(settings);
    let mut epoch_end_ms = START_MS;
    for seen in packets {
        while seen.first_ms >= epoch_end_ms {
            aggregator.advance(epoch_end_ms, &mut emit);
            epoch_end_ms += 250;
        }
        aggregator.handle_observation(seen, &mut emit);
    }
    aggregator.finish(&mut emit);
    let totals = aggregator.totals();
    assert_eq!(totals.packets_in, totals.packets_out);
    assert_eq!(aggregator.flows_open(), 0);
    records
}

fn run(packets: &[Observation]) -> Vec<Record> {
    run_with(AggregatorSettings::default(), packets)
}

/// The only record of these packets.
fn one(packets: &[Observation]) -> Record {
    let records = run(packets);
    assert_eq!(records.len(), 1, "{records:#?}");
    records[0]
}

#[test]
fn an_entry_is_as_small_as_documented() {
    assert!(size_of::<Entry>() <= 192, "{} bytes", size_of::<Entry>());
}

#[test]
fn handshakes() {
    type Case<'a> = (&'a str, Vec<Observation>, Handshake, RoleEvidence);
    let cases: [Case<'_>; 14] = [
        ("syn alone", vec![ask(SYN, 0)], Handshake::Syn, RoleEvidence::Handshake),
        (
            "accepted, then nothing",
            vec![ask(SYN, 0), answer(SYN | ACK, 1)],
            Handshake::SynAck,
            RoleEvidence::Handshake,
        ),
        (
            "half-open scan: accepted, then reset by the scanner",
            vec![ask(SYN, 0), answer(SYN | ACK, 1), ask(RST, 2)],
            Handshake::SynAck,
            RoleEvidence::Handshake,
        ),
        (
            "established",
            vec![ask(SYN, 0), answer(SYN | ACK, 1), ask(ACK, 2)],
            Handshake::Established,
            RoleEvidence::Handshake,
        ),
        (
            "answer before question, as slots may come",
            vec![ask(ACK, 2), answer(SYN | ACK, 1), ask(SYN, 0)],
            Handshake::Established,
            RoleEvidence::Handshake,
        ),
        (
            "rejected",
            vec![ask(SYN, 0), answer(RST | ACK, 1)],
            Handshake::Rejected,
            RoleEvidence::Handshake,
        ),
        (
            "backscatter: an answer nobody asked for",
            vec![answer(SYN | ACK, 0)],
            Handshake::SynAck,
            RoleEvidence::Handshake,
        ),
        (
            "syn lost on the mirror port",
            vec![answer(SYN | ACK, 0), ask(ACK, 1), answer(ACK, 2)],
            Handshake::Established,
            RoleEvidence::Handshake,
        ),
        (
            "syn-ack lost on the mirror port",
            vec![ask(SYN, 0), ask(ACK, 1), answer(ACK, 2)],
            Handshake::Established,
            RoleEvidence::Handshake,
        ),
        (
            "only the initiator's direction is mirrored",
            vec![ask(SYN, 0), ask(ACK, 1), ask(ACK | FIN, 2)],
            Handshake::Established,
            RoleEvidence::Handshake,
        ),
        (
            "syn answered by something else only",
            vec![ask(SYN, 0), answer(ACK, 1)],
            Handshake::Syn,
            RoleEvidence::Handshake,
        ),
        (
            "in the middle, server first",
            vec![answer(ACK, 0), ask(ACK, 1)],
            Handshake::None,
            RoleEvidence::PortRank,
        ),
        (
            "in the middle, one direction",
            vec![answer(ACK, 0), answer(ACK, 1)],
            Handshake::OneWay,
            RoleEvidence::PortRank,
        ),
        ("reset out of nothing", vec![answer(RST, 0)], Handshake::OneWay, RoleEvidence::PortRank),
    ];
    for (name, packets, handshake, role) in cases {
        let record = one(&packets);
        assert_eq!(
            (record.handshake, record.role, record.initiator, record.responder_port),
            (handshake, role, ip(CLIENT), 443),
            "{name}"
        );
    }
}

#[test]
fn roles_without_a_handshake() {
    let udp = |from, to, at_ms| packet(protocol::UDP, from, to, 0, at_ms);
    let (client, server) = ((CLIENT, 40_000), (SERVER, 53));
    let (peer_a, peer_b) = ((CLIENT, 50_000), (SERVER, 60_000));

    let first = one(&[udp(server, client, 0), udp(client, server, 5)]);
    assert_eq!((first.initiator, first.role), (ip(SERVER), RoleEvidence::FirstPacket));

    let tie = one(&[udp(server, client, 0), udp(client, server, 0)]);
    assert_eq!((tie.initiator, tie.role), (ip(CLIENT), RoleEvidence::PortRank));

    let guess = one(&[udp(peer_b, peer_a, 0), udp(peer_a, peer_b, 0)]);
    assert_eq!(guess.role, RoleEvidence::Guess);

    let middle = one(&[
        packet(protocol::TCP, peer_b, peer_a, ACK, 0),
        packet(protocol::TCP, peer_a, peer_b, ACK, 7),
    ]);
    assert_eq!((middle.initiator, middle.role), (ip(SERVER), RoleEvidence::Guess));
}

#[test]
fn icmp_says_itself_who_asked() {
    let echo = |at_ms| packet(protocol::ICMP, (CLIENT, 8), (SERVER, 0), 0, at_ms);
    let reply = |at_ms| packet(protocol::ICMP, (SERVER, 0), (CLIENT, 8), 0, at_ms);
    let ping = one(&[reply(0), echo(0)]);
    assert_eq!((ping.initiator, ping.role), (ip(CLIENT), RoleEvidence::FirstPacket));
    assert_eq!((ping.initiator_port, ping.responder_port), (8, 0));
    let half = one(&[reply(0)]);
    assert_eq!((half.initiator, half.role), (ip(CLIENT), RoleEvidence::PortRank));
    assert_eq!((half.from_initiator.packets, half.from_responder.packets), (0, 1));
}

#[test]
fn vlans_keep_flows_apart_and_domains_do_not() {
    let mut tagged = ask(SYN, 0);
    tagged.outer = Outer::from_vlans(Vlans([10, 0]));
    let mut same = ask(SYN, 1);
    same.key = same.key.with_domain(7);
    let records = run(&[ask(SYN, 0), tagged, same]);
    let mut found: Vec<_> = records
        .iter()
        .map(|record| (record.outer.vlans().0, record.from_initiator.packets))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [([0, 0], 2), ([10, 0], 1)]);
}

#[test]
fn a_long_flow_is_reported_in_parts_that_add_up() {
    let mut packets = vec![ask(SYN, 0), answer(SYN | ACK, 1), ask(ACK, 2)];
    packets.extend((1..=150).map(|second| ask(ACK, second * 1_000)));
    let records = run(&packets);
    let reasons: Vec<EndReason> = records.iter().map(|record| record.end_reason).collect();
    assert_eq!(reasons, [EndReason::ActiveTimeout, EndReason::ActiveTimeout, EndReason::ForcedEnd]);
    let total: u64 = records.iter().map(|record| record.from_initiator.packets).sum();
    assert_eq!(total, 152);
    for pair in records.windows(2) {
        assert!(pair[0].end_ms < pair[1].start_ms, "parts follow each other");
    }
    for record in &records {
        assert!(record.end_ms - record.start_ms <= 60_250);
        assert_eq!(record.handshake, Handshake::Established, "of the whole flow");
        assert_eq!(record.role, RoleEvidence::Handshake);
    }
    assert_eq!(records[1].from_responder.packets, 0);
    assert_eq!(records[1].from_responder.length_min, 0);
}

#[test]
fn silence_ends_a_flow() {
    let records = run(&[ask(ACK, 0), ask(ACK, 14_900), ask(ACK, 30_300)]);
    let found: Vec<_> =
        records.iter().map(|record| (record.from_initiator.packets, record.end_reason)).collect();
    assert_eq!(found, [(2, EndReason::IdleTimeout), (1, EndReason::ForcedEnd)]);
}

#[test]
fn a_closed_connection_lingers_for_late_packets() {
    let closed = [
        ask(SYN, 0),
        answer(SYN | ACK, 1),
        ask(ACK | FIN, 300),
        answer(ACK | FIN, 301),
        ask(ACK, 1_000),
        // Something else, later: time passes.
        packet(protocol::UDP, (CLIENT, 1), (SERVER, 2), 0, 5_000),
    ];
    let records = run(&closed);
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].end_reason, EndReason::EndOfFlow);
    assert_eq!((records[0].from_initiator.packets, records[0].from_responder.packets), (3, 2));
}

#[test]
fn a_port_used_again_is_a_new_flow() {
    let again = [
        ask(SYN, 0),
        answer(RST | ACK, 1),
        // The answer's slot may be met before the question's.
        answer(RST | ACK, 1_001),
        ask(SYN, 1_000),
    ];
    let records = run(&again);
    assert_eq!(records.len(), 2, "{records:#?}");
    for record in &records {
        assert_eq!(record.handshake, Handshake::Rejected);
        assert_eq!(record.end_reason, EndReason::EndOfFlow);
        assert_eq!((record.from_initiator.packets, record.from_responder.packets), (1, 1));
    }
}

#[test]
fn a_full_table_gives_up_the_most_silent_flow() {
    let settings = AggregatorSettings { flows_open_max: 3, ..AggregatorSettings::default() };
    let from = |port, at_ms| packet(protocol::UDP, (CLIENT, port), (SERVER, 53), 0, at_ms);
    let records = run_with(
        settings,
        &[from(1, 0), from(2, 1_000), from(3, 2_000), from(1, 3_000), from(4, 4_000)],
    );
    let evicted: Vec<_> = records
        .iter()
        .filter(|record| record.end_reason == EndReason::LackOfResources)
        .map(|record| record.initiator_port)
        .collect();
    assert_eq!(evicted, [2]);
    assert_eq!(records.len(), 4);
}

#[test]
fn time_that_goes_back_or_leaps_loses_nothing() {
    let mut records = Vec::new();
    let mut emit = |record: Record| records.push(record);
    let mut aggregator = Aggregator::new(AggregatorSettings::default());
    aggregator.advance(START_MS, &mut emit);
    aggregator.handle_observation(&ask(ACK, 0), &mut emit);
    aggregator.advance(START_MS - 1_000_000, &mut emit);
    let mut old = ask(ACK, 0);
    (old.first_ms, old.last_ms) = (5, 9);
    aggregator.handle_observation(&old, &mut emit);
    aggregator.advance(u64::MAX, &mut emit);
    aggregator.handle_observation(&ask(ACK, 10), &mut emit);
    let mut future = ask(ACK, 0);
    (future.first_ms, future.last_ms) = (u64::MAX, u64::MAX);
    aggregator.handle_observation(&future, &mut emit);
    aggregator.finish(&mut emit);
    let packets: u64 = records.iter().map(|record| record.from_initiator.packets).sum();
    assert_eq!(packets, 4);
    assert!(records.iter().all(|record| record.start_ms <= record.end_ms));
}

#[test]
fn first_flags_stay_and_what_is_of_a_part_does_not() {
    let marked = |at_ms, dscp, fragmented| Observation {
        dscp,
        fragmented,
        interface: 2,
        ..ask(ACK | PSH, at_ms)
    };
    let back = Observation { dscp: 46, interface: 3, ..answer(SYN | ACK, 1) };
    let mut packets = vec![Observation { dscp: 8, interface: 1, ..ask(SYN, 0) }, back];
    packets.extend((1..=150).map(|second| marked(second * 1_000, 10, second > 100)));
    let records = run(&packets);
    assert_eq!(records.len(), 3);
    let asked = |record: &Record| record.from_initiator;
    let told: Vec<_> = records
        .iter()
        .map(|record| (asked(record).dscp, asked(record).fragmented, record.interface))
        .collect();
    assert_eq!(told, [(8, false, 1), (10, true, 2), (10, true, 2)]);
    for (part, record) in records.iter().enumerate() {
        assert_eq!(asked(record).first_flags, SYN, "part {part}");
        assert_eq!(record.from_responder.first_flags, SYN | ACK, "part {part}");
        assert_eq!(record.handshake_rtt_us, Some(1_000), "part {part}");
        assert_eq!(record.from_responder.dscp, if part == 0 { 46 } else { 0 });
    }
}

#[test]
fn the_first_flags_of_one_tick_are_those_of_the_syn() {
    let record = one(&[ask(ACK, 0), ask(SYN, 0), answer(SYN | ACK, 0), answer(ACK, 0)]);
    assert_eq!(record.from_initiator.first_flags, SYN);
    assert_eq!(record.from_responder.first_flags, SYN | ACK);
    let late = one(&[ask(ACK | PSH, 0), ask(SYN, 3)]);
    assert_eq!(late.from_initiator.first_flags, ACK | PSH);
}

#[test]
fn round_trip_times() {
    type Case<'a> = (&'a str, Vec<Observation>, Option<u32>);
    let live = |rtt_us, at_ms| Observation {
        opening: OpeningTime::After(rtt_us),
        ..answer(SYN | ACK, at_ms)
    };
    let untimed = |seen: Observation| Observation { opening: OpeningTime::Unknown, ..seen };
    let cases: [Case<'_>; 10] = [
        ("answered", vec![ask(SYN, 0), answer(SYN | ACK, 23)], Some(23_000)),
        ("in the other order", vec![answer(SYN | ACK, 23), ask(SYN, 0)], Some(23_000)),
        ("the answer came first", vec![answer(SYN | ACK, 0), ask(SYN, 23)], None),
        ("not answered", vec![ask(SYN, 0)], None),
        ("refused", vec![ask(SYN, 0), answer(RST | ACK, 5)], None),
        (
            "the mirror copies each",
            vec![ask(SYN, 0), ask(SYN, 1), answer(SYN | ACK, 9), answer(SYN | ACK, 10)],
            Some(9_000),
        ),
        ("sent again", vec![ask(SYN, 0), ask(SYN, 1_000), answer(SYN | ACK, 1_009)], None),
        (
            "sent again although it was answered",
            vec![ask(SYN, 0), answer(SYN | ACK, 9), ask(SYN, 1_000)],
            Some(9_000),
        ),
        (
            "measured in the kernel, twice",
            vec![untimed(ask(SYN, 0)), live(450, 4), live(440, 4)],
            Some(440),
        ),
        ("of unknown times", vec![untimed(ask(SYN, 0)), untimed(answer(SYN | ACK, 9))], None),
    ];
    for (name, packets, expected) in cases {
        assert_eq!(one(&packets).handshake_rtt_us, expected, "{name}");
    }
    // The port is used again: the next connection has a time of its own.
    let again = [
        ask(SYN, 0),
        answer(SYN | ACK, 7),
        ask(RST, 20),
        ask(SYN, 1_000),
        answer(SYN | ACK, 1_011),
    ];
    let times: Vec<_> = run(&again).iter().map(|record| record.handshake_rtt_us).collect();
    assert_eq!(times, [Some(7_000), Some(11_000)]);
}

#[test]
fn observations_of_one_new_flow_that_are_looked_up_together_make_one_flow() {
    let mut aggregator = Aggregator::new(AggregatorSettings::default());
    let mut records = Vec::new();
    for round in 0..40_u16 {
        // Neither is in the table when the first is counted.
        let both = [
            packet(protocol::UDP, (CLIENT, 1_024 + round), (SERVER, 53), 0, 0),
            packet(protocol::UDP, (SERVER, 53), (CLIENT, 1_024 + round), 0, 1),
        ];
        aggregator.handle_observations(&both, &mut |record| records.push(record));
        assert_eq!(aggregator.flows_open(), usize::from(round) + 1);
    }
    aggregator.finish(&mut |record| records.push(record));
    let both_ways =
        |record: &Record| (record.from_initiator.packets, record.from_responder.packets) == (1, 1);
    assert!(records.len() == 40 && records.iter().all(both_ways), "{records:?}");
}
