//! Takes a frame; gives its packet when it is of the plainest kind, Ethernet with IPv4 or IPv6 and TCP or UDP, whole,
//! without tags, options, fragments or tunnels. Anything else is left to the general parser, which says the same of
//! these frames, only later: one comparison of lengths stands here for all of its own.

use crate::parse::{ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use crate::{Address, FlowKey, Frame, Kind, Packet, Vlans, protocol};

/// Fixed parts of the headers, bytes.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// A TCP header up to its flags; a plain UDP frame has as many bytes, if only as padding.
const TRANSPORT: usize = 14;

/// Version 4 and a header of five words: no options.
const VERSION_LENGTH: u8 = 0x45;
/// More fragments follow, and the offset of this one.
const FRAGMENT: u16 = 0x3fff;
/// UDP ports behind which there may be a tunnel: GTP-U, VXLAN (and as it was before it had a number), Geneve.
const TUNNELS: [u16; 4] = [2152, 4789, 8472, 6081];

/// A plain IPv4 packet.
#[inline(always)]
pub fn plain_v4<F: Frame + ?Sized>(frame: &F) -> Option<Packet> {
    const NETWORK: usize = ETHERNET_HEADER;
    const SEGMENT: usize = NETWORK + IPV4_HEADER;
    let bytes = frame.bytes::<{ SEGMENT + TRANSPORT }>(0)?;
    let short = |at| u16::from_be_bytes(piece(&bytes, at));
    if short(NETWORK - 2) != ETHERTYPE_IPV4 || bytes[NETWORK] != VERSION_LENGTH {
        return None;
    }
    // A total length of 0 stands for one that the field cannot say; 1 to 19 are malformed.
    if short(NETWORK + 6) & FRAGMENT != 0 || (1..20).contains(&short(NETWORK + 2)) {
        return None;
    }
    let source = Address::from_v4(piece(&bytes, NETWORK + 12));
    let destination = Address::from_v4(piece(&bytes, NETWORK + 16));
    let ports = [short(SEGMENT), short(SEGMENT + 2)];
    let number = bytes[NETWORK + 9];
    let tcp_flags = flags(number, ports, bytes[SEGMENT + TRANSPORT - 1])?;
    let key = FlowKey::new(source, destination, ports, number, Kind::V4, 0);
    Some(Packet { key, vlans: Vlans::default(), tcp_flags, ttl: bytes[NETWORK + 8] })
}

/// A plain IPv6 packet.
#[inline(always)]
pub fn plain_v6<F: Frame + ?Sized>(frame: &F) -> Option<Packet> {
    const NETWORK: usize = ETHERNET_HEADER;
    const SEGMENT: usize = NETWORK + IPV6_HEADER;
    let bytes = frame.bytes::<{ SEGMENT + TRANSPORT }>(0)?;
    let short = |at| u16::from_be_bytes(piece(&bytes, at));
    if short(NETWORK - 2) != ETHERTYPE_IPV6 || bytes[NETWORK] >> 4 != 6 {
        return None;
    }
    let half = |at| piece(&bytes, NETWORK + at);
    let source = Address::from_v6(half(8), half(16));
    let destination = Address::from_v6(half(24), half(32));
    let ports = [short(SEGMENT), short(SEGMENT + 2)];
    let number = bytes[NETWORK + 6];
    let tcp_flags = flags(number, ports, bytes[SEGMENT + TRANSPORT - 1])?;
    let key = FlowKey::new(source, destination, ports, number, Kind(0), 0);
    Some(Packet { key, vlans: Vlans::default(), tcp_flags, ttl: bytes[NETWORK + 7] })
}

/// `N` bytes from `at` on, which the callers' constants keep inside. Whole pieces become one load each; a number that
/// is put together from single bytes does not.
#[inline(always)]
fn piece<const L: usize, const N: usize>(bytes: &[u8; L], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

/// The TCP flags, 0 for UDP; `None` for another protocol, and for what may be a tunnel.
#[inline(always)]
fn flags(number: u8, ports: [u16; 2], byte: u8) -> Option<u8> {
    match number {
        protocol::TCP => Some(byte),
        protocol::UDP if !TUNNELS.contains(&ports[0]) && !TUNNELS.contains(&ports[1]) => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
