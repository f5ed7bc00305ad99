//! Takes the sensor's state folder; gives the keys of its pseudonyms: one for each key epoch, drawn on this box, on the
//! disk before it is used. Never logs a key, never sends one, never goes on without one.
//!
//! ```text
//! STATE/pseudonyms/key_epochs.json    which key epochs there were, when, and for which ranges
//! STATE/pseudonyms/NUMBER.key         a key: 64 hexadecimal digits, line feed
//! ```

mod ledger;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use uplink::{
    FileError, check_private_folder, make_private_folder, read_private, remove_private,
    replace_private,
};
use zeroize::Zeroizing;

pub use ledger::KeyEpoch;
use ledger::{LEDGER, Ledger};

use super::Prefix;
use super::crypto_pan::{CryptoPan, KEY_BYTES};

/// The folder within the state folder.
const FOLDER: &str = "pseudonyms";
/// Keys that are kept at most, however often the ranges are changed.
const KEYS_MAX: usize = 4_096;
const CHECK_CONTEXT: &[u8] = b"spanwatch pseudonym key v1\0";

/// Why there is no key to go on with. The sensor then sends nothing.
#[derive(Debug, Error)]
pub enum KeyError {
    /// A file or folder cannot be used. Remedy: the text says it.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key that should be there is not.
    #[error(
        "the key of key epoch {number} is missing: restore {}, or move its folder away to begin with new keys; \
         what was sent can then not be revealed any more", path.display()
    )]
    Missing {
        /// Which key epoch.
        number: u32,
        /// Where it should be.
        path: PathBuf,
    },
    /// Keys lie in the folder, and nothing says of when they are.
    #[error(
        "{} holds keys and no {LEDGER}: restore it, or move the folder away to begin with new keys; what was sent can \
         then not be revealed any more", folder.display()
    )]
    NoLedger {
        /// The folder.
        folder: PathBuf,
    },
    /// It was removed as the configuration says.
    #[error(
        "the key of key epoch {number} was removed at {removed}, as `privacy.keys_kept_days` says"
    )]
    Removed {
        /// Which key epoch.
        number: u32,
        /// When.
        removed: String,
    },
    /// The system's random source or the cipher failed. Remedy: none here; look at the kernel's log.
    #[error("no key could be drawn or set up")]
    Cipher,
}

/// What keys are drawn for, and for how long.
#[derive(Clone, Debug)]
pub(super) struct KeySettings {
    pub(super) own_prefixes: Vec<Prefix>,
    pub(super) public_servers: Vec<Prefix>,
    pub(super) epoch_ms: u64,
    /// How long a key is kept after its epoch.
    pub(super) kept_ms: u64,
}

/// The keys of a sensor that holds the lock of its state folder.
pub(super) struct KeyStore {
    folder: PathBuf,
    ledger: Ledger,
    settings: KeySettings,
    current: CryptoPan,
    keys_removed: u64,
}

impl KeyStore {
    /// Reads the current key, or draws the first one.
    ///
    /// # Errors
    /// When it cannot be read, is missing or damaged, or others could have read it.
    pub(super) fn open(
        state_dir: &Path,
        settings: KeySettings,
        now_ms: u64,
    ) -> Result<Self, KeyError> {
        let folder = state_dir.join(FOLDER);
        make_private_folder(&folder)?;
        check_private_folder(&folder)?;
        let mut ledger = match Ledger::read(&folder)? {
            Some(ledger) => ledger,
            None if has_keys(&folder)? => return Err(KeyError::NoLedger { folder }),
            None => {
                // Before the first key, so that keys without it are always damage.
                let mut ledger = Ledger::default();
                ledger.write(&folder)?;
                ledger
            }
        };
        let usable = ledger.key_epochs.last().filter(|last| settings.fit(last));
        let current = match usable {
            Some(last) => cipher_of(&folder, last)?,
            None => draw(&folder, &mut ledger, &settings, now_ms)?,
        };
        let mut store = Self { folder, ledger, settings, current, keys_removed: 0 };
        store.advance(now_ms)?;
        Ok(store)
    }

    /// Draws another key when the time of the current one is over, and removes those that were kept long enough; says
    /// whether the key is another one.
    ///
    /// # Errors
    /// When the new key cannot be drawn or stored; the old one is not used any longer than that.
    pub(super) fn advance(&mut self, now_ms: u64) -> Result<bool, KeyError> {
        let is_over = self.epoch().is_none_or(|epoch| {
            // A clock that was wrong when the key was drawn must not keep it for ever.
            now_ms.abs_diff(epoch.from_ms) >= self.settings.epoch_ms
        });
        if is_over {
            self.current = draw(&self.folder, &mut self.ledger, &self.settings, now_ms)?;
        }
        self.remove_old(now_ms);
        Ok(is_over)
    }

    pub(super) const fn cipher(&self) -> &CryptoPan {
        &self.current
    }

    pub(super) fn epoch(&self) -> Option<&KeyEpoch> {
        self.ledger.key_epochs.last()
    }

    pub(super) fn kept(&self) -> u64 {
        kept(&self.ledger).count() as u64
    }

    pub(super) const fn removed(&self) -> u64 {
        self.keys_removed
    }

    fn remove_old(&mut self, now_ms: u64) {
        let excess = kept(&self.ledger).count().saturating_sub(KEYS_MAX);
        let is_old = |epoch: &KeyEpoch| {
            epoch
                .until_ms
                .is_some_and(|until_ms| now_ms.saturating_sub(until_ms) >= self.settings.kept_ms)
        };
        let old: Vec<u32> = kept(&self.ledger)
            .enumerate()
            .filter(|(at, epoch)| is_old(epoch) || *at < excess)
            .map(|(_, epoch)| epoch.number)
            .collect();
        for number in old {
            if let Err(error) = self.remove(number, now_ms) {
                tracing::warn!(%error, "an old key stays, and is tried to be removed again");
                return;
            }
            self.keys_removed += 1;
            tracing::info!(
                key_epoch = number,
                "the key of an old key epoch was removed, as configured"
            );
        }
    }

