//! Takes what a full spool gives up; keeps on the disk how much that has been since the folder was made, so that no
//! crash makes anybody forget it. Never counts a batch twice, and never one that the backend has.
//!
//! ```text
//! STATE/spool/evicted     {"batches": 3, "records": 24576, "going": [[1795258800, 1]],
//!                          "undecided": [[1795258800, 2, 8192, 122880]]}
//! ```
//!
//! The file is replaced before the batches in `going` are removed; the next opening removes those that a crash, or a
//! disk that refused, has left there. A batch whose answer was lost may be stored: given up, it is in `undecided` (boot
//! epoch, sequence, records, bytes) and counts only when the backend's next greeting says that it is not. `null` for a
//! number says that it is not known, because the file was damaged once, or too much was undecided.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Given, Key, Taken};

/// The file's name.
pub(super) const FILE: &str = "evicted";
/// A box that starts so often without reaching the backend that there are more loses count, and says so.
const UNDECIDED_MAX: usize = 4_096;

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
    /// Boot epoch, sequence, records and bytes of those that the backend may have.
    #[serde(default)]
    undecided: Vec<(u64, u64, u32, u64)>,
    /// Of the batches and records, those since the opening.
    #[serde(skip)]
    pub(crate) since_opening: Given,
}

impl Default for Evictions {
    fn default() -> Self {
        Self { batches: Some(0), records: Some(0), ..Self::unknown() }
    }
}

impl Evictions {
    /// What is written in place of a file that cannot be read.
    pub(super) const fn unknown() -> Self {
        let since_opening = Given { batches: 0, records: 0, bytes: 0 };
        Self {
            batches: None,
            records: None,
            going: Vec::new(),
            undecided: Vec::new(),
            since_opening,
        }
    }

    fn count(&mut self, given: Given) {
        let Given { batches, records, .. } = given;
        self.batches = self.batches.map(|before| before.saturating_add(batches));
        self.records = self.records.map(|before| before.saturating_add(records));
        self.since_opening += given;
    }

    /// With some more.
    pub(super) fn with(&self, taken: &[Taken]) -> Self {
        let mut next = self.clone();
        for Taken { key, entry, is_unsure } in taken {
            next.going.push((key.boot_epoch, key.sequence));
            if *is_unsure {
                let undecided = (key.boot_epoch, key.sequence, entry.records, entry.bytes);
                next.undecided.push(undecided);
            } else {
                next.count(Given::one(entry.records, entry.bytes));
            }
        }
        if next.undecided.len() > UNDECIDED_MAX {
            next.undecided.drain(..next.undecided.len() - UNDECIDED_MAX);
            (next.batches, next.records) = (None, None);
        }
        next
    }

    /// The backend has said the last sequence that it holds of these boot epochs. What is undecided of them counts as
    /// evicted from now on, or is stored, and given back.
    pub(super) fn settled(&self, held: &[(u64, u64)]) -> (Self, Vec<(Key, Given)>) {
        let mut next = Self { undecided: Vec::new(), ..self.clone() };
        let mut stored = Vec::new();
        for undecided in &self.undecided {
            let (boot_epoch, sequence, records, bytes) = *undecided;
            match held.iter().find(|(greeted, _)| *greeted == boot_epoch) {
                None => next.undecided.push(*undecided),
                Some((_, held)) if sequence <= *held => {
                    stored.push((Key { boot_epoch, sequence }, Given::one(records, bytes)));
                }
                Some(_) => next.count(Given::one(records, bytes)),
            }
        }
        (next, stored)
    }

    /// The backend has answered a batch; `None` when it was not undecided.
    pub(super) fn answered(&self, key: Key) -> Option<(Self, Given)> {
        let is_it = |(boot_epoch, sequence, ..): &(u64, u64, u32, u64)| {
            (*boot_epoch, *sequence) == (key.boot_epoch, key.sequence)
        };
        let at = self.undecided.iter().position(is_it)?;
        let mut next = self.clone();
        let (_, _, records, bytes) = next.undecided.remove(at);
        Some((next, Given::one(records, bytes)))
    }

    /// What the backend may have.
    pub(crate) fn undecided(&self) -> Given {
        let mut sum = Given::default();
        for (_, _, records, bytes) in &self.undecided {
            sum += Given::one(*records, *bytes);
        }
        sum
    }

    pub(super) fn undecided_epochs(&self) -> BTreeSet<u64> {
        self.undecided.iter().map(|(boot_epoch, ..)| *boot_epoch).collect()
    }

    /// These are still there: the disk did not remove them.
    pub(super) fn left(&mut self, keys: impl Iterator<Item = Key>) {
        self.going = keys.map(|key| (key.boot_epoch, key.sequence)).collect();
    }

    pub(crate) fn going(&self) -> impl Iterator<Item = Key> {
        self.going
            .iter()
            .map(|(boot_epoch, sequence)| Key { boot_epoch: *boot_epoch, sequence: *sequence })
    }
}
