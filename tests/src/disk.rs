//! A disk that is small enough to be filled, mounted below a folder of the test. Takes a folder; gives it back on a
//! file system of its own. Never touches anything outside that folder.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{read, skip};

/// A small disk in memory; gone when dropped.
pub struct Disk(PathBuf);

impl Disk {
    /// Puts a folder with what is in it onto a disk of its own; `None`, after saying so, without the privilege.
    ///
    /// # Errors
    ///
    /// When the disk cannot be mounted or the folder not be moved.
    pub fn below(folder: &Path, mebibytes: u32) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            skip("mounting a small disk needs root");
            return Ok(None);
        }
        let aside = folder.with_extension("aside");
        fs::rename(folder, &aside)?;
        fs::create_dir(folder)?;
        let size = format!("size={mebibytes}m");
        read(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder))?;
        let disk = Self(folder.to_owned());
        let from = aside.join(".");
        read(Command::new("cp").arg("-a").arg(from).arg(folder))?;
        fs::remove_dir_all(&aside)?;
        Ok(Some(disk))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves no byte; again, when somebody has made room meanwhile.
    ///
    /// # Errors
    ///
    /// When there is something in the way.
    pub fn fill(&self) -> Result<()> {
        let mut file = fs::File::options().create(true).append(true).open(self.filler())?;
        let block = vec![0; 4096];
        while let Ok(()) = file.write_all(&block) {}
        Ok(())
    }

    /// Takes away what [`Disk::fill`] put there.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn make_room(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("the filler was there")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        read(Command::new("umount").arg("--lazy").arg(&self.0)).ok();
    }
}
