//! Every way of carrying a packet that a mirror port may show, written out by hand, and what is found inside.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot build its frame, or gets no packet, has failed"
)]

use flow::{
    Fragment, FragmentSlot, LinkLayer, Notes, Outer, Packet, Parsed, TUNNELS_MAX, Tunnel,
    TunnelKind, Vlans, Walk, Walked, parse, parse_plain, protocol,
};
use proptest::prelude::*;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const MPLS: u16 = 0x8847;
const PPPOE: u16 = 0x8864;
const BRIDGED: u16 = 0x6558;

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02; 12];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// From 192.0.2.`last` to 198.51.100.`last`.
fn ipv4(last: u8, number: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, length[0], length[1], 0, 9, 0, 0, 64, number, 0, 0];
    packet.extend([192, 0, 2, last, 198, 51, 100, last]);
    packet.extend(payload);
    packet
}

fn ipv6(last: u8, number: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], number, 64];
    for end in [1, 2] {
        packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end, last]);
    }
    packet.extend(payload);
    packet
}

fn udp(to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut datagram: Vec<u8> =
        [40_000, to, length, 0].into_iter().flat_map(u16::to_be_bytes).collect();
    datagram.extend(payload);
    datagram
}

/// From port 443 with ACK.
fn tcp() -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..4].copy_from_slice(&[0x01, 0xbb, 0xc7, 0x38]);
    segment[12..14].copy_from_slice(&[0x50, 0x10]);
    segment
}

/// The packet that every case below carries: TCP from 192.0.2.7 to 198.51.100.7.
fn inner() -> Vec<u8> {
    ipv4(7, protocol::TCP, &tcp())
}

fn gre(flags: u16, carried: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet: Vec<u8> = [flags, carried].into_iter().flat_map(u16::to_be_bytes).collect();
    packet.extend(options);
    packet.extend(payload);
    packet
}

fn vxlan(network: u32, frame: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = network.to_be_bytes();
    let mut datagram = vec![0x08, 0, 0, 0, a, b, c, 0];
    datagram.extend(frame);
    datagram
}

fn packet(frame: &[u8]) -> Packet {
    match parse(frame, LinkLayer::Ethernet) {
        Parsed::Ip(packet) => packet,
        other => panic!("not an IP packet: {other:?}"),
    }
}

fn tunnel(kind: TunnelKind, id: u32) -> Tunnel {
    Tunnel { kind, id: kind.has_id().then_some(id) }
}

fn outer(vlans: [u16; 2], label: Option<u32>, tunnels: &[(TunnelKind, u32)]) -> Outer {
    Outer::new(Vlans(vlans), label, tunnels.iter().map(|(kind, id)| tunnel(*kind, *id))).unwrap()
}

/// The frame carries the packet of [`inner`] in this.
#[track_caller]
fn carries(frame: &[u8], expected: Outer) {
    let plain = packet(&ethernet(IPV4, &inner()));
    let found = packet(frame);
    assert_eq!(found.key, plain.key);
    assert_eq!((found.tcp_flags, found.ttl, found.notes), (0x10, 64, Notes::default()));
    assert_eq!(found.outer, expected, "{:?}", found.outer.tunnels().collect::<Vec<_>>());
    assert_eq!(frame[found.network_offset] >> 4, 4);
    assert_eq!(frame[found.transport_offset..][..4], tcp()[..4]);
    assert_eq!(found.length_told, frame.len());
}

#[test]
fn vlan_tags_and_labels() {
    let tagged = |tags: &[u16]| {
        let mut payload = Vec::new();
        for (depth, tag) in tags.iter().enumerate() {
            payload.extend(tag.to_be_bytes());
            let next = if depth + 1 == tags.len() { IPV4 } else { VLAN };
            payload.extend(next.to_be_bytes());
        }
        payload.extend(inner());
        ethernet(VLAN, &payload)
    };
    carries(&tagged(&[100]), outer([100, 0], None, &[]));
    carries(&tagged(&[200, 30]), outer([200, 30], None, &[]));
    let three = packet(&tagged(&[1, 2, 3]));
    assert_eq!(three.outer, outer([1, 2], None, &[]));
    assert_eq!(three.notes, Notes::VLANS_LEFT_OUT);

    let labelled = |labels: &[u32], payload: &[u8]| {
        let mut stack = Vec::new();
        for (depth, label) in labels.iter().enumerate() {
            let bottom = u32::from(depth + 1 == labels.len()) << 8;
            stack.extend((label << 12 | bottom | 64).to_be_bytes());
        }
        stack.extend(payload);
        ethernet(MPLS, &stack)
    };
    carries(&labelled(&[16], &inner()), outer([0, 0], Some(16), &[]));
    carries(&labelled(&[1_048_575, 3, 77], &inner()), outer([0, 0], Some(77), &[]));
    // A pseudowire with a control word, an Ethernet frame in it, and that with a tag.
    let mut wire = vec![0; 4];
    wire.extend(tagged(&[5]));
    carries(&labelled(&[99], &wire), outer([5, 0], Some(99), &[]));
    // Sixteen labels and no end: not IP, and called by what it is.
    let deep = labelled(&[3; 20], &inner());
    assert_eq!(parse(deep.as_slice(), LinkLayer::Ethernet), Parsed::NotIp(MPLS));
    // A frame on a pseudowire without control word may begin with any four bits.
    let wire = labelled(&[99], &[0x45; 3]);
    assert_eq!(parse(wire.as_slice(), LinkLayer::Ethernet), Parsed::NotIp(MPLS));
}

