//! In: a seed. Out: the records that a sensor at the Internet line of an organisation seals, batch after batch.
//!
//! **What it is to show**: how small and how fast the formats are on traffic as it is, not at their best. So nothing is
//! rounder than on a wire: times, counts and round-trip times are spread as measured ones are, clients' ports are drawn
//! from the whole ephemeral range, and scans come from random addresses, four bytes each that nothing shortens.
//!
//! **The site**: 1,024 clients behind one line, a quarter of their flows over IPv6 with privacy addresses, a few
//! public servers, two resolvers; one mirror port, no VLAN tag; 2,000 records a second. **The world**: 65,536
//! servers, the n-th asked about 1/n as often as the first; each has its distance (TTL, round-trip time) and
//! keeps it, but for jitter.
//!
//! | of 1,000 records | kind | what is particular |
//! |---|---|---|
//! | 290 | pages over TCP | 10 ms to minutes, 3 to thousands of packets, handshake timed, long ones cut |
//! | 110 | QUIC | the same without handshake |
//! | 240 | name look-ups | a packet each way: two resolvers to the world, or clients to public ones |
//! | 150 | scans | one or two SYN or one datagram from a random address, no answer or RST |
//! | 60 | the site's public servers, asked from the world | |
//! | 50 | connections that are kept open | parts of a minute with a few packets: push, chat, SSH |
//! | 30 | mail | |
//! | 25 | NTP and other small datagrams | |
//! | 20 | echo and other ICMP | |
//! | 15 | late packets of flows that ended | one or two, no handshake, roles by port |
//! | 10 | tunnels (`WireGuard`, ESP) | parts of a minute with thousands of packets |
//!
//! Records come in the order in which a sensor writes them: those cut by the active timeout at once, those that
//! end with FIN or RST 2 s later, the others after the idle timeout of 15 s: so far their ends lie behind.

mod draw;
mod kinds;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flow::{Direction, EndReason, Handshake, Outer, Pseudonyms, Record, RoleEvidence};

use draw::{Draw, Quantiles};

/// 2026-01-05 09:00:00 UTC, a Monday morning.
const START_MS: u64 = 1_767_603_600_000;
/// Records a second.
const RATE: u32 = 2_000;
const IDLE_TIMEOUT_MS: u64 = 15_000;
/// How long a flow that has ended waits for late packets.
const LINGER_MS: u64 = 2_000;
const ACTIVE_TIMEOUT_MS: u32 = 60_000;
/// How long after a flow's end its record is written at most: the sensor's epoch.
const EPOCH_MS: u32 = 250;
/// Servers of the world, as a power of two.
const SERVERS_LOG2: u32 = 16;
const CLIENTS_LOG2: u32 = 10;

/// Makes records, one batch after another.
#[derive(Debug)]
pub(crate) struct Mix {
    draw: Draw,
    /// When the next record is written, microseconds after the start.
    clock_us: u64,
}

/// Somebody that flows begin or end at.
#[derive(Clone, Copy, Debug)]
struct Host {
    address: IpAddr,
    ttl: u8,
    /// Microseconds from the mirror port to it and back, without jitter.
    rtt_us: u32,
    /// Bytes of a TCP segment without data, as the mirror port sees it.
    bare: u16,
}

impl Mix {
    pub(crate) fn new(seed: u64) -> Self {
        Self { draw: Draw::new(seed), clock_us: 0 }
    }

    /// The next records, in the order in which a sensor writes them.
    pub(crate) fn records(&mut self, count: usize) -> Vec<Record> {
        (0..count).map(|_| self.record()).collect()
    }

