//! Takes the text of a range of addresses, as the configuration has it; gives it checked. Never looks anything up.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};
use thiserror::Error as ThisError;

/// A range of addresses such as `192.0.2.0/24` or `2001:db8::/32`; an address by itself is the range of that address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(IpNet);

/// Why a text is no range of addresses that can be used.
#[derive(Clone, Debug, ThisError, PartialEq, Eq)]
pub enum PrefixError {
    /// Write `ADDRESS/LENGTH`.
    #[error(
        "`{0}` is no range of addresses, expected such as \"192.0.2.0/24\", \"2001:db8::/32\" or one address"
    )]
    Form(String),
    /// Clear the bits behind the length, or correct the length.
    #[error("`{text}` has bits set behind its length; `{network}` would be that range")]
    HostBits {
        /// What was given.
        text: String,
        /// The range that the address lies in.
        network: IpNet,
    },
    /// Name the networks.
    #[error("`{0}` is every address there is")]
    Everything(String),
    /// Groups of receivers belong to nobody.
    #[error("`{0}` holds multicast addresses, which are nobody's")]
    Multicast(String),
    /// Write the IPv4 range.
    #[error("`{0}` is a range of IPv4 addresses in the form of IPv6; write it as IPv4")]
    Mapped(String),
}

impl Prefix {
    /// The range.
    #[must_use]
    pub const fn get(self) -> IpNet {
        self.0
    }

    /// Whether another one lies in it as a whole.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0.contains(&other.0)
    }

    /// The ranges that no address on the Internet has: RFC 1918, RFC 6598, link-local of both versions, RFC 4193.
    #[must_use]
    pub fn private() -> Vec<Self> {
        const RANGES: [&str; 7] = [
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "fc00::/7",
            "fe80::/10",
        ];
        let read = |text: &str| text.parse().expect("the list above has valid ranges only");
        RANGES.into_iter().map(read).collect()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self(address.into())
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let range: IpNet = match text.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_no_address) => text.parse().map_err(|_form| PrefixError::Form(text.to_owned()))?,
        };
        if range.prefix_len() == 0 {
            return Err(PrefixError::Everything(text.to_owned()));
        }
        if range.trunc() != range {
            return Err(PrefixError::HostBits { text: text.to_owned(), network: range.trunc() });
        }
        if range.network().is_multicast() || range.broadcast().is_multicast() {
            return Err(PrefixError::Multicast(text.to_owned()));
        }
        if let IpAddr::V6(network) = range.network()
            && network.to_ipv4_mapped().is_some()
        {
            return Err(PrefixError::Mapped(text.to_owned()));
        }
        Ok(Self(range))
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_reads_back_and_a_wrong_one_is_named() {
        for (text, shown) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("203.0.113.9", "203.0.113.9/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::5", "2001:db8::5/128"),
            ("0.0.0.0/32", "0.0.0.0/32"),
        ] {
            let read: Prefix = text.parse().expect("a valid range");
            assert_eq!(read.to_string(), shown);
            assert_eq!(shown.parse(), Ok(read));
        }
        for (text, why) in [
            ("", "is no range of addresses"),
            ("10.0.0/8", "is no range of addresses"),
            ("10.0.0.0/33", "is no range of addresses"),
            ("10.0.0.0/8 ", "is no range of addresses"),
            ("town-hall", "is no range of addresses"),
            ("10.0.0.1/8", "`10.0.0.0/8` would be that range"),
            ("2001:db8::1/32", "`2001:db8::/32` would be that range"),
            ("0.0.0.0/0", "is every address there is"),
            ("::/0", "is every address there is"),
            ("224.0.0.0/4", "multicast"),
            ("ff02::1", "multicast"),
            ("::ffff:10.0.0.0/104", "write it as IPv4"),
        ] {
            let told = text.parse::<Prefix>().expect_err(text).to_string();
            assert!(told.starts_with(&format!("`{text}` ")) && told.contains(why), "{told}");
        }
    }
}
