//! Takes addresses; says whose they are, and maps those of own clients to pseudonyms of a key, and back. Pure: never
//! reads a clock, never keeps what it was asked.
//!
//! A pseudonym is made by Crypto-PAn, with the bits of the own range left as they are: Crypto-PAn maps all addresses
//! of a range into one range of the same size, so that putting the old range in its place keeps it one-to-one. As long
//! as the result is an address of a public server, it is made again from the result: since every step can be undone and
//! the address itself is no server's, that ends, and no two addresses end at the same one.

use std::net::IpAddr;

use flow::{Pseudonyms, Record};
use ipnet::IpNet;
use thiserror::Error;

use super::Prefix;
use super::crypto_pan::CryptoPan;
use super::ranges::{Bits, Ranges, mask};

/// Steps past public servers before it is given up. Where [`check`] has passed, a handful is usual.
const STEPS_MAX: u32 = 1 << 20;
/// Own ranges of up to so many free bits may consist of public servers mostly: there are not many steps in them.
const SMALL_BITS: u8 = 16;
/// What a folded record's initiator is the network address of.
const FOLDED_BITS: [(u8, u8); 2] = [(32, 8), (128, 16)];

/// Why an address has no pseudonym.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "an address has no pseudonym: `public_servers` leaves too little of the own range of {length} bits around it"
)]
pub struct NoPseudonym {
    /// Length of that range.
    length: u8,
}

/// Why lists of ranges do not go together.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NetworksError {
    /// Add the range to `own_prefixes`, or leave the server out.
    #[error("`{0}` lies in none of own_prefixes")]
    NotOwn(Prefix),
    /// Name the servers, or make the part with the servers a range of its own.
    #[error(
        "they are more than half of `{0}` in own_prefixes, which leaves too little for pseudonyms"
    )]
    MostlyPublic(Prefix),
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Somebody else's.
    Other,
    /// The organisation's, and no secret.
    Public,
    /// The organisation's; in a range of so many bits.
    Client { length: u8 },
}

/// The organisation's networks, and what of them is public.
#[derive(Clone, Debug, Default)]
pub(super) struct Networks {
    own: Ranges,
    public: Ranges,
}

/// Refuses lists that do not go together.
///
/// # Errors
/// Names the first value that does not fit.
pub(crate) fn check(own: &[Prefix], public: &[Prefix]) -> Result<(), NetworksError> {
    let ranges = Ranges::new(own);
    let length = |prefix: &Prefix| {
        ranges.length_around(Bits::of(prefix.get().network()), prefix.get().prefix_len())
    };
    if let Some(alien) = public.iter().find(|prefix| length(prefix).is_none()) {
        return Err(NetworksError::NotOwn(*alien));
    }
    let merged = IpNet::aggregate(&public.iter().map(|prefix| prefix.get()).collect());
    for range in own
        .iter()
        .filter(|range| range.get().max_prefix_len() - range.get().prefix_len() > SMALL_BITS)
    {
        let inside = merged.iter().filter(|public| range.get().contains(*public));
        // Shares of the range, in its 2^-127.
        let share = |public: &IpNet| mask_size(public.prefix_len() - range.get().prefix_len());
        if inside.map(share).fold(0, u128::saturating_add) > mask_size(1) {
            return Err(NetworksError::MostlyPublic(*range));
        }
    }
    Ok(())
}

/// 2^-bits, as a number of 2^-127.
const fn mask_size(bits: u8) -> u128 {
    if bits > 127 { 1 } else { 1 << (127 - bits) }
}

