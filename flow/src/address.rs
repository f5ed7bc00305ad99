//! Takes the address bytes of an IP header; gives a fixed 16-byte form that compares as two integers.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address as two little-endian words over its 16 network-order bytes; IPv4 is held as
/// `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2). Integers only, so that it can cross the kernel boundary.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Bytes 0 to 7, as `u64::from_le_bytes` reads them.
    pub high: u64,
    /// Bytes 8 to 15, as `u64::from_le_bytes` reads them.
    pub low: u64,
}

/// What the third 4-byte group of an IPv4-mapped address reads as, in a little-endian word: `00 00 ff ff`.
const MAPPED_PREFIX: u64 = 0xffff_0000;

impl Address {
    /// From the four bytes of an IPv4 header's address field.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(bytes: [u8; 4]) -> Self {
        Self { high: 0, low: MAPPED_PREFIX | (u32::from_le_bytes(bytes) as u64) << 32 }
    }

    /// From the two halves of an IPv6 header's address field.
    #[inline(always)]
    #[must_use]
    pub const fn from_v6(high: [u8; 8], low: [u8; 8]) -> Self {
        Self { high: u64::from_le_bytes(high), low: u64::from_le_bytes(low) }
    }

    /// All 16 bytes in network order.
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        ((self.low as u128) << 64 | self.high as u128).to_le_bytes()
    }

    /// The four bytes of an IPv4-mapped address.
    #[must_use]
    pub const fn octets_v4(self) -> [u8; 4] {
        ((self.low >> 32) as u32).to_le_bytes()
    }

    /// As the standard library's type; `is_v4` says which version the packet's header was.
    #[must_use]
    pub fn to_ip(self, is_v4: bool) -> IpAddr {
        if is_v4 {
            IpAddr::V4(Ipv4Addr::from(self.octets_v4()))
        } else {
            IpAddr::V6(Ipv6Addr::from(self.octets()))
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        let octets = match ip {
            IpAddr::V4(v4) => return Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => u128::from_le_bytes(v6.octets()),
        };
        #[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
        Self { high: octets as u64, low: (octets >> 64) as u64 }
    }
}
