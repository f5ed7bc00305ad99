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

    fn handle_try(&mut self, now_ms: u64) {
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

    /// Takes one try of a source, which counts as wrong until it turns out to be right: many at the same time are as
    /// many tries. Gives the milliseconds that the source must wait, when it may not try; then nothing counts, so
    /// that a source that has to wait cannot make the others wait.
    pub(super) fn handle_try(&self, source: IpAddr, now_ms: u64) -> Result<(), u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { sources, total } = &mut *seen;
        let source = site(source);
        let own_ms = sources.get(&source).and_then(|tries| tries.wait_ms(self.wrong_max, now_ms));
        if let Some(wait_ms) = own_ms.max(total.wait_ms(self.total_max, now_ms)) {
            return Err(wait_ms);
        }
        total.handle_try(now_ms);
        if sources.len() >= SOURCES_MAX && !sources.contains_key(&source) {
            // Ties between windows are broken by the address, so that the order of the map does not matter.
            let first = sources.iter().min_by_key(|(address, tries)| (tries.until_ms, **address));
            if let Some(address) = first.map(|(address, _)| *address) {
                sources.remove(&address);
            }
        }
        sources.entry(source).or_default().handle_try(now_ms);
        Ok(())
    }

    /// The try was not with a wrong code.
    pub(super) fn handle_right(&self, source: IpAddr) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { sources, total } = &mut *seen;
        total.wrong = total.wrong.saturating_sub(1);
        if let Some(own) = sources.get_mut(&site(source)) {
            own.wrong = own.wrong.saturating_sub(1);
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
    fn a_source_waits_after_too_many_wrong_codes_and_others_do_not() {
        let limit = WrongCodes::new(3, 1000);
        let [a, same_site, b]: [IpAddr; 3] = ["2001:db8::1", "2001:db8::2", "192.0.2.1"]
            .map(|text| text.parse().expect("an address"));
        for now_ms in 0..3 {
            assert_eq!(limit.handle_try(a, now_ms), Ok(()));
        }
        assert_eq!(limit.handle_try(a, 10), Err(WINDOW_MS - 10));
        assert_eq!(limit.handle_try(same_site, 10), Err(WINDOW_MS - 10));
        assert_eq!(limit.handle_try(b, 10), Ok(()));
        assert_eq!(limit.handle_try(a, WINDOW_MS), Ok(()));
        // Of many at the same time, no more than that are tried; right ones do not count.
        assert_eq!(limit.handle_try(a, WINDOW_MS), Ok(()));
        assert_eq!(limit.handle_try(a, WINDOW_MS), Ok(()));
        assert_eq!(limit.handle_try(a, WINDOW_MS), Err(WINDOW_MS));
        limit.handle_right(a);
        assert_eq!(limit.handle_try(a, WINDOW_MS), Ok(()));
    }

    #[test]
    fn many_sources_together_have_to_wait_too() {
        let limit = WrongCodes::new(5, 100);
        let source = |number: u32| IpAddr::V4(number.into());
        for number in 0..100 {
            assert_eq!(limit.handle_try(source(number), 0), Ok(()));
        }
        assert_eq!(limit.handle_try(source(1000), 1), Err(WINDOW_MS - 1));
        assert_eq!(limit.handle_try(source(1000), WINDOW_MS), Ok(()));
    }

    #[test]
    fn the_table_of_sources_is_bounded() {
        let limit = WrongCodes::new(1, u32::MAX);
        for number in 0..2 * SOURCES_MAX {
            let number = u32::try_from(number).expect("small");
            assert_eq!(limit.handle_try(IpAddr::V4(number.into()), u64::from(number)), Ok(()));
        }
        assert_eq!(limit.seen.lock().expect("not poisoned").sources.len(), SOURCES_MAX);
        assert_eq!(limit.handle_try(IpAddr::V4(0.into()), 9000), Ok(()));
    }
}
