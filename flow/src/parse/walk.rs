//! Takes a frame of any shape; goes from header to header to the innermost IP packet. Bounded: so many steps, so
//! many tunnels, each header at a small offset. What lies deeper or is broken belongs to the flow of its carrier.

use super::{
    ETHERNET_HEADER, ETHERTYPE_OFFSET, LinkLayer, Malformed, Notes, Packet, ethertype, ip,
};
use crate::{Address, FlowKey, Fragment, Frame, Outer, TunnelKind};

/// Headers walked: four tunnels with their carriers, and a few tags and labels.
const STEPS_MAX: usize = 16;
/// VLAN tags walked; a frame with more counts as not IP under the EtherType of the next tag.
const TAGS_MAX: u32 = 4;

/// Where a walk is, and the innermost IP packet so far. Integers only: in the kernel it lies in a table, because the
/// stack there is small, and because the verifier follows a value that it cannot know once and not once for each value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    source: Address,
    destination: Address,
    tail: u64,
    packet_outer: Outer,
    /// The outer identity of what comes next.
    outer: Outer,
    identification: u32,
    network_offset: u32,
    transport_offset: u32,
    length_told: u32,
    offset: u32,
    tags: u32,
    ethertype: u16,
    /// What the frame is called when no IP packet is found: its type behind the VLAN tags.
    named: u16,
    tcp_flags: u8,
    ttl: u8,
    notes: u8,
    /// 0 whole, 1 a first fragment, 2 a later one.
    fragment: u8,
    /// Whether there is a packet.
    reached: u8,
    /// Whether a label was passed: it does not say what it carries, so what is broken behind it is no broken IP packet.
    guessed: u8,
    dscp: u8,
    /// Explicit padding; not bytes in a row, which no table may keep.
    padding_byte: u8,
    padding: [u16; 2],
}

const _: () = assert!(size_of::<Walk>() == 112);

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    /// An IP packet: [`Walk::packet`].
    Ip,
    /// Something else, by EtherType.
    NotIp(u16),
    /// It says IP, and is broken.
    Malformed(Malformed),
}

/// What one header leads to.
pub(super) enum Step {
    /// Another header, where the walk now is.
    Next,
    /// The end: the packet so far has nothing in it that is looked at.
    End,
    /// The end: what comes here is no IP packet.
    NotIp,
    /// The end: there are more tunnels than are entered.
    TooDeep,
    /// The end: it says IP, and is not.
    Broken(Malformed),
}

impl Walk {
    /// Walks a frame, of the plain case or not, from its start.
    #[inline(always)]
    pub fn run<F: Frame + ?Sized>(&mut self, frame: &F, link: LinkLayer) -> Walked {
        let (offset, ethertype) = match link {
            LinkLayer::Ethernet => match frame.bytes::<2>(ETHERTYPE_OFFSET) {
                Some(ethertype) => (ETHERNET_HEADER, u16::from_be_bytes(ethertype)),
                None => return Walked::Malformed(Malformed::LinkHeaderCut),
            },
            LinkLayer::Network { offset, ethertype } => (offset, ethertype),
        };
        *self = Self::default();
        self.go(offset, ethertype);
        self.named = ethertype;
        for _ in 0..STEPS_MAX {
            let notes = match self.step(frame) {
                Step::Next => continue,
                Step::End => Notes::default(),
                Step::TooDeep => Notes::TUNNEL_TOO_DEEP,
                Step::Broken(reason) if self.reached == 0 && self.guessed == 0 => {
                    return Walked::Malformed(reason);
                }
                Step::NotIp | Step::Broken(_) => Notes::TUNNEL_CLOSED,
            };
            return self.end(notes);
        }
        self.end(Notes::TUNNEL_TOO_DEEP)
    }

