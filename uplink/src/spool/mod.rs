//! Takes sealed batches; keeps each in a file of its own until the backend has it. Never deletes a batch
//! without counting it, never holds a batch's bytes in memory.
//!
//! ```text
//! STATE/spool/00000000001795258800-00000000000000000001.batch    boot epoch, sequence: names sort by age
//! STATE/spool/00000000001795258800-00000000000000000002.tmp      being written, or left by a crash
//! ```
//!
//! Batches of another identity are moved out, see [`superseded`].
//!
//! The bound is on what the files take of the disk, whole blocks, which for small batches is several times their
//! length. The folder's own entries come on top, less than a hundred bytes a batch.
//!
//! A batch is stored when the file was synced, renamed and its folder synced, in this order: a crash leaves
//! the whole file or a `.tmp`, which the next opening removes.

mod disk;
mod index;
mod kept;
mod sent;
#[cfg(test)]
mod sent_tests;
mod superseded;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;

pub(crate) use disk::{Disk, RealDisk};
pub(crate) use index::{Entry, Key, Size, SpoolIndex};
pub use kept::{KeptBatch, KeptBatches, Whereabouts};
pub(crate) use superseded::waiting;

use crate::batch::BATCH_BYTES_MAX;
use crate::private::{self, FileError};
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
            private::make_folder(path)?;
        }
        private::sync_folder(state)?;
        let index = Mutex::default();
        let sent = Sent::open(sent)?;
        let spool = Self { folder, quarantine, rejected, superseded, sent, bytes_max, disk, index };
        let recovery = spool.recover(&identity.sensor)?;
        Ok((spool, recovery))
    }

    /// The index. Never hold it across a disk operation: the delivery must not wait for one.
    pub(crate) fn index(&self) -> MutexGuard<'_, SpoolIndex> {
        // A panic elsewhere cannot leave the index half-changed: each change is a single call.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recover(&self, sensor: &SensorId) -> Result<Recovery, SpoolError> {
        let mut recovery = Recovery::default();
        let listing = fs::read_dir(&self.folder).map_err(disk_error("list", &self.folder))?;
        for entry in listing {
            let path = entry.map_err(disk_error("list", &self.folder))?.path();
            if path.extension() == Some(OsStr::new(TEMPORARY_SUFFIX)) {
                self.disk.remove(&path).map_err(disk_error("remove", &path))?;
                recovery.temporary_removed += 1;
                continue;
            }
            match check_file(&path) {
                Ok((header, _bytes)) if header.sensor != *sensor => {
                    superseded::set_aside(self.disk.as_ref(), &path, &header, &self.superseded)?;
                }
                Ok((header, bytes)) => {
                    let key = Key { boot_epoch: header.boot_epoch, sequence: header.sequence };
                    self.index().insert(key, size(&path, bytes)?, header.records);
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
        let untold = superseded::untold(&self.superseded)?;
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
        let size = size(&path, length)?;
        self.index().insert(key, size, records);
        Ok(self.make_room(key))
    }

    /// Evicts until the spool is within its bound; never the batch that was just stored.
    fn make_room(&self, newest: Key) -> Evicted {
        let mut evicted = Evicted::default();
        while self.index().disk_bytes() > self.bytes_max {
            let oldest = self.index().to_evict();
            let Some(key) = oldest.filter(|key| *key != newest) else { break };
            match self.remove(key) {
                // The delivery may have removed it meanwhile: then it is acked, not evicted.
                Ok(None) => {}
                Ok(Some(entry)) => {
                    evicted.batches += 1;
                    evicted.records += u64::from(entry.records);
                }
                Err(error) => {
                    // The new batch is stored and the old one is not lost: being over the bound is the
                    // lesser harm.
                    tracing::warn!(%error, "cannot evict");
                    break;
                }
            }
        }
        evicted
    }

    /// Removes a batch's file and forgets it; `None` when it was gone already.
    pub(crate) fn remove(&self, key: Key) -> Result<Option<Entry>, SpoolError> {
        let path = self.path(key);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(disk_error("remove", &path)(error))
            }
            _ => Ok(self.index().remove(key)),
        }
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
fn check_file(path: &Path) -> Result<(BatchHeader, u64), String> {
    let key = key_of(path).ok_or("its name is not that of a batch")?;
    let (header, bytes) = open_spooled(path)?;
    if (header.boot_epoch, header.sequence) != (key.boot_epoch, key.sequence) {
        return Err(format!("it holds batch {}", header.id()));
    }
    Ok((header, bytes))
}

/// Reads a batch file's header and checks all of its bytes.
fn open_spooled(path: &Path) -> Result<(BatchHeader, u64), String> {
    let bytes = read_bounded(path).map_err(|error| error.to_string())?;
    let header = open_header(&bytes).map_err(|error| error.to_string())?;
    Ok((header, u64::try_from(bytes.len()).unwrap_or(u64::MAX)))
}

fn size(path: &Path, bytes: u64) -> Result<Size, SpoolError> {
    let metadata = fs::metadata(path).map_err(disk_error("examine", path))?;
    Ok(Size { bytes, disk_bytes: disk_usage(&metadata) })
}

/// What a file takes of the disk: whole blocks of it, whatever its length.
fn disk_usage(metadata: &fs::Metadata) -> u64 {
    // The unit of `st_blocks` is 512 bytes on every file system.
    (metadata.blocks() * 512).max(metadata.len())
}

/// Reads a batch file, but never more than a batch can have.
pub(crate) fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let limit = u64::try_from(BATCH_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() > BATCH_BYTES_MAX {
        return Err(std::io::Error::other(format!("longer than {BATCH_BYTES_MAX} bytes")));
    }
    Ok(bytes)
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
    let mut kept: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(disk_error("list", folder))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    kept.sort();
    for oldest in kept.iter().take(kept.len().saturating_sub(SET_ASIDE_MAX)) {
        disk.remove(oldest).map_err(disk_error("remove", oldest))?;
    }
    Ok(())
}
