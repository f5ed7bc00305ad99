use std::collections::BTreeMap;
use std::fs;

use anyhow::Result;
use bytes::Bytes;
use flow::Books;
use uplink::{BatchHeader, SensorId, SigningKey, batch_blake3, seal};

use super::chain::{Place, Stored};
use super::{Asked, Judge, Verdict, verify};
use crate::database::Database;
use crate::evidence::{self, Evidence};

const DAY_MS: u64 = 86_400_000;
/// Records of the batches of most tests.
const RECORDS: u64 = 0;

/// A sensor that seals batches without records: counts say how many there were.
struct Sensor {
    id: &'static str,
    key: SigningKey,
    epoch: u64,
    sequence: u64,
    previous: [u8; 32],
    books: Books,
}

impl Sensor {
    fn new(id: &'static str) -> Self {
        let key = SigningKey::generate().expect("random");
        Self { id, key, epoch: 7, sequence: 0, previous: [0; 32], books: Books::default() }
    }

    fn seal(&mut self) -> Bytes {
        self.sequence += 1;
        self.books.records_sealed += RECORDS;
        let header = BatchHeader {
            member: "town-hall".parse().expect("a name"),
            sensor: SensorId::parse(self.id).expect("a name"),
            boot_epoch: self.epoch,
            sequence: self.sequence,
            start_ms: 5,
            end_ms: 5,
            sealed_ms: 5,
            records: 0,
            books: self.books,
            object_sha256: [0; 32],
            previous_blake3: self.previous,
            sensor_version: "0.1.0".to_owned(),
            key_epoch: None,
        };
        let bytes = seal(&header, &[], &self.key).expect("right");
        self.previous = batch_blake3(&bytes).expect("whole");
        bytes
    }

    fn keys(&self) -> BTreeMap<String, [u8; 32]> {
        BTreeMap::from([(self.id.to_owned(), self.key.public_key())])
    }
}

fn judged(
    keys: &BTreeMap<String, [u8; 32]>,
    batches: &[Bytes],
    known: &BTreeMap<String, BTreeMap<Place, Stored>>,
) -> Verdict {
    let mut judge = Judge { keys: keys.clone(), ..Judge::default() };
    for batch in batches {
        judge.handle_batch("a file".as_ref(), batch);
    }
    judge.verdict(known, None)
}

fn first_break(verdict: &Verdict, sensor: &str) -> (Option<Place>, String) {
    let first = verdict.sensors[sensor].first_break.clone().expect("a break");
    (first.batch, first.reason)
}

fn known(sensor: &Sensor, day_is_kept: bool) -> BTreeMap<String, BTreeMap<Place, Stored>> {
    let each = (1..=sensor.sequence)
        .map(|sequence| ((sensor.epoch, sequence), Stored { records: RECORDS, day_is_kept }));
    BTreeMap::from([(sensor.id.to_owned(), each.collect())])
}

#[test]
fn a_whole_chain_has_no_break_and_repeats_do_not_count() {
    let mut sensor = Sensor::new("town-hall-00000001");
    let mut batches: Vec<Bytes> = (0..5).map(|_| sensor.seal()).collect();
    batches.push(batches[3].clone());
    let verdict = judged(&sensor.keys(), &batches, &known(&sensor, true));
    assert_eq!(verdict.breaks(), 0, "{verdict:?}");
    assert_eq!(verdict.sensors["town-hall-00000001"].batches, 5);
}

