//! Takes the observations of each epoch, the same that the aggregator gets; gives the flows that
//! are there now, open ones included, with totals and rates. Pure: never reads a clock, never does
//! I/O.
//!
//! Bounded: up to [`FLOWS_MAX`] flows nothing is left out. When twice as many are held, half of
//! them go: those stay that are largest, and those that were busiest of late. What went is counted,
//! and stays in the sums by host, service and protocol, which have bounds of their own. No packet
//! is lost on the way: what is held and what went add up to what came.

use std::hash::Hash;
use std::net::IpAddr;

use flow::{FlowKey, Observation, Outer, Record, protocol};
use hashbrown::HashMap;

use super::rate::{Amount, Clock, Recent};
use crate::aggregate::{ApartBy, Watched};

/// Flows that are held whatever comes; about 500 bytes each.
pub(crate) const FLOWS_MAX: usize = 10_000;
/// Hosts, of flows that are no longer held, that have sums of their own.
const HOSTS_MAX: usize = 10_000;
/// The same of services.
const SERVICES_MAX: usize = 2_000;

/// What tells a flow from others: the canonical key in domain 0, and what it was carried in.
pub(crate) type FlowId = (FlowKey, Outer);
/// Protocol, and the responder's port; for ICMP the message's type; `None` where there is none.
pub(crate) type ServiceId = (u8, Option<u16>);

/// A flow as it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) id: FlowId,
    /// As the aggregator would report it now: its totals since it is held.
    pub(crate) record: Record,
    /// A second of late: what the initiator sends, and the responder.
    pub(crate) rates: [Amount; 2],
    /// Nothing of it can have been put out before: the totals are exact.
    pub(crate) is_whole: bool,
}

/// Sums over flows: of a host what it sent and what it received, else what initiators and what
/// responders sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) flows: u64,
    pub(crate) totals: [Amount; 2],
    pub(crate) rates: [Amount; 2],
    /// Time of the latest packet.
    pub(crate) last_ms: u64,
}

impl Sums {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.flows += other.flows;
        for side in [0, 1] {
            self.totals[side] += other.totals[side];
            self.rates[side] += other.rates[side];
        }
        self.last_ms = self.last_ms.max(other.last_ms);
    }

    /// Of one flow; from the responder's side where `swapped`.
    pub(crate) fn of(flow: &Flow, swapped: bool) -> Self {
        let Record { from_initiator: there, from_responder: back, end_ms, .. } = flow.record;
        let mut sums = Self {
            flows: 1,
            totals: [
                Amount::new(there.packets, there.bytes),
                Amount::new(back.packets, back.bytes),
            ],
            rates: flow.rates,
            last_ms: end_ms,
        };
        if swapped {
            sums.totals.swap(0, 1);
            sums.rates.swap(0, 1);
        }
        sums
    }
}

/// What was held once and no longer is: replaced by a new connection on the same ports, or put out
/// by others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gone {
    /// Flows that had ended and whose ports a new one uses.
    pub(crate) flows_replaced: u64,
    /// Flows that were put out.
    pub(crate) flows_evicted: u64,
    /// All of them, by protocol: each is in exactly one.
    pub(crate) protocols: Vec<(u8, Sums)>,
    /// By host; each flow is in two, unless one of them was put out.
    pub(crate) hosts: Vec<(IpAddr, Sums)>,
    /// By service.
    pub(crate) services: Vec<(ServiceId, Sums)>,
    /// Hosts that were put out, too.
    pub(crate) hosts_evicted: u64,
    /// Services that were put out, too.
    pub(crate) services_evicted: u64,
}

/// Everything that is known at a moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracked {
    pub(crate) clock: Clock,
    /// In no order.
    pub(crate) flows: Vec<Flow>,
    pub(crate) gone: Gone,
}

/// A flow that is held.
struct Held {
    watched: Watched,
    /// What it did of late, by the direction of the key.
    recent: [Recent; 2],
    total_bytes: u64,
    last_ms: u64,
    is_whole: bool,
    /// Epoch in which it ended.
    ended: Option<u64>,
}

/// Sums of flows that are no longer held.
#[derive(Clone, Copy, Default)]
struct Left {
    flows: u64,
    totals: [Amount; 2],
    recent: [Recent; 2],
    last_ms: u64,
}

/// What decides whether a row stays.
trait Ranked {
    fn total_bytes(&self) -> u64;
    fn recent(&self) -> &[Recent; 2];
    fn last_ms(&self) -> u64;
}

impl Ranked for Held {
    fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    fn recent(&self) -> &[Recent; 2] {
        &self.recent
    }

