//! What the aggregator takes: some packets of one direction of one flow, from the kernel's cache (a [`Slot`]
//! of many packets) or from a capture (one packet).
//!
//! [`Slot`]: crate::Slot

use crate::{FlowKey, Outer, tcp_flag};

/// TCP flags as they were seen on a set of packets; all zero where the protocol is not TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpSeen {
    /// OR of the flag bytes.
    pub flags: u8,
    /// A SYN without ACK: somebody opened a connection.
    pub syn: bool,
    /// A SYN with ACK: somebody accepted one.
    pub syn_ack: bool,
}

impl TcpSeen {
    /// Of one packet with this flags byte.
    #[inline]
    #[must_use]
    pub const fn from_flags(flags: u8) -> Self {
        let syn = flags & tcp_flag::SYN != 0;
        let ack = flags & tcp_flag::ACK != 0;
        Self { flags, syn: syn && !ack, syn_ack: syn && ack }
    }

    /// Of both sets of packets.
    #[inline]
    #[must_use]
    pub const fn merged(self, other: Self) -> Self {
        Self {
            flags: self.flags | other.flags,
            syn: self.syn || other.syn,
            syn_ack: self.syn_ack || other.syn_ack,
        }
    }
}

/// Packets of one direction of one flow that were counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Whose packets.
    pub key: FlowKey,
    /// The outer identity that the key's domain stands for.
    pub outer: Outer,
    /// Packets; at least 1.
    pub packets: u64,
    /// Layer-2 bytes on the wire (frame check sequence excluded), headers included.
    pub bytes: u64,
    /// Time of the first packet, milliseconds since the Unix epoch.
    pub first_ms: u64,
    /// Time of the last packet, milliseconds since the Unix epoch.
    pub last_ms: u64,
    /// TCP flags.
    pub tcp: TcpSeen,
    /// TTL or hop limit of the first packet.
    pub ttl: u8,
    /// Shortest frame, layer-2 bytes, saturating at 65,535.
    pub length_min: u16,
    /// Longest frame, layer-2 bytes, saturating at 65,535.
    pub length_max: u16,
}

impl Observation {
    /// Counts the packets of another observation of the same direction of the same flow, too. The order does not
    /// matter.
    #[inline]
    pub fn merge(&mut self, other: &Self) {
        // The TTL is that of the first packet; of two in the same millisecond, the smaller.
        if (other.first_ms, other.ttl) < (self.first_ms, self.ttl) {
            self.ttl = other.ttl;
        }
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.first_ms = self.first_ms.min(other.first_ms);
        self.last_ms = self.last_ms.max(other.last_ms);
        self.tcp = self.tcp.merged(other.tcp);
        self.length_min = self.length_min.min(other.length_min);
        self.length_max = self.length_max.max(other.length_max);
    }
}
