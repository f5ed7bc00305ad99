//! Findings, each once, as it stands now.

use detect::Finding;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Database, DatabaseError, signed, unsigned};

/// A finding with whose it is and when this backend had it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct StoredFinding {
    /// Whose traffic.
    pub member: String,
    /// When this backend first had it, milliseconds since the Unix epoch.
    pub found_ms: u64,
    /// When it last changed, milliseconds since the Unix epoch.
    pub updated_ms: u64,
    /// The finding.
    #[serde(flatten)]
    pub finding: Finding,
}

fn stored(row: &SqliteRow) -> Result<StoredFinding, DatabaseError> {
    let body: String = row.try_get("body")?;
    Ok(StoredFinding {
        member: row.try_get("member")?,
        found_ms: unsigned("a time", row.try_get("found_ms")?)?,
        updated_ms: unsigned("a time", row.try_get("updated_ms")?)?,
        finding: serde_json::from_str(&body)
            .map_err(|_syntax| DatabaseError::Corrupt { what: "a finding", value: body })?,
    })
}

impl Database {
    /// Stores findings by identifier. One that is here already is replaced, unless the newcomer rests on fewer
    /// records: after a restart detection sees only the last day again, and must not forget what it knew.
    ///
    /// # Errors
    ///
    /// When the database refuses; then none was stored.
    pub async fn upsert_findings(
        &self,
        member: &str,
        findings: &[Finding],
        now_ms: u64,
    ) -> Result<(), DatabaseError> {
        if findings.is_empty() {
            return Ok(());
        }
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for finding in findings {
            let body = serde_json::to_string(finding).map_err(|source| DatabaseError::Corrupt {
                what: "a finding",
                value: source.to_string(),
            })?;
            sqlx::query(
                "INSERT INTO findings (member, id, kind, severity, source, target, first_ms, last_ms, \
                 records, body, found_ms, updated_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
                 ON CONFLICT (member, id) DO UPDATE SET kind = excluded.kind, \
                 severity = excluded.severity, source = excluded.source, target = excluded.target, \
                 first_ms = excluded.first_ms, last_ms = excluded.last_ms, records = excluded.records, \
                 body = excluded.body, updated_ms = excluded.updated_ms \
                 WHERE excluded.records >= findings.records AND excluded.body <> findings.body",
            )
            .bind(member)
            .bind(finding.id.to_string())
            .bind(finding.kind.as_str())
            .bind(finding.severity.as_str())
            .bind(finding.source.map(|ip| ip.to_string()))
            .bind(finding.target.map(|ip| ip.to_string()))
            .bind(signed(finding.first_ms))
            .bind(signed(finding.last_ms))
            .bind(signed(finding.records))
            .bind(body)
            .bind(signed(now_ms))
            .bind(signed(now_ms))
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Findings of one member, or of all, that touch a time range; oldest first.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn findings_between(
        &self,
        member: Option<&str>,
        from_ms: u64,
        to_ms: u64,
    ) -> Result<Vec<StoredFinding>, DatabaseError> {
        let rows = sqlx::query(
            "SELECT member, body, found_ms, updated_ms FROM findings \
             WHERE (?1 IS NULL OR member = ?1) AND last_ms >= ?2 AND first_ms < ?3 \
             ORDER BY first_ms, member, id",
        )
        .bind(member)
        .bind(signed(from_ms))
        .bind(signed(to_ms))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(stored).collect()
    }

    /// How many findings there are.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn findings_count(&self) -> Result<u64, DatabaseError> {
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM findings").fetch_one(&self.pool).await?;
        unsigned("a count", count)
    }
}
