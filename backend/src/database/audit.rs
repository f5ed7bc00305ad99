//! What happened to identities: codes made, sensors enrolled, renewed, revoked, refused. Takes events; gives them
//! back in order. Never a secret, and never more refusals of strangers than a bound.

use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{Database, DatabaseError, signed, unsigned};

/// Refusals that are kept: anybody can cause one, so the oldest go. What operators and sensors did is kept for good.
const REFUSALS_MAX: u32 = 10_000;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    CodeMade,
    Enrolled,
    EnrolledAgain,
    EnrolmentRefused,
    Renewed,
    Revoked,
    BatchesRefused,
}

impl Event {
    const fn name(self) -> &'static str {
        match self {
            Self::CodeMade => "code made",
            Self::Enrolled => "enrolled",
            Self::EnrolledAgain => "enrolled again",
            Self::EnrolmentRefused => "enrolment refused",
            Self::Renewed => "renewed",
            Self::Revoked => "revoked",
            Self::BatchesRefused => "batches refused",
        }
    }

    const fn is_refusal(self) -> bool {
        matches!(self, Self::EnrolmentRefused | Self::BatchesRefused)
    }
}

/// Something to be noted.
#[derive(Clone, Debug)]
pub(crate) struct Note<'a> {
    pub(crate) event: Event,
    pub(crate) member: Option<&'a str>,
    pub(crate) sensor: Option<&'a str>,
    pub(crate) remote: Option<String>,
    pub(crate) detail: String,
}

/// One line of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditLine {
    /// Grows by one with each event.
    pub number: u64,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    pub event: String,
    /// Whose sensor or code, where that is known.
    pub member: Option<String>,
    /// Which sensor, where that is known.
    pub sensor: Option<String>,
    /// Address of the peer, when it was one and not a command here.
    pub remote: Option<String>,
    /// The rest.
    pub detail: String,
}

/// Writes a line, as part of whatever transaction the connection is in.
pub(super) async fn note(
    connection: &mut SqliteConnection,
    now_ms: u64,
    note: &Note<'_>,
) -> Result<(), DatabaseError> {
    let event = note.event.name();
    sqlx::query(
        "INSERT INTO audit (at_ms, event, member, sensor, remote, detail) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(signed(now_ms))
    .bind(event)
    .bind(note.member)
    .bind(note.sensor)
    .bind(note.remote.as_deref())
    .bind(&note.detail)
    .execute(&mut *connection)
    .await?;
    if note.event.is_refusal() {
        sqlx::query(
            "DELETE FROM audit WHERE event = ?1 AND number <= \
             (SELECT number FROM audit WHERE event = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
        )
        .bind(event)
        .bind(REFUSALS_MAX)
        .execute(connection)
        .await?;
    }
    Ok(())
}

fn line(row: &SqliteRow) -> Result<AuditLine, DatabaseError> {
    Ok(AuditLine {
        number: unsigned("a number", row.try_get("number")?)?,
        at_ms: unsigned("a time", row.try_get("at_ms")?)?,
        event: row.try_get("event")?,
        member: row.try_get("member")?,
        sensor: row.try_get("sensor")?,
        remote: row.try_get("remote")?,
        detail: row.try_get("detail")?,
    })
}

impl Database {
    /// Notes something that is not part of another change.
    pub(crate) async fn note(&self, now_ms: u64, what: &Note<'_>) -> Result<(), DatabaseError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        note(&mut transaction, now_ms, what).await?;
        Ok(transaction.commit().await?)
    }

    /// The newest lines, oldest of them first.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn audit(&self, lines_max: u32) -> Result<Vec<AuditLine>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT * FROM (SELECT * FROM audit ORDER BY number DESC LIMIT ?) ORDER BY number",
        )
        .bind(lines_max)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(line).collect()
    }
}
