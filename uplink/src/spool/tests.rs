//! The spool on a disk that fills up, tears writes and stops at any operation.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Disk, Key, Listing, RealDisk, Recovery, Spool, SpoolError, waiting};
use crate::private::FileError;
use crate::state::Identity;
use crate::test_records::realistic;
use crate::{BatchHeader, SigningKey, seal, time_range};

/// How a disk goes wrong at its n-th operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// That operation fails, later ones work: a full disk on which somebody makes room.
    Fails,
    /// Power is lost during that operation: a write is torn, and nothing works any more.
    Dies,
}

#[derive(Debug)]
struct FaultyDisk {
    fault: Fault,
    at: usize,
    operations: Arc<AtomicUsize>,
}

impl FaultyDisk {
    /// Whether this operation may go on; `torn` is what a power loss leaves of it.
    fn step(&self, torn: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let number = self.operations.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::Fails if number == self.at => Err(ErrorKind::StorageFull.into()),
            Fault::Dies if number == self.at => {
                torn()?;
                Err(io::Error::other("power lost"))
            }
            Fault::Dies if number > self.at => Err(io::Error::other("power lost")),
            _ => Ok(()),
        }
    }
}

impl Disk for FaultyDisk {
    fn make_folder(&self, path: &Path) -> Result<(), FileError> {
        RealDisk.make_folder(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Listing<'_>> {
        RealDisk.list(folder)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.read(path)
    }

    fn is_scarce(&self, folder: &Path) -> bool {
        RealDisk.is_scarce(folder)
    }

    fn disk_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.disk_bytes(path)
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step(|| RealDisk.write_new(path, &bytes[..bytes.len() / 2]))?;
        RealDisk.write_new(path, bytes)
    }