    fn remove(&mut self, number: u32, now_ms: u64) -> Result<(), FileError> {
        remove_private(&key_path(&self.folder, number))?;
        for epoch in self.ledger.key_epochs.iter_mut().filter(|epoch| epoch.number == number) {
            epoch.removed_ms = Some(now_ms);
        }
        self.ledger.write(&self.folder)
    }
}

impl KeySettings {
    /// Whether pseudonyms of this key epoch are what these settings ask for.
    fn fit(&self, epoch: &KeyEpoch) -> bool {
        epoch.until_ms.is_none()
            && epoch.own_prefixes == self.own_prefixes
            && epoch.public_servers == self.public_servers
    }
}

fn kept(ledger: &Ledger) -> impl Iterator<Item = &KeyEpoch> {
    ledger.key_epochs.iter().filter(|epoch| epoch.removed_ms.is_none())
}

/// The key epochs that a state folder knows of, oldest first. A sensor may use it meanwhile.
///
/// # Errors
/// When the list cannot be read, or could have been changed by others.
pub(super) fn key_epochs(state_dir: &Path) -> Result<Vec<KeyEpoch>, KeyError> {
    let folder = state_dir.join(FOLDER);
    if !folder.try_exists().is_ok_and(|exists| exists) {
        return Ok(Vec::new());
    }
    check_private_folder(&folder)?;
    match Ledger::read(&folder)? {
        Some(ledger) => Ok(ledger.key_epochs),
        None if has_keys(&folder)? => Err(KeyError::NoLedger { folder }),
        None => Ok(Vec::new()),
    }
}

/// The key of a key epoch, at work.
///
/// # Errors
/// When it was removed, is missing or damaged, or others could have read it.
pub(super) fn cipher(state_dir: &Path, epoch: &KeyEpoch) -> Result<CryptoPan, KeyError> {
    cipher_of(&state_dir.join(FOLDER), epoch)
}

fn cipher_of(folder: &Path, epoch: &KeyEpoch) -> Result<CryptoPan, KeyError> {
    let number = epoch.number;
    if let Some(removed_ms) = epoch.removed_ms {
        return Err(KeyError::Removed { number, removed: super::moment(removed_ms) });
    }
    let path = key_path(folder, number);
    if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Err(KeyError::Missing { number, path });
    }
    let text = read_private(&path)?;
    let damaged =
        |reason: &str| FileError::Content { path: path.clone(), reason: reason.to_owned() };
    let key = decode(&text).ok_or_else(|| damaged("not 64 hexadecimal digits and a line feed"))?;
    if check_of(&key) != epoch.check {
        return Err(damaged("it is not the key that was drawn for this key epoch").into());
    }
    CryptoPan::new(&key).map_err(|_unspecified| KeyError::Cipher)
}

/// Draws a key: on the disk first, then in the list, then in use.
fn draw(
    folder: &Path,
    ledger: &mut Ledger,
    settings: &KeySettings,
    now_ms: u64,
) -> Result<CryptoPan, KeyError> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    rand::fill(&mut *key).map_err(|_unspecified| KeyError::Cipher)?;
    let last = ledger.key_epochs.last().map_or(0, |last| last.number);
    let number = last.saturating_add(1).max(day_number(now_ms));
    let mut next = ledger.clone();
    if let Some(last) = next.key_epochs.last_mut() {
        last.until_ms.get_or_insert(now_ms);
    }
    next.key_epochs.push(KeyEpoch {
        number,
        from_ms: now_ms,
        until_ms: None,
        removed_ms: None,
        check: check_of(&key),
        own_prefixes: settings.own_prefixes.clone(),
        public_servers: settings.public_servers.clone(),
    });
    replace_private(&key_path(folder, number), encode(&key).as_bytes())?;
    let cipher = CryptoPan::new(&key).map_err(|_unspecified| KeyError::Cipher)?;
    next.write(folder)?;
    *ledger = next;
    tracing::info!(key_epoch = number, "a new key for pseudonyms was drawn");
    Ok(cipher)
}

fn has_keys(folder: &Path) -> Result<bool, FileError> {
    let unreadable = |source| FileError::Io { action: "list", path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        if entry.map_err(unreadable)?.path().extension().is_some_and(|suffix| suffix == "key") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn key_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number}.key"))
}

/// Year, month and day of a time as one number, such as 20261122; 1 where no calendar has it.
fn day_number(ms: u64) -> u32 {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let number = time.and_then(|time| {
        let date = time.to_zoned(TimeZone::UTC).date();
        let number =
            i32::from(date.year()) * 10_000 + i32::from(date.month()) * 100 + i32::from(date.day());
        u32::try_from(number).ok()
    });
    number.unwrap_or(1)
}

fn check_of(key: &[u8; KEY_BYTES]) -> String {
    let hash = Sha256::new().chain_update(CHECK_CONTEXT).chain_update(key).finalize();
    hash[..8].iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect()
}

fn digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('?')
}

fn encode(key: &[u8; KEY_BYTES]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 1));
    text.extend(key.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit));
    text.push('\n');
    text
}

fn decode(text: &[u8]) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let digits = text.strip_suffix(b"\n").filter(|digits| digits.len() == 2 * KEY_BYTES)?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(pair[0])? << 4 | value(pair[1])?).ok()?;
    }
    Some(key)
}
