//! Takes sealed batches; keeps each in a file of its own until the backend has it. Never deletes a batch
//! without counting it, never holds a batch's bytes in memory.
//!
//! ```text
//! STATE/spool/00000000001795258800-00000000000000000001.batch    boot epoch, sequence: names sort by age
//! STATE/spool/00000000001795258800-00000000000000000002.tmp      being written, or left by a crash
//! ```
//!
//! Batches of another identity are moved out, see [`superseded`]; how much was given up is kept, see [`evicted`].
//!
//! The bound is on what the files take of the disk, whole blocks, which for small batches is several times their
//! length. The folder's own entries come on top, less than a hundred bytes a batch.
//!
//! A batch is stored when the file was synced, renamed and its folder synced, in this order: a crash leaves
//! the whole file or a `.tmp`, which the next opening removes.

mod disk;
mod evicted;
mod index;
mod kept;
mod sent;
#[cfg(test)]
mod sent_tests;
mod superseded;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;

#[cfg(test)]
pub(crate) use disk::Listing;
pub(crate) use disk::{Disk, RealDisk};
pub(crate) use evicted::Evictions;
pub(crate) use index::{Entry, Key, Size, SpoolIndex};
pub use kept::{KeptBatch, KeptBatches, Whereabouts};
pub(crate) use superseded::waiting;

use crate::private::FileError;
use crate::state::Identity;
use crate::{BatchHeader, SensorId, open_header};
use sent::Sent;
use superseded::Superseded;

/// Files kept in `quarantine` and in `rejected`, each: enough to find a cause, and a bound on the disk.
const SET_ASIDE_MAX: usize = 64;
/// What the disk gives at a time, on the usual file systems: no batch takes less of it.
const BLOCK_BYTES: u64 = 4096;
const SUFFIX: &str = "batch";
const TEMPORARY_SUFFIX: &str = "tmp";

/// Why the spool cannot take or give a batch.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The disk refused; what was stored before is still there, and the sequence was not used. Remedy: make
    /// room on the disk, or lower `spool_bytes_max` below what it has.
    #[error("cannot {action} {}: {source}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// One batch is larger than the whole spool may be. Remedy: raise `spool_bytes_max`.
    #[error(
        "a batch of {bytes} bytes, in whole blocks, does not fit a spool of at most {spool_bytes_max} bytes"
    )]
    TooSmall {
        /// Bytes of the batch.
        bytes: u64,
        /// The bound.
        spool_bytes_max: u64,
    },
    /// A folder of the state cannot be made.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What the opening of a spool found and put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Half-written files of a crash, removed.
    pub temporary_removed: u64,
    /// Damaged files, and what is no batch, moved to `quarantine`.
    pub batches_quarantined: u64,
    /// Whole batches that wait for the backend.
    pub batches_found: u64,
    /// Batches that another identity has sealed, moved to `superseded`, and not told to the backend yet.
    pub batches_superseded: u64,
    /// Records in those: given up, as the evicted ones are.
    pub records_superseded: u64,
}

/// What was given up to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evicted {
    pub(crate) batches: u64,
    pub(crate) records: u64,
}

/// The spool of one sensor.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    quarantine: PathBuf,
    rejected: PathBuf,
    superseded: PathBuf,
    sent: Sent,
    bytes_max: u64,
    disk: Box<dyn Disk>,
    index: Mutex<SpoolIndex>,
    evictions: Mutex<Evictions>,
}

impl Spool {
    /// Opens the spool of a state folder: removes what a crash left, checks every file, indexes the whole ones.
    pub(crate) fn open(
        state: &Path,
        bytes_max: u64,
        identity: &Identity,
        disk: Box<dyn Disk>,
    ) -> Result<(Self, Recovery), SpoolError> {
        let [folder, quarantine, rejected, superseded, sent] =
            ["spool", "quarantine", "rejected", "superseded", "sent"].map(|name| state.join(name));
        for path in [&folder, &quarantine, &rejected, &superseded, &sent] {
            disk.make_folder(path)?;
        }
        disk.sync_folder(state).map_err(disk_error("sync", state))?;
        let sent = Sent::open(disk.as_ref(), sent)?;
        let spool = Self {
            folder,
            quarantine,
            rejected,
            superseded,
            sent,
            bytes_max,
            disk,
            index: Mutex::default(),
            evictions: Mutex::default(),
        };
        spool.recover_evictions()?;
        let recovery = spool.recover(&identity.sensor)?;
        Ok((spool, recovery))
    }

