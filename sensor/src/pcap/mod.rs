//! Takes a capture file, pcap or pcapng, plain or in gzip or zstd, as a stream; gives its frames with
//! their times, wire lengths and link types. Holds one record at a time, never keeps a frame, never
//! skips one silently: the first fault ends the file with an error that says where it is.

mod classic;
mod compressed;
mod link;
mod ng;
#[cfg(test)]
mod tests;
mod window;

use std::io::{self, Read};

use thiserror::Error;

use classic::Classic;
use compressed::{Broken, Stream};
pub use link::LinkType;
use ng::Ng;
use window::Window;

/// Longest record that is read. The largest snap length of libpcap is 256 KiB; a longer record is a
/// fault.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// Interfaces that one pcapng section may describe.
pub const INTERFACES_MAX: usize = 65_536;

/// One frame of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedFrame<'a> {
    /// When it was captured, milliseconds since the Unix epoch; `None` where the file does not say.
    pub time_ms: Option<u64>,
    /// The same in microseconds.
    pub time_us: Option<u64>,
    /// Length on the wire, bytes.
    pub wire_bytes: u64,
    /// What it begins with.
    pub link: LinkType,
    /// The captured bytes, which may be fewer than were on the wire.
    pub bytes: &'a [u8],
}

/// Why a capture cannot be read, or cannot be read further. `offset` is the byte offset of the
/// faulty record.
#[derive(Debug, Error)]
pub enum CaptureFileError {
    /// Reading the file failed.
    #[error("cannot read at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no such file, or it may not be read.
    #[error("cannot open the file")]
    Open(#[source] io::Error),
    /// Empty file.
    #[error("the file is empty")]
    Empty,
    /// A folder: the shell puts the files in one in order (`FOLDER/*`).
    #[error("this is a folder; name the captures in it")]
    Folder,
    /// The file is compressed in a way that is not read here: decompress it first.
    #[error("the file is compressed with {format}; decompress it first")]
    Compressed {
        /// Which format.
        format: &'static str,
    },
    /// What is inside a compressed file is compressed, too: decompress the file once.
    #[error(
        "the file is compressed twice: with {outer}, and inside that with {inner}; decompress it \
         once"
    )]
    Nested {
        /// Which format.
        outer: &'static str,
        /// The format inside.
        inner: &'static str,
    },
    /// Compressed data that are damaged or cut.
    #[error("the {format} data {fault}, at byte {offset} of the decompressed stream")]
    Decompress {
        /// Which format.
        format: &'static str,
        /// What is wrong with them.
        fault: String,
        /// How many bytes could be decompressed.
        offset: u64,
    },
    /// A fault of the capture inside of a compressed file.
    #[error("{fault} (bytes of the decompressed {format} stream)")]
    Inside {
        /// Which format.
        format: &'static str,
        /// The fault; its offsets count decompressed bytes.
        fault: Box<Self>,
    },
    /// Neither pcap nor pcapng.
    #[error("not a pcap or pcapng file: it begins with {magic:02x?}, at byte 0")]
    Magic {
        /// The first four bytes, or fewer.
        magic: Vec<u8>,
    },
    /// A file that ends within a record.
    #[error(
        "the file ends inside the {what} at byte {offset}: {wanted} bytes announced, {held} there"
    )]
    Truncated {
        /// Which kind of record.
        what: &'static str,
        /// Where it starts.
        offset: u64,
        /// Its length.
        wanted: u64,
        /// What the file holds of it.
        held: u64,
    },
    /// A record that contradicts itself or the file's header.
    #[error("{what} at byte {offset}: {value} is out of range, at most {maximum}")]
    Length {
        /// Which field.
        what: &'static str,
        /// Where the record starts.
        offset: u64,
        /// The field's value.
        value: u64,
        /// What it may be.
        maximum: u64,
    },
    /// A pcapng block that cannot be understood.
    #[error("broken {what} at byte {offset}")]
    Block {
        /// Which kind of block.
        what: &'static str,
        /// Where it starts.
        offset: u64,
    },
    /// A packet that names an interface that the section has not described.
    #[error(
        "packet at byte {offset} names interface {interface}, but only {described} are described"
    )]
    Interface {
        /// Where the block starts.
        offset: u64,
        /// Which interface.
        interface: u32,
        /// How many there are.
        described: usize,
    },
    /// A link type that this sensor cannot read.
    #[error("unknown link type {number} at byte {offset}")]
    LinkType {
        /// Where the file or the packet says so.
        offset: u64,
        /// The link type's number.
        number: u32,
    },
}

