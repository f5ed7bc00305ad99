//! What must hold for any traffic: nothing is lost, everything is exact as long as the bound is not
//! reached, and the bound holds.

use std::collections::BTreeMap;

use flow::{EndReason, Handshake, RoleEvidence, protocol, tcp_flag};
use proptest::prelude::*;

use super::super::samples::{START_MS, all, at, by_port, id, seen, tracked};
use super::*;

const ACK: u8 = tcp_flag::ACK;
const SYN: u8 = tcp_flag::SYN;
const FIN: u8 = tcp_flag::FIN;

fn tracker() -> Tracker {
    Tracker::new(100, ApartBy::Conversation)
}

#[test]
fn a_flow_that_goes_on_is_there_at_once_with_roles_rates_and_totals() {
    let tracked = tracked();
    assert_eq!(tracked.clock, at(31_000));
    let web = by_port(&tracked, 51_000);
    assert_eq!(web.record.responder_port, 443);
    assert_eq!(
        (web.record.handshake, web.record.role),
        (Handshake::Established, RoleEvidence::Handshake)
    );
    assert_eq!(web.record.from_initiator.packets, 3_001);
    assert_eq!(web.record.from_responder.bytes, 74 + 30 * 600_000);
    assert_eq!(web.record.end_reason, EndReason::ActiveTimeout, "it goes on");
    assert_eq!(web.rates[0].packets, 100);
    assert_eq!(web.rates[1].bytes, 600_000);
    assert!(web.is_whole);
    let refused = by_port(&tracked, 44_000);
    assert_eq!(refused.record.handshake, Handshake::Syn);
    assert_eq!(refused.rates, [Amount::default(); 2], "it has been silent");
}

#[test]
fn a_new_connection_on_the_same_ports_is_a_flow_of_its_own() {
    let mut tracker = tracker();
    let (client, server) = ("10.0.0.1:1025", "10.0.0.2:80");
    let there = |flags, ms| seen(client, server, protocol::TCP, flags, (5, 500), (ms, ms));
    let back = |flags, ms| seen(server, client, protocol::TCP, flags, (5, 500), (ms, ms));
    // Within an epoch the order says nothing: the first connection may have been seen end first.
    tracker.handle_observations(&[back(ACK | FIN, 9), there(ACK | FIN, 9), there(SYN, 0)]);
    assert_eq!(tracker.snapshot().flows.len(), 1);
    tracker.advance(START_MS + 250);
    tracker.handle_observations(&[there(ACK, 260)]);
    assert_eq!(tracker.snapshot().gone.flows_replaced, 0, "a late packet opens nothing");
    tracker.handle_observations(&[there(SYN, 300)]);
    let now = tracker.snapshot();
    assert_eq!(now.flows.len(), 1);
    assert_eq!(now.flows[0].record.from_initiator.packets, 5);
    assert_eq!(now.gone.flows_replaced, 1);
    assert_eq!(all(&now), Amount::new(25, 2_500));
}

#[test]
fn the_large_and_the_busy_stay_when_many_come() {
    let mut tracker = tracker();
    let large = seen("10.0.0.1:1", "10.0.0.2:443", protocol::UDP, 0, (1_000, 1_000_000), (0, 0));
    tracker.handle_observations(&[large]);
    // Long after the large one, a flood of small ones, and one that is busier than they are.
    for second in 20..40_u64 {
        tracker.advance(START_MS + second * 1_000);
        let busy = seen("10.0.0.3:3", "10.0.0.2:443", protocol::UDP, 0, (2, 2_000), (0, 0));
        tracker.handle_observations(&[busy]);
        for port in 0..100_u64 {
            let from = format!("10.9.{second}.{port}:7");
            let small = seen(&from, "10.0.0.2:443", protocol::UDP, 0, (1, 60), (0, 0));
            tracker.handle_observations(&[small]);
        }
    }
    let now = tracker.snapshot();
    assert!(now.flows.len() < 200);
    assert!(now.gone.flows_evicted > 1_800, "{}", now.gone.flows_evicted);
    assert_eq!(by_port(&now, 1).record.from_initiator.bytes, 1_000_000);
    assert_eq!(by_port(&now, 3).record.from_initiator.packets, 40);
    assert!(by_port(&now, 3).is_whole);
    assert!(!by_port(&now, 7).is_whole, "it may have been there before");
    assert_eq!(all(&now), Amount::new(1_000 + 40 + 2_000, 1_000_000 + 40_000 + 120_000));
    // Whom they were all sent to is known all the same.
    let (_, target) =
        *now.gone.hosts.iter().find(|(host, _)| host.to_string() == "10.0.0.2").expect("a host");
    assert_eq!(target.flows, now.gone.flows_evicted);
}

