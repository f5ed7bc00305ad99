//! Takes observations of one packet each; adds up those of the same direction of the same flow, and gives
//! on what finds no room, and at the end of an epoch everything. What the kernel's cache is on a live port:
//! small enough for the processor's own caches, so that most packets never reach the table of flows, which
//! is not. Loses nothing, and keeps nothing across epochs.

use flow::{FlowKey, Observation, OpeningTime, Outer};

/// A power of two. With two slots each, half a mebibyte: half of what a processor's second-level cache
/// usually holds.
const SETS: usize = 2_048;
const WAYS: usize = 2;
/// Where all slots of a set hold other flows, one new flow in this many takes the place of one of them, as
/// in the kernel's cache: a flood of flows of one packet each leaves most of it to the flows that last.
const ADMITTED_IN: usize = 4;

/// A cache of flows.
pub(super) struct FlowCache {
    /// Without packets where nothing is.
    slots: Box<[[Observation; WAYS]]>,
    /// Slots in use.
    used: Vec<u32>,
    /// New flows that met a full set.
    crowded: usize,
}

/// Odd, and without a pattern. The same at each start, so that the same capture gives its records in the
/// same order; whoever chooses addresses that collide has them take the way round the cache, no more.
const FACTORS: [u64; 7] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
    0x8ebc_6af0_9c88_c6e3,
];

impl FlowCache {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![[Observation::default(); WAYS]; SETS].into_boxed_slice(),
            used: Vec::with_capacity(SETS * WAYS),
            crowded: 0,
        }
    }

    /// Counts a packet; adds to `rest` what has to go on in its place, if anything: the packet itself, or a
    /// flow that it put out.
    #[inline]
    pub(super) fn handle(&mut self, seen: &Observation, rest: &mut Vec<Observation>) {
        // Its time would be lost among those of others.
        if seen.opening != OpeningTime::Unknown {
            rest.push(*seen);
            return;
        }
        let set = set_of(&seen.key, &seen.outer);
        for slot in &mut self.slots[set] {
            if slot.key == seen.key && slot.outer == seen.outer && slot.packets != 0 {
                slot.merge(seen);
                return;
            }
        }
        self.make_room(set, seen, rest);
    }

    fn make_room(&mut self, set: usize, seen: &Observation, rest: &mut Vec<Observation>) {
        let slots = &mut self.slots[set];
        if let Some(way) = slots.iter().position(|slot| slot.packets == 0) {
            slots[way] = *seen;
            let at = u32::try_from(set * WAYS + way).expect("there are 4,096 slots");
            self.used.push(at);
            return;
        }
        self.crowded = self.crowded.wrapping_add(1);
        if self.crowded.is_multiple_of(ADMITTED_IN) {
            let victim = self.crowded / ADMITTED_IN % WAYS;
            rest.push(slots[victim]);
            slots[victim] = *seen;
        } else {
            rest.push(*seen);
        }
    }

    /// Gives out everything.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Observation> {
        self.used.drain(..).map(|at| {
            let slot = &mut self.slots[at as usize / WAYS][at as usize % WAYS];
            std::mem::replace(slot, Observation { packets: 0, ..*slot })
        })
    }
}

/// The highest bits of the sum of all words, each times its factor: cheap, and for a cache as good as
/// any.
#[inline]
fn set_of(key: &FlowKey, outer: &Outer) -> usize {
    let FlowKey { source, destination, tail } = key;
    let words = [source.high, source.low, destination.high, destination.low, *tail];
    let mut sum = words
        .iter()
        .zip(&FACTORS)
        .fold(0_u64, |sum, (word, factor)| sum.wrapping_add(word.wrapping_mul(*factor)));
    if !outer.is_plain() {
        sum = sum
            .wrapping_add(outer.layers.wrapping_mul(FACTORS[5]))
            .wrapping_add(outer.ids.wrapping_mul(FACTORS[6]));
    }
    #[expect(clippy::cast_possible_truncation, reason = "eleven bits fit")]
    let set = (sum >> (u64::BITS - SETS.ilog2())) as usize;
    set
}
