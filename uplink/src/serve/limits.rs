//! Takes wrong codes by source address; says who must wait. Pure: time comes in as an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Wrong codes are forgotten after this long.
const WINDOW_MS: u64 = 10 * 60 * 1000;
/// Addresses remembered. When there are more, the one whose window ends first is forgotten.
const SOURCES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Tries {
    wrong: u32,
    until_ms: u64,
}

/// Wrong codes by source: one IPv4 address, or one IPv6 /64, because that is what one site has.
#[derive(Debug)]
pub(super) struct WrongCodes {
    wrong_max: u32,
    sources: Mutex<HashMap<IpAddr, Tries>>,
}

impl WrongCodes {
    pub(super) fn new(wrong_max: u32) -> Self {
        Self { wrong_max, sources: Mutex::new(HashMap::new()) }
    }

    /// Milliseconds that this source must wait; `None` when it may try.
    pub(super) fn wait_ms(&self, source: IpAddr, now_ms: u64) -> Option<u64> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let tries = sources.get(&site(source))?;
        (tries.wrong >= self.wrong_max && now_ms < tries.until_ms).then(|| tries.until_ms - now_ms)
    }

    /// Notes a wrong code.
    pub(super) fn handle_wrong(&self, source: IpAddr, now_ms: u64) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let source = site(source);
        if sources.len() >= SOURCES_MAX && !sources.contains_key(&source) {
            // Ties between windows are broken by the address, so that the order of the map does not matter.
            let first = sources.iter().min_by_key(|(address, tries)| (tries.until_ms, **address));
            if let Some(address) = first.map(|(address, _)| *address) {
                sources.remove(&address);
            }
        }
        let tries = sources.entry(source).or_insert(Tries { wrong: 0, until_ms: 0 });
        if now_ms >= tries.until_ms {
            *tries = Tries { wrong: 0, until_ms: now_ms + WINDOW_MS };
        }
        tries.wrong = tries.wrong.saturating_add(1);
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
        let limit = WrongCodes::new(3);
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
    fn the_table_of_sources_is_bounded() {
        let limit = WrongCodes::new(1);
        for number in 0..2 * SOURCES_MAX {
            let number = u32::try_from(number).expect("small");
            limit.handle_wrong(IpAddr::V4(number.into()), u64::from(number));
        }
        assert_eq!(limit.sources.lock().expect("not poisoned").len(), SOURCES_MAX);
        assert_eq!(limit.wait_ms(IpAddr::V4(0.into()), 9000), None);
    }
}