    /// The index. Never hold it across a disk operation: the delivery must not wait for one.
    pub(crate) fn index(&self) -> MutexGuard<'_, SpoolIndex> {
        // A panic elsewhere cannot leave the index half-changed: each change is a single call.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bound on what the batches take of the disk, bytes.
    pub(crate) const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// What was given up since the folder was made.
    pub(crate) fn evictions(&self) -> Evictions {
        self.evictions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads what was given up, and ends what a crash has interrupted.
    fn recover_evictions(&self) -> Result<(), SpoolError> {
        let path = self.folder.join(evicted::FILE);
        let evictions = match self.disk.read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(disk_error("read", &path)(error)),
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                let file = path.display();
                tracing::warn!(%file, %error, "how much was evicted so far is not known any more");
                Evictions::unknown()
            }),
        };
        for key in evictions.going() {
            let path = self.path(key);
            match self.disk.remove(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(disk_error("remove", &path)(error));
                }
                _ => {}
            }
        }
        *self.evictions.lock().unwrap_or_else(PoisonError::into_inner) = evictions;
        Ok(())
    }

    fn recover(&self, sensor: &SensorId) -> Result<Recovery, SpoolError> {
        let mut recovery = Recovery::default();
        let listing = self.disk.list(&self.folder).map_err(disk_error("list", &self.folder))?;
        for path in listing {
            let path = path.map_err(disk_error("list", &self.folder))?;
            if path.file_name() == Some(OsStr::new(evicted::FILE)) {
                continue;
            }
            if path.extension() == Some(OsStr::new(TEMPORARY_SUFFIX)) {
                self.disk.remove(&path).map_err(disk_error("remove", &path))?;
                recovery.temporary_removed += 1;
                continue;
            }
            match check_file(self.disk.as_ref(), &path) {
                Ok((header, _bytes)) if header.sensor != *sensor => {
                    superseded::set_aside(self.disk.as_ref(), &path, &header, &self.superseded)?;
                }
                Ok((header, bytes)) => {
                    let key = Key { boot_epoch: header.boot_epoch, sequence: header.sequence };
                    let size = self.size(&path, bytes)?;
                    self.index().insert(key, size, header.records);
                    recovery.batches_found += 1;
                }
                Err(reason) => {
                    let (file, to) = (path.display(), self.quarantine.display());
                    tracing::warn!(%file, reason, "damaged spool file moved to {to}");
                    set_aside(self.disk.as_ref(), &path, &self.quarantine)?;
                    recovery.batches_quarantined += 1;
                }
            }
        }
        let untold = superseded::untold(self.disk.as_ref(), &self.superseded)?;
        if untold.batches > 0 {
            let Superseded { batches, records, .. } = untold;
            let (names, to) = (untold.names(), self.superseded.display());
            tracing::warn!(
                "{records} records (batches: {batches}) were sealed under another identity, {names}; this is \
                 {sensor}, which cannot deliver them: they are in {to}, and count as given up"
            );
            recovery.batches_superseded = batches;
            recovery.records_superseded = records;
            for folder in [&self.superseded, &self.folder] {
                self.disk.sync_folder(folder).map_err(disk_error("sync", folder))?;
            }
        }
        Ok(recovery)
    }

    /// Notes that a batch which tells of the superseded ones is stored.
    pub(crate) fn superseded_told(&self) -> Result<(), SpoolError> {
        superseded::told(self.disk.as_ref(), &self.superseded, self.bytes_max)
    }

    /// Stores a batch durably, then makes room if the spool is over its bound.
    pub(crate) fn store(
        &self,
        key: Key,
        bytes: &[u8],
        records: u32,
    ) -> Result<Evicted, SpoolError> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length.next_multiple_of(BLOCK_BYTES) > self.bytes_max {
            let spool_bytes_max = self.bytes_max;
            return Err(SpoolError::TooSmall { bytes: length, spool_bytes_max });
        }
        let path = self.path(key);
        let temporary = path.with_extension(TEMPORARY_SUFFIX);
        let written = match self.disk.write_new(&temporary, bytes) {
            Err(error)
                if error.kind() == ErrorKind::StorageFull
                    && self.sent.give_room(self.disk.as_ref(), length) =>
            {
                drop(self.disk.remove(&temporary));
                self.disk.write_new(&temporary, bytes)
            }
            written => written,
        };
        let stored = written.map_err(disk_error("write", &temporary)).and_then(|()| {
            self.disk.rename(&temporary, &path).map_err(disk_error("rename a file to", &path))
        });
        if let Err(error) = stored {
            // The half-written file goes, so that a full disk does not become fuller with every attempt.
            if let Err(left) = self.disk.remove(&temporary) {
                tracing::warn!(file = %temporary.display(), %left, "cannot remove a half-written file");
            }
            return Err(error);
        }
        if let Err(error) = self.disk.sync_folder(&self.folder) {
            // The name may or may not be on the disk. The caller will use the sequence again, so it must go.
            if let Err(left) = self.disk.remove(&path) {
                tracing::warn!(file = %path.display(), %left, "cannot remove a file that is not durable");
            }
            return Err(disk_error("sync", &self.folder)(error));
        }
        let size = self.size(&path, length)?;
        self.index().insert(key, size, records);
        Ok(self.make_room(key))
    }

    /// Evicts until the spool is within its bound; never the batch that was just stored. What goes is noted first.
    fn make_room(&self, newest: Key) -> Evicted {
        // From here on an ack of one of them is not counted: it counts as evicted.
        let taken = self.index().take_excess(self.bytes_max, newest);
        if taken.is_empty() {
            return Evicted::default();
        }
        let noted = self.evictions().with(&taken);
        if let Err(error) = self.note(&noted) {
            // The new batch is stored and the old ones are not lost: being over the bound is the lesser harm.
            tracing::warn!(%error, "cannot evict");
            self.index().put_back(&taken);
            return Evicted::default();
        }
        let is_gone = |key: &Key| {
            let path = self.path(*key);
            match self.disk.remove(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(file = %path.display(), %error, "an evicted batch is still there");
                    false
                }
                _ => true,
            }
        };
        let left: Vec<Key> = noted.going().filter(|key| !is_gone(key)).collect();
        let mut evictions = self.evictions.lock().unwrap_or_else(PoisonError::into_inner);
        *evictions = noted;
        evictions.left(left.into_iter());
        let records = taken.iter().map(|(_, entry)| u64::from(entry.records)).sum();
        Evicted { batches: taken.len() as u64, records }
    }

    fn note(&self, evictions: &Evictions) -> Result<(), SpoolError> {
        let path = self.folder.join(evicted::FILE);
        let temporary = path.with_extension(TEMPORARY_SUFFIX);
        let bytes = serde_json::to_vec(evictions)
            .map_err(|error| disk_error("write", &temporary)(error.into()))?;
        let renamed = self
            .disk
            .write_new(&temporary, &bytes)
            .and_then(|()| self.disk.rename(&temporary, &path));
        if let Err(error) = renamed {
            // It is not there, or the next opening removes it.
            drop(self.disk.remove(&temporary));
            return Err(disk_error("note evictions in", &path)(error));
        }
        // Whatever reaches the disk after this comes after the new name: it is as good as evicted.
        if let Err(error) = self.disk.sync_folder(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot sync");
        }
        Ok(())
    }

    /// Takes a batch out of the line that the backend has, and keeps its file among the sent ones.
    pub(crate) fn acknowledged(&self, key: Key) -> Result<Option<Entry>, SpoolError> {
        let disk_bytes = self.index().disk_bytes_of(key);
        self.sent.keep(self.disk.as_ref(), &self.path(key), disk_bytes)?;
        Ok(self.index().remove(key))
    }

    /// From now on at most so much of the disk is for sent batches.
    pub(crate) fn set_sent_bytes_max(&self, bytes_max: u64) {
        self.sent.set_bytes_max(bytes_max);
    }

    /// Takes a batch out of the line that the backend refused, and keeps its file beside the spool.
    pub(crate) fn reject(&self, key: Key) -> Result<Option<Entry>, SpoolError> {
        set_aside(self.disk.as_ref(), &self.path(key), &self.rejected)?;
        Ok(self.index().remove(key))
    }

    /// Reads a batch, to be sent.
    pub(crate) fn read(&self, key: Key) -> std::io::Result<Vec<u8>> {
        self.disk.read(&self.path(key))
    }

    /// Takes a batch out of the line that cannot be read, and keeps its file beside the spool: were it passed over,
    /// the backend's greeting would seem to say that it is stored.
    pub(crate) fn quarantine(&self, key: Key) -> Result<Option<Entry>, SpoolError> {
        set_aside(self.disk.as_ref(), &self.path(key), &self.quarantine)?;
        Ok(self.index().remove(key))
    }

    /// Forgets a batch whose file somebody else has removed; whether it was still expected to be there.
    pub(crate) fn forget(&self, key: Key) -> bool {
        self.index().remove(key).is_some()
    }

    fn size(&self, path: &Path, bytes: u64) -> Result<Size, SpoolError> {
        let disk_bytes = self.disk.disk_bytes(path).map_err(disk_error("examine", path))?;
        Ok(Size { bytes, disk_bytes: disk_bytes.max(bytes) })
    }

    pub(crate) fn path(&self, key: Key) -> PathBuf {
        let stem = Key::stem(key.boot_epoch, key.sequence);
        self.folder.join(format!("{stem}.{SUFFIX}"))
    }
}