#[test]
fn hosts_and_services_have_bounds_of_their_own() {
    let mut tracker = Tracker::new(2, ApartBy::Conversation);
    let total = 4 * SERVICES_MAX as u64 + 10;
    for number in 0..total {
        let from = format!("10.{}.{}.1:9", number / 200, number % 200);
        let to = format!("192.0.2.1:{}", number + 1);
        tracker.handle_observations(&[seen(&from, &to, protocol::UDP, 0, (1, 60), (0, 0))]);
    }
    let now = tracker.snapshot();
    assert!(now.flows.len() < 4 && now.gone.services.len() <= 2 * SERVICES_MAX);
    assert!(now.gone.services_evicted > 0);
    assert_eq!(all(&now).packets, total, "by protocol nothing is ever left out");
}

/// A few ends and flags, so that flows meet again and close.
fn observation() -> impl Strategy<Value = Observation> {
    let ends = (0_u8..12, 0_u8..4, 0_u16..6, 0_u16..3);
    let flags = prop::sample::select(vec![0, SYN, SYN | ACK, ACK, ACK | FIN, tcp_flag::RST]);
    let numbers = prop::sample::select(vec![protocol::TCP, protocol::UDP]);
    (ends, numbers, flags, 1_u64..5, 40_u64..1_500, 0_u64..250).prop_map(
        |((a, b, port_a, port_b), number, flags, packets, length, ms)| {
            let (from, to) =
                (format!("10.0.0.{a}:{}", port_a + 1), format!("10.0.1.{b}:{}", port_b + 1));
            seen(&from, &to, number, flags, (packets, packets * length), (ms, ms))
        },
    )
}

fn epochs() -> impl Strategy<Value = Vec<Vec<Observation>>> {
    prop::collection::vec(prop::collection::vec(observation(), 0..40), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_under_any_bound(epochs in epochs(), flows_max in 2_usize..40) {
        let mut tracker = Tracker::new(flows_max, ApartBy::Conversation);
        let mut came = Amount::default();
        for (epoch, observations) in (1..).zip(&epochs) {
            tracker.handle_observations(observations);
            tracker.advance(START_MS + epoch * 250);
            for one in observations {
                came += Amount::new(one.packets, one.bytes);
            }
            let now = tracker.snapshot();
            prop_assert_eq!(all(&now), came);
            prop_assert!(now.flows.len() < 2 * flows_max);
            let gone = &now.gone;
            let left: u64 = gone.protocols.iter().map(|(_, sums)| sums.flows).sum();
            prop_assert_eq!(left, gone.flows_evicted + gone.flows_replaced);
        }
    }

    #[test]
    fn below_the_bound_every_flow_is_exact(epochs in epochs()) {
        let mut tracker = Tracker::new(1_000, ApartBy::Conversation);
        let mut expected: BTreeMap<FlowId, Amount> = BTreeMap::new();
        for (epoch, observations) in (1..).zip(&epochs) {
            // A new connection on the same ports is told from the old one elsewhere; here each pair
            // counts once.
            let observations: Vec<Observation> = observations
                .iter()
                .map(|one| Observation { tcp: flow::TcpSeen::from_flags(ACK), ..*one })
                .collect();
            for one in &observations {
                *expected.entry(id(one).0).or_default() += Amount::new(one.packets, one.bytes);
            }
            tracker.handle_observations(&observations);
            tracker.advance(START_MS + epoch * 250);
        }
        let now = tracker.snapshot();
        let held: BTreeMap<FlowId, Amount> = now
            .flows
            .iter()
            .map(|flow| {
                let sums = Sums::of(flow, false);
                (flow.id, sums.totals[0] + sums.totals[1])
            })
            .collect();
        prop_assert_eq!(held, expected);
        prop_assert!(now.flows.iter().all(|flow| flow.is_whole));
    }

    #[test]
    fn order_within_an_epoch_does_not_show(epochs in epochs()) {
        let run = |backwards: bool| {
            let mut tracker = Tracker::new(1_000, ApartBy::Conversation);
            for (epoch, observations) in (1..).zip(&epochs) {
                // What a new connection on the same ports brings is decided by what comes first.
                let mut observations: Vec<Observation> = observations
                    .iter()
                    .map(|one| Observation { tcp: flow::TcpSeen::from_flags(ACK), ..*one })
                    .collect();
                if backwards {
                    observations.reverse();
                }
                tracker.advance(START_MS + epoch * 250);
                tracker.handle_observations(&observations);
            }
            let flows = tracker.snapshot().flows;
            let mut flows: Vec<(FlowId, [Amount; 2])> =
                flows.iter().map(|flow| (flow.id, Sums::of(flow, false).totals)).collect();
            flows.sort_unstable();
            flows
        };
        prop_assert_eq!(run(false), run(true));
    }
}