    fn record(&mut self) -> Record {
        // Twice the mean at most, half of it on average too little: as irregular as arrivals are.
        self.clock_us += u64::from(self.draw.below(2_000_000 / RATE));
        let mut record = kinds::record(&mut self.draw);
        // Until now the end is that of the flow in milliseconds after its start.
        let duration_ms = record.end_ms;
        let waited_ms = match record.end_reason {
            EndReason::IdleTimeout => IDLE_TIMEOUT_MS,
            EndReason::EndOfFlow => LINGER_MS,
            _ => 0,
        };
        let behind_ms = waited_ms + u64::from(self.draw.below(EPOCH_MS));
        record.end_ms = START_MS + self.clock_us / 1_000 - behind_ms;
        record.start_ms = record.end_ms - duration_ms;
        record
    }
}

/// A machine of the site that asks, v6 or not.
fn client(draw: &mut Draw, is_v6: bool) -> Host {
    let number = draw.rank(CLIENTS_LOG2);
    // Three in four have a system that begins at 64 and sends TCP timestamps.
    let has_timestamps = number % 4 != 3;
    let address = if is_v6 {
        IpAddr::V6(Ipv6Addr::from_bits(
            0x2001_0db8_0020_0000 << 64 | u128::from(scattered(number.into())),
        ))
    } else {
        IpAddr::V4(Ipv4Addr::from_bits(0x0a14_0000 + number * 5))
    };
    Host {
        address,
        ttl: if has_timestamps { 63 } else { 127 },
        rtt_us: 400,
        bare: bare(is_v6, has_timestamps),
    }
}

/// A server of the world.
fn server(draw: &mut Draw, is_v6: bool) -> Host {
    let rank = draw.rank(SERVERS_LOG2);
    outside(rank, is_v6)
}

/// The outside host of this number, always the same.
fn outside(number: u32, is_v6: bool) -> Host {
    let lots = scattered(u64::from(number) + 1_000_000);
    let mut own = Draw::new(lots);
    let hops = own.below(14) + 6;
    let first = own.weighted(&[(80, 64), (14, 128), (6, 255)]);
    let address = if is_v6 {
        let network = 0x2600_0000_0000_0000 | u128::from(lots >> 20 & 0xfff_ffff) << 24;
        IpAddr::V6(Ipv6Addr::from_bits(network << 64 | u128::from(lots & 0xffff)))
    } else {
        let [a, b, c, d] = u32::to_be_bytes((lots & 0xffff_ffff) as u32);
        IpAddr::V4(Ipv4Addr::new(1 + a % 223, b, c, d))
    };
    let rtt_us =
        own.spread(Quantiles([1_500, 4_000, 9_000, 18_000, 38_000, 110_000, 220_000, 320_000]));
    Host {
        address,
        ttl: u8::try_from(first - hops).expect("at most 255"),
        rtt_us,
        bare: bare(is_v6, own.percent(85)),
    }
}

/// Bytes of a TCP segment without data: Ethernet, IP, TCP, timestamps.
fn bare(is_v6: bool, has_timestamps: bool) -> u16 {
    14 + if is_v6 { 40 } else { 20 } + 20 + if has_timestamps { 12 } else { 0 }
}

/// The same number each time, far from those of its neighbours (the finisher of `SplitMix64`).
fn scattered(number: u64) -> u64 {
    let x = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// A record with nothing in it but who speaks to whom; `end_ms` is how long the flow takes.
fn between(initiator: Host, responder: Host, ports: [u16; 2], protocol: u8) -> Record {
    Record {
        start_ms: 0,
        end_ms: 0,
        initiator: initiator.address,
        responder: responder.address,
        initiator_port: ports[0],
        responder_port: ports[1],
        protocol,
        ports_known: true,
        outer: Outer::default(),
        from_initiator: Direction { ttl: initiator.ttl, ..Direction::default() },
        from_responder: Direction { ttl: responder.ttl, ..Direction::default() },
        handshake: Handshake::None,
        handshake_rtt_us: None,
        interface: 1,
        role: RoleEvidence::FirstPacket,
        end_reason: EndReason::IdleTimeout,
        folded: false,
        pseudonyms: Pseudonyms::default(),
    }
}

#[cfg(test)]
mod tests;
