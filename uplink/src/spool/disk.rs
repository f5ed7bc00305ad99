//! What the spool does to a disk, so that a test can let each operation fail and a simulation can have a disk of its
//! own. Never decides anything.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::batch::BATCH_BYTES_MAX;
use crate::private::{self, FileError};

/// The files of a folder, in no order.
pub(crate) type Listing<'a> = Box<dyn Iterator<Item = io::Result<PathBuf>> + 'a>;

/// The operations of a spool.
pub(crate) trait Disk: Send + Sync + std::fmt::Debug {
    /// Makes a private folder, unless there is one.
    fn make_folder(&self, path: &Path) -> Result<(), FileError>;
    /// Makes a new private file with these bytes, and waits until they are on the disk.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Gives a file another name, within the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Waits until a folder's entries are on the disk.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Whether the disk of a folder is nearly full: less than a twentieth of it is free.
    fn is_scarce(&self, folder: &Path) -> bool;
    /// Names what a folder holds.
    fn list(&self, folder: &Path) -> io::Result<Listing<'_>>;
    /// Reads a file, but never more than a batch can have.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// What a file takes of the disk: whole blocks of it, whatever its length.
    fn disk_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// The disk there is.
#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn make_folder(&self, path: &Path) -> Result<(), FileError> {
        private::make_folder(path)
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn is_scarce(&self, folder: &Path) -> bool {
        rustix::fs::statvfs(folder).is_ok_and(|disk| disk.f_bavail < disk.f_blocks / 20)
    }

    fn list(&self, folder: &Path) -> io::Result<Listing<'_>> {
        let entries = std::fs::read_dir(folder)?;
        Ok(Box::new(entries.map(|entry| Ok(entry?.path()))))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let limit = u64::try_from(BATCH_BYTES_MAX).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(io::Error::other(format!("longer than {BATCH_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    }

    fn disk_bytes(&self, path: &Path) -> io::Result<u64> {
        let metadata = std::fs::metadata(path)?;
        // The unit of `st_blocks` is 512 bytes on every file system.
        Ok((metadata.blocks() * 512).max(metadata.len()))
    }
}
