//! Takes what is tracked, a filter and an order; gives the rows of a list: flows, or sums over
//! flows by host, service or protocol. Pure.

use std::cmp::{Ordering, Reverse};
use std::hash::Hash;
use std::net::IpAddr;

use hashbrown::HashMap;

use super::filter::Filter;
use super::tracker::{FlowId, ServiceId, Sums, Tracked, service_of};

/// Who has had no packet for so long is idle.
pub(crate) const IDLE_MS: u64 = 10_000;

/// What is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Tab {
    /// Flows with their ends.
    #[default]
    Flows,
    /// What each address sent and received.
    Hosts,
    /// By protocol and port of who answers.
    Services,
    /// By IP protocol.
    Protocols,
    /// What was missed, folded, malformed; how full the tables are.
    Losses,
    /// What the sensor has said.
    Messages,
}

impl Tab {
    pub(crate) const ALL: [Self; 6] =
        [Self::Flows, Self::Hosts, Self::Services, Self::Protocols, Self::Losses, Self::Messages];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Flows => "Flows",
            Self::Hosts => "Hosts",
            Self::Services => "Services",
            Self::Protocols => "Protocols",
            Self::Losses => "Losses",
            Self::Messages => "Messages",
        }
    }

    /// The orders that its list can have; none where there is no list.
    pub(crate) const fn orders(self) -> &'static [Order] {
        match self {
            Self::Flows => {
                &[Order::Rate, Order::Bytes, Order::Packets, Order::Newest, Order::Latest]
            }
            Self::Hosts | Self::Services | Self::Protocols => {
                &[Order::Rate, Order::Bytes, Order::Packets, Order::Flows, Order::Latest]
            }
            Self::Losses | Self::Messages => &[],
        }
    }
}

/// What comes first in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Most bits a second of late.
    Rate,
    Bytes,
    Packets,
    Flows,
    /// Began last.
    Newest,
    /// Had the latest packet.
    Latest,
}

impl Order {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::Flows => "flows",
            Self::Newest => "newest",
            Self::Latest => "latest packet",
        }
    }
}

/// What a row is about; it stays the same while its numbers change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum RowId {
    Flow(FlowId),
    Host(IpAddr),
    Service(ServiceId),
    Protocol(u8),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) id: RowId,
    pub(crate) sums: Sums,
    /// Which of the tracked flows it is.
    pub(crate) flow: Option<usize>,
    started_ms: u64,
}

impl Row {
    fn rank(&self, order: Order) -> u64 {
        let [there, back] = self.sums.totals;
        let [rate_there, rate_back] = self.sums.rates;
        match order {
            Order::Rate => rate_there.bytes.saturating_add(rate_back.bytes),
            Order::Bytes => there.bytes + back.bytes,
            Order::Packets => there.packets + back.packets,
            Order::Flows => self.sums.flows,
            Order::Newest => self.started_ms,
            Order::Latest => self.sums.last_ms,
        }
    }

    fn compare(&self, other: &Self, order: Order) -> Ordering {
        let key = |row: &Self| (row.rank(order), row.rank(Order::Bytes), Reverse(row.id));
        key(other).cmp(&key(self))
    }
}

/// What is wanted of a list.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) tab: Tab,
    pub(crate) filter: &'a Filter,
    pub(crate) hides_idle: bool,
    pub(crate) order: Order,
    pub(crate) is_reversed: bool,
}

