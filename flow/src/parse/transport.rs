//! Takes the start of a transport header; gives ports, TCP flags and how sure the ports are. Reads no byte behind
//! the header's fixed part.

use crate::{Frame, Kind, protocol};

/// What the transport header gave.
pub(super) struct Transport {
    pub(super) ports: [u16; 2],
    pub(super) tcp_flags: u8,
    pub(super) kind: Kind,
}

impl Transport {
    /// A later fragment, or a header that the capture does not hold.
    pub(super) const NONE: Self = Self { ports: [0, 0], tcp_flags: 0, kind: Kind::NO_PORTS };
    /// A protocol that has no ports.
    const PORTLESS: Self = Self { ports: [0, 0], tcp_flags: 0, kind: Kind(0) };
}

#[inline(always)]
pub(super) fn transport<F: Frame + ?Sized>(frame: &F, offset: usize, number: u8) -> Transport {
    match number {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            let Some([a, b, c, d]) = frame.bytes::<4>(offset) else {
                return Transport::NONE;
            };
            let tcp_flags =
                if number == protocol::TCP { frame.byte(offset + 13).unwrap_or(0) } else { 0 };
            let ports = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
            Transport { ports, tcp_flags, kind: Kind(0) }
        }
        protocol::ICMP | protocol::ICMP6 => {
            let Some([message, code]) = frame.bytes::<2>(offset) else {
                return Transport::NONE;
            };
            let answer =
                if number == protocol::ICMP { icmp_answer(message) } else { icmp6_answer(message) };
            match answer {
                Some(answer) => Transport {
                    ports: [u16::from(message), u16::from(answer)],
                    tcp_flags: 0,
                    kind: Kind(0),
                },
                None => Transport {
                    ports: [u16::from(message), u16::from(code)],
                    tcp_flags: 0,
                    kind: Kind::ONE_WAY,
                },
            }
        }
        _ => Transport::PORTLESS,
    }
}

/// The ICMP type that answers this one, both ways round, as Community ID v1 pairs them.
#[inline(always)]
const fn icmp_answer(message: u8) -> Option<u8> {
    Some(match message {
        0 => 8,
        8 => 0,
        9 => 10,
        10 => 9,
        13 => 14,
        14 => 13,
        15 => 16,
        16 => 15,
        17 => 18,
        18 => 17,
        _ => return None,
    })
}

/// The ICMP for IPv6 type that answers this one, both ways round, as Community ID v1 pairs them.
#[inline(always)]
const fn icmp6_answer(message: u8) -> Option<u8> {
    Some(match message {
        128 => 129,
        129 => 128,
        130 => 131,
        131 => 130,
        133 => 134,
        134 => 133,
        135 => 136,
        136 => 135,
        139 => 140,
        140 => 139,
        144 => 145,
        145 => 144,
        _ => return None,
    })
}
