//! Takes wrong codes by source address; says who must wait, or that all must. Pure: time comes in as an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Wrong codes are forgotten after this long.
const WINDOW_MS: u64 = 10 * 60 * 1000;
/// Addresses remembered. When there are more, the one whose window ends first is forgotten.
const SOURCES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    wrong: u32,
    until_ms: u64,
}

/// Wrong codes by source: one IPv4 address, or one IPv6 /64, because that is what one site has.
#[derive(Debug)]
pub(super) struct WrongCodes {
    wrong_max: u32,
    total_max: u32,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    sources: HashMap<IpAddr, Tries>,
    /// Of all sources, also of those that were forgotten.
    total: Tries,
}

impl Tries {
    fn wait_ms(self, wrong_max: u32, now_ms: u64) -> Option<u64> {
        (self.wrong >= wrong_max && now_ms < self.until_ms).then(|| self.until_ms - now_ms)
    }

    fn handle_wrong(&mut self, now_ms: u64) {
        if now_ms >= self.until_ms {
            *self = Self { wrong: 0, until_ms: now_ms + WINDOW_MS };
        }
        self.wrong = self.wrong.saturating_add(1);
    }
}

impl WrongCodes {
    pub(super) fn new(wrong_max: u32, total_max: u32) -> Self {
        Self { wrong_max, total_max, seen: Mutex::default() }
    }

    /// Milliseconds that this source must wait; `None` when it may try.
    pub(super) fn wait_ms(&self, source: IpAddr, now_ms: u64) -> Option<u64> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let own = seen.sources.get(&site(source));
        let own_ms = own.and_then(|tries| tries.wait_ms(self.wrong_max, now_ms));
        own_ms.max(seen.total.wait_ms(self.total_max, now_ms))
    }

    /// Notes a wrong code. A source that has to wait is not asked for one, so it cannot make others wait alone.
    pub(super) fn handle_wrong(&self, source: IpAddr, now_ms: u64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { sources, total } = &mut *seen;
        total.handle_wrong(now_ms);
        let source = site(source);
        if sources.len() >= SOURCES_MAX && !sources.contains_key(&source) {
            // Ties between windows are broken by the address, so that the order of the map does not matter.
            let first = sources.iter().min_by_key(|(address, tries)| (tries.until_ms, **address));
            if let Some(address) = first.map(|(address, _)| *address) {
                sources.remove(&address);
            }
        }
        sources.entry(source).or_default().handle_wrong(now_ms);
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
    fn a_source_waits_after_too_many_wrong_codes_and_others_do_not() {
        let limit = WrongCodes::new(3, 1000);
        let [a, same_site, b]: [IpAddr; 3] = ["2001:db8::1", "2001:db8::2", "192.0.2.1"]
            .map(|text| text.parse().expect("an address"));
        for now_ms in 0..3 {
            assert_eq!(limit.wait_ms(a, now_ms), None);
            limit.handle_wrong(a, now_ms);
        }
        assert_eq!(limit.wait_ms(a, 10), Some(WINDOW_MS - 10));
        assert_eq!(limit.wait_ms(same_site, 10), Some(WINDOW_MS - 10));
        assert_eq!(limit.wait_ms(b, 10), None);
        assert_eq!(limit.wait_ms(a, WINDOW_MS), None);
        limit.handle_wrong(a, WINDOW_MS);
        assert_eq!(limit.wait_ms(a, WINDOW_MS), None);
    }

    #[test]
    fn many_sources_together_have_to_wait_too() {
        let limit = WrongCodes::new(5, 100);
        let source = |number: u32| IpAddr::V4(number.into());
        for number in 0..100 {
            assert_eq!(limit.wait_ms(source(number), 0), None);
            limit.handle_wrong(source(number), 0);
        }
        assert_eq!(limit.wait_ms(source(1000), 1), Some(WINDOW_MS - 1));
        assert_eq!(limit.wait_ms(source(1000), WINDOW_MS), None);
    }

    #[test]
    fn the_table_of_sources_is_bounded() {
        let limit = WrongCodes::new(1, u32::MAX);
        for number in 0..2 * SOURCES_MAX {
            let number = u32::try_from(number).expect("small");
            limit.handle_wrong(IpAddr::V4(number.into()), u64::from(number));
        }
        assert_eq!(limit.seen.lock().expect("not poisoned").sources.len(), SOURCES_MAX);
        assert_eq!(limit.wait_ms(IpAddr::V4(0.into()), 9000), None);
    }
}
