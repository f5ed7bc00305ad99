//! Captures made byte by byte: every form that can be read, and every fault with the place it
//! names.

use std::io::{self, Read, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{CaptureFile, CaptureFileError, LinkType};

/// A file that hands out its bytes a few at a time, as a pipe may.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(buffer.len()).min(7);
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

/// Time, wire length, link type and first byte of each frame, and the fault at the end.
type Frames = Vec<(Option<u64>, u64, LinkType, Option<u8>)>;

fn read(bytes: &[u8]) -> (Frames, Option<CaptureFileError>) {
    let mut frames = Vec::new();
    let mut file = match CaptureFile::open(Slow(bytes)) {
        Ok(file) => file,
        Err(error) => return (frames, Some(error)),
    };
    loop {
        match file.next_frame() {
            Ok(Some(frame)) => frames.push((
                frame.time_ms,
                frame.wire_bytes,
                frame.link,
                frame.bytes.first().copied(),
            )),
            Ok(None) => return (frames, None),
            Err(error) => {
                assert!(matches!(file.next_frame(), Ok(None)), "nothing follows a fault");
                return (frames, Some(error));
            }
        }
    }
}

fn fault(bytes: &[u8]) -> (usize, String) {
    let (frames, error) = read(bytes);
    (frames.len(), error.map_or_else(|| "no fault".to_owned(), |error| error.to_string()))
}

/// Writes numbers in one byte order.
#[derive(Clone, Copy)]
struct Order {
    big: bool,
}

impl Order {
    fn words(self, words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| self.word(*word)).collect()
    }

    fn word(self, word: u32) -> [u8; 4] {
        if self.big { word.to_be_bytes() } else { word.to_le_bytes() }
    }

    fn half(self, half: u16) -> [u8; 2] {
        if self.big { half.to_be_bytes() } else { half.to_le_bytes() }
    }

    /// A classic file's header.
    fn classic(self, magic: u32, snap: u32, link: u32) -> Vec<u8> {
        let mut bytes = self.word(magic).to_vec();
        bytes.extend(self.half(2));
        bytes.extend(self.half(4));
        bytes.extend(self.words(&[0, 0, snap, link]));
        bytes
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 12).expect("a small block");
        let mut bytes = self.words(&[kind, length]);
        bytes.extend(body);
        bytes.extend(self.word(length));
        bytes
    }

    fn section(self) -> Vec<u8> {
        let mut body = self.word(0x1a2b_3c4d).to_vec();
        body.extend(self.half(1));
        body.extend(self.half(0));
        body.extend([0xff; 8]);
        self.block(0x0a0d_0d0a, &body)
    }

    fn interface(self, link: u16, snap: u32, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = self.half(link).to_vec();
        body.extend(self.half(0));
        body.extend(self.word(snap));
        for (code, value) in options {
            body.extend(self.half(*code));
            body.extend(self.half(u16::try_from(value.len()).expect("a short option")));
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        self.block(1, &body)
    }

    fn packet(self, interface: u32, ticks: u64, wire: u32, data: &[u8]) -> Vec<u8> {
        let captured = u32::try_from(data.len()).expect("a short packet");
        let high = u32::try_from(ticks >> 32).expect("the upper half");
        let low = u32::try_from(ticks & 0xffff_ffff).expect("the lower half");
        let mut body = self.words(&[interface, high, low, captured, wire]);
        body.extend(data);
        body.resize(body.len().next_multiple_of(4), 0);
        self.block(6, &body)
    }
}

const LITTLE: Order = Order { big: false };
const BIG: Order = Order { big: true };
const MICROS: u32 = 0xa1b2_c3d4;
const NANOS: u32 = 0xa1b2_3c4d;
const MODIFIED: u32 = 0xa1b2_cd34;

#[test]
fn classic_forms() {
    for order in [LITTLE, BIG] {
        for (magic, ticks, extra) in
            [(MICROS, 5_000, 0), (NANOS, 5_000_000, 0), (MODIFIED, 5_000, 2)]
        {
            let mut bytes = order.classic(magic, 65_535, 1);
            for time_s in [1, 2] {
                bytes.extend(order.words(&[time_s, ticks, 3, 1_500]));
                bytes.extend(vec![0; extra * 4]);
                bytes.extend([7, 8, 9]);
            }
            let (frames, error) = read(&bytes);
            assert!(error.is_none(), "{error:?}");
            let expected = |time_ms| (Some(time_ms), 1_500, LinkType::Ethernet, Some(7));
            assert_eq!(frames, [expected(1_005), expected(2_005)], "{magic:x} {}", order.big);
        }
    }
}