    /// The innermost packet; meaningful after [`Walked::Ip`].
    #[inline(always)]
    #[must_use]
    pub const fn packet(&self) -> Packet {
        Packet {
            key: FlowKey { source: self.source, destination: self.destination, tail: self.tail },
            outer: self.packet_outer,
            tcp_flags: self.tcp_flags,
            ttl: self.ttl,
            dscp: self.dscp,
            notes: Notes(self.notes),
            fragment: match self.fragment {
                0 => Fragment::Whole,
                1 => Fragment::First(self.identification),
                _ => Fragment::Later(self.identification),
            },
            network_offset: self.network_offset as usize,
            transport_offset: self.transport_offset as usize,
            length_told: self.length_told as usize,
        }
    }

    #[inline(always)]
    fn end(&mut self, notes: Notes) -> Walked {
        if self.reached == 0 {
            return Walked::NotIp(self.named);
        }
        self.notes |= notes.0;
        Walked::Ip
    }

    /// One header. A function of its own, so that the kernel's program has it once.
    #[inline(never)]
    fn step<F: Frame + ?Sized>(&mut self, frame: &F) -> Step {
        let offset = self.offset as usize;
        match self.ethertype {
            ethertype::IPV4 => ip::v4(frame, offset, self),
            ethertype::IPV6 => ip::v6(frame, offset, self),
            tag if ethertype::TAGS.contains(&tag) && self.tags < TAGS_MAX => {
                self.tag(frame, offset)
            }
            ethertype::MPLS | ethertype::MPLS_MULTICAST => self.label(frame, offset),
            ethertype::PPPOE_SESSION => self.pppoe(frame, offset),
            ethertype::PPP => self.ppp(frame, offset),
            ethertype::ETHERNET => self.bridged(frame, offset),
            0..=1500 => self.snap(frame, offset),
            _ => Step::NotIp,
        }
    }

    /// The next header is there, and is this.
    #[inline(always)]
    pub(super) fn go(&mut self, offset: usize, ethertype: u16) -> Step {
        self.offset = u32::try_from(offset).unwrap_or(u32::MAX);
        self.ethertype = ethertype;
        Step::Next
    }

    /// The next header is there, is this, and came in a tunnel.
    #[inline(always)]
    pub(super) fn enter(
        &mut self,
        offset: usize,
        ethertype: u16,
        kind: TunnelKind,
        id: u32,
    ) -> Step {
        match self.outer.with_tunnel(kind, id) {
            Some(deeper) => {
                self.outer = deeper;
                self.go(offset, ethertype)
            }
            None => Step::TooDeep,
        }
    }