    fn last_ms(&self) -> u64 {
        self.last_ms
    }
}

impl Ranked for Left {
    fn total_bytes(&self) -> u64 {
        self.totals[0].bytes + self.totals[1].bytes
    }

    fn recent(&self) -> &[Recent; 2] {
        &self.recent
    }

    fn last_ms(&self) -> u64 {
        self.last_ms
    }
}

type Rows<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The flows that are held, and the sums of those that are not.
pub(crate) struct Tracker {
    flows_max: usize,
    apart_by: ApartBy,
    clock: Option<Clock>,
    epoch: u64,
    flows: Rows<FlowId, Held>,
    flows_replaced: u64,
    flows_evicted: u64,
    hosts: Rows<IpAddr, Left>,
    hosts_evicted: u64,
    services: Rows<ServiceId, Left>,
    services_evicted: u64,
    protocols: Rows<u8, Left>,
}

impl Tracker {
    /// Holds nothing yet; up to twice `flows_max` flows.
    pub(crate) fn new(flows_max: usize, apart_by: ApartBy) -> Self {
        Self {
            flows_max: flows_max.max(2),
            apart_by,
            clock: None,
            epoch: 0,
            flows: Rows::default(),
            flows_replaced: 0,
            flows_evicted: 0,
            hosts: Rows::default(),
            hosts_evicted: 0,
            services: Rows::default(),
            services_evicted: 0,
            protocols: Rows::default(),
        }
    }

    /// Counts what an epoch gave, or a part of it.
    pub(crate) fn handle_observations(&mut self, seen: &[Observation]) {
        for seen in seen {
            self.handle_observation(seen);
        }
    }

    fn handle_observation(&mut self, seen: &Observation) {
        let start = Clock { start_ms: seen.first_ms, now_ms: seen.first_ms };
        let clock = *self.clock.get_or_insert(start);
        let (key, reversed) = seen.key.with_domain(0).canonical();
        let id = (key, self.apart_by.of(seen.outer));
        let opens = seen.tcp.syn || seen.tcp.syn_ack;
        let epoch = self.epoch;
        if let Some(held) = self.flows.get_mut(&id) {
            if !(opens && held.ended.is_some_and(|ended| ended < epoch)) {
                held.handle(clock, epoch, seen, reversed);
                return;
            }
            if let Some(ended) = self.flows.remove(&id) {
                self.flows_replaced += 1;
                self.leave(clock, id, &ended);
            }
        }
        // What has been put out may come again: only who opens a connection here is surely new.
        let is_whole = self.flows_evicted == 0 || opens;
        let mut held = Held::new(id, is_whole);
        held.handle(clock, epoch, seen, reversed);
        self.flows.insert(id, held);
        if self.flows.len() >= 2 * self.flows_max {
            self.evict(clock);
        }
    }

    /// Ends an epoch. Time does not go back; an earlier one counts as none passed.
    pub(crate) fn advance(&mut self, now_ms: u64) {
        let clock = self.clock.get_or_insert(Clock { start_ms: now_ms, now_ms });
        clock.now_ms = clock.now_ms.max(now_ms);
        self.epoch += 1;
    }

    /// The time of the last epoch's end.
    pub(crate) fn clock(&self) -> Clock {
        self.clock.unwrap_or_default()
    }

    /// Everything that is known now.
    pub(crate) fn snapshot(&self) -> Tracked {
        let clock = self.clock();
        let flows = self.flows.iter().map(|(id, held)| held.flow(clock, *id)).collect();
        Tracked {
            clock,
            flows,
            gone: Gone {
                flows_replaced: self.flows_replaced,
                flows_evicted: self.flows_evicted,
                protocols: sums(&self.protocols, clock),
                hosts: sums(&self.hosts, clock),
                services: sums(&self.services, clock),
                hosts_evicted: self.hosts_evicted,
                services_evicted: self.services_evicted,
            },
        }
    }

    fn evict(&mut self, clock: Clock) {
        for id in least(&self.flows, self.flows_max, clock) {
            if let Some(held) = self.flows.remove(&id) {
                self.flows_evicted += 1;
                self.leave(clock, id, &held);
            }
        }
        for address in least(&self.hosts, HOSTS_MAX, clock) {
            self.hosts.remove(&address);
            self.hosts_evicted += 1;
        }
        for service in least(&self.services, SERVICES_MAX, clock) {
            self.services.remove(&service);
            self.services_evicted += 1;
        }
    }

