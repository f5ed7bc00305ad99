//! Different items of the last while, each with its times and totals: the evidence of a rule that
//! is not met yet.

use flow::Record;

use crate::finding::Totals;

/// The different items that were seen in the last `window_s` seconds, at most `items_max` of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    items: Vec<Sighting>,
}

#[derive(Clone, Copy, Debug)]
struct Sighting {
    item: u32,
    last_s: u32,
    first_ms: u64,
    totals: Totals,
}

impl Recent {
    /// Adds an item with the record that shows it. Beyond `items_max` the item seen longest ago is
    /// forgotten.
    pub(crate) fn insert(&mut self, item: u32, record: &Record, items_max: usize) {
        let last_s = second(record.start_ms);
        if let Some(known) = self.items.iter_mut().find(|known| known.item == item) {
            known.last_s = known.last_s.max(last_s);
            known.first_ms = known.first_ms.min(record.start_ms);
            known.totals.add(record);
            return;
        }
        if self.items.len() >= items_max {
            let oldest = (0..self.items.len()).min_by_key(|&at| self.items[at].last_s);
            if let Some(at) = oldest {
                self.items.swap_remove(at);
            }
        }
        let mut totals = Totals::default();
        totals.add(record);
        self.items.push(Sighting { item, last_s, first_ms: record.start_ms, totals });
    }

    /// Forgets what is more than `window_s` older than the newest item, and gives how many are
    /// left.
    pub(crate) fn prune(&mut self, window_s: u64) -> usize {
        let newest = self.items.iter().map(|known| known.last_s).max().unwrap_or(0);
        let window = u32::try_from(window_s).unwrap_or(u32::MAX);
        self.items.retain(|known| newest - known.last_s <= window);
        self.items.len()
    }

    /// When the oldest item was first seen.
    pub(crate) fn first_ms(&self) -> Option<u64> {
        self.items.iter().map(|known| known.first_ms).min()
    }

    pub(crate) const fn len(&self) -> usize {
        self.items.len()
    }

    /// What the records of all items add up to.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.items.iter().for_each(|known| totals.absorb(&known.totals));
        totals
    }

    pub(crate) fn items(&self) -> impl Iterator<Item = u32> {
        self.items.iter().map(|known| known.item)
    }

    pub(crate) fn clear(&mut self) {
        self.items = Vec::new();
    }
}

/// Seconds since the epoch in 32 bits: enough until the year 2106, the last second afterwards.
fn second(at_ms: u64) -> u32 {
    u32::try_from(at_ms / 1000).unwrap_or(u32::MAX)
}
