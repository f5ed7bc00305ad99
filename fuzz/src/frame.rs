//! Takes a link type and a frame; checks that parsing it ends with offsets inside the frame, that the
//! short way and the general one agree, and that every frame is counted once.

use flow::{Kind, LinkLayer, Malformed, Parsed, Walk, Walked, parse, parse_plain, protocol};
use sensor::{CapturedFrame, FrameObserver, LinkType};

/// Parses a frame behind its link type.
pub fn frame(data: &[u8]) {
    let Some((number, frame)) = data.split_first() else { return };
    let link = LinkType::ALL[usize::from(*number) % LinkType::ALL.len()];
    let parsed = match link.network(frame) {
        Some(layer) => {
            let parsed = parse(frame, layer);
            compare(frame, layer, parsed);
            parsed
        }
        None => Parsed::Malformed(Malformed::LinkHeaderCut),
    };
    if let Parsed::Ip(packet) = parsed {
        // The transport header may lie behind the end of a cut frame, but then nothing of it is known.
        let held = frame.len().saturating_sub(packet.transport_offset);
        let has_ports = matches!(packet.key.protocol(), protocol::TCP | protocol::UDP)
            && !packet.key.kind().has(Kind::NO_PORTS);
        assert!(packet.network_offset < frame.len(), "{packet:?}");
        assert!(packet.transport_offset == 0 || packet.network_offset < packet.transport_offset);
        assert!(!has_ports || packet.transport_offset > 0 && held >= 4, "{packet:?}");
        assert!(packet.outer.is_valid(), "{packet:?}");
        let (key, _) = packet.key.canonical();
        assert_eq!(key.canonical(), (key, false), "{packet:?}");
    }
    observe(link, frame, parsed);
}

fn compare(frame: &[u8], layer: LinkLayer, parsed: Parsed) {
    let mut walk = Walk::default();
    let general = match walk.run(frame, layer) {
        Walked::Ip => Parsed::Ip(walk.packet()),
        Walked::NotIp(ethertype) => Parsed::NotIp(ethertype),
        Walked::Malformed(reason) => Parsed::Malformed(reason),
    };
    assert_eq!(parsed, general);
    if layer == LinkLayer::Ethernet
        && let Some(packet) = parse_plain(frame)
    {
        assert_eq!(general, Parsed::Ip(packet));
    }
}

fn observe(link: LinkType, frame: &[u8], parsed: Parsed) {
    let mut observer = FrameObserver::default();
    let wire_bytes = frame.len() as u64;
    for time_ms in [1_000, 1_001] {
        let captured = CapturedFrame {
            time_ms: Some(time_ms),
            time_us: Some(time_ms * 1_000),
            wire_bytes,
            link,
            bytes: frame,
        };
        let seen = observer.handle_frame(&captured, time_ms);
        assert_eq!(seen.is_some(), matches!(parsed, Parsed::Ip(_)));
        if let Some(seen) = seen {
            assert_eq!((seen.packets, seen.bytes), (1, wire_bytes));
            assert_eq!((seen.first_ms, seen.last_ms), (time_ms, time_ms));
        }
    }
    let counts = observer.counts();
    let counted = counts.packets_ip + counts.packets_not_ip() + counts.packets_malformed();
    assert_eq!((counts.frames_seen, counted), (2, 2));
}
