//! Flows for the tests of this module, made in one place.

use std::net::{IpAddr, SocketAddr};

use flow::{
    Address, FlowKey, Handshake, Kind, Observation, Outer, Record, TcpSeen, protocol, tcp_flag,
};

use super::feed::Picture;
use super::rate::{Amount, Clock, History};
use super::tracker::{Flow, FlowId, Tracked, Tracker};
use crate::aggregate::{ApartBy, Watched};
use crate::summary::Summary;

/// When the samples begin, milliseconds since the Unix epoch.
pub(super) const START_MS: u64 = 1_780_000_000_000;

/// One direction of a flow, and what of it was seen.
pub(super) fn seen(
    from: &str,
    to: &str,
    number: u8,
    flags: u8,
    amount: (u64, u64),
    ms: (u64, u64),
) -> Observation {
    let ends: [SocketAddr; 2] = [from, to].map(|end| end.parse().expect("a sample's address"));
    let [source, destination] = ends.map(|end| end.ip());
    let kind = if matches!(source, IpAddr::V4(_)) { Kind::V4 } else { Kind::default() };
    let ports = ends.map(|end| end.port());
    let key =
        FlowKey::new(Address::from(source), Address::from(destination), ports, number, kind, 0);
    let (packets, bytes) = amount;
    let length = u16::try_from(bytes / packets).unwrap_or(u16::MAX);
    Observation {
        key,
        outer: Outer::default(),
        packets,
        bytes,
        first_ms: START_MS + ms.0,
        last_ms: START_MS + ms.1,
        tcp: if number == protocol::TCP { TcpSeen::from_flags(flags) } else { TcpSeen::default() },
        first_flags: flags,
        ttl: 64,
        length_min: length,
        length_max: length,
        ..Observation::default()
    }
}

/// Whose packets an observation has, and which way.
pub(super) fn id(seen: &Observation) -> (FlowId, bool) {
    let (key, reversed) = seen.key.canonical();
    ((key, seen.outer), reversed)
}

/// A TCP flow whose opening was not seen.
pub(super) fn record(initiator: &str, responder: &str) -> Record {
    let amount = (1, 100);
    let there = seen(initiator, responder, protocol::TCP, tcp_flag::ACK, amount, (0, 0));
    let back = seen(responder, initiator, protocol::TCP, tcp_flag::ACK, amount, (1, 1));
    let ((key, outer), reversed) = id(&there);
    let mut watched = Watched::new(key, outer);
    watched.handle(&there, reversed);
    watched.handle(&back, !reversed);
    let record = watched.record();
    assert_eq!(record.handshake, Handshake::None);
    record
}

/// Some flows of an office, as they stand after half a minute.
pub(super) fn tracked() -> Tracked {
    let mut tracker = Tracker::new(100, ApartBy::Conversation);
    let (syn, ack) = (tcp_flag::SYN, tcp_flag::ACK);
    let (web, client) = ("192.0.2.10:443", "10.1.0.7:51000");
    let (resolver, asker) = ("10.1.0.53:53", "10.1.0.7:40001");
    let (six, other) = ("[2001:db8:0:1::7]:52000", "[2001:db8:beef:cafe:1234:5678:9abc:def0]:443");
    tracker.handle_observations(&[
        seen(client, web, protocol::TCP, syn, (1, 74), (0, 0)),
        seen(web, client, protocol::TCP, syn | ack, (1, 74), (20, 20)),
        seen(asker, resolver, protocol::UDP, 0, (1, 80), (100, 100)),
        seen(resolver, asker, protocol::UDP, 0, (1, 240), (130, 130)),
        seen("203.0.113.9:44000", "10.1.0.20:22", protocol::TCP, syn, (3, 222), (200, 900)),
    ]);
    for second in 1..=30 {
        tracker.advance(START_MS + second * 1_000);
        let ms = (second * 1_000, second * 1_000 + 900);
        tracker.handle_observations(&[
            seen(client, web, protocol::TCP, ack, (100, 6_600), ms),
            seen(web, client, protocol::TCP, ack, (400, 600_000), ms),
            seen(six, other, protocol::UDP, 0, (50, 60_000), ms),
        ]);
    }
    tracker.advance(START_MS + 31_000);
    tracker.snapshot()
}

/// The picture of them, of a port that misses a little.
pub(super) fn picture() -> Picture {
    let tracked = tracked();
    let mut history = History::default();
    for second in 1..=31 {
        let came = [(second % 8) * 100, (second % 8) * 800_000, second % 3, (second % 8) * 101];
        history.handle(at(second * 1_000), START_MS + (second - 1) * 1_000, came);
    }
    Picture {
        tracked,
        rate: Amount::new(550, 666_600),
        flows_and_frames: Amount::new(2, 551),
        history,
        summary: Summary {
            command: "top",
            xdp_mode: Some("native"),
            nic_received: Some(16_600),
            nic_missed: None,
            frames_seen: 16_600,
            packets_ip: 16_508,
            packets_in_flows: 16_508,
            packets_not_ip: 90,
            packets_malformed: 2,
            not_ip: [("arp", 90)].into(),
            malformed: [("ip_header_cut", 2), ("version_unknown", 0)].into(),
            packets_folded: 1_234,
            flows_open: 4,
            flows_open_max: 1_000_000,
            flows_opened: 4,
            epochs: 124,
            epoch_ms: Some(250),
            log_fill_permille: Some(3),
            log_fill_permille_max: Some(120),
            ..Summary::default()
        },
        position: None,
    }
}

/// A flow of the list, by its initiator's port.
pub(super) fn by_port(tracked: &Tracked, port: u16) -> Flow {
    let mut found = tracked.flows.iter().filter(|flow| flow.record.initiator_port == port);
    *found.next().expect("a flow of the sample")
}

/// All that is held and all that went.
pub(super) fn all(tracked: &Tracked) -> Amount {
    let held = tracked.flows.iter().map(|flow| {
        let Record { from_initiator: there, from_responder: back, .. } = flow.record;
        Amount::new(there.packets + back.packets, there.bytes + back.bytes)
    });
    let gone = tracked.gone.protocols.iter().map(|(_, sums)| sums.totals[0] + sums.totals[1]);
    held.chain(gone).fold(Amount::default(), |sum, one| sum + one)
}

/// A moment of the samples.
pub(super) const fn at(ms: u64) -> Clock {
    Clock { start_ms: START_MS, now_ms: START_MS + ms }
}