#[test]
fn ppp_in_ethernet_and_in_gre() {
    let mut session = vec![0x11, 0, 0x12, 0x34, 0, 42, 0x00, 0x21];
    session.extend(inner());
    carries(&ethernet(PPPOE, &session), outer([0, 0], None, &[(TunnelKind::Pppoe, 0x1234)]));
    // Network control is not IP; the frame is called by its own type.
    let control = [0x11, 0, 0x12, 0x34, 0, 4, 0x80, 0x21, 1, 1];
    assert_eq!(
        parse(ethernet(PPPOE, &control).as_slice(), LinkLayer::Ethernet),
        Parsed::NotIp(PPPOE)
    );

    // PPTP: a key that is a length and a call, a sequence, an acknowledgement, compressed PPP.
    let mut ppp = vec![0; 12];
    ppp.extend([0xff, 0x03, 0x21]);
    ppp.extend(inner());
    let call = gre(0x3081, 0x880b, &ppp, &[]);
    let frame = ethernet(IPV4, &ipv4(1, protocol::GRE, &call));
    carries(&frame, outer([0, 0], None, &[(TunnelKind::Gre, 0)]));
}

#[test]
fn gre_with_and_without_options() {
    let carried = |flags: u16, options: &[u8]| {
        ethernet(IPV4, &ipv4(1, protocol::GRE, &gre(flags, IPV4, options, &inner())))
    };
    carries(&carried(0, &[]), outer([0, 0], None, &[(TunnelKind::Gre, 0)]));
    carries(&carried(0x8000, &[0; 4]), outer([0, 0], None, &[(TunnelKind::Gre, 0)]));
    let key = [0, 0, 0x30, 0x39];
    carries(&carried(0x2000, &key), outer([0, 0], None, &[(TunnelKind::GreKeyed, 12_345)]));
    let mut options = vec![0; 4];
    options.extend(key);
    options.extend([0; 4]);
    carries(&carried(0xb000, &options), outer([0, 0], None, &[(TunnelKind::GreKeyed, 12_345)]));
    let bridged = gre(0, BRIDGED, &[], &ethernet(IPV4, &inner()));
    let frame = ethernet(IPV6, &ipv6(1, protocol::GRE, &bridged));
    carries(&frame, outer([0, 0], None, &[(TunnelKind::Gre, 0)]));
    // Source routing in GRE was withdrawn; such a packet belongs to its carrier.
    let routed = packet(&carried(0x4000, &[0; 4]));
    assert_eq!((routed.key.protocol(), routed.notes), (protocol::GRE, Notes::TUNNEL_CLOSED));
    assert!(routed.outer.is_plain());
}

#[test]
fn mirrored_frames_of_three_kinds() {
    let frame = ethernet(IPV4, &inner());
    let carried = |flags: u16, kind: u16, header: &[u8]| {
        let mut payload = header.to_vec();
        payload.extend(&frame);
        let options: &[u8] = if flags & 0x1000 == 0 { &[] } else { &[0, 0, 0, 1] };
        ethernet(IPV4, &ipv4(1, protocol::GRE, &gre(flags, kind, options, &payload)))
    };
    carries(&carried(0, 0x88be, &[]), outer([0, 0], None, &[(TunnelKind::Erspan, 0)]));
    let second = [0x10, 0, 0x0b, 0xff, 0, 0, 0, 0];
    let session = outer([0, 0], None, &[(TunnelKind::ErspanSession, 0x3ff)]);
    carries(&carried(0x1000, 0x88be, &second), session);
    let mut third = vec![0x20, 0, 0x00, 0x05, 0, 0, 0, 0, 0, 0, 0, 0];
    let session = outer([0, 0], None, &[(TunnelKind::ErspanSession, 5)]);
    carries(&carried(0x1000, 0x22eb, &third), session);
    // The last bit says that eight more bytes follow.
    third[11] = 1;
    third.extend([0; 8]);
    carries(&carried(0x1000, 0x22eb, &third), session);
    // Version 1 in a header of type III is a contradiction.
    third[0] = 0x10;
    assert_eq!(packet(&carried(0x1000, 0x22eb, &third)).notes, Notes::TUNNEL_CLOSED);
}

