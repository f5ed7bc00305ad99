//! In: draws. Out: one record of one kind of traffic, whose `end_ms` is how long its flow takes. What the kinds are and
//! how frequent, the parent module says.

use std::net::{IpAddr, Ipv4Addr};

use flow::{Direction, EndReason, Handshake, Record, RoleEvidence, protocol, tcp_flag};

use super::draw::{Draw, Quantiles};
use super::{ACTIVE_TIMEOUT_MS, Host, between, client, outside, scattered, server};

/// First of the ephemeral ports, as RFC 6335 has them; Linux begins earlier.
const EPHEMERAL: (u16, u16) = (32_768, 60_999);
const EPHEMERAL_RFC: (u16, u16) = (49_152, 65_535);
const FRAME_BYTES_MAX: u32 = 1_514;
/// Encapsulating Security Payload, RFC 4303.
const ESP: u8 = 50;
const OPEN: u8 = tcp_flag::SYN;
const ANSWER: u8 = tcp_flag::SYN | tcp_flag::ACK;
const PUSHED: u8 = tcp_flag::ACK | tcp_flag::PSH;

/// Payload of an answer, bytes.
const ANSWER_BYTES: Quantiles =
    Quantiles([120, 600, 2_400, 6_200, 21_000, 110_000, 2_400_000, 60_000_000]);
/// Payload of a question, bytes.
const ASK_BYTES: Quantiles = Quantiles([180, 620, 1_150, 2_050, 3_900, 9_800, 90_000, 2_000_000]);
/// How long a page's connection takes, milliseconds.
const PAGE_MS: Quantiles = Quantiles([12, 90, 340, 2_100, 12_400, 61_000, 130_000, 300_000]);
const LOOKUP_BYTES: Quantiles = Quantiles([66, 71, 75, 81, 89, 100, 128, 180]);
const LOOKED_UP_BYTES: Quantiles = Quantiles([20, 24, 42, 74, 160, 310, 620, 1_100]);
/// What ports scans aim at; half of them go elsewhere.
const SCANNED: [u16; 14] =
    [22, 23, 23, 80, 443, 445, 1433, 2323, 3389, 5060, 5555, 6379, 8080, 8443];

pub(super) fn record(draw: &mut Draw) -> Record {
    let make: fn(&mut Draw) -> Record = draw.weighted(&[
        (290, page as fn(&mut Draw) -> Record),
        (110, quic),
        (240, lookup),
        (150, scan),
        (60, visit),
        (50, kept_open),
        (30, mail),
        (25, small),
        (20, icmp),
        (15, late),
        (10, tunnel),
    ]);
    make(draw)
}

fn client_port(draw: &mut Draw, host: Host) -> u16 {
    let (first, last) = if host.ttl > 64 { EPHEMERAL_RFC } else { EPHEMERAL };
    draw.between(first, last)
}

fn jittered(draw: &mut Draw, rtt_us: u32) -> u32 {
    let jitter = Quantiles([0, 12, 40, 110, 330, 1_400, 14_000, 90_000]);
    rtt_us + draw.spread(jitter)
}

/// Fills in both directions of a conversation over TCP or QUIC: `asked` and `answered` are payload.
fn converse(draw: &mut Draw, record: &mut Record, bares: [u16; 2], asked: u32, answered: u32) {
    let [bare, bare_back] = bares;
    let segments = |payload: u32, bare: u16| payload.div_ceil(FRAME_BYTES_MAX - u32::from(bare));
    let (sent, got) = (segments(asked, bare), segments(answered, bare_back));
    // Every second segment is acknowledged, roughly; questions and answers come in pieces besides.
    let pieces = 1 + draw.below(4);
    let acks = |segments: u32, draw: &mut Draw| segments * (40 + draw.below(30)) / 100;
    let packets = sent + pieces + acks(got, draw);
    let packets_back = got + pieces + acks(sent, draw);
    let mut fill = |asks: bool, packets: u32, payload: u32, bare: u16| {
        let side = if asks { &mut record.from_initiator } else { &mut record.from_responder };
        let bare = u64::from(bare);
        side.packets = u64::from(packets);
        side.bytes = side.packets * bare + u64::from(payload);
        side.length_min = u16::try_from(bare).expect("small");
        let rest = FRAME_BYTES_MAX - u32::from(side.length_min);
        // A browser's first segment has one of few lengths, an answer of some length full segments; what is shorter
        // goes in pieces of any size.
        let hello = if asks { draw.weighted(&[(45, rest), (35, 517), (20, 0)]) } else { 0 };
        let longest = if payload > 2 * rest {
            rest
        } else if hello <= payload && payload <= packets * hello {
            hello
        } else {
            payload.div_ceil(2).max(payload.min(rest) * (55 + draw.below(45)) / 100).min(rest)
        };
        side.length_max = side.length_min + u16::try_from(longest).expect("at most a frame");
    };
    fill(true, packets, asked, bare);
    fill(false, packets_back, answered, bare_back);
}

