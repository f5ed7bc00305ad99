//! What people are told at the end of a replay, from captures made here.

use std::time::Duration;

use expect_test::{Expect, expect};

use super::{CaptureTally, FileSummary, short, short_bytes};
use crate::aggregate::AggregatorSettings;
use crate::pcap::CaptureFile;
use crate::replay::Replay;

/// Ethernet, IPv4 and the first bytes of TCP or UDP.
fn v4(from: [u8; 4], to: [u8; 4], number: u8, ports: [u16; 2], flags: u8) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, number, 0, 0]);
    frame.extend(from);
    frame.extend(to);
    frame.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    frame
}

fn v6(from: u8, to: u8, number: u8, ports: [u16; 2]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, number, 64]);
    for last in [from, to] {
        frame.extend([0x20, 0x01, 0x0d, 0xb8, 0x12, 0x34, 0x56, 0x78]);
        frame.extend([0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x34, 0x56, last]);
    }
    frame.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    frame.extend([0; 16]);
    frame
}

fn ethertype(number: u16) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[12..14].copy_from_slice(&number.to_be_bytes());
    frame
}

/// A capture of frames with their times and lengths on the wire.
fn capture(frames: &[(u32, u32, Vec<u8>)]) -> Vec<u8> {
    let words =
        |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    let mut bytes = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    for (time_ms, wire_bytes, frame) in frames {
        let captured = u32::try_from(frame.len()).expect("a short frame");
        let (s, us) = (1_780_000_000 + time_ms / 1_000, time_ms % 1_000 * 1_000);
        bytes.extend(words(&[s, us, captured, (*wire_bytes).max(captured)]));
        bytes.extend(frame);
    }
    bytes
}

fn told(frames: &[(u32, u32, Vec<u8>)], elapsed: Option<Duration>) -> String {
    let bytes = capture(frames);
    let mut tally = CaptureTally::default();
    let mut replay = Replay::new(AggregatorSettings::default(), 250);
    let mut file = CaptureFile::open(bytes.as_slice()).expect("a capture");
    while let Some(frame) = file.next_frame().expect("a whole capture") {
        tally.handle_link(frame.link);
        replay.handle_frame(&frame, &mut |record| tally.handle_record(&record));
    }
    replay.finish(&mut |record| tally.handle_record(&record));
    tally.handle_file(&FileSummary { bytes: bytes.len() as u64, ..FileSummary::default() });
    tally.elapsed = elapsed;
    tally.to_text(replay.counts())
}

fn check(text: &str, expected: &Expect) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    expected.assert_eq(text);
}

#[test]
fn a_capture_of_everything() {
    let (client, server) = ([10, 0, 0, 7], [192, 0, 2, 80]);
    let mut frames = Vec::new();
    for at in 0..1_000 {
        let (from, to, ports) = if at % 4 == 0 {
            (client, server, [40_000, 443])
        } else {
            (server, client, [443, 40_000])
        };
        let flags = match at {
            0 => 0x02,
            1 => 0x12,
            _ => 0x10,
        };
        frames.push((at * 200, 1_514, v4(from, to, 6, ports, flags)));
        if at % 10 == 0 {
            let port = 50_000 + u16::try_from(at).expect("a small number");
            frames.push((at * 200, 90, v4(client, [9, 9, 9, 9], 17, [port, 53], 0)));
        }
    }
    frames.push((200_000, 600, v6(1, 2, 17, [5_353, 5_353])));
    frames.push((200_000, 90, v6(1, 3, 58, [0, 0])));
    frames.extend([0x0806, 0x88cc, 0x1234].map(|number| (200_100, 60, ethertype(number))));
    frames.push((200_100, 0, v4(client, server, 6, [1, 2], 2)[..20].to_vec()));
    check(
        &told(&frames, Some(Duration::from_millis(12))),
        &expect![[r"
            capture   1 file, 77.4 kB read in 0.01 s: 92.1 k frames/s
            time      2026-05-28T20:26:40.000Z to 2026-05-28T20:30:00.100Z (200.100 s)
            wire      1,523,890 bytes, on average 60.9 kbit/s in 5 frames/s
            link      1,106 frames of Ethernet
            snapped   1,102 frames were captured in part
            not IP    1 ARP (0x0806)
            not IP    1 EtherType 0x1234
            not IP    1 LLDP (0x88cc)
            malformed 1 ip_header_cut: it ends inside the IP header
            records   106 = 93 idle + 3 active timeout + 10 end of capture

            Top hosts                                   bytes   share     packets    records
              10.0.0.7                                1.52 MB  99.9 %       1,100        104
              192.0.2.80                              1.51 MB  99.3 %       1,000          4
              9.9.9.9                                 9.00 kB   0.5 %         100        100
              2001:db8:1234:5678:9abc:def0:1234:5601    690 B   0.0 %           2          2
              2001:db8:1234:5678:9abc:def0:1234:5602    600 B   0.0 %           1          1
              2001:db8:1234:5678:9abc:def0:1234:5603     90 B   0.0 %           1          1

            Top services                                bytes   share     packets    records
              tcp/443   https                         1.51 MB  99.3 %       1,000          4
              udp/53    domain                        9.00 kB   0.5 %         100        100
              udp/5353  mdns                            600 B   0.0 %           1          1

            Top protocols                               bytes   share     packets    records
              TCP                                     1.51 MB  99.3 %       1,000          4
              UDP                                     9.60 kB   0.6 %         101        101
              ICMPv6                                     90 B   0.0 %           1          1

        "]],
    );
}

#[test]
fn more_hosts_than_are_kept() {
    let mut frames = Vec::new();
    for at in 0..20_000_u32 {
        let [_, a, b, c] = at.to_be_bytes();
        frames.push((at, 66, v4([10, a, b, c], [192, 0, 2, 1], 6, [40_000, 80], 2)));
    }
    check(
        &told(&frames, None),
        &expect![[r"
        capture   1 file, 1.40 MB
        time      2026-05-28T20:26:40.000Z to 2026-05-28T20:26:59.999Z (19.999 s)
        wire      1,320,000 bytes, on average 528 kbit/s in 1.00 k frames/s
        link      20,000 frames of Ethernet
        snapped   20,000 frames were captured in part
        records   20,000 = 4,751 idle + 15,249 end of capture

        Top hosts                                   bytes   share     packets    records
          192.0.2.1                               1.32 MB 100.0 %      20,000     20,000
          There were more than 7,168 hosts: one that is not kept has had at most
          198 B; figures with ≥ may lack as much.

        Top services                                bytes   share     packets    records
          tcp/80    http                          1.32 MB 100.0 %      20,000     20,000

        Top protocols                               bytes   share     packets    records
          TCP                                     1.32 MB 100.0 %      20,000     20,000

    "]],
    );
}

#[test]
fn a_capture_without_frames() {
    check(
        &told(&[], Some(Duration::ZERO)),
        &expect![[r"
        capture   1 file, 24 B read in 0.00 s: 0 frames/s
        wire      0 bytes
    "]],
    );
}

#[test]
fn numbers_for_people() {
    let shown = [0, 999, 1_000, 1_234, 12_345, 999_999, 1_000_000, u64::MAX].map(short);
    assert_eq!(shown, ["0", "999", "1.00 k", "1.23 k", "12.3 k", "999 k", "1.00 M", "18.4 E"]);
    assert_eq!([7, 7_000].map(short_bytes), ["7 B", "7.00 kB"]);
}
