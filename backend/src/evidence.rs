//! Takes batches as they were received, byte for byte; keeps those of a commit together in one file, durable
//! before any of them is acknowledged. Never decodes one, never removes one.
//!
//! ```text
//! evidence/2026-01-05/00001767603600000-0.batches    day and time of the commit, milliseconds since 1970, a number
//! evidence/2026-01-05/….tmp                          being written, or left by a crash: nothing in it was acknowledged
//! file: for each batch its length, u32, little-endian, and its bytes
//! ```
//!
//! A day's folder can be removed, moved or archived as a whole: `verify` tells what is not kept from what is missing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use thiserror::Error;
use uplink::BATCH_BYTES_MAX;

const SUFFIX: &str = "batches";
/// Files of one millisecond at most: commits take longer, and a clock that was set back does not repeat more.
const NUMBERS_MAX: u32 = 1_000;

/// Why evidence cannot be written or read.
#[derive(Debug, Error)]
pub enum EvidenceError {
    /// The file system refused. Remedy: room on the disk, or its permissions.
    #[error("{path}: {source}")]
    Io {
        /// What was asked for.
        path: PathBuf,
        /// Why it was refused.
        #[source]
        source: io::Error,
    },
    /// There are as many files of one moment as names for them.
    #[error("{0} has {NUMBERS_MAX} files of one millisecond")]
    Crowded(PathBuf),
}

fn refused(path: &Path) -> impl FnOnce(io::Error) -> EvidenceError {
    let path = path.to_owned();
    move |source| EvidenceError::Io { path, source }
}

/// The folder of sealed batches.
#[derive(Clone, Debug)]
pub struct Evidence {
    root: PathBuf,
}

impl Evidence {
    /// In this folder, which is made when there is something to keep.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Keeps batches in one file, durable when it returns; gives the file.
    ///
    /// # Errors
    ///
    /// When the disk refuses; then nothing is kept.
    pub fn keep(&self, batches: &[Bytes], received_ms: u64) -> Result<PathBuf, EvidenceError> {
        let folder = self.root.join(day(received_ms));
        if !folder.is_dir() {
            fs::create_dir_all(&folder).map_err(refused(&folder))?;
            for made in [Some(self.root.as_path()), self.root.parent()].into_iter().flatten() {
                sync(made)?;
            }
        }
        for number in 0..NUMBERS_MAX {
            let path = folder.join(format!("{received_ms:017}-{number}.{SUFFIX}"));
            if path.exists() {
                continue;
            }
            let temporary = path.with_extension("tmp");
            let written = write(&temporary, batches)
                .and_then(|()| fs::rename(&temporary, &path))
                .map_err(refused(&path))
                .and_then(|()| sync(&folder));
            if written.is_err() {
                // On a full disk each attempt would leave more behind.
                for left in [&temporary, &path] {
                    drop(fs::remove_file(left));
                }
            }
            return written.map(|()| path);
        }
        Err(EvidenceError::Crowded(folder))
    }

    /// The files, oldest first.
    ///
    /// # Errors
    ///
    /// When a folder cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>, EvidenceError> {
        let mut files = Vec::new();
        for day in self.days()? {
            let folder = self.root.join(day);
            for entry in fs::read_dir(&folder).map_err(refused(&folder))? {
                let path = entry.map_err(refused(&folder))?.path();
                if path.extension().is_some_and(|suffix| suffix == SUFFIX) {
                    files.push(path);
                }
            }
        }
        files.sort();
        Ok(files)
    }

    /// The days of which there is a folder, as their names.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn days(&self) -> Result<Vec<String>, EvidenceError> {
        let listing = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            listing => listing.map_err(refused(&self.root))?,
        };
        let mut days = Vec::new();
        for entry in listing {
            let entry = entry.map_err(refused(&self.root))?;
            if entry.path().is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                days.push(name);
            }
        }
        days.sort();
        Ok(days)
    }
}

/// The name of the folder of a day, UTC.
#[must_use]
pub fn day(received_ms: u64) -> String {
    let time = i64::try_from(received_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| "undated".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

fn write(path: &Path, batches: &[Bytes]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    for batch in batches {
        let length = u32::try_from(batch.len()).map_err(io::Error::other)?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(batch)?;
    }
    file.sync_all()
}

fn sync(folder: &Path) -> Result<(), EvidenceError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(refused(folder))
}

/// Takes a file of evidence apart: its batches, and whether bytes are left that are none.
#[must_use]
pub fn batches(file: &[u8]) -> (Vec<&[u8]>, bool) {
    let mut batches = Vec::new();
    let mut rest = file;
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((batch, behind)) =
            behind.split_at_checked(length).filter(|_| length <= BATCH_BYTES_MAX)
        else {
            break;
        };
        batches.push(batch);
        rest = behind;
    }
    (batches, !rest.is_empty())
}
