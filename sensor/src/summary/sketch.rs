//! Takes hosts with what they sent and received; gives those with the most bytes, in bounded memory.
//! Exact up to [`HOSTS_MAX`] hosts. Beyond that each figure says by how much it may be too small, and
//! there is a bound on what any host has that is not kept.
//!
//! It is Space-Saving (Metwally, Agrawal, El Abbadi 2005) with the filter of Homem and Carvalho (2010):
//! a host that is not kept adds to one of many cells, by its hash. No host can have had more than its
//! cell has, so that is by how much a host that is let in may be too small, and it is let in when its
//! cell has more than an even share of all bytes. When the table is full, the half of the hosts that
//! can have had the fewest bytes is given up at once, as Anderson et al. (2017) do, and their cells are
//! raised to what they can have had. A host that was there from the start stays exact, and one that
//! comes once costs two look-ups.

use std::hash::BuildHasher as _;

use flow::Address;
use hashbrown::HashTable;

/// Hosts kept: what a table of 8,192 places holds, about half a megabyte.
pub(crate) const HOSTS_MAX: usize = 7_168;
/// Cells for those that are not: several for each that is, so that few of them exceed an even share.
const CELLS: usize = 1 << 15;

/// One host. What it had before it was kept, or kept again, is not in the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Its address; IPv4 in the mapped form.
    pub(crate) address: Address,
    /// Bytes that it sent and received.
    pub(crate) bytes: u64,
    /// By how much `bytes` is too small at most.
    pub(crate) bytes_short_max: u64,
    /// Packets that it sent and received.
    pub(crate) packets: u64,
    /// Records in which it is one of the two sides.
    pub(crate) records: u64,
}

impl Host {
    /// What it can have had at most.
    fn bytes_max(&self) -> u64 {
        self.bytes.saturating_add(self.bytes_short_max)
    }
}

/// The hosts with the most bytes.
pub(crate) struct HostSketch {
    hosts: HashTable<Host>,
    hasher: foldhash::fast::FixedState,
    /// No host that is not kept has had more bytes than its cell; empty while all are kept.
    cells: Vec<u64>,
    /// All bytes, each counted for both of its hosts.
    bytes: u64,
    spare: Vec<Host>,
}

impl Default for HostSketch {
    fn default() -> Self {
        Self {
            hosts: HashTable::with_capacity(HOSTS_MAX),
            // The same captures give the same figures. Who sends addresses that collide makes this
            // slower, never wrong.
            hasher: foldhash::fast::FixedState::default(),
            cells: Vec::new(),
            bytes: 0,
            spare: Vec::new(),
        }
    }
}

impl HostSketch {
    /// Adds to one host.
    pub(crate) fn handle(&mut self, address: Address, bytes: u64, packets: u64) {
        let hash = hash_of(&self.hasher, address);
        self.bytes = self.bytes.saturating_add(bytes);
        if let Some(host) = self.hosts.find_mut(hash, |host| host.address == address) {
            host.bytes += bytes;
            host.packets += packets;
            host.records += 1;
            return;
        }
        let mut bytes_short_max = 0;
        if let Some(cell) = self.cells.get_mut(cell_of(hash)) {
            let bytes_max = cell.saturating_add(bytes);
            if bytes_max.saturating_mul(HOSTS_MAX as u64) <= self.bytes {
                *cell = bytes_max;
                return;
            }
            bytes_short_max = *cell;
        }
        if self.hosts.len() == HOSTS_MAX {
            self.make_room();
            bytes_short_max = self.cells[cell_of(hash)];
        }
        self.insert(hash, Host { address, bytes, bytes_short_max, packets, records: 1 });
    }

    fn insert(&mut self, hash: u64, host: Host) {
        let hasher = &self.hasher;
        self.hosts.insert_unique(hash, host, |other| hash_of(hasher, other.address));
    }

    /// Gives up the half of the hosts that can have had the fewest bytes, and all that are equal to
    /// the last of them.
    fn make_room(&mut self) {
        self.cells.resize(CELLS, 0);
        let mut hosts = std::mem::take(&mut self.spare);
        hosts.extend(self.hosts.drain());
        let middle = hosts.len() / 2;
        let (_, last, _) = hosts.select_nth_unstable_by_key(middle, Host::bytes_max);
        let limit = last.bytes_max();
        for host in hosts.drain(..) {
            let hash = hash_of(&self.hasher, host.address);
            if host.bytes_max() > limit {
                self.insert(hash, host);
            } else {
                let cell = &mut self.cells[cell_of(hash)];
                *cell = host.bytes_max().max(*cell);
            }
        }
        self.spare = hosts;
    }

