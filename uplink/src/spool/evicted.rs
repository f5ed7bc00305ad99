//! Takes what a full spool gives up; keeps on the disk how much that has been since the folder was made, so that no
//! crash makes anybody forget it. Never counts a batch twice, and never one that is delivered later.
//!
//! ```text
//! STATE/spool/evicted     {"batches": 3, "records": 24576, "going": [[1795258800, 1]]}
//! ```
//!
//! The file is replaced before the batches in `going` are removed; the next opening removes those that a crash, or a
//! disk that refused, has left there. `null` for a number says that it is not known, because the file was damaged once.

use serde::{Deserialize, Serialize};

use super::{Entry, Key};

/// The file's name.
pub(super) const FILE: &str = "evicted";

/// What a spool has given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Evictions {
    /// Batches; `None` is not known.
    pub(crate) batches: Option<u64>,
    /// Records in those.
    pub(crate) records: Option<u64>,
    /// Boot epoch and sequence of those whose files may still be there.
    going: Vec<(u64, u64)>,
}

impl Default for Evictions {
    fn default() -> Self {
        Self { batches: Some(0), records: Some(0), going: Vec::new() }
    }
}

impl Evictions {
    /// What is written in place of a file that cannot be read.
    pub(super) const fn unknown() -> Self {
        Self { batches: None, records: None, going: Vec::new() }
    }

    /// With some more.
    pub(super) fn with(&self, taken: &[(Key, Entry)]) -> Self {
        let records: u64 = taken.iter().map(|(_, entry)| u64::from(entry.records)).sum();
        Self {
            batches: self.batches.map(|batches| batches.saturating_add(taken.len() as u64)),
            records: self.records.map(|before| before.saturating_add(records)),
            going: self.going().chain(taken.iter().map(|(key, _)| *key)).map(pair).collect(),
        }
    }

    /// These are still there: the disk did not remove them.
    pub(super) fn left(&mut self, keys: impl Iterator<Item = Key>) {
        self.going = keys.map(pair).collect();
    }

    pub(crate) fn going(&self) -> impl Iterator<Item = Key> {
        self.going
            .iter()
            .map(|(boot_epoch, sequence)| Key { boot_epoch: *boot_epoch, sequence: *sequence })
    }
}

const fn pair(key: Key) -> (u64, u64) {
    (key.boot_epoch, key.sequence)
}
