//! Messages read back by a decoder of the tests' own, and collectors that come and go.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use flow::{Books, Outer, Record, Vlans};
use proptest::prelude::*;

use super::super::known::Known;
use super::super::records::{all, backscatter, echo, folded, rest, tunnelled, unreachable, web};
use super::super::{Sink, SinkTotals};
use super::encoder::{Encoder, MESSAGE_BYTES_MIN};
use super::template::{Shape, data_record, template_record};
use super::{IpfixSettings, IpfixSink};
use crate::config::{Collector, Transport};

/// A field of a record: number with the bit for reverse ones, value.
type Fields = BTreeMap<(u16, bool), Vec<u8>>;
/// Number and length of the fields of each template, by its number.
type Templates = BTreeMap<u16, Vec<((u16, bool), usize)>>;

fn word(bytes: &[u8]) -> u16 {
    u16::from_be_bytes(bytes.try_into().expect("two bytes"))
}

fn long(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

/// What stands in a message: its sequence number, how many templates, and the records.
struct Decoded {
    sequence: u32,
    domain: u32,
    templates: usize,
    records: Vec<Fields>,
}

/// Reads a message by RFC 7011; fails where it contradicts itself, or uses a template that is not known.
fn decode(message: &[u8], known: &mut Templates) -> Decoded {
    assert_eq!(word(&message[0..2]), 10, "the version");
    assert_eq!(usize::from(word(&message[2..4])), message.len());
    let mut decoded = Decoded {
        sequence: long(&message[8..12]),
        domain: long(&message[12..16]),
        templates: 0,
        records: Vec::new(),
    };
    let mut sets = &message[16..];
    while !sets.is_empty() {
        let (number, length) = (word(&sets[0..2]), usize::from(word(&sets[2..4])));
        let mut body = &sets[4..length];
        sets = &sets[length..];
        while !body.is_empty() {
            if number == 2 {
                let (template, count) = (word(&body[0..2]), word(&body[2..4]));
                body = &body[4..];
                let mut fields = Vec::new();
                for _ in 0..count {
                    let (element, length) = (word(&body[0..2]), usize::from(word(&body[2..4])));
                    let reverse = element & 0x8000 != 0;
                    body = &body[4..];
                    if reverse {
                        assert_eq!(long(&body[0..4]), 29_305, "the number of RFC 5103");
                        body = &body[4..];
                    }
                    fields.push(((element & 0x7fff, reverse), length));
                }
                known.insert(template, fields);
                decoded.templates += 1;
                continue;
            }
            let fields = known.get(&number).expect("the template came before the data");
            let mut record = Fields::new();
            for (element, length) in fields {
                let twice = record.insert(*element, body[..*length].to_vec());
                assert_eq!(twice, None, "{element:?} stands once in a record");
                body = &body[*length..];
            }
            decoded.records.push(record);
        }
    }
    decoded
}

fn messages(encoder: &mut Encoder, records: &[Record]) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    for record in records {
        encoder.handle_record(record, 7, &mut |message| sent.push(message.bytes.to_vec()));
    }
    encoder.poll_message(7, &mut |message| sent.push(message.bytes.to_vec()));
    sent
}

fn one(record: Record) -> Fields {
    let sent = messages(&mut Encoder::new(1, MESSAGE_BYTES_MIN, u64::MAX), &[record]);
    assert_eq!(sent.len(), 1);
    decode(&sent[0], &mut Templates::new()).records.remove(0)
}

