//! What the lake's commit log says of each batch, in a form that can be asked by time.

use std::collections::BTreeMap;

use flow::Books;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uplink::SensorId;

use super::{Database, DatabaseError, HeardHealth, signed, unsigned};
use crate::lake::Summary;

/// The counter of batches that had been stored before.
const DUPLICATES: &str = "batches_duplicate";
/// The counter of batches that were refused for good.
const REJECTED: &str = "batches_rejected";

/// How far a sensor's clock may be ahead of this machine's before its times are not believed.
const CLOCK_AHEAD_MS_MAX: u64 = 24 * 3_600_000;

/// One stored batch, as a report needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRow {
    /// Which sensor.
    pub sensor: String,
    /// How often its outbox had been opened.
    pub boot_epoch: u64,
    /// Position in that epoch.
    pub sequence: u64,
    /// Time of the first packet.
    pub start_ms: u64,
    /// Time of the last packet.
    pub end_ms: u64,
    /// When the sensor sealed it, by the sensor's clock.
    pub sealed_ms: u64,
    /// Records in it.
    pub records: u64,
    /// Its sealed size.
    pub bytes: u64,
    /// The sensor's totals at that moment.
    pub books: Books,
    /// Which of the sensor's keys has made the pseudonyms in it; `None`: it has none.
    pub key_epoch: Option<u32>,
}

/// What the database no longer says, because the lake does not have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
}

/// What is known of one sensor.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SensorState {
    /// Which sensor.
    pub sensor: String,
    /// Whose it is.
    pub member: String,
    /// Whether it may no longer deliver.
    pub revoked: bool,
    /// Boot epoch of its newest batch.
    pub boot_epoch: Option<u64>,
    /// Highest sequence of that epoch.
    pub last_sequence: Option<u64>,
    /// When the newest batch was received, milliseconds since the Unix epoch.
    pub last_received_ms: Option<u64>,
    /// Its totals in the newest batch.
    pub books: Option<Books>,
    /// Version of its program.
    pub sensor_version: Option<String>,
    /// Batches of it that are stored.
    pub batches_stored: u64,
    /// Records in them.
    pub records_stored: u64,
    /// What it last told of itself over the link.
    pub health: Option<HeardHealth>,
}

fn books(text: &str) -> Result<Books, DatabaseError> {
    serde_json::from_str(text)
        .map_err(|_syntax| DatabaseError::Corrupt { what: "books", value: text.to_owned() })
}

fn batch(row: &SqliteRow) -> Result<BatchRow, DatabaseError> {
    let number = |name: &'static str| -> Result<u64, DatabaseError> {
        unsigned("a batch's number", row.try_get(name)?)
    };
    Ok(BatchRow {
        sensor: row.try_get("sensor")?,
        boot_epoch: number("boot_epoch")?,
        sequence: number("sequence")?,
        start_ms: number("start_ms")?,
        end_ms: number("end_ms")?,
        sealed_ms: number("sealed_ms")?,
        records: number("records")?,
        bytes: number("bytes")?,
        books: books(row.try_get("books")?)?,
        key_epoch: row.try_get("key_epoch")?,
    })
}

/// One batch that is in the lake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// Whose it is.
    pub sensor: String,
    /// Its boot epoch.
    pub boot_epoch: u64,
    /// Its position in that epoch.
    pub sequence: u64,
    /// When the backend had it, milliseconds since the Unix epoch.
    pub received_ms: u64,
    /// Records in it.
    pub records: u64,
}

