//! Takes paths of files that hold secrets; gives their bytes, after checking who could have read or changed
//! them. Never opens a file through a symbolic link.

use std::fs::{DirBuilder, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::spool::{Disk, RealDisk};

/// Keys, certificates and the identity file are far smaller.
const BYTES_MAX: u64 = 64 << 10;

/// Why a private file or its folder cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// The system refused. Remedy: the text names the path and the cause.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Others may read or write it. Remedy: the message says it; enrol again if somebody may have copied or changed
    /// it.
    #[error(
        "{} has mode {mode:04o}, so that others may use it: `chmod {wanted:04o} {0}`, and find out who has",
        path.display()
    )]
    Mode {
        /// Which file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// It belongs to another user. Remedy: the message says it.
    #[error(
        "{} belongs to user {owner}, this process runs as user {user}: run it as its owner, or `chown -R {user} {0}`",
        path.display()
    )]
    Owner {
        /// Which file or folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who runs this process.
        user: u32,
    },
    /// Not a regular file, or a longer one than any of ours.
    #[error("{} is not a regular file of at most {BYTES_MAX} bytes", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
    },
    /// It holds something else than its name says. Remedy: restore it, or enrol again.
    #[error("{} is damaged: {reason}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
}

impl FileError {
    /// For `map_err`.
    pub(crate) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// For `map_err`.
    pub(crate) fn content<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Self + use<E> {
        let path = path.to_path_buf();
        move |error| Self::Content { path, reason: error.to_string() }
    }
}

/// Reads a file that only this user may read.
///
/// # Errors
///
/// When it cannot be read, is no regular file, belongs to another user, or others may read or write it.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let no_follow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(no_follow)
        .open(path)
        .map_err(FileError::io("open", path))?;
    let metadata = file.metadata().map_err(FileError::io("examine", path))?;
    if !metadata.is_file() || metadata.len() > BYTES_MAX {
        return Err(FileError::Form { path: path.to_path_buf() });
    }
    check_rights(path, &metadata, 0o077, 0o600)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(FileError::io("read", path))?;
    Ok(bytes)
}

/// Refuses what belongs to somebody else, and what others have one of the `forbidden` rights to.
fn check_rights(
    path: &Path,
    metadata: &Metadata,
    forbidden: u32,
    wanted: u32,
) -> Result<(), FileError> {
    let (user, owner) = (rustix::process::geteuid().as_raw(), metadata.uid());
    if owner != user {
        return Err(FileError::Owner { path: path.to_path_buf(), owner, user });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(FileError::Mode { path: path.to_path_buf(), mode, wanted });
    }
    Ok(())
}

/// Refuses a folder in which others may put, move or remove things: they could put a link in the place of a
/// folder in it, and have this process move and remove files elsewhere. Looking into it is harmless.
///
/// # Errors
///
/// When it cannot be examined, belongs to another user, or others may write to it.
pub fn check_folder(path: &Path) -> Result<(), FileError> {
    let metadata = std::fs::metadata(path).map_err(FileError::io("examine", path))?;
    check_rights(path, &metadata, 0o022, 0o700)
}

/// Refuses a file or folder that belongs to another user, or that others may write. For what lies beside keys and
/// decides who is admitted.
///
/// # Errors
///
/// Names the path, what is wrong with it, and what mends it.
pub fn check_own(path: &Path) -> Result<(), FileError> {
    let metadata = std::fs::metadata(path).map_err(FileError::io("examine", path))?;
    check_rights(path, &metadata, 0o022, if metadata.is_dir() { 0o700 } else { 0o600 })
}

/// As [`read`], for files of text.
pub(crate) fn read_text(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(FileError::content(path))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Puts a whole file of mode 0600 in the place of another, durably: a reader sees the old one or the new one.
///
/// # Errors
///
/// When the disk refuses.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace_on(&RealDisk, path, bytes)
}

/// As [`replace`], on a disk that a test may have chosen.
pub(crate) fn replace_on(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = path.with_extension("new");
    // What a crash has left; a link is not followed.
    if temporary.symlink_metadata().is_ok() {
        disk.remove(&temporary).map_err(FileError::io("remove", &temporary))?;
    }
    disk.write_new(&temporary, bytes).map_err(FileError::io("write", &temporary))?;
    disk.rename(&temporary, path).map_err(FileError::io("rename a new file to", path))?;
    let Some(folder) = path.parent() else { return Ok(()) };
    disk.sync_folder(folder).map_err(FileError::io("sync", folder))
}

/// Makes a folder that only this user may enter, with its parents; one that is there is left as it is.
///
/// # Errors
///
/// When the disk refuses.
pub fn make_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(FileError::io("make the folder", path))
}

/// Removes a file, if there is one.
///
/// # Errors
///
/// When the disk refuses.
pub fn remove_if_there(path: &Path) -> Result<(), FileError> {
    match RealDisk.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(FileError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
