//! A table of places against the standard library's map, with hashes that collide far more than real
//! ones.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{NONE, Places};

/// Few values, near each other and at both ends: whole buckets overflow, also past the last one.
fn hash() -> impl Strategy<Value = u32> {
    prop_oneof![1_u32..4, (u32::MAX - 3)..=u32::MAX, any::<u32>().prop_map(|hash| hash.max(1))]
}

proptest! {
    #[test]
    fn what_was_inserted_is_found_until_it_is_removed(
        steps in prop::collection::vec((hash(), any::<bool>(), any::<prop::sample::Index>()), 1..600),
    ) {
        let mut places = Places::new();
        let mut held: BTreeMap<u32, u32> = BTreeMap::new();
        for (place, (hash, adds, index)) in (0..).zip(steps) {
            if adds || held.is_empty() {
                places.insert(hash, place);
                held.insert(place, hash);
            } else {
                let keys: Vec<u32> = held.keys().copied().collect();
                let removed = *index.get(&keys);
                let hash = held.remove(&removed).expect("it was among the keys");
                places.remove(hash, removed);
                prop_assert_eq!(places.find(hash, |other| other == removed), NONE);
            }
            prop_assert_eq!(places.len(), held.len());
            for (place, hash) in &held {
                prop_assert_eq!(places.find(*hash, |other| other == *place), *place);
            }
        }
        places.clear();
        for (place, hash) in held {
            prop_assert_eq!(places.find(hash, |other| other == place), NONE);
        }
    }
}

#[test]
fn a_growing_table_keeps_everything() {
    let mut places = Places::new();
    let hash = |place: u32| place.wrapping_mul(0x9e37_79b9).max(1);
    for place in 0..100_000 {
        places.insert(hash(place), place);
    }
    assert_eq!(places.len(), 100_000);
    for place in 0..100_000 {
        assert_eq!(places.find(hash(place), |other| other == place), place);
        let likely = places.likely(hash(place));
        assert!(likely == place || likely == NONE, "{likely} for {place}");
    }
}
