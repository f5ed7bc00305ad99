//! Takes bytes; puts them into a file, a series of files, or standard output. A file of a series has the
//! time of its beginning and a number in its name, is called `.partial` until it is complete, and is
//! never written over another. Never reads a clock: the time comes in.

mod names;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use names::{Names, rename_new};

/// Permissions of a new file: flows say who talked to whom, so they are not for everybody.
const FILE_MODE: u32 = 0o640;
/// Names that are tried before a new file of a series is given up.
const NAMES_TRIED_MAX: u64 = 10_000;

/// When a file of a series ends, and how many are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// A file is ended when it has so many bytes.
    pub file_bytes_max: Option<u64>,
    /// A file is ended when a new period of this length begins, counted from the Unix epoch,
    /// milliseconds.
    pub file_period_ms: Option<u64>,
    /// Complete files that are kept; older ones are deleted.
    pub files_max: Option<u64>,
}

impl Rotation {
    /// Whether there is more than one file.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.file_bytes_max.is_some() || self.file_period_ms.is_some()
    }
}

/// What is being written.
enum Target {
    Stdout(io::Stdout),
    File(File),
}

/// Where an output's bytes go.
pub struct Files {
    /// `None` for standard output.
    path: Option<PathBuf>,
    rotation: Rotation,
    /// Whether half of a file is of no use, so that it gets its name when it is whole only.
    whole: bool,
    names: Option<Names>,
    target: Target,
    /// What the file in hand is called now, and what it will be called.
    renaming: Option<(PathBuf, PathBuf)>,
    bytes: u64,
    opened_ms: u64,
    /// Number of the file in hand, from 1.
    sequence: u64,
    deleted: u64,
}

impl Files {
    /// Opens the file at `path` (what was there is replaced), the first of a series that is named after
    /// it, or standard output. `whole` is for files of which half is of no use.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(
        path: Option<&Path>,
        rotation: Rotation,
        whole: bool,
        now_ms: u64,
    ) -> io::Result<Self> {
        let names = match path {
            Some(path) if rotation.is_on() => Some(Names::of(path)?),
            _ => None,
        };
        let mut files = Self {
            path: path.map(Path::to_owned),
            rotation,
            whole,
            names,
            target: Target::Stdout(io::stdout()),
            renaming: None,
            bytes: 0,
            opened_ms: now_ms,
            sequence: 0,
            deleted: 0,
        };
        files.begin(now_ms)?;
        Ok(files)
    }

    /// When the file in hand was opened, milliseconds since the Unix epoch.
    #[must_use]
    pub fn opened_ms(&self) -> u64 {
        self.opened_ms
    }

    /// Files that were deleted because there were too many.
    #[must_use]
    pub fn deleted(&self) -> u64 {
        self.deleted
    }

    /// Whether the file in hand is to be ended before more is written, when `waiting` bytes wait to get
    /// into it. An empty one is not.
    #[must_use]
    pub fn is_due(&self, waiting: usize, now_ms: u64) -> bool {
        let bytes = self.bytes + waiting as u64;
        let is_full = self.rotation.file_bytes_max.is_some_and(|max| bytes >= max);
        let is_old = self
            .rotation
            .file_period_ms
            // A clock that is set back ends no file.
            .is_some_and(|period| now_ms / period > self.opened_ms / period);
        bytes > 0 && (is_full || is_old)
    }

    /// Gives the file in hand its name, deletes what is too much, and opens the next one.
    ///
    /// # Errors
    /// When one of it is not possible.
    pub fn next(&mut self, now_ms: u64) -> io::Result<()> {
        self.complete()?;
        // Before the first look at the clock there is no time but that of the opening.
        self.begin(now_ms.max(self.opened_ms))
    }

    /// Gives the file in hand its name, and deletes what is too much.
    ///
    /// # Errors
    /// When one of it is not possible.
    pub fn complete(&mut self) -> io::Result<()> {
        self.flush()?;
        if let Some((partial, name)) = self.renaming.take() {
            if self.names.is_some() {
                rename_new(&partial, &name)?;
            } else {
                fs::rename(&partial, &name)?;
            }
        }
        if let (Some(names), Some(files_max)) = (&self.names, self.rotation.files_max) {
            for old in names.beyond(files_max)? {
                match fs::remove_file(&old) {
                    Ok(()) => self.deleted += 1,
                    // Somebody else was faster.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, now_ms: u64) -> io::Result<()> {
        self.bytes = 0;
        self.opened_ms = now_ms;
        let Some(path) = &self.path else { return Ok(()) };
        let mut options = File::options();
        options.write(true).mode(FILE_MODE);
        let Some(names) = &self.names else {
            // A device or a pipe has no half-written form, and is no file to be replaced.
            let is_special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
            let at = if self.whole && !is_special { names::partial(path) } else { path.clone() };
            self.target = Target::File(options.create(true).truncate(true).open(&at)?);
            self.renaming = (at != *path).then(|| (at, path.clone()));
            return Ok(());
        };
        for _ in 0..NAMES_TRIED_MAX {
            self.sequence += 1;
            let name = names.name(now_ms, self.sequence);
            if name.try_exists()? {
                continue;
            }
            let partial = names::partial(&name);
            match options.create_new(true).open(&partial) {
                Ok(file) => {
                    self.target = Target::File(file);
                    self.renaming = Some((partial, name));
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!("{NAMES_TRIED_MAX} names of the series are taken")))
    }
}

impl Write for Files {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.target {
            Target::Stdout(stdout) => stdout.write(bytes),
            Target::File(file) => file.write(bytes),
        }?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::Stdout(stdout) => stdout.flush(),
            Target::File(file) => file.flush(),
        }
    }
}

impl fmt::Display for Files {
    /// The file in hand, for messages.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.renaming, &self.path) {
            (Some((partial, _)), _) => partial.display().fmt(formatter),
            (None, Some(path)) => path.display().fmt(formatter),
            (None, None) => formatter.write_str("standard output"),
        }
    }
}