#[test]
fn ng_sections_interfaces_clocks_and_simple_packets() {
    let mut bytes = Vec::new();
    for order in [LITTLE, BIG] {
        bytes.extend(order.section());
        bytes.extend(order.interface(1, 4, &[]));
        let offset = if order.big { 100_i64.to_be_bytes() } else { 100_i64.to_le_bytes() };
        bytes.extend(order.interface(101, 0, &[(9, &[9]), (14, &offset)]));
        bytes.extend(order.interface(276, 0, &[(9, &[0x8a])]));
        // Something else that is none of our business.
        bytes.extend(order.block(5, &[0; 12]));
        bytes.extend(order.packet(0, 1_500_000, 60, &[1, 2, 3]));
        bytes.extend(order.packet(1, 2_000_000_000, 60, &[4, 5, 6, 7, 8]));
        bytes.extend(order.packet(2, 1_024 * 3 + 512, 60, &[9]));
        // A simple packet: 60 bytes on the wire, 4 of them kept by the first interface's snap
        // length.
        bytes.extend(order.block(3, &[order.word(60).as_slice(), &[1, 2, 3, 4]].concat()));
    }
    let (frames, error) = read(&bytes);
    assert!(error.is_none(), "{error:?}");
    let section = [
        (Some(1_500), 60, LinkType::Ethernet, Some(1)),
        (Some(102_000), 60, LinkType::Raw, Some(4)),
        (Some(3_500), 60, LinkType::Cooked2, Some(9)),
        (None, 60, LinkType::Ethernet, Some(1)),
    ];
    assert_eq!(frames, [section, section].concat());
}

#[test]
fn an_old_packet_block_is_read() {
    let mut bytes = [LITTLE.section(), LITTLE.interface(1, 0, &[])].concat();
    let mut body = LITTLE.half(0).to_vec();
    body.extend(LITTLE.half(3));
    body.extend(LITTLE.words(&[0, 7_000, 2, 64]));
    body.extend([1, 2, 0, 0]);
    bytes.extend(LITTLE.block(2, &body));
    let (frames, error) = read(&bytes);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(frames, [(Some(7), 64, LinkType::Ethernet, Some(1))]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn faults_name_the_place_and_keep_what_was_before() {
    let classic = |words: &[u32], data: &[u8]| {
        let mut bytes = LITTLE.classic(MICROS, 100, 1);
        bytes.extend(LITTLE.words(&[0, 0, 4, 4, 0]));
        bytes.extend(LITTLE.words(words));
        bytes.extend(data);
        bytes
    };
    let start =
        [LITTLE.section(), LITTLE.interface(147, 8, &[]), LITTLE.interface(1, 8, &[])].concat();
    let ng = |block: Vec<u8>| [start.clone(), LITTLE.packet(1, 0, 4, &[1; 4]), block].concat();
    let cases: Vec<(&str, Vec<u8>, (usize, &str))> = vec![
        ("empty", vec![], (0, "the file is empty")),
        (
            "text",
            b"hello, world, this is no capture".to_vec(),
            (0, "not a pcap or pcapng file: it begins with [68, 65, 6c, 6c], at byte 0"),
        ),
        (
            "short",
            vec![0xd4, 0xc3],
            (0, "not a pcap or pcapng file: it begins with [d4, c3], at byte 0"),
        ),
        (
            "xz",
            vec![0xfd, b'7', b'z', b'X', b'Z', 0],
            (0, "the file is compressed with xz; decompress it first"),
        ),
        (
            "gzip: header cut",
            vec![0x1f, 0x8b, 8, 0, 0],
            (0, "the gzip data end early, at byte 0 of the decompressed stream"),
        ),
        (
            "header cut",
            LITTLE.classic(MICROS, 100, 1)[..20].to_vec(),
            (0, "the file ends inside the file header at byte 0: 24 bytes announced, 20 there"),
        ),
        ("link type", BIG.classic(NANOS, 100, 147), (0, "unknown link type 147 at byte 20")),
        (
            "record header cut",
            classic(&[0, 0], &[]),
            (1, "the file ends inside the packet record at byte 44: 16 bytes announced, 8 there"),
        ),
        (
            "record cut",
            classic(&[0, 0, 60, 60], &[0; 10]),
            (1, "the file ends inside the packet record at byte 44: 76 bytes announced, 26 there"),
        ),
        (
            "snap length",
            classic(&[0, 0, 101, 101], &[0; 101]),
            (1, "captured length of the packet at byte 44: 101 is out of range, at most 100"),
        ),
        (
            "absurd length",
            classic(&[0, 0, u32::MAX, 60], &[0; 60]),
            (
                1,
                "captured length of the packet at byte 44: 4294967295 is out of range, at most 100",
            ),
        ),
        (
            "ng: no section",
            start[..10].to_vec(),
            (0, "the file ends inside the block header at byte 0: 12 bytes announced, 10 there"),
        ),
        (
            "ng: byte order",
            [&[0x0a, 0x0d, 0x0d, 0x0a][..], &[0; 24]].concat(),
            (0, "broken section header at byte 0"),
        ),
        (
            "ng: block cut",
            ng(LITTLE.packet(1, 0, 4, &[1; 4])[..20].to_vec()),
            (1, "the file ends inside the block at byte 104: 36 bytes announced, 20 there"),
        ),
        (
            "ng: block length",
            ng(LITTLE.words(&[6, 33, 0, 0])),
            (1, "broken block length at byte 104"),
        ),
        (
            "ng: huge block",
            ng(LITTLE.words(&[6, 0x4000_0000, 0, 0])),
            (1, "length of the block at byte 104: 1073741824 is out of range, at most 16777216"),
        ),
        (
            "ng: interface",
            ng(LITTLE.packet(2, 0, 4, &[1; 4])),
            (1, "packet at byte 104 names interface 2, but only 2 are described"),
        ),
        (
            "ng: link type",
            ng(LITTLE.packet(0, 0, 4, &[1; 4])),
            (1, "unknown link type 147 at byte 104"),
        ),
        (
            "ng: snap length",
            ng(LITTLE.packet(1, 0, 12, &[1; 12])),
            (1, "captured length of the packet at byte 104: 12 is out of range, at most 8"),
        ),
        (
            "ng: packet without room",
            ng(LITTLE.block(6, &LITTLE.words(&[1, 0, 0, 99, 99]))),
            (1, "broken enhanced packet block at byte 104"),
        ),
        (
            "ng: short packet",
            ng(LITTLE.block(6, &[0; 8])),
            (1, "broken enhanced packet block at byte 104"),
        ),
        (
            "ng: short old packet",
            ng(LITTLE.block(2, &[0; 8])),
            (1, "broken packet block at byte 104"),
        ),
        (
            "ng: clock",
            ng(LITTLE.interface(1, 0, &[(9, &[99])])),
            (1, "broken clock resolution of the interface description at byte 104"),
        ),
    ];
    for (name, bytes, (frames, text)) in cases {
        assert_eq!(fault(&bytes), (frames, text.to_owned()), "{name}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory takes all bytes");
    encoder.finish().expect("memory takes all bytes")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).expect("an encoder");
    encoder.include_checksum(true).expect("a known setting");
    encoder.write_all(bytes).expect("memory takes all bytes");
    encoder.finish().expect("memory takes all bytes")
}

/// A capture of this many frames that do not compress.
fn noise(frames: u32) -> Vec<u8> {
    let mut bytes = LITTLE.classic(MICROS, 65_535, 1);
    let mut state: u32 = 1;
    for time_s in 0..frames {
        bytes.extend(LITTLE.words(&[time_s, 0, 100, 100]));
        bytes.extend((0..100).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_le_bytes()[3]
        }));
    }
    bytes
}

