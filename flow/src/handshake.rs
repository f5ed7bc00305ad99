//! Takes the times of a connection's SYN and SYN-ACK; gives the time between them, where it can be told.
//!
//! Sensors that count in the kernel keep the two times in a table that all CPUs share, one entry for each place that
//! connections hash to ([`HandshakeSlot`]); a replay keeps them with the flow. Both take the same times for a
//! measurement ([`handshake_rtt_us`]). A SYN that was sent again before it was answered measures nothing: nobody can
//! tell which one was answered (Karn's rule, RFC 6298 §3).

use crate::{Address, FlowKey};

/// Entries of the table; a power of two.
pub const HANDSHAKES: u32 = 65_536;

/// A later SYN-ACK answers no SYN: whoever sent it has given up by then.
const RTT_US_MAX: u32 = 120_000_000;
/// The same SYN within this time is a copy that the mirror made: nobody sends it again so soon (RFC 6298 §2).
const COPY_US_MAX: u32 = 100_000;

/// The time from the SYN to the SYN-ACK. All are microseconds of one clock, modulo 2^32; of the SYN the first and the
/// last, which are the same when it came once.
#[must_use]
pub const fn handshake_rtt_us(syn_first_us: u32, syn_last_us: u32, syn_ack_us: u32) -> Option<u32> {
    let rtt_us = syn_ack_us.wrapping_sub(syn_first_us);
    let again_us = syn_last_us.wrapping_sub(syn_first_us);
    let was_sent_again = again_us > COPY_US_MAX && again_us <= rtt_us;
    if rtt_us > RTT_US_MAX || was_sent_again { None } else { Some(rtt_us) }
}

/// One entry of the table: integers only, written by all CPUs, each word at once. Both words begin with a tag of the
/// connection in their upper 24 bits; connections with the same tag at the same place are taken for one, which is as
/// likely as one in 2^39 for two of them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeSlot {
    /// When the last SYN came: lower 40 bits of a clock's microseconds.
    pub syn: u64,
    /// How long after it the SYN-ACK came, microseconds; all ones when that cannot be told.
    pub answer: u64,
}

const _: () = assert!(size_of::<HandshakeSlot>() == 16);

const TIME_MASK: u64 = (1 << 40) - 1;
const UNCLEAR: u64 = TIME_MASK;

/// What a connection is found by: the same in both directions, and not to be foreseen without the factors, which are
/// odd, random and secret.
#[inline(always)]
#[must_use]
pub const fn handshake_fingerprint(key: &FlowKey, factors: &[u64; 5]) -> u64 {
    let source = end(key.source, key.source_port(), factors);
    let destination = end(key.destination, key.destination_port(), factors);
    let sum = source.wrapping_add(destination).wrapping_mul(factors[4]);
    sum ^ sum >> 32
}

#[inline(always)]
const fn end(address: Address, port: u16, factors: &[u64; 5]) -> u64 {
    let sum = address
        .high
        .wrapping_mul(factors[0])
        .wrapping_add(address.low.wrapping_mul(factors[1]))
        .wrapping_add((port as u64).wrapping_mul(factors[2]));
    let mixed = (sum ^ sum >> 32).wrapping_mul(factors[3]);
    mixed ^ mixed >> 29
}

/// The place of a connection in the table.
#[inline(always)]
#[must_use]
pub const fn handshake_place(fingerprint: u64) -> u32 {
    (fingerprint & (HANDSHAKES - 1) as u64) as u32
}

/// Never 0, so that an empty entry is nobody's.
#[inline(always)]
const fn tag(fingerprint: u64) -> u64 {
    (fingerprint & !TIME_MASK) | 1 << 40
}

impl HandshakeSlot {
    /// The entry after a SYN of this connection.
    #[inline(always)]
    #[must_use]
    pub const fn after_syn(self, fingerprint: u64, now_us: u64) -> Self {
        let tag = tag(fingerprint);
        let anew = Self { syn: tag | now_us & TIME_MASK, answer: 0 };
        if self.syn & !TIME_MASK != tag {
            return anew;
        }
        let age_us = now_us.wrapping_sub(self.syn) & TIME_MASK;
        if age_us <= COPY_US_MAX as u64 {
            return self;
        }
        let is_answered = self.answer & !TIME_MASK == tag && self.answer & TIME_MASK != UNCLEAR;
        if is_answered || age_us > RTT_US_MAX as u64 {
            return anew;
        }
        Self { answer: tag | UNCLEAR, ..anew }
    }

    /// The entry after a SYN-ACK of this connection; the first one counts.
    #[inline(always)]
    #[must_use]
    pub const fn after_syn_ack(self, fingerprint: u64, now_us: u64) -> Self {
        let tag = tag(fingerprint);
        let rtt_us = now_us.wrapping_sub(self.syn) & TIME_MASK;
        let is_answered = self.answer & !TIME_MASK == tag;
        if self.syn & !TIME_MASK != tag || is_answered || rtt_us > RTT_US_MAX as u64 {
            return self;
        }
        Self { answer: tag | rtt_us, ..self }
    }

    /// The time that was measured for this connection.
    #[must_use]
    pub fn rtt_us(self, fingerprint: u64) -> Option<u32> {
        if self.answer & !TIME_MASK != tag(fingerprint) {
            return None;
        }
        u32::try_from(self.answer & TIME_MASK).ok()
    }
}
