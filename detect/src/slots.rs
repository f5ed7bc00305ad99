//! The latest slots of time, each with what was counted in it. Aligned to the clock, so that the
//! order of records within a slot cannot matter.

/// Length of a slot, seconds. Rates are means over one slot.
pub(crate) const SLOT_S: u64 = 10;

/// Slots kept. A connection is told when it ends or after a minute (active timeout), so what
/// belongs to a slot can come a minute and more later.
const SLOTS: usize = 10;

/// At most ten slots, oldest first.
#[derive(Debug)]
pub(crate) struct Slots<S> {
    slots: Vec<(u64, S)>,
}

impl<S> Slots<S> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new() }
    }

    /// The number of the slot that holds this second.
    pub(crate) const fn index(at_s: u64) -> u64 {
        at_s / SLOT_S
    }

    /// The oldest slot that could still be told apart beside this one.
    pub(crate) const fn oldest_beside(index: u64) -> u64 {
        index.saturating_sub(SLOTS as u64 - 1)
    }

    /// The slot with this number, made when it is new; `None` when it is older than all that are
    /// kept.
    pub(crate) fn at(&mut self, index: u64, make: impl FnOnce() -> S) -> Option<&mut S> {
        let place = match self.slots.binary_search_by_key(&index, |&(known, _)| known) {
            Ok(place) => place,
            Err(0) if self.slots.len() >= SLOTS => return None,
            Err(mut place) => {
                if self.slots.len() >= SLOTS {
                    self.slots.remove(0);
                    place -= 1;
                }
                self.slots.insert(place, (index, make()));
                place
            }
        };
        self.slots.get_mut(place).map(|(_, slot)| slot)
    }

    /// Numbers and contents, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &S)> {
        self.slots.iter().map(|(index, slot)| (*index, slot))
    }

    /// Numbers and contents, oldest first.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut S)> {
        self.slots.iter_mut().map(|(index, slot)| (*index, slot))
    }

    pub(crate) fn clear(&mut self) {
        self.slots.clear();
    }
}