impl Networks {
    pub(super) fn new(own: &[Prefix], public: &[Prefix]) -> Self {
        Self { own: Ranges::new(own), public: Ranges::new(public) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty()
    }

    pub(super) fn owner(&self, address: IpAddr) -> Owner {
        let bits = Bits::of(address);
        match self.own.length_at(bits) {
            None => Owner::Other,
            Some(_) if self.public.holds(bits) => Owner::Public,
            Some(length) => Owner::Client { length },
        }
    }

    /// Whether both ends are the organisation's, or one is and the other no host at all.
    pub(super) fn is_internal(&self, record: &Record) -> bool {
        let [initiator, responder] = [record.initiator, record.responder];
        let [own_initiator, own_responder] = self.holds_ends(record);
        if own_initiator {
            return own_responder || is_no_host(responder);
        }
        own_responder && !record.folded && is_no_host(initiator)
    }

    /// Whether initiator and responder are the organisation's; a prefix is when all of it is.
    fn holds_ends(&self, record: &Record) -> [bool; 2] {
        holds_ends(&self.own, record)
    }

    /// The pseudonym of a client in a range of `length` bits; the address itself where the range has no other.
    pub(super) fn pseudonym(
        &self,
        pan: &CryptoPan,
        address: IpAddr,
        length: u8,
    ) -> Result<IpAddr, NoPseudonym> {
        self.walk(Bits::of(address), length, |bits, width| pan.pseudonym(bits, length, width))
    }

    /// The client that has this pseudonym.
    pub(super) fn original(
        &self,
        pan: &CryptoPan,
        pseudonym: IpAddr,
        length: u8,
    ) -> Result<IpAddr, NoPseudonym> {
        self.walk(Bits::of(pseudonym), length, |bits, width| pan.original(bits, length, width))
    }

    fn walk(
        &self,
        from: Bits,
        length: u8,
        step: impl Fn(u128, u8) -> u128,
    ) -> Result<IpAddr, NoPseudonym> {
        let mut at = from;
        for _ in 0..STEPS_MAX {
            at = at.with(step(at.value, at.width));
            if !self.public.holds(at) {
                return Ok(at.address());
            }
        }
        Err(NoPseudonym { length })
    }

    /// The prefix that stands for the one a folded record's packets came from, where it is wholly own and longer than
    /// the own range: the prefix of the pseudonyms of all its addresses, but for those that step past public servers.
    pub(super) fn folded_pseudonym(&self, pan: &CryptoPan, prefix: IpAddr) -> Option<IpAddr> {
        let bits = Bits::of(prefix);
        let of_width = folded_length(bits);
        let length = self.own.length_around(bits, of_width).filter(|length| *length < of_width)?;
        let pseudonym = pan.pseudonym(bits.value, length, of_width);
        Some(bits.with(pseudonym & mask(of_width)).address())
    }

    /// The prefix that has this one as its pseudonym.
    pub(super) fn folded_original(&self, pan: &CryptoPan, prefix: IpAddr) -> Option<IpAddr> {
        let bits = Bits::of(prefix);
        let of_width = folded_length(bits);
        let length = self.own.length_around(bits, of_width).filter(|length| *length < of_width)?;
        Some(bits.with(pan.original(bits.value, length, of_width)).address())
    }
}

/// Whether the ends of a record lie in these ranges; an end that is a prefix does when all of it does.
pub(super) fn holds_ends(ranges: &Ranges, record: &Record) -> [bool; 2] {
    let initiator = Bits::of(record.initiator);
    let length = if record.folded { folded_length(initiator) } else { initiator.width };
    [ranges.length_around(initiator, length).is_some(), ranges.holds(Bits::of(record.responder))]
}

fn folded_length(prefix: Bits) -> u8 {
    let of_width = FOLDED_BITS.into_iter().find(|(width, _)| *width == prefix.width);
    of_width.map_or(prefix.width, |(_, length)| length)
}

/// An address that no host has by itself: a group, everybody, or nobody yet.
fn is_no_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address.to_canonical(), IpAddr::V4(v4) if v4.is_broadcast());
    address.is_multicast() || address.is_unspecified() || is_broadcast
}

