//! Takes records; gives sealed bytes that anybody can check years later, and the way back. Never reads a clock,
//! never touches a disk.
//!
//! One batch, version 2, all numbers little-endian (`docs/format.md` has the same map with every field):
//!
//! ```text
//!  0          8         10        12          16           20
//! ┌──────────┬─────────┬─────────┬───────────┬────────────┬────────┬─────────┬────────┬───────────┐
//! │ SPWBATCH │ version │ zero    │ header    │ columns    │ header │ columns │ BLAKE3 │ Ed25519   │
//! │ magic    │ u16 = 2 │ u16     │ bytes u32 │ bytes u32  │        │         │ 32     │ 64        │
//! └──────────┴─────────┴─────────┴───────────┴────────────┴────────┴─────────┴────────┴───────────┘
//! ```
//!
//! The checksum is BLAKE3 of everything before it. The signature is over the text `spanwatch batch v1`, a zero
//! byte and the checksum. The next batch of the boot epoch carries this checksum in its header: a chain, so that
//! a batch that was taken out or exchanged later is missed.

mod columns;
mod header;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use flow::{Books, Record};
use thiserror::Error;

use crate::keys::{PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH, SigningKey, signed_by};
use crate::reader::{DecodeError, Reader};
use crate::{BatchId, MemberId, SensorId};

/// Most records in a batch. Bounds what a decoder allocates: about 10 MiB of records.
pub const RECORDS_MAX: u32 = 65_536;
/// Longest batch, bytes. Above what [`RECORDS_MAX`] records can need when nothing compresses.
pub const BATCH_BYTES_MAX: usize = 16 << 20;
/// Longest sensor version, bytes.
pub const SENSOR_VERSION_LENGTH_MAX: usize = 64;

const MAGIC: [u8; 8] = *b"SPWBATCH";
const VERSION: u16 = 2;
/// Magic, version, zero, and the two lengths.
const PREAMBLE: usize = 20;
const CHECKSUM: usize = blake3::OUT_LEN;
const TRAILER: usize = CHECKSUM + SIGNATURE_LENGTH;
/// Longest header, bytes; the texts in it are bounded, so this is never the limit that is met.
const HEADER_BYTES_MAX: usize = 1024;
const SIGNATURE_CONTEXT: &[u8] = b"spanwatch batch v1\0";

/// What a batch says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Whose network.
    pub member: MemberId,
    /// Who sealed it.
    pub sensor: SensorId,
    /// How often the sensor's outbox had been opened.
    pub boot_epoch: u64,
    /// Position within the boot epoch; the first is 1.
    pub sequence: u64,
    /// Earliest start of a record, milliseconds since the Unix epoch; `sealed_ms` when there is none.
    pub start_ms: u64,
    /// Latest end of a record, milliseconds since the Unix epoch; `sealed_ms` when there is none.
    pub end_ms: u64,
    /// When it was sealed, by the sensor's clock, milliseconds since the Unix epoch.
    pub sealed_ms: u64,
    /// How many records.
    pub records: u32,
    /// The sensor's counts when it sealed the batch.
    pub books: Books,
    /// SHA-256 of the kernel object that saw the packets; zeros when none did (a replayed capture).
    pub object_sha256: [u8; 32],
    /// Checksum of the batch before this one in the boot epoch; zeros in the first.
    pub previous_blake3: [u8; 32],
    /// Version of the sensor that sealed it.
    pub sensor_version: String,
    /// Which of the sensor's keys has made the pseudonyms in it; `None` when the sensor sends addresses as they are.
    /// Never 0.
    pub key_epoch: Option<u32>,
}

impl BatchHeader {
    /// What tells this batch from every other.
    #[must_use]
    pub fn id(&self) -> BatchId {
        BatchId {
            sensor: self.sensor.clone(),
            boot_epoch: self.boot_epoch,
            sequence: self.sequence,
        }
    }
}

/// A batch, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What it says about itself.
    pub header: BatchHeader,
    /// Its records, by their ends; those with equal ends in the order in which they were sealed.
    pub records: Vec<Record>,
}

/// Why records could not be sealed. Remedy: the caller broke a rule of the format; the text names it.
#[derive(Debug, Error)]
pub enum SealError {
    /// The header counts other records than there are.
    #[error("the header says {header} records, {records} were given (at most {RECORDS_MAX})")]
    Count {
        /// What the header says.
        header: u32,
        /// How many there are.
        records: usize,
    },
    /// A record that ends before it starts.
    #[error("record {number} ends at {end_ms} ms, before its start at {start_ms} ms")]
    Backwards {
        /// Which record, from 0.
        number: usize,
        /// Its start.
        start_ms: u64,
        /// Its end.
        end_ms: u64,
    },
    /// The header's time range is not that of the records; see [`time_range`].
    #[error("the header says {header:?} ms, the records span {records:?} ms")]
    TimeRange {
        /// Start and end in the header.
        header: (u64, u64),
        /// Start and end of the records.
        records: (u64, u64),
    },
    /// A sequence of 0.
    #[error("the sequence is 0; the first batch of a boot epoch is 1")]
    Sequence,
    /// A key epoch of 0.
    #[error("the key epoch is 0; the smallest is 1")]
    KeyEpoch,
    /// A pseudonym of an unknown key.
    #[error("record {number} has a pseudonym, and the header has no key epoch")]
    Pseudonym {
        /// Which record, from 0.
        number: usize,
    },
    /// The sensor's version is too long.
    #[error("the sensor version has {0} bytes, more than {SENSOR_VERSION_LENGTH_MAX}")]
    Version(usize),
    /// The result would be longer than a reader accepts.
    #[error("the batch would have {0} bytes, more than {BATCH_BYTES_MAX}")]
    TooLong(usize),
}

