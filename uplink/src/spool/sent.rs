//! Takes batches that the backend has acknowledged; keeps their files, within a bound, so that a member can read every
//! byte that has left. Never holds up the delivery, and never fills a disk: a batch that cannot be kept is removed, and
//! counted; while less than a twentieth of the disk is free, none is kept.
//!
//! ```text
//! STATE/sent/00000000001795258800-00000000000000000001.batch    as it was sent; names sort by age
//! STATE/sent/removed                                            how many were not kept, or no longer
//! ```

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Disk, SUFFIX, SpoolError, TEMPORARY_SUFFIX, disk_error};

/// What the disk keeps of sent batches when nobody says otherwise: a week of a small site.
pub(crate) const SENT_BYTES_MAX: u64 = 256 << 20;
const REMOVED: &str = "removed";

/// The folder of sent batches.
#[derive(Debug)]
pub(super) struct Sent {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes_max: u64,
    /// What the files take of the disk.
    bytes: u64,
    removed: u64,
}

impl Sent {
    /// Looks at what is there; the folder has been made.
    pub(super) fn open(disk: &dyn Disk, folder: PathBuf) -> Result<Self, SpoolError> {
        let bytes = list(disk, &folder)?.iter().map(|(_, bytes)| bytes).sum();
        let removed = removed(disk, &folder);
        let state = Mutex::new(State { bytes_max: SENT_BYTES_MAX, bytes, removed });
        Ok(Self { folder, state })
    }

    /// From now on at most so much is kept; 0 is nothing.
    pub(super) fn set_bytes_max(&self, bytes_max: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).bytes_max = bytes_max;
    }

    /// Keeps the file of a batch that takes so much of the disk, and lets the oldest go when there are too many; false
    /// when it was not there any more.
    pub(super) fn keep(
        &self,
        disk: &dyn Disk,
        path: &Path,
        disk_bytes: u64,
    ) -> Result<bool, SpoolError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let name = path.file_name().unwrap_or_default();
        let is_scarce = disk.is_scarce(&self.folder);
        let kept = if is_scarce || disk_bytes > state.bytes_max {
            Err(())
        } else {
            match disk.rename(path, &self.folder.join(name)) {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(error) => {
                    tracing::warn!(%error, file = %path.display(), "a sent batch is not kept");
                    Err(())
                }
            }
        };
        if kept.is_ok() {
            state.bytes += disk_bytes;
        } else {
            match disk.remove(path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(disk_error("remove", path)(error)),
            }
            state.removed += 1;
        }
        let bytes_max = state.bytes_max;
        if kept.is_err() || state.bytes > bytes_max {
            // More than needed at a time, so that the folder is not listed for each batch.
            let target = if is_scarce { 0 } else { bytes_max / 8 * 7 };
            self.shrink(disk, &mut state, target);
        }
        Ok(true)
    }

    /// Gives room back to a disk that is full: what has left is worth less than what has not. False when there
    /// is nothing to give.
    pub(super) fn give_room(&self, disk: &dyn Disk, bytes: u64) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.bytes;
        if before > 0 {
            let target = before.saturating_sub(bytes.saturating_mul(8));
            self.shrink(disk, &mut state, target);
        }
        state.bytes < before
    }

    fn shrink(&self, disk: &dyn Disk, state: &mut State, target: u64) {
        if state.bytes > target {
            let files = match list(disk, &self.folder) {
                Ok(files) => files,
                Err(error) => {
                    tracing::warn!(%error, "sent batches cannot be counted");
                    return;
                }
            };
            state.bytes = files.iter().map(|(_, bytes)| bytes).sum();
            for (oldest, bytes) in files {
                if state.bytes <= target {
                    break;
                }
                if let Err(error) = disk.remove(&oldest) {
                    tracing::warn!(%error, file = %oldest.display(), "an old sent batch stays");
                    continue;
                }
                state.bytes -= bytes;
                state.removed += 1;
            }
        }
        // A crash may lose the last of these counts, and the sequences of what is there show it all the same.
        let path = self.folder.join(REMOVED);
        let temporary = path.with_extension(TEMPORARY_SUFFIX);
        drop(disk.remove(&temporary));
        let noted = disk
            .write_new(&temporary, format!("{}\n", state.removed).as_bytes())
            .and_then(|()| disk.rename(&temporary, &path));
        if let Err(error) = noted {
            tracing::debug!(%error, file = %path.display(), "the count of removed batches is stale");
        }
    }
}

/// How many sent batches were not kept, or no longer, as the folder says.
pub(super) fn removed(disk: &dyn Disk, folder: &Path) -> u64 {
    let text = disk.read(&folder.join(REMOVED)).unwrap_or_default();
    String::from_utf8_lossy(&text).trim().parse().unwrap_or(0)
}

/// The batch files of a folder, oldest first, with what they take of the disk.
fn list(disk: &dyn Disk, folder: &Path) -> Result<Vec<(PathBuf, u64)>, SpoolError> {
    let mut files = Vec::new();
    for path in disk.list(folder).map_err(disk_error("list", folder))? {
        let path = path.map_err(disk_error("list", folder))?;
        if path.extension().is_some_and(|suffix| suffix == SUFFIX) {
            let bytes = disk.disk_bytes(&path).map_err(disk_error("examine", &path))?;
            files.push((path, bytes));
        }
    }
    files.sort();
    Ok(files)
}