#[test]
fn a_flipped_bit_a_removed_and_an_exchanged_batch_are_named() {
    let mut sensor = Sensor::new("town-hall-00000001");
    let batches: Vec<Bytes> = (0..5).map(|_| sensor.seal()).collect();
    for at in [0, 40, batches[2].len() - 97, batches[2].len() - 80] {
        let mut flipped = batches.clone();
        let mut bytes = flipped[2].to_vec();
        bytes[at] ^= 16;
        flipped[2] = bytes.into();
        let verdict = judged(&sensor.keys(), &flipped, &known(&sensor, true));
        assert_eq!(verdict.damaged.len(), 1, "byte {at}: {verdict:?}");
        let (place, reason) = first_break(&verdict, sensor.id);
        assert_eq!(place, Some((7, 3)));
        assert!(reason.contains("evidence is missing"), "{reason}");
    }
    // A flipped signature leaves the batch whole, and is nobody's.
    let mut forged = batches.clone();
    let mut bytes = forged[2].to_vec();
    *bytes.last_mut().expect("bytes") ^= 1;
    forged[2] = bytes.into();
    let verdict = judged(&sensor.keys(), &forged, &known(&sensor, true));
    let (place, reason) = first_break(&verdict, sensor.id);
    assert_eq!((place, reason.contains("not signed")), (Some((7, 3)), true), "{reason}");

    let removed = [&batches[..2], &batches[3..]].concat();
    let (place, _) =
        first_break(&judged(&sensor.keys(), &removed, &known(&sensor, true)), sensor.id);
    assert_eq!(place, Some((7, 3)));

    // Signed by the right key, but not what was there: whoever comes after does not follow from it.
    sensor.sequence = 2;
    sensor.books.frames_seen = 99;
    sensor.previous = batch_blake3(&batches[1]).expect("whole");
    let mut exchanged = batches.clone();
    exchanged[2] = sensor.seal();
    sensor.sequence = 5;
    let (place, reason) =
        first_break(&judged(&sensor.keys(), &exchanged, &known(&sensor, true)), sensor.id);
    assert_eq!((place, reason.contains("exchanged")), (Some((7, 4)), true), "{reason}");
    let both = [&batches[..], &exchanged[2..3]].concat();
    let (place, reason) =
        first_break(&judged(&sensor.keys(), &both, &known(&sensor, true)), sensor.id);
    assert_eq!((place, reason.contains("two different")), (Some((7, 3)), true), "{reason}");
}

#[test]
fn an_eviction_that_the_sensor_declares_is_no_break_and_one_that_it_does_not_is() {
    let mut sensor = Sensor::new("town-hall-00000001");
    let mut batches = Vec::new();
    for sequence in 1..=6_u64 {
        sensor.books.records_sealed += 10;
        if sequence == 6 {
            sensor.books.records_evicted = 20;
        }
        batches.push(seal_with(&mut sensor, 10));
    }
    let gap = [&batches[..1], &batches[3..]].concat();
    let nothing = BTreeMap::new();
    let verdict = judged(&sensor.keys(), &gap, &nothing);
    assert_eq!(verdict.breaks(), 0, "{verdict:?}");
    assert_eq!(verdict.sensors[sensor.id].records_evicted, 20);
    let larger = [&batches[..1], &batches[4..]].concat();
    let (place, reason) = first_break(&judged(&sensor.keys(), &larger, &nothing), sensor.id);
    assert_eq!(place, Some((7, 2)));
    assert!(reason.contains("2 to 4 are missing with 30 records"), "{reason}");
}

/// A batch that counts records and has as many.
fn seal_with(sensor: &mut Sensor, records: u32) -> Bytes {
    use std::net::{IpAddr, Ipv4Addr};
    sensor.sequence += 1;
    let record = flow::Record {
        start_ms: 5,
        end_ms: 5,
        initiator: IpAddr::V4(Ipv4Addr::LOCALHOST),
        responder: IpAddr::V4(Ipv4Addr::LOCALHOST),
        initiator_port: 1,
        responder_port: 2,
        protocol: flow::protocol::UDP,
        ports_known: true,
        outer: flow::Outer::default(),
        from_initiator: flow::Direction::default(),
        from_responder: flow::Direction::default(),
        handshake: flow::Handshake::None,
        handshake_rtt_us: None,
        interface: 0,
        role: flow::RoleEvidence::Guess,
        end_reason: flow::EndReason::IdleTimeout,
        folded: false,
        pseudonyms: flow::Pseudonyms::default(),
    };
    let header = BatchHeader {
        member: "town-hall".parse().expect("a name"),
        sensor: SensorId::parse(sensor.id).expect("a name"),
        boot_epoch: sensor.epoch,
        sequence: sensor.sequence,
        start_ms: 5,
        end_ms: 5,
        sealed_ms: 5,
        records,
        books: sensor.books,
        object_sha256: [0; 32],
        previous_blake3: sensor.previous,
        sensor_version: "0.1.0".to_owned(),
        key_epoch: None,
    };
    let records = vec![record; usize::try_from(records).expect("few")];
    let bytes = seal(&header, &records, &sensor.key).expect("right");
    sensor.previous = batch_blake3(&bytes).expect("whole");
    bytes
}

