//! Takes a key as one CPU's program numbered its outer identity; gives the key in the one numbering of this process,
//! and the VLAN tags and tunnels that it stands for.

use std::collections::HashMap;

use flow::kernel::{DOMAIN_INTERNED, DOMAIN_UNKNOWN, Domain, OUTERS};
use flow::{FlowKey, Outer};

use super::super::memory::Table;

/// One number for each outer identity beyond a single VLAN tag, whichever CPU saw it.
pub(super) struct Outers {
    numbers: HashMap<Outer, u16>,
    /// By region and place in the kernel's table: the number here, 0 until it is asked for.
    by_place: Vec<u16>,
}

impl Outers {
    pub(super) fn new(regions: u32) -> Self {
        Self { numbers: HashMap::new(), by_place: vec![0; (regions * OUTERS) as usize] }
    }

    /// The key in this process's domain, and what it stands for; `None` when that is not known.
    pub(super) fn number(
        &mut self,
        identities: &Table<Outer>,
        region: u32,
        key: FlowKey,
    ) -> Option<(FlowKey, Outer)> {
        match Domain::from_number(key.domain()) {
            Domain::Plain(outer) => Some((key, outer)),
            Domain::Unknown => None,
            Domain::Interned(place) => {
                let place = (region * OUTERS + place) as usize;
                // A place never changes once it is written, and it was written before the slot.
                let outer = identities.snapshot(place);
                let known = self.by_place.get_mut(place)?;
                if *known == 0 {
                    let next =
                        u16::try_from(self.numbers.len()).ok()?.checked_add(DOMAIN_INTERNED)?;
                    if next == DOMAIN_UNKNOWN {
                        return None;
                    }
                    *known = *self.numbers.entry(outer).or_insert(next);
                }
                Some((key.with_domain(*known), outer))
            }
        }
    }
}
