//! Takes an address range as text; says whether an address lies in it. Never looks anything up.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address range such as `192.0.2.0/24` or `2001:db8::/32`; host bits are cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    network: IpAddr,
    length: u8,
}

/// Why a text is no address range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Write the range as `ADDRESS/LENGTH`.
    #[error("address range {0:?} has no valid address before the slash")]
    Address(String),
    /// The length counts bits: up to 32 for IPv4, up to 128 for IPv6.
    #[error("address range {text:?} has a length that is not between 0 and {length_max}")]
    Length {
        /// What was given.
        text: String,
        /// The largest length of this address family.
        length_max: u8,
    },
}

impl Prefix {
    /// The range of `length` bits that holds `address`.
    ///
    /// # Errors
    /// When `length` is more than the address has bits.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, PrefixError> {
        let length_max = if address.is_ipv4() { 32 } else { 128 };
        if length > length_max {
            return Err(PrefixError::Length { text: format!("{address}/{length}"), length_max });
        }
        Ok(Self { network: masked(address, length), length })
    }

    /// Whether `address` lies in this range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.network.is_ipv4() && masked(address, self.length) == self.network
    }

    /// The ranges that no address on the Internet has: RFC 1918, RFC 6598, RFC 4193, link-local of
    /// both versions.
    #[must_use]
    pub fn private() -> Vec<Self> {
        let v4 = |a, b, length| Self { network: IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), length };
        let v6 = |first, length| Self {
            network: IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)),
            length,
        };
        vec![
            v4(10, 0, 8),
            v4(172, 16, 12),
            v4(192, 168, 16),
            v4(100, 64, 10),
            v4(169, 254, 16),
            v6(0xfc00, 7),
            v6(0xfe80, 10),
        ]
    }
}

/// `address` with all but its first `length` bits cleared; `length` is at most the bits of its
/// family.
fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

/// The unit that one party controls: an IPv4 address, or the /64 of an IPv6 address.
pub(crate) fn party(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { address } else { masked(address, 64) }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.network, self.length)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// `ADDRESS/LENGTH`, or a bare address for that address alone.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let Ok(address) = address.trim().parse::<IpAddr>() else {
            return Err(PrefixError::Address(text.to_owned()));
        };
        let length_max = if address.is_ipv4() { 32 } else { 128 };
        let length = match length.map(|digits| digits.trim().parse::<u8>()) {
            None => length_max,
            Some(Ok(length)) if length <= length_max => length,
            Some(_) => return Err(PrefixError::Length { text: text.to_owned(), length_max }),
        };
        Self::new(address, length)
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_exactly_its_addresses() {
        for (prefix, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("192.0.2.77/24", "192.0.2.1", "192.0.3.1"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "fe80::1", "127.0.0.1"),
            ("198.51.100.7", "198.51.100.7", "198.51.100.8"),
        ] {
            let prefix: Prefix = prefix.parse().expect("the table holds valid ranges");
            let address = |text: &str| text.parse::<IpAddr>().expect("a valid address");
            assert!(prefix.contains(address(inside)), "{prefix} {inside}");
            assert!(!prefix.contains(address(outside)), "{prefix} {outside}");
        }
    }

    #[test]
    fn names_what_is_wrong() {
        for text in ["", "10.0.0/8", "10.0.0.0/33", "10.0.0.0/x", "::/129", "host/24"] {
            let error = text.parse::<Prefix>().expect_err(text);
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
