//! Whatever the frames, their order, their times and the timeouts: what goes in comes out. Packets and bytes that each
//! host sends to each other host are the same in the records as in the frames (through parser, fragments and
//! aggregator) and as in what the kernel's slots give (through the aggregator), with tables that are too small for the
//! flows, with clocks that jump and with frames that are cut.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use flow::{FlowKey, Kind, LinkLayer, Observation, Parsed, Record, parse};
use proptest::prelude::*;
use sensor::{
    Aggregator, AggregatorSettings, CapturedFrame, FlowTable as _, FrameObserver, LinkType, Replay,
};
use tests::frames::layers::{IPV4, IPV6, Ipv4, ethernet, ipv6, tcp, udp};
use tests::frames::samples;

const START_MS: u64 = 1_780_000_000_000;
const EPOCH_MS: u64 = 250;
const TCP: u8 = 6;
const UDP: u8 = 17;
const PORTS: [u16; 3] = [53, 20_000, 40_000];

/// Packets and bytes by sender, receiver and protocol.
type Sums = BTreeMap<(IpAddr, IpAddr, u8), (u64, u64)>;

fn add(sums: &mut Sums, key: (IpAddr, IpAddr, u8), (packets, bytes): (u64, u64)) {
    if packets > 0 {
        let sum = sums.entry(key).or_default();
        *sum = (sum.0 + packets, sum.1 + bytes);
    }
}

fn add_record(sums: &mut Sums, record: &Record) {
    let (here, there) = (record.initiator, record.responder);
    for (from, to, side) in
        [(here, there, record.from_initiator), (there, here, record.from_responder)]
    {
        add(sums, (from, to, record.protocol), (side.packets, side.bytes));
    }
    assert!(record.start_ms <= record.end_ms, "{record:?}");
    assert!(record.from_initiator.packets + record.from_responder.packets > 0, "{record:?}");
}

fn ends(key: &FlowKey) -> (IpAddr, IpAddr, u8) {
    let is_v4 = key.kind().has(Kind::V4);
    (key.source.to_ip(is_v4), key.destination.to_ip(is_v4), key.protocol())
}

/// A frame of few hosts and ports, so that flows meet again, or one of every encapsulation there is.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let plain = (0_u8..3, 0_u8..3, 0_usize..3, 0_usize..3, any::<u8>(), 0_usize..300)
        .prop_flat_map(|(from, to, near, far, flags, payload)| {
            let ports = [PORTS[near], PORTS[far]];
            let payload = vec![0; payload];
            let (v4, v6) = (
                Ipv4::plain([10, 0, 0, from], [10, 0, 0, to]),
                [from, to].map(|host| {
                    let mut address = [0; 16];
                    (address[0], address[15]) = (0xfd, host);
                    address
                }),
            );
            prop::sample::select(vec![
                ethernet(IPV4, &v4.packet(TCP, &tcp(ports, flags, &[], &payload))),
                ethernet(IPV4, &v4.packet(UDP, &udp(ports, &payload))),
                ethernet(IPV6, &ipv6(v6[0], v6[1], TCP, &tcp(ports, flags, &[], &payload))),
                ethernet(IPV6, &ipv6(v6[0], v6[1], UDP, &udp(ports, &payload))),
            ])
        });
    let all: Vec<_> = samples(&mut || vec![0; 40]).into_iter().map(|one| one.frame).collect();
    prop_oneof![3 => plain, 1 => prop::sample::select(all)]
}

/// How much later than the one before a frame is captured; now and then the clock jumps, either way.
fn step_ms() -> impl Strategy<Value = i64> {
    prop_oneof![20 => 0_i64..400, 2 => 400_i64..100_000, 1 => -100_000_i64..100_000_000]
}

/// A frame, its step in time (`None`: the capture does not say when), and how much of it was captured.
type Captured = (Vec<u8>, Option<i64>, Option<usize>);

fn captured() -> impl Strategy<Value = Captured> {
    (frame(), prop::option::weighted(0.95, step_ms()), prop::option::weighted(0.1, 0_usize..120))
}

fn settings() -> impl Strategy<Value = AggregatorSettings> {
    (1_u64..5_000, 1_u64..5_000, 0_u64..2_000, 1_u32..20).prop_map(
        |(active_timeout_ms, idle_timeout_ms, linger_ms, flows_open_max)| AggregatorSettings {
            active_timeout_ms,
            idle_timeout_ms,
            linger_ms,
            flows_open_max,
            ..AggregatorSettings::default()
        },
    )
}