fn number(fields: &Fields, element: (u16, bool)) -> Option<u64> {
    let bytes = fields.get(&element)?;
    Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

#[test]
fn a_biflow_has_both_directions_and_what_is_known_of_them() {
    let fields = one(web());
    let forward = |element| number(&fields, (element, false));
    let reverse = |element| number(&fields, (element, true));
    assert_eq!(fields[&(8, false)], [192, 0, 2, 1]);
    assert_eq!(fields[&(12, false)], [198, 51, 100, 2]);
    assert_eq!((forward(7), forward(11), forward(4)), (Some(40_000), Some(443), Some(6)));
    assert_eq!((forward(152), forward(153)), (Some(1_780_000_000_007), Some(1_780_000_001_000)));
    assert_eq!((forward(1), forward(2), forward(352)), (Some(500), Some(5), Some(500)));
    assert_eq!((reverse(1), reverse(2), reverse(352)), (Some(400), Some(4), Some(400)));
    assert_eq!((forward(6), reverse(6)), (Some(0x1b), Some(0x1b)));
    assert_eq!((forward(192), forward(422), forward(423)), (Some(64), Some(60), Some(1_514)));
    assert_eq!((forward(58), forward(243), forward(245)), (Some(10), Some(10), Some(20)));
    assert_eq!((forward(239), forward(136)), (Some(1), Some(3)));
}

#[test]
fn what_is_not_known_is_not_sent() {
    let one_way = one(echo());
    assert!(one_way.keys().all(|(_, reverse)| !reverse), "nothing came back");
    assert_eq!(number(&one_way, (176, false)), Some(8));
    for absent in [7, 11, 32, 6] {
        assert!(!one_way.contains_key(&(absent, false)), "{absent}");
    }
    let error = one(unreachable());
    assert_eq!(number(&error, (139, false)), Some(0x0104), "type and code");
    let answer = one(backscatter());
    assert_eq!(number(&answer, (2, false)), Some(0), "that nothing was sent is known");
    assert!(!answer.contains_key(&(192, false)) && answer.contains_key(&(192, true)));
    assert!(!answer.contains_key(&(6, false)) && answer.contains_key(&(6, true)));
    let network = one(tunnelled());
    assert_eq!(network[&(27, false)].len(), 16);
    assert_eq!(number(&network, (351, false)), Some(0x0100_0000_0000_1389));
    let totals = one(folded());
    assert_eq!(
        (number(&totals, (44, false)), number(&totals, (9, false))),
        (Some(203 << 24), Some(8))
    );
    assert!(!totals.contains_key(&(8, false)) && !totals.contains_key(&(7, false)));
    assert_eq!(number(&totals, (6, false)), Some(2), "that there was a SYN");
    let nothing: Vec<u16> = one(rest()).keys().map(|(element, _)| *element).collect();
    assert_eq!(nothing, [1, 2, 136, 152, 153, 239, 352]);
}

#[test]
fn messages_are_bounded_count_their_records_and_bring_their_templates() {
    let records: Vec<Record> = all().into_iter().cycle().take(1_000).collect();
    for bytes_max in [MESSAGE_BYTES_MIN, 1_400, 65_507] {
        let mut encoder = Encoder::new(42, bytes_max, u64::MAX);
        let mut known = Templates::new();
        let mut seen = 0;
        let mut templates = 0;
        for message in messages(&mut encoder, &records) {
            assert!(message.len() <= bytes_max, "{} of {bytes_max}", message.len());
            let decoded = decode(&message, &mut known);
            assert_eq!((decoded.sequence, decoded.domain), (seen, 42));
            seen += u32::try_from(decoded.records.len()).expect("few");
            templates += decoded.templates;
        }
        assert_eq!((seen, templates), (1_000, known.len()), "each template once");
        encoder.repeat_templates();
        let again = messages(&mut encoder, &[web(), web(), echo()]);
        assert_eq!(decode(&again[0], &mut Templates::new()).sequence, 1_000);
        let mut known = Templates::new();
        let again: Vec<_> = again.iter().map(|message| decode(message, &mut known)).collect();
        let sum = |count: fn(&Decoded) -> usize| again.iter().map(count).sum::<usize>();
        assert_eq!((sum(|one| one.templates), sum(|one| one.records.len())), (2, 3));
    }
}

#[test]
fn templates_come_again_after_so_many_messages() {
    let records = vec![web(); 200];
    let sent = messages(&mut Encoder::new(1, 1_400, 3), &records);
    let mut known = Templates::new();
    let templates: Vec<usize> =
        sent.iter().map(|message| decode(message, &mut known).templates).collect();
    assert!(templates.len() > 9);
    assert!(templates.iter().enumerate().all(|(at, count)| *count == usize::from(at % 3 == 0)));
}

proptest! {
    #[test]
    fn any_record_fits_its_template_and_the_template_depends_on_the_shape_alone(
        which in 0..all().len(),
        other in 0..all().len(),
        vlans: [u16; 2],
        protocol: u8,
        ports_known: bool,
        packets: [u64; 2],
    ) {
        let mut record = all()[which];
        record.outer = Outer::from_vlans(Vlans(vlans.map(|tag| tag % 4_095)));
        (record.protocol, record.ports_known) = (protocol, ports_known);
        (record.from_initiator.packets, record.from_responder.packets) = (packets[0], packets[1]);
        let known = Known::of(&record);
        let shape = Shape::of(&known);
        let (mut template, mut data) = (Vec::new(), Vec::new());
        template_record(shape, &known, &mut template);
        data_record(shape, &known, &mut data);
        let mut stranger = Vec::new();
        template_record(shape, &Known::of(&all()[other]), &mut stranger);
        prop_assert_eq!(&template, &stranger);
        let mut message = vec![0, 10, 0, 0];
        message.extend([0; 12]);
        for (set, body) in [(2, &template), (shape.template(), &data)] {
            message.extend(set.to_be_bytes());
            message.extend(u16::try_from(body.len() + 4).expect("short").to_be_bytes());
            message.extend(body);
        }
        let length = u16::try_from(message.len()).expect("short");
        message[2..4].copy_from_slice(&length.to_be_bytes());
        prop_assert!(message.len() <= MESSAGE_BYTES_MIN);
        prop_assert_eq!(decode(&message, &mut Templates::new()).records.len(), 1);
    }
}

fn settings(transport: Transport, address: SocketAddr) -> IpfixSettings {
    let scheme = if transport == Transport::Udp { "udp" } else { "tcp" };
    let collector: Collector = format!("{scheme}://{address}").parse().expect("an address");
    IpfixSettings {
        collector,
        domain: 1,
        message_bytes_max: 1_400,
        template_interval: Duration::from_hours(1),
        template_messages: 1_000,
        patience: Duration::ZERO,
        closing_time: Duration::from_secs(10),
    }
}

const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
const PATIENCE: Duration = Duration::from_mins(1);

fn told(sink: &IpfixSink) -> (u64, u64) {
    let SinkTotals { records_exported, records_unsent, .. } = sink.totals();
    (records_exported, records_unsent)
}

fn hand_over(sink: &mut IpfixSink, records: &[Record]) {
    sink.handle_records(records, &Books::default(), 0).expect("it takes everything");
}

#[test]
fn datagrams_bring_every_record() {
    let socket = UdpSocket::bind(ANY_PORT).expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let address = socket.local_addr().expect("it is bound");
    let mut settings = settings(Transport::Udp, address);
    settings.template_messages = 1;
    let mut sink = IpfixSink::start(settings).expect("there is a socket");
    hand_over(&mut sink, &all());
    hand_over(&mut sink, &vec![web(); 90]);
    sink.finish(&Books::default(), 0).expect("somebody listens");
    let mut seen = 0;
    while seen < 100 {
        let mut message = vec![0; 2_000];
        let length = socket.recv(&mut message).expect("all of them come");
        // Templates come again with every message: each can be read without the others.
        let decoded = decode(&message[..length], &mut Templates::new());
        assert_eq!(decoded.sequence, seen);
        seen += u32::try_from(decoded.records.len()).expect("few");
    }
    assert_eq!(told(&sink), (100, 0));
}

#[test]
fn datagrams_to_nobody_are_counted() {
    let socket = UdpSocket::bind(ANY_PORT).expect("a port");
    let address = socket.local_addr().expect("it is bound");
    drop(socket);
    let mut sink = IpfixSink::start(settings(Transport::Udp, address)).expect("there is a socket");
    hand_over(&mut sink, &vec![web(); 1_000]);
    let ended = sink.finish(&Books::default(), 0);
    let (exported, unsent) = told(&sink);
    assert_eq!(exported + unsent, 1_000);
    // Only an answer to an earlier datagram tells that nobody listens.
    assert!(unsent > 0, "the system tells it");
    let error = ended.expect_err("it is told").to_string();
    assert_eq!(error, format!("cannot send to udp://{address}"));
}

fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut message = vec![0; 16];
    stream.read_exact(&mut message)?;
    message.resize(usize::from(word(&message[2..4])), 0);
    stream.read_exact(&mut message[16..])?;
    Ok(message)
}

