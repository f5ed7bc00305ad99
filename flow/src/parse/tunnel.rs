//! Takes what an IP packet carries; goes to where the packet inside of it begins. A tunnel is entered only when its
//! header is what its standard says; anything else stays the carrier's payload, which nobody looks at.

use super::ethertype;
use super::walk::{Step, Walk};
use crate::{Frame, TunnelKind, protocol};

const VXLAN: u16 = 4789;
/// Linux's, from before the port was assigned.
const VXLAN_OLD: u16 = 8472;
const GENEVE: u16 = 6081;
const GTP_U: u16 = 2152;
/// Extension headers of GTP-U that are walked.
const GTP_EXTENSIONS_MAX: usize = 4;
const UDP_HEADER: usize = 8;

/// Whether datagrams to this port may carry packets.
#[inline(always)]
pub(super) const fn is_udp_tunnel(port: u16) -> bool {
    matches!(port, VXLAN | VXLAN_OLD | GENEVE | GTP_U)
}

/// Goes into a packet, `port` being the destination port.
#[inline(always)]
pub(super) fn enter<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    number: u8,
    port: u16,
    walk: &mut Walk,
) -> Step {
    match number {
        protocol::IPV4 => walk.enter(offset, ethertype::IPV4, TunnelKind::Ipv4InIp, 0),
        protocol::IPV6 => walk.enter(offset, ethertype::IPV6, TunnelKind::Ipv6InIp, 0),
        protocol::GRE => gre(frame, offset, walk),
        protocol::UDP => match port {
            VXLAN | VXLAN_OLD => vxlan(frame, offset + UDP_HEADER, walk),
            GENEVE => geneve(frame, offset + UDP_HEADER, walk),
            GTP_U => gtp_u(frame, offset + UDP_HEADER, walk),
            _ => Step::End,
        },
        _ => Step::End,
    }
}

/// RFC 2784, RFC 2890; version 1 is PPTP's, RFC 2637.
#[inline(always)]
fn gre<F: Frame + ?Sized>(frame: &F, offset: usize, walk: &mut Walk) -> Step {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const ACKNOWLEDGEMENT: u16 = 0x0080;
    const VERSION: u16 = 0x0007;
    const ERSPAN: u16 = 0x88be;
    const ERSPAN_III: u16 = 0x22eb;
    let Some([a, b, c, d]) = frame.bytes::<4>(offset) else { return Step::NotIp };
    let (flags, carried) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let mut next = offset + 4;
    let version = flags & VERSION;
    if flags & ROUTING != 0 || version > 1 {
        return Step::NotIp;
    }
    if flags & CHECKSUM != 0 {
        next += 4;
    }
    let mut key = 0;
    if flags & KEY != 0 {
        let Some(bytes) = frame.bytes::<4>(next) else { return Step::NotIp };
        key = u32::from_be_bytes(bytes);
        next += 4;
    }
    if flags & SEQUENCE != 0 {
        next += 4;
    }
    if version == 1 && flags & ACKNOWLEDGEMENT != 0 {
        next += 4;
    }
    match carried {
        ERSPAN if flags & SEQUENCE == 0 => {
            walk.enter(next, ethertype::ETHERNET, TunnelKind::Erspan, 0)
        }
        ERSPAN => erspan(frame, next, 1, 8, walk),
        ERSPAN_III => erspan(frame, next, 2, 12, walk),
        // The key of PPTP is a length and a call, which each end numbers by itself.
        ethertype::PPP if version == 1 && flags & SEQUENCE == 0 => Step::End,
        ethertype::IPV4
        | ethertype::IPV6
        | ethertype::ETHERNET
        | ethertype::MPLS
        | ethertype::MPLS_MULTICAST
        | ethertype::PPP => {
            let keyed = flags & KEY != 0 && version == 0;
            let kind = if keyed { TunnelKind::GreKeyed } else { TunnelKind::Gre };
            walk.enter(next, carried, kind, key)
        }
        _ => Step::NotIp,
    }
}

