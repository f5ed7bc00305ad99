//! Takes a pcapng file: sections of either byte order, several interfaces with their own link
//! types, clocks and snap lengths; enhanced, simple and the older packet blocks. Gives its frames.

use std::io::Read;

use pcap_parser::{Block, InterfaceDescriptionBlock, OptionCode, parse_block_be, parse_block_le};

use super::window::Window;
use super::{CaptureFileError, CapturedFrame, INTERFACES_MAX, LinkType, RECORD_BYTES_MAX, need};

/// Type of a section header block; reads the same in either byte order.
pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const BYTE_ORDER_BIG: [u8; 4] = [0x1a, 0x2b, 0x3c, 0x4d];
const BYTE_ORDER_LITTLE: [u8; 4] = [0x4d, 0x3c, 0x2b, 0x1a];
/// The packet block that the enhanced packet block replaced.
const PACKET_BLOCK: u32 = 2;
/// Smallest block: type, length, length again.
const BLOCK_BYTES_MIN: u32 = 12;

/// The state of the current section.
#[derive(Default)]
pub(super) struct Ng {
    big_endian: bool,
    interfaces: Vec<Interface>,
}

/// What a section says about one of its interfaces.
struct Interface {
    /// Or its number, when it cannot be read.
    link: Result<LinkType, u32>,
    snap_bytes_max: u32,
    ticks_per_second: u128,
    clock_offset_s: i64,
}

/// Where a packet lies in its block, and what the block says about it.
struct Found {
    interface: u32,
    ticks: Option<u64>,
    captured: u32,
    wire: u32,
    data_at: usize,
}