/// What a record's ends are without a key: as they were seen.
pub(super) const AS_SEEN: Pseudonyms = Pseudonyms { initiator: false, responder: false };

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use super::*;

    fn prefixes(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().expect("a valid range")).collect()
    }

    fn pan(number: u8) -> CryptoPan {
        CryptoPan::new(&[number; 32]).expect("a cipher")
    }

    #[test]
    fn pseudonyms_stay_in_the_range_hit_no_server_and_lead_back() {
        let public = ["203.0.113.0/28", "203.0.113.80", "203.0.113.81", "203.0.113.250"];
        let networks = Networks::new(&prefixes(&["203.0.113.0/24"]), &prefixes(&public));
        let mut walked = 0;
        for key in 0..20 {
            let pan = pan(key);
            let mut seen = BTreeSet::new();
            for last in 0..=255 {
                let address = IpAddr::V4(Ipv4Addr::new(203, 0, 113, last));
                let Owner::Client { length } = networks.owner(address) else {
                    assert!(last < 16 || [80, 81, 250].contains(&last));
                    continue;
                };
                let pseudonym = networks.pseudonym(&pan, address, length).expect("there is room");
                assert_eq!(networks.owner(pseudonym), Owner::Client { length: 24 });
                assert!(seen.insert(pseudonym), "two have {pseudonym}");
                assert_eq!(networks.original(&pan, pseudonym, length), Ok(address));
                walked += u32::from(
                    Bits::of(pseudonym).value != pan.pseudonym(Bits::of(address).value, 24, 32),
                );
            }
            assert_eq!(seen.len(), 256 - 16 - 3);
        }
        assert!(walked > 0, "no step past a server was needed: the test shows nothing");
    }

    #[test]
    fn whose_an_address_is() {
        let networks =
            Networks::new(&prefixes(&["10.0.0.0/8", "2001:db8::/32"]), &prefixes(&["10.9.0.80"]));
        let owner = |text: &str| networks.owner(text.parse().expect("a valid address"));
        assert_eq!(owner("10.9.0.80"), Owner::Public);
        assert_eq!(owner("10.9.0.81"), Owner::Client { length: 8 });
        assert_eq!(owner("::ffff:10.9.0.81"), Owner::Client { length: 8 });
        assert_eq!(owner("2001:db8::1"), Owner::Client { length: 32 });
        assert_eq!(owner("11.0.0.1"), Owner::Other);
    }

    #[test]
    fn lists_that_do_not_go_together_are_refused() {
        let own = prefixes(&["10.0.0.0/8", "203.0.113.8/29"]);
        let told = |public: &[&str]| check(&own, &prefixes(public)).expect_err("wrong").to_string();
        assert_eq!(
            told(&["10.0.0.80", "192.0.2.1"]),
            "`192.0.2.1/32` lies in none of own_prefixes"
        );
        assert_eq!(told(&["203.0.113.0/24"]), "`203.0.113.0/24` lies in none of own_prefixes");
        let most = told(&["10.0.0.0/9", "10.128.0.0/10"]);
        assert!(most.starts_with("they are more than half of `10.0.0.0/8`"), "{most}");
        assert_eq!(
            check(&own, &prefixes(&["10.0.0.0/9", "203.0.113.8/30", "203.0.113.12/31"])),
            Ok(())
        );
        assert_eq!(check(&own, &[]), Ok(()));
    }

    #[test]
    fn a_prefix_of_folded_totals_is_that_of_the_pseudonyms_of_its_addresses() {
        let networks = Networks::new(&prefixes(&["10.0.0.0/8", "fc00::/7"]), &[]);
        let pan = pan(7);
        let folded = |text: &str| networks.folded_pseudonym(&pan, text.parse().expect("valid"));
        // Nothing of an /8 is hidden in an /8, and of what is not all own nothing is known.
        assert_eq!(folded("10.0.0.0"), None);
        assert_eq!(folded("11.0.0.0"), None);
        let prefix = Bits::of(folded("fd12::").expect("it is longer than the range"));
        let host = "fd12:3456::9".parse().expect("valid");
        let host = Bits::of(networks.pseudonym(&pan, host, 7).expect("there is room"));
        assert_eq!((prefix.value ^ host.value) & mask(16), 0);
        assert_eq!(prefix.value & !mask(16), 0);
    }
}
