//! Takes addresses, ports and protocol of one packet; gives the key its flow is found by.

use crate::Address;

/// IP protocol numbers with a meaning of their own here (IANA protocol numbers).
pub mod protocol {
    /// Internet Control Message Protocol, RFC 792.
    pub const ICMP: u8 = 1;
    /// Transmission Control Protocol, RFC 9293.
    pub const TCP: u8 = 6;
    /// IPv4 in IP, RFC 2003.
    pub const IPV4: u8 = 4;
    /// User Datagram Protocol, RFC 768.
    pub const UDP: u8 = 17;
    /// IPv6 in IP, RFC 4213.
    pub const IPV6: u8 = 41;
    /// Generic Routing Encapsulation, RFC 2784.
    pub const GRE: u8 = 47;
    /// Authentication header, RFC 4302.
    pub const AH: u8 = 51;
    /// ICMP for IPv6, RFC 4443.
    pub const ICMP6: u8 = 58;
    /// Stream Control Transmission Protocol, RFC 9260.
    pub const SCTP: u8 = 132;
}

/// What a key's addresses and ports mean; a set of bits because it crosses the kernel boundary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Kind(pub u8);

impl Kind {
    /// The addresses are IPv4.
    pub const V4: Self = Self(1);
    /// Not the first fragment, or too short for a transport header: the ports are unknown, not 0.
    pub const NO_PORTS: Self = Self(2);
    /// An ICMP message that asks for no answer: it pairs with no reverse direction.
    pub const ONE_WAY: Self = Self(4);

    /// Both sets of bits.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One direction of one flow: 40 bytes, integers only.
///
/// For ICMP the ports follow Community ID v1: the source port is the message type, the destination port the type
/// that answers it (so that a request and its reply are one biflow), or the code where nothing answers
/// ([`Kind::ONE_WAY`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Who sent the packet.
    pub source: Address,
    /// Whom it was sent to.
    pub destination: Address,
    /// Ports, protocol, kind and domain in one word; read it through the methods.
    pub tail: u64,
}

const _: () = assert!(size_of::<FlowKey>() == 40);

impl FlowKey {
    /// Packs a key. `domain` is the interned outer identity (VLAN tags, tunnels); 0 is the plain network.
    #[inline(always)]
    #[must_use]
    pub const fn new(
        source: Address,
        destination: Address,
        ports: [u16; 2],
        protocol: u8,
        kind: Kind,
        domain: u16,
    ) -> Self {
        let tail = ports[0] as u64
            | (ports[1] as u64) << 16
            | (protocol as u64) << 32
            | (kind.0 as u64) << 40
            | (domain as u64) << 48;
        Self { source, destination, tail }
    }

    /// The sender's port; see the type for ICMP.
    #[inline]
    #[must_use]
    pub const fn source_port(&self) -> u16 {
        (self.tail & 0xffff) as u16
    }

    /// The receiver's port; see the type for ICMP.
    #[inline]
    #[must_use]
    pub const fn destination_port(&self) -> u16 {
        (self.tail >> 16 & 0xffff) as u16
    }

    /// IP protocol number.
    #[inline]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        (self.tail >> 32 & 0xff) as u8
    }

    /// What addresses and ports mean.
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> Kind {
        Kind((self.tail >> 40 & 0xff) as u8)
    }

    /// Interned outer identity; 0 is the plain network.
    #[inline]
    #[must_use]
    pub const fn domain(&self) -> u16 {
        (self.tail >> 48) as u16
    }

    /// The same key under another outer identity.
    #[inline]
    #[must_use]
    pub const fn with_domain(mut self, domain: u16) -> Self {
        self.tail = self.tail & 0x0000_ffff_ffff_ffff | (domain as u64) << 48;
        self
    }

    /// The key of the opposite direction.
    #[inline]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        let ports = [self.destination_port(), self.source_port()];
        Self::new(self.destination, self.source, ports, self.protocol(), self.kind(), self.domain())
    }

    /// The smaller of a key and its reverse, and whether it was reversed to get there: both directions of a
    /// biflow have one canonical key. A one-way ICMP message is its own canonical key.
    #[inline]
    #[must_use]
    pub fn canonical(&self) -> (Self, bool) {
        let reverse = self.reversed();
        if self.kind().has(Kind::ONE_WAY) || *self <= reverse {
            (*self, false)
        } else {
            (reverse, true)
        }
    }
}
