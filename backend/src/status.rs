//! What the backend holds, as numbers that close the books: rows from the lake itself, the rest from the
//! database.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use serde::Serialize;

use crate::database::SensorState;
use crate::folder::Folder;

/// The numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Rows in the lake.
    pub rows_stored: u64,
    /// Version of the lake's table.
    pub lake_version: u64,
    /// Parquet files of that version.
    pub lake_files: u64,
    /// Batches in the lake.
    pub batches_stored: u64,
    /// Batches that came again after they had been stored.
    pub batches_duplicate: u64,
    /// Batches that were refused for good.
    pub batches_rejected: u64,
    /// Findings, of all members and times.
    pub findings: u64,
    /// Members.
    pub members: Vec<String>,
    /// Every enrolled sensor.
    pub sensors: Vec<SensorState>,
}

impl Status {
    /// Asks lake and database.
    ///
    /// # Errors
    ///
    /// When one of them gives no answer, or the lake is older than the database: the numbers would not agree.
    pub async fn read(folder: &Folder) -> anyhow::Result<Self> {
        let config = folder.config()?;
        let (database, lake) = folder.stores().await?;
        let session = lake.session(&folder.limits(&config)).await?;
        let counted = session.sql("SELECT count(*) FROM flows").await?.collect().await?;
        let rows: i64 = counted
            .iter()
            .flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().iter())
            .sum();
        let (stored, duplicate, rejected) = database.batch_counts().await?;
        Ok(Self {
            rows_stored: u64::try_from(rows)?,
            lake_version: lake.version(),
            lake_files: lake.files() as u64,
            batches_stored: stored,
            batches_duplicate: duplicate,
            batches_rejected: rejected,
            findings: database.findings_count().await?,
            members: database.members().await?.into_iter().map(|m| m.id.to_string()).collect(),
            sensors: database.sensor_states().await?,
        })
    }
}