    /// Takes the packet of an IP header; the first one's length is the frame's.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an offset is at most OFFSET_MAX, a length that and 65,575"
    )]
    pub(super) fn reach(&mut self, packet: &Packet) {
        if self.reached == 0 {
            self.length_told = packet.length_told as u32;
        }
        self.reached = 1;
        self.packet_outer = self.outer;
        self.source = packet.key.source;
        self.destination = packet.key.destination;
        self.tail = packet.key.tail;
        self.tcp_flags = packet.tcp_flags;
        self.ttl = packet.ttl;
        self.dscp = packet.dscp;
        (self.fragment, self.identification) = match packet.fragment {
            Fragment::Whole => (0, 0),
            Fragment::First(identification) => (1, identification),
            Fragment::Later(identification) => (2, identification),
        };
        self.network_offset = packet.network_offset as u32;
        self.transport_offset = packet.transport_offset as u32;
    }

    /// A VLAN tag, IEEE 802.1Q.
    #[inline(always)]
    fn tag<F: Frame + ?Sized>(&mut self, frame: &F, offset: usize) -> Step {
        let Some([high, low, next_high, next_low]) = frame.bytes::<4>(offset) else {
            return Step::Broken(Malformed::LinkHeaderCut);
        };
        let identifier = u16::from_be_bytes([high & 0x0f, low]);
        if identifier != 0 {
            match self.outer.with_vlan(identifier) {
                Some(tagged) => self.outer = tagged,
                None => self.notes |= Notes::VLANS_LEFT_OUT.0,
            }
        }
        let next = u16::from_be_bytes([next_high, next_low]);
        if self.reached == 0 && self.guessed == 0 {
            self.named = next;
        }
        self.tags += 1;
        self.go(offset + 4, next)
    }

    /// An MPLS label, RFC 3032. What is behind the lowest one is told by its first four bits only: an IP version, or 0
    /// for the control word before an Ethernet frame (RFC 4385).
    #[inline(always)]
    fn label<F: Frame + ?Sized>(&mut self, frame: &F, offset: usize) -> Step {
        const BOTTOM: u32 = 0x100;
        let Some(entry) = frame.bytes::<4>(offset) else {
            return Step::NotIp;
        };
        let entry = u32::from_be_bytes(entry);
        self.guessed = 1;
        self.outer = self.outer.with_mpls_label(entry >> 12);
        let offset = offset + 4;
        if entry & BOTTOM == 0 {
            return self.go(offset, self.ethertype);
        }
        match frame.byte(offset).map(|first| first >> 4) {
            Some(4) => self.go(offset, ethertype::IPV4),
            Some(6) => self.go(offset, ethertype::IPV6),
            Some(0) => self.go(offset + 4, ethertype::ETHERNET),
            _ => Step::NotIp,
        }
    }

    /// A session of PPP over Ethernet, RFC 2516 §4: version 1, type 1, code 0, the session, a length, and PPP.
    #[inline(always)]
    fn pppoe<F: Frame + ?Sized>(&mut self, frame: &F, offset: usize) -> Step {
        let Some(header) = frame.bytes::<4>(offset) else { return Step::NotIp };
        let header = u32::from_be_bytes(header);
        if header >> 16 != 0x1100 {
            return Step::NotIp;
        }
        let session = header & 0xffff;
        self.enter(offset + 6, ethertype::PPP, TunnelKind::Pppoe, session)
    }

    /// PPP, RFC 1661 and RFC 1662: perhaps address and control, then the protocol in two bytes, or in one that is odd.
    #[inline(always)]
    fn ppp<F: Frame + ?Sized>(&mut self, frame: &F, mut offset: usize) -> Step {
        let Some(mut header) = frame.bytes::<2>(offset) else { return Step::NotIp };
        if header == [0xff, 0x03] {
            offset += 2;
            let Some(behind) = frame.bytes::<2>(offset) else { return Step::NotIp };
            header = behind;
        }
        match header {
            [0x00, 0x21] => self.go(offset + 2, ethertype::IPV4),
            [0x00, 0x57] => self.go(offset + 2, ethertype::IPV6),
            [0x21, _] => self.go(offset + 1, ethertype::IPV4),
            [0x57, _] => self.go(offset + 1, ethertype::IPV6),
            _ => Step::NotIp,
        }
    }

    /// An Ethernet header inside of something.
    #[inline(always)]
    fn bridged<F: Frame + ?Sized>(&mut self, frame: &F, offset: usize) -> Step {
        match frame.bytes::<2>(offset + ETHERTYPE_OFFSET) {
            Some(inner) => self.go(offset + ETHERNET_HEADER, u16::from_be_bytes(inner)),
            None => Step::NotIp,
        }
    }

    /// An IEEE 802.3 frame: IP is in it behind a SNAP header only (RFC 1042).
    #[inline(always)]
    fn snap<F: Frame + ?Sized>(&mut self, frame: &F, offset: usize) -> Step {
        const SNAP: u64 = 0xaaaa_0300_0000;
        let Some(header) = frame.bytes::<8>(offset) else { return Step::NotIp };
        let header = u64::from_be_bytes(header);
        if header >> 16 != SNAP {
            return Step::NotIp;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the lower 16 bits are the type")]
        let carried = header as u16;
        self.go(offset + 8, carried)
    }
}
