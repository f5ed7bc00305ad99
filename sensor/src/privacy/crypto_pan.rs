//! Takes a key of 32 bytes and an address; gives another address, and the way back (Crypto-PAn: Xu, Fan, Ammar and
//! Moon, "Prefix-preserving IP address anonymization", ICNP 2002). Two addresses that agree in their first n bits and
//! no more are given two that do so, too. Never knows which addresses are whose.
//!
//! Bit n of the result is bit n of the address, flipped where the first bit of AES-128 of a block is 1: the first n
//! bits of the address, and behind them those of a pad. The blocks depend on the address only, so all are enciphered
//! at once; on the way back each needs the bits before it.

use aws_lc_rs::cipher::{AES_128, EncryptingKey, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;

use super::ranges::mask;

/// Bytes of a key: those of the cipher, and those that the pad is made of.
pub(super) const KEY_BYTES: usize = 32;
const BLOCK: usize = 16;
const BITS: usize = 128;

/// One key at work. The cipher's library clears its key when it is dropped.
pub(super) struct CryptoPan {
    cipher: EncryptingKey,
    pad: u128,
}

impl CryptoPan {
    /// # Errors
    /// When the cipher cannot be set up.
    pub(super) fn new(key: &[u8; KEY_BYTES]) -> Result<Self, Unspecified> {
        let (of_cipher, of_pad) = key.split_at(BLOCK);
        let cipher = EncryptingKey::ecb(UnboundCipherKey::new(&AES_128, of_cipher)?)?;
        let mut pad = [0; BLOCK];
        pad.copy_from_slice(of_pad);
        encipher(&cipher, &mut pad);
        Ok(Self { cipher, pad: u128::from_be_bytes(pad) })
    }

    /// The pseudonym of an address of `width` bits, from the left, whose first `kept` bits stay as they are.
    pub(super) fn pseudonym(&self, address: u128, kept: u8, width: u8) -> u128 {
        let mut blocks = [0; BLOCK * BITS];
        let count = usize::from(width.saturating_sub(kept));
        let blocks = &mut blocks[..count * BLOCK];
        for (at, block) in (kept..width).zip(blocks.chunks_exact_mut(BLOCK)) {
            block.copy_from_slice(&self.block(address, at));
        }
        encipher(&self.cipher, blocks);
        let flips = blocks.chunks_exact(BLOCK).zip(kept..width);
        flips.fold(address, |bits, (block, at)| bits ^ flip(block[0], at))
    }

    /// The address that has this pseudonym.
    pub(super) fn original(&self, pseudonym: u128, kept: u8, width: u8) -> u128 {
        (kept..width).fold(pseudonym, |bits, at| {
            // The bits before this one are those of the address already.
            let mut block = self.block(bits, at);
            encipher(&self.cipher, &mut block);
            bits ^ flip(block[0], at)
        })
    }

    fn block(&self, address: u128, at: u8) -> [u8; BLOCK] {
        (address & mask(at) | self.pad & !mask(at)).to_be_bytes()
    }
}

/// Bit `at`, from the left, where the enciphered block begins with a 1.
const fn flip(first_byte: u8, at: u8) -> u128 {
    (first_byte as u128 >> 7) << (127 - at)
}

fn encipher(cipher: &EncryptingKey, blocks: &mut [u8]) {
    cipher
        .encrypt(blocks)
        .expect("a mode without an initial vector enciphers any number of blocks");
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::super::ranges::Bits;
    use super::*;

    /// Of the vectors that were published with the reference implementation.
    const KEY: [u8; KEY_BYTES] = [
        21, 34, 23, 141, 51, 164, 207, 128, 19, 10, 91, 22, 73, 144, 125, 16, 216, 152, 143, 131,
        121, 121, 101, 39, 98, 87, 76, 45, 42, 132, 34, 2,
    ];

    fn both_ways(pan: &CryptoPan, address: &str) -> String {
        let address = Bits::of(address.parse::<IpAddr>().expect("a valid address"));
        let pseudonym = pan.pseudonym(address.value, 0, address.width);
        assert_eq!(pan.original(pseudonym, 0, address.width), address.value);
        address.with(pseudonym).address().to_string()
    }

    #[test]
    fn the_published_vectors_come_out() {
        let pan = CryptoPan::new(&KEY).expect("a cipher");
        for (address, pseudonym) in [
            ("128.11.68.132", "135.242.180.132"),
            ("129.118.74.4", "134.136.186.123"),
            ("192.102.249.13", "252.138.62.131"),
            ("192.41.57.43", "252.222.221.184"),
            ("64.14.118.196", "0.255.183.58"),
            ("::1", "78ff:f001:9fc0:20df:8380:b1f1:704:ed"),
            ("2001:db8::1", "4401:2bc:603f:d91d:27f:ff8e:e6f1:dc1e"),
        ] {
            assert_eq!(both_ways(&pan, address), pseudonym);
        }
    }

    /// Bits at the start that are equal.
    fn common(one: u128, other: u128) -> u32 {
        (one ^ other).leading_zeros()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn prefixes_are_preserved_and_the_way_back_leads_back(
            key in any::<[u8; KEY_BYTES]>(),
            one in any::<u128>(),
            noise in any::<u128>(),
            shared in 0..=128_u32,
            kept in 0..=128_u8,
        ) {
            let other = one ^ noise.checked_shr(shared).unwrap_or(0);
            let pan = CryptoPan::new(&key).expect("a cipher");
            for (width, kept) in [(128, kept), (32, kept.min(32))] {
                let [one, other] = [one, other].map(|bits| bits & mask(width));
                let [a, b] = [one, other].map(|bits| pan.pseudonym(bits, kept, width));
                // Where they differ, and so that no two have the same.
                prop_assert_eq!(common(a, b).min(u32::from(width)), common(one, other).min(u32::from(width)));
                prop_assert_eq!(a & mask(kept), one & mask(kept));
                prop_assert_eq!(a & !mask(width), 0);
                prop_assert_eq!(pan.original(a, kept, width), one);
                prop_assert_eq!(pan.original(b, kept, width), other);
            }
        }
    }
}
