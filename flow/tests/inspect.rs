//! What `doctor` tells from TCP's numbers and from copies: sequences made by hand, and any loss-free traffic.

use flow::inspect::{
    InspectTotals, Look, Recent, Seen, Segment, Stream, compare, conversation_place,
    encapsulation_name, is_copy, look, look_inside, stream_state,
};
use flow::{LinkLayer, parse, tcp_flag};
use proptest::prelude::*;

const ACK: u8 = tcp_flag::ACK;
const SYN: u8 = tcp_flag::SYN;
const FIN: u8 = tcp_flag::FIN;
const RST: u8 = tcp_flag::RST;

fn segment(flags: u8, sequence: u32, acknowledgement: u32, payload: u32) -> Segment {
    Segment { sequence, acknowledgement, payload, flags, ..Segment::default() }
}

/// Two directions that see each other.
#[derive(Default)]
struct Talk {
    client: Stream,
    server: Stream,
}

impl Talk {
    fn client(&mut self, flags: u8, sequence: u32, acknowledgement: u32, payload: u32) {
        let segment = segment(flags, sequence, acknowledgement, payload);
        self.client.handle(&segment, self.server.acknowledges());
    }

    fn server(&mut self, flags: u8, sequence: u32, acknowledgement: u32, payload: u32) {
        let segment = segment(flags, sequence, acknowledgement, payload);
        self.server.handle(&segment, self.client.acknowledges());
    }

    /// With the last acknowledgements taken into account: bytes of each side that never came by.
    fn lost(&mut self) -> [u64; 2] {
        let (from_client, from_server) = (self.client.acknowledges(), self.server.acknowledges());
        let client = u64::from(self.client.finish(from_server)) + self.client.lost_bytes;
        let server = u64::from(self.server.finish(from_client)) + self.server.lost_bytes;
        [client, server]
    }

    /// A handshake with these initial numbers.
    fn shake(client: u32, server: u32) -> Self {
        let mut talk = Self::default();
        talk.client(SYN, client, 0, 0);
        talk.server(SYN | ACK, server, client.wrapping_add(1), 0);
        talk.client(ACK, client.wrapping_add(1), server.wrapping_add(1), 0);
        talk
    }
}

fn counts(stream: &Stream) -> (u32, u32, u32) {
    (stream.gaps, stream.late, stream.retransmitted)
}

#[test]
fn a_whole_conversation_has_no_hole_with_syn_and_fin_numbered() {
    let mut talk = Talk::shake(100, 500);
    talk.client(ACK, 101, 501, 10);
    talk.server(ACK, 501, 111, 1000);
    talk.server(ACK, 1501, 111, 1000);
    talk.client(ACK, 111, 2501, 0);
    talk.client(ACK | FIN, 111, 2501, 0);
    talk.server(ACK | FIN, 2501, 112, 5);
    talk.client(ACK, 112, 2507, 0);
    assert_eq!((counts(&talk.client), counts(&talk.server)), ((0, 0, 0), (0, 0, 0)));
    assert_eq!(talk.lost(), [0, 0]);
    assert_eq!((talk.client.payload_bytes, talk.server.payload_bytes), (10, 2005));
    assert_eq!((talk.client.segments, talk.server.segments), (3, 4));
    assert_eq!(talk.server.payload_max, 1000);
}

#[test]
fn what_the_receiver_acknowledges_and_the_mirror_never_showed_is_lost() {
    let mut talk = Talk::shake(100, 500);
    talk.server(ACK, 501, 101, 1000);
    // 1,000 bytes are missing here.
    talk.server(ACK, 2501, 101, 1000);
    assert_eq!(talk.server.lost_bytes, 0, "nobody has acknowledged them yet");
    talk.client(ACK, 101, 3501, 0);
    talk.server(ACK, 3501, 101, 1000);
    assert_eq!((talk.server.gaps, talk.server.gap_bytes), (1, 1000));
    assert_eq!((talk.server.lost_gaps, talk.server.lost_bytes), (1, 1000));
    talk.client(ACK, 101, 4501, 0);
    assert_eq!(talk.lost(), [0, 1000], "and not counted twice");
}

