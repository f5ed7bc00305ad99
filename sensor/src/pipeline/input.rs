//! Takes the name of a capture, a path or `-` for standard input; gives its bytes as they are, counts
//! them, and ends early when somebody wants to stop. What may keep a reader waiting (a pipe, a
//! device) is read in a thread of its own, so that a signal ends that wait, too.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, RecvError, Sender, bounded};

use super::stop::Stop;
use crate::pcap::CaptureFileError;

/// What stands for standard input.
pub(super) const STDIN: &str = "-";
/// Bytes of a pipe that are read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that are read ahead.
const CHUNKS: usize = 4;

/// A capture that is being read.
pub(crate) struct Input {
    bytes: Bytes,
    stop: Arc<Stop>,
    /// Bytes given so far, for whoever shows progress.
    bytes_read: Arc<AtomicU64>,
}

enum Bytes {
    File(File),
    Pipe(Pipe),
}

impl Input {
    /// Opens it. Adds what is read to `bytes_read`.
    pub(crate) fn open(
        path: &Path,
        stop: &Arc<Stop>,
        bytes_read: &Arc<AtomicU64>,
    ) -> Result<Self, CaptureFileError> {
        let bytes = if is_stdin(path) {
            if io::stdin().is_terminal() {
                let told = "standard input is a terminal; pipe a capture into it";
                return Err(CaptureFileError::Open(io::Error::other(told)));
            }
            let file = io::stdin().as_fd().try_clone_to_owned().map(File::from);
            let file = file.map_err(CaptureFileError::Open)?;
            if size_of(&file).is_some() { Bytes::File(file) } else { pipe(move || Ok(file))? }
        } else {
            let metadata = path.metadata().map_err(CaptureFileError::Open)?;
            if metadata.is_dir() {
                return Err(CaptureFileError::Folder);
            }
            if metadata.is_file() {
                Bytes::File(File::open(path).map_err(CaptureFileError::Open)?)
            } else {
                // Opening a named pipe waits for its writer.
                let path = path.to_owned();
                pipe(move || File::open(path))?
            }
        };
        Ok(Self { bytes, stop: Arc::clone(stop), bytes_read: Arc::clone(bytes_read) })
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The end of the bytes ends whatever is made of them; that it is not the end of the capture
        // is known to who has asked to stop.
        if self.stop.is_requested() {
            return Ok(0);
        }
        let count = match &mut self.bytes {
            Bytes::File(file) => file.read(buffer)?,
            Bytes::Pipe(pipe) => pipe.read(buffer, &self.stop)?,
        };
        self.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Whether this is the name of standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

/// What people are told of it.
pub(crate) fn name(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// How many bytes it has, where that is known before they are read.
pub(crate) fn size(path: &Path) -> Option<u64> {
    if is_stdin(path) {
        return size_of(&File::from(io::stdin().as_fd().try_clone_to_owned().ok()?));
    }
    // What cannot be opened has no bytes either, but that is told when it is its turn.
    path.metadata().map_or(Some(0), |metadata| {
        if metadata.is_file() { Some(metadata.len()) } else { metadata.is_dir().then_some(0) }
    })
}

fn size_of(file: &File) -> Option<u64> {
    file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
}

/// Bytes that another thread reads.
struct Pipe {
    filled: Receiver<io::Result<Chunk>>,
    empty: Sender<Chunk>,
    chunk: Chunk,
    given: usize,
}

/// Some bytes of a pipe; those behind `held` mean nothing.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    held: usize,
}

fn pipe(
    open: impl FnOnce() -> io::Result<File> + Send + 'static,
) -> Result<Bytes, CaptureFileError> {
    let (fill, filled) = bounded(CHUNKS);
    let (empty, empties) = bounded(CHUNKS);
    for _ in 0..CHUNKS {
        empty.send(Chunk::default()).expect("the channel has room for them and is held here");
    }
    thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || {
            let read = open().and_then(|file| read_ahead(file, &empties, &fill));
            if let Err(error) = read {
                // Who wanted the bytes may have gone.
                let _gone = fill.send(Err(error));
            }
        })
        .map_err(CaptureFileError::Open)?;
    Ok(Bytes::Pipe(Pipe { filled, empty, chunk: Chunk::default(), given: 0 }))
}

/// Reads to the end, or until nobody wants the bytes.
fn read_ahead(
    mut file: File,
    empties: &Receiver<Chunk>,
    filled: &Sender<io::Result<Chunk>>,
) -> io::Result<()> {
    for mut chunk in empties {
        chunk.bytes.resize(CHUNK_BYTES, 0);
        chunk.held = loop {
            match file.read(&mut chunk.bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if chunk.held == 0 || filled.send(Ok(chunk)).is_err() {
            break;
        }
    }
    Ok(())
}

impl Pipe {
    fn read(&mut self, buffer: &mut [u8], stop: &Stop) -> io::Result<usize> {
        if self.given == self.chunk.held {
            // The thread has gone with the end of the bytes: it needs no chunk any more.
            let _gone = self.empty.try_send(std::mem::take(&mut self.chunk));
            self.given = 0;
            match stop.receive(&self.filled) {
                Some(Ok(chunk)) => self.chunk = chunk?,
                Some(Err(RecvError)) | None => return Ok(0),
            }
        }
        let left = &self.chunk.bytes[self.given..self.chunk.held];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.given += count;
        Ok(count)
    }
}
