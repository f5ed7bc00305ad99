//! In: a seed. Out: records as a small site has them, batch after batch: half scans from anywhere, a third pages over
//! TCP, the rest name look-ups. What the link costs hardly depends on what is in a batch.

use std::net::{IpAddr, Ipv4Addr};

use flow::{Direction, EndReason, Handshake, Outer, Record, RoleEvidence, protocol};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Records of one batch: the sensor's default.
pub(super) const BATCH_RECORDS: usize = 8_192;
/// Time of the first record: days ago for everybody, so that nothing is in the future.
const START_MS: u64 = 1_795_000_000_000;

/// Makes batches.
pub(super) struct Flows {
    random: ChaCha8Rng,
    clock_ms: u64,
}

impl Flows {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed), clock_ms: START_MS }
    }

    pub(super) fn batch(&mut self, records: usize) -> Vec<Record> {
        (0..records).map(|_| self.record()).collect()
    }

    fn record(&mut self) -> Record {
        self.clock_ms += self.random.random_range(0..2);
        match self.random.random_range(0..6) {
            0..3 => self.scan(),
            3..5 => self.page(),
            _ => self.look_up(),
        }
    }

    fn client(&mut self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, self.random.random_range(0..4), self.random.random()))
    }

    fn scan(&mut self) -> Record {
        let source: [u8; 4] = self.random.random();
        let target = IpAddr::V4(Ipv4Addr::new(192, 0, 2, self.random.random_range(1..30)));
        let ports = [22, 23, 80, 443, 445, 3389, 5060, 8080];
        let responder_port = ports[self.random.random_range(0..ports.len())];
        let ends = (IpAddr::V4(source.into()), target);
        let ttl = self.random.random_range(40..60);
        let sent = side(1, [60, 60], (2, 2), ttl);
        let handshake = (Handshake::Syn, None);
        self.of(ends, responder_port, protocol::TCP, [sent, Direction::default()], handshake, 0)
    }

    fn page(&mut self) -> Record {
        let server = self.random.random_range(0..3_000_u32);
        let ends = (self.client(), IpAddr::V4(Ipv4Addr::from_bits(0x0808_0000 + 7_919 * server)));
        let packets = self.random.random_range(4..90);
        let rtt_us = 2_000 + server * 17 + self.random.random_range(0..900);
        let sent = side(packets, [66, 583], (0x1b, 2), 64);
        let answered = side(packets + packets / 3, [66, 1_514], (0x1b, 0x12), 56);
        let duration_ms = self.random.random_range(20..30_000);
        let handshake = (Handshake::Established, Some(rtt_us));
        self.of(ends, 443, protocol::TCP, [sent, answered], handshake, duration_ms)
    }

    fn look_up(&mut self) -> Record {
        let ends = (self.client(), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53)));
        let length = self.random.random_range(70..95);
        let answer = self.random.random_range(90..400);
        let sides = [side(1, [length; 2], (0, 0), 64), side(1, [answer; 2], (0, 0), 63)];
        let duration_ms = self.random.random_range(0..40);
        self.of(ends, 53, protocol::UDP, sides, (Handshake::None, None), duration_ms)
    }

    fn of(
        &mut self,
        (initiator, responder): (IpAddr, IpAddr),
        responder_port: u16,
        protocol: u8,
        [from_initiator, from_responder]: [Direction; 2],
        (handshake, handshake_rtt_us): (Handshake, Option<u32>),
        duration_ms: u64,
    ) -> Record {
        Record {
            start_ms: self.clock_ms - duration_ms,
            end_ms: self.clock_ms,
            initiator,
            responder,
            initiator_port: self.random.random_range(32_768..61_000),
            responder_port,
            protocol,
            ports_known: true,
            outer: Outer::default(),
            from_initiator,
            from_responder,
            handshake,
            handshake_rtt_us,
            interface: 1,
            role: if protocol == protocol::TCP {
                RoleEvidence::Handshake
            } else {
                RoleEvidence::FirstPacket
            },
            end_reason: EndReason::IdleTimeout,
            folded: false,
        }
    }
}

fn side(packets: u64, lengths: [u16; 2], (tcp_flags, first_flags): (u8, u8), ttl: u8) -> Direction {
    let [length_min, length_max] = lengths;
    Direction {
        packets,
        bytes: packets * u64::from(length_min.midpoint(length_max)),
        tcp_flags,
        ttl,
        dscp: 0,
        first_flags,
        fragmented: false,
        length_min,
        length_max,
    }
}
