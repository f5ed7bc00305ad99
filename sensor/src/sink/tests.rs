//! How outputs fail, and which ICMP messages ask for no answer.

use std::io;
use std::sync::{Arc, Mutex};

use flow::{Books, Kind, LinkLayer, Parsed, Record, parse};

use super::known::is_one_way;
use super::records::web as record;
use super::{Outputs, Sink, SinkError};

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

fn full() -> SinkError {
    SinkError::Write { to: "a file".to_owned(), source: io::ErrorKind::StorageFull.into() }
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
            return Err(full());
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
        Err(full())
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