#[test]
fn what_the_network_lost_and_sent_again_is_not_lost() {
    let mut talk = Talk::shake(100, 500);
    talk.server(ACK, 501, 101, 1000);
    talk.server(ACK, 2501, 101, 1000);
    // The receiver misses it too, and asks for it.
    talk.client(ACK, 101, 1501, 0);
    talk.client(ACK, 101, 1501, 0);
    talk.server(ACK, 1501, 101, 1000);
    talk.client(ACK, 101, 3501, 0);
    assert_eq!(counts(&talk.server), (1, 1, 0));
    assert_eq!(talk.lost(), [0, 0]);
    assert_eq!(talk.server.payload_bytes, 3000);
}

#[test]
fn segments_in_another_order_are_late_and_not_lost() {
    let mut talk = Talk::shake(100, 500);
    for first in [501, 701, 601, 801, 1001, 901] {
        talk.server(ACK, first, 101, 100);
    }
    talk.client(ACK, 101, 1101, 0);
    assert_eq!(counts(&talk.server), (2, 2, 0));
    assert_eq!(talk.lost(), [0, 0]);
    // The acknowledgement overtakes the segment that it acknowledges.
    talk.client(ACK, 101, 1201, 0);
    talk.server(ACK, 1101, 101, 100);
    assert_eq!(talk.lost(), [0, 0]);
}

#[test]
fn numbers_wrap_around() {
    let start = u32::MAX - 1500;
    let mut talk = Talk::shake(100, start);
    talk.server(ACK, start.wrapping_add(1), 101, 1000);
    talk.server(ACK, start.wrapping_add(2001), 101, 1000);
    talk.client(ACK, 101, start.wrapping_add(3001), 0);
    talk.server(ACK, start.wrapping_add(3001), 101, 1000);
    assert_eq!(
        (talk.server.lost_gaps, talk.server.lost_bytes),
        (1, 1000),
        "the hole spans the wrap"
    );
    assert_eq!(talk.server.payload_bytes, 3000);
}

#[test]
fn a_keep_alive_is_no_retransmission() {
    let mut talk = Talk::shake(100, 500);
    talk.client(ACK, 101, 501, 10);
    for payload in [0, 1, 1] {
        talk.client(ACK, 110, 501, payload);
        talk.server(ACK, 501, 111, 0);
    }
    assert_eq!(counts(&talk.client), (0, 0, 0));
    assert_eq!(talk.lost(), [0, 0]);
}

#[test]
fn a_retransmission_is_counted_also_when_it_brings_something_new() {
    let mut talk = Talk::shake(100, 500);
    talk.client(ACK, 101, 501, 100);
    talk.client(ACK, 101, 501, 100);
    assert_eq!(counts(&talk.client), (0, 0, 1));
    talk.client(ACK, 151, 501, 100);
    assert_eq!((counts(&talk.client), talk.client.payload_bytes), ((0, 0, 1), 150));
    talk.client(SYN, 100, 0, 0);
    assert_eq!(talk.client.next, 101, "a SYN of another conversation begins anew");
}

#[test]
fn an_answer_to_a_forged_address_proves_no_other_direction() {
    let mut talk = Talk::default();
    talk.server(SYN | ACK, 500, 101, 0);
    talk.server(RST | ACK, 501, 101, 0);
    assert!(!talk.server.has(stream_state::ESTABLISHED));
    talk.server(ACK, 501, 101, 0);
    assert!(talk.server.has(stream_state::ESTABLISHED | stream_state::SYN | stream_state::ENDED));
}

#[test]
fn a_reset_may_have_any_number() {
    let mut talk = Talk::shake(100, 500);
    talk.client(RST, 0x9000_0000, 0, 0);
    talk.client(RST | ACK, 4_000, 501, 0);
    assert_eq!(counts(&talk.client), (0, 0, 0));
    assert_eq!(talk.lost(), [0, 0]);
}

