//! Traffic that must raise nothing: page loads, look-ups, and frames that a port sees beside IP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pnet_packet::tcp::TcpFlags;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::frames::{self, Ends};
use super::{SITE_OFFICE, Timeline};

/// Bytes of a segment that fit an Ethernet frame behind IPv6 and TCP headers.
const SEGMENT: usize = 1_400;

/// One TCP conversation from SYN to both FINs; `exchanges` are (request bytes, answer bytes).
/// Returns when the last frame was sent.
pub(super) fn conversation(
    timeline: &mut Timeline,
    ends: Ends,
    start: Duration,
    exchanges: &[(usize, usize)],
) -> Duration {
    let mut at = start;
    let mut sequences = [1_000_u32, 9_000_u32];
    let mut send = |from_client: bool, flags: u8, payload: usize| {
        let ends = if from_client { ends } else { ends.reversed() };
        let sequence = &mut sequences[usize::from(!from_client)];
        timeline.push((at, frames::tcp(ends, flags, *sequence, payload)));
        let used = u32::try_from(payload).expect("a segment is short")
            + u32::from(flags & (TcpFlags::SYN | TcpFlags::FIN) != 0);
        *sequence = sequence.wrapping_add(used);
        at += Duration::from_micros(700);
    };
    send(true, TcpFlags::SYN, 0);
    send(false, TcpFlags::SYN | TcpFlags::ACK, 0);
    send(true, TcpFlags::ACK, 0);
    for (request, answer) in exchanges {
        send(true, TcpFlags::ACK | TcpFlags::PSH, *request);
        let mut left = *answer;
        while left > 0 {
            let now = left.min(SEGMENT);
            send(false, TcpFlags::ACK, now);
            left -= now;
        }
        send(true, TcpFlags::ACK, 0);
    }
    send(true, TcpFlags::FIN | TcpFlags::ACK, 0);
    send(false, TcpFlags::FIN | TcpFlags::ACK, 0);
    send(true, TcpFlags::ACK, 0);
    at
}

fn page_loads(
    timeline: &mut Timeline,
    random: &mut ChaCha8Rng,
    client: impl Fn(u16) -> IpAddr,
    server: IpAddr,
) {
    let mut at = Duration::from_millis(100);
    for visit in 0..40_u16 {
        let ends = Ends::new((client(visit % 7), 40_000 + visit), (server, 443));
        let exchanges: Vec<_> = (0..random.random_range(1..6))
            .map(|_| (random.random_range(200..900), random.random_range(500..60_000)))
            .collect();
        conversation(timeline, ends, at, &exchanges);
        at += Duration::from_millis(random.random_range(20..900));
    }
}

pub(super) fn pages(timeline: &mut Timeline, random: &mut ChaCha8Rng) {
    let server = Ipv4Addr::new(198, 51, 100, 80).into();
    page_loads(
        timeline,
        random,
        |n| Ipv4Addr::new(10, 20, 0, 30 + n.to_be_bytes()[1]).into(),
        server,
    );
}

pub(super) fn pages_v6(timeline: &mut Timeline, random: &mut ChaCha8Rng) {
    let server = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0x80).into();
    let client = |n| Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0x30 + n).into();
    page_loads(timeline, random, client, server);
}

pub(super) fn tagged_lookups(timeline: &mut Timeline, random: &mut ChaCha8Rng) {
    let resolver = (Ipv4Addr::new(198, 51, 100, 53), 53);
    for query in 0..60_u16 {
        let at = Duration::from_millis(u64::from(query) * 150 + random.random_range(0..100));
        let vlans: &[u16] = if query % 3 == 0 { &[200, 30] } else { &[100] };
        let ends = Ends::new((SITE_OFFICE, 50_000 + query), resolver);
        timeline.push((at, frames::udp(ends, 40, vlans)));
        let answer_at = at + Duration::from_millis(9);
        timeline.push((answer_at, frames::udp(ends.reversed(), 120, vlans)));
    }
}

pub(super) fn many_flows(timeline: &mut Timeline, random: &mut ChaCha8Rng) {
    let resolver = (Ipv4Addr::new(198, 51, 100, 53), 53);
    for query in 0..200_000_u64 {
        let at = Duration::from_micros(query * 500);
        let [.., third, fourth] = (query % 4_000).to_be_bytes();
        // Address and port together name the query: no two are one flow.
        let port = u16::try_from(1_024 + query / 4_000).expect("50 rounds of 4,000 clients");
        let ends = Ends::new((Ipv4Addr::new(10, 20, third, fourth), port), resolver);
        timeline.push((at, frames::udp(ends, random.random_range(20..60), &[])));
        let answer_at = at + Duration::from_millis(7);
        timeline.push((answer_at, frames::udp(ends.reversed(), random.random_range(60..400), &[])));
    }
}

pub(super) fn oddities(timeline: &mut Timeline) {
    const ARP: u16 = 0x0806;
    const LLDP: u16 = 0x88cc;
    for second in 0..10 {
        timeline
            .push((Duration::from_secs(second), frames::ethernet(ARP, &[0, 1, 8, 0, 6, 4, 0, 1])));
        timeline.push((
            Duration::from_millis(second * 1_000 + 300),
            frames::ethernet(LLDP, &[2, 7, 4]),
        ));
    }
    let broken: [&[u8]; 3] = [
        // IPv6 under the EtherType of IPv4.
        &[0x60, 0, 0, 0],
        // A header length of 16 bytes.
        &[0x44, 0, 0, 40],
        // A total length of 12 bytes, shorter than the header.
        &[0x45, 0, 0, 12],
    ];
    for (index, start) in (1_u64..).zip(broken) {
        timeline.push((Duration::from_millis(index * 1_500), frames::ethernet(0x0800, start)));
    }
}
