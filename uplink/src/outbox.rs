//! Takes records from the sensor's own thread; seals them and puts them into the spool. Never waits for the
//! network, never runs on an async runtime.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use flow::{Books, Record};
use thiserror::Error;
use tokio::sync::Notify;

use crate::batch::{BatchHeader, OpenError, SealError, Sealer, batch_blake3, time_range};
use crate::certificate::Validity;
use crate::spool::{Disk, Given, Key, RealDisk, Recovery, Spool, SpoolError};
use crate::state::{Credentials, Identity, StateError, StateFolder};
use crate::{BatchId, Health};

/// What an outbox is opened with.
#[derive(Clone, Debug)]
pub struct OutboxOptions {
    /// The sensor's state folder; [`crate::enroll`] has put an identity there.
    pub state_dir: PathBuf,
    /// Most bytes of the disk that sealed batches may take, in whole blocks as the disk gives them; beyond it the
    /// oldest are evicted and counted.
    pub spool_bytes_max: u64,
    /// SHA-256 of the kernel object; zeros when no kernel sees the packets.
    pub object_sha256: [u8; 32],
    /// Version of the sensor, at most 64 bytes.
    pub sensor_version: String,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// Why an outbox cannot be opened, or cannot seal.
#[derive(Debug, Error)]
pub enum OutboxError {
    /// The state folder. Remedy: see [`StateError`].
    #[error(transparent)]
    State(#[from] StateError),
    /// The spool. Remedy: see [`SpoolError`].
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The records break a rule of the batch format.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// What was sealed does not read back; cannot happen while encoder and decoder agree.
    #[error("a batch that was just sealed is not whole: {0}")]
    Unreadable(#[from] OpenError),
}

/// One sealed batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedInfo {
    /// Its name.
    pub id: BatchId,
    /// Its records.
    pub records: u32,
    /// Its length.
    pub bytes: u64,
    /// Batches evicted to make room for it.
    pub evicted_batches: u64,
    /// Records in those.
    pub evicted_records: u64,
}

/// What an outbox has done since it was opened, and what waits in its spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxTotals {
    /// Records sealed.
    pub records_sealed: u64,
    /// Batches sealed.
    pub batches_sealed: u64,
    /// Records given up before the backend had them: evicted, or sealed under an earlier identity.
    pub records_evicted: u64,
    /// Batches given up before the backend had them.
    pub batches_evicted: u64,
    /// Batches that wait for the backend's word, those of earlier boot epochs included, and those that a full spool
    /// gave up after they had been sent.
    pub batches_waiting: u64,
    /// Records in those.
    pub records_waiting: u64,
    /// What those take of the disk.
    pub spool_bytes: u64,
    /// What the opening found.
    pub recovery: Recovery,
}

/// What the outbox and the delivery share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) credentials: Credentials,
    pub(crate) spool: Spool,
    /// Wakes the delivery when a batch was stored.
    pub(crate) stored: Notify,
    /// What an outbox has said of the sensor.
    condition: Mutex<Condition>,
    /// Keeps the folder locked as long as either side lives.
    pub(crate) state: StateFolder,
}

/// What the spool alone does not know.
#[derive(Debug, Default)]
struct Condition {
    /// The sensor's totals in the batch that was sealed last.
    books: Option<Books>,
    sensor_version: Option<String>,
}

impl Shared {
    /// What can be said of this sensor now, apart from the link and the clock.
    pub(crate) fn health(&self) -> Health {
        let evictions = self.spool.evictions();
        let condition = self.condition.lock().unwrap_or_else(PoisonError::into_inner);
        let index = self.spool.index();
        Health {
            batches_waiting: u64::try_from(index.len()).ok(),
            records_waiting: Some(index.records()),
            spool_bytes: Some(index.disk_bytes()),
            // Without an outbox nothing is stored, and there is no bound.
            spool_bytes_max: Some(self.spool.bytes_max()).filter(|bytes| *bytes != u64::MAX),
            batches_evicted: evictions.batches,
            records_evicted: evictions.records,
            frames_seen: condition.books.map(|books| books.frames_seen),
            frames_missed: condition.books.and_then(|books| books.nic_missed),
            packets_folded: condition.books.map(|books| books.packets_folded),
            sensor_version: condition.sensor_version.clone(),
            ..Health::default()
        }
    }

