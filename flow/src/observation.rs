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

/// What is known of the time at which a connection was opened or accepted. Microseconds, modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OpeningTime {
    /// Nothing.
    #[default]
    Unknown,
    /// A single packet, which has [`tcp_flag::SYN`], came at this time.
    At(u32),
    /// The SYN-ACK among these packets came this long after the SYN of the other direction.
    After(u32),
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
    /// When the connection was opened or accepted.
    pub opening: OpeningTime,
    /// TCP flags of the first packet; 0 where the protocol is not TCP.
    pub first_flags: u8,
    /// TTL or hop limit of the first packet.
    pub ttl: u8,
    /// Differentiated services code point of the first packet.
    pub dscp: u8,
    /// Some of the packets were fragments.
    pub fragmented: bool,
    /// By which interface the first packet came in, from 1; 0 where that is not known.
    pub interface: u8,
    /// Shortest frame, layer-2 bytes, saturating at 65,535.
    pub length_min: u16,
    /// Longest frame, layer-2 bytes, saturating at 65,535.
    pub length_max: u16,
}

impl Observation {
    /// Counts the packets of another observation of the same direction of the same flow, too. The order does not
    /// matter. Of neither may [`Observation::opening`] be known: such packets are counted by themselves.
    #[inline]
    pub fn merge(&mut self, other: &Self) {
        if other.first_ms <= self.first_ms {
            self.merge_first(other);
        }
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.last_ms = self.last_ms.max(other.last_ms);
        self.tcp = self.tcp.merged(other.tcp);
        self.fragmented |= other.fragmented;
        self.length_min = self.length_min.min(other.length_min);
        self.length_max = self.length_max.max(other.length_max);
    }

    /// What is that of the first packet; of several in the same millisecond, the smallest, and the flags of a SYN.
    #[inline]
    fn merge_first(&mut self, other: &Self) {
        if other.first_ms < self.first_ms {
            self.first_ms = other.first_ms;
            (self.ttl, self.dscp, self.interface) = (other.ttl, other.dscp, other.interface);
            self.first_flags = other.first_flags;
            return;
        }
        self.ttl = self.ttl.min(other.ttl);
        self.dscp = self.dscp.min(other.dscp);
        self.interface = self.interface.min(other.interface);
        let rank = |flags: u8| (flags & tcp_flag::SYN == 0, flags);
        if rank(other.first_flags) < rank(self.first_flags) {
            self.first_flags = other.first_flags;
        }
    }
}