/// Makes a record one of a TCP connection that was opened.
fn opened(draw: &mut Draw, record: &mut Record, rtt_us: u32) {
    record.role = RoleEvidence::Handshake;
    record.handshake = Handshake::Established;
    record.from_initiator.first_flags = OPEN;
    record.from_responder.first_flags = ANSWER;
    // A SYN that was sent again gives no time.
    record.handshake_rtt_us = (!draw.percent(2)).then(|| jittered(draw, rtt_us));
    let (ends, ends_back) = draw.weighted(&[
        (70, (tcp_flag::FIN, tcp_flag::FIN)),
        (14, (tcp_flag::FIN, tcp_flag::FIN | tcp_flag::RST)),
        (8, (tcp_flag::RST, 0)),
        (8, (0, 0)),
    ]);
    if record.end_ms >= u64::from(ACTIVE_TIMEOUT_MS) {
        record.end_reason = EndReason::ActiveTimeout;
        record.end_ms = u64::from(ACTIVE_TIMEOUT_MS - draw.below(400));
        record.from_initiator.tcp_flags = OPEN | PUSHED;
        record.from_responder.tcp_flags = ANSWER | PUSHED;
        return;
    }
    record.from_initiator.tcp_flags = OPEN | PUSHED | ends;
    record.from_responder.tcp_flags = ANSWER | PUSHED | ends_back;
    let is_over = ends | ends_back != 0;
    record.end_reason = if is_over { EndReason::EndOfFlow } else { EndReason::IdleTimeout };
}

fn page(draw: &mut Draw) -> Record {
    let is_v6 = draw.percent(25);
    let (initiator, responder) = (client(draw, is_v6), server(draw, is_v6));
    let port = draw.weighted(&[(93, 443), (6, 80), (1, 8_080)]);
    let ports = [client_port(draw, initiator), port];
    let mut record = between(initiator, responder, ports, protocol::TCP);
    record.end_ms = u64::from(draw.spread(PAGE_MS)) + u64::from(responder.rtt_us / 1_000 * 3);
    let (asked, answered) = (draw.spread(ASK_BYTES), draw.spread(ANSWER_BYTES));
    converse(draw, &mut record, [initiator.bare, responder.bare], asked, answered);
    opened(draw, &mut record, responder.rtt_us);
    record
}

fn quic(draw: &mut Draw) -> Record {
    let is_v6 = draw.percent(35);
    let (initiator, responder) = (client(draw, is_v6), server(draw, is_v6));
    let ports = [client_port(draw, initiator), 443];
    let mut record = between(initiator, responder, ports, protocol::UDP);
    record.end_ms = u64::from(draw.spread(PAGE_MS).min(ACTIVE_TIMEOUT_MS));
    if record.end_ms == u64::from(ACTIVE_TIMEOUT_MS) {
        record.end_reason = EndReason::ActiveTimeout;
    }
    let (asked, answered) = (draw.spread(ASK_BYTES) + 1_200, draw.spread(ANSWER_BYTES) + 1_200);
    let header: u16 = if is_v6 { 62 } else { 42 };
    // Protected headers and the shortest frames differ by connection.
    let bares = [header + draw.between(21, 34), header + draw.between(21, 34)];
    converse(draw, &mut record, bares, asked, answered);
    for side in [&mut record.from_initiator, &mut record.from_responder] {
        side.length_max = side.length_max.max(1_200 + header);
    }
    record
}

