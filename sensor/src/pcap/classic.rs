//! Takes a classic pcap file: either byte order, microseconds or nanoseconds, and the form with the
//! longer record header that some old Linux systems wrote. Gives its frames.

use std::io::Read;

use pcap_parser::parse_pcap_header;

use super::window::Window;
use super::{CaptureFileError, CapturedFrame, LinkType, RECORD_BYTES_MAX, need};

const FILE_HEADER_BYTES: usize = 24;
/// Magic of the form with the longer record header, in the other byte order (the parser knows only
/// one).
const MODIFIED_SWAPPED: [u8; 4] = [0xa1, 0xb2, 0xcd, 0x34];

/// What a record says of its packet.
struct RecordHeader {
    seconds: u32,
    /// Micro- or nanoseconds.
    ticks: u32,
    captured: u32,
    wire: u32,
}

/// A classic pcap file behind its header.
pub(super) struct Classic {
    link: LinkType,
    big_endian: bool,
    record_header_bytes: usize,
    is_nanosecond: bool,
    /// Longest record that is no fault.
    captured_bytes_max: u32,
}

impl Classic {
    pub(super) fn open<R: Read>(window: &mut Window<R>) -> Result<Self, CaptureFileError> {
        let complete = window
            .fill(FILE_HEADER_BYTES)
            .map_err(|source| CaptureFileError::Read { offset: 0, source })?;
        let held = window.held();
        let magic = held[..held.len().min(4)].to_vec();
        let mut start = [0; FILE_HEADER_BYTES];
        let available = held.len().min(FILE_HEADER_BYTES);
        start[..available].copy_from_slice(&held[..available]);
        let modified_swapped = magic == MODIFIED_SWAPPED;
        if modified_swapped {
            start[..4].copy_from_slice(&[0xa1, 0xb2, 0xc3, 0xd4]);
        }
        let Ok((_, header)) = parse_pcap_header(&start) else {
            return Err(CaptureFileError::Magic { magic });
        };
        if !complete {
            return Err(CaptureFileError::Truncated {
                what: "file header",
                offset: 0,
                wanted: FILE_HEADER_BYTES as u64,
                held: available as u64,
            });
        }
        // The upper bits tell the length of a frame check sequence, not the link type.
        let number = header.network.0.cast_unsigned() & 0x03ff_ffff;
        let link = LinkType::from_number(number)
            .map_err(|number| CaptureFileError::LinkType { offset: 20, number })?;
        let modified = modified_swapped || header.is_modified_format();
        window.consume(FILE_HEADER_BYTES);
        let record_bytes_max = u32::try_from(RECORD_BYTES_MAX).expect("it is 16 MiB");
        Ok(Self {
            link,
            big_endian: header.is_bigendian(),
            record_header_bytes: if modified { 24 } else { 16 },
            is_nanosecond: header.is_nanosecond_precision(),
            // A snap length of 0 says nothing.
            captured_bytes_max: match header.snaplen {
                0 => record_bytes_max,
                snap => snap.min(record_bytes_max),
            },
        })
    }

    #[inline]
    pub(super) fn next_frame<'w, R: Read>(
        &self,
        window: &'w mut Window<R>,
    ) -> Result<Option<CapturedFrame<'w>>, CaptureFileError> {
        let record = match self.whole_record(window.held()) {
            Some(record) => record,
            None => match self.read_record(window)? {
                Some(record) => record,
                None => return Ok(None),
            },
        };
        window.consume(self.record_header_bytes);
        let ticks_us = if self.is_nanosecond { record.ticks / 1_000 } else { record.ticks };
        Ok(Some(CapturedFrame {
            time_ms: Some(u64::from(record.seconds) * 1_000 + u64::from(ticks_us / 1_000)),
            time_us: Some(u64::from(record.seconds) * 1_000_000 + u64::from(ticks_us)),
            wire_bytes: u64::from(record.wire.max(record.captured)),
            link: self.link,
            bytes: window.take(record.captured as usize),
        }))
    }

    /// What the next record says, when all of it is held and nothing is wrong with it.
    #[inline]
    fn whole_record(&self, held: &[u8]) -> Option<RecordHeader> {
        let record = self.header(held)?;
        let whole = self.record_header_bytes + record.captured as usize;
        (record.captured <= self.captured_bytes_max && held.len() >= whole).then_some(record)
    }

    #[inline]
    fn header(&self, held: &[u8]) -> Option<RecordHeader> {
        let words = held.first_chunk::<16>()?;
        let word = |at: usize| {
            let bytes = words[at..].first_chunk().copied().unwrap_or_default();
            if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        Some(RecordHeader { seconds: word(0), ticks: word(4), captured: word(8), wire: word(12) })
    }

    /// The same after reading on; `None` at the end of the file.
    #[cold]
    fn read_record<R: Read>(
        &self,
        window: &mut Window<R>,
    ) -> Result<Option<RecordHeader>, CaptureFileError> {
        const WHAT: &str = "packet record";
        let offset = window.offset();
        if let Err(error) = need(window, self.record_header_bytes, WHAT) {
            let ended = window.held().is_empty();
            return match error {
                CaptureFileError::Truncated { .. } if ended => Ok(None),
                error => Err(error),
            };
        }
        let record = self.header(window.held()).expect("a whole record header was just read");
        if record.captured > self.captured_bytes_max {
            return Err(CaptureFileError::Length {
                what: "captured length of the packet",
                offset,
                value: u64::from(record.captured),
                maximum: u64::from(self.captured_bytes_max),
            });
        }
        need(window, self.record_header_bytes + record.captured as usize, WHAT)?;
        Ok(Some(record))
    }
}