#[test]
fn overlay_networks() {
    let frame = ethernet(IPV4, &inner());
    let over4 =
        |to: u16, payload: &[u8]| ethernet(IPV4, &ipv4(1, protocol::UDP, &udp(to, payload)));
    let over6 =
        |to: u16, payload: &[u8]| ethernet(IPV6, &ipv6(1, protocol::UDP, &udp(to, payload)));
    let network = outer([0, 0], None, &[(TunnelKind::Vxlan, 0xff_ffff)]);
    for carry in [&over4 as &dyn Fn(u16, &[u8]) -> Vec<u8>, &over6] {
        carries(&carry(4789, &vxlan(0xff_ffff, &frame)), network);
        carries(&carry(8472, &vxlan(0xff_ffff, &frame)), network);
        let mut geneve = vec![0x02, 0, 0x65, 0x58, 0, 0, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        geneve.extend(&frame);
        carries(&carry(6081, &geneve), outer([0, 0], None, &[(TunnelKind::Geneve, 9)]));
        let mut gtp = vec![0x30, 255, 0, 0, 0, 0, 0, 8];
        gtp.extend(inner());
        carries(&carry(2152, &gtp), outer([0, 0], None, &[(TunnelKind::GtpU, 8)]));
        // A sequence number, and two extension headers of one word each.
        let mut gtp = vec![0x36, 255, 0, 0, 0, 0, 0, 8, 0, 1, 0, 0x85];
        gtp.extend([1, 0, 0, 0xc0, 1, 0, 0, 0]);
        gtp.extend(inner());
        carries(&carry(2152, &gtp), outer([0, 0], None, &[(TunnelKind::GtpU, 8)]));
    }
    // A tag inside of the network.
    let mut tagged = ethernet(VLAN, &[0, 7, 8, 0]);
    tagged.extend(inner());
    let expected = outer([7, 0], None, &[(TunnelKind::Vxlan, 5)]);
    carries(&over4(4789, &vxlan(5, &tagged)), expected);
    // An address request inside: the packet is the carrier's, and that is told.
    let request = packet(&over4(4789, &vxlan(5, &ethernet(0x0806, &[0; 28]))));
    assert_eq!((request.key.destination_port(), request.notes), (4789, Notes::TUNNEL_CLOSED));
    // Signalling of GTP-U is traffic of its own; what is no GTP at all is so as well, and told.
    let echo = packet(&over4(2152, &[0x32, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!((echo.key.destination_port(), echo.notes), (2152, Notes::default()));
    let other = packet(&over4(2152, &[0xff; 12]));
    assert_eq!((other.key.destination_port(), other.notes), (2152, Notes::TUNNEL_CLOSED));
}

#[test]
fn packets_in_packets() {
    use TunnelKind::{Ipv4InIp, Ipv6InIp, Vxlan};
    let four = ipv4(1, protocol::IPV4, &inner());
    carries(&ethernet(IPV4, &four), outer([0, 0], None, &[(Ipv4InIp, 0)]));
    let six = ipv6(1, protocol::IPV4, &inner());
    carries(&ethernet(IPV6, &six), outer([0, 0], None, &[(Ipv4InIp, 0)]));
    let both = ipv4(1, protocol::IPV6, &six);
    carries(&ethernet(IPV4, &both), outer([0, 0], None, &[(Ipv6InIp, 0), (Ipv4InIp, 0)]));
    // As many as are entered, then one more.
    let mut deep = inner();
    for _ in 0..TUNNELS_MAX {
        deep = ipv4(1, protocol::IPV4, &deep);
    }
    carries(&ethernet(IPV4, &deep), outer([0, 0], None, &[(Ipv4InIp, 0); TUNNELS_MAX]));
    let deeper = packet(&ethernet(IPV4, &ipv4(1, protocol::IPV4, &deep)));
    assert_eq!((deeper.key.protocol(), deeper.notes), (protocol::IPV4, Notes::TUNNEL_TOO_DEEP));
    // Three networks inside one another: only two numbers are kept, so the third is not entered.
    let mut frame = ethernet(IPV4, &inner());
    for network in [3, 2, 1] {
        frame = ethernet(IPV4, &ipv4(1, protocol::UDP, &udp(4789, &vxlan(network, &frame))));
    }
    let third = packet(&frame);
    assert_eq!((third.key.destination_port(), third.notes), (4789, Notes::TUNNEL_TOO_DEEP));
    assert_eq!(third.outer, outer([0, 0], None, &[(Vxlan, 1), (Vxlan, 2)]));
}

#[test]
fn a_broken_packet_inside_belongs_to_its_carrier() {
    for cut in 0..inner().len() - 20 {
        let whole = ethernet(IPV4, &ipv4(1, protocol::IPV4, &inner()));
        let frame = &whole[..34 + cut];
        let found = packet(frame);
        if cut < 20 {
            assert_eq!((found.key.protocol(), found.notes), (protocol::IPV4, Notes::TUNNEL_CLOSED));
        } else {
            assert_eq!(found.key.protocol(), protocol::TCP);
        }
        assert!(found.length_told > frame.len(), "that it was cut shows");
    }
}

#[test]
fn snap_frames_carry_ip() {
    let mut frame = vec![0x02; 12];
    let payload = inner();
    frame.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    frame.extend([0xaa, 0xaa, 0x03, 0, 0, 0, 0x08, 0x00]);
    frame.extend(payload);
    carries(&frame, Outer::default());
    frame[16] = 0x04;
    assert!(matches!(parse(frame.as_slice(), LinkLayer::Ethernet), Parsed::NotIp(..=1500)));
}

#[test]
fn the_authentication_header_hides_nothing() {
    let mut header = vec![protocol::TCP, 4, 0, 0, 1, 2, 3, 4, 0, 0, 0, 1];
    header.extend([0; 12]);
    header.extend(tcp());
    for frame in [
        ethernet(IPV4, &ipv4(7, protocol::AH, &header)),
        ethernet(IPV6, &ipv6(7, protocol::AH, &header)),
    ] {
        let found = packet(&frame);
        assert_eq!((found.key.protocol(), found.key.source_port()), (protocol::TCP, 443));
    }
    // What is encrypted has no ports; its index is not taken for some.
    let hidden = packet(&ethernet(IPV4, &ipv4(7, 50, &[1, 2, 3, 4, 5, 6, 7, 8])));
    assert_eq!((hidden.key.source_port(), hidden.key.destination_port()), (0, 0));
}

#[test]
fn later_fragments_get_the_ports_of_their_first_one() {
    let fragment = |offset: u16, more: bool, identification: u16| {
        let mut whole = ipv4(7, protocol::UDP, &udp(53, &[0; 24]));
        whole[4..6].copy_from_slice(&identification.to_be_bytes());
        let word = offset | if more { 0x2000 } else { 0 };
        whole[6..8].copy_from_slice(&word.to_be_bytes());
        packet(&ethernet(IPV4, &whole))
    };
    let first = fragment(0, true, 9);
    let later = fragment(4, false, 9);
    assert_eq!((first.fragment, later.fragment), (Fragment::First(9), Fragment::Later(9)));
    let mut slot = FragmentSlot::default();
    assert_eq!(slot.recall(&later, 9, 0, 100), None, "nothing was remembered yet");
    slot.remember(&first, 9, 1000);
    assert_eq!(slot.recall(&later, 9, 1100, 100), Some(first.key));
    assert_eq!(slot.recall(&later, 9, 1101, 100), None, "too old");
    assert_eq!(slot.recall(&fragment(4, false, 8), 8, 1000, 100), None, "of another datagram");
    let elsewhere = Packet { outer: outer([5, 0], None, &[]), ..later };
    assert_eq!(slot.recall(&elsewhere, 9, 1000, 100), None, "of another network");
}

#[test]
fn what_differs_by_direction_is_left_out_of_a_pair() {
    use TunnelKind::{GtpU, Pppoe, Vxlan};
    let there = outer([5, 0], Some(16), &[(GtpU, 1), (Vxlan, 7)]);
    let back = outer([5, 0], Some(17), &[(GtpU, 2), (Vxlan, 7)]);
    assert_ne!(there, back);
    assert_eq!(there.both_ways(), back.both_ways());
    assert!(there.both_ways().is_valid());
    let other = outer([5, 0], Some(16), &[(GtpU, 1), (Vxlan, 8)]);
    assert_ne!(there.both_ways(), other.both_ways());
    assert_eq!("pppoe:3".parse(), Ok(tunnel(Pppoe, 3)));
}

fn any_tunnels() -> impl Strategy<Value = Vec<Tunnel>> {
    let one = (prop::sample::select(TunnelKind::ALL.to_vec()), any::<u32>())
        .prop_map(|(kind, id)| tunnel(kind, id));
    prop::collection::vec(one, 0..=TUNNELS_MAX + 1)
}

/// Frames of one to three layers, each of a random kind, then changed at a few places.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let layer = 0..9_u8;
    let changes = prop::collection::vec((0..120_usize, any::<u8>()), 0..4);
    (prop::collection::vec(layer, 0..4), any::<bool>(), any::<bool>(), 0..40_usize, changes)
        .prop_map(|(layers, six, datagram, cut, changes)| {
            let number = if datagram { protocol::UDP } else { protocol::TCP };
            let segment = if datagram { udp(53, &[0; 12]) } else { tcp() };
            let ip = if six { ipv6(7, number, &segment) } else { ipv4(7, number, &segment) };
            let mut frame = ethernet(if six { IPV6 } else { IPV4 }, &ip);
            for layer in layers {
                frame = wrapped(layer, &frame);
            }
            frame.truncate(frame.len().saturating_sub(cut.saturating_sub(20)));
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place ^= byte;
                }
            }
            frame
        })
}

fn wrapped(layer: u8, frame: &[u8]) -> Vec<u8> {
    let (header, payload) = frame.split_at(frame.len().min(14));
    let carried = [header[12], header[13]];
    let ethertype = u16::from_be_bytes(carried);
    match layer {
        0 => {
            let mut tagged = vec![0, 9];
            tagged.extend(carried);
            tagged.extend(payload);
            ethernet(VLAN, &tagged)
        }
        1 => ethernet(IPV4, &ipv4(1, protocol::GRE, &gre(0, ethertype, &[], payload))),
        2 => ethernet(IPV4, &ipv4(1, protocol::GRE, &gre(0x2000, BRIDGED, &[0; 4], frame))),
        3 => ethernet(IPV4, &ipv4(1, protocol::UDP, &udp(4789, &vxlan(1, frame)))),
        4 => ethernet(IPV6, &ipv6(1, protocol::UDP, &udp(4789, &vxlan(1, frame)))),
        5 => ethernet(IPV4, &ipv4(1, protocol::IPV4, payload)),
        6 => ethernet(IPV4, &ipv4(1, protocol::IPV6, payload)),
        7 => {
            let mut stack = vec![0, 1, 0x01, 64];
            stack.extend(payload);
            ethernet(MPLS, &stack)
        }
        _ => {
            let mut session = vec![0x11, 0, 0, 1, 0, 0, 0x00, 0x21];
            session.extend(payload);
            ethernet(PPPOE, &session)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_short_ways_find_what_the_walk_finds(frame in any_frame()) {
        let frame = frame.as_slice();
        let mut walk = Walk::default();
        let walked = walk.run(frame, LinkLayer::Ethernet);
        if let Some(packet) = parse_plain(frame) {
            prop_assert_eq!(walked, Walked::Ip);
            prop_assert_eq!(packet, walk.packet());
        }
    }

    #[test]
    fn an_identity_is_kept_whole_or_not_at_all(
        vlans in (0..4096_u16, 0..4096_u16),
        label in prop::option::of(0..1_u32 << 20),
        tunnels in any_tunnels(),
    ) {
        let vlans = Vlans([vlans.0, vlans.1]);
        let numbered = tunnels.iter().filter(|tunnel| tunnel.id.is_some()).count();
        let fits = tunnels.len() <= TUNNELS_MAX && numbered <= flow::TUNNEL_IDS_MAX;
        let outer = Outer::new(vlans, label, tunnels.iter().copied());
        prop_assert_eq!(outer.is_some(), fits);
        let Some(outer) = outer else { return Ok(()) };
        prop_assert!(outer.is_valid());
        prop_assert_eq!((outer.vlans(), outer.mpls_label()), (vlans, label));
        prop_assert_eq!(outer.tunnels().collect::<Vec<_>>(), tunnels.clone());
        for tunnel in tunnels {
            prop_assert_eq!(tunnel.to_string().parse(), Ok(tunnel));
        }
    }
}