fn lookup(draw: &mut Draw) -> Record {
    let (initiator, responder) = if draw.percent(70) {
        let number = draw.below(2);
        let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a14_ff02 + number));
        (Host { address, ttl: 63, rtt_us: 300, bare: 0 }, server(draw, false))
    } else {
        let number = draw.below(4);
        (client(draw, false), outside(2_000_000 + number, false))
    };
    let ports = [draw.between(1_024, 65_535), 53];
    let mut record = between(initiator, responder, ports, protocol::UDP);
    record.end_ms = u64::from(jittered(draw, responder.rtt_us) / 1_000);
    let asked = u16::try_from(draw.spread(LOOKUP_BYTES)).expect("small");
    let more = u16::try_from(draw.spread(LOOKED_UP_BYTES)).expect("small");
    one(&mut record.from_initiator, asked);
    if draw.percent(96) {
        one(&mut record.from_responder, asked + more);
    } else {
        silent(&mut record);
    }
    record
}

fn one(side: &mut Direction, bytes: u16) {
    (side.packets, side.bytes) = (1, u64::from(bytes));
    (side.length_min, side.length_max) = (bytes, bytes);
}

fn some(side: &mut Direction, packets: u64, bytes: u16) {
    (side.packets, side.bytes) = (packets, packets * u64::from(bytes));
    (side.length_min, side.length_max) = (bytes, bytes);
}

/// Nothing came back.
fn silent(record: &mut Record) {
    record.end_ms = 0;
    record.from_responder = Direction::default();
}

fn scan(draw: &mut Draw) -> Record {
    let ttl = u8::try_from(draw.weighted(&[(60, 64), (25, 128), (15, 255)]) - draw.below(20) - 5)
        .expect("at most 250");
    let address = Ipv4Addr::from_bits(draw.u32());
    let source = Host { address: address.into(), ttl, rtt_us: 0, bare: 0 };
    let address = IpAddr::V4(Ipv4Addr::from_bits(0xcb00_7100 + draw.below(256)));
    let target = Host { address, ttl: 64, rtt_us: 400, bare: 0 };
    let is_tcp = draw.percent(88);
    let port = if draw.percent(50) { draw.of(&SCANNED) } else { draw.between(1, u16::MAX) };
    let ports = [draw.between(1_024, u16::MAX), port];
    let protocol = if is_tcp { protocol::TCP } else { protocol::UDP };
    let mut record = between(source, target, ports, protocol);
    silent(&mut record);
    if !is_tcp {
        let bytes = draw.between(60, 420);
        one(&mut record.from_initiator, bytes);
        return record;
    }
    record.role = RoleEvidence::Handshake;
    record.handshake = Handshake::Syn;
    (record.from_initiator.tcp_flags, record.from_initiator.first_flags) = (OPEN, OPEN);
    let bytes = draw.weighted(&[(70, 60), (22, 74), (8, 66)]);
    one(&mut record.from_initiator, bytes);
    if draw.percent(12) {
        record.handshake = Handshake::Rejected;
        record.handshake_rtt_us = None;
        record.from_responder.ttl = 64;
        let reset = tcp_flag::RST | tcp_flag::ACK;
        (record.from_responder.tcp_flags, record.from_responder.first_flags) = (reset, reset);
        one(&mut record.from_responder, 60);
        record.end_reason = EndReason::EndOfFlow;
    } else if draw.percent(20) {
        // Whoever does not know that nothing answers tries again, after a second.
        some(&mut record.from_initiator, 2, bytes);
        record.end_ms = u64::from(1_000 + draw.below(30));
    }
    record
}

fn visit(draw: &mut Draw) -> Record {
    let visitor = draw.u32() % 200_000;
    let initiator = outside(3_000_000 + visitor, false);
    let address = IpAddr::V4(Ipv4Addr::from_bits(0xcb00_710a + draw.rank(3)));
    let responder = Host { address, ttl: 63, rtt_us: 350, bare: 66 };
    let ports = [draw.between(1_024, u16::MAX), draw.weighted(&[(90, 443), (10, 80)])];
    let mut record = between(initiator, responder, ports, protocol::TCP);
    record.end_ms = u64::from(draw.spread(PAGE_MS));
    let (asked, answered) = (draw.spread(ASK_BYTES), draw.spread(ANSWER_BYTES));
    converse(draw, &mut record, [initiator.bare, responder.bare], asked, answered);
    opened(draw, &mut record, responder.rtt_us);
    record
}