#[test]
fn a_port_that_is_used_again_is_not_a_hole() {
    let mut talk = Talk::shake(100, 500);
    talk.client(ACK, 101, 501, 100);
    talk.server(ACK | FIN, 501, 201, 0);
    for server in [0x4000_0000, 0xc000_0000] {
        talk.client(SYN, 0x7000_0000, 0, 0);
        talk.server(SYN | ACK, server, 0x7000_0001, 0);
        talk.client(ACK, 0x7000_0001, server + 1, 100);
        talk.server(ACK, server + 1, 0x7000_0065, 100);
        talk.client(ACK, 0x7000_0065, server + 101, 0);
    }
    assert_eq!((counts(&talk.client), counts(&talk.server)), ((0, 0, 0), (0, 0, 0)));
    assert_eq!(talk.lost(), [0, 0]);
}

#[test]
fn who_comes_in_the_middle_does_not_count_what_was_before() {
    let mut talk = Talk::default();
    talk.client(ACK, 5_000, 90_000, 0);
    talk.server(ACK, 95_000, 5_000, 1000);
    talk.client(ACK, 5_000, 96_000, 0);
    assert_eq!(talk.lost(), [0, 0]);
}

#[test]
fn more_holes_than_are_watched_are_counted() {
    let mut talk = Talk::shake(100, 500);
    for step in 0..7 {
        talk.server(ACK, 601 + step * 200, 101, 100);
    }
    assert_eq!((talk.server.gaps, talk.server.holes_unwatched), (7, 3));
    talk.client(ACK, 101, 1901, 0);
    assert_eq!(talk.lost(), [0, 400]);
}

#[test]
fn a_direction_that_is_missing_at_its_end_is_lost() {
    let mut talk = Talk::shake(100, 500);
    // The server's long segments never come by; the client acknowledges them.
    for step in 1..=10 {
        talk.client(ACK, 101, 501 + step * 8948, 0);
    }
    assert_eq!(talk.lost(), [0, 89_480]);
}

#[test]
fn cpus_and_tags_that_change_are_counted() {
    let mut stream = Stream::default();
    for (cpu, tags) in [(0, 7), (1, 7), (1, 8), (0, 8)] {
        stream.handle(&Segment { cpu, tags, ..segment(ACK, 1, 1, 0) }, None);
    }
    assert_eq!((stream.cpu_changes, stream.tag_changes), (2, 1));
}

const ABOUT: Look = Look { wire_bytes: 0, own_address: 0x02_00_00_00_00_09, seed: 42, cpu: 3 };

