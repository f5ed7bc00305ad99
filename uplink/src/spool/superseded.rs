//! Takes batches in the spool that an earlier identity of this box has sealed; keeps them apart, and says how many
//! records are in those that the backend was not told of yet. Never delivers one: its signature and its name are
//! of a sensor that this one is no longer.
//!
//! ```text
//! STATE/superseded/SENSOR-00000000001795258800-00000000000000000001.untold   counted in no batch yet
//! STATE/superseded/SENSOR-00000000001795258800-00000000000000000001.batch    told as evicted; kept for people
//! ```

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{Disk, Key, RealDisk, SUFFIX, SpoolError, check_file, disk_error, open_spooled};
use crate::{BatchHeader, SensorId};

const UNTOLD_SUFFIX: &str = "untold";

/// Batches of other identities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Superseded {
    pub(crate) batches: u64,
    pub(crate) records: u64,
    /// Who has sealed them.
    pub(crate) sensors: BTreeSet<SensorId>,
}

impl Superseded {
    fn count(&mut self, header: BatchHeader) {
        self.batches += 1;
        self.records += u64::from(header.records);
        self.sensors.insert(header.sensor);
    }

    /// The sensors' names, for a message.
    pub(crate) fn names(&self) -> String {
        self.sensors.iter().map(SensorId::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// The whole batches that wait in a state folder's spool, whoever has sealed them. Changes nothing.
pub(crate) fn waiting(state: &Path) -> Result<Superseded, SpoolError> {
    let folder = state.join("spool");
    let mut found = Superseded::default();
    if !folder.is_dir() {
        return Ok(found);
    }
    for path in list(&RealDisk, &folder)? {
        if let Ok((header, _bytes)) = check_file(&RealDisk, &path) {
            found.count(header);
        }
    }
    Ok(found)
}

/// Moves a batch of another identity out of the spool. Its name says whose it is, because two identities may have
/// used one sequence.
pub(super) fn set_aside(
    disk: &dyn Disk,
    path: &Path,
    header: &BatchHeader,
    folder: &Path,
) -> Result<(), SpoolError> {
    let BatchHeader { sensor, boot_epoch, sequence, .. } = header;
    let name = format!("{sensor}-{}.{UNTOLD_SUFFIX}", Key::stem(*boot_epoch, *sequence));
    let to = folder.join(name);
    disk.rename(path, &to).map_err(disk_error("rename a file to", &to))
}

/// What no batch has told the backend of yet. What is not readable any more is not counted.
pub(super) fn untold(disk: &dyn Disk, folder: &Path) -> Result<Superseded, SpoolError> {
    let mut found = Superseded::default();
    for path in list(disk, folder)?.iter().filter(|path| has_suffix(path, UNTOLD_SUFFIX)) {
        match open_spooled(disk, path) {
            Ok((header, _bytes)) => found.count(header),
            Err(reason) => {
                let file = path.display();
                tracing::warn!(%file, reason, "a batch of another identity cannot be read any more");
            }
        }
    }
    Ok(found)
}

/// Notes that a sealed batch tells of all of them; then keeps only the newest that fit `bytes_max`. Those that go
/// were counted.
pub(super) fn told(disk: &dyn Disk, folder: &Path, bytes_max: u64) -> Result<(), SpoolError> {
    for path in list(disk, folder)?.iter().filter(|path| has_suffix(path, UNTOLD_SUFFIX)) {
        let to = path.with_extension(SUFFIX);
        disk.rename(path, &to).map_err(disk_error("rename a file to", &to))?;
    }
    disk.sync_folder(folder).map_err(disk_error("sync", folder))?;
    let mut kept = Vec::new();
    for path in list(disk, folder)? {
        let metadata = std::fs::metadata(&path).map_err(disk_error("examine", &path))?;
        let modified = metadata.modified().map_err(disk_error("examine", &path))?;
        let taken = disk.disk_bytes(&path).map_err(disk_error("examine", &path))?;
        kept.push((modified, path, taken));
    }
    kept.sort();
    let mut bytes: u64 = kept.iter().map(|(_, _, bytes)| bytes).sum();
    for (_, oldest, length) in kept {
        if bytes <= bytes_max {
            break;
        }
        disk.remove(&oldest).map_err(disk_error("remove", &oldest))?;
        bytes -= length;
    }
    Ok(())
}

fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.extension() == Some(OsStr::new(suffix))
}

/// Files of a folder, in the order of their names.
fn list(disk: &dyn Disk, folder: &Path) -> Result<Vec<PathBuf>, SpoolError> {
    let mut paths = disk
        .list(folder)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .map_err(disk_error("list", folder))?;
    paths.sort();
    Ok(paths)
}