fn disk_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> SpoolError + use<> {
    let path = path.to_path_buf();
    move |source| SpoolError::Disk { action, path, source }
}

/// Reads a spool file's header and checks all of its bytes; the reason when it is not what its name says.
fn check_file(disk: &dyn Disk, path: &Path) -> Result<(BatchHeader, u64), String> {
    let key = key_of(path).ok_or("its name is not that of a batch")?;
    let (header, bytes) = open_spooled(disk, path)?;
    if (header.boot_epoch, header.sequence) != (key.boot_epoch, key.sequence) {
        return Err(format!("it holds batch {}", header.id()));
    }
    Ok((header, bytes))
}

/// Reads a batch file's header and checks all of its bytes.
fn open_spooled(disk: &dyn Disk, path: &Path) -> Result<(BatchHeader, u64), String> {
    let bytes = disk.read(path).map_err(|error| error.to_string())?;
    let header = open_header(&bytes).map_err(|error| error.to_string())?;
    Ok((header, u64::try_from(bytes.len()).unwrap_or(u64::MAX)))
}

fn key_of(path: &Path) -> Option<Key> {
    let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.strip_suffix('.')?;
    let (boot_epoch, sequence) = name.split_once('-')?;
    if boot_epoch.len() != 20 || sequence.len() != 20 {
        return None;
    }
    Some(Key { boot_epoch: boot_epoch.parse().ok()?, sequence: sequence.parse().ok()? })
}

/// Moves a file into a folder of which the newest [`SET_ASIDE_MAX`] files are kept.
fn set_aside(disk: &dyn Disk, path: &Path, folder: &Path) -> Result<(), SpoolError> {
    let name = path.file_name().unwrap_or(OsStr::new("nameless"));
    let to = folder.join(name);
    match disk.rename(path, &to) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(disk_error("rename a file to", &to)(error));
        }
        _ => {}
    }
    let mut kept: Vec<PathBuf> =
        disk.list(folder).map_err(disk_error("list", folder))?.filter_map(Result::ok).collect();
    kept.sort();
    for oldest in kept.iter().take(kept.len().saturating_sub(SET_ASIDE_MAX)) {
        disk.remove(oldest).map_err(disk_error("remove", oldest))?;
    }
    Ok(())
}
