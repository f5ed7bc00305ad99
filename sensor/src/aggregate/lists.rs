//! Takes entries with a time at which to look at them again; gives them back when that time has
//! come. A wheel of doubly linked lists through the entries themselves, so that nothing is
//! allocated for a timer.

use super::entry::{Entry, NONE};

/// Milliseconds of one list, as a power of two: 256.
const TICK_SHIFT: u32 = 8;
/// Lists in the wheel; 262 s. A later time is looked at early and put back.
const TICKS: u16 = 1024;
/// The list of entries that something was decided about in this epoch.
pub(super) const CHANGED: u16 = TICKS;

/// Where entries wait, by the time at which to look at them.
#[derive(Debug)]
pub(super) struct Lists {
    heads: Vec<u32>,
    tails: Vec<u32>,
    /// One bit a list of the wheel: not empty.
    filled: [u64; TICKS as usize / 64],
}

impl Lists {
    pub(super) fn new() -> Self {
        let count = usize::from(TICKS) + 1;
        Self {
            heads: vec![NONE; count],
            tails: vec![NONE; count],
            filled: [0; TICKS as usize / 64],
        }
    }

    /// The list for an entry to be looked at at `due_ms`, seen from `now_ms`.
    pub(super) fn list_for(due_ms: u64, now_ms: u64) -> u16 {
        let now_tick = now_ms >> TICK_SHIFT;
        let tick = (due_ms >> TICK_SHIFT).clamp(now_tick, now_tick + u64::from(TICKS) - 1);
        u16::try_from(tick % u64::from(TICKS)).expect("a remainder of 1,024 fits 16 bits")
    }

    /// Puts an entry that is in no list into the one for `due_ms`.
    pub(super) fn wait(&mut self, entries: &mut [Entry], index: u32, due_ms: u64, now_ms: u64) {
        self.append(entries, index, Self::list_for(due_ms, now_ms));
    }

    /// Puts an entry that is in no list at the end of `list`.
    pub(super) fn append(&mut self, entries: &mut [Entry], index: u32, list: u16) {
        let tail = self.tails[usize::from(list)];
        let entry = &mut entries[index as usize];
        entry.list = list;
        entry.next = NONE;
        entry.previous = tail;
        if tail == NONE {
            self.heads[usize::from(list)] = index;
        } else {
            entries[tail as usize].next = index;
        }
        self.tails[usize::from(list)] = index;
        if list < TICKS {
            self.filled[usize::from(list / 64)] |= 1 << (list % 64);
        }
    }

    /// Takes an entry out of its list.
    pub(super) fn remove(&mut self, entries: &mut [Entry], index: u32) {
        let Entry { list, next, previous, .. } = entries[index as usize];
        if previous == NONE {
            self.heads[usize::from(list)] = next;
        } else {
            entries[previous as usize].next = next;
        }
        if next == NONE {
            self.tails[usize::from(list)] = previous;
        } else {
            entries[next as usize].previous = previous;
        }
        if list < TICKS && self.heads[usize::from(list)] == NONE {
            self.filled[usize::from(list / 64)] &= !(1 << (list % 64));
        }
    }

    /// Takes out the first entry of a list.
    pub(super) fn pop(&mut self, entries: &mut [Entry], list: u16) -> Option<u32> {
        let index = self.heads[usize::from(list)];
        (index != NONE).then(|| {
            self.remove(entries, index);
            index
        })
    }

    /// The last entry of a list.
    pub(super) fn last(&self, list: u16) -> Option<u32> {
        Some(self.tails[usize::from(list)]).filter(|index| *index != NONE)
    }

    /// The lists whose time came after `before_ms` and up to `now_ms`, each once, in order of time.
    pub(super) fn due(before_ms: u64, now_ms: u64) -> impl Iterator<Item = u16> {
        let (from, to) = (before_ms >> TICK_SHIFT, now_ms >> TICK_SHIFT);
        let count = (to - from + 1).min(u64::from(TICKS));
        (to + 1 - count..=to).map(|tick| {
            u16::try_from(tick % u64::from(TICKS)).expect("a remainder of 1,024 fits 16 bits")
        })
    }

    /// The entry that waits for the earliest time: the nearest to its end; or else one changed just
    /// now.
    pub(super) fn earliest(&self, now_ms: u64) -> Option<u32> {
        let start = Self::list_for(now_ms, now_ms);
        let words = self.filled.len();
        for step in 0..=words {
            let word = (usize::from(start / 64) + step) % words;
            let mut bits = self.filled[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            }
            if bits != 0 {
                let list = word * 64 + bits.trailing_zeros() as usize;
                return Some(self.heads[list]);
            }
        }
        Some(self.heads[usize::from(CHANGED)]).filter(|index| *index != NONE)
    }

    /// Every list, those of the wheel in order of time from `now_ms`, then the changed entries.
    pub(super) fn all(now_ms: u64) -> impl Iterator<Item = u16> {
        let start = Self::list_for(now_ms, now_ms);
        (0..TICKS).map(move |step| (start + step) % TICKS).chain([CHANGED])
    }
}
