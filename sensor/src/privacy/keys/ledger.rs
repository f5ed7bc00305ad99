//! Takes the folder of the keys; gives which key epochs there were, when, and for which ranges, as the file beside
//! the keys says. Never reads a key.

use std::path::Path;

use serde::{Deserialize, Serialize};
use uplink::{FileError, read_private, replace_private};

use super::super::Prefix;

/// Name of the file.
pub(super) const LEDGER: &str = "key_epochs.json";
/// Key epochs that are listed after their keys were removed.
const REMOVED_LISTED_MAX: usize = 1_000;

/// The time of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEpoch {
    /// Its number, as batches carry it: it grows, and is at least the day on which the key was drawn (20261122).
    pub number: u32,
    /// When the key was drawn, milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// When the next one was; `None` for the current one.
    pub until_ms: Option<u64>,
    /// When the key was removed.
    pub removed_ms: Option<u64>,
    /// First bytes of the key's hash, in hexadecimal digits: an exchanged key is noticed.
    pub check: String,
    /// The own ranges that it was used for.
    pub own_prefixes: Vec<Prefix>,
    /// What of them stayed in clear.
    pub public_servers: Vec<Prefix>,
}

/// All key epochs, oldest first; only the last one may be the current one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ledger {
    pub(super) key_epochs: Vec<KeyEpoch>,
}

impl Ledger {
    /// What the file says; `None` when there is none.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, FileError> {
        let path = folder.join(LEDGER);
        if !path.try_exists().is_ok_and(|exists| exists) {
            return Ok(None);
        }
        let damaged = |reason: String| FileError::Content { path: path.clone(), reason };
        let ledger: Self = serde_json::from_slice(&read_private(&path)?)
            .map_err(|error| damaged(error.to_string()))?;
        for pair in ledger.key_epochs.windows(2) {
            if pair[0].number >= pair[1].number || pair[0].until_ms.is_none() {
                let (one, next) = (pair[0].number, pair[1].number);
                return Err(damaged(format!("key epoch {one} does not end before {next}")));
            }
        }
        if ledger.key_epochs.first().is_some_and(|first| first.number == 0) {
            return Err(damaged("a key epoch has the number 0".to_owned()));
        }
        Ok(Some(ledger))
    }

    /// Puts this in the place of what the file said, durably.
    pub(super) fn write(&mut self, folder: &Path) -> Result<(), FileError> {
        let removed = self.key_epochs.iter().filter(|epoch| epoch.removed_ms.is_some()).count();
        let mut excess = removed.saturating_sub(REMOVED_LISTED_MAX);
        self.key_epochs.retain(|epoch| {
            let goes = excess > 0 && epoch.removed_ms.is_some();
            excess -= usize::from(goes);
            !goes
        });
        let path = folder.join(LEDGER);
        let mut json = serde_json::to_vec_pretty(self).map_err(|error| FileError::Content {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        json.push(b'\n');
        replace_private(&path, &json)
    }
}