fn kept_open(draw: &mut Draw) -> Record {
    let is_v6 = draw.percent(25);
    let initiator = client(draw, is_v6);
    let responder = outside(draw.rank(6), is_v6);
    let port = draw.weighted(&[(60, 443), (20, 5_228), (12, 5_223), (8, 22)]);
    let ports = [client_port(draw, initiator), port];
    let mut record = between(initiator, responder, ports, protocol::TCP);
    let payload = Quantiles([0, 31, 64, 180, 900, 5_000, 60_000, 400_000]);
    let (asked, answered) = (draw.spread(payload) + 1, draw.spread(payload) + 1);
    converse(draw, &mut record, [initiator.bare, responder.bare], asked, answered);
    opened(draw, &mut record, responder.rtt_us);
    record.end_ms = u64::from(ACTIVE_TIMEOUT_MS - draw.below(25_000));
    record.end_reason = EndReason::ActiveTimeout;
    (record.from_initiator.tcp_flags, record.from_responder.tcp_flags) = (PUSHED, PUSHED);
    record
}

fn mail(draw: &mut Draw) -> Record {
    let mut record = if draw.percent(50) { page(draw) } else { visit(draw) };
    record.responder_port = draw.weighted(&[(35, 25), (15, 465), (15, 587), (35, 993)]);
    record
}

fn small(draw: &mut Draw) -> Record {
    let responder = outside(4_000_000 + draw.rank(5), false);
    let initiator = client(draw, false);
    let (port, bytes) = draw.weighted(&[(70, (123, 90)), (20, (3_478, 62)), (10, (161, 87))]);
    let own = if port == 123 && draw.percent(40) { 123 } else { client_port(draw, initiator) };
    let mut record = between(initiator, responder, [own, port], protocol::UDP);
    record.end_ms = u64::from(jittered(draw, responder.rtt_us) / 1_000);
    one(&mut record.from_initiator, bytes);
    one(&mut record.from_responder, bytes);
    record
}

fn icmp(draw: &mut Draw) -> Record {
    let is_echo = draw.percent(70);
    let (initiator, responder) = (client(draw, false), server(draw, false));
    let ports = if is_echo { [8, 0] } else { [3, draw.weighted(&[(60, 3), (25, 1), (15, 13)])] };
    let mut record = between(initiator, responder, ports, protocol::ICMP);
    if !is_echo {
        silent(&mut record);
        let bytes = draw.between(70, 128);
        one(&mut record.from_initiator, bytes);
        return record;
    }
    let (packets, bytes) = (u64::from(1 + draw.below(5)), draw.of(&[74, 98, 98]));
    some(&mut record.from_initiator, packets, bytes);
    some(&mut record.from_responder, packets, bytes);
    record.end_ms = (packets - 1) * 1_000 + u64::from(jittered(draw, responder.rtt_us) / 1_000);
    record
}

fn late(draw: &mut Draw) -> Record {
    let (initiator, responder) = (client(draw, false), server(draw, false));
    let ports = [client_port(draw, initiator), 443];
    let mut record = between(initiator, responder, ports, protocol::TCP);
    silent(&mut record);
    record.role = RoleEvidence::PortRank;
    record.handshake = Handshake::OneWay;
    let flags = draw.of(&[tcp_flag::RST, tcp_flag::FIN | tcp_flag::ACK, tcp_flag::ACK]);
    (record.from_initiator.tcp_flags, record.from_initiator.first_flags) = (flags, flags);
    let packets = u64::from(1 + draw.below(2));
    some(&mut record.from_initiator, packets, initiator.bare);
    record.end_ms = if packets > 1 { u64::from(draw.below(9_000)) } else { 0 };
    record
}

fn tunnel(draw: &mut Draw) -> Record {
    let number = draw.below(40);
    let initiator = outside(5_000_000 + number, false);
    let address = IpAddr::V4(Ipv4Addr::from_bits(0xcb00_7105));
    let gate = Host { address, ttl: 63, rtt_us: 300, bare: 0 };
    let is_esp = number.is_multiple_of(4);
    let port = 1_024 + u16::try_from(scattered(number.into()) % 60_000).expect("16 bits");
    let (ports, protocol) = if is_esp { ([0, 0], ESP) } else { ([port, 51_820], protocol::UDP) };
    let mut record = between(initiator, gate, ports, protocol);
    record.ports_known = !is_esp;
    let payload = Quantiles([96, 400, 3_000, 60_000, 900_000, 9_000_000, 80_000_000, 200_000_000]);
    let (asked, answered) = (draw.spread(payload), draw.spread(payload));
    converse(draw, &mut record, [74, 74], asked, answered);
    record.end_ms = u64::from(ACTIVE_TIMEOUT_MS - draw.below(20_000));
    record.end_reason = EndReason::ActiveTimeout;
    record.role = RoleEvidence::FirstPacket;
    record
}
