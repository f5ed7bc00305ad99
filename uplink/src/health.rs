//! What a sensor tells of itself while it is connected, and its bytes. Never a record or an address; what is not known
//! is said to be unknown.
//!
//! One message on a unidirectional QUIC stream, about every ten seconds; the stream's end is the message's end. All
//! numbers are little-endian; one of all ones is not known.
//!
//! ```text
//! kind  message   bytes after the kind (u8)
//! 16    health    sensor's clock, ms u64 │ batches waiting u64 │ records waiting u64 │ spool taken, bytes u64
//!                 │ spool bound, bytes u64 │ batches evicted u64 │ records evicted u64 │ link packets sent u64
//!                 │ link packets lost u64 │ frames seen u64 │ frames missed u64 │ packets folded u64
//!                 │ version: u8 length, text (empty: not known)
//! ```

use serde::{Deserialize, Serialize};

use crate::batch::SENSOR_VERSION_LENGTH_MAX;
use crate::reader::{DecodeError, Reader};

/// How often a connected sensor tells of itself, milliseconds.
pub(crate) const PERIOD_MS: u64 = 10_000;
/// Longest message.
pub(crate) const HEALTH_BYTES_MAX: usize = 1 + NUMBERS * 8 + 1 + SENSOR_VERSION_LENGTH_MAX;
const KIND: u8 = 16;
const NUMBERS: usize = 12;
const UNKNOWN: u64 = u64::MAX;

/// What a sensor says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The sensor's clock when it said so, milliseconds since the Unix epoch.
    pub clock_ms: Option<u64>,
    /// Batches in its spool.
    pub batches_waiting: Option<u64>,
    /// Records in those.
    pub records_waiting: Option<u64>,
    /// What those take of its disk.
    pub spool_bytes: Option<u64>,
    /// What they may take.
    pub spool_bytes_max: Option<u64>,
    /// Batches that a full spool has given up since the spool was made.
    pub batches_evicted: Option<u64>,
    /// Records in those.
    pub records_evicted: Option<u64>,
    /// QUIC packets that it has sent over this connection.
    pub link_packets_sent: Option<u64>,
    /// Those of them that were lost, and sent again.
    pub link_packets_lost: Option<u64>,
    /// Frames its XDP program was given, until it last sealed a batch.
    pub frames_seen: Option<u64>,
    /// Frames that its network card dropped before.
    pub frames_missed: Option<u64>,
    /// Packets that a full table of its kernel had to fold into totals.
    pub packets_folded: Option<u64>,
    /// Version of its program.
    pub sensor_version: Option<String>,
}

impl Health {
    const fn numbers(&self) -> [Option<u64>; NUMBERS] {
        [
            self.clock_ms,
            self.batches_waiting,
            self.records_waiting,
            self.spool_bytes,
            self.spool_bytes_max,
            self.batches_evicted,
            self.records_evicted,
            self.link_packets_sent,
            self.link_packets_lost,
            self.frames_seen,
            self.frames_missed,
            self.packets_folded,
        ]
    }
}

/// A message as the backend got it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// What the sensor says.
    #[serde(flatten)]
    pub health: Health,
    /// How far the sensor's clock is ahead of the backend's, milliseconds; half a round trip is allowed for.
    pub clock_offset_ms: Option<i64>,
    /// The round trip to it, microseconds.
    pub round_trip_us: Option<u64>,
}

pub(crate) fn write(health: &Health) -> Vec<u8> {
    let mut out = vec![KIND];
    for number in health.numbers() {
        out.extend_from_slice(&number.unwrap_or(UNKNOWN).to_le_bytes());
    }
    let version = health.sensor_version.as_deref().unwrap_or_default();
    let version = &version[..version.floor_char_boundary(SENSOR_VERSION_LENGTH_MAX)];
    out.push(u8::try_from(version.len()).unwrap_or(0));
    out.extend_from_slice(version.as_bytes());
    out
}

pub(crate) fn read(bytes: &[u8]) -> Result<Health, DecodeError> {
    let mut reader = Reader::new("health message", bytes);
    let kind = reader.u8("kind")?;
    if kind != KIND {
        return Err(reader.value_at("kind", 0, u64::from(kind), "16"));
    }
    let mut number = |field| -> Result<Option<u64>, DecodeError> {
        Ok(Some(reader.u64(field)?).filter(|value| *value != UNKNOWN))
    };
    let health = Health {
        clock_ms: number("clock")?,
        batches_waiting: number("batches waiting")?,
        records_waiting: number("records waiting")?,
        spool_bytes: number("spool bytes")?,
        spool_bytes_max: number("spool bound")?,
        batches_evicted: number("batches evicted")?,
        records_evicted: number("records evicted")?,
        link_packets_sent: number("link packets sent")?,
        link_packets_lost: number("link packets lost")?,
        frames_seen: number("frames seen")?,
        frames_missed: number("frames missed")?,
        packets_folded: number("packets folded")?,
        sensor_version: None,
    };
    let offset = reader.offset();
    let version = reader.text_u8("version")?.to_owned();
    if version.len() > SENSOR_VERSION_LENGTH_MAX || version.chars().any(char::is_control) {
        let reason = "not a version of at most 64 printable characters".to_owned();
        return Err(reader.malformed_at("version", offset, reason));
    }
    reader.end()?;
    Ok(Health { sensor_version: Some(version).filter(|version| !version.is_empty()), ..health })
}

/// How far a clock that showed `theirs_ms` is ahead of one that showed `ours_ms` when the message came.
pub(crate) fn clock_offset_ms(theirs_ms: u64, ours_ms: u64, round_trip_us: u64) -> i64 {
    let sent_ms = ours_ms.saturating_sub(round_trip_us / 2000);
    let ahead = i128::from(theirs_ms) - i128::from(sent_ms);
    i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_back_and_unknown_stays_unknown() {
        let health = Health {
            clock_ms: Some(1_795_000_000_000),
            batches_waiting: Some(0),
            spool_bytes_max: Some(1 << 30),
            packets_folded: Some(7),
            sensor_version: Some("0.1.0".to_owned()),
            ..Health::default()
        };
        let bytes = write(&health);
        assert!(bytes.len() <= HEALTH_BYTES_MAX);
        assert_eq!(read(&bytes), Ok(health));
        assert_eq!(read(&write(&Health::default())), Ok(Health::default()));
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let odd = Health { sensor_version: Some("a\u{1b}[2J".to_owned()), ..Health::default() };
        assert!(read(&write(&odd)).is_err(), "it is shown on a terminal");
    }

    #[test]
    fn a_clock_is_ahead_or_behind_by_what_half_a_round_trip_does_not_explain() {
        assert_eq!(clock_offset_ms(1_000, 1_020, 40_000), 0);
        assert_eq!(clock_offset_ms(5_000, 1_000, 0), 4_000);
        assert_eq!(clock_offset_ms(0, 1_000, 0), -1_000);
        assert_eq!(clock_offset_ms(u64::MAX, 0, 0), i64::MAX);
    }
}
