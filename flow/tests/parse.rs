//! Frames written out by hand, and what the parser must make of them.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot build its frame, or gets no packet, has failed"
)]

use std::net::IpAddr;

use flow::{
    FlowKey, Kind, LinkLayer, Malformed, Outer, Packet, Parsed, Vlans, parse, protocol, tcp_flag,
};
use proptest::prelude::*;

const V4: [u8; 2] = [0x08, 0x00];
const V6: [u8; 2] = [0x86, 0xdd];
const SYN_ACK: u8 = tcp_flag::SYN | tcp_flag::ACK;

fn ethernet(tags: &[[u8; 4]], ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02; 12];
    for tag in tags {
        frame.extend(tag);
    }
    frame.extend(ethertype);
    frame.extend(payload);
    frame
}

/// An IPv4 header for 192.0.2.1 → 198.51.100.7; `words` of options (no-operation) follow.
fn ipv4(protocol: u8, fragment: [u8; 2], words: u8, payload: &[u8]) -> Vec<u8> {
    let length = 20 + usize::from(words) * 4 + payload.len();
    let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
    let mut packet = vec![0x45 + words, 0, high, low, 0, 1, fragment[0], fragment[1], 61, protocol];
    packet.extend([0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
    packet.extend(vec![1; usize::from(words) * 4]);
    packet.extend(payload);
    packet
}

/// An IPv6 header for `2001:db8::1` → `2001:db8::7`.
fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, high, low, next, 58];
    for last in [1, 7] {
        packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend(payload);
    packet
}

/// Port 443 → 51,000 with a SYN-ACK.
fn tcp() -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..4].copy_from_slice(&[0x01, 0xbb, 0xc7, 0x38]);
    segment[12] = 0x50;
    segment[13] = SYN_ACK;
    segment
}

fn packet(frame: &[u8]) -> Packet {
    match parse(frame, LinkLayer::Ethernet) {
        Parsed::Ip(packet) => packet,
        other => panic!("not an IP packet: {other:?}"),
    }
}

fn ends(key: &FlowKey) -> (IpAddr, u16, IpAddr, u16) {
    let is_v4 = key.kind().has(Kind::V4);
    (
        key.source.to_ip(is_v4),
        key.source_port(),
        key.destination.to_ip(is_v4),
        key.destination_port(),
    )
}

fn v4_ends() -> (IpAddr, u16, IpAddr, u16) {
    ([192, 0, 2, 1].into(), 443, [198, 51, 100, 7].into(), 51_000)
}

#[test]
fn plain_tcp_over_ipv4() {
    let found = packet(&ethernet(&[], V4, &ipv4(protocol::TCP, [0x40, 0], 0, &tcp())));
    assert_eq!(ends(&found.key), v4_ends());
    assert_eq!(found.key.protocol(), protocol::TCP);
    assert_eq!(found.key.kind(), Kind::V4);
    assert_eq!((found.tcp_flags, found.ttl, found.outer), (SYN_ACK, 61, Outer::default()));
}

#[test]
fn options_move_the_ports() {
    for words in 1..=10 {
        let found = packet(&ethernet(&[], V4, &ipv4(protocol::TCP, [0, 0], words, &tcp())));
        assert_eq!(ends(&found.key), v4_ends(), "{words} words of options");
        assert_eq!(found.tcp_flags, SYN_ACK);
    }
}

#[test]
fn only_the_first_fragment_has_ports() {
    let first = packet(&ethernet(&[], V4, &ipv4(protocol::UDP, [0x20, 0], 0, &tcp())));
    assert_eq!(first.key.source_port(), 443);
    assert!(!first.key.kind().has(Kind::NO_PORTS));
    let later = packet(&ethernet(&[], V4, &ipv4(protocol::UDP, [0x20, 185], 0, &tcp())));
    assert_eq!((later.key.source_port(), later.key.destination_port()), (0, 0));
    assert!(later.key.kind().has(Kind::NO_PORTS));
}