/// A capture file that is being read.
pub struct CaptureFile<R> {
    window: Window<Stream<R>>,
    compression: Option<&'static str>,
    format: Format,
    /// A fault was met; nothing more can be read.
    broken: bool,
}

enum Format {
    Classic(Classic),
    Ng(Ng),
}

impl<R: Read> CaptureFile<R> {
    /// Reads the header. A file in gzip or zstd is decompressed on the way.
    ///
    /// # Errors
    /// When it is not a capture, or one whose link type is unknown.
    pub fn open(source: R) -> Result<Self, CaptureFileError> {
        let unreadable = |source| CaptureFileError::Read { offset: 0, source };
        let stream = Stream::open(source).map_err(unreadable)?;
        let compression = stream.format().map(compressed::Format::name);
        let mut window = Window::new(stream);
        let format =
            open_format(&mut window, compression).map_err(|error| inside(compression, error))?;
        Ok(Self { window, compression, format, broken: false })
    }

    /// What the file is compressed with, as it was decompressed on the way.
    #[must_use]
    pub fn compression(&self) -> Option<&'static str> {
        self.compression
    }

    /// Byte offset of what is read next, in the decompressed stream.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.window.offset()
    }

    /// The next frame, or `None` at the end.
    ///
    /// # Errors
    /// When the file is cut or broken here. The frames before stay valid; nothing follows.
    #[inline]
    pub fn next_frame(&mut self) -> Result<Option<CapturedFrame<'_>>, CaptureFileError> {
        if self.broken {
            return Ok(None);
        }
        self.broken = true;
        let frame = match &mut self.format {
            Format::Classic(classic) => classic.next_frame(&mut self.window),
            Format::Ng(ng) => ng.next_frame(&mut self.window),
        };
        let compression = self.compression;
        let frame = frame.map_err(|error| inside(compression, error))?;
        self.broken = false;
        Ok(frame)
    }
}

fn open_format<R: Read>(
    window: &mut Window<R>,
    compression: Option<&'static str>,
) -> Result<Format, CaptureFileError> {
    // A shorter file is looked at, too.
    let _whole = window
        .fill(compressed::MAGIC_BYTES)
        .map_err(|source| CaptureFileError::Read { offset: 0, source })?;
    if window.held().is_empty() {
        return Err(CaptureFileError::Empty);
    }
    if let Some(format) = compressed::Format::of(window.held()) {
        return Err(match compression {
            None => CaptureFileError::Compressed { format: format.name() },
            Some(outer) => CaptureFileError::Nested { outer, inner: format.name() },
        });
    }
    Ok(if window.held().starts_with(&ng::MAGIC) {
        Format::Ng(Ng::default())
    } else {
        Format::Classic(Classic::open(window)?)
    })
}

/// Says of a fault in a compressed file which bytes its offsets count.
fn inside(compression: Option<&'static str>, error: CaptureFileError) -> CaptureFileError {
    let Some(format) = compression else { return error };
    match error {
        CaptureFileError::Read { offset, source } => {
            let (offset, fault) = match source.downcast::<Broken>() {
                Ok(broken) => (broken.offset, broken.fault),
                Err(source) => (offset, format!("cannot be read ({source})")),
            };
            CaptureFileError::Decompress { format, fault, offset }
        }
        nested @ CaptureFileError::Nested { .. } => nested,
        fault => CaptureFileError::Inside { format, fault: Box::new(fault) },
    }
}

/// Makes sure that `count` bytes of a record are held.
fn need<R: Read>(
    window: &mut Window<R>,
    count: usize,
    what: &'static str,
) -> Result<(), CaptureFileError> {
    let offset = window.offset();
    match window.fill(count) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CaptureFileError::Truncated {
            what,
            offset,
            wanted: count as u64,
            held: window.held().len() as u64,
        }),
        Err(source) => Err(CaptureFileError::Read { offset, source }),
    }
}
