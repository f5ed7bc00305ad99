//! The replay's clock; and that its cache changes nothing.

use std::collections::BTreeMap;

use flow::{Address, FlowKey, Kind, Observation, Outer, TcpSeen, Vlans, protocol};

use super::cache::FlowCache;
use super::{ReplayClock, Tick};

#[test]
fn the_clock_follows_the_capture_and_never_goes_back() {
    let mut clock = ReplayClock::new(250, 15_000);
    let cases = [
        (10_000, Tick::Epoch { now_ms: 10_000 }),
        (10_249, Tick::Same),
        (10_250, Tick::Epoch { now_ms: 10_250 }),
        // A few packets out of order.
        (10_100, Tick::Same),
        (10_260, Tick::Same),
        // A pause: one tick, on the grid.
        (20_990, Tick::Epoch { now_ms: 20_750 }),
        // A small step back of the clock: time goes on from 20,990.
        (15_990, Tick::Same),
        (16_100, Tick::Epoch { now_ms: 21_000 }),
        // Another capture.
        (100, Tick::Separate),
        (340, Tick::Epoch { now_ms: 21_250 }),
        (0, Tick::Same),
        (1_000_000_000_000, Tick::Epoch { now_ms: 1_000_000_021_000 }),
        (5, Tick::Separate),
        (6, Tick::Same),
    ];
    for (step, (time_ms, expected)) in cases.into_iter().enumerate() {
        assert_eq!(clock.handle_time(time_ms), expected, "step {step}, {time_ms}");
    }
}

/// One packet of one of 20,000 flows, most of them rare; far more than the cache holds.
fn packet(number: u64) -> Observation {
    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let flow = if random.is_multiple_of(2) { random % 97 } else { random % 20_011 };
    let port = u16::try_from(flow).unwrap_or(0);
    let length = 40 + random % 1_400;
    let length_min = u16::try_from(length).unwrap_or(0);
    let host = Address::from_v4([10, 0, 0, 1]);
    Observation {
        key: FlowKey::new(host, host, [port, 443], protocol::TCP, Kind::V4, 0),
        outer: Outer::from_vlans(Vlans([u16::from(random.is_multiple_of(3)), 0])),
        packets: 1,
        bytes: length,
        first_ms: random % 250,
        last_ms: random % 250,
        tcp: TcpSeen::from_flags(u8::try_from(random % 64).unwrap_or(0)),
        first_flags: u8::try_from(random % 64).unwrap_or(0),
        dscp: u8::try_from(random % 5).unwrap_or(0),
        fragmented: random.is_multiple_of(1_000),
        interface: u8::try_from(random % 3).unwrap_or(0),
        ttl: u8::try_from(random % 60).unwrap_or(0),
        length_min,
        length_max: length_min,
        ..Observation::default()
    }
}

#[test]
fn the_cache_changes_nothing_but_how_many_observations_there_are() {
    let mut cache = FlowCache::new();
    let mut given: BTreeMap<(FlowKey, Outer), Observation> = BTreeMap::new();
    let mut wanted = given.clone();
    let merge = |all: &mut BTreeMap<_, Observation>, seen: Observation| {
        all.entry((seen.key, seen.outer)).and_modify(|held| held.merge(&seen)).or_insert(seen);
    };
    let mut rest = Vec::new();
    let mut observations = 0;
    for epoch in 0..4_u64 {
        for number in 0..50_000 {
            let seen = packet(epoch * 50_000 + number);
            merge(&mut wanted, seen);
            cache.handle(&seen, &mut rest);
            for no_room in rest.drain(..) {
                observations += 1;
                merge(&mut given, no_room);
            }
        }
        for seen in cache.drain() {
            observations += 1;
            merge(&mut given, seen);
        }
        assert_eq!(given, wanted, "epoch {epoch}");
        assert_eq!(cache.drain().count(), 0);
    }
    assert!(observations < 150_000, "{observations} of 200,000: the cache keeps what comes often");
}