/// Why bytes are not a batch.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The bytes are not laid out as a batch. Remedy: see [`DecodeError`].
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The bytes were changed or torn. Remedy: none; the batch is evidence of nothing.
    #[error("batch: checksum at offset {offset} does not match the {offset} bytes before it")]
    Checksum {
        /// Where the checksum is.
        offset: usize,
    },
    /// Whole, but not signed by that key. Remedy: find out who sent it.
    #[error("batch: the signature is not by the key {}", hex(public_key))]
    Signature {
        /// The key that should have signed.
        public_key: [u8; PUBLIC_KEY_LENGTH],
    },
    /// The header's time range is not that of the records.
    #[error("batch: the header says {header:?} ms, the records span {records:?} ms")]
    TimeRange {
        /// Start and end in the header.
        header: (u64, u64),
        /// Start and end of the records.
        records: (u64, u64),
    },
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hex_digit).collect()
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('?')
}

/// Earliest start and latest end of the records; both `sealed_ms` when there is none.
#[must_use]
pub fn time_range(records: &[Record], sealed_ms: u64) -> (u64, u64) {
    let Some(first) = records.first() else { return (sealed_ms, sealed_ms) };
    // Once over the records: they are more than a processor's caches hold.
    records.iter().fold((first.start_ms, first.end_ms), |(start_ms, end_ms), record| {
        (start_ms.min(record.start_ms), end_ms.max(record.end_ms))
    })
}

/// Encodes, compresses, checksums and signs records; keeps the memory that this takes for the next batch.
pub struct Sealer {
    encoder: columns::Encoder,
    /// How long the last batch was: room for the next one.
    length: usize,
}

impl Default for Sealer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Sealer {
    /// One that has sealed nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { encoder: columns::Encoder::new(true), length: 0 }
    }

    /// One whose batches are larger but whole all the same: for measuring what compression costs.
    #[must_use]
    pub fn without_compression() -> Self {
        Self { encoder: columns::Encoder::new(false), length: 0 }
    }

    /// Seals records, in any order; equal input gives equal bytes, whatever was sealed before.
    ///
    /// # Errors
    ///
    /// When the header contradicts the records, or a bound of the format is exceeded.
    pub fn seal(
        &mut self,
        header: &BatchHeader,
        records: &[Record],
        key: &SigningKey,
    ) -> Result<Bytes, SealError> {
        check(header, records)?;
        let mut out = Vec::with_capacity(PREAMBLE + HEADER_BYTES_MAX + self.length + TRAILER);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; PREAMBLE - 10]);
        header::encode(header, &mut out);
        let header_bytes = out.len() - PREAMBLE;
        self.encoder.encode(records, header.end_ms, &mut out);
        let length = out.len() + TRAILER;
        if length > BATCH_BYTES_MAX {
            return Err(SealError::TooLong(length));
        }
        self.length = length;
        let lengths = [header_bytes, out.len() - PREAMBLE - header_bytes];
        for (at, length) in [12, 16].into_iter().zip(lengths) {
            let length = u32::try_from(length).map_err(|_large| SealError::TooLong(length))?;
            out[at..at + 4].copy_from_slice(&length.to_le_bytes());
        }
        let checksum = *blake3::hash(&out).as_bytes();
        out.extend_from_slice(&checksum);
        out.extend_from_slice(&key.sign(&signed_message(&checksum)));
        Ok(out.into())
    }
}

/// Seals records once; whoever seals often keeps a [`Sealer`].
///
/// # Errors
///
/// As [`Sealer::seal`].
pub fn seal(
    header: &BatchHeader,
    records: &[Record],
    key: &SigningKey,
) -> Result<Bytes, SealError> {
    Sealer::new().seal(header, records, key)
}