#[test]
fn compressed_files_are_read_as_what_is_inside() {
    let plain = noise(5_000);
    let half = plain.len() / 2;
    let (expected, error) = read(&plain);
    assert!(error.is_none() && expected.len() == 5_000);
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
    for (name, bytes) in [
        ("gzip", gzip(&plain)),
        ("gzip of two members", [gzip(&plain[..half]), gzip(&plain[half..])].concat()),
        ("zstd", zstd(&plain)),
        ("zstd of two frames", [zstd(&plain[..half]), zstd(&plain[half..])].concat()),
        ("zstd that begins with notes", [&skippable[..], &zstd(&plain), &skippable].concat()),
    ] {
        let (frames, error) = read(&bytes);
        assert!(error.is_none(), "{name}: {error:?}");
        assert_eq!(frames, expected, "{name}");
        let format = CaptureFile::open(bytes.as_slice()).expect("a capture").compression();
        assert_eq!(format, name.get(..4), "{name}");
    }
}

#[test]
fn faults_of_compressed_files_say_which_bytes_they_count() {
    let plain = noise(5_000);
    let cut = &plain[..plain.len() - 7];
    let (zip, zst) = (gzip(&plain), zstd(&plain));
    let changed = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 0xff;
        bytes
    };
    let inside = |format| {
        format!(
            "the file ends inside the packet record at byte 579908: 116 bytes announced, 109 there \
             (bytes of the decompressed {format} stream)"
        )
    };
    let large_window = [0x28, 0xb5, 0x2f, 0xfd, 0, 0xff, 1, 0, 0, 0];
    let cases: Vec<(&str, Vec<u8>, usize, String)> = vec![
        ("capture cut", gzip(cut), 4_999, inside("gzip")),
        ("capture cut", zstd(cut), 4_999, inside("zstd")),
        (
            "empty",
            gzip(&[]),
            0,
            "the file is empty (bytes of the decompressed gzip stream)".to_owned(),
        ),
        (
            "text",
            zstd(b"hello, world, this is no capture"),
            0,
            "not a pcap or pcapng file: it begins with [68, 65, 6c, 6c], at byte 0 (bytes of the \
             decompressed zstd stream)"
                .to_owned(),
        ),
        (
            "checksum",
            changed(&zip, zip.len() - 8),
            5_000,
            "the gzip data are damaged (incorrect data check), at byte 580024 of the decompressed \
             stream"
                .to_owned(),
        ),
        (
            "something behind it",
            [zip.as_slice(), b"garbage, no gzip at all"].concat(),
            5_000,
            "the gzip data are damaged (incorrect header check), at byte 580024 of the \
             decompressed stream"
                .to_owned(),
        ),
        (
            "something behind it",
            [zst.as_slice(), b"garbage, no zstd at all"].concat(),
            5_000,
            "the zstd data are damaged (Unknown frame descriptor), at byte 580024 of the \
             decompressed stream"
                .to_owned(),
        ),
        (
            "large window",
            large_window.to_vec(),
            0,
            "the zstd data need a window of more than 128 MiB (`zstd -d --long=31` decompresses \
             them), at byte 0 of the decompressed stream"
                .to_owned(),
        ),
        (
            "twice",
            zstd(&zip),
            0,
            "the file is compressed twice: with zstd, and inside that with gzip; decompress it once"
                .to_owned(),
        ),
    ];
    for (name, bytes, frames, text) in cases {
        assert_eq!(fault(&bytes), (frames, text), "{name}");
    }
    // How far the data of a cut file go depends on the compressor.
    for (format, bytes) in [("gzip", &zip), ("zstd", &zst)] {
        let (frames, text) = fault(&bytes[..bytes.len() / 2]);
        assert!((1_000..5_000).contains(&frames), "{format}: {frames}");
        assert!(text.starts_with(&format!("the {format} data end early, at byte ")), "{text}");
        let (frames, text) = fault(&changed(bytes, bytes.len() / 2));
        // Where nothing compresses, only the checksum shows it.
        assert!(frames <= 5_000 && text.starts_with(&format!("the {format} data are ")), "{text}");
    }
}