#[test]
fn tags_become_vlans_and_priority_tags_do_not() {
    let inner = ipv4(protocol::TCP, [0, 0], 0, &tcp());
    let cases: [(&[[u8; 4]], [u16; 2]); 4] = [
        (&[[0x81, 0, 0x00, 0x64]], [100, 0]),
        (&[[0x88, 0xa8, 0x00, 0xc8], [0x81, 0, 0xe0, 0x1e]], [200, 30]),
        (&[[0x81, 0, 0xe0, 0x00]], [0, 0]),
        (&[[0x81, 0, 0xe0, 0x00], [0x81, 0, 0x00, 0x05]], [5, 0]),
    ];
    for (tags, expected) in cases {
        let found = packet(&ethernet(tags, V4, &inner));
        assert_eq!(found.outer, Outer::from_vlans(Vlans(expected)), "{tags:x?}");
        assert_eq!(ends(&found.key), v4_ends());
        assert_eq!(found.key.domain(), 0, "interning is the caller's");
    }
}

#[test]
fn five_tags_are_not_walked() {
    let frame = ethernet(&[[0x81, 0, 0, 1]; 5], V4, &ipv4(protocol::TCP, [0, 0], 0, &tcp()));
    assert_eq!(parse(frame.as_slice(), LinkLayer::Ethernet), Parsed::NotIp(0x8100));
}

#[test]
fn extension_headers_are_walked() {
    // Hop-by-hop options (16 bytes), routing, a first fragment, destination options, then TCP.
    let mut payload = vec![43, 1];
    payload.extend([0; 14]);
    payload.extend([44, 0, 0, 0, 0, 0, 0, 0]);
    payload.extend([60, 0, 0x00, 0x01, 0, 0, 0, 9]);
    payload.extend([protocol::TCP, 0, 1, 4, 0, 0, 0, 0]);
    payload.extend(tcp());
    let found = packet(&ethernet(&[], V6, &ipv6(0, &payload)));
    let expected =
        ("2001:db8::1".parse().unwrap(), 443, "2001:db8::7".parse::<IpAddr>().unwrap(), 51_000);
    assert_eq!(ends(&found.key), expected);
    assert_eq!((found.key.protocol(), found.tcp_flags, found.ttl), (protocol::TCP, SYN_ACK, 58));
}

#[test]
fn a_later_ipv6_fragment_keeps_its_protocol_and_has_no_ports() {
    let mut payload = vec![protocol::UDP, 0, 0x05, 0xa9, 0, 0, 0, 9];
    payload.extend([0xaa; 32]);
    let found = packet(&ethernet(&[], V6, &ipv6(44, &payload)));
    assert_eq!(found.key.protocol(), protocol::UDP);
    assert!(found.key.kind().has(Kind::NO_PORTS));
}

#[test]
fn an_echo_and_its_reply_are_one_biflow() {
    let echo = packet(&ethernet(&[], V4, &ipv4(protocol::ICMP, [0, 0], 0, &[8, 0, 0, 0])));
    let reply = packet(&ethernet(&[], V4, &ipv4(protocol::ICMP, [0, 0], 0, &[0, 0, 0, 0])));
    assert_eq!((echo.key.source_port(), echo.key.destination_port()), (8, 0));
    assert_eq!((reply.key.source_port(), reply.key.destination_port()), (0, 8));
    let unreachable = packet(&ethernet(&[], V4, &ipv4(protocol::ICMP, [0, 0], 0, &[3, 13, 0, 0])));
    assert_eq!((unreachable.key.source_port(), unreachable.key.destination_port()), (3, 13));
    assert!(unreachable.key.kind().has(Kind::ONE_WAY));
    assert_eq!(unreachable.key.canonical(), (unreachable.key, false));
}

