//! The sensor of the simulated world: the real [`Session`] and the real [`Spool`] on a simulated disk, with the order
//! of things that `outbox` and `deliver` have.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::disk::SimulatedDisk;
use crate::session::{Session, SessionSettings};
use crate::spool::{Key, Spool};
use crate::state::{Identity, epoch_after};
use crate::test_records::realistic;
use crate::{BatchHeader, SigningKey, seal, time_range};

thread_local! {
    /// Sealed once; sealing takes longer than the rest of a seed.
    static BATCHES: RefCell<HashMap<Key, Vec<u8>>> = RefCell::default();
    static KEY: SigningKey = SigningKey::generate().expect("the system gives random numbers");
}

fn identity() -> Identity {
    Identity {
        member: "acme".parse().expect("a name"),
        sensor: "acme-1".parse().expect("a name"),
        backend: "127.0.0.1:1".to_owned(),
    }
}

fn sealed(key: Key) -> Vec<u8> {
    let make = || {
        let records = realistic(key.sequence, 1);
        let (start_ms, end_ms) = time_range(&records, 0);
        let header = BatchHeader {
            member: identity().member,
            sensor: identity().sensor,
            boot_epoch: key.boot_epoch,
            sequence: key.sequence,
            start_ms,
            end_ms,
            sealed_ms: 0,
            records: 1,
            books: flow::Books::default(),
            object_sha256: [0; 32],
            previous_blake3: [0; 32],
            sensor_version: String::new(),
            key_epoch: None,
        };
        let sealed = KEY.with(|signer| seal(&header, &records, signer));
        sealed.expect("the header fits the records").to_vec()
    };
    BATCHES.with_borrow_mut(|batches| batches.entry(key).or_insert_with(make).clone())
}

/// All of it.
#[derive(Debug)]
pub(super) struct Sensor {
    pub(super) disk: SimulatedDisk,
    /// Gone while it is off.
    pub(super) spool: Option<Spool>,
    pub(super) session: Session,
    bytes_max: u64,
    /// Boot epochs that a hello asks for: of the others, what is stored comes again.
    epochs_max: usize,
    /// Durable apart from the spool.
    boot_epoch: u64,
    sequence: u64,
    /// Records that wait to be sealed, in batches.
    pub(super) pending: u64,
    /// Seals that the disk refused, or that the loss of power has interrupted: a later opening may find them whole.
    unsure: BTreeSet<Key>,
    /// What was sealed, as the outbox said, or as a later opening found.
    pub(super) sealed: BTreeSet<Key>,
    /// What was given up, as the spool has noted; some of it may be stored.
    pub(super) given_up: BTreeSet<Key>,
}

fn session(seed: u64, epochs_max: usize, now_ms: u64) -> Session {
    let settings = SessionSettings {
        in_flight_max: 5,
        backoff_min_ms: 10,
        backoff_max_ms: 2_000,
        connect_timeout_ms: 500,
        answer_timeout_ms: 1_000,
        epochs_max,
        seed,
    };
    Session::new(settings, now_ms)
}

impl Sensor {
    pub(super) fn new(disk: SimulatedDisk, bytes_max: u64, epochs_max: usize, seed: u64) -> Self {
        Self {
            disk,
            spool: None,
            session: session(seed, epochs_max, 0),
            bytes_max,
            epochs_max,
            boot_epoch: 0,
            sequence: 0,
            pending: 0,
            unsure: BTreeSet::new(),
            sealed: BTreeSet::new(),
            given_up: BTreeSet::new(),
        }
    }

    /// Comes back after it was off; power may be lost during this, too.
    pub(super) fn start(&mut self, now_ms: u64, clock_ms: u64) -> Result<(), String> {
        let opened = Spool::open(
            Path::new("/state"),
            self.bytes_max,
            &identity(),
            Box::new(self.disk.clone()),
        );
        let Ok((spool, recovery)) = opened else {
            // Power is lost again, or a bad sector: whoever runs the sensor starts it again.
            if self.disk.is_dead() {
                self.disk.restart();
            }
            return Ok(());
        };
        // So few that old ones have to go.
        spool.set_sent_bytes_max(self.bytes_max / 2);
        if recovery.batches_quarantined > 0 {
            return Err(format!("{} whole files were not", recovery.batches_quarantined));
        }
        let found = std::mem::take(&mut self.unsure);
        self.sealed.extend(found.into_iter().filter(|key| spool.index().contains(*key)));
        // Noted, but not synced, and so not done either.
        self.given_up.retain(|key| !spool.index().contains(*key));
        self.given_up.extend(spool.evictions().going());
        self.boot_epoch = epoch_after(self.boot_epoch, clock_ms).ok_or("the last boot epoch")?;
        self.sequence = 0;
        self.session = session(now_ms, self.epochs_max, now_ms);
        self.spool = Some(spool);
        Ok(())
    }

    /// What is in a spool that may have to evict.
    fn crowded(&self, spool: &Spool) -> Vec<Key> {
        let index = spool.index();
        if index.disk_bytes() + 8 * 512 < self.bytes_max {
            return Vec::new();
        }
        std::iter::successors(index.after(None), |key| index.after(Some(*key))).collect()
    }

    /// Seals what waits, as far as the disk lets it.
    pub(super) fn seal(&mut self) {
        let Some(spool) = &self.spool else { return };
        while self.pending > 0 {
            let key = Key { boot_epoch: self.boot_epoch, sequence: self.sequence + 1 };
            let before = self.crowded(spool);
            let Ok(given) = spool.store(key, &sealed(key), 1) else {
                self.unsure.insert(key);
                // Records that wait are in memory, and go with it.
                self.pending -= u64::from(self.disk.is_dead());
                return;
            };
            self.sequence += 1;
            self.pending -= 1;
            self.sealed.insert(key);
            let gone = before.into_iter().filter(|key| !spool.index().contains(*key));
            let count = self.given_up.len() as u64 + given.batches;
            self.given_up.extend(gone);
            assert_eq!(self.given_up.len() as u64, count, "each is counted");
            if self.disk.is_dead() {
                return;
            }
        }
    }
}