    fn condition(&self, change: impl FnOnce(&mut Condition)) {
        change(&mut self.condition.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn open(
        state_dir: &Path,
        spool_bytes_max: u64,
        disk: Box<dyn Disk>,
    ) -> Result<(Self, Recovery), OutboxError> {
        if state_dir.try_exists().is_ok_and(|exists| !exists) {
            // Only an enrolment makes the folder: this name is mistyped, perhaps.
            return Err(StateError::NotEnrolled { folder: state_dir.to_path_buf() }.into());
        }
        let state = StateFolder::open(state_dir)?;
        let credentials = state.credentials()?;
        let (spool, recovery) =
            Spool::open(state.path(), spool_bytes_max, &credentials.identity, disk)?;
        let (stored, condition) = (Notify::new(), Mutex::default());
        Ok((Self { credentials, spool, stored, condition, state }, recovery))
    }
}

/// The spool, for [`crate::deliver()`]; cheap to clone. The state folder stays locked while one exists.
#[derive(Clone, Debug)]
pub struct SpoolHandle(pub(crate) Arc<Shared>);

impl SpoolHandle {
    /// Locks the state folder and puts the spool right after a crash, to deliver what waits and nothing more. Needs
    /// no room on the disk, so that a spool that has filled it can be emptied.
    ///
    /// # Errors
    ///
    /// When the folder is in use, holds no identity, or is damaged.
    pub fn open(state_dir: &Path) -> Result<(Self, Recovery), OutboxError> {
        // Nothing is stored, so nothing is evicted.
        let (shared, recovery) = Shared::open(state_dir, u64::MAX, Box::new(RealDisk))?;
        Ok((Self(Arc::new(shared)), recovery))
    }

    /// Who this sensor is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.credentials.identity
    }

    /// How long the certificate is valid that the next connection shows.
    #[must_use]
    pub fn certificate(&self) -> Validity {
        self.0.credentials.certificate.validity()
    }

    /// From now on sent batches take at most so much of the disk; 0 keeps none. Without it: 256 MiB.
    pub fn set_sent_bytes_max(&self, bytes_max: u64) {
        self.0.spool.set_sent_bytes_max(bytes_max);
    }

    /// Batches and records that wait now.
    #[must_use]
    pub fn waiting(&self) -> (u64, u64) {
        let Given { batches, records, .. } = self.0.spool.unanswered();
        (batches, records)
    }
}

/// Seals records and spools the batches.
#[derive(Debug)]
pub struct Outbox {
    shared: Arc<Shared>,
    sealer: Sealer,
    boot_epoch: u64,
    next_sequence: u64,
    previous_blake3: [u8; 32],
    object_sha256: [u8; 32],
    sensor_version: String,
    totals: OutboxTotals,
    /// Batches of an earlier identity are in no sealed batch's books yet.
    superseded_untold: bool,
}

impl Outbox {
    /// Locks the state folder, puts the spool right after a crash, and begins a new boot epoch.
    ///
    /// # Errors
    ///
    /// When the folder is in use, holds no identity, is damaged, or cannot be written.
    pub fn open(options: OutboxOptions) -> Result<Self, OutboxError> {
        Self::open_on(options, Box::new(RealDisk))
    }

    pub(crate) fn open_on(
        options: OutboxOptions,
        disk: Box<dyn Disk>,
    ) -> Result<Self, OutboxError> {
        let (shared, recovery) = Shared::open(&options.state_dir, options.spool_bytes_max, disk)?;
        let boot_epoch = shared.state.next_boot_epoch(options.now_ms)?;
        let version = Some(options.sensor_version.clone()).filter(|version| !version.is_empty());
        shared.condition(|condition| condition.sensor_version = version);
        Ok(Self {
            shared: Arc::new(shared),
            sealer: Sealer::new(),
            boot_epoch,
            next_sequence: 1,
            previous_blake3: [0; 32],
            object_sha256: options.object_sha256,
            sensor_version: options.sensor_version,
            totals: OutboxTotals {
                records_evicted: recovery.records_superseded,
                batches_evicted: recovery.batches_superseded,
                recovery,
                ..OutboxTotals::default()
            },
            superseded_untold: recovery.batches_superseded > 0,
        })
    }