/// What a slot of the kernel's cache held when it was drained: packets like this frame, many of them.
#[derive(Clone, Debug)]
struct Held {
    frame: Vec<u8>,
    packets: u64,
    /// A slot's bytes have 48 bits.
    bytes: u64,
    /// Before the drain.
    first_ms: u64,
    last_ms: u64,
}

fn slot() -> impl Strategy<Value = Held> {
    let packets = prop_oneof![4 => 1_u64..100, 1 => 1..=u64::from(u32::MAX)];
    let bytes = prop_oneof![4 => 40_u64..1_000_000, 1 => 40_u64..1 << 48];
    (frame(), packets, bytes, 0..2 * EPOCH_MS, 0..2 * EPOCH_MS).prop_map(
        |(frame, packets, bytes, a, b)| Held {
            frame,
            packets,
            bytes,
            first_ms: a.max(b),
            last_ms: a.min(b),
        },
    )
}

impl Held {
    /// `None` where the frame is no IP packet.
    fn observation(&self, now_ms: u64) -> Option<Observation> {
        let frame = CapturedFrame {
            time_ms: Some(now_ms),
            // A slot does not hold it.
            time_us: None,
            wire_bytes: self.frame.len() as u64,
            link: LinkType::Ethernet,
            bytes: &self.frame,
        };
        let mut seen = FrameObserver::default().handle_frame(&frame, now_ms)?;
        (seen.packets, seen.bytes) = (self.packets, self.bytes);
        (seen.first_ms, seen.last_ms) = (now_ms - self.first_ms, now_ms - self.last_ms);
        Some(seen)
    }
}

proptest! {
    #[test]
    fn what_frames_hold_is_in_the_records(
        settings in settings(),
        frames in prop::collection::vec(captured(), 1..150),
    ) {
        let mut replay = Replay::new(settings, EPOCH_MS);
        let (mut wanted, mut found) = (Sums::new(), Sums::new());
        let mut time_ms = START_MS;
        for (bytes, step_ms, snap_bytes) in &frames {
            time_ms = time_ms.saturating_add_signed(step_ms.unwrap_or(0));
            let captured = bytes.get(..snap_bytes.unwrap_or(bytes.len())).unwrap_or(bytes);
            let wire_bytes = bytes.len() as u64;
            if let Parsed::Ip(packet) = parse(captured, LinkLayer::Ethernet) {
                add(&mut wanted, ends(&packet.key), (1, wire_bytes));
            }
            let frame = CapturedFrame {
                time_ms: step_ms.map(|_| time_ms),
                time_us: step_ms.map(|_| time_ms * 1_000),
                wire_bytes,
                link: LinkType::Ethernet,
                bytes: captured,
            };
            replay.handle_frame(&frame, &mut |record| add_record(&mut found, &record));
        }
        replay.finish(&mut |record| add_record(&mut found, &record));
        prop_assert_eq!(found, wanted);
        prop_assert_eq!(replay.counts().frames_seen, frames.len() as u64);
    }
    #[test]
    fn what_slots_hold_is_in_the_records(
        settings in settings(),
        epochs in prop::collection::vec((prop::collection::vec(slot(), 0..12), step_ms()), 1..40),
        at_once in 1_usize..20,
    ) {
        let mut aggregator = Aggregator::new(settings);
        let (mut wanted, mut found) = (Sums::new(), Sums::new());
        let mut now_ms = START_MS;
        for (slots, step_ms) in &epochs {
            let seen: Vec<_> = slots.iter().filter_map(|slot| slot.observation(now_ms)).collect();
            for one in &seen {
                add(&mut wanted, ends(&one.key), (one.packets, one.bytes));
            }
            let emit = &mut |record| add_record(&mut found, &record);
            for some in seen.chunks(at_once) {
                aggregator.handle_observations(some, emit);
            }
            // The clock of a live sensor stands still at times, and never goes back.
            now_ms += step_ms.unsigned_abs();
            aggregator.advance(now_ms, emit);
            prop_assert!(aggregator.flows_open() <= settings.flows_open_max as usize);
        }
        aggregator.finish(&mut |record| add_record(&mut found, &record));
        prop_assert_eq!(found, wanted);
        prop_assert_eq!(aggregator.totals().packets_in, aggregator.totals().packets_out);
        prop_assert_eq!(aggregator.flows_open(), 0);
    }
}