#[test]
fn a_new_connection_is_a_new_session_and_what_fell_between_is_counted() {
    let listener = TcpListener::bind(ANY_PORT).expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let mut sink = IpfixSink::start(settings(Transport::Tcp, address)).expect("a thread");
    let (tell, second) = crossbeam_channel::bounded(1);
    let collector = thread::spawn(move || -> io::Result<Vec<Vec<u8>>> {
        let (mut first, _) = listener.accept()?;
        let mut sessions = vec![read_message(&mut first)?];
        drop(first);
        let (mut stream, _) = listener.accept()?;
        sessions.push(read_message(&mut stream)?);
        let _enough = tell.send(());
        while let Ok(message) = read_message(&mut stream) {
            sessions.push(message);
        }
        Ok(sessions)
    });
    let mut handed = 0;
    // Something new every now and then, until the second session is seen.
    while second.recv_timeout(Duration::from_millis(20)).is_err() {
        hand_over(&mut sink, &[web(), echo()]);
        handed += 2;
        assert!(handed < 20_000 && !collector.is_finished(), "no second session");
    }
    sink.finish(&Books::default(), 0).expect("the second session works");
    let (exported, unsent) = told(&sink);
    assert_eq!(exported + unsent, handed);
    let sessions = collector.join().expect("no panic").expect("both sessions came");
    for message in &sessions[..2] {
        let decoded = decode(message, &mut Templates::new());
        assert_eq!(decoded.sequence, 0);
        assert!(decoded.templates > 0);
    }
    let mut known = Templates::new();
    let arrived: usize =
        sessions[1..].iter().map(|message| decode(message, &mut known).records.len()).sum();
    assert!(arrived as u64 <= exported);
}

