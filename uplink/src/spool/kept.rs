//! Takes a state folder; gives the batches in it that have left or wait. Changes nothing, and needs no lock: a
//! sensor may run meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Disk as _, Key, RealDisk, SpoolError, disk_error, key_of, sent};

/// What has become of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whereabouts {
    /// In the spool: the backend has not acknowledged it.
    Waiting,
    /// The backend has seen and refused it.
    Refused,
    /// The backend has acknowledged it.
    Sent,
}

/// A batch that is on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBatch {
    /// Number of the outbox's opening.
    pub boot_epoch: u64,
    /// Position within it.
    pub sequence: u64,
    /// What has become of it.
    pub whereabouts: Whereabouts,
    places: [PathBuf; 3],
}

/// The batches of a state folder, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptBatches {
    /// Those that are there.
    pub batches: Vec<KeptBatch>,
    /// How many sent ones were not kept, or no longer.
    pub removed: u64,
}

impl KeptBatches {
    /// Lists the batches of a state folder.
    ///
    /// # Errors
    ///
    /// When a folder is there and cannot be read.
    pub fn list(state_dir: &Path) -> Result<Self, SpoolError> {
        let folders = ["spool", "rejected", "sent"].map(|name| state_dir.join(name));
        let mut found = BTreeMap::new();
        // In the order in which a batch moves: one that moves meanwhile is found at least once, and its later
        // place counts.
        let order = [Whereabouts::Waiting, Whereabouts::Refused, Whereabouts::Sent];
        for (folder, whereabouts) in folders.iter().zip(order) {
            let listing = match fs::read_dir(folder) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                listing => listing.map_err(disk_error("list", folder))?,
            };
            for entry in listing {
                let path = entry.map_err(disk_error("list", folder))?.path();
                if let Some(key) = key_of(&path) {
                    found.insert(key, whereabouts);
                }
            }
        }
        let batches = found.into_iter().map(|(key, whereabouts)| {
            let Key { boot_epoch, sequence } = key;
            let name = format!("{}.{}", Key::stem(boot_epoch, sequence), super::SUFFIX);
            let places = folders.each_ref().map(|folder| folder.join(&name));
            KeptBatch { boot_epoch, sequence, whereabouts, places }
        });
        Ok(Self { batches: batches.collect(), removed: sent::removed(&RealDisk, &folders[2]) })
    }
}

impl KeptBatch {
    /// Its bytes, exactly those that were sent or will be; `None` when it has gone meanwhile.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn read(&self) -> Result<Option<Vec<u8>>, SpoolError> {
        for path in &self.places {
            match RealDisk.read(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                read => return read.map(Some).map_err(disk_error("read", path)),
            }
        }
        Ok(None)
    }
}
