//! The codec: every record comes back, every changed byte is noticed, nothing panics, and flows stay small.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flow::{
    Books, Direction, EndReason, Handshake, Outer, Pseudonyms, Record, RoleEvidence, Tunnel,
    TunnelKind, Vlans,
};
use proptest::prelude::*;

use super::{
    Batch, BatchHeader, OpenError, SealError, batch_blake3, columns, header, open, open_header,
    seal, time_range, verify,
};
use crate::SigningKey;
use crate::test_records::{Random, realistic};

/// PKCS #8 of the Ed25519 key with the seed 00 01 … 1f (RFC 8410 §7), the same in every run.
fn fixed_key() -> SigningKey {
    let mut pkcs8 = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    pkcs8.extend(0..32);
    SigningKey::from_pkcs8(&pkcs8).expect("the form is that of the standard")
}

fn header_for(records: &[Record]) -> BatchHeader {
    let (start_ms, end_ms) = time_range(records, 77);
    BatchHeader {
        member: "acme".parse().expect("a name"),
        sensor: "acme-0123abcd".parse().expect("a name"),
        boot_epoch: 1_795_000_000,
        sequence: 7,
        start_ms,
        end_ms,
        sealed_ms: 77,
        records: u32::try_from(records.len()).expect("few"),
        books: Books {
            nic_received: Some(u64::MAX),
            nic_missed: None,
            frames_seen: 3,
            packets_ip: 4,
            packets_not_ip: 5,
            packets_malformed: 6,
            packets_in_flows: 7,
            packets_folded: 8,
            packets_duplicate: 9,
            records_out: 10,
            records_sealed: 11,
            records_evicted: 12,
            records_kept_internal: 13,
            records_kept_trusted: 14,
            packets_kept_internal: 15,
            packets_kept_trusted: 16,
        },
        object_sha256: [0xaa; 32],
        previous_blake3: [0xbb; 32],
        sensor_version: "0.1.0".to_owned(),
        key_epoch: Some(20_261_121),
    }
}

/// Records at every edge of every field.
fn extremes() -> Vec<Record> {
    let wide = Direction {
        packets: u64::MAX,
        bytes: u64::MAX,
        tcp_flags: 0xff,
        ttl: 0xff,
        dscp: Direction::DSCP_MAX,
        first_flags: 0xff,
        fragmented: true,
        length_min: u16::MAX,
        length_max: 0,
    };
    let base = realistic(1, 1)[0];
    vec![
        Record { start_ms: 0, end_ms: u64::MAX, from_initiator: wide, ..base },
        Record { start_ms: u64::MAX, end_ms: u64::MAX, from_responder: wide, ..base },
        Record {
            start_ms: 0,
            end_ms: 0,
            initiator: IpAddr::V6(Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped()),
            responder: IpAddr::V4(Ipv4Addr::BROADCAST),
            initiator_port: u16::MAX,
            responder_port: 0,
            protocol: 0xff,
            ports_known: false,
            outer: Outer::from_vlans(Vlans([4095, 4094])),
            from_initiator: Direction { packets: 1, bytes: 0, length_max: u16::MAX, ..wide },
            from_responder: Direction { packets: 0, bytes: 1, ..Direction::default() },
            handshake: Handshake::OneWay,
            handshake_rtt_us: Some(u32::MAX),
            interface: Record::INTERFACE_MAX,
            role: RoleEvidence::Guess,
            end_reason: EndReason::LackOfResources,
            folded: false,
            pseudonyms: Pseudonyms { initiator: true, responder: true },
        },
        Record { initiator: IpAddr::V6(Ipv6Addr::UNSPECIFIED), ..base },
    ]
}

/// Records as a batch has them.
fn by_end(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by_key(|record| record.end_ms);
    records
}

