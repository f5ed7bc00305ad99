//! What must hold for any traffic: nothing is lost, and order within an epoch does not show.

use flow::{
    Address, FlowKey, Kind, Observation, OpeningTime, Outer, Record, TcpSeen, Vlans, protocol,
};
use proptest::prelude::*;

use super::{Aggregator, AggregatorSettings, ApartBy, FlowTable as _};

const START_MS: u64 = 1_780_000_000_000;
const EPOCH_MS: u64 = 250;

/// A few hosts and ports, so that flows meet again.
fn observation() -> impl Strategy<Value = Observation> {
    (
        (0_u8..3, 0_u8..3, 0_u16..3, 0_u16..3),
        prop::sample::select(vec![protocol::TCP, protocol::TCP, protocol::UDP]),
        0_u8..64,
        (any::<bool>(), any::<bool>()),
        (1_u64..5, 40_u64..1_500, 0..EPOCH_MS, 0..EPOCH_MS),
        (1_u8..5, 0_u16..2, 0_u8..64, any::<bool>(), 0_u8..3, any::<bool>()),
    )
        .prop_map(|(ends, number, flags, (syn, syn_ack), (packets, length, at, to), more)| {
            let (a, b, port_a, port_b) = ends;
            let (ttl, vlan, first, fragmented, interface, timed) = more;
            let key = FlowKey::new(
                Address::from_v4([10, 0, 0, a]),
                Address::from_v4([10, 0, 0, b]),
                [port_a * 20_000, port_b * 20_000],
                number,
                Kind::V4,
                0,
            );
            let is_tcp = number == protocol::TCP;
            let length_min = u16::try_from(length).unwrap_or(u16::MAX);
            let tcp = TcpSeen {
                flags,
                syn: syn && flags & 2 != 0,
                syn_ack: syn_ack && flags & 0x12 == 0x12,
            };
            let tcp = if is_tcp { tcp } else { TcpSeen::default() };
            let at_us = u32::try_from(at * 1_000).unwrap_or(0);
            let opening = match (timed, packets) {
                (true, 1) if tcp.syn || tcp.syn_ack => OpeningTime::At(at_us),
                (false, _) if tcp.syn_ack => OpeningTime::After(at_us),
                _ => OpeningTime::Unknown,
            };
            Observation {
                key,
                outer: Outer::from_vlans(Vlans([vlan, 0])),
                packets,
                bytes: packets * length,
                first_ms: at.min(to),
                last_ms: at.max(to),
                tcp,
                opening,
                first_flags: if is_tcp { first & flags } else { 0 },
                ttl,
                dscp: first,
                fragmented,
                interface,
                length_min,
                length_max: length_min,
            }
        })
}

fn epochs() -> impl Strategy<Value = Vec<Vec<Observation>>> {
    prop::collection::vec(prop::collection::vec(observation(), 0..12), 1..30)
}

fn settings() -> impl Strategy<Value = AggregatorSettings> {
    (1_u64..5_000, 1_u64..5_000, 0_u64..2_000, 1_u32..20).prop_map(
        |(active_timeout_ms, idle_timeout_ms, linger_ms, flows_open_max)| AggregatorSettings {
            active_timeout_ms,
            idle_timeout_ms,
            linger_ms,
            flows_open_max,
            apart_by: ApartBy::Conversation,
        },
    )
}

/// Runs epochs whose observations count their times from the epoch's start.
fn run(settings: AggregatorSettings, epochs: &[Vec<Observation>]) -> Vec<Record> {
    run_as(settings, epochs, false)
}

fn run_as(settings: AggregatorSettings, epochs: &[Vec<Observation>], batched: bool) -> Vec<Record> {
    let mut records = Vec::new();
    let mut emit = |record| records.push(record);
    let mut aggregator = Aggregator::new(settings);
    let mut now_ms = START_MS;
    aggregator.advance(now_ms, &mut emit);
    for epoch in epochs {
        let mut seen = epoch.clone();
        for seen in &mut seen {
            seen.first_ms += now_ms;
            seen.last_ms += now_ms;
            if let OpeningTime::At(time_us) = seen.opening {
                #[expect(clippy::cast_possible_truncation, reason = "times wrap")]
                let now_us = (now_ms * 1_000) as u32;
                seen.opening = OpeningTime::At(time_us.wrapping_add(now_us));
            }
        }
        if batched {
            aggregator.handle_observations(&seen, &mut emit);
        } else {
            for seen in &seen {
                aggregator.handle_observation(seen, &mut emit);
            }
        }
        now_ms += EPOCH_MS;
        aggregator.advance(now_ms, &mut emit);
        assert!(aggregator.flows_open() <= settings.flows_open_max as usize);
    }
    aggregator.finish(&mut emit);
    let totals = aggregator.totals();
    assert_eq!(totals.packets_in, totals.packets_out);
    assert_eq!(totals.records_out, records.len() as u64);
    assert_eq!(aggregator.flows_open(), 0);
    records
}

fn sums(records: &[Record]) -> (u64, u64) {
    records.iter().fold((0, 0), |(packets, bytes), record| {
        let (a, b) = (record.from_initiator, record.from_responder);
        (packets + a.packets + b.packets, bytes + a.bytes + b.bytes)
    })
}

proptest! {
    #[test]
    fn packets_and_bytes_are_conserved(settings in settings(), epochs in epochs()) {
        let records = run(settings, &epochs);
        let wanted = epochs.iter().flatten().fold((0, 0), |(packets, bytes), seen| {
            (packets + seen.packets, bytes + seen.bytes)
        });
        prop_assert_eq!(sums(&records), wanted);
        for record in &records {
            prop_assert!(record.start_ms <= record.end_ms);
            prop_assert!(record.from_initiator.packets + record.from_responder.packets > 0);
        }
    }

    #[test]
    fn order_within_an_epoch_does_not_show(
        settings in settings(),
        epochs in epochs(),
        seed in any::<u64>(),
    ) {
        // With room for all: which flow a full table gives up depends on which came first.
        let settings = AggregatorSettings { flows_open_max: 10_000, ..settings };
        let mut shuffled = epochs.clone();
        let mut state = seed;
        for epoch in &mut shuffled {
            for at in (1..epoch.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let other = usize::try_from(state >> 33).unwrap_or(0) % (at + 1);
                epoch.swap(at, other);
            }
        }
        let sorted = |mut records: Vec<Record>| {
            records.sort_unstable();
            records
        };
        prop_assert_eq!(sorted(run(settings, &epochs)), sorted(run(settings, &shuffled)));
    }

    #[test]
    fn the_same_input_gives_the_same_output(settings in settings(), epochs in epochs()) {
        prop_assert_eq!(run(settings, &epochs), run(settings, &epochs));
    }

    #[test]
    fn many_at_once_are_as_one_by_one(settings in settings(), epochs in epochs()) {
        prop_assert_eq!(run_as(settings, &epochs, true), run_as(settings, &epochs, false));
    }

    /// A slot of many packets means the same as the packets themselves.
    #[test]
    fn packets_and_their_slot_agree(epochs in epochs()) {
        let settings = AggregatorSettings::default();
        let single: Vec<Vec<Observation>> = epochs
            .iter()
            .map(|epoch| {
                let split = |seen: &Observation| {
                    let each = Observation { packets: 1, bytes: seen.bytes / seen.packets, ..*seen };
                    std::iter::repeat_n(each, usize::try_from(seen.packets).unwrap_or(0))
                };
                epoch.iter().flat_map(split).collect()
            })
            .collect();
        prop_assert_eq!(run(settings, &epochs), run(settings, &single));
    }
}