/// The rows, in order.
pub(crate) fn rows(tracked: &Tracked, wish: Wish<'_>) -> Vec<Row> {
    let meant = tracked.flows.iter().filter(|flow| wish.filter.fits(&flow.record));
    // What is no longer held cannot be asked whether it fits.
    let has_gone = wish.filter.is_empty();
    let gone = &tracked.gone;
    let mut rows = match wish.tab {
        Tab::Flows => {
            let numbered = tracked.flows.iter().enumerate();
            numbered
                .filter(|(_, flow)| wish.filter.fits(&flow.record))
                .map(|(place, flow)| Row {
                    id: RowId::Flow(flow.id),
                    sums: Sums::of(flow, false),
                    flow: Some(place),
                    started_ms: flow.record.start_ms,
                })
                .collect()
        }
        Tab::Hosts => {
            let ends = meant.flat_map(|flow| {
                let [there, back] = [flow.record.initiator, flow.record.responder];
                let to_itself = there == back;
                let first = (there, Sums::of(flow, false));
                [Some(first), (!to_itself).then(|| (back, Sums::of(flow, true)))]
            });
            grouped(ends.flatten(), has_gone.then_some(&gone.hosts), RowId::Host)
        }
        Tab::Services => {
            let used = meant.map(|flow| (service_of(&flow.record), Sums::of(flow, false)));
            grouped(used, has_gone.then_some(&gone.services), RowId::Service)
        }
        Tab::Protocols => {
            let used = meant.map(|flow| (flow.record.protocol, Sums::of(flow, false)));
            grouped(used, has_gone.then_some(&gone.protocols), RowId::Protocol)
        }
        Tab::Losses | Tab::Messages => Vec::new(),
    };
    if wish.hides_idle {
        let now_ms = tracked.clock.now_ms;
        rows.retain(|row| now_ms.saturating_sub(row.sums.last_ms) <= IDLE_MS);
    }
    rows.sort_unstable_by(|a, b| a.compare(b, wish.order));
    if wish.is_reversed {
        rows.reverse();
    }
    rows
}

/// One row for each key.
fn grouped<K: Copy + Eq + Hash>(
    flows: impl Iterator<Item = (K, Sums)>,
    gone: Option<&Vec<(K, Sums)>>,
    id: impl Fn(K) -> RowId,
) -> Vec<Row> {
    let mut groups: HashMap<K, Sums, foldhash::fast::RandomState> = HashMap::default();
    let gone = gone.into_iter().flatten().copied();
    for (key, sums) in flows.chain(gone) {
        groups.entry(key).or_default().merge(&sums);
    }
    let row = |(key, sums)| Row { id: id(key), sums, flow: None, started_ms: 0 };
    groups.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples::tracked;
    use super::*;

    fn list(tab: Tab, filter: &str, order: Order) -> Vec<Row> {
        let filter = Filter::new(filter);
        let wish = Wish { tab, filter: &filter, hides_idle: false, order, is_reversed: false };
        rows(&tracked(), wish)
    }

    #[test]
    fn every_list_has_all_packets() {
        let all: u64 = list(Tab::Flows, "", Order::Rate)
            .iter()
            .map(|row| row.sums.totals[0].packets + row.sums.totals[1].packets)
            .sum();
        for (tab, times) in [(Tab::Hosts, 2), (Tab::Services, 1), (Tab::Protocols, 1)] {
            let packets: u64 = list(tab, "", Order::Rate)
                .iter()
                .map(|row| row.sums.totals[0].packets + row.sums.totals[1].packets)
                .sum();
            assert_eq!(packets, times * all, "{tab:?}");
        }
    }

    #[test]
    fn orders_and_filters_apply() {
        for order in Tab::Flows.orders() {
            let rows = list(Tab::Flows, "", *order);
            let ranks: Vec<u64> = rows.iter().map(|row| row.rank(*order)).collect();
            assert!(ranks.is_sorted_by(|a, b| a >= b), "{order:?}: {ranks:?}");
        }
        let https = list(Tab::Hosts, "443", Order::Bytes);
        assert!(!https.is_empty() && https.len() < list(Tab::Hosts, "", Order::Bytes).len());
    }

    #[test]
    fn the_silent_are_left_out_when_that_is_wanted() {
        let tracked = tracked();
        let filter = Filter::default();
        let wish = |hides_idle| Wish {
            tab: Tab::Flows,
            filter: &filter,
            hides_idle,
            order: Order::Latest,
            is_reversed: true,
        };
        let (all, busy) = (rows(&tracked, wish(false)), rows(&tracked, wish(true)));
        assert!(busy.len() < all.len() && !busy.is_empty());
        let silent = |row: &Row| tracked.clock.now_ms - row.sums.last_ms;
        assert!(busy.iter().all(|row| silent(row) <= IDLE_MS));
        assert!(silent(&all[0]) > IDLE_MS, "reversed: the longest silent comes first");
    }
}
