//! Takes the path that an output was given; gives the names of the files of its series, and finds those
//! that are there. `flows.json` becomes `flows.20260528T202640Z.000001.json`: names sort by time.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// What stands behind the name of a file that is being written.
const PARTIAL: &str = ".partial";
/// Characters of a time in a name, as `20260528T202640Z`.
const STAMP_LENGTH: usize = 16;

/// The name of a file while it is being written.
pub(super) fn partial(name: &Path) -> PathBuf {
    let mut partial = name.as_os_str().to_owned();
    partial.push(PARTIAL);
    partial.into()
}

/// The names of a series.
pub(super) struct Names {
    folder: PathBuf,
    /// Up to and with the dot before the time.
    before: OsString,
    /// From the dot behind the number; empty where the path has no extension.
    after: OsString,
}

impl Names {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let stem = path
            .file_stem()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
        let mut before = stem.to_owned();
        before.push(".");
        let mut after = OsString::new();
        if let Some(extension) = path.extension() {
            after.push(".");
            after.push(extension);
        }
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Ok(Self { folder, before, after })
    }

    pub(super) fn name(&self, opened_ms: u64, sequence: u64) -> PathBuf {
        let time =
            i64::try_from(opened_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let stamp = time.unwrap_or(Timestamp::UNIX_EPOCH).strftime("%Y%m%dT%H%M%SZ");
        let mut name = self.before.clone();
        name.push(format!("{stamp}.{sequence:06}"));
        name.push(&self.after);
        self.folder.join(name)
    }

    /// Complete files of the series but for the newest `files_max`, those of earlier runs included.
    pub(super) fn beyond(&self, files_max: u64) -> io::Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        for entry in self.folder.read_dir()? {
            let name = entry?.file_name();
            if self.is_ours(&name) {
                names.push(name);
            }
        }
        names.sort();
        let kept = usize::try_from(files_max).unwrap_or(usize::MAX);
        let old = names.len().saturating_sub(kept);
        Ok(names.drain(..old).map(|name| self.folder.join(name)).collect())
    }

    /// Whether a file has a name that this series gives.
    fn is_ours(&self, name: &OsStr) -> bool {
        let middle = name
            .as_encoded_bytes()
            .strip_prefix(self.before.as_encoded_bytes())
            .and_then(|rest| rest.strip_suffix(self.after.as_encoded_bytes()));
        let Some((stamp, number)) = middle.and_then(|middle| middle.split_at_checked(STAMP_LENGTH))
        else {
            return false;
        };
        let is_stamp = stamp.iter().enumerate().all(|(at, byte)| match at {
            8 => *byte == b'T',
            15 => *byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
        let is_number = number
            .strip_prefix(b".")
            .is_some_and(|digits| digits.len() >= 6 && digits.iter().all(u8::is_ascii_digit));
        is_stamp && is_number
    }
}

/// Renames a file unless the new name is taken.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Not every file system can do it in one step.
        Err(Errno::INVAL | Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        Err(error) => Err(error.into()),
    }
}