/// ERSPAN type II (version 1) and III (version 2), draft-foschiano-erspan.
#[inline(always)]
fn erspan<F: Frame + ?Sized>(
    frame: &F,
    offset: usize,
    version: u8,
    length: usize,
    walk: &mut Walk,
) -> Step {
    let Some(header) = frame.bytes::<4>(offset) else { return Step::NotIp };
    if header[0] >> 4 != version {
        return Step::NotIp;
    }
    let session = u32::from(u16::from_be_bytes([header[2], header[3]]) & 0x03ff);
    let mut next = offset + length;
    if version == 2 {
        // Type III tells what it carries, and whether eight more bytes come before it.
        let Some([high, low]) = frame.bytes::<2>(offset + 10) else { return Step::NotIp };
        if high >> 2 & 0x1f != 0 {
            return Step::NotIp;
        }
        if low & 1 != 0 {
            next += 8;
        }
    }
    walk.enter(next, ethertype::ETHERNET, TunnelKind::ErspanSession, session)
}

/// Whether datagrams to this port may be VXLAN.
#[inline(always)]
pub(super) const fn is_vxlan(port: u16) -> bool {
    matches!(port, VXLAN | VXLAN_OLD)
}

/// RFC 7348: a flag that the network's number is there, which comes in the upper 24 bits of the second word.
#[inline(always)]
pub(super) fn vxlan_network(header: [u8; 8]) -> Option<u32> {
    let [flags, _, _, _, a, b, c, _] = header;
    (flags & 0x08 != 0).then_some(u32::from_be_bytes([0, a, b, c]))
}

#[inline(always)]
fn vxlan<F: Frame + ?Sized>(frame: &F, offset: usize, walk: &mut Walk) -> Step {
    match frame.bytes::<8>(offset).and_then(vxlan_network) {
        Some(id) => walk.enter(offset + 8, ethertype::ETHERNET, TunnelKind::Vxlan, id),
        None => Step::NotIp,
    }
}

/// RFC 8926: version 0, options in words of four bytes, what it carries, the network's number.
#[inline(always)]
fn geneve<F: Frame + ?Sized>(frame: &F, offset: usize, walk: &mut Walk) -> Step {
    let Some([first, _, high, low, a, b, c, _]) = frame.bytes::<8>(offset) else {
        return Step::NotIp;
    };
    let carried = u16::from_be_bytes([high, low]);
    let known = matches!(carried, ethertype::ETHERNET | ethertype::IPV4 | ethertype::IPV6);
    if first >> 6 != 0 || !known {
        return Step::NotIp;
    }
    let offset = offset + 8 + usize::from(first & 0x3f) * 4;
    let id = u32::from_be_bytes([0, a, b, c]);
    walk.enter(offset, carried, TunnelKind::Geneve, id)
}

/// 3GPP TS 29.281: version 1, user data, the endpoint's number, perhaps four more bytes and extension headers; then IP.
#[inline(always)]
fn gtp_u<F: Frame + ?Sized>(frame: &F, offset: usize, walk: &mut Walk) -> Step {
    const USER_DATA: u8 = 255;
    const EXTENSION: u8 = 0x04;
    const OPTIONAL: u8 = 0x07;
    let Some([flags, message, _, _, a, b, c, d]) = frame.bytes::<8>(offset) else {
        return Step::NotIp;
    };
    // The flag beside the version tells it from charging, which has another header.
    if flags >> 4 != 0x3 {
        return Step::NotIp;
    }
    if message != USER_DATA {
        // Signalling between the ends is traffic of its own.
        return Step::End;
    }
    let mut next = offset + 8;
    if flags & OPTIONAL != 0 {
        let Some([_, _, _, mut extension]) = frame.bytes::<4>(next) else { return Step::NotIp };
        next += 4;
        if flags & EXTENSION == 0 {
            extension = 0;
        }
        for _ in 0..GTP_EXTENSIONS_MAX {
            if extension == 0 {
                break;
            }
            let Some(words) = frame.byte(next) else { return Step::NotIp };
            if words == 0 {
                return Step::NotIp;
            }
            // The last byte of the last word tells what follows.
            next += usize::from(words - 1) * 4;
            let Some([_, _, _, following]) = frame.bytes::<4>(next) else { return Step::NotIp };
            next += 4;
            extension = following;
        }
        if extension != 0 {
            return Step::NotIp;
        }
    }
    let carried = match frame.byte(next).map(|first| first >> 4) {
        Some(4) => ethertype::IPV4,
        Some(6) => ethertype::IPV6,
        _ => return Step::NotIp,
    };
    let id = u32::from_be_bytes([a, b, c, d]);
    walk.enter(next, carried, TunnelKind::GtpU, id)
}