impl Database {
    /// The lake version up to which [`Database::apply`] has copied; 0 is the empty table.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn applied_version(&self) -> Result<u64, DatabaseError> {
        let version: Option<i64> = sqlx::query_scalar("SELECT lake_version FROM applied")
            .fetch_optional(&self.pool)
            .await?;
        unsigned("a lake version", version.unwrap_or(0))
    }

    /// Copies what one commit of the lake added, and that it was copied, in one transaction. A batch that is
    /// here already stays as it is.
    ///
    /// # Errors
    ///
    /// When the database refuses; then nothing was copied.
    pub async fn apply(&self, version: u64, batches: &[Summary]) -> Result<(), DatabaseError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for batch in batches {
            let books = serde_json::to_string(&batch.books).map_err(|source| {
                DatabaseError::Corrupt { what: "books", value: source.to_string() }
            })?;
            sqlx::query(
                "INSERT INTO batches (sensor, boot_epoch, sequence, member, start_ms, end_ms, sealed_ms, \
                 received_ms, records, bytes, books, object_sha256, previous_blake3, sensor_version, \
                 key_epoch) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(&batch.sensor)
            .bind(signed(batch.boot_epoch))
            .bind(signed(batch.sequence))
            .bind(&batch.member)
            .bind(signed(batch.start_ms))
            .bind(signed(batch.end_ms))
            .bind(signed(batch.sealed_ms))
            .bind(signed(batch.received_ms))
            .bind(signed(batch.records))
            .bind(signed(batch.bytes))
            .bind(&books)
            .bind(&batch.object_sha256)
            .bind(&batch.previous_blake3)
            .bind(&batch.sensor_version)
            .bind(batch.key_epoch)
            .execute(&mut *transaction)
            .await?;
        }
        sqlx::query(
            "INSERT INTO applied (only, lake_version) VALUES (1, ?) \
             ON CONFLICT (only) DO UPDATE SET lake_version = excluded.lake_version",
        )
        .bind(signed(version))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Every batch, without what it says.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn stored_batches(&self) -> Result<Vec<StoredBatch>, DatabaseError> {
        let rows =
            sqlx::query("SELECT sensor, boot_epoch, sequence, received_ms, records FROM batches")
                .fetch_all(&self.pool)
                .await?;
        rows.iter()
            .map(|row| {
                let number = |name: &'static str| unsigned("a batch's number", row.try_get(name)?);
                Ok(StoredBatch {
                    sensor: row.try_get("sensor")?,
                    boot_epoch: number("boot_epoch")?,
                    sequence: number("sequence")?,
                    received_ms: number("received_ms")?,
                    records: number("records")?,
                })
            })
            .collect()
    }

    /// The public key of every sensor that was ever enrolled, revoked ones too.
    ///
    /// # Errors
    ///
    /// When the database refuses, or holds a key that is none.
    pub async fn public_keys(&self) -> Result<BTreeMap<String, [u8; 32]>, DatabaseError> {
        let rows = sqlx::query("SELECT id, public_key FROM sensors").fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let id: String = row.try_get("id")?;
                let key: Vec<u8> = row.try_get("public_key")?;
                let key = key.try_into().map_err(|_key: Vec<u8>| DatabaseError::Corrupt {
                    what: "a public key of sensor",
                    value: id.clone(),
                })?;
                Ok((id, key))
            })
            .collect()
    }

    /// Every boot epoch of every sensor that there are batches of.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn sessions(&self) -> Result<Vec<(SensorId, u64)>, DatabaseError> {
        let rows = sqlx::query("SELECT DISTINCT sensor, boot_epoch FROM batches ORDER BY 1, 2")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let text: String = row.try_get("sensor")?;
                let sensor = SensorId::parse(&text).map_err(|_why| DatabaseError::Corrupt {
                    what: "a sensor identifier",
                    value: text,
                })?;
                Ok((sensor, unsigned("a boot epoch", row.try_get("boot_epoch")?)?))
            })
            .collect()
    }

    /// Forgets the batches of each boot epoch after the highest sequence that the lake holds of it, and takes the
    /// lake's version as the one that was copied, in one transaction.
    ///
    /// # Errors
    ///
    /// When the database refuses; then nothing was forgotten.
    pub async fn forget_after(
        &self,
        held: &[(SensorId, u64, u64)],
        lake_version: u64,
    ) -> Result<Forgotten, DatabaseError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let mut forgotten = Forgotten::default();
        for (sensor, boot_epoch, sequence) in held {
            let gone: Vec<i64> = sqlx::query_scalar(
                "DELETE FROM batches WHERE sensor = ? AND boot_epoch = ? AND sequence > ? \
                 RETURNING records",
            )
            .bind(sensor.as_str())
            .bind(signed(*boot_epoch))
            .bind(signed(*sequence))
            .fetch_all(&mut *transaction)
            .await?;
            forgotten.batches += gone.len() as u64;
            for records in gone {
                forgotten.records += unsigned("a count", records)?;
            }
        }
        sqlx::query("UPDATE applied SET lake_version = ?")
            .bind(signed(lake_version))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(forgotten)
    }

    /// Counts batches that had been stored before.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn count_duplicates(&self, more: u64) -> Result<(), DatabaseError> {
        self.count(DUPLICATES, more).await
    }

    /// Counts batches that were refused for good.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn count_rejected(&self, more: u64) -> Result<(), DatabaseError> {
        self.count(REJECTED, more).await
    }

    async fn count(&self, name: &str, more: u64) -> Result<(), DatabaseError> {
        sqlx::query(
            "INSERT INTO counters (name, value) VALUES (?, ?) \
             ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        )
        .bind(name)
        .bind(signed(more))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn counter(&self, name: &str) -> Result<u64, DatabaseError> {
        let value: Option<i64> = sqlx::query_scalar("SELECT value FROM counters WHERE name = ?")
            .bind(name)
            .fetch_optional(&self.pool)
            .await?;
        unsigned("a counter", value.unwrap_or(0))
    }

    /// How many batches are stored, had been stored before, and were refused.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn batch_counts(&self) -> Result<(u64, u64, u64), DatabaseError> {
        let stored: i64 =
            sqlx::query_scalar("SELECT count(*) FROM batches").fetch_one(&self.pool).await?;
        let stored = unsigned("a count", stored)?;
        Ok((stored, self.counter(DUPLICATES).await?, self.counter(REJECTED).await?))
    }

    /// A member's batches that touch a time range, by sensor, epoch and sequence.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn batches_between(
        &self,
        member: &str,
        from_ms: u64,
        to_ms: u64,
    ) -> Result<Vec<BatchRow>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT sensor, boot_epoch, sequence, start_ms, end_ms, sealed_ms, records, bytes, books, \
             key_epoch FROM batches WHERE member = ? AND end_ms >= ? AND start_ms < ? \
             ORDER BY sensor, boot_epoch, sequence",
        )
        .bind(member)
        .bind(signed(from_ms))
        .bind(signed(to_ms))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(batch).collect()
    }

    /// The batch before one in its boot epoch: where counting since that epoch's start had got to.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn batch_before(&self, next: &BatchRow) -> Result<Option<BatchRow>, DatabaseError> {
        let row = sqlx::query(
            "SELECT sensor, boot_epoch, sequence, start_ms, end_ms, sealed_ms, records, bytes, books, \
             key_epoch FROM batches WHERE sensor = ? AND boot_epoch = ? AND sequence < ? \
             ORDER BY sequence DESC LIMIT 1",
        )
        .bind(&next.sensor)
        .bind(signed(next.boot_epoch))
        .bind(signed(next.sequence))
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(batch).transpose()
    }

    /// The end of a member's newest batch, by the packets' time; `None` when it has none. Batches of a
    /// sensor whose clock is ahead count only when there are no others.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn newest_ms(&self, member: &str) -> Result<Option<u64>, DatabaseError> {
        let newest: Option<i64> =
            sqlx::query_scalar(
                "SELECT coalesce(max(CASE WHEN end_ms <= received_ms + ?2 THEN end_ms END), max(end_ms)) \
                 FROM batches WHERE member = ?1 AND records > 0",
            )
            .bind(member)
            .bind(signed(CLOCK_AHEAD_MS_MAX))
            .fetch_one(&self.pool)
            .await?;
        newest.map(|ms| unsigned("a time", ms)).transpose()
    }

    /// Every sensor with its newest batch.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn sensor_states(&self) -> Result<Vec<SensorState>, DatabaseError> {
        let mut states = Vec::new();
        for sensor in self.sensors().await? {
            let newest = sqlx::query(
                "SELECT boot_epoch, sequence, received_ms, books, sensor_version FROM batches \
                 WHERE sensor = ? ORDER BY boot_epoch DESC, sequence DESC LIMIT 1",
            )
            .bind(sensor.id.as_str())
            .fetch_optional(&self.pool)
            .await?;
            let totals = sqlx::query(
                "SELECT count(*) AS batches, coalesce(sum(records), 0) AS records FROM batches \
                 WHERE sensor = ?",
            )
            .bind(sensor.id.as_str())
            .fetch_one(&self.pool)
            .await?;
            let number = |name: &'static str| -> Result<Option<u64>, DatabaseError> {
                let Some(row) = &newest else { return Ok(None) };
                unsigned("a batch's number", row.try_get(name)?).map(Some)
            };
            let text: Option<String> =
                newest.as_ref().map(|row| row.try_get("books")).transpose()?;
            states.push(SensorState {
                sensor: sensor.id.to_string(),
                member: sensor.member.to_string(),
                revoked: sensor.revoked_ms.is_some(),
                boot_epoch: number("boot_epoch")?,
                last_sequence: number("sequence")?,
                last_received_ms: number("received_ms")?,
                books: text.as_deref().map(books).transpose()?,
                sensor_version: newest
                    .as_ref()
                    .map(|row| row.try_get("sensor_version"))
                    .transpose()?,
                batches_stored: unsigned("a count", totals.try_get("batches")?)?,
                records_stored: unsigned("a count", totals.try_get("records")?)?,
                health: self.health(&sensor.id).await?,
            });
        }
        Ok(states)
    }
}
