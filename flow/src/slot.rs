//! The kernel's flow cache entry: what the XDP program writes and user space scans.

use crate::FlowKey;

/// Bits of the TCP flags byte (RFC 9293 §3.1).
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

/// One direction of one flow within one epoch, on one CPU: exactly one cache line, integers only.
///
/// ```text
///  0                16               32      40               48      52     56     58  59  60   62   64
/// ┌────────────────┬────────────────┬───────┬────────────────┬───────┬──────┬──────┬───┬───┬────┬────┐
/// │ source address │ dest. address  │ tail  │bytes<<16 | gen │packets│first │ last │flg│ttl│min │max │
/// └────────────────┴────────────────┴───────┴────────────────┴───────┴──────┴──────┴───┴───┴────┴────┘
/// ```
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    /// The flow's key.
    pub key: FlowKey,
    /// Layer-2 bytes in the upper 48 bits; the generation (which epoch wrote this) in the lower 16, so that
    /// adding `length << 16` leaves it alone and a stale slot needs no clearing.
    pub bytes_generation: u64,
    /// Packets.
    pub packets: u32,
    /// Lower 32 bits of the jiffies clock at the first packet.
    pub first: u32,
    /// Jiffies from the first packet to the last, in the lower 14 bits (saturating); bit 14: a SYN without ACK
    /// was seen; bit 15: a SYN with ACK was seen.
    pub last_and_syn: u16,
    /// OR of all TCP flags.
    pub tcp_flags: u8,
    /// TTL or hop limit of the first packet.
    pub ttl: u8,
    /// Shortest frame, layer-2 bytes, saturating.
    pub length_min: u16,
    /// Longest frame, layer-2 bytes, saturating.
    pub length_max: u16,
}

const _: () = assert!(size_of::<Slot>() == 64);

impl Slot {
    /// Largest value of the jiffies between first and last; a longer span is held as this one.
    pub const LAST_MAX: u16 = 0x3fff;
    /// Bit of `last_and_syn`: a SYN without ACK was seen.
    pub const SYN_SEEN: u16 = 0x4000;
    /// Bit of `last_and_syn`: a SYN with ACK was seen.
    pub const SYN_ACK_SEEN: u16 = 0x8000;

    /// Layer-2 bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes_generation >> 16
    }

    /// The generation that wrote this slot.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the lower 16 bits are the generation")]
    pub const fn generation(&self) -> u16 {
        self.bytes_generation as u16
    }
}
