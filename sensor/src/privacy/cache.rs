//! Takes addresses with their pseudonyms; gives the pseudonym of one that was asked for of late. Bounded: two
//! generations, of which the older one is forgotten when the younger one is full.

use std::net::IpAddr;

use hashbrown::HashMap;

/// Addresses of one generation, about 40 bytes each: with both some 5 MiB when all are in use.
const GENERATION_MAX: usize = 32_768;

/// Pseudonyms of one key.
#[derive(Default)]
pub(super) struct Cache {
    young: HashMap<IpAddr, IpAddr, foldhash::fast::RandomState>,
    old: HashMap<IpAddr, IpAddr, foldhash::fast::RandomState>,
}

impl Cache {
    pub(super) fn get(&mut self, address: IpAddr) -> Option<IpAddr> {
        if let Some(pseudonym) = self.young.get(&address) {
            return Some(*pseudonym);
        }
        let pseudonym = *self.old.get(&address)?;
        self.insert(address, pseudonym);
        Some(pseudonym)
    }

    pub(super) fn insert(&mut self, address: IpAddr, pseudonym: IpAddr) {
        if self.young.len() == GENERATION_MAX {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(address, pseudonym);
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let address =
            |number: usize| IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).expect("small")));
        let mut cache = Cache::default();
        cache.insert(address(0), address(9));
        for number in 1..GENERATION_MAX * 4 {
            assert_eq!(cache.get(address(0)), Some(address(9)));
            cache.insert(address(number), address(number));
        }
        assert_eq!(cache.get(address(1)), None);
        assert!(cache.young.len() <= GENERATION_MAX && cache.old.len() <= GENERATION_MAX);
        cache.clear();
        assert_eq!(cache.get(address(0)), None);
    }
}
