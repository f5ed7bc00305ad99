//! A batch of 40 KiB that claims to hold 40 GiB: what it makes the decoder allocate is measured, by the kernel, in a
//! process of its own. It takes a sensor's key to make one, so it comes with a right checksum.

use std::net::{IpAddr, Ipv4Addr};

use flow::{
    Books, Direction, EndReason, Handshake, Outer, Pseudonyms, Record, RoleEvidence, protocol,
};
use uplink::{BatchHeader, RECORDS_MAX, SigningKey, open, seal, time_range};

/// What decoding may take: the largest batch has 10 MiB of records, and its columns take as much again.
const PEAK_BYTES_MAX: u64 = 64 << 20;
/// Where the header says how many records there are: behind 20 bytes of preamble, two names, five times.
const RECORDS_AT: usize = 20 + 5 + 14 + 40;

/// The most memory that was resident at a time since the last call, bytes.
fn peak_bytes(act: impl FnOnce()) -> u64 {
    let resident = |name: &str| {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
        let digits: String = line.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<u64>().expect("a number of KiB") << 10
    };
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak can be forgotten");
    let before = resident("VmRSS:");
    act();
    resident("VmHWM:").saturating_sub(before)
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = *blake3::hash(&bytes).as_bytes();
    bytes.extend_from_slice(&checksum);
    bytes.extend_from_slice(&[0; 64]);
    bytes
}

fn equal_records() -> Vec<Record> {
    let side = Direction { packets: 1 << 40, bytes: 1 << 50, ttl: 64, ..Direction::default() };
    let record = Record {
        start_ms: 1,
        end_ms: 1 << 40,
        initiator: IpAddr::V4(Ipv4Addr::LOCALHOST),
        responder: IpAddr::V4(Ipv4Addr::LOCALHOST),
        initiator_port: 1,
        responder_port: 2,
        protocol: protocol::UDP,
        ports_known: true,
        outer: Outer::default(),
        from_initiator: side,
        from_responder: side,
        handshake: Handshake::None,
        handshake_rtt_us: Some(9),
        interface: 1,
        role: RoleEvidence::Guess,
        end_reason: EndReason::IdleTimeout,
        folded: false,
        pseudonyms: Pseudonyms::default(),
    };
    vec![record; usize::try_from(RECORDS_MAX).expect("65,536")]
}

#[test]
fn forty_kibibytes_never_become_forty_gibibytes() {
    let records = equal_records();
    let (start_ms, end_ms) = time_range(&records, 0);
    let header = BatchHeader {
        member: "acme".parse().expect("a name"),
        sensor: "acme-0123abcd".parse().expect("a name"),
        boot_epoch: 1,
        sequence: 1,
        start_ms,
        end_ms,
        sealed_ms: 0,
        records: RECORDS_MAX,
        books: Books::default(),
        object_sha256: [0; 32],
        previous_blake3: [0; 32],
        sensor_version: "0.1.0".to_owned(),
        key_epoch: None,
    };
    let key = SigningKey::generate().expect("random");
    let honest = seal(&header, &records, &key).expect("right");
    // The most that a batch can unpack to: records that are all equal take next to nothing.
    assert!(honest.len() < 1_000, "{}", honest.len());
    drop(records);
    let peak = peak_bytes(|| assert_eq!(open(&honest).expect("whole").records.len(), 65_536));
    assert!(peak < PEAK_BYTES_MAX, "{peak} bytes for the largest batch");

    // The same, with a count of which the records would take 40 GiB, and as long as 40 KiB.
    let claimed = u32::try_from((40_u64 << 30) / 152).expect("270 million");
    let mut bomb = honest[..honest.len() - 96].to_vec();
    assert_eq!(bomb[RECORDS_AT..RECORDS_AT + 4], RECORDS_MAX.to_le_bytes());
    bomb[RECORDS_AT..RECORDS_AT + 4].copy_from_slice(&claimed.to_le_bytes());
    let columns = u32::from_le_bytes([bomb[16], bomb[17], bomb[18], bomb[19]]);
    let more = 40_960 - bomb.len() - 96;
    bomb[16..20].copy_from_slice(&(columns + u32::try_from(more).expect("small")).to_le_bytes());
    bomb.resize(bomb.len() + more, 0);
    let bomb = with_checksum(bomb);
    assert_eq!(bomb.len(), 40_960);
    let peak = peak_bytes(|| {
        let error = open(&bomb).expect_err("too many records").to_string();
        assert!(error.contains("not at most 65536"), "{error}");
    });
    assert!(peak < PEAK_BYTES_MAX, "{peak} bytes for a claim of too many records");

    // The right count, and columns that say everything that a byte can say.
    for filling in 0..=u8::MAX {
        let header_bytes = usize::from(u16::from_le_bytes([honest[12], honest[13]]));
        let mut bomb = honest[..20 + header_bytes].to_vec();
        bomb.resize(40_960 - 96, filling);
        let columns = u32::try_from(bomb.len() - 20 - header_bytes).expect("small");
        bomb[16..20].copy_from_slice(&columns.to_le_bytes());
        let bomb = with_checksum(bomb);
        let peak = peak_bytes(|| assert!(open(&bomb).is_err(), "filled with {filling}"));
        assert!(peak < PEAK_BYTES_MAX, "{peak} bytes for columns filled with {filling}");
    }
}