impl Ng {
    pub(super) fn next_frame<'w, R: Read>(
        &mut self,
        window: &'w mut Window<R>,
    ) -> Result<Option<CapturedFrame<'w>>, CaptureFileError> {
        loop {
            let offset = window.offset();
            let Some(block_bytes) = self.next_block(window)? else {
                return Ok(None);
            };
            let found = self.handle_block(&window.held()[..block_bytes], offset)?;
            let Some(found) = found else {
                window.consume(block_bytes);
                continue;
            };
            let Some(interface) = self.interfaces.get(found.interface as usize) else {
                return Err(CaptureFileError::Interface {
                    offset,
                    interface: found.interface,
                    described: self.interfaces.len(),
                });
            };
            let link =
                interface.link.map_err(|number| CaptureFileError::LinkType { offset, number })?;
            let captured = interface.captured(&found, block_bytes, offset)?;
            let block = window.take(block_bytes);
            let time_us = found.ticks.map(|ticks| interface.time_us(ticks));
            return Ok(Some(CapturedFrame {
                time_ms: time_us.map(|time_us| time_us / 1_000),
                time_us,
                wire_bytes: u64::from(found.wire.max(captured)),
                link,
                bytes: &block[found.data_at..found.data_at + captured as usize],
            }));
        }
    }

    /// Makes the next block complete in the window; gives its length, `None` at the end of the
    /// file.
    fn next_block<R: Read>(
        &mut self,
        window: &mut Window<R>,
    ) -> Result<Option<usize>, CaptureFileError> {
        let offset = window.offset();
        match need(window, BLOCK_BYTES_MIN as usize, "block header") {
            Err(CaptureFileError::Truncated { .. }) if window.held().is_empty() => return Ok(None),
            other => other?,
        }
        let held = window.held();
        if held[..4] == MAGIC {
            self.big_endian = match held[8..12] {
                ref order if *order == BYTE_ORDER_BIG => true,
                ref order if *order == BYTE_ORDER_LITTLE => false,
                _ => return Err(CaptureFileError::Block { what: "section header", offset }),
            };
            // Interfaces are numbered within their section.
            self.interfaces.clear();
        }
        let length = self.word(held, 4);
        if length < BLOCK_BYTES_MIN || !length.is_multiple_of(4) {
            return Err(CaptureFileError::Block { what: "block length", offset });
        }
        if length as usize > RECORD_BYTES_MAX {
            return Err(CaptureFileError::Length {
                what: "length of the block",
                offset,
                value: u64::from(length),
                maximum: RECORD_BYTES_MAX as u64,
            });
        }
        need(window, length as usize, "block")?;
        Ok(Some(length as usize))
    }

    /// Learns from one complete block, or finds the packet in it.
    fn handle_block(
        &mut self,
        block: &[u8],
        offset: u64,
    ) -> Result<Option<Found>, CaptureFileError> {
        let parse = if self.big_endian { parse_block_be } else { parse_block_le };
        let parsed = match parse(block) {
            Ok((_, parsed)) => parsed,
            Err(_unhelpful) => {
                return Err(CaptureFileError::Block { what: self.kind(block), offset });
            }
        };
        match parsed {
            Block::InterfaceDescription(described) => {
                if self.interfaces.len() == INTERFACES_MAX {
                    return Err(CaptureFileError::Length {
                        what: "number of interfaces",
                        offset,
                        value: INTERFACES_MAX as u64 + 1,
                        maximum: INTERFACES_MAX as u64,
                    });
                }
                let interface = self.interface(&described).ok_or(CaptureFileError::Block {
                    what: "clock resolution of the interface description",
                    offset,
                })?;
                self.interfaces.push(interface);
                Ok(None)
            }
            Block::EnhancedPacket(packet) => Ok(Some(Found {
                interface: packet.if_id,
                ticks: Some(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low)),
                captured: packet.caplen,
                wire: packet.origlen,
                data_at: 28,
            })),
            Block::SimplePacket(packet) => {
                let snap = self.interfaces.first().map_or(0, |first| first.snap_bytes_max);
                let captured = if snap == 0 { packet.origlen } else { packet.origlen.min(snap) };
                Ok(Some(Found {
                    interface: 0,
                    ticks: None,
                    captured,
                    wire: packet.origlen,
                    data_at: 12,
                }))
            }
            Block::Unknown(_) if self.word(block, 0) == PACKET_BLOCK => {
                if block.len() < 32 {
                    return Err(CaptureFileError::Block { what: "packet block", offset });
                }
                let word = self.word(block, 8);
                let interface = if self.big_endian { word >> 16 } else { word & 0xffff };
                let (high, low) = (self.word(block, 12), self.word(block, 16));
                Ok(Some(Found {
                    interface,
                    ticks: Some(u64::from(high) << 32 | u64::from(low)),
                    captured: self.word(block, 20),
                    wire: self.word(block, 24),
                    data_at: 28,
                }))
            }
            // Statistics, names, secrets and other notes: no packets.
            _ => Ok(None),
        }
    }

    /// `None` when its clock resolution is finer than can be computed with.
    fn interface(&self, described: &InterfaceDescriptionBlock<'_>) -> Option<Interface> {
        let exponent = u32::from(described.if_tsresol & 0x7f);
        let base: u128 = if described.if_tsresol & 0x80 == 0 { 10 } else { 2 };
        let clock_offset = described
            .options
            .iter()
            .find(|option| option.code == OptionCode::IfTsoffset)
            .and_then(|option| option.value().first_chunk().copied());
        let clock_offset_s = match clock_offset {
            None => 0,
            Some(bytes) if self.big_endian => i64::from_be_bytes(bytes),
            Some(bytes) => i64::from_le_bytes(bytes),
        };
        Some(Interface {
            link: LinkType::from_number(described.linktype.0.cast_unsigned()),
            snap_bytes_max: described.snaplen,
            ticks_per_second: base.checked_pow(exponent)?,
            clock_offset_s,
        })
    }

    fn word(&self, bytes: &[u8], at: usize) -> u32 {
        let word = bytes[at..].first_chunk().copied().unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    }

    fn kind(&self, block: &[u8]) -> &'static str {
        match self.word(block, 0) {
            1 => "interface description block",
            3 => "simple packet block",
            6 => "enhanced packet block",
            _ if block[..4] == MAGIC => "section header block",
            _ => "block",
        }
    }
}

impl Interface {
    /// The captured length, checked against the block and the snap length.
    fn captured(
        &self,
        found: &Found,
        block_bytes: usize,
        offset: u64,
    ) -> Result<u32, CaptureFileError> {
        let room = u32::try_from(block_bytes - 4 - found.data_at.min(block_bytes - 4))
            .expect("a block's length was read from 32 bits");
        let snap = if self.snap_bytes_max == 0 { u32::MAX } else { self.snap_bytes_max };
        let maximum = room.min(snap);
        if found.captured > maximum {
            return Err(CaptureFileError::Length {
                what: "captured length of the packet",
                offset,
                value: u64::from(found.captured),
                maximum: u64::from(maximum),
            });
        }
        Ok(found.captured)
    }

    /// A time of this interface's clock, microseconds since the Unix epoch; one before it counts as
    /// 0.
    fn time_us(&self, ticks: u64) -> u64 {
        // Both factors are under 2^84, and a resolution may exceed the product.
        let us = u128::from(ticks) * 1_000_000 / self.ticks_per_second;
        let offset_us = i128::from(self.clock_offset_s) * 1_000_000;
        let us = i128::try_from(us).unwrap_or(i128::MAX).saturating_add(offset_us);
        u64::try_from(us.max(0)).unwrap_or(u64::MAX)
    }
}
