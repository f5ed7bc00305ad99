//! Takes a classic pcap file: either byte order, microseconds or nanoseconds, and the form with the
//! longer record header that some old Linux systems wrote. Gives its frames.

use std::io::Read;

use pcap_parser::{PcapHeader, parse_pcap_header};

use super::window::Window;
use super::{CaptureFileError, CapturedFrame, LinkType, RECORD_BYTES_MAX, need};

const FILE_HEADER_BYTES: usize = 24;
/// Magic of the form with the longer record header, in the other byte order (the parser knows only
/// one).
const MODIFIED_SWAPPED: [u8; 4] = [0xa1, 0xb2, 0xcd, 0x34];

/// A classic pcap file behind its header.
pub(super) struct Classic {
    header: PcapHeader,
    link: LinkType,
    big_endian: bool,
    record_header_bytes: usize,
    ticks_per_ms: u64,
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
        Ok(Self {
            link,
            big_endian: header.is_bigendian(),
            record_header_bytes: if modified { 24 } else { 16 },
            ticks_per_ms: if header.is_nanosecond_precision() { 1_000_000 } else { 1_000 },
            header,
        })
    }

    pub(super) fn next_frame<'w, R: Read>(
        &self,
        window: &'w mut Window<R>,
    ) -> Result<Option<CapturedFrame<'w>>, CaptureFileError> {
        const WHAT: &str = "packet record";
        let offset = window.offset();
        if let Err(error) = need(window, self.record_header_bytes, WHAT) {
            let ended = window.held().is_empty();
            return match error {
                CaptureFileError::Truncated { .. } if ended => Ok(None),
                error => Err(error),
            };
        }
        let word = |at: usize, held: &[u8]| {
            let bytes = held[at..].first_chunk().copied().unwrap_or_default();
            if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        let held = window.held();
        let (seconds, ticks) = (word(0, held), word(4, held));
        let (captured, wire) = (word(8, held), word(12, held));
        let captured_bytes = captured as usize;
        if captured_bytes > RECORD_BYTES_MAX {
            return Err(CaptureFileError::Length {
                what: "captured length of the packet",
                offset,
                value: u64::from(captured),
                maximum: RECORD_BYTES_MAX as u64,
            });
        }
        // A snap length of 0 says nothing.
        if self.header.snaplen != 0 && captured > self.header.snaplen {
            return Err(CaptureFileError::Length {
                what: "captured length of the packet",
                offset,
                value: u64::from(captured),
                maximum: u64::from(self.header.snaplen),
            });
        }
        need(window, self.record_header_bytes + captured_bytes, WHAT)?;
        window.consume(self.record_header_bytes);
        // Ticks are micro- or nanoseconds.
        let time_us = u64::from(seconds) * 1_000_000 + u64::from(ticks) * 1_000 / self.ticks_per_ms;
        Ok(Some(CapturedFrame {
            time_ms: Some(time_us / 1_000),
            time_us: Some(time_us),
            wire_bytes: u64::from(wire.max(captured)),
            link: self.link,
            bytes: window.take(captured_bytes),
        }))
    }
}
