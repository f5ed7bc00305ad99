//! Traffic that must be found, each with the shape that its detector is meant for.

use std::net::Ipv4Addr;
use std::time::Duration;

use pnet_packet::tcp::TcpFlags;
use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use super::benign::conversation;
use super::frames::{self, Ends};
use super::{SITE_OFFICE, SITE_SERVER, Timeline};

pub(super) fn vertical_scan(timeline: &mut Timeline, random: &mut ChaCha8Rng) {
    let scanner = Ipv4Addr::new(203, 0, 113, 66);
    let mut ports: Vec<u16> = (1..=100).map(|n| n * 7).collect();
    ports.shuffle(random);
    for (attempt, port) in (0_u16..).zip(ports) {
        let at = Duration::from_millis(2_000 + u64::from(attempt) * 30);
        let ends = Ends::new((scanner, 33_000 + attempt), (SITE_SERVER, port));
        timeline.push((at, frames::tcp(ends, TcpFlags::SYN, 1, 0)));
        let refusal = frames::tcp(ends.reversed(), TcpFlags::RST | TcpFlags::ACK, 0, 0);
        timeline.push((at + Duration::from_micros(400), refusal));
    }
}

pub(super) fn password_guessing(timeline: &mut Timeline, random: &mut ChaCha8Rng) {
    let guesser = Ipv4Addr::new(203, 0, 113, 77);
    let mut at = Duration::from_secs(3);
    for attempt in 0..30 {
        let ends = Ends::new((guesser, 45_000 + attempt), (SITE_SERVER, 22));
        // Version, key exchange, and three refused passwords.
        let exchanges = [(21, 21), (1_200, 1_080), (48, 452), (64, 52), (148, 52), (148, 52)];
        let end = conversation(timeline, ends, at, &exchanges);
        at = end + Duration::from_millis(random.random_range(300..900));
    }
}

pub(super) fn syn_flood(timeline: &mut Timeline, random: &mut ChaCha8Rng) {
    for number in 0..4_800_u64 {
        let at = Duration::from_micros(4_000_000 + number * 2_500);
        // Forged sources are drawn from public unicast space, so that none belongs to the site.
        let [b, c, d]: [u8; 3] = random.random();
        let source = Ipv4Addr::new(random.random_range(11..=99), b, c, d);
        let ends = Ends::new((source, random.random_range(1_024..u16::MAX)), (SITE_SERVER, 443));
        timeline.push((at, frames::tcp(ends, TcpFlags::SYN, random.random(), 0)));
    }
}

pub(super) fn reflection(timeline: &mut Timeline, random: &mut ChaCha8Rng) {
    for number in 0..5_600_u64 {
        let at = Duration::from_micros(5_000_000 + number * 2_140);
        let reflector = Ipv4Addr::new(192, 0, 2, random.random_range(10..58));
        let ends = Ends::new((reflector, 53), (SITE_OFFICE, 40_404));
        timeline.push((at, frames::udp(ends, random.random_range(1_000..1_400), &[])));
    }
}

pub(super) fn beacon(timeline: &mut Timeline, random: &mut ChaCha8Rng) {
    let server = (Ipv4Addr::new(198, 51, 100, 9), 8_443);
    for call in 0..96_u16 {
        let jitter = random.random_range(0..120);
        let at = Duration::from_millis(1_000 + u64::from(call) * 5_000 + jitter);
        let ends = Ends::new((SITE_OFFICE, 52_000 + call), server);
        conversation(timeline, ends, at, &[(310, 180)]);
    }
}
