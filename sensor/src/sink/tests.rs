//! The JSON line, and how outputs fail.

use std::io;
use std::sync::{Arc, Mutex};

use expect_test::expect;
use flow::{
    Books, Direction, EndReason, Handshake, Kind, LinkLayer, Outer, Parsed, Record, RoleEvidence,
    Vlans, parse,
};

use super::json::is_one_way;
use super::{JsonSink, Outputs, Sink, SinkError};

fn record() -> Record {
    let side = |packets| Direction {
        packets,
        bytes: packets * 100,
        tcp_flags: 0x1b,
        ttl: 64,
        dscp: 10,
        first_flags: 0x02,
        fragmented: false,
        length_min: 60,
        length_max: 1_514,
    };
    Record {
        start_ms: 1_780_000_000_007,
        end_ms: 1_780_000_001_000,
        initiator: "192.0.2.1".parse().expect("a literal address"),
        responder: "198.51.100.2".parse().expect("a literal address"),
        initiator_port: 40_000,
        responder_port: 443,
        protocol: 6,
        ports_known: true,
        outer: Outer::from_vlans(Vlans([10, 20])),
        from_initiator: side(5),
        from_responder: side(4),
        handshake: Handshake::Established,
        handshake_rtt_us: Some(23_456),
        interface: 1,
        role: RoleEvidence::Handshake,
        end_reason: EndReason::EndOfFlow,
        folded: false,
    }
}

fn lines(records: &[Record]) -> String {
    let mut text = Vec::new();
    JsonSink::new(&mut text)
        .handle_records(records, &Books::default(), 0)
        .expect("memory takes everything");
    String::from_utf8(text).expect("JSON is UTF-8")
}

#[test]
fn one_line_a_record_and_nothing_unknown_as_zero() {
    let fragment = Record {
        protocol: 17,
        ports_known: false,
        initiator_port: 0,
        responder_port: 0,
        outer: Outer::default(),
        from_initiator: Direction { fragmented: true, first_flags: 0, ..record().from_initiator },
        from_responder: Direction::default(),
        handshake: Handshake::None,
        handshake_rtt_us: None,
        interface: 0,
        role: RoleEvidence::FirstPacket,
        end_reason: EndReason::IdleTimeout,
        folded: false,
        ..record()
    };
    let beyond_calendars = Record { start_ms: u64::MAX, end_ms: u64::MAX, ..fragment };
    expect![[r#"
        {"start_time":"2026-05-28T20:26:40.007Z","end_time":"2026-05-28T20:26:41.000Z","community_id":"1:NbXPA3TEXRmHZI919Uo5iaoB4Q0=","protocol":6,"initiator":"192.0.2.1","initiator_port":40000,"responder":"198.51.100.2","responder_port":443,"vlan_outer":10,"vlan_inner":20,"initiator_packets":5,"initiator_bytes":500,"initiator_tcp_flags":27,"initiator_ttl":64,"initiator_dscp":10,"initiator_first_flags":2,"initiator_length_min":60,"initiator_length_max":1514,"responder_packets":4,"responder_bytes":400,"responder_tcp_flags":27,"responder_ttl":64,"responder_dscp":10,"responder_first_flags":2,"responder_length_min":60,"responder_length_max":1514,"handshake":"established","handshake_rtt_us":23456,"interface":1,"role":"handshake","end_reason":"end_of_flow"}
        {"start_time":"2026-05-28T20:26:40.007Z","end_time":"2026-05-28T20:26:41.000Z","community_id":"1:kyPi0/wQVtWr/5xt65XE533xAnM=","protocol":17,"initiator":"192.0.2.1","responder":"198.51.100.2","initiator_packets":5,"initiator_bytes":500,"initiator_ttl":64,"initiator_dscp":10,"initiator_fragmented":true,"initiator_length_min":60,"initiator_length_max":1514,"responder_packets":0,"responder_bytes":0,"role":"first_packet","end_reason":"idle_timeout"}
        {"start_time":null,"end_time":null,"community_id":"1:kyPi0/wQVtWr/5xt65XE533xAnM=","protocol":17,"initiator":"192.0.2.1","responder":"198.51.100.2","initiator_packets":5,"initiator_bytes":500,"initiator_ttl":64,"initiator_dscp":10,"initiator_fragmented":true,"initiator_length_min":60,"initiator_length_max":1514,"responder_packets":0,"responder_bytes":0,"role":"first_packet","end_reason":"idle_timeout"}
    "#]].assert_eq(&lines(&[record(), fragment, beyond_calendars]));
}

#[test]
fn icmp_that_asks_for_no_answer_is_told_as_the_parser_tells_it() {
    for (protocol, is_v6) in [(1_u8, false), (58, true)] {
        for message in 0..=255_u8 {
            let mut frame = vec![0; if is_v6 { 40 } else { 20 }];
            if is_v6 {
                (frame[0], frame[6]) = (0x60, protocol);
            } else {
                (frame[0], frame[9]) = (0x45, protocol);
            }
            frame.extend([message, 0]);
            let ethertype = if is_v6 { 0x86dd } else { 0x0800 };
            let parsed = parse(frame.as_slice(), LinkLayer::Network { offset: 0, ethertype });
            let Parsed::Ip(packet) = parsed else {
                unreachable!("a whole IP header parses: {parsed:?}")
            };
            let told = Record { protocol, initiator_port: u16::from(message), ..record() };
            assert_eq!(
                is_one_way(&told),
                packet.key.kind().has(Kind::ONE_WAY),
                "{protocol} {message}"
            );
        }
    }
}

/// Fails for a while.
struct Faulty {
    calls: Arc<Mutex<Vec<usize>>>,
    failures_left: usize,
    recovers: bool,
}

impl Sink for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn handle_records(&mut self, records: &[Record], _: &Books, _: u64) -> Result<(), SinkError> {
        if self.failures_left > 0 {
            self.failures_left -= 1;
            return Err(SinkError::Write(io::Error::from(io::ErrorKind::StorageFull)));
        }
        self.calls.lock().expect("no other test holds it").push(records.len());
        Ok(())
    }

    fn advance(&mut self, _books: &Books, _now_ms: u64) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self, _books: &Books, _now_ms: u64) -> Result<(), SinkError> {
        Ok(())
    }

    fn recovers(&self) -> bool {
        self.recovers
    }
}