fn round_trip(records: Vec<Record>) {
    let header = header_for(&records);
    let key = fixed_key();
    let bytes = seal(&header, &records, &key).expect("the header is right");
    assert_eq!(open_header(&bytes).as_ref(), Ok(&header));
    assert_eq!(verify(&bytes, &key.public_key()), Ok(()));
    assert_eq!(open(&bytes), Ok(Batch { header, records: by_end(records) }));
}

#[test]
fn extreme_empty_and_large_batches_come_back() {
    round_trip(Vec::new());
    round_trip(extremes());
    round_trip(realistic(2, 1));
    round_trip(realistic(3, 65_536));
}

#[test]
fn a_flow_takes_few_bytes() {
    let records = realistic(4, 8192);
    let bytes = seal(&header_for(&records), &records, &fixed_key()).expect("right").len();
    // Half of these records are scans from random addresses and ports: six bytes each that nothing shortens.
    assert!(bytes <= 8192 * 12, "{bytes} bytes for 8192 flows");
}

/// Lines of 48 bytes: text, so that a change to the golden file can be read.
fn to_hex(bytes: &[u8]) -> String {
    bytes.chunks(48).map(|bytes| super::hex(bytes) + "\n").collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hexadecimal digits are ASCII");
        u8::from_str_radix(pair, 16).expect("two hexadecimal digits")
    };
    digits.chunks(2).map(byte).collect()
}

/// The batch that version 2 must be able to read for ever. Written by `SPANWATCH_WRITE_GOLDEN=1 cargo test`.
#[test]
fn the_golden_batch_of_version_2_is_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/batch/golden-v2.hex");
    let mut records = extremes();
    records.extend(realistic(5, 200));
    let key = fixed_key();
    if std::env::var_os("SPANWATCH_WRITE_GOLDEN").is_some() {
        let bytes = seal(&header_for(&records), &records, &key).expect("right");
        std::fs::write(path, to_hex(&bytes)).expect("the source folder is writable");
    }
    let bytes = from_hex(&std::fs::read_to_string(path).expect("the golden file is committed"));
    assert_eq!(verify(&bytes, &key.public_key()), Ok(()));
    let header = header_for(&records);
    assert_eq!(open(&bytes), Ok(Batch { header, records: by_end(records) }));
}

#[test]
fn a_changed_cut_or_longer_batch_is_never_accepted() {
    let records = realistic(6, 40);
    let key = fixed_key();
    let bytes = seal(&header_for(&records), &records, &key).expect("right");
    let public_key = key.public_key();
    let accepted = |bytes: &[u8]| verify(bytes, &public_key).is_ok();
    assert!(accepted(&bytes));
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1 << (at % 8);
        assert!(!accepted(&changed), "byte {at} changed");
        if at < bytes.len() - 64 {
            assert!(open(&changed).is_err(), "byte {at} changed");
        }
        assert!(!accepted(&bytes[..at]) && open(&bytes[..at]).is_err(), "cut to {at} bytes");
    }
    let longer = [&bytes, &[0][..]].concat();
    assert!(!accepted(&longer) && open(&longer).is_err());
    let other = SigningKey::generate().expect("random").public_key();
    assert_eq!(verify(&bytes, &other), Err(OpenError::Signature { public_key: other }));
}

/// Behind the checksum: whoever holds a key can sign anything, so the inner decoders get damaged bytes too.
#[test]
fn damaged_bytes_with_a_right_checksum_are_errors_and_never_panics() {
    let records = [extremes(), realistic(7, 60)].concat();
    let bytes = seal(&header_for(&records), &records, &fixed_key()).expect("right");
    let mut columns_plain = Vec::new();
    let end_ms = header_for(&records).end_ms;
    columns::Encoder::new(true).encode(&records, end_ms, &mut columns_plain);
    let mut header_plain = Vec::new();
    header::encode(&header_for(&records), &mut header_plain);
    let mut random = Random(8);
    let mut decoded = 0;
    for _ in 0..20_000 {
        let body = damage(&mut random, &columns_plain);
        decoded += usize::from(columns::decode(&body, records.len(), end_ms, true).is_ok());
        drop(header::decode(&damage(&mut random, &header_plain)));
        let mut whole = damage(&mut random, &bytes[..bytes.len() - 96]);
        let checksum = *blake3::hash(&whole).as_bytes();
        whole.extend_from_slice(&checksum);
        whole.extend_from_slice(&[0; 64]);
        drop(open(&whole));
    }
    assert!(decoded < 20_000, "some damage must be noticed without the checksum");
}