    /// Who this sensor is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.shared.credentials.identity
    }

    /// The number of this opening of the outbox.
    #[must_use]
    pub const fn boot_epoch(&self) -> u64 {
        self.boot_epoch
    }

    /// The spool, for [`crate::deliver()`].
    #[must_use]
    pub fn spool(&self) -> SpoolHandle {
        SpoolHandle(Arc::clone(&self.shared))
    }

    /// Seals records into one batch, durable when this returns. `books.records_sealed` and
    /// `books.records_evicted` are replaced by the outbox's own counts, this batch included.
    ///
    /// After an error nothing has changed: the caller may offer the same records again.
    ///
    /// # Errors
    ///
    /// When the records break a rule of the format, or the disk refuses.
    pub fn seal(
        &mut self,
        records: &[Record],
        books: &Books,
        now_ms: u64,
    ) -> Result<SealedInfo, OutboxError> {
        self.seal_pseudonyms(records, None, books, now_ms)
    }

    /// As [`Outbox::seal`], of records whose pseudonyms the key of this key epoch has made.
    ///
    /// # Errors
    ///
    /// As [`Outbox::seal`].
    pub fn seal_pseudonyms(
        &mut self,
        records: &[Record],
        key_epoch: Option<u32>,
        books: &Books,
        now_ms: u64,
    ) -> Result<SealedInfo, OutboxError> {
        let Identity { member, sensor, .. } = &self.shared.credentials.identity;
        let (start_ms, end_ms) = time_range(records, now_ms);
        let count = u32::try_from(records.len())
            .map_err(|_large| SealError::Count { header: u32::MAX, records: records.len() })?;
        let records_sealed = self.totals.records_sealed + u64::from(count);
        let records_evicted = self.totals().records_evicted;
        let header = BatchHeader {
            member: member.clone(),
            sensor: sensor.clone(),
            boot_epoch: self.boot_epoch,
            sequence: self.next_sequence,
            start_ms,
            end_ms,
            sealed_ms: now_ms,
            records: count,
            books: Books { records_sealed, records_evicted, ..*books },
            object_sha256: self.object_sha256,
            previous_blake3: self.previous_blake3,
            sensor_version: self.sensor_version.clone(),
            key_epoch,
        };
        let bytes = self.sealer.seal(&header, records, &self.shared.credentials.key)?;
        let checksum = batch_blake3(&bytes)?;
        let key = Key { boot_epoch: self.boot_epoch, sequence: self.next_sequence };
        let evicted = self.shared.spool.store(key, &bytes, count)?;
        self.shared.condition(|condition| condition.books = Some(header.books));
        self.shared.stored.notify_one();
        if self.superseded_untold {
            self.superseded_untold = false;
            // The next opening would only tell of them once more.
            if let Err(error) = self.shared.spool.superseded_told() {
                tracing::warn!(%error, "batches of another identity stay marked as not told");
            }
        }
        self.previous_blake3 = checksum;
        self.next_sequence += 1;
        self.totals.records_sealed = records_sealed;
        self.totals.batches_sealed += 1;
        Ok(SealedInfo {
            id: header.id(),
            records: count,
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            evicted_batches: evicted.batches,
            evicted_records: evicted.records,
        })
    }

    /// What was sealed and evicted since the opening, and what waits.
    #[must_use]
    pub fn totals(&self) -> OutboxTotals {
        let spool = &self.shared.spool;
        let (waiting, evicted) = (spool.unanswered(), spool.evictions().since_opening);
        OutboxTotals {
            batches_evicted: self.totals.batches_evicted + evicted.batches,
            records_evicted: self.totals.records_evicted + evicted.records,
            batches_waiting: waiting.batches,
            records_waiting: waiting.records,
            spool_bytes: spool.index().disk_bytes(),
            ..self.totals
        }
    }
}
