//! Which packets count as copies of each other, and for how long.

use flow::{
    COPIES_MAX, COPY_WITHIN_MS, LinkLayer, Packet, Parsed, RECENT_SETS, RECENT_WAYS, RecentSet,
    packet_identity, parse, recent_set, tcp_flag,
};
use proptest::prelude::*;

const SEED: u64 = 0x1234_5678_9abc_def1;

fn packet_in(frame: &[u8]) -> Packet {
    match parse(frame, LinkLayer::Ethernet) {
        Parsed::Ip(packet) => packet,
        other => unreachable!("every frame here has a packet: {other:?}"),
    }
}

fn identity(frame: &[u8]) -> u64 {
    packet_identity(frame, &packet_in(frame), frame.len() as u64, SEED)
}

/// An IPv4 packet in an Ethernet frame, padded.
fn v4(identification: u16, protocol: u8, transport: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + transport.len()).expect("short");
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45, 0];
    frame.extend(length.to_be_bytes());
    frame.extend(identification.to_be_bytes());
    frame.extend([0x40, 0, 64, protocol, 0xab, 0xcd, 198, 51, 100, 7, 192, 0, 2, 1]);
    frame.extend(transport);
    frame.resize(frame.len().max(60), 0);
    frame
}

fn v6(next: u8, transport: &[u8]) -> Vec<u8> {
    let length = u16::try_from(transport.len()).expect("short");
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0];
    frame.extend(length.to_be_bytes());
    frame.extend([next, 64]);
    for host in [7, 1] {
        frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
    }
    frame.extend(transport);
    frame
}

/// A segment with a time stamp where one is given.
fn tcp(flags: u8, sequence: u32, time: Option<u32>, payload: &[u8]) -> Vec<u8> {
    let words = if time.is_some() { 8 } else { 5 };
    let mut segment = vec![0x9c, 0x40, 1, 187];
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 9, words << 4, flags, 0xff, 0xff, 0x12, 0x34, 0, 0]);
    if let Some(time) = time {
        segment.extend([1, 1, 8, 10]);
        segment.extend(time.to_be_bytes());
        segment.extend([0, 0, 0, 2]);
    }
    segment.extend(payload);
    segment
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("short").to_be_bytes();
    [&[0x9c, 0x40, 0, 53], length.as_slice(), &[0x77, 0x66], payload].concat()
}

fn echo(kind: u8, number: u16) -> Vec<u8> {
    [&[kind, 0, 0x11, 0x22, 0x0a, 0x0b], number.to_be_bytes().as_slice(), &[7; 16]].concat()
}

const ACK: u8 = tcp_flag::ACK;
const TCP: u8 = 6;
const UDP: u8 = 17;

#[test]
fn what_a_router_and_a_switch_change_makes_no_other_packet() {
    let frame = v4(77, TCP, &tcp(ACK, 5, None, b"hello"));
    let own = identity(&frame);
    assert_ne!(own, 0);
    let mut routed = frame.clone();
    routed[..12].copy_from_slice(&[9; 12]);
    // Service, TTL, and the checksum over both.
    (routed[15], routed[22], routed[24], routed[25]) = (0xb8, 63, 1, 2);
    assert_eq!(identity(&routed), own);
    for tags in [vec![0x81, 0, 0, 10], vec![0x88, 0xa8, 0, 9, 0x81, 0, 0, 10]] {
        let mut tagged = routed.clone();
        tagged.splice(12..12, tags);
        assert_eq!(identity(&tagged), own, "in another VLAN");
    }
    // Padding is no part of it, and neither are checksum and payload.
    let mut padded = frame.clone();
    padded.extend([0; 6]);
    assert_eq!(identity(&padded), own);
    let mut other = frame;
    for at in [50, 51, 54, 55, 56, 57, 58] {
        other[at] ^= 0xff;
    }
    assert_eq!(identity(&other), own);
}

#[test]
fn what_a_sender_changes_makes_another_packet() {
    let own = identity(&v4(77, TCP, &tcp(ACK, 5, None, b"hello")));
    for other in [
        v4(78, TCP, &tcp(ACK, 5, None, b"hello")),
        v4(77, TCP, &tcp(ACK, 6, None, b"hello")),
        v4(77, TCP, &tcp(ACK | tcp_flag::PSH, 5, None, b"hello")),
        v4(77, TCP, &tcp(ACK, 5, None, b"hello!")),
        v4(77, UDP, &udp(b"hello")),
        v6(TCP, &tcp(ACK, 5, None, b"hello")),
    ] {
        assert_ne!(identity(&other), own);
    }
    let mut elsewhere = v4(77, TCP, &tcp(ACK, 5, None, b"hello"));
    elsewhere[33] ^= 1;
    assert_ne!(identity(&elsewhere), own, "another destination");
    let plain = v4(77, TCP, &tcp(ACK, 5, None, b"hello"));
    let label = |number: u8| {
        let mut labelled = plain.clone();
        labelled.splice(12..14, [0x88, 0x47, 0, number, 1, 64]);
        identity(&labelled)
    };
    assert_ne!(label(1), own, "in a tunnel");
    assert_ne!(label(1), label(2), "in different tunnels");
    let packet = packet_in(&plain);
    let length = plain.len() as u64;
    assert_ne!(packet_identity(plain.as_slice(), &packet, length, SEED + 1), own, "keyed");
}