    fn overwrite(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step(|| Ok(()))?;
        RealDisk.overwrite(path, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(|| Ok(()))?;
        RealDisk.rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step(|| Ok(()))?;
        RealDisk.sync_folder(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(|| Ok(()))?;
        RealDisk.remove(path)
    }
}

fn identity() -> Identity {
    Identity {
        member: "acme".parse().expect("a name"),
        sensor: "acme-1".parse().expect("a name"),
        backend: "127.0.0.1:1".to_owned(),
    }
}

fn batch(key: Key, sensor: &str) -> Vec<u8> {
    let records = realistic(key.sequence, 20);
    let (start_ms, end_ms) = time_range(&records, 0);
    let header = BatchHeader {
        member: identity().member,
        sensor: sensor.parse().expect("a name"),
        boot_epoch: key.boot_epoch,
        sequence: key.sequence,
        start_ms,
        end_ms,
        sealed_ms: 0,
        records: 20,
        books: flow::Books::default(),
        object_sha256: [0; 32],
        previous_blake3: [0; 32],
        sensor_version: String::new(),
        key_epoch: None,
    };
    seal(&header, &records, &SigningKey::generate().expect("random")).expect("right").to_vec()
}

fn key(sequence: u64) -> Key {
    Key { boot_epoch: 1, sequence }
}

fn open(dir: &Path, bytes_max: u64, disk: impl Disk + 'static) -> (Spool, Recovery) {
    Spool::open(dir, bytes_max, &identity(), Box::new(disk)).expect("the folder is writable")
}

fn keys(spool: &Spool) -> Vec<u64> {
    let index = spool.index();
    std::iter::successors(index.after(None), |key| index.after(Some(*key)))
        .map(|key| key.sequence)
        .collect()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("writable")
}

/// What the spool's file of a batch takes of this machine's disk.
fn on_disk(bytes: &[u8]) -> u64 {
    let dir = folder();
    let path = dir.path().join("one");
    RealDisk.write_new(&path, bytes).expect("writable");
    RealDisk.disk_bytes(&path).expect("there")
}

#[test]
fn the_bound_is_what_the_disk_gives_and_not_the_length_of_the_files() {
    const BYTES_MAX: u64 = 1 << 20;
    let dir = folder();
    let (spool, _) = open(dir.path(), BYTES_MAX, RealDisk);
    let mut evicted = 0;
    for number in 1..=300 {
        let bytes = batch(key(number), "acme-1");
        evicted += spool.store(key(number), &bytes, 20).expect("room").batches;
    }
    let used = || -> (u64, u64) {
        let files = std::fs::read_dir(dir.path().join("spool")).expect("there");
        let files = files.map(|file| file.expect("there"));
        files.filter(|file| file.file_name() != "evicted").fold((0, 0), |(count, bytes), file| {
            let metadata = file.metadata().expect("there");
            (count + 1, bytes + std::os::unix::fs::MetadataExt::blocks(&metadata) * 512)
        })
    };
    let (files, taken) = used();
    assert!(taken <= BYTES_MAX, "{files} files take {taken}");
    assert_eq!(files + evicted, 300, "every batch is there or was counted");
    let block = on_disk(&batch(key(1), "acme-1"));
    assert!(taken + block > BYTES_MAX, "nothing is given up without need: {taken}");
    // The next opening counts the same.
    let index = spool.index().disk_bytes();
    drop(spool);
    assert_eq!(open(dir.path(), BYTES_MAX, RealDisk).0.index().disk_bytes(), index);
}

/// Stores so many batches into a spool with room for two and a half, on a disk with a fault at one operation. Gives
/// whether the fault was met.
fn store_all(batches: &[Vec<u8>], fault: Fault, at: usize) -> bool {
    let dir = folder();
    let bytes_max = on_disk(&batches[0]) * 5 / 2;
    let operations = Arc::new(AtomicUsize::new(0));
    let disk = FaultyDisk { fault, at, operations: Arc::clone(&operations) };
    let opened = Spool::open(dir.path(), bytes_max, &identity(), Box::new(disk));
    let mut stored = Vec::new();
    let mut expected = Vec::new();
    let mut evicted = 0;
    if let Ok((spool, _)) = &opened {
        for (number, bytes) in (1..).zip(batches) {
            if let Ok(gone) = spool.store(key(number), bytes, 20) {
                stored.push(number);
                evicted += gone.batches;
            }
        }
        expected = keys(spool);
        assert_eq!(spool.evictions().batches, Some(evicted), "{fault:?} at {at}");
    }
    drop(opened);
    // What the index of the survivor says is on the disk is what the next process finds, but for what was being given
    // up at that moment; of the stored batches only evicted ones are missing, and each of those is counted.
    let (spool, recovery) = open(dir.path(), bytes_max, RealDisk);
    let found = keys(&spool);
    let counted = spool.evictions().batches.expect("the file is whole");
    let name = format!("{fault:?} at {at}: {stored:?} stored, {found:?} found, {counted} evicted");
    let gone: Vec<u64> = stored.iter().copied().filter(|number| !found.contains(number)).collect();
    assert_eq!(gone.len() as u64, counted, "{name}");
    assert!(
        gone.iter().all(|number| found.iter().all(|kept| number < kept)),
        "{name}: the oldest go"
    );
    assert!(counted >= evicted && counted <= evicted + 1, "{name}");
    assert!(
        expected.iter().all(|number| found.contains(number) || gone.contains(number)),
        "{name}"
    );
    assert!(found.len() <= expected.len() + 1, "{name}");
    let newest = stored.last().copied().unwrap_or(0);
    assert!(newest == 0 || found.contains(&newest), "{name}");
    assert_eq!(recovery.batches_quarantined, 0, "{name}: a torn file is a .tmp");
    assert!(recovery.temporary_removed <= 1, "{name}");
    operations.load(Ordering::Relaxed) > at
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_stored() {
    let batches: Vec<Vec<u8>> = (1..=5).map(|number| batch(key(number), "acme-1")).collect();
    for fault in [Fault::Fails, Fault::Dies] {
        let mut at = 0;
        while store_all(&batches, fault, at) {
            at += 1;
        }
        // The opening's sync; three operations a batch; four to evict one.
        assert_eq!(at, 1 + 5 * 3 + 3 * 4, "{fault:?}: every operation was hit");
    }
}

#[test]
fn what_a_crash_has_left_of_an_eviction_is_ended_and_counted_once() {
    let dir = folder();
    let bytes = batch(key(1), "acme-1");
    let bytes_max = 2 * on_disk(&bytes);
    let (spool, _) = open(dir.path(), bytes_max, RealDisk);
    for number in 1..=3 {
        spool.store(key(number), &batch(key(number), "acme-1"), 20).expect("room");
    }
    assert_eq!((spool.evictions().batches, spool.evictions().records), (Some(1), Some(20)));
    // The removal did not reach the disk.
    std::fs::write(spool.path(key(1)), &bytes).expect("writable");
    drop(spool);
    let (spool, _) = open(dir.path(), bytes_max, RealDisk);
    assert_eq!(keys(&spool), [2, 3]);
    assert_eq!(spool.evictions().batches, Some(1));
    drop(spool);
    std::fs::write(dir.path().join("spool/evicted"), b"{").expect("writable");
    let (spool, _) = open(dir.path(), bytes_max, RealDisk);
    assert_eq!(spool.evictions().batches, None, "not known is not none");
    spool.store(key(4), &batch(key(4), "acme-1"), 20).expect("room");
    drop(spool);
    let (spool, _) = open(dir.path(), bytes_max, RealDisk);
    assert_eq!((keys(&spool), spool.evictions().batches), (vec![3, 4], None));
}

#[test]
fn a_full_disk_is_a_clear_error_and_the_same_sequence_works_later() {
    let dir = folder();
    for (operation, action) in [(4, "write"), (5, "rename a file to"), (6, "sync")] {
        let dir = dir.path().join(operation.to_string());
        let operations = Arc::new(AtomicUsize::new(0));
        let disk = FaultyDisk { fault: Fault::Fails, at: operation, operations };
        let (spool, _) = open(&dir, 1 << 20, disk);
        spool.store(key(1), &batch(key(1), "acme-1"), 20).expect("four operations work");
        let bytes = batch(key(2), "acme-1");
        let error = spool.store(key(2), &bytes, 20).expect_err("the disk is full");
        assert!(error.to_string().starts_with(&format!("cannot {action} ")), "{error}");
        assert!(
            matches!(error, SpoolError::Disk { source, .. } if source.kind() == ErrorKind::StorageFull)
        );
        assert_eq!(keys(&spool), [1]);
        spool.store(key(2), &bytes, 20).expect("somebody made room");
        assert_eq!(keys(&spool), [1, 2]);
        drop(spool);
        assert_eq!(keys(&open(&dir, 1 << 20, RealDisk).0), [1, 2]);
    }
}

#[test]
fn recovery_sets_aside_what_is_not_a_batch_of_this_sensor() {
    let dir = folder();
    let (spool, recovery) = open(dir.path(), 1 << 20, RealDisk);
    assert_eq!(recovery, Recovery::default());
    for number in 1..=6 {
        spool.store(key(number), &batch(key(number), "acme-1"), 20).expect("room");
    }
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).expect("writable");
    let whole = std::fs::read(spool.path(key(2))).expect("stored");
    write(&spool.path(key(2)), &whole[..whole.len() - 1]);
    let mut flipped = std::fs::read(spool.path(key(3))).expect("stored");
    flipped[100] ^= 4;
    write(&spool.path(key(3)), &flipped);
    write(&spool.path(key(4)), &batch(key(5), "acme-1"));
    write(&spool.path(key(6)), &batch(key(6), "rival-1"));
    write(&dir.path().join("spool/notes.txt"), b"hello");
    write(&spool.path(key(7)).with_extension("tmp"), &whole[..10]);
    drop(spool);
    let (spool, recovery) = open(dir.path(), 1 << 20, RealDisk);
    assert_eq!(keys(&spool), [1, 5]);
    let found = Recovery {
        batches_found: 2,
        batches_superseded: 1,
        records_superseded: 20,
        ..Recovery::default()
    };
    assert_eq!(recovery, Recovery { temporary_removed: 1, batches_quarantined: 4, ..found });
    assert_eq!(count(dir.path(), "quarantine"), 4);
    // The second opening has nothing left to put right, but nobody was told of the other's batch yet.
    drop(spool);
    let (_, recovery) = open(dir.path(), 1 << 20, RealDisk);
    assert_eq!(recovery, found);
}

fn count(dir: &Path, folder: &str) -> usize {
    std::fs::read_dir(dir.join(folder)).expect("there").count()
}

#[test]
fn every_batch_of_another_identity_is_kept_and_counted_until_it_was_told() {
    let dir = folder();
    let (spool, _) = open(dir.path(), 1 << 30, RealDisk);
    let bytes: Vec<Vec<u8>> = (1..=70).map(|number| batch(key(number), "acme-0")).collect();
    for (number, bytes) in (1..).zip(&bytes) {
        spool.store(key(number), bytes, 20).expect("room");
    }
    drop(spool);
    let waiting = waiting(dir.path()).expect("readable");
    assert_eq!((waiting.batches, waiting.records, waiting.names().as_str()), (70, 1_400, "acme-0"));

    let (spool, recovery) = open(dir.path(), 1 << 30, RealDisk);
    let given_up = |found: Recovery| (found.batches_superseded, found.records_superseded);
    assert_eq!((recovery.batches_found, recovery.batches_quarantined), (0, 0));
    assert_eq!(given_up(recovery), (70, 1_400));
    // This identity may use the same numbers: nothing of the other is overwritten.
    spool.store(key(1), &batch(key(1), "acme-1"), 20).expect("room");
    drop(spool);
    let (spool, recovery) = open(dir.path(), 1 << 30, RealDisk);
    assert_eq!(recovery.batches_found, 1);
    assert_eq!(given_up(recovery), (70, 1_400), "told to nobody yet");
    spool.superseded_told().expect("writable");
    drop(spool);
    assert_eq!(count(dir.path(), "superseded"), 70, "kept for people, all of them");

    let (spool, recovery) = open(dir.path(), 40 * 4096, RealDisk);
    assert_eq!(given_up(recovery), (0, 0), "not told twice");
    // They have a bound all the same, that of the spool; the ones that go were counted.
    spool.superseded_told().expect("writable");
    let kept: u64 = std::fs::read_dir(dir.path().join("superseded"))
        .expect("there")
        .map(|entry| RealDisk.disk_bytes(&entry.expect("there").path()).expect("there"))
        .sum();
    assert!(kept <= 40 * 4096 && kept > 0, "{kept}");
}

#[test]
fn the_oldest_that_is_not_on_its_way_is_evicted_first() {
    let dir = folder();
    let bytes = batch(key(1), "acme-1");
    let length = on_disk(&bytes);
    let (spool, _) = open(dir.path(), 3 * length, RealDisk);
    let store = |number| spool.store(key(number), &bytes, 20).expect("room");
    (1..=3).for_each(|number| assert_eq!(store(number).batches, 0));
    assert!(spool.index().set_unsure(key(1)));
    let evicted = store(4);
    assert_eq!((evicted.batches, evicted.records), (1, 20));
    assert_eq!(keys(&spool), [1, 3, 4]);
    let boot_epoch = key(1).boot_epoch;
    spool.settle(&[(boot_epoch, 0)]).expect("nothing to note");
    store(5);
    assert_eq!(keys(&spool), [3, 4, 5]);
    assert_eq!(spool.index().disk_bytes(), 3 * length);
    assert_eq!(spool.index().records(), 60);
    let large = vec![0; usize::try_from(3 * length + 1).expect("small")];
    assert!(matches!(spool.store(key(6), &large, 1), Err(SpoolError::TooSmall { .. })));
    assert_eq!(keys(&spool), [3, 4, 5]);
}

/// What was sent and given up is evicted or stored when the backend has said which, and neither before.
#[test]
fn what_may_be_stored_counts_when_the_backend_has_said_so() {
    let dir = folder();
    let length = on_disk(&batch(key(1), "acme-1"));
    let store = |spool: &Spool, key| spool.store(key, &batch(key, "acme-1"), 20).expect("room");
    let (spool, _) = open(dir.path(), 2 * length, RealDisk);
    for number in 1..=2 {
        store(&spool, key(number));
        assert!(spool.index().set_unsure(key(number)));
    }
    let given_up = (3..=4).map(|number| store(&spool, key(number)));
    // The second of them had the third to give up, which was never sent.
    assert_eq!(given_up.map(|given| given.batches).sum::<u64>(), 2);
    assert_eq!(keys(&spool), [2, 4]);
    let told = |spool: &Spool| (spool.evictions().batches, spool.unanswered().batches);
    assert_eq!(told(&spool), (Some(1), 3));
    drop(spool);
    // Nobody remembers what was sent before an opening, but it is not forgotten what is undecided.
    let (spool, _) = open(dir.path(), 2 * length, RealDisk);
    let later = Key { boot_epoch: 2, sequence: 1 };
    store(&spool, later);
    assert_eq!((keys(&spool), told(&spool)), (vec![4, 1], (Some(1), 4)));
    assert_eq!(spool.index().epochs(1), [1]);
    let stored = spool.settle(&[(1, 1), (2, 0)]).expect("writable");
    let stored: Vec<_> = stored.into_iter().map(|(key, given)| (key, given.records)).collect();
    assert_eq!((stored, told(&spool)), (vec![(key(1), 20)], (Some(2), 2)));
    // What is known to be stored is removed, and never given up.
    spool.index().settle(2, 1);
    store(&spool, Key { boot_epoch: 2, sequence: 2 });
    assert_eq!((keys(&spool), told(&spool)), (vec![1, 2], (Some(3), 2)));
    assert!(spool.acknowledged(later).expect("movable").is_some());
    assert!(spool.acknowledged(later).expect("nothing to do").is_none());
}

#[test]
fn what_is_set_aside_is_bounded() {
    let dir = folder();
    let (spool, _) = open(dir.path(), 1 << 20, RealDisk);
    for number in 1..=super::SET_ASIDE_MAX + 3 {
        let key = key(u64::try_from(number).expect("small"));
        spool.store(key, b"not looked at here", 1).expect("room");
        assert!(spool.reject(key).expect("movable").is_some());
    }
    let kept = std::fs::read_dir(dir.path().join("rejected")).expect("there").count();
    assert_eq!(kept, super::SET_ASIDE_MAX);
}
