//! Takes ranges of addresses; says in which of them an address lies, or a whole block of addresses. Ranges within
//! others are merged into these. Never knows what they are for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Prefix;

/// An address as 128 bits from the left, whatever its version; an IPv4 address in the form of IPv6 is an IPv4 address
/// here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bits {
    /// The address, from the left; zeros behind `width`.
    pub(super) value: u128,
    /// 32 or 128.
    pub(super) width: u8,
    /// It was an IPv4 address in the form of IPv6.
    mapped: bool,
}

impl Bits {
    pub(super) fn of(address: IpAddr) -> Self {
        let v4 = |v4: Ipv4Addr| u128::from(v4.to_bits()) << 96;
        match address {
            IpAddr::V4(address) => Self { value: v4(address), width: 32, mapped: false },
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(address) => Self { value: v4(address), width: 32, mapped: true },
                None => Self { value: address.to_bits(), width: 128, mapped: false },
            },
        }
    }

    /// The same with other bits.
    pub(super) const fn with(self, value: u128) -> Self {
        Self { value, ..self }
    }

    pub(super) fn address(self) -> IpAddr {
        if self.width == 128 {
            return IpAddr::V6(Ipv6Addr::from_bits(self.value));
        }
        let v4 = Ipv4Addr::from_bits(u32::try_from(self.value >> 96).unwrap_or(u32::MAX));
        if self.mapped { IpAddr::V6(v4.to_ipv6_mapped()) } else { IpAddr::V4(v4) }
    }

    const fn is_v4(self) -> bool {
        self.width == 32
    }
}

/// The first `length` of 128 bits.
pub(super) const fn mask(length: u8) -> u128 {
    match length {
        0 => 0,
        1..=127 => !(u128::MAX >> length),
        _ => u128::MAX,
    }
}

#[derive(Clone, Copy, Debug)]
struct Range {
    first: u128,
    last: u128,
    length: u8,
}

impl Range {
    fn of(range: IpNet) -> (bool, Self) {
        let network = Bits::of(range.network());
        let length = range.prefix_len();
        (
            network.is_v4(),
            Self { first: network.value, last: network.value | !mask(length), length },
        )
    }
}

/// Ranges of addresses that do not overlap.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    v4: Vec<Range>,
    v6: Vec<Range>,
}

impl Ranges {
    pub(super) fn new(prefixes: &[Prefix]) -> Self {
        let mut ranges = Self::default();
        for prefix in prefixes {
            let (is_v4, range) = Range::of(prefix.get());
            if is_v4 { ranges.v4.push(range) } else { ranges.v6.push(range) }
        }
        for list in [&mut ranges.v4, &mut ranges.v6] {
            // What holds others comes before them.
            list.sort_unstable_by_key(|range| (range.first, range.length));
            list.dedup_by(|inner, outer| inner.last <= outer.last);
        }
        ranges
    }

    pub(super) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// The length of the range that holds all addresses that begin with the first `length` bits of this one.
    pub(super) fn length_around(&self, address: Bits, length: u8) -> Option<u8> {
        let list = if address.is_v4() { &self.v4 } else { &self.v6 };
        let after = list.partition_point(|range| range.first <= address.value);
        let range = list.get(after.checked_sub(1)?)?;
        (address.value <= range.last && range.length <= length).then_some(range.length)
    }

    /// The length of the range that holds an address.
    pub(super) fn length_at(&self, address: Bits) -> Option<u8> {
        self.length_around(address, address.width)
    }

    pub(super) fn holds(&self, address: Bits) -> bool {
        self.length_at(address).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Ranges {
        let read = |text: &&str| text.parse().expect("a valid range");
        Ranges::new(&texts.iter().map(read).collect::<Vec<Prefix>>())
    }

    fn bits(text: &str) -> Bits {
        Bits::of(text.parse().expect("a valid address"))
    }

    #[test]
    fn overlapping_ranges_become_the_outermost_ones_and_neighbours_stay_apart() {
        let ranges = ranges(&[
            "192.0.2.128/25",
            "10.1.0.0/16",
            "10.0.0.0/8",
            "192.0.2.0/25",
            "10.255.255.255",
            "2001:db8:1::/48",
            "2001:db8::/32",
        ]);
        assert_eq!((ranges.v4.len(), ranges.v6.len()), (3, 1));
        for (address, length) in [
            ("10.0.0.0", Some(8)),
            ("10.1.2.3", Some(8)),
            ("10.255.255.255", Some(8)),
            ("::ffff:10.1.2.3", Some(8)),
            ("9.255.255.255", None),
            ("11.0.0.0", None),
            ("192.0.2.127", Some(25)),
            ("192.0.2.128", Some(25)),
            ("192.0.3.0", None),
            ("2001:db8:1::5", Some(32)),
            ("2001:db9::", None),
            ("::", None),
        ] {
            assert_eq!(ranges.length_at(bits(address)), length, "{address}");
        }
    }

    #[test]
    fn a_block_lies_in_a_range_as_a_whole_or_not() {
        let ranges = ranges(&["10.0.0.0/8", "172.16.0.0/12", "fc00::/7"]);
        for (block, length, around) in [
            ("10.0.0.0", 8, Some(8)),
            ("172.16.0.0", 12, Some(12)),
            ("172.16.0.0", 8, None),
            ("fd12::", 16, Some(7)),
            ("fe00::", 16, None),
        ] {
            assert_eq!(ranges.length_around(bits(block), length), around, "{block}/{length}");
        }
    }

    #[test]
    fn an_address_comes_back_in_its_form() {
        for text in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "::", "0.0.0.0"] {
            assert_eq!(bits(text).address().to_string(), text);
        }
    }
}
