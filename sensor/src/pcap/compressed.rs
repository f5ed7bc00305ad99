//! Takes a file's bytes; gives them decompressed where the first of them say gzip or zstd, and as
//! they are otherwise. Holds a window of bounded size, whatever the bytes claim; never reads ahead
//! of what is asked for by more than a buffer.

use std::error::Error;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read};

use flate2::{Decompress, FlushDecompress, Status};
use zstd::Decoder as ZstdDecoder;

/// Compressed bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes that tell a format.
pub(super) const MAGIC_BYTES: usize = 6;
/// Bytes that zstd decompresses at once. What it has decompressed in a call that meets damaged data is
/// lost.
const ZSTD_STEP_BYTES: usize = 16 << 10;
/// Window of gzip, as a power of two: the only one.
const GZIP_WINDOW_LOG: u8 = 15;
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

/// The members of a gzip file. Unlike the library's own reader it gives every byte before damaged data.
struct Gzip<R> {
    source: BufReader<Raw<R>>,
    /// None between two members.
    member: Option<Decompress>,
    /// Told when the bytes before it were given.
    fault: Option<io::Error>,
}

impl<R: Read> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(fault) = self.fault.take() {
                return Err(fault);
            }
            let input = self.source.fill_buf()?;
            let has_ended = input.is_empty();
            if has_ended && self.member.is_none() {
                return Ok(0);
            }
            let member = self.member.get_or_insert_with(|| Decompress::new_gzip(GZIP_WINDOW_LOG));
            let before = (member.total_in(), member.total_out());
            let result = member.decompress(input, buffer, FlushDecompress::None);
            let used = member.total_in() - before.0;
            let made = member.total_out() - before.1;
            self.source.consume(usize::try_from(used).expect("a part of the input"));
            match result {
                Ok(Status::StreamEnd) => self.member = None,
                Ok(_) if has_ended && made == 0 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(_) => {}
                Err(error) => {
                    let told = error.message().unwrap_or("no reason is given");
                    self.fault = Some(io::Error::new(io::ErrorKind::InvalidData, told));
                }
            }
            if made > 0 {
                return Ok(usize::try_from(made).expect("a part of the buffer"));
            }
        }
    }
}

enum Decoder<R> {
    Plain(Raw<R>),
    Gzip(Gzip<R>),
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
            Some(Format::Gzip) => {
                Decoder::Gzip(Gzip { source: buffered(raw), member: None, fault: None })
            }
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
            Decoder::Gzip(decoder) => (decoder.read(buffer), decoder.source.get_ref()),
            Decoder::Zstd(decoder) => {
                let step = buffer.len().min(ZSTD_STEP_BYTES);
                (decoder.read(&mut buffer[..step]), decoder.get_ref().get_ref())
            }
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
