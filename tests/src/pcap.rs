//! In: frames. Out: a capture file of the classic format, little endian, times in microseconds.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Version 2.4 of the format, and the most bytes of a frame.
const HEADER: [u32; 5] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144];
/// Ethernet's number among the link types.
pub const ETHERNET_LINK: u32 = 1;

/// A capture file in memory.
#[derive(Clone, Debug)]
pub struct PcapFile {
    bytes: Vec<u8>,
    frames: usize,
}

impl PcapFile {
    /// An empty one, of frames of this link type (the registry's number).
    #[must_use]
    pub fn new(link: u32) -> Self {
        let words = HEADER.into_iter().chain([link]);
        Self { bytes: words.flat_map(u32::to_le_bytes).collect(), frames: 0 }
    }

    /// How many frames it holds.
    #[must_use]
    pub const fn frames(&self) -> usize {
        self.frames
    }

    /// Adds a frame, captured so long after the Unix epoch, that was so long on the wire.
    ///
    /// # Errors
    ///
    /// When a number does not fit the format.
    pub fn add(&mut self, at: Duration, wire_bytes: u64, captured: &[u8]) -> Result<()> {
        let seconds = u32::try_from(at.as_secs()).context("a time before the year 2106")?;
        let lengths = [u32::try_from(captured.len())?, u32::try_from(wire_bytes)?];
        for word in [seconds, at.subsec_micros(), lengths[0], lengths[1]] {
            self.bytes.extend(word.to_le_bytes());
        }
        self.bytes.extend_from_slice(captured);
        self.frames += 1;
        Ok(())
    }

    /// Writes it to a file.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, &self.bytes).with_context(|| path.display().to_string())
    }
}
