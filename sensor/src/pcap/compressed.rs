//! Takes a file's bytes; gives them decompressed where the first of them say gzip or zstd, and as
//! they are otherwise. Holds a window of bounded size, whatever the bytes claim; never reads ahead
//! of what is asked for by more than a buffer.

use std::error::Error;
use std::fmt;
use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use zstd::Decoder as ZstdDecoder;

/// Compressed bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes that tell a format.
pub(super) const MAGIC_BYTES: usize = 6;
/// Largest window of zstd, as a power of two: 128 MiB, which is also what `zstd -d` takes unasked.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Gzip,
    Zstd,
    Xz,
    Bzip2,
    Lz4,
    Zip,
}

impl Format {
    /// What the first bytes say.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // Parallel compressors begin with a frame that is to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Lz4),
            [b'P', b'K', 3, 4, ..] => Some(Self::Zip),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
            Self::Lz4 => "lz4",
            Self::Zip => "zip",
        }
    }
}

/// Why compressed data cannot be decompressed further.
#[derive(Debug)]
pub(super) struct Broken {
    /// Decompressed bytes before.
    pub(super) offset: u64,
    /// What is wrong, after "the data".
    pub(super) fault: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the data {}", self.fault)
    }
}

impl Error for Broken {}

/// The bytes of a file as they are, the first of them read already.
pub(super) struct Raw<R> {
    start: Vec<u8>,
    given: usize,
    rest: R,
    /// Reading failed, which is no fault of the compressed data.
    failed: bool,
}

impl<R: Read> Read for Raw<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let held = &self.start[self.given..];
        if !held.is_empty() {
            let count = held.len().min(buffer.len());
            buffer[..count].copy_from_slice(&held[..count]);
            self.given += count;
            return Ok(count);
        }
        loop {
            match self.rest.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
                Ok(count) => return Ok(count),
            }
        }
    }
}

enum Decoder<R> {
    Plain(Raw<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Raw<R>>>>),
    Zstd(ZstdDecoder<'static, BufReader<Raw<R>>>),
}

/// A file's bytes, decompressed when they have to be.
pub(super) struct Stream<R> {
    decoder: Decoder<R>,
    /// Decompressed bytes given.
    offset: u64,
}

impl<R: Read> Stream<R> {
    /// Looks at the first bytes. Formats that are known but not read are given as they are.
    pub(super) fn open(source: R) -> io::Result<Self> {
        let mut raw = Raw { start: Vec::new(), given: 0, rest: source, failed: false };
        let mut start = vec![0; BUFFER_BYTES];
        let mut held = 0;
        while held < MAGIC_BYTES {
            match raw.read(&mut start[held..])? {
                0 => break,
                count => held += count,
            }
        }
        start.truncate(held);
        raw.start = start;
        let buffered = |raw| BufReader::with_capacity(BUFFER_BYTES, raw);
        let decoder = match Format::of(&raw.start) {
            Some(Format::Gzip) => Decoder::Gzip(Box::new(MultiGzDecoder::new(buffered(raw)))),
            Some(Format::Zstd) => {
                let mut decoder = ZstdDecoder::with_buffer(buffered(raw))?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Decoder::Zstd(decoder)
            }
            _ => Decoder::Plain(raw),
        };
        Ok(Self { decoder, offset: 0 })
    }

    /// How the file is compressed, when its bytes are given decompressed.
    pub(super) fn format(&self) -> Option<Format> {
        match &self.decoder {
            Decoder::Plain(_) => None,
            Decoder::Gzip(_) => Some(Format::Gzip),
            Decoder::Zstd(_) => Some(Format::Zstd),
        }
    }
}

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (result, raw) = match &mut self.decoder {
            Decoder::Plain(raw) => return raw.read(buffer),
            Decoder::Gzip(decoder) => (decoder.read(buffer), decoder.get_ref().get_ref()),
            Decoder::Zstd(decoder) => (decoder.read(buffer), decoder.get_ref().get_ref()),
        };
        match result {
            Ok(count) => {
                self.offset += count as u64;
                Ok(count)
            }
            Err(error) => {
                let fault = fault(&error, raw.failed);
                Err(io::Error::other(Broken { offset: self.offset, fault }))
            }
        }
    }
}

fn fault(error: &io::Error, failed: bool) -> String {
    let text = error.to_string();
    if failed {
        format!("cannot be read ({text})")
    } else if error.kind() == io::ErrorKind::UnexpectedEof {
        "end early".to_owned()
    } else if text.contains("too much memory") {
        format!(
            "need a window of more than {} MiB (`zstd -d --long=31` decompresses them)",
            (1_u64 << ZSTD_WINDOW_LOG_MAX) >> 20
        )
    } else {
        format!("are damaged ({text})")
    }
}