/// Fails at every seal; takes records in between without trying.
struct FullDisk;

impl Sink for FullDisk {
    fn name(&self) -> &'static str {
        "full"
    }

    fn handle_records(&mut self, _: &[Record], _: &Books, _: u64) -> Result<(), SinkError> {
        Ok(())
    }

    fn advance(&mut self, _books: &Books, _now_ms: u64) -> Result<(), SinkError> {
        Err(SinkError::Write(io::Error::from(io::ErrorKind::StorageFull)))
    }

    fn finish(&mut self, _books: &Books, _now_ms: u64) -> Result<(), SinkError> {
        Ok(())
    }

    fn recovers(&self) -> bool {
        true
    }

    fn still_fails(&self) -> bool {
        true
    }
}

#[test]
fn a_fault_that_lasts_is_told_once() {
    let mut outputs = Outputs::new(vec![Box::new(FullDisk)]);
    for now_ms in 1..=3 {
        outputs.handle_record(record());
        outputs.advance(&Books::default(), now_ms);
        assert!(outputs.each_output[0].failing, "records taken unwritten do not end the fault");
    }
    assert_eq!(outputs.failures(), 3);
    assert_eq!(outputs.faults().count(), 1);
}

#[test]
fn a_failing_output_is_counted_and_stops_no_other() {
    let (good, dead, shaky) = <(Arc<Mutex<Vec<usize>>>, Arc<Mutex<_>>, Arc<Mutex<_>>)>::default();
    let sink = |calls: &Arc<Mutex<Vec<usize>>>, failures_left, recovers| -> Box<dyn Sink> {
        Box::new(Faulty { calls: Arc::clone(calls), failures_left, recovers })
    };
    let mut outputs =
        Outputs::new(vec![sink(&dead, 1, false), sink(&good, 0, false), sink(&shaky, 1, true)]);
    for _ in 0..3 {
        outputs.handle_record(record());
        outputs.advance(&Books::default(), 1);
    }
    outputs.finish(&Books::default(), 2);
    let calls = |of: &Arc<Mutex<Vec<usize>>>| of.lock().expect("the outputs are done").clone();
    assert_eq!((calls(&dead), calls(&good), calls(&shaky)), (vec![], vec![1, 1, 1], vec![1, 1]));
    assert_eq!((outputs.failures(), outputs.records_missed()), (2, 3));
    let faults: Vec<String> = outputs.faults().collect();
    assert_eq!(faults.len(), 1, "the one that works again is no fault: {faults:?}");
    assert_eq!(outputs.books().records_out, 3);
    assert!(!outputs.all_dead());
}
