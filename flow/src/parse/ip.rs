//! Takes the start of an IP header; gives the packet, and where another one lies in it.

use super::transport::{Transport, transport};
use super::tunnel;
use super::walk::{Step, Walk};
use super::{Malformed, Packet, dscp};
use crate::{Address, FlowKey, Fragment, Frame, Kind, protocol};

/// IPv6 extension headers walked; a packet with more is a flow without ports.
const EXTENSIONS_MAX: usize = 6;

/// "More fragments" and the offset, in the word that they share with "do not fragment" and a reserved bit.
pub(super) const FRAGMENT_BITS: u16 = MORE_FRAGMENTS | FRAGMENT_OFFSET;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// An IPv4 packet.
#[inline(always)]
pub(super) fn v4<F: Frame + ?Sized>(frame: &F, offset: usize, walk: &mut Walk) -> Step {
    let Some(header) = frame.bytes::<20>(offset) else {
        return Step::Broken(Malformed::IpHeaderCut);
    };
    if header[0] >> 4 != 4 {
        return Step::Broken(Malformed::IpVersion);
    }
    let header_length = usize::from(header[0] & 0x0f) * 4;
    if header_length < 20 {
        return Step::Broken(Malformed::IpHeaderLength);
    }
    // A total length of 0 is what segmentation offload leaves in a frame longer than the field can say.
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if total_length != 0 && total_length < header_length {
        return Step::Broken(Malformed::IpTotalLength);
    }
    let flags_offset = u16::from_be_bytes([header[6], header[7]]);
    let identification = u32::from(u16::from_be_bytes([header[4], header[5]]));
    let fragment = if flags_offset & FRAGMENT_OFFSET != 0 {
        Fragment::Later(identification)
    } else if flags_offset & MORE_FRAGMENTS != 0 {
        Fragment::First(identification)
    } else {
        Fragment::Whole
    };
    let next = Next { offset: offset + header_length, protocol: header[9], fragment };
    // The authentication header hides nothing, so what is behind it is looked at (RFC 4302).
    let next = if header[9] == protocol::AH { behind_extensions(frame, next) } else { next };
    let packet = Packet {
        key: FlowKey {
            source: Address::from_v4([header[12], header[13], header[14], header[15]]),
            destination: Address::from_v4([header[16], header[17], header[18], header[19]]),
            tail: 0,
        },
        ttl: header[8],
        dscp: dscp([header[0], header[1]]),
        network_offset: offset,
        length_told: if total_length == 0 { 0 } else { offset + total_length },
        ..Packet::default()
    };
    behind(frame, packet, Kind::V4, next, walk)
}

/// An IPv6 packet.
#[inline(always)]
pub(super) fn v6<F: Frame + ?Sized>(frame: &F, offset: usize, walk: &mut Walk) -> Step {
    let Some(header) = frame.bytes::<40>(offset) else {
        return Step::Broken(Malformed::IpHeaderCut);
    };
    if header[0] >> 4 != 6 {
        return Step::Broken(Malformed::IpVersion);
    }
    let payload_length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let [source, destination] = v6_addresses(&header);
    let next = Next { offset: offset + 40, protocol: header[6], fragment: Fragment::Whole };
    let next = behind_extensions(frame, next);
    let packet = Packet {
        key: FlowKey { source, destination, tail: 0 },
        ttl: header[7],
        dscp: dscp([header[0], header[1]]),
        network_offset: offset,
        length_told: v6_length_told(offset, payload_length),
        ..Packet::default()
    };
    behind(frame, packet, Kind(0), next, walk)
}

/// Source and destination of an IPv6 header.
#[inline(always)]
pub(super) fn v6_addresses(header: &[u8; 40]) -> [Address; 2] {
    let half = |at: usize| -> [u8; 8] {
        [
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
            header[at + 4],
            header[at + 5],
            header[at + 6],
            header[at + 7],
        ]
    };
    [Address::from_v6(half(8), half(16)), Address::from_v6(half(24), half(32))]
}

/// A payload length of 0 means that an extension header has it, or that it is longer than the field can say.
#[inline(always)]
pub(super) const fn v6_length_told(offset: usize, payload_length: usize) -> usize {
    if payload_length == 0 { 0 } else { offset + 40 + payload_length }
}

/// What follows an IP header.
#[derive(Clone, Copy)]
struct Next {
    offset: usize,
    protocol: u8,
    fragment: Fragment,
}

/// Walks extension headers (RFC 8200 §4, RFC 4302) to the transport header; stops at a later fragment, which has none,
/// and at a header that the capture does not hold.
#[inline(always)]
fn behind_extensions<F: Frame + ?Sized>(frame: &F, mut next: Next) -> Next {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    const MOBILITY: u8 = 135;
    for _ in 0..EXTENSIONS_MAX {
        let known = matches!(
            next.protocol,
            HOP_BY_HOP | ROUTING | FRAGMENT | protocol::AH | DESTINATION | MOBILITY
        );
        if !known || matches!(next.fragment, Fragment::Later(_)) {
            return next;
        }
        let Some(header) = frame.bytes::<8>(next.offset) else { return next };
        let length = match next.protocol {
            FRAGMENT => {
                let identification =
                    u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                let offset_flags = u16::from_be_bytes([header[2], header[3]]);
                if offset_flags & 0xfff8 != 0 {
                    next.fragment = Fragment::Later(identification);
                } else if offset_flags & 1 != 0 {
                    next.fragment = Fragment::First(identification);
                }
                8
            }
            protocol::AH => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        next.protocol = header[0];
        next.offset += length;
    }
    next
}

/// Completes the packet with its transport header, and looks for a tunnel in it.
#[inline(always)]
fn behind<F: Frame + ?Sized>(
    frame: &F,
    mut packet: Packet,
    version: Kind,
    next: Next,
    walk: &mut Walk,
) -> Step {
    packet.fragment = next.fragment;
    let later = matches!(next.fragment, Fragment::Later(_));
    let transport = if later {
        Transport::NONE
    } else {
        packet.transport_offset = next.offset;
        transport(frame, next.offset, next.protocol)
    };
    packet.tcp_flags = transport.tcp_flags;
    let kind = version.with(transport.kind);
    let FlowKey { source, destination, .. } = packet.key;
    packet.key = FlowKey::new(source, destination, transport.ports, next.protocol, kind, 0);
    walk.reach(&packet);
    if later {
        return Step::End;
    }
    tunnel::enter(frame, next.offset, next.protocol, transport.ports[1], walk)
}