#[test]
fn broken_headers_are_named() {
    let whole = ethernet(&[], V4, &ipv4(protocol::TCP, [0, 0], 0, &tcp()));
    let changed = |at: usize, to: u8| {
        let mut frame = whole.clone();
        frame[at] = to;
        parse(frame.as_slice(), LinkLayer::Ethernet)
    };
    assert_eq!(changed(14, 0x65), Parsed::Malformed(Malformed::IpVersion));
    assert_eq!(changed(14, 0x44), Parsed::Malformed(Malformed::IpHeaderLength));
    assert_eq!(changed(17, 19), Parsed::Malformed(Malformed::IpTotalLength));
    assert_eq!(parse(&whole[..33], LinkLayer::Ethernet), Parsed::Malformed(Malformed::IpHeaderCut));
    assert_eq!(
        parse(&whole[..13], LinkLayer::Ethernet),
        Parsed::Malformed(Malformed::LinkHeaderCut)
    );
}

#[test]
fn a_cut_transport_header_is_a_flow_without_ports() {
    let whole = ethernet(&[], V4, &ipv4(protocol::TCP, [0, 0], 0, &tcp()));
    assert!(packet(&whole[..37]).key.kind().has(Kind::NO_PORTS));
    let ports_only = packet(&whole[..38]);
    assert_eq!(ends(&ports_only.key), v4_ends());
    assert_eq!(ports_only.tcp_flags, 0, "flags behind the cut are unknown");
}

#[test]
fn what_is_not_ip_is_named_by_its_ethertype() {
    for ethertype in [0x0806, 0x88cc, 0x8847, 0x0026] {
        let frame = ethernet(&[], u16::to_be_bytes(ethertype), &[0; 46]);
        assert_eq!(parse(frame.as_slice(), LinkLayer::Ethernet), Parsed::NotIp(ethertype));
    }
}

#[test]
fn a_network_header_needs_no_link_layer() {
    let bytes = ipv4(protocol::TCP, [0, 0], 0, &tcp());
    let link = LinkLayer::Network { offset: 0, ethertype: u16::from_be_bytes(V4) };
    match parse(bytes.as_slice(), link) {
        Parsed::Ip(found) => assert_eq!(ends(&found.key), v4_ends()),
        other => panic!("not an IP packet: {other:?}"),
    }
}

proptest! {
    #[test]
    fn any_bytes_parse_to_something(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        parse(bytes.as_slice(), LinkLayer::Ethernet);
    }

    #[test]
    fn any_ip_bytes_parse_to_something(
        tags in 0_usize..6,
        six in any::<bool>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let ethertype = if six { V6 } else { V4 };
        let frame = ethernet(&vec![[0x81, 0, 0, 9]; tags], ethertype, &bytes);
        parse(frame.as_slice(), LinkLayer::Ethernet);
    }

    #[test]
    fn both_directions_have_one_canonical_key(source in any::<u32>(), destination in any::<u32>(),
            ports in any::<[u16; 2]>(), number in any::<u8>(), domain in any::<u16>()) {
        let address = |bits: u32| flow::Address::from(IpAddr::from(bits.to_be_bytes()));
        let key = FlowKey::new(address(source), address(destination), ports, number, Kind::V4, domain);
        prop_assert_eq!(key.canonical().0, key.reversed().canonical().0);
        prop_assert_eq!(key.reversed().reversed(), key);
        prop_assert_eq!(key.domain(), domain);
        prop_assert_eq!(key.protocol(), number);
    }

    #[test]
    fn an_address_survives_the_round_trip(bits in any::<u128>()) {
        let ip = IpAddr::from(bits.to_be_bytes());
        prop_assert_eq!(flow::Address::from(ip).to_ip(false), ip);
        let [.., a, b, c, d] = bits.to_be_bytes();
        let v4 = IpAddr::from([a, b, c, d]);
        prop_assert_eq!(flow::Address::from(v4).to_ip(true), v4);
    }
}