fn damage(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    let position = |random: &mut Random, length: usize| {
        usize::try_from(random.below(u64::try_from(length.max(1)).expect("small"))).expect("small")
    };
    for _ in 0..=random.below(4) {
        let at = position(random, damaged.len());
        match random.below(4) {
            0 => damaged.truncate(at),
            1 => damaged.insert(at, random.next().to_le_bytes()[0]),
            _ => {
                if let Some(byte) = damaged.get_mut(at) {
                    *byte = random.next().to_le_bytes()[0];
                }
            }
        }
    }
    damaged
}

#[test]
fn a_bomb_of_records_is_refused_before_it_is_unpacked() {
    let mut header = header_for(&[]);
    header.records = u32::MAX;
    let mut bytes = Vec::new();
    header::encode(&header, &mut bytes);
    let error = header::decode(&bytes).expect_err("too many records");
    assert!(
        error.to_string().contains("records at offset 59 is 4294967295, not at most 65536"),
        "{error}"
    );
    // A section that says it has many shapes although there are few records.
    let error = columns::decode(&[0xff, 0xff, 3, 1, 0], 2, 0, true).expect_err("too many");
    let text = "column section: shapes at offset 0 is 65535, not at most one for each record";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_header_that_contradicts_the_records_is_not_sealed() {
    let records = realistic(9, 3);
    let key = fixed_key();
    let good = header_for(&records);
    let sealed = |change: fn(&mut BatchHeader)| {
        let mut header = good.clone();
        change(&mut header);
        seal(&header, &records, &key).expect_err("it contradicts")
    };
    assert!(matches!(sealed(|h| h.records = 2), SealError::Count { header: 2, records: 3 }));
    assert!(matches!(sealed(|h| h.start_ms = 0), SealError::TimeRange { .. }));
    assert!(matches!(sealed(|h| h.sequence = 0), SealError::Sequence));
    assert!(matches!(sealed(|h| h.sensor_version = "v".repeat(65)), SealError::Version(65)));
    assert!(matches!(sealed(|h| h.key_epoch = Some(0)), SealError::KeyEpoch));
    let mut backwards = records.clone();
    backwards[1].start_ms = backwards[1].end_ms + 1;
    let error = seal(&header_for(&backwards), &backwards, &key).expect_err("ends before it starts");
    assert!(matches!(error, SealError::Backwards { number: 1, .. }));
}

#[test]
fn a_pseudonym_is_of_a_key_epoch() {
    let mut records = realistic(11, 4);
    records[2].pseudonyms.responder = true;
    let header = BatchHeader { key_epoch: None, ..header_for(&records) };
    let error = seal(&header, &records, &fixed_key()).expect_err("of which key?");
    assert!(matches!(error, SealError::Pseudonym { number: 2 }), "{error}");
    let (mut columns_plain, end_ms) = (Vec::new(), header.end_ms);
    columns::Encoder::new(true).encode(&records, end_ms, &mut columns_plain);
    assert!(columns::decode(&columns_plain, 4, end_ms, true).is_ok());
    let error = columns::decode(&columns_plain, 4, end_ms, false).expect_err("of which key?");
    assert!(error.to_string().contains("since there is no key epoch"), "{error}");

    // No key epoch is no key epoch, and not number 0; one that is there is not 0.
    let mut bytes = Vec::new();
    header::encode(&header, &mut bytes);
    assert_eq!(header::decode(&bytes).expect("whole").key_epoch, None);
    let last = bytes.len() - 1;
    bytes[last] = 1;
    let error = header::decode(&bytes).expect_err("a number where there is none");
    assert!(error.to_string().contains("not 0 where there is none"), "{error}");
    let mut bytes = Vec::new();
    header::encode(&header_for(&records), &mut bytes);
    bytes[last - 3..].fill(0);
    let error = header::decode(&bytes).expect_err("no number where there is one");
    assert!(error.to_string().contains("key epoch"), "{error}");
}

#[test]
fn the_checksum_is_the_link_of_the_chain() {
    let records = realistic(10, 3);
    let bytes = seal(&header_for(&records), &records, &fixed_key()).expect("right");
    let checksum = batch_blake3(&bytes).expect("whole");
    assert_eq!(&checksum, blake3::hash(&bytes[..bytes.len() - 96]).as_bytes());
}

fn any_direction() -> impl Strategy<Value = Direction> {
    let dscp = 0..=Direction::DSCP_MAX;
    (any::<(u64, u64, u8, u8, u16, u16)>(), dscp, any::<(u8, bool)>()).prop_map(
        |(counted, dscp, (first_flags, fragmented))| {
            let (packets, bytes, tcp_flags, ttl, length_min, length_max) = counted;
            Direction {
                packets,
                bytes,
                tcp_flags,
                ttl,
                dscp,
                first_flags,
                fragmented,
                length_min,
                length_max,
            }
        },
    )
}

/// VLAN tags, label and tunnels within the bounds of [`Outer`].
fn any_outer() -> impl Strategy<Value = (Vlans, Option<u32>, Vec<Tunnel>)> {
    let tunnel = (prop::sample::select(TunnelKind::ALL.to_vec()), any::<u32>())
        .prop_map(|(kind, id)| Tunnel { kind, id: kind.has_id().then_some(id) });
    let tunnels = prop::collection::vec(tunnel, 0..=2);
    let label = prop::option::of(0..1_u32 << 20);
    ((0..4096_u16, 0..4096_u16), label, tunnels)
        .prop_map(|((outer, inner), label, tunnels)| (Vlans([outer, inner]), label, tunnels))
}

prop_compose! {
    fn any_record()(
        (one, other) in any::<(u64, u64)>(),
        initiator in any::<IpAddr>(),
        responder in any::<IpAddr>(),
        (initiator_port, responder_port, protocol, ports_known) in any::<(u16, u16, u8, bool)>(),
        (vlans, label, tunnels) in any_outer(),
        from_initiator in any_direction(),
        from_responder in any_direction(),
        (handshake, role, end_reason, folded) in (0..=5_u8, 1..=4_u8, 1..=5_u8, any::<bool>()),
        (handshake_rtt_us, interface) in (any::<Option<u32>>(), 0..=Record::INTERFACE_MAX),
        (initiator_pseudonym, responder_pseudonym) in any::<(bool, bool)>(),
    ) -> Record {
        Record {
            start_ms: one.min(other),
            end_ms: one.max(other),
            initiator,
            responder,
            initiator_port,
            responder_port,
            protocol,
            ports_known,
            outer: Outer::new(vlans, label, tunnels).expect("within the bounds"),
            from_initiator,
            from_responder,
            handshake: Handshake::try_from(handshake).expect("in range"),
            handshake_rtt_us,
            interface,
            role: RoleEvidence::try_from(role).expect("in range"),
            end_reason: EndReason::try_from(end_reason).expect("in range"),
            folded,
            pseudonyms: Pseudonyms {
                initiator: initiator_pseudonym,
                responder: responder_pseudonym,
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_records_come_back(records in prop::collection::vec(any_record(), 0..60)) {
        round_trip(records);
    }

    #[test]
    fn any_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(open(&bytes).is_err());
    }
}
