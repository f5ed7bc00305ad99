//! In: records. Out: their bytes in one of the formats that are compared, and back.

use anyhow::{Result, bail};
use flow::{Books, Record};
use uplink::{BatchHeader, Sealer, SigningKey, open_signed, time_range, verify};

use super::{arrow, ipfix, json};

/// Every row, ours first.
pub(super) const NAMES: [&str; 9] = [
    "spanwatch",
    "arrow-ipc+zstd1",
    "arrow-ipc+zstd3",
    "json+zstd3",
    "json-community-id+zstd3",
    "ipfix+zstd3",
    "arrow-ipc",
    "json",
    "ipfix",
];
/// Room for a batch of the largest size in any of the formats, bytes.
const UNPACKED_BYTES_MAX: usize = 256 << 20;

/// A format.
pub(super) trait Format {
    fn encode(&mut self, records: &[Record]) -> Result<Vec<u8>>;
    /// Reads all of it; gives the number of records.
    fn decode(&mut self, bytes: &[u8]) -> Result<usize>;
}

/// The format of a row.
pub(super) fn made(name: &str) -> Result<Box<dyn Format>> {
    Ok(match name {
        "spanwatch" => Box::new(Spanwatch::new(true)?),
        "arrow-ipc" => Box::new(arrow::Arrow),
        "arrow-ipc+zstd1" => Box::new(Packed::new(arrow::Arrow, 1)?),
        "arrow-ipc+zstd3" => Box::new(Packed::new(arrow::Arrow, 3)?),
        "json" => Box::new(json::Json::new(false)),
        "json+zstd3" => Box::new(Packed::new(json::Json::new(false), 3)?),
        "json-community-id+zstd3" => Box::new(Packed::new(json::Json::new(true), 3)?),
        "ipfix" => Box::new(ipfix::Ipfix),
        "ipfix+zstd3" => Box::new(Packed::new(ipfix::Ipfix, 3)?),
        other => bail!("there is no row {other}"),
    })
}

/// Sealed batches.
pub(super) struct Spanwatch {
    sealer: Sealer,
    key: SigningKey,
    sequence: u64,
}

impl Spanwatch {
    /// `compresses` is false for measuring what the rest costs.
    pub(super) fn new(compresses: bool) -> Result<Self> {
        let sealer = if compresses { Sealer::new() } else { Sealer::without_compression() };
        Ok(Self { sealer, key: SigningKey::generate()?, sequence: 0 })
    }

    pub(super) fn verify(&self, bytes: &[u8]) -> Result<()> {
        Ok(verify(bytes, &self.key.public_key())?)
    }
}

impl Format for Spanwatch {
    fn encode(&mut self, records: &[Record]) -> Result<Vec<u8>> {
        self.sequence += 1;
        let sealed_ms = 1_767_603_600_000;
        let (start_ms, end_ms) = time_range(records, sealed_ms);
        let header = BatchHeader {
            member: "acme".parse()?,
            sensor: "acme-0123abcd".parse()?,
            boot_epoch: 1_767_603_600,
            sequence: self.sequence,
            start_ms,
            end_ms,
            sealed_ms,
            records: u32::try_from(records.len())?,
            books: Books::default(),
            object_sha256: [0xaa; 32],
            previous_blake3: [0xbb; 32],
            sensor_version: env!("CARGO_PKG_VERSION").to_owned(),
            key_epoch: None,
        };
        Ok(self.sealer.seal(&header, records, &self.key)?.into())
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<usize> {
        Ok(open_signed(bytes, &self.key.public_key())?.records.len())
    }
}

/// Another format in one zstd frame; its contexts are kept, as ours are.
struct Packed<F> {
    format: F,
    compressor: zstd::bulk::Compressor<'static>,
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl<F> Packed<F> {
    fn new(format: F, level: i32) -> Result<Self> {
        let compressor = zstd::bulk::Compressor::new(level)?;
        Ok(Self { format, compressor, decompressor: zstd::bulk::Decompressor::new()? })
    }
}

impl<F: Format> Format for Packed<F> {
    fn encode(&mut self, records: &[Record]) -> Result<Vec<u8>> {
        Ok(self.compressor.compress(&self.format.encode(records)?)?)
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<usize> {
        // The frame names its length, so no more than that is allocated.
        let plain = self.decompressor.decompress(bytes, UNPACKED_BYTES_MAX)?;
        self.format.decode(&plain)
    }
}