    /// Adds a flow that is no longer held to the sums.
    fn leave(&mut self, clock: Clock, id: FlowId, held: &Held) {
        let flow = held.flow(clock, id);
        let Record { initiator, responder, .. } = flow.record;
        let recent = held.by_role(&flow.record, id);
        let left = Left {
            flows: 1,
            totals: Sums::of(&flow, false).totals,
            recent,
            last_ms: flow.record.end_ms,
        };
        let swapped = Left {
            totals: [left.totals[1], left.totals[0]],
            recent: [left.recent[1], left.recent[0]],
            ..left
        };
        self.hosts.entry(initiator).or_default().merge(clock, &left);
        if responder != initiator {
            self.hosts.entry(responder).or_default().merge(clock, &swapped);
        }
        self.services.entry(service_of(&flow.record)).or_default().merge(clock, &left);
        self.protocols.entry(flow.record.protocol).or_default().merge(clock, &left);
    }
}

impl Held {
    fn new(id: FlowId, is_whole: bool) -> Self {
        Self {
            watched: Watched::new(id.0, id.1),
            recent: [Recent::default(); 2],
            total_bytes: 0,
            last_ms: 0,
            is_whole,
            ended: None,
        }
    }

    fn handle(&mut self, clock: Clock, epoch: u64, seen: &Observation, reversed: bool) {
        self.watched.handle(seen, reversed);
        let amount = Amount::new(seen.packets, seen.bytes);
        self.recent[usize::from(reversed)].add(clock, amount);
        self.total_bytes += seen.bytes;
        self.last_ms = self.last_ms.max(seen.last_ms);
        if self.ended.is_none() && self.watched.has_ended() {
            self.ended = Some(epoch);
        }
    }

    fn flow(&self, clock: Clock, id: FlowId) -> Flow {
        let record = self.watched.record();
        let rates = self.by_role(&record, id).map(|recent| recent.per_second(clock));
        Flow { id, record, rates, is_whole: self.is_whole }
    }

    /// What the initiator did of late, and the responder.
    fn by_role(&self, record: &Record, id: FlowId) -> [Recent; 2] {
        let [a, b] = self.recent;
        let source = id.0.source.to_ip(id.0.kind().has(flow::Kind::V4));
        let is_initiator =
            record.initiator == source && record.initiator_port == id.0.source_port();
        if is_initiator { [a, b] } else { [b, a] }
    }
}

impl Left {
    fn merge(&mut self, clock: Clock, other: &Self) {
        self.flows += other.flows;
        for side in [0, 1] {
            self.totals[side] += other.totals[side];
            self.recent[side].merge(clock, &other.recent[side]);
        }
        self.last_ms = self.last_ms.max(other.last_ms);
    }
}

/// The service that a flow used.
pub(crate) fn service_of(record: &Record) -> ServiceId {
    const UDP_LITE: u8 = 136;
    const DCCP: u8 = 33;
    let port = match record.protocol {
        _ if !record.ports_known => None,
        protocol::TCP | protocol::UDP | protocol::SCTP | UDP_LITE | DCCP => {
            Some(record.responder_port)
        }
        // The port of whoever asks is the type of the message.
        protocol::ICMP | protocol::ICMP6 => Some(record.initiator_port),
        _ => None,
    };
    (record.protocol, port)
}

fn sums<K: Copy>(rows: &Rows<K, Left>, clock: Clock) -> Vec<(K, Sums)> {
    let sum = |left: &Left| Sums {
        flows: left.flows,
        totals: left.totals,
        rates: left.recent.map(|recent| recent.per_second(clock)),
        last_ms: left.last_ms,
    };
    rows.iter().map(|(key, left)| (*key, sum(left))).collect()
}

/// The rows that have to go so that `stay` are left, once there are twice as many: half of those
/// that stay are the largest, the others the busiest of late.
fn least<K: Copy + Ord + Hash, V: Ranked>(rows: &Rows<K, V>, stay: usize, clock: Clock) -> Vec<K> {
    if rows.len() < 2 * stay {
        return Vec::new();
    }
    let mut ranks: Vec<(u64, (u64, u64), K)> = rows
        .iter()
        .map(|(key, row)| {
            let recent: u64 = row.recent().iter().map(|recent| recent.remembered(clock)).sum();
            (row.total_bytes(), (recent, row.last_ms()), *key)
        })
        .collect();
    let large = stay / 2;
    ranks.select_nth_unstable_by(large, |a, b| (b.0, b.2).cmp(&(a.0, a.2)));
    let others = ranks.split_off(large);
    let mut others: Vec<_> = others.into_iter().map(|(_, rank, key)| (rank, key)).collect();
    others.select_nth_unstable_by(stay - large, |a, b| b.cmp(a));
    others.split_off(stay - large).into_iter().map(|(_, key)| key).collect()
}

#[cfg(test)]
mod tests;