/// A TCP packet over IPv4 behind these VLAN tags.
fn frame(tags: &[u16], identification: u16, ttl: u8, payload: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1];
    for tag in tags {
        frame.extend_from_slice(&[0x81, 0]);
        frame.extend_from_slice(&tag.to_be_bytes());
    }
    frame.extend_from_slice(&[8, 0, 0x45, 0]);
    let total = u16::try_from(40 + payload).expect("a short packet");
    frame.extend_from_slice(&total.to_be_bytes());
    frame.extend_from_slice(&identification.to_be_bytes());
    frame.extend_from_slice(&[0x40, 0, ttl, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend_from_slice(&[0x1f, 0x90, 0, 80, 0, 0, 1, 0, 0, 0, 2, 0, 0x50, ACK, 0, 0]);
    frame.extend_from_slice(&[0xab, 0xcd, 0, 0]);
    frame.resize(frame.len() + payload, b'x');
    frame
}

fn seen(frame: &[u8], totals: &mut InspectTotals) -> Option<Seen> {
    let about = Look { wire_bytes: frame.len() as u64, ..ABOUT };
    look(frame, LinkLayer::Ethernet, &about, totals);
    let mut seen = look_inside(&parse(frame, LinkLayer::Ethernet), totals)?;
    compare(frame, &about, &mut seen, totals);
    Some(seen)
}

#[test]
fn a_frame_gives_its_segment_and_is_counted() {
    let mut totals = InspectTotals::default();
    let seen = seen(&frame(&[5, 6], 1, 64, 100), &mut totals).expect("an IP packet");
    let expected = Segment { cpu: 3, tags: 5 | 6 << 12, ..segment(ACK, 0x100, 0x200, 100) };
    assert_eq!((seen.has_segment, seen.segment), (1, expected));
    assert_eq!((seen.tags, seen.ttl), (5 | 6 << 12, 64));
    let expected = InspectTotals {
        frames: 1,
        bytes: 162,
        frames_own: 1,
        frame_bytes_max: 162,
        frames_tagged_twice: 1,
        packets_ip: 1,
        packets_tcp: 1,
        ..InspectTotals::default()
    };
    assert_eq!(totals, expected);
}

#[test]
fn a_frame_that_lacks_bytes_is_cut() {
    let whole = frame(&[], 1, 64, 100);
    let mut totals = InspectTotals::default();
    seen(&whole, &mut totals);
    assert_eq!(totals.frames_cut, 0);
    seen(whole.get(..60).expect("inside"), &mut totals);
    assert_eq!((totals.frames_cut, totals.cut_bytes_max, totals.tcp_cut), (1, 94, 0));
    // Padding to the shortest frame is not a lack.
    let mut padded = frame(&[], 1, 64, 0);
    padded.resize(60, 0);
    let padded = seen(&padded, &mut totals).expect("an IP packet");
    assert_eq!((totals.frames_cut, padded.segment.payload), (1, 0));
    for end in 0..whole.len() {
        seen(whole.get(..end).expect("inside"), &mut totals);
    }
}

#[test]
fn a_copy_is_told_from_a_repetition() {
    let mut totals = InspectTotals::default();
    let one = seen(&frame(&[], 7, 64, 100), &mut totals).expect("an IP packet");
    let routed = seen(&frame(&[9], 7, 63, 100), &mut totals).expect("an IP packet");
    let repeated = seen(&frame(&[], 8, 64, 100), &mut totals).expect("an IP packet");
    assert_eq!(one.identity, routed.identity, "TTL and tags may differ");
    assert_ne!(one.identity, repeated.identity, "the sender counts its packets");
    let mut recent = Recent::default();
    let mut copy = |seen: &Seen, now| is_copy(&mut recent, seen, now, 5, &mut totals);
    assert!(!copy(&one, 100));
    assert!(copy(&one, 105), "within five ticks");
    assert!(!copy(&one, 111), "too late");
    assert!(copy(&routed, 111));
    assert!(!copy(&repeated, 111));
    let told =
        (totals.comparable, totals.copies, totals.copies_other_ttl, totals.copies_other_tags);
    assert_eq!(told, (5, 2, 1, 1));
}

/// The frame in VXLAN, in this network, behind these VLAN tags.
fn in_vxlan(tags: &[u16], network: u8, inside: &[u8]) -> Vec<u8> {
    let mut outside = frame(tags, 3, 60, 0);
    let udp_bytes = u16::try_from(16 + inside.len()).expect("a short packet");
    let start = 14 + 4 * tags.len();
    outside.truncate(start + 20);
    outside.splice(start + 2..start + 4, (20 + udp_bytes).to_be_bytes());
    outside.splice(start + 9..start + 10, [17]);
    outside.extend_from_slice(&[0xc0, 0, 0x12, 0xb5]);
    outside.extend_from_slice(&udp_bytes.to_be_bytes());
    outside.extend_from_slice(&[0, 0, 8, 0, 0, 0, 0, 0, network, 0]);
    outside.extend_from_slice(inside);
    outside
}

#[test]
fn a_packet_in_a_tunnel_is_looked_at_where_it_is() {
    let inside = frame(&[], 7, 64, 100);
    let mut totals = InspectTotals::default();
    let plain = seen(&inside, &mut totals).expect("an IP packet");
    let tunnelled = seen(&in_vxlan(&[], 1, &inside), &mut totals).expect("an IP packet");
    assert_eq!((tunnelled.key, tunnelled.segment), (plain.key, plain.segment));
    assert_eq!((plain.network_offset, tunnelled.network_offset), (14, 64));
    let named = totals.encapsulated.iter().enumerate().filter(|(_, frames)| **frames > 0);
    let named: Vec<_> = named.map(|(index, frames)| (encapsulation_name(index), *frames)).collect();
    assert_eq!(named, [("vxlan", 1)]);
    assert_eq!((totals.packets_tcp, totals.frames_cut), (2, 0));
    let cut = in_vxlan(&[], 1, &inside);
    seen(cut.get(..cut.len() - 30).expect("inside"), &mut totals);
    assert_eq!((totals.frames_cut, totals.cut_bytes_max), (1, 30), "by the outermost header");
}

#[test]
fn equal_packets_in_different_tunnels_are_no_copies() {
    let inside = frame(&[], 7, 64, 100);
    let mut totals = InspectTotals::default();
    let mut all = [
        in_vxlan(&[], 1, &inside),
        in_vxlan(&[9], 1, &inside),
        in_vxlan(&[], 2, &inside),
        inside.clone(),
    ]
    .map(|frame| seen(&frame, &mut totals).expect("an IP packet"));
    assert_eq!(all[0].identity, all[1].identity, "tags may differ");
    assert_eq!(all[0].conversation(42), all[1].conversation(42));
    for other in [2, 3] {
        assert_ne!(all[0].identity, all[other].identity);
        assert_ne!(all[0].conversation(42).1, all[other].conversation(42).1);
    }
    all[1].key = all[1].key.reversed();
    assert_eq!(all[0].conversation(42).1, all[1].conversation(42).1, "both directions");
}

#[test]
fn an_acknowledgement_that_may_look_like_another_is_not_compared() {
    let mut totals = InspectTotals::default();
    let bare = seen(&frame(&[], 0, 64, 0), &mut totals).expect("an IP packet");
    assert_eq!(
        bare.identity, 0,
        "duplicate acknowledgements are alike where packets are not counted"
    );
    assert_ne!(seen(&frame(&[], 0, 64, 1), &mut totals).expect("an IP packet").identity, 0);
    assert_ne!(seen(&frame(&[], 1, 64, 0), &mut totals).expect("an IP packet").identity, 0);
}

#[test]
fn both_directions_find_the_same_conversation() {
    let mut totals = InspectTotals::default();
    let one = seen(&frame(&[], 1, 64, 0), &mut totals).expect("an IP packet");
    let other = Seen { key: one.key.reversed(), ..one };
    let (key, tag, half) = one.conversation(42);
    assert_eq!(other.conversation(42), (key, tag, 1 - half));
    assert_ne!(tag, 0);
    assert_ne!(one.conversation(43).1, tag, "the seed decides");
    assert_ne!(conversation_place(tag, 0), conversation_place(tag, 1));
}

proptest! {
    /// However data is cut into segments, wherever numbers start, and however it is acknowledged: in order and without
    /// loss there is no gap, no copy and no loss.
    #[test]
    fn traffic_in_order_and_without_loss_has_nothing_to_report(
        starts in any::<(u32, u32)>(),
        steps in proptest::collection::vec((any::<bool>(), 1..=65_000_u32, any::<bool>()), 1..200),
        finish in any::<bool>(),
    ) {
        let mut talk = Talk::shake(starts.0, starts.1);
        let (mut client, mut server) = (starts.0.wrapping_add(1), starts.1.wrapping_add(1));
        for (is_client, payload, answers) in steps {
            if is_client {
                talk.client(ACK, client, server, payload);
                client = client.wrapping_add(payload);
            } else {
                talk.server(ACK, server, client, payload);
                server = server.wrapping_add(payload);
            }
            if answers {
                if is_client {
                    talk.server(ACK, server, client, 0);
                } else {
                    talk.client(ACK, client, server, 0);
                }
            }
        }
        if finish {
            talk.client(ACK | FIN, client, server, 0);
            talk.server(ACK | FIN, server, client.wrapping_add(1), 0);
            talk.client(ACK, client.wrapping_add(1), server.wrapping_add(1), 0);
        }
        prop_assert_eq!(counts(&talk.client), (0, 0, 0));
        prop_assert_eq!(counts(&talk.server), (0, 0, 0));
        prop_assert_eq!(talk.lost(), [0, 0]);
    }

    /// No bytes make the inspection fail.
    #[test]
    fn any_bytes_are_looked_at(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let mut totals = InspectTotals::default();
        seen(&bytes, &mut totals);
        prop_assert_eq!(totals.frames, 1);
    }
}
