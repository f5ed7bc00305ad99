//! Takes bytes as settings, observations and epochs; checks that no packet and no byte is lost or counted
//! twice, that the table keeps its bound, and that one by one and many at once are the same.

use flow::{
    Address, FlowKey, Kind, Observation, OpeningTime, Outer, Record, TcpSeen, Vlans, protocol,
};
use sensor::{Aggregator, AggregatorSettings, ApartBy, FlowTable as _};

/// Steps that are taken: an input of any length ends.
const STEPS_MAX: usize = 4_096;
/// Flows that the smallest tables hold.
const FLOWS_MAX: u8 = 64;

/// A step of the input.
enum Step {
    Seen(Observation),
    /// An epoch ends so much later.
    Advance(u64),
    /// The capture is another one from here.
    Finish,
}

/// Runs the steps that the bytes say, twice.
pub fn aggregator(data: &[u8]) {
    let mut bytes = Bytes(data);
    let settings = AggregatorSettings {
        active_timeout_ms: u64::from(bytes.half()),
        idle_timeout_ms: u64::from(bytes.half()),
        linger_ms: u64::from(bytes.half()),
        flows_open_max: u32::from(bytes.byte() % FLOWS_MAX),
        apart_by: match bytes.byte() % 3 {
            0 => ApartBy::Everything,
            1 => ApartBy::Conversation,
            _ => ApartBy::Nothing,
        },
    };
    let mut steps = Vec::new();
    let mut now_ms = 1_780_000_000_000;
    while !bytes.0.is_empty() && steps.len() < STEPS_MAX {
        steps.push(step(&mut bytes, &mut now_ms));
    }
    let single = run(settings, &steps, false);
    let batched = run(settings, &steps, true);
    assert_eq!(single, batched, "many at once are as one by one");
}

fn run(settings: AggregatorSettings, steps: &[Step], batched: bool) -> Vec<Record> {
    let mut records = Vec::new();
    let mut pending: Vec<Observation> = Vec::new();
    let (mut packets, mut bytes) = (0, 0);
    let mut aggregator = Aggregator::new(settings);
    let flows_max = settings.flows_open_max.max(1) as usize;
    let mut emit = |record| records.push(record);
    for step in steps {
        if !matches!(step, Step::Seen(_)) {
            aggregator.handle_observations(&pending, &mut emit);
            pending.clear();
        }
        match step {
            Step::Seen(seen) => {
                packets += seen.packets;
                bytes += seen.bytes;
                if batched {
                    pending.push(*seen);
                } else {
                    aggregator.handle_observation(seen, &mut emit);
                }
            }
            Step::Advance(now_ms) => aggregator.advance(*now_ms, &mut emit),
            Step::Finish => aggregator.finish(&mut emit),
        }
        assert!(aggregator.flows_open() <= flows_max, "the table keeps its bound");
    }
    aggregator.handle_observations(&pending, &mut emit);
    aggregator.finish(&mut emit);

    let totals = aggregator.totals();
    assert_eq!(aggregator.flows_open(), 0);
    assert_eq!((totals.packets_in, totals.packets_out), (packets, packets));
    assert_eq!((totals.bytes_in, totals.records_out), (bytes, records.len() as u64));
    let (mut packets_out, mut bytes_out) = (0, 0);
    for record in &records {
        let sides = [record.from_initiator, record.from_responder];
        let packets = sides[0].packets + sides[1].packets;
        packets_out += packets;
        bytes_out += sides[0].bytes + sides[1].bytes;
        assert!(packets > 0, "a record is of at least one packet: {record:?}");
        assert!(record.start_ms <= record.end_ms, "{record:?}");
        assert!(sides.iter().all(|side| side.length_min <= side.length_max), "{record:?}");
    }
    assert_eq!((packets_out, bytes_out), (packets, bytes), "nothing is lost or counted twice");
    records
}

fn step(bytes: &mut Bytes<'_>, now_ms: &mut u64) -> Step {
    match bytes.byte() {
        0..=31 => {
            *now_ms += u64::from(bytes.half());
            Step::Advance(*now_ms)
        }
        32 => Step::Finish,
        // Time does not go back, whatever is said.
        33 => Step::Advance(bytes.word()),
        kind => Step::Seen(observation(bytes, kind, *now_ms)),
    }
}

fn observation(bytes: &mut Bytes<'_>, kind: u8, now_ms: u64) -> Observation {
    let ends = bytes.byte();
    let (a, b) = (ends & 3, ends >> 2 & 3);
    let ports = [u16::from(ends >> 4 & 3) * 20_000, u16::from(ends >> 6) * 443];
    let flags = bytes.byte();
    let number = if flags & 0x80 == 0 { protocol::TCP } else { protocol::UDP };
    let mut key_kind = if kind & 1 == 0 { Kind::V4 } else { Kind::default() };
    if kind & 0x0e == 0 {
        key_kind = key_kind.with(Kind::ONE_WAY);
    }
    let key = FlowKey::new(
        Address::from_v4([10, 0, 0, a]),
        Address::from_v4([10, 0, 0, b]),
        ports,
        number,
        key_kind,
        0,
    );
    let (first_ms, last_ms) = if kind & 0xf0 == 0xf0 {
        // Any times at all.
        (bytes.word(), bytes.word())
    } else {
        let first_ms = now_ms.saturating_add(u64::from(bytes.byte()));
        (first_ms, first_ms + u64::from(bytes.byte()))
    };
    let length = bytes.half();
    let packets = u64::from(bytes.byte()) + 1;
    Observation {
        key,
        outer: Outer::from_vlans(Vlans([u16::from(kind & 3), 0])),
        packets,
        bytes: packets * u64::from(length),
        first_ms,
        last_ms,
        tcp: if number == protocol::TCP {
            TcpSeen::from_flags(flags & 0x3f)
        } else {
            TcpSeen::default()
        },
        opening: match (number == protocol::TCP && flags & 0x02 != 0, packets, flags & 0x40) {
            (true, 1, 0) => OpeningTime::At(u32::from(length) << 16 | u32::from(flags)),
            (true, _, 0x40) if flags & 0x10 != 0 => OpeningTime::After(u32::from(length)),
            _ => OpeningTime::Unknown,
        },
        first_flags: flags & 0x3f,
        dscp: a,
        fragmented: b == 3,
        interface: b,
        ttl: a + 1,
        length_min: length,
        length_max: length,
    }
}

/// Numbers out of the input; zeros behind its end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let held = self.0.len().min(N);
        array[..held].copy_from_slice(&self.0[..held]);
        self.0 = &self.0[held..];
        array
    }

    fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    fn half(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}
