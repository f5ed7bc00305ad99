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
    /// What is kept of the first packet, as [`Slot::first_word`] packs it.
    pub first: u32,
    /// Jiffies from the first packet to the last, in the lower 14 bits (modulo); bit 14: a SYN without ACK
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

const INTERFACE_SHIFT: u32 = 14;
const FRAGMENT_SHIFT: u32 = 17;
const DSCP_SHIFT: u32 = 18;
const FLAGS_SHIFT: u32 = 24;

impl Slot {
    /// Bits of a time that are kept, in `last_and_syn` and of the first packet. An epoch is at most 10 s, and these
    /// many ticks are 16.4 s at 1,000 Hz: as long as it ends in time, each stamp is exact.
    pub const TICKS_MASK: u32 = 0x3fff;
    /// Bit of `last_and_syn`: a SYN without ACK was seen.
    pub const SYN_SEEN: u16 = 0x4000;
    /// Bit of `last_and_syn`: a SYN with ACK was seen.
    pub const SYN_ACK_SEEN: u16 = 0x8000;
    /// Bit of `first`: some packet was a fragment.
    pub const FRAGMENT_SEEN: u32 = 1 << FRAGMENT_SHIFT;

    /// What `first` holds of a flow's first packet.
    ///
    /// ```text
    ///  0                14          17         18     24          32
    /// ┌────────────────┬───────────┬──────────┬──────┬───────────┐
    /// │ jiffies, lower │ interface │ fragment │ DSCP │ TCP flags │
    /// └────────────────┴───────────┴──────────┴──────┴───────────┘
    /// ```
    ///
    /// `interface` is at most 7; 0 is unknown.
    #[inline(always)]
    #[must_use]
    pub const fn first_word(jiffies: u32, interface: u32, dscp: u8, tcp_flags: u8) -> u32 {
        jiffies & Self::TICKS_MASK
            | interface << INTERFACE_SHIFT
            | (dscp as u32) << DSCP_SHIFT
            | (tcp_flags as u32) << FLAGS_SHIFT
    }

    /// Lower bits of the jiffies clock at the first packet.
    #[inline(always)]
    #[must_use]
    pub const fn first_ticks(&self) -> u32 {
        self.first & Self::TICKS_MASK
    }

    /// Jiffies from the first packet to the last.
    #[must_use]
    pub const fn elapsed_ticks(&self) -> u32 {
        self.last_and_syn as u32 & Self::TICKS_MASK
    }

    /// By which interface the first packet came in, from 1; 0 where that is not known.
    #[must_use]
    pub const fn interface(&self) -> u8 {
        (self.first >> INTERFACE_SHIFT & 0x7) as u8
    }

    /// Whether some packet was a fragment.
    #[must_use]
    pub const fn fragmented(&self) -> bool {
        self.first & Self::FRAGMENT_SEEN != 0
    }

    /// Differentiated services code point of the first packet.
    #[must_use]
    pub const fn dscp(&self) -> u8 {
        (self.first >> DSCP_SHIFT & 0x3f) as u8
    }

    /// TCP flags of the first packet.
    #[must_use]
    pub const fn first_flags(&self) -> u8 {
        (self.first >> FLAGS_SHIFT) as u8
    }

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