    /// The `count` with the most bytes, the most first.
    pub(crate) fn top(&self, count: usize) -> Vec<Host> {
        let mut hosts: Vec<Host> = self.hosts.iter().copied().collect();
        hosts.sort_unstable_by_key(|host| {
            (std::cmp::Reverse((host.bytes, host.packets)), host.address.octets())
        });
        hosts.truncate(count);
        hosts
    }

    /// What a host that is not kept can have had at most; 0 while all are kept.
    pub(crate) fn bytes_elsewhere_max(&self) -> u64 {
        self.cells.iter().copied().max().unwrap_or(0)
    }
}

/// Where a host adds to that is not kept. The table uses the bits at both ends of a hash.
fn cell_of(hash: u64) -> usize {
    usize::try_from(hash >> 24 & (CELLS as u64 - 1)).expect("there are few cells")
}

fn hash_of(hasher: &foldhash::fast::FixedState, address: Address) -> u64 {
    hasher.hash_one((address.high, address.low))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn address(number: u32) -> Address {
        Address::from_v4(number.to_be_bytes())
    }

    #[test]
    fn small_hosts_only_are_bounded_by_an_even_share() {
        let mut sketch = HostSketch::default();
        let flood: u32 = 1_000_000;
        for host in 0..flood {
            sketch.handle(address(host), 60, 1);
        }
        let even_share = u64::from(flood) * 60 / HOSTS_MAX as u64;
        assert!((60..=even_share).contains(&sketch.bytes_elsewhere_max()), "{even_share}");
    }

    #[test]
    fn up_to_its_size_it_is_exact() {
        let mut sketch = HostSketch::default();
        let hosts = u32::try_from(HOSTS_MAX).expect("a small number");
        for round in 1..=3 {
            for host in 0..hosts {
                sketch.handle(address(host), u64::from(host) * round, round);
            }
        }
        let top = sketch.top(2);
        let expected = |host: u32| Host {
            address: address(host),
            bytes: u64::from(host) * 6,
            bytes_short_max: 0,
            packets: 6,
            records: 3,
        };
        assert_eq!(top, [expected(hosts - 1), expected(hosts - 2)]);
        assert_eq!((sketch.top(usize::MAX).len(), sketch.bytes_elsewhere_max()), (HOSTS_MAX, 0));
    }

    #[test]
    fn beyond_it_the_large_ones_stay_exact_and_the_rest_is_bounded() {
        let mut sketch = HostSketch::default();
        let flood: u32 = 200_000;
        for host in 0..flood {
            sketch.handle(address(host % 5), 1_000_000, 1_000);
            sketch.handle(address(1_000_000 + host), 60, 1);
        }
        let top = sketch.top(6);
        for (host, place) in top[..5].iter().zip(0..) {
            assert_eq!(host.address, address(place));
            assert_eq!((host.bytes, host.bytes_short_max), (40_000_000_000, 0));
        }
        assert!(top[5].bytes_max() >= 60 && sketch.top(usize::MAX).len() <= HOSTS_MAX);
        // About 6 of the small ones share a cell, far from an even share of all bytes.
        assert!((60..=60 * 30).contains(&sketch.bytes_elsewhere_max()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn bounds_hold_for_any_stream(seed in any::<u64>(), hosts in 1_u32..40_000, skew in 1_u32..4) {
            let mut sketch = HostSketch::default();
            let mut truth: BTreeMap<[u8; 16], u64> = BTreeMap::new();
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                u32::try_from(state >> 33).unwrap_or(0)
            };
            for _ in 0..60_000 {
                let mut host = next() % hosts;
                for _ in 1..skew {
                    host = host.min(next() % hosts);
                }
                let bytes = u64::from(next() % 1_500);
                sketch.handle(address(host), bytes, 1);
                *truth.entry(address(host).octets()).or_default() += bytes;
            }
            let mut kept = sketch.top(usize::MAX);
            prop_assert!(kept.len() <= HOSTS_MAX);
            kept.retain(|host| {
                let bytes = truth.remove(&host.address.octets()).unwrap_or(0);
                !(host.bytes..=host.bytes_max()).contains(&bytes)
            });
            prop_assert_eq!(kept, Vec::new(), "each is within its bounds");
            let largest = truth.values().max().copied().unwrap_or(0);
            prop_assert!(largest <= sketch.bytes_elsewhere_max());
        }
    }
}
