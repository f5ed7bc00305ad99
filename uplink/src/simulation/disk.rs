//! A disk in memory for the spool: it fills up, refuses, and loses power. What was not synced is lost from the end, as
//! file systems with a journal have it; a file that was being written is torn.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::private::FileError;
use crate::spool::{Disk, Listing};
use crate::test_records::Random;

/// How to take back a change that was not synced.
#[derive(Debug)]
enum Undo {
    Created(String),
    Renamed { from: String, to: String, replaced: Option<Bytes> },
    Removed(String, Bytes),
}

#[derive(Debug)]
struct State {
    files: BTreeMap<String, Bytes>,
    unsynced: Vec<Undo>,
    random: Random,
    /// Nothing can be written.
    full: bool,
    /// One of so many writes, renames and syncs fails.
    fails_one_in: Option<u64>,
    /// Power is lost at this operation from now.
    dies_in: Option<u64>,
    dead: bool,
    /// Syncs a folder only in words.
    lies: bool,
    operations: u64,
}

/// Shared between the spool, which does not know better, and the world, which does.
#[derive(Clone, Debug)]
pub(super) struct SimulatedDisk(Arc<Mutex<State>>);

fn power_lost() -> io::Error {
    io::Error::other("power lost")
}

fn name(path: &Path) -> String {
    path.to_str().expect("the spool's names are plain").to_owned()
}

impl SimulatedDisk {
    pub(super) fn new(seed: u64, fails_one_in: Option<u64>, lies: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            unsynced: Vec::new(),
            random: Random(seed),
            full: false,
            fails_one_in,
            dies_in: None,
            dead: false,
            lies,
            operations: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }

    pub(super) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// From now on everything works.
    pub(super) fn heal(&self) {
        let mut state = self.state();
        (state.full, state.fails_one_in, state.dies_in) = (false, None, None);
    }

    /// Power is lost at the n-th operation from now.
    pub(super) fn die_in(&self, operations: u64) {
        self.state().dies_in = Some(operations);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state().dead
    }

    pub(super) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Loses power now, if it has not yet, and comes back.
    pub(super) fn restart(&self) {
        let mut state = self.state();
        let count = state.unsynced.len() as u64 + 1;
        let kept = state.random.below(count);
        while state.unsynced.len() as u64 > kept {
            match state.unsynced.pop() {
                None => break,
                Some(Undo::Created(name)) => drop(state.files.remove(&name)),
                Some(Undo::Removed(name, bytes)) => drop(state.files.insert(name, bytes)),
                Some(Undo::Renamed { from, to, replaced }) => {
                    if let Some(bytes) = state.files.remove(&to) {
                        state.files.insert(from, bytes);
                    }
                    if let Some(bytes) = replaced {
                        state.files.insert(to, bytes);
                    }
                }
            }
        }
        state.unsynced.clear();
        (state.dead, state.dies_in) = (false, None);
    }

    /// Whether an operation may go on; an error with `true` when power is lost during it.
    fn step(
        &self,
        may_fail: bool,
    ) -> Result<MutexGuard<'_, State>, (MutexGuard<'_, State>, io::Error)> {
        let mut state = self.state();
        if state.dead {
            return Err((state, power_lost()));
        }
        state.operations += 1;
        if let Some(left) = state.dies_in {
            state.dies_in = Some(left.saturating_sub(1));
            if left == 0 {
                state.dead = true;
                return Err((state, power_lost()));
            }
        }
        if may_fail
            && let Some(one_in) = state.fails_one_in
            && state.random.below(one_in) == 0
        {
            return Err((state, io::Error::other("a bad sector")));
        }
        Ok(state)
    }
}

impl Disk for SimulatedDisk {
    fn make_folder(&self, _path: &Path) -> Result<(), FileError> {
        Ok(())
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let name = name(path);
        let (mut state, failed) = match self.step(true) {
            Ok(state) => {
                let full = state.full.then(|| io::Error::from(ErrorKind::StorageFull));
                (state, full)
            }
            Err((state, error)) => (state, Some(error)),
        };
        if state.files.contains_key(&name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let written = match failed {
            None => bytes.len(),
            Some(_) => usize::try_from(state.random.below(bytes.len() as u64 + 1)).unwrap_or(0),
        };
        state.files.insert(name.clone(), Bytes::copy_from_slice(&bytes[..written]));
        state.unsynced.push(Undo::Created(name));
        failed.map_or(Ok(()), Err)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (name(from), name(to));
        let mut state = self.step(true).map_err(|(_, error)| error)?;
        let bytes = state.files.remove(&from).ok_or(ErrorKind::NotFound)?;
        let replaced = state.files.insert(to.clone(), bytes);
        state.unsynced.push(Undo::Renamed { from, to, replaced });
        Ok(())
    }

    fn sync_folder(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.step(true).map_err(|(_, error)| error)?;
        if !state.lies {
            state.unsynced.clear();
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let name = name(path);
        let mut state = self.step(false).map_err(|(_, error)| error)?;
        let bytes = state.files.remove(&name).ok_or(ErrorKind::NotFound)?;
        state.unsynced.push(Undo::Removed(name, bytes));
        Ok(())
    }

    fn is_scarce(&self, _folder: &Path) -> bool {
        self.state().full
    }

    fn list(&self, folder: &Path) -> io::Result<Listing<'_>> {
        let prefix = format!("{}/", name(folder));
        let state = self.step(false).map_err(|(_, error)| error)?;
        let names = state.files.range(prefix.clone()..).map(|(name, _)| name);
        let found: Vec<PathBuf> =
            names.take_while(|name| name.starts_with(&prefix)).map(PathBuf::from).collect();
        Ok(Box::new(found.into_iter().map(Ok)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.step(false).map_err(|(_, error)| error)?;
        let bytes = state.files.get(&name(path)).ok_or(ErrorKind::NotFound)?;
        Ok(bytes.to_vec())
    }

    fn disk_bytes(&self, path: &Path) -> io::Result<u64> {
        let state = self.step(false).map_err(|(_, error)| error)?;
        let bytes = state.files.get(&name(path)).ok_or(ErrorKind::NotFound)?;
        Ok((bytes.len() as u64).next_multiple_of(512))
    }
}
