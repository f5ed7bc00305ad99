//! Records for tests: realistic ones from a seed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flow::{
    Direction, EndReason, Handshake, Outer, Pseudonyms, Record, RoleEvidence, Vlans, protocol,
};

/// A generator with a seed; the same seed gives the same numbers on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn u16(&mut self, bound: u64) -> u16 {
        u16::try_from(self.below(bound)).expect("the bound is small")
    }
}

/// Records as a small site sees them: half scans from anywhere, half page loads from a few clients, some IPv6.
pub(crate) fn realistic(seed: u64, count: usize) -> Vec<Record> {
    let mut random = Random(seed);
    let mut clock = 1_795_000_000_000;
    (0..count)
        .map(|_| {
            clock += random.below(20);
            if random.below(2) == 0 { scan(&mut random, clock) } else { page(&mut random, clock) }
        })
        .collect()
}

fn scan(random: &mut Random, end_ms: u64) -> Record {
    let address = u32::try_from(random.below(1 << 32)).expect("below 2^32");
    let ports = [22, 23, 80, 443, 445, 3389, 8080];
    let known = usize::try_from(random.below(14)).expect("small");
    Record {
        start_ms: end_ms,
        end_ms,
        initiator: IpAddr::V4(address.into()),
        responder: IpAddr::V4(Ipv4Addr::new(
            192,
            0,
            2,
            u8::try_from(random.below(32)).expect("small"),
        )),
        initiator_port: random.u16(65_536),
        responder_port: ports.get(known).copied().unwrap_or_else(|| random.u16(65_536)),
        protocol: protocol::TCP,
        ports_known: true,
        outer: Outer::default(),
        from_initiator: direction(
            1,
            60,
            [60, 60],
            (2, 2),
            40 + u8::try_from(random.below(20)).expect("small"),
        ),
        from_responder: Direction::default(),
        handshake: Handshake::Syn,
        handshake_rtt_us: None,
        interface: 1,
        role: RoleEvidence::Handshake,
        end_reason: EndReason::IdleTimeout,
        folded: false,
        pseudonyms: Pseudonyms::default(),
    }
}

fn page(random: &mut Random, end_ms: u64) -> Record {
    let host = u16::try_from(random.below(50)).expect("small");
    let server = u16::try_from(random.below(300)).expect("small");
    let v6 = random.below(5) == 0;
    let (initiator, responder) = if v6 {
        (
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, host)),
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, server, 0, 0, 0, 1)),
        )
    } else {
        (
            IpAddr::V4(Ipv4Addr::from_bits(0xc0a8_0000 + u32::from(host))),
            IpAddr::V4(Ipv4Addr::from_bits(0x0808_0000 + 7919 * u32::from(server))),
        )
    };
    let packets = 3 + random.below(60);
    let duration = random.below(30_000);
    let is_tcp = random.below(3) != 0;
    // A server is about as far away each time.
    let rtt_us = u32::from(server) * 170 + u32::from(random.u16(80));
    let (sent, answered) = if is_tcp { ((0x1b, 0x02), (0x1b, 0x12)) } else { ((0, 0), (0, 0)) };
    Record {
        start_ms: end_ms - duration,
        end_ms,
        initiator,
        responder,
        initiator_port: 32_768 + random.u16(28_000),
        responder_port: 443,
        protocol: if is_tcp { protocol::TCP } else { protocol::UDP },
        ports_known: true,
        outer: Outer::from_vlans(Vlans([20, 0])),
        from_initiator: direction(packets, packets * 90 + random.below(500), [66, 583], sent, 64),
        from_responder: direction(
            packets,
            packets * 1200 + random.below(500),
            [66, 1514],
            answered,
            57,
        ),
        handshake: if is_tcp { Handshake::Established } else { Handshake::None },
        handshake_rtt_us: is_tcp.then_some(rtt_us),
        interface: 1,
        role: RoleEvidence::Handshake,
        end_reason: EndReason::EndOfFlow,
        folded: false,
        pseudonyms: Pseudonyms::default(),
    }
}

fn direction(
    packets: u64,
    bytes: u64,
    [length_min, length_max]: [u16; 2],
    (tcp_flags, first_flags): (u8, u8),
    ttl: u8,
) -> Direction {
    // Some web servers mark what they send.
    let dscp = if ttl == 57 { 8 } else { 0 };
    Direction {
        packets,
        bytes,
        tcp_flags,
        ttl,
        dscp,
        first_flags,
        fragmented: false,
        length_min,
        length_max,
    }
}