fn check(header: &BatchHeader, records: &[Record]) -> Result<(), SealError> {
    if usize::try_from(header.records).ok() != Some(records.len()) || header.records > RECORDS_MAX {
        return Err(SealError::Count { header: header.records, records: records.len() });
    }
    if header.sequence == 0 {
        return Err(SealError::Sequence);
    }
    if header.sensor_version.len() > SENSOR_VERSION_LENGTH_MAX {
        return Err(SealError::Version(header.sensor_version.len()));
    }
    if header.key_epoch == Some(0) {
        return Err(SealError::KeyEpoch);
    }
    let mut range = records.first().map(|first| (first.start_ms, first.end_ms));
    for (number, Record { start_ms, end_ms, pseudonyms, .. }) in records.iter().enumerate() {
        if end_ms < start_ms {
            let (start_ms, end_ms) = (*start_ms, *end_ms);
            return Err(SealError::Backwards { number, start_ms, end_ms });
        }
        if header.key_epoch.is_none() && pseudonyms.any() {
            return Err(SealError::Pseudonym { number });
        }
        range = range.map(|(first, last)| (first.min(*start_ms), last.max(*end_ms)));
    }
    let header_range = (header.start_ms, header.end_ms);
    let range = range.unwrap_or((header.sealed_ms, header.sealed_ms));
    if header_range != range {
        return Err(SealError::TimeRange { header: header_range, records: range });
    }
    Ok(())
}

fn signed_message(checksum: &[u8; CHECKSUM]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, checksum].concat()
}

/// The parts of a batch whose checksum is right.
struct Parts<'a> {
    header: &'a [u8],
    columns: &'a [u8],
    checksum: [u8; CHECKSUM],
    signature: &'a [u8],
}

/// Takes a batch apart and checks its checksum, so that whatever is decoded after it is what was sealed.
fn parts(bytes: &[u8]) -> Result<Parts<'_>, OpenError> {
    let mut reader = Reader::new("batch", bytes);
    let magic = reader.array("magic")?;
    if magic != MAGIC {
        return Err(reader
            .value_at("magic", 0, u64::from_le_bytes(magic), "the text SPWBATCH")
            .into());
    }
    let version = reader.u16("version")?;
    if version != VERSION {
        return Err(reader.value_at("version", 8, u64::from(version), "2").into());
    }
    let zero = reader.u16("zero")?;
    if zero != 0 {
        return Err(reader.value_at("zero", 10, u64::from(zero), "0").into());
    }
    let header = reader.length_u32("header bytes", HEADER_BYTES_MAX, "at most 1024")?;
    let columns = reader.length_u32("columns bytes", BATCH_BYTES_MAX, "at most 16777216")?;
    let header = reader.take("header", header)?;
    let columns = reader.take("columns", columns)?;
    let offset = reader.offset();
    let checksum = reader.array("checksum")?;
    let signature = reader.take("signature", SIGNATURE_LENGTH)?;
    reader.end()?;
    // The comparison of blake3::Hash takes constant time; nothing here is secret, it is only the plain way.
    if blake3::hash(&bytes[..offset]) != checksum {
        return Err(OpenError::Checksum { offset });
    }
    Ok(Parts { header, columns, checksum, signature })
}

/// Reads a batch and checks its checksum; the signature is [`verify`]'s.
///
/// # Errors
///
/// Names the place, the field, the offset and the value that is wrong.
pub fn open(bytes: &[u8]) -> Result<Batch, OpenError> {
    decode(&parts(bytes)?)
}

/// Reads a batch that was signed by this key, after checking that it was.
///
/// # Errors
///
/// As [`open`] and [`verify`].
pub fn open_signed(bytes: &[u8], public_key: &[u8; PUBLIC_KEY_LENGTH]) -> Result<Batch, OpenError> {
    let parts = parts(bytes)?;
    check_signature(&parts, public_key)?;
    decode(&parts)
}

fn decode(parts: &Parts<'_>) -> Result<Batch, OpenError> {
    let header = header::decode(parts.header)?;
    let count = usize::try_from(header.records).unwrap_or(0);
    let (records, range) =
        columns::decode(parts.columns, count, header.end_ms, header.key_epoch.is_some())?;
    let header_range = (header.start_ms, header.end_ms);
    let range = range.unwrap_or((header.sealed_ms, header.sealed_ms));
    if header_range != range {
        return Err(OpenError::TimeRange { header: header_range, records: range });
    }
    Ok(Batch { header, records })
}

/// Reads a batch's header and checks the checksum of the whole.
///
/// # Errors
///
/// As [`open`], without what only the records can have wrong.
pub fn open_header(bytes: &[u8]) -> Result<BatchHeader, OpenError> {
    Ok(header::decode(parts(bytes)?.header)?)
}

/// Checks that the bytes are whole and were signed by this key; says nothing about the columns.
///
/// # Errors
///
/// When they are not.
pub fn verify(bytes: &[u8], public_key: &[u8; PUBLIC_KEY_LENGTH]) -> Result<(), OpenError> {
    check_signature(&parts(bytes)?, public_key)
}

fn check_signature(
    parts: &Parts<'_>,
    public_key: &[u8; PUBLIC_KEY_LENGTH],
) -> Result<(), OpenError> {
    if signed_by(public_key, &signed_message(&parts.checksum), parts.signature) {
        Ok(())
    } else {
        Err(OpenError::Signature { public_key: *public_key })
    }
}

/// The checksum of a batch, after checking it: what the next batch's header carries.
///
/// # Errors
///
/// When the bytes are not whole.
pub fn batch_blake3(bytes: &[u8]) -> Result<[u8; 32], OpenError> {
    Ok(parts(bytes)?.checksum)
}
