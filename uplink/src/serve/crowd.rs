//! Takes connections by source address; says which one is too many. Never keeps a sensor out while there is room, and
//! never lets one place take all of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections of one source while at least half of the room is taken: more than the sensors behind one line.
const SOURCE_MAX: usize = 32;

/// Open connections by source: one IPv4 address, or one IPv6 /64, because that is what one site has. Bounded by the
/// number of connections.
#[derive(Debug, Default)]
pub(super) struct Crowd(Mutex<HashMap<IpAddr, usize>>);

/// A place that a connection takes until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    source: IpAddr,
}

impl Crowd {
    /// A place for one more connection; `None` when its source has enough of them.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, is_crowded: bool) -> Option<Place> {
        let source = site(address);
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(source).or_insert(0);
        if is_crowded && *count >= SOURCE_MAX {
            return None;
        }
        *count += 1;
        Some(Place { crowd: Arc::clone(self), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sources = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

fn site(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_cannot_take_all_the_room_and_gets_it_back_as_it_leaves() {
        let crowd = Arc::<Crowd>::default();
        let [loud, same_site, other]: [IpAddr; 3] = ["2001:db8::1", "2001:db8::2", "192.0.2.1"]
            .map(|text| text.parse().expect("an address"));
        let mut places: Vec<Place> =
            (0..SOURCE_MAX + 5).filter_map(|_| crowd.enter(loud, false)).collect();
        assert_eq!(places.len(), SOURCE_MAX + 5, "there is room for all");
        assert!(crowd.enter(same_site, true).is_none());
        assert!(crowd.enter(other, true).is_some());
        places.truncate(SOURCE_MAX - 1);
        assert!(crowd.enter(loud, true).is_some());
        places.clear();
        assert!(crowd.0.lock().expect("not poisoned").is_empty(), "nobody is remembered");
    }
}
