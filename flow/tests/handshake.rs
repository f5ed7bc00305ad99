//! The time from SYN to SYN-ACK: what is measured, and what is not.

use flow::{
    Address, FlowKey, HANDSHAKES, HandshakeSlot, Kind, handshake_fingerprint, handshake_place,
    handshake_rtt_us, protocol,
};

const FACTORS: [u64; 5] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
];
/// Microseconds, near the end of the 40 bits that an entry keeps.
const START_US: u64 = (1 << 40) - 20_000;
const SECOND_US: u64 = 1_000_000;

fn key(client: u8, port: u16) -> FlowKey {
    let [from, to] = [[192, 0, 2, client], [198, 51, 100, 1]].map(Address::from_v4);
    FlowKey::new(from, to, [port, 443], protocol::TCP, Kind::V4, 0)
}

fn fingerprint(key: &FlowKey) -> u64 {
    handshake_fingerprint(key, &FACTORS)
}

/// What an entry tells after these: 0 a SYN, 1 a SYN-ACK, each so many microseconds after the start.
fn told(packets: &[(u8, u64)]) -> Option<u32> {
    let fingerprint = fingerprint(&key(1, 40_000));
    let mut slot = HandshakeSlot::default();
    for (kind, at_us) in packets {
        slot = match kind {
            0 => slot.after_syn(fingerprint, START_US + at_us),
            _ => slot.after_syn_ack(fingerprint, START_US + at_us),
        };
    }
    slot.rtt_us(fingerprint)
}

#[test]
fn an_entry_tells_the_time_of_the_first_answer_and_nothing_doubtful() {
    type Case<'a> = (&'a str, &'a [(u8, u64)], Option<u32>);
    let cases: [Case<'_>; 11] = [
        ("answered", &[(0, 0), (1, 23_456)], Some(23_456)),
        ("answered at once", &[(0, 0), (1, 0)], Some(0)),
        ("the answer is sent again", &[(0, 0), (1, 50), (1, SECOND_US)], Some(50)),
        ("not answered", &[(0, 0)], None),
        ("nothing was asked", &[(1, 0)], None),
        ("the mirror copies the SYN", &[(0, 0), (0, 30), (1, 500), (0, 510)], Some(500)),
        ("sent again before the answer", &[(0, 0), (0, SECOND_US), (1, SECOND_US + 70)], None),
        (
            "sent again twice",
            &[(0, 0), (0, SECOND_US), (0, 3 * SECOND_US), (1, 3 * SECOND_US + 70)],
            None,
        ),
        ("the port is used again", &[(0, 0), (1, 50), (0, SECOND_US), (1, SECOND_US + 9)], Some(9)),
        ("too late to be the answer", &[(0, 0), (1, 121 * SECOND_US)], None),
        (
            "long after one that was never answered",
            &[(0, 0), (0, 200 * SECOND_US), (1, 200 * SECOND_US + 8)],
            Some(8),
        ),
    ];
    for (name, packets, expected) in cases {
        assert_eq!(told(packets), expected, "{name}");
    }
}

#[test]
fn times_of_a_flow_tell_the_same() {
    // The first SYN, the last, the SYN-ACK; the clock wraps.
    let rtt = |first: u32, last: u32, answer: u32| {
        let base = u32::MAX - 10_000;
        handshake_rtt_us(
            base.wrapping_add(first),
            base.wrapping_add(last),
            base.wrapping_add(answer),
        )
    };
    assert_eq!(rtt(0, 0, 23_456), Some(23_456));
    assert_eq!(rtt(0, 30, 500), Some(500), "a copy");
    assert_eq!(rtt(0, 1_000_000, 1_000_070), None, "sent again");
    assert_eq!(rtt(0, 1_000_000, 50), Some(50), "sent again although it was answered");
    assert_eq!(rtt(100, 100, 0), None, "the answer came first");
    assert_eq!(rtt(0, 0, 121_000_000), None, "too late");
}

#[test]
fn both_directions_have_one_place_and_other_connections_others() {
    let mut seen = std::collections::BTreeSet::new();
    for client in 0..50 {
        for port in 40_000..40_100 {
            let key = key(client, port);
            let found = fingerprint(&key);
            assert_eq!(found, fingerprint(&key.reversed()));
            assert!(handshake_place(found) < HANDSHAKES);
            // The place and the tag, as the entry has it.
            assert!(seen.insert((handshake_place(found), found >> 41)), "{client} {port}");
        }
    }
    // Sums of both ends that are equal.
    let pair = |a: u8, b: u8| {
        let [from, to] = [[10, 0, 0, a], [10, 0, 0, b]].map(Address::from_v4);
        fingerprint(&FlowKey::new(from, to, [1_000, 1_000], protocol::TCP, Kind::V4, 0))
    };
    assert_ne!(pair(1, 4), pair(2, 3));
}

#[test]
fn another_connection_at_the_same_place_is_not_told_for_this_one() {
    let (one, other) = (fingerprint(&key(1, 40_000)), fingerprint(&key(2, 40_000)));
    let slot = HandshakeSlot::default().after_syn(one, START_US);
    assert_eq!(slot.after_syn_ack(other, START_US + 5), slot);
    let slot = slot.after_syn_ack(one, START_US + 5);
    assert_eq!((slot.rtt_us(one), slot.rtt_us(other)), (Some(5), None));
    assert_eq!(slot.after_syn(other, START_US + 6).rtt_us(one), None);
}
