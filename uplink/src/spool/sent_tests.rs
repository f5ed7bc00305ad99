//! What has left stays readable, within its bound, and gives way to what has not left.

use std::path::Path;

use super::{KeptBatches, Key, RealDisk, Spool, Whereabouts};
use crate::state::Identity;
use crate::test_records::realistic;
use crate::{BatchHeader, SigningKey, open, seal, time_range};

fn identity() -> Identity {
    Identity {
        member: "acme".parse().expect("a name"),
        sensor: "acme-0123abcd".parse().expect("a name"),
        backend: "192.0.2.1:7443".to_owned(),
    }
}

fn batch(sequence: u64) -> Vec<u8> {
    let records = realistic(sequence, 20);
    let (start_ms, end_ms) = time_range(&records, 5);
    let header = BatchHeader {
        member: identity().member,
        sensor: identity().sensor,
        boot_epoch: 9,
        sequence,
        start_ms,
        end_ms,
        sealed_ms: 5,
        records: 20,
        books: flow::Books::default(),
        object_sha256: [0; 32],
        previous_blake3: [0; 32],
        sensor_version: "0.1.0".to_owned(),
        key_epoch: None,
    };
    seal(&header, &records, &SigningKey::generate().expect("random")).expect("right").to_vec()
}

fn spool(state: &Path) -> Spool {
    Spool::open(state, 1 << 20, &identity(), Box::new(RealDisk)).expect("a folder").0
}

fn store(spool: &Spool, sequence: u64) -> Key {
    let key = Key { boot_epoch: 9, sequence };
    spool.store(key, &batch(sequence), 20).expect("room");
    key
}

fn listed(state: &Path) -> Vec<(u64, Whereabouts)> {
    let kept = KeptBatches::list(state).expect("folders");
    kept.batches.iter().map(|batch| (batch.sequence, batch.whereabouts)).collect()
}

#[test]
fn every_byte_that_waits_or_has_left_can_be_read() {
    let state = tempfile::tempdir().expect("a folder");
    let spool = spool(state.path());
    let keys: Vec<Key> = (1..=3).map(|sequence| store(&spool, sequence)).collect();
    let sealed = std::fs::read(spool.path(keys[0])).expect("a file");
    assert!(spool.acknowledged(keys[0]).expect("renamed").is_some());
    assert!(spool.acknowledged(keys[0]).expect("nothing to do").is_none());
    spool.reject(keys[1]).expect("moved");
    let expected = [(1, Whereabouts::Sent), (2, Whereabouts::Refused), (3, Whereabouts::Waiting)];
    assert_eq!(listed(state.path()), expected);
    let kept = KeptBatches::list(state.path()).expect("folders");
    let bytes = kept.batches[0].read().expect("readable").expect("there");
    assert_eq!(bytes, sealed);
    assert_eq!(open(&bytes).expect("whole").header.sequence, 1);
}

#[test]
fn the_oldest_sent_batches_go_first_and_are_counted() {
    let state = tempfile::tempdir().expect("a folder");
    let spool = spool(state.path());
    let size = 8 * 4096;
    spool.set_sent_bytes_max(size);
    for sequence in 1..=40 {
        let key = store(&spool, sequence);
        spool.acknowledged(key).expect("renamed");
    }
    let kept = KeptBatches::list(state.path()).expect("folders");
    let count = u64::try_from(kept.batches.len()).expect("few");
    assert!((1..=8).contains(&count), "{count}");
    assert_eq!(kept.removed, 40 - count);
    assert_eq!(kept.batches.last().map(|batch| batch.sequence), Some(40));
    // The count outlives the process, and 0 keeps none.
    drop(spool);
    let spool = super::sent_tests::spool(state.path());
    spool.set_sent_bytes_max(0);
    let key = store(&spool, 41);
    spool.acknowledged(key).expect("removed");
    let kept = KeptBatches::list(state.path()).expect("folders");
    assert_eq!((kept.batches.len(), kept.removed), (0, 41));
}

#[test]
fn a_state_folder_without_batches_is_empty() {
    let state = tempfile::tempdir().expect("a folder");
    assert_eq!(KeptBatches::list(state.path()).expect("empty"), KeptBatches::default());
}
