//! Takes a key as one CPU's program numbered its VLAN stack; gives the key in the one numbering of this process, and
//! the tags that it stands for.

use std::collections::HashMap;

use flow::kernel::{DOMAIN_UNKNOWN, Domain, STACKS};
use flow::{FlowKey, Vlans};

use super::super::memory::Table;

/// First domain that user space gives to a stack of two tags; smaller ones are single tags.
const STACK_DOMAINS: u16 = 4096;

/// One number for each VLAN stack of two tags, whichever CPU saw it.
pub(super) struct Stacks {
    numbers: HashMap<u64, u16>,
    /// By region and place in the kernel's table: the number here, 0 until it is asked for.
    by_place: Vec<u16>,
}

impl Stacks {
    pub(super) fn new(regions: u32) -> Self {
        Self { numbers: HashMap::new(), by_place: vec![0; (regions * STACKS) as usize] }
    }

    /// The key in this process's domain, and the tags it stands for; `None` when they are not known.
    pub(super) fn number(
        &mut self,
        words: &Table<u64>,
        region: u32,
        key: FlowKey,
    ) -> Option<(FlowKey, Vlans)> {
        match Domain::from_number(key.domain()) {
            Domain::Vlans(vlans) => Some((key, vlans)),
            Domain::Unknown => None,
            Domain::Stack(place) => {
                let place = (region * STACKS + place) as usize;
                // A place never changes once it is written, and it was written before the slot.
                let word = words.snapshot(place);
                let known = self.by_place.get_mut(place)?;
                if *known == 0 {
                    let next =
                        u16::try_from(self.numbers.len()).ok()?.checked_add(STACK_DOMAINS)?;
                    if next == DOMAIN_UNKNOWN {
                        return None;
                    }
                    *known = *self.numbers.entry(word).or_insert(next);
                }
                Some((key.with_domain(*known), Domain::stack_from_word(word)))
            }
        }
    }
}
