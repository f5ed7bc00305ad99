//! What each sensor last told of itself. One row a sensor, replaced each time.

use sqlx::Row;
use uplink::{HealthReport, SensorId};

use super::{Database, DatabaseError, signed, unsigned};

/// A report, and when it came.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct HeardHealth {
    /// By this backend's clock, milliseconds since the Unix epoch.
    pub heard_ms: u64,
    /// What the sensor said.
    #[serde(flatten)]
    pub report: HealthReport,
}

impl Database {
    /// Keeps a sensor's report in place of the one before.
    ///
    /// # Errors
    ///
    /// When the database refuses, or has no such sensor.
    pub async fn note_health(
        &self,
        sensor: &SensorId,
        report: &HealthReport,
        now_ms: u64,
    ) -> Result<(), DatabaseError> {
        let text = serde_json::to_string(report).map_err(|source| DatabaseError::Corrupt {
            what: "a sensor's report",
            value: source.to_string(),
        })?;
        sqlx::query(
            "INSERT INTO sensor_health (sensor, heard_ms, report) VALUES (?, ?, ?) \
             ON CONFLICT (sensor) DO UPDATE SET heard_ms = excluded.heard_ms, report = excluded.report",
        )
        .bind(sensor.as_str())
        .bind(signed(now_ms))
        .bind(text)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// What a sensor last told; `None` when it never did.
    ///
    /// # Errors
    ///
    /// When the database refuses.
    pub async fn health(&self, sensor: &SensorId) -> Result<Option<HeardHealth>, DatabaseError> {
        let found = sqlx::query("SELECT heard_ms, report FROM sensor_health WHERE sensor = ?")
            .bind(sensor.as_str())
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = found else { return Ok(None) };
        let text: &str = row.try_get("report")?;
        let report = serde_json::from_str(text).map_err(|_syntax| DatabaseError::Corrupt {
            what: "a sensor's report",
            value: text.to_owned(),
        })?;
        Ok(Some(HeardHealth { heard_ms: unsigned("a time", row.try_get("heard_ms")?)?, report }))
    }
}