#[test]
fn fragments_of_one_datagram_differ_and_their_ports_do_not_matter() {
    let fragment = |offset: u16| {
        let mut frame = v4(77, UDP, &udp(&[0; 64]));
        frame[20..22].copy_from_slice(&offset.to_be_bytes());
        frame
    };
    let [first, second, third] = [0x2000, 0x2009, 0x0012].map(|offset| identity(&fragment(offset)));
    assert!(first != 0 && first != second && second != third && first != third);
    let later = fragment(0x2009);
    let mut packet = packet_in(&later);
    packet.key.tail |= 0x1234_5678;
    let length = later.len() as u64;
    assert_eq!(packet_identity(later.as_slice(), &packet, length, SEED), second);
}

#[test]
fn what_could_be_a_repetition_has_no_identity() {
    for frame in [
        v4(0, UDP, &udp(b"question")),
        v6(UDP, &udp(b"question")),
        v4(0, TCP, &tcp(ACK, 5, None, b"")),
        v6(TCP, &tcp(ACK, 5, Some(3), b"")),
        v6(TCP, &tcp(tcp_flag::RST, 5, None, b"")),
        v4(0, 1, &[3, 1, 0, 0, 0, 0, 0, 0]),
        v4(0, 50, &[0; 16]),
    ] {
        assert_eq!(identity(&frame), 0);
    }
    let mut cut = v6(TCP, &tcp(ACK, 5, None, b"hello"));
    cut.truncate(14 + 40 + 15);
    assert_eq!(identity(&cut), 0, "the numbers are not there");
}

#[test]
fn numbers_and_time_stamps_stand_in_for_an_identification() {
    for frame in [v4(0, TCP, &tcp(ACK, 5, None, b"x")), v6(TCP, &tcp(ACK, 5, Some(3), b"x"))] {
        assert_ne!(identity(&frame), 0);
    }
    for flags in [tcp_flag::SYN, tcp_flag::SYN | ACK, tcp_flag::FIN | ACK] {
        assert_ne!(identity(&v6(TCP, &tcp(flags, 5, None, b""))), 0);
    }
    // What is sent again has the same numbers, and its own time.
    let sent = |time| identity(&v6(TCP, &tcp(ACK, 5, Some(time), b"x")));
    assert_ne!(sent(3), sent(4));
    // Where those bytes are payload they do not count.
    let sent = |time: u32| {
        let payload = [[1, 1, 8, 10], time.to_be_bytes()].concat();
        identity(&v6(TCP, &tcp(ACK, 5, None, &payload)))
    };
    assert_eq!(sent(3), sent(4));
    for (icmp, kind) in [(58, 128), (58, 129)] {
        let numbered = |number| identity(&v6(icmp, &echo(kind, number)));
        assert!(numbered(1) != 0 && numbered(1) != numbered(2));
    }
    assert_ne!(identity(&v4(0, 1, &echo(8, 1))), identity(&v4(0, 1, &echo(8, 2))));
}

#[test]
fn a_copy_counts_for_a_moment_and_a_few_times() {
    let (identity, within) = (0xdead_beef_cafe_f00d, COPY_WITHIN_MS);
    for start in [0, 1_000_000, u32::MAX - 5, 0xffff - 5] {
        let mut set = RecentSet::default();
        let at = |ms: u32| start.wrapping_add(ms);
        assert!(!set.is_copy(identity, at(0), within));
        for _ in 0..COPIES_MAX {
            assert!(set.is_copy(identity, at(within), within));
        }
        assert!(!set.is_copy(identity, at(within), within), "one too many is a packet again");
        assert!(set.is_copy(identity, at(within), within), "and may be copied itself");
        assert!(!set.is_copy(identity, at(2 * within + 1), within), "it is too late");
        // A capture's clock that steps back a little.
        assert!(set.is_copy(identity, at(within + 1), within));
        assert!(!set.is_copy(identity, at(0), within), "but not further");
    }
}

#[test]
fn a_set_remembers_the_newest() {
    let mut set = RecentSet::default();
    let identities: Vec<u64> = (1..=RECENT_WAYS as u64 + 1).map(|number| number << 1 | 1).collect();
    for identity in &identities {
        assert!(!set.is_copy(*identity, 7, 5));
    }
    let [oldest, others @ ..] = identities.as_slice() else { panic!("there are some") };
    for identity in others {
        assert!(set.is_copy(*identity, 7, 5));
    }
    assert!(!set.is_copy(*oldest, 7, 5), "forgotten");
}

proptest! {
    #[test]
    fn of_equal_packets_at_least_one_of_four_is_kept(
        pauses in prop::collection::vec(0_u32..30, 1..200),
        identity in any::<u64>(),
    ) {
        let (mut set, mut now, mut kept) = (RecentSet::default(), 0_u32, 0);
        for pause in &pauses {
            now += pause;
            kept += u64::from(!set.is_copy(identity | 1, now, COPY_WITHIN_MS));
        }
        prop_assert!(kept * (COPIES_MAX + 1) >= pauses.len() as u64);
    }

    #[test]
    fn every_identity_has_a_set(identity in any::<u64>()) {
        prop_assert!(recent_set(identity) < RECENT_SETS);
    }

    #[test]
    fn different_packets_are_never_copies(
        numbers in prop::collection::btree_set(any::<(u16, u32)>(), 2..100),
    ) {
        let mut sets = vec![RecentSet::default(); RECENT_SETS as usize];
        for (identification, sequence) in numbers {
            let identity = identity(&v4(identification, TCP, &tcp(ACK, sequence, None, b"x")));
            let set = &mut sets[recent_set(identity) as usize];
            prop_assert!(!set.is_copy(identity, 0, COPY_WITHIN_MS));
        }
    }
}