#[test]
fn a_collector_that_is_away_stops_nobody_and_everything_is_counted() {
    let listener = TcpListener::bind(ANY_PORT).expect("a port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let mut settings = settings(Transport::Tcp, address);
    settings.closing_time = Duration::ZERO;
    let mut sink = IpfixSink::start(settings).expect("a thread");
    let batch = vec![web(); 1_000];
    for _ in 0..200 {
        hand_over(&mut sink, &batch);
    }
    let began = Instant::now();
    while !sink.still_fails() {
        assert!(began.elapsed() < PATIENCE, "it has tried to connect");
        thread::yield_now();
    }
    let before = told(&sink);
    assert!(before.1 >= 100_000, "the queue is bounded: {before:?}");
    let error = sink.finish(&Books::default(), 0).expect_err("nobody was there").to_string();
    assert_eq!(error, format!("cannot send to tcp://{address}"));
    assert_eq!(told(&sink), (0, 200_000));
    assert!(sink.recovers() && sink.still_fails());
}

#[test]
fn a_collector_that_reads_nothing_does_not_hold_up_the_flows() {
    let listener = TcpListener::bind(ANY_PORT).expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let mut settings = settings(Transport::Tcp, address);
    settings.closing_time = Duration::ZERO;
    let mut sink = IpfixSink::start(settings).expect("a thread");
    let (stream, _) = listener.accept().expect("the sink connects");
    let batch = vec![web(); 1_000];
    let mut handed = 0;
    while told(&sink).1 == 0 {
        hand_over(&mut sink, &batch);
        handed += 1_000;
        assert!(handed < 100_000_000, "buffers end somewhere");
    }
    drop(stream);
    let _told = sink.finish(&Books::default(), 0);
    let (exported, unsent) = told(&sink);
    assert_eq!(exported + unsent, handed);
}
