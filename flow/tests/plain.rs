//! What the short way says, the general parser says too: for every value of every header byte, and every length.

use flow::{
    LinkLayer, Packet, Parsed, Walk, Walked, parse, parse_plain, plain_v4, plain_v6, protocol,
};

/// UDP ports behind which there may be a tunnel: GTP-U, VXLAN (and as it was before it had a number), Geneve.
const TUNNELS: [u16; 4] = [2152, 4789, 8472, 6081];

/// Ethernet, an IP header, ports, and payload of ones.
fn frame(v6: bool, number: u8, ports: [u16; 2]) -> Vec<u8> {
    let mut frame: Vec<u8> = (1..=12).collect();
    if v6 {
        frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, number, 61]);
        frame.extend(0x20..0x40);
    } else {
        frame.extend_from_slice(&[0x08, 0, 0x45, 0, 0, 60, 0, 1, 0x40, 0, 63, number, 0, 0]);
        frame.extend_from_slice(&[192, 0, 2, 1, 198, 51, 100, 7]);
    }
    for port in ports {
        frame.extend_from_slice(&port.to_be_bytes());
    }
    frame.resize(frame.len() + 36, 0x12);
    frame
}

fn plain(frame: &[u8]) -> Option<Packet> {
    plain_v4(frame).or_else(|| plain_v6(frame))
}

fn compare(frame: &[u8]) -> bool {
    let mut walk = Walk::default();
    let general = match walk.run(frame, LinkLayer::Ethernet) {
        Walked::Ip => Parsed::Ip(walk.packet()),
        Walked::NotIp(ethertype) => Parsed::NotIp(ethertype),
        Walked::Malformed(reason) => Parsed::Malformed(reason),
    };
    assert_eq!(parse(frame, LinkLayer::Ethernet), general, "{frame:02x?}");
    let Some(packet) = parse_plain(frame) else { return false };
    assert_eq!(general, Parsed::Ip(packet), "{frame:02x?}");
    true
}

#[test]
fn plain_frames_take_the_short_way() {
    for v6 in [false, true] {
        for number in [protocol::TCP, protocol::UDP] {
            assert!(compare(&frame(v6, number, [40_000, 443])), "IPv6 {v6}, protocol {number}");
        }
    }
}

#[test]
fn whatever_a_header_byte_says_both_ways_agree() {
    let mut short = 0_u32;
    for v6 in [false, true] {
        for number in [protocol::TCP, protocol::UDP] {
            let frame = frame(v6, number, [40_000, 443]);
            for at in 12..70 {
                for value in 0..=255 {
                    let mut changed = frame.clone();
                    changed[at] = value;
                    short += u32::from(compare(&changed));
                }
            }
        }
    }
    assert!(short > 20_000, "most bytes may have any value: {short}");
}

#[test]
fn however_short_a_frame_is_both_ways_agree() {
    for v6 in [false, true] {
        for number in [protocol::TCP, protocol::UDP, protocol::ICMP] {
            let frame = frame(v6, number, [1, 2]);
            for length in 0..=frame.len() {
                compare(&frame[..length]);
            }
        }
    }
}

#[test]
fn what_may_be_a_tunnel_a_fragment_or_options_takes_the_general_way() {
    for v6 in [false, true] {
        for port in TUNNELS {
            assert!(plain(&frame(v6, protocol::UDP, [9, port])).is_none(), "{port}");
            assert!(plain(&frame(v6, protocol::TCP, [9, port])).is_some(), "{port}");
            assert!(plain(&frame(v6, protocol::UDP, [port, 9])).is_some(), "from {port}");
        }
        for other in [protocol::ICMP, protocol::SCTP, 0, 4, 41, 44, 47, 50] {
            assert!(plain(&frame(v6, other, [1, 2])).is_none(), "protocol {other}");
        }
    }
    let whole = frame(false, protocol::TCP, [1, 2]);
    for (at, value) in [(14, 0x46), (20, 0x20), (21, 1), (12, 0x81)] {
        let mut changed = whole.clone();
        changed[at] = value;
        assert!(plain(&changed).is_none(), "byte {at}");
    }
}