#[test]
fn days_that_are_not_kept_are_told_and_no_break() {
    let mut sensor = Sensor::new("town-hall-00000001");
    let batches: Vec<Bytes> = (0..5).map(|_| sensor.seal()).collect();
    let verdict = judged(&sensor.keys(), &batches[3..], &known(&sensor, false));
    assert_eq!(verdict.breaks(), 0, "{verdict:?}");
    assert_eq!(verdict.sensors[sensor.id].batches_not_kept, 3);
}

#[test]
fn a_box_that_enrolled_again_is_another_sensor_with_another_key() {
    let (mut old, mut new) = (Sensor::new("town-hall-00000001"), Sensor::new("town-hall-00000002"));
    let mut keys = old.keys();
    keys.extend(new.keys());
    let batches = [old.seal(), old.seal(), new.seal(), new.seal()];
    let verdict = judged(&keys, &batches, &BTreeMap::new());
    assert_eq!((verdict.breaks(), verdict.sensors.len()), (0, 2), "{verdict:?}");
    // The old key signs nothing of the new sensor.
    new.key = old.key;
    let verdict = judged(&keys, &[new.seal()], &BTreeMap::new());
    assert!(first_break(&verdict, new.id).1.contains("not signed"));
    let verdict = judged(&BTreeMap::new(), &batches, &BTreeMap::new());
    assert!(first_break(&verdict, new.id).1.contains("never enrolled"));
}

#[tokio::test]
async fn what_is_kept_is_read_back_and_a_torn_file_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let evidence = Evidence::new(folder.path().join("evidence"));
    let mut sensor = Sensor::new("town-hall-00000001");
    evidence.keep(&[sensor.seal(), sensor.seal()], DAY_MS)?;
    evidence.keep(&[sensor.seal()], DAY_MS)?;
    evidence.keep(&[sensor.seal()], 2 * DAY_MS)?;
    assert_eq!(evidence.days()?, ["1970-01-02", "1970-01-03"]);
    let files = evidence.files()?;
    assert_eq!(files.len(), 3);
    assert_eq!(evidence::batches(&fs::read(&files[0])?).0.len(), 2);

    let mut judge = Judge { keys: sensor.keys(), ..Judge::default() };
    for file in &files {
        judge.handle_file(file, &fs::read(file)?);
    }
    assert_eq!(judge.verdict(&BTreeMap::new(), None).sensors[sensor.id].batches, 4);

    let database = Database::create(&folder.path().join("backend.sqlite")).await?;
    let torn = fs::read(&files[1])?;
    fs::write(&files[1], &torn[..torn.len() - 1])?;
    let verdict = verify(&database, &evidence, &Asked::default()).await?;
    assert!(verdict.damaged.iter().any(|(file, _)| *file == files[1].display().to_string()));
    assert!(verdict.breaks() > 1, "nobody is enrolled here: {verdict:?}");
    let asked = Asked { sensor: Some("town-hall-9".to_owned()), ..Asked::default() };
    let error = verify(&database, &evidence, &asked).await.expect_err("no such sensor");
    assert!(error.to_string().contains("town-hall-9"), "{error}");
    database.close().await;
    Ok(())
}
