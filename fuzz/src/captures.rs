//! Takes bytes as a capture file; checks that the readers end with all frames or with one fault, whatever
//! the pieces that the bytes come in, and that what is compressed is read as what is inside.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use sensor::{CaptureFile, CaptureFileError, LinkType};

/// Frames that are compared: a few bytes of compressed zeros are millions.
const FRAMES_MAX: usize = 50_000;
const NG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The classic format, in all its forms.
pub fn pcap(data: &[u8]) {
    if !data.starts_with(&NG) {
        check(data);
    }
}

/// The format of blocks.
pub fn pcapng(data: &[u8]) {
    if data.starts_with(&NG) {
        check(data);
    }
}

/// Compressed data as they are, and the data in every compression that is read.
pub fn compressed(data: &[u8]) {
    check(data);
    let (plain, fault) = read(data);
    if matches!(
        fault,
        Some(
            CaptureFileError::Compressed { .. }
                | CaptureFileError::Decompress { .. }
                | CaptureFileError::Inside { .. }
                | CaptureFileError::Nested { .. }
        )
    ) || CaptureFile::open(data).is_ok_and(|file| file.compression().is_some())
    {
        return;
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(data).expect("memory takes all bytes");
    let gzip = gzip.finish().expect("memory takes all bytes");
    let zstd = zstd::encode_all(data, 1).expect("memory takes all bytes");
    for packed in [gzip, zstd] {
        let (frames, inside) = read(packed.as_slice());
        assert_eq!(frames, plain, "the frames of the plain file");
        match (&fault, &inside) {
            (None, None) => {}
            (Some(plain), Some(CaptureFileError::Inside { fault: inside, .. })) => {
                assert_eq!(plain.to_string(), inside.to_string());
            }
            _ => assert!(fault.is_none() && inside.is_none(), "{fault:?}, compressed {inside:?}"),
        }
    }
}

/// A file that gives its bytes a few at a time, as a pipe may.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let few = buffer.len().min(7);
        self.0.read(&mut buffer[..few])
    }
}

fn check(data: &[u8]) {
    let (frames, fault) = read(data);
    let (pieces, in_pieces) = read(Slow(data));
    if [&fault, &in_pieces].into_iter().flatten().any(is_damage) {
        // How far damaged data can be decompressed depends on how much of them is there at once.
        let both = frames.len().min(pieces.len());
        assert_eq!(frames[..both], pieces[..both], "what comes before is the same");
        return;
    }
    assert_eq!(frames, pieces, "the frames do not depend on the pieces");
    let told = |fault: Option<CaptureFileError>| fault.map(|fault| fault.to_string());
    assert_eq!(told(fault), told(in_pieces), "nor does the fault");
}

fn is_damage(fault: &CaptureFileError) -> bool {
    matches!(fault, CaptureFileError::Decompress { fault, .. } if fault.starts_with("are damaged"))
}

/// Time, length on the wire, link type, captured length, and a hash of the bytes.
type Frame = (Option<u64>, u64, LinkType, usize, u64);

fn read(source: impl Read) -> (Vec<Frame>, Option<CaptureFileError>) {
    let mut frames = Vec::new();
    let mut file = match CaptureFile::open(source) {
        Ok(file) => file,
        Err(fault) => return (frames, Some(fault)),
    };
    let mut offset = 0;
    while frames.len() < FRAMES_MAX {
        match file.next_frame() {
            Ok(Some(frame)) => {
                assert!(frame.bytes.len() as u64 <= frame.wire_bytes, "at most what was there");
                let mut hasher = DefaultHasher::new();
                frame.bytes.hash(&mut hasher);
                let hash = hasher.finish();
                frames.push((frame.time_ms, frame.wire_bytes, frame.link, frame.bytes.len(), hash));
            }
            Ok(None) => return (frames, None),
            Err(fault) => {
                assert!(matches!(file.next_frame(), Ok(None)), "nothing follows a fault");
                return (frames, Some(fault));
            }
        }
        assert!(file.offset() > offset, "every frame moves on");
        offset = file.offset();
    }
    (frames, None)
}