/// A file whose disk fails behind some of its bytes.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Ok(0) => Err(io::Error::other("the disk is gone")),
            read => read,
        }
    }
}

#[test]
fn a_failing_disk_is_not_taken_for_damaged_data() {
    let plain = noise(5_000);
    for (bytes, expected) in [
        (gzip(&plain), "the gzip data cannot be read (the disk is gone), at byte "),
        (zstd(&plain), "the zstd data cannot be read (the disk is gone), at byte "),
        (plain, "cannot read at byte "),
    ] {
        let mut file =
            CaptureFile::open(Failing(&bytes[..bytes.len() - 20])).expect("a capture begins");
        let error = loop {
            match file.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) => break "no fault".to_owned(),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn link_headers() {
    use flow::LinkLayer;
    let network = |offset, ethertype| Some(LinkLayer::Network { offset, ethertype });
    let mut cooked = [0; 16];
    cooked[14..].copy_from_slice(&[0x81, 0x00]);
    let mut cooked2 = [0; 20];
    cooked2[..2].copy_from_slice(&[0x86, 0xdd]);
    let cases: [(u32, &[u8], Option<LinkLayer>); 19] = [
        (1, &[], Some(LinkLayer::Ethernet)),
        (0, &[2, 0, 0, 0], network(4, 0x0800)),
        (0, &[0, 0, 0, 30], network(4, 0x86dd)),
        (0, &[0, 0, 0], None),
        (108, &[0, 0, 0, 24], network(4, 0x86dd)),
        (108, &[0, 0, 0, 7], network(4, 0xffff)),
        (101, &[0x45], network(0, 0x0800)),
        (12, &[0x60], network(0, 0x86dd)),
        (14, &[0x10], network(0, 0xffff)),
        (101, &[], None),
        (228, &[], network(0, 0x0800)),
        (229, &[], network(0, 0x86dd)),
        (9, &[0xff, 3, 0, 0x21], network(4, 0x0800)),
        (9, &[0, 0x57], network(2, 0x86dd)),
        (104, &[0x0f, 0, 8, 0], network(4, 0x0800)),
        (104, &[0xff, 3, 0, 0x21], network(4, 0x0800)),
        (113, &cooked, network(16, 0x8100)),
        (276, &cooked2, network(20, 0x86dd)),
        (276, &cooked2[..19], None),
    ];
    for (number, frame, expected) in cases {
        let link = LinkType::from_number(number).expect("a known number");
        assert_eq!(link.network(frame), expected, "{number} {frame:?}");
    }
    assert_eq!(LinkType::from_number(147), Err(147));
}
