//! Takes batches; gives a Delta Lake table of flow records that any engine can read, and sessions that query
//! it. Never acknowledges anything: whoever calls [`Lake::commit`] does, after it returned.
//!
//! What makes a row exactly one row: the commit that adds a batch's rows also sets, in the same log entry, the
//! transaction identifier `sensor/boot_epoch` to the batch's sequence. A crash at any moment leaves both or
//! neither, and the next process reads the sequence back before it takes anything.

mod durable;
mod files;
mod outer;
mod schema;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::object_store::ObjectStoreExt as _;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, Transaction};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError, TableProperty};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use uplink::{Batch, SensorId};

use durable::{DurableFileSystem, Staging, WriteError};
pub use schema::{
    RECORD_COLUMNS, SchemaError, TIME_MS_MAX, address_bytes, address_from_bytes, check, days, hex,
    key_scopes, received_ms, records,
};

/// Under this key the commit log holds what [`Summary`] says of each batch.
const SUMMARIES_KEY: &str = "spanwatch";
/// How long log entries are kept after a checkpoint replaced them: time for readers that still use them.
const LOG_RETENTION: &str = "interval 1 days";
/// Commits between two checkpoints: bounds what opening the table must replay.
const CHECKPOINT_INTERVAL: u64 = 100;
/// Columns with minima and maxima in the log; more would only make each entry longer.
const STATISTICS_COLUMNS: &str = "member,received_time,start_time,end_time,responder_port";

/// What one query may put aside on the disk that the lake is on: a bound, so that it cannot stop the ingest.
const SPILL_BYTES_MAX: u64 = 8 << 30;

/// Why the lake did not do what it was asked to.
#[derive(Debug, Error)]
pub enum LakeError {
    /// Delta Lake or the disk refused. Remedy: the source says which; often the disk is full.
    #[error("the lake at {path}: {source}")]
    Delta {
        /// The table's folder.
        path: String,
        /// What went wrong.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// A data file could not be written; nothing of it stays. Remedy: make room on the disk.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The folder's path is not usable. Remedy: give an absolute path of plain UTF-8.
    #[error("{path} cannot be a lake: {reason}")]
    Path {
        /// The path.
        path: String,
        /// Why not.
        reason: String,
    },
    /// Columns and records disagree.
    #[error("the lake's columns: {0}")]
    Schema(#[from] SchemaError),
    /// The query engine could not be set up or failed.
    #[error("query engine: {0}")]
    Engine(#[from] Box<DataFusionError>),
    /// A log entry is not what this program writes. Remedy: restore the lake from a backup.
    #[error("log entry {version} of the lake cannot be read: {reason}")]
    Log {
        /// The entry's version.
        version: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// A batch that was taken, with the time at which it was.
#[derive(Clone, Debug)]
pub struct Received {
    /// The batch.
    pub batch: Batch,
    /// When the backend had it, milliseconds since the Unix epoch.
    pub received_ms: u64,
    /// Its sealed size, as received.
    pub bytes: u64,
}

/// What the commit log keeps of a batch beside its rows: the evidence of coverage and of losses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Whose sensor.
    pub member: String,
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
    /// When the backend had it.
    pub received_ms: u64,
    /// Records in it.
    pub records: u64,
    /// Its sealed size.
    pub bytes: u64,
    /// The sensor's totals at that moment.
    pub books: flow::Books,
    /// SHA-256 of the kernel object that counted, lower-case hexadecimal; zeros for a replayed capture.
    pub object_sha256: String,
    /// BLAKE3 of the batch before it, lower-case hexadecimal.
    pub previous_blake3: String,
    /// Version of the sensor program.
    pub sensor_version: String,
    /// Which of the sensor's keys has made the pseudonyms in it; `None`: it has none.
    #[serde(default)]
    pub key_epoch: Option<u32>,
}

impl Summary {
    /// Of one batch.
    #[must_use]
    pub fn new(received: &Received) -> Self {
        let header = &received.batch.header;
        Self {
            member: header.member.to_string(),
            sensor: header.sensor.to_string(),
            boot_epoch: header.boot_epoch,
            sequence: header.sequence,
            start_ms: header.start_ms,
            end_ms: header.end_ms,
            sealed_ms: header.sealed_ms,
            received_ms: received.received_ms,
            records: received.batch.records.len() as u64,
            bytes: received.bytes,
            books: header.books,
            object_sha256: hex(&header.object_sha256),
            previous_blake3: hex(&header.previous_blake3),
            sensor_version: header.sensor_version.clone(),
            key_epoch: header.key_epoch,
        }
    }
}

/// How much a query may take.
#[derive(Clone, Debug)]
pub struct SessionLimits {
    /// Memory of one session, bytes; larger sorts and groupings spill to disk, others fail.
    pub memory_bytes_max: usize,
    /// Where they spill to.
    pub spill_folder: PathBuf,
}

/// Rows that are on the disk, and in no version of the table yet.
#[derive(Debug)]
pub struct Written {
    adds: Vec<Add>,
    sequences: BTreeMap<String, u64>,
}

/// The table at one of its versions.
pub struct Lake {
    table: DeltaTable,
    path: String,
    staging: Staging,
}

impl Lake {
    /// Makes an empty table in a folder that does not exist yet.
    ///
    /// # Errors
    ///
    /// When there is a table already, or the disk refuses.
    pub async fn create(folder: &Path) -> Result<(), LakeError> {
        let (table, path, _staging) = locate(folder)?;
        let created = table
            .create()
            .with_table_name("flows")
            .with_columns(schema::delta_columns())
            .with_partition_columns([schema::PARTITION])
            .with_configuration_property(TableProperty::LogRetentionDuration, Some(LOG_RETENTION))
            .with_configuration_property(
                TableProperty::DataSkippingStatsColumns,
                Some(STATISTICS_COLUMNS),
            )
            .await;
        created.map(drop).map_err(|source| delta(&path, source))
    }

    /// Opens the table at its newest version.
    ///
    /// # Errors
    ///
    /// When there is none, or its log cannot be read.
    pub async fn open(folder: &Path) -> Result<Self, LakeError> {
        let (mut table, path, staging) = locate(folder)?;
        table.load().await.map_err(|source| delta(&path, source))?;
        Ok(Self { table, path, staging })
    }

    /// The version that this handle sees.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.table.version().unwrap_or(0)
    }

    /// Parquet files that the version consists of.
    #[must_use]
    pub fn files(&self) -> usize {
        self.table.snapshot().map_or(0, |state| state.log_data().num_files())
    }

    /// Looks for newer versions; also the way back to a known state after an error.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub async fn reload(&mut self) -> Result<(), LakeError> {
        self.table.update_state().await.map_err(|source| delta(&self.path, source))
    }

    /// The highest sequence of a sensor's boot epoch that the table holds.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub async fn watermark(
        &self,
        sensor: &SensorId,
        boot_epoch: u64,
    ) -> Result<Option<u64>, LakeError> {
        self.transaction(&app_id(sensor, boot_epoch)).await
    }

    async fn transaction(&self, app_id: &str) -> Result<Option<u64>, LakeError> {
        let state = self.table.snapshot().map_err(|source| delta(&self.path, source))?;
        let log_store = self.table.log_store();
        let version = state
            .transaction_version(log_store.as_ref(), app_id)
            .await
            .map_err(|source| delta(&self.path, source))?;
        Ok(version.and_then(|version| u64::try_from(version).ok()))
    }

    /// Writes the rows of some batches as one file for each day, durably; all of them, or none. They are in the table
    /// once [`Lake::commit`] has returned.
    ///
    /// # Errors
    ///
    /// When the disk refuses; then nothing of them stays.
    pub async fn write(&self, batches: &[Received]) -> Result<Written, LakeError> {
        self.staging.begin();
        let encoded = files::encode(&self.table, &self.path, batches).await;
        let files = self.staging.take();
        let adds = encoded?;
        let written = tokio::task::spawn_blocking(move || durable::write_all(&files)).await;
        match written {
            Ok(Ok(())) => Ok(Written { adds, sequences: sequences(batches) }),
            Ok(Err(WriteError { path, source })) => Err(LakeError::Write { path, source }),
            Err(ended) => {
                Err(LakeError::Write { path: self.path.clone().into(), source: ended.into() })
            }
        }
    }

    /// Adds what was written of these batches in one atomic commit and gives the new version. Durable when it returns.
    ///
    /// After an error nothing of them is in the table, unless the error says that the log could not be read
    /// back: then [`Lake::reload`] and [`Lake::watermark`] tell.
    ///
    /// # Errors
    ///
    /// When the disk refuses or another writer is in the way.
    pub async fn commit(
        &mut self,
        batches: &[Received],
        written: Written,
    ) -> Result<u64, LakeError> {
        let Written { adds, sequences } = written;
        match self.commit_files(batches, &adds, &sequences).await {
            Ok(version) => Ok(version),
            Err(error) => self.after_failed_commit(error, &adds, &sequences).await,
        }
    }

    /// [`Lake::write`] and [`Lake::commit`], when nothing is to be done between.
    ///
    /// # Errors
    ///
    /// Those of the two.
    pub async fn append(&mut self, batches: &[Received]) -> Result<u64, LakeError> {
        let written = self.write(batches).await?;
        self.commit(batches, written).await
    }

    /// Removes what was written and will not be committed.
    pub async fn discard(&self, written: Written) {
        self.remove(&written.adds).await;
    }

    async fn remove(&self, adds: &[Add]) {
        for add in adds {
            let path = datafusion::object_store::path::Path::from(add.path.as_str());
            if let Err(source) = self.table.object_store().delete(&path).await {
                tracing::warn!(%source, path = add.path, "a data file without a commit stays behind");
            }
        }
    }

    async fn commit_files(
        &mut self,
        batches: &[Received],
        adds: &[Add],
        sequences: &BTreeMap<String, u64>,
    ) -> Result<u64, LakeError> {
        let failed = |source| delta(&self.path, source);
        let summaries: Vec<Summary> = batches.iter().map(Summary::new).collect();
        let summaries = serde_json::to_value(summaries)
            .map_err(|source| failed(DeltaTableError::Generic(source.to_string())))?;
        let received_ms = batches.iter().map(|received| received.received_ms).max();
        let updated = received_ms.and_then(|ms| i64::try_from(ms).ok());
        let transactions = sequences
            .iter()
            .map(|(id, sequence)| {
                let sequence = i64::try_from(*sequence).unwrap_or(i64::MAX);
                Transaction::new_with_last_update(id, sequence, updated)
            })
            .collect();
        let properties = CommitProperties::default()
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false))
            .with_metadata([(SUMMARIES_KEY.to_owned(), summaries)])
            .with_application_transactions(transactions);
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: Some(vec![schema::PARTITION.to_owned()]),
            predicate: None,
        };
        let state = self.table.snapshot().map_err(failed)?;
        let committed = CommitBuilder::from(properties)
            .with_actions(adds.iter().cloned().map(Action::Add).collect())
            .build(Some(state), self.table.log_store(), operation)
            .await
            .map_err(failed)?;
        self.table.state = Some(committed.snapshot());
        Ok(committed.version())
    }

    /// The log entry may or may not have been written: the log itself decides. If it was not, the data files
    /// that nothing refers to are removed, because a full disk is the likely cause.
    async fn after_failed_commit(
        &mut self,
        error: LakeError,
        adds: &[Add],
        sequences: &BTreeMap<String, u64>,
    ) -> Result<u64, LakeError> {
        self.reload().await?;
        let Some((id, sequence)) = sequences.first_key_value() else { return Err(error) };
        if self.transaction(id).await?.is_some_and(|held| held >= *sequence) {
            return Ok(self.version());
        }
        self.remove(adds).await;
        Err(error)
    }

    /// What was added after a version: each commit's version with its batches, oldest first.
    ///
    /// # Errors
    ///
    /// When an entry between is missing or is none of this program's.
    pub async fn summaries_since(
        &self,
        version: u64,
    ) -> Result<Vec<(u64, Vec<Summary>)>, LakeError> {
        let mut found = Vec::new();
        for version in version + 1..=self.version() {
            let entry = self.table.log_store().read_commit_entry(version).await;
            let entry = entry.map_err(|source| delta(&self.path, source))?;
            let entry = entry.ok_or_else(|| LakeError::Log {
                version,
                reason: "the entry was removed; its batches' books are lost, their rows are not"
                    .to_owned(),
            })?;
            found.push((version, summaries(version, &entry)?));
        }
        Ok(found)
    }

    /// Whether the log has grown enough since the last checkpoint to need the next.
    #[must_use]
    pub fn checkpoint_due(&self) -> bool {
        self.version() > 0 && self.version().is_multiple_of(CHECKPOINT_INTERVAL)
    }

    /// Writes a checkpoint and removes log entries that are older than the retention.
    ///
    /// # Errors
    ///
    /// When the disk refuses; the table is as good as before.
    pub async fn checkpoint(&self) -> Result<(), LakeError> {
        let failed = |source| delta(&self.path, source);
        deltalake::checkpoints::create_checkpoint(&self.table, None).await.map_err(failed)?;
        deltalake::checkpoints::cleanup_metadata(&self.table, None).await.map(drop).map_err(failed)
    }

    /// A query session in which this version is the table `flows`.
    ///
    /// # Errors
    ///
    /// When the engine cannot be set up.
    pub async fn session(&self, limits: &SessionLimits) -> Result<SessionContext, LakeError> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_limit(limits.memory_bytes_max, 1.0)
            .with_temp_file_path(&limits.spill_folder)
            .with_max_temp_directory_size(SPILL_BYTES_MAX)
            .build_arc()
            .map_err(Box::new)?;
        let config = SessionConfig::new().with_information_schema(true);
        let session = SessionContext::new_with_config_rt(config, runtime);
        let provider = self.table.table_provider().await.map_err(Box::new)?;
        session.register_table("flows", provider).map_err(Box::new)?;
        Ok(session)
    }
}

/// The highest sequence of each session among some batches.
fn sequences(batches: &[Received]) -> BTreeMap<String, u64> {
    let mut sequences = BTreeMap::new();
    for Received { batch, .. } in batches {
        let id = app_id(&batch.header.sensor, batch.header.boot_epoch);
        let highest = sequences.entry(id).or_insert(0);
        *highest = batch.header.sequence.max(*highest);
    }
    sequences
}

fn app_id(sensor: &SensorId, boot_epoch: u64) -> String {
    format!("{sensor}/{boot_epoch}")
}

fn delta(path: &str, source: DeltaTableError) -> LakeError {
    LakeError::Delta { path: path.to_owned(), source: Box::new(source) }
}

fn locate(folder: &Path) -> Result<(DeltaTable, String, Staging), LakeError> {
    let path = folder.display().to_string();
    let bad = |reason: String| LakeError::Path { path: path.clone(), reason };
    let absolute = std::path::absolute(folder).map_err(|source| bad(source.to_string()))?;
    let text = absolute.to_str().ok_or_else(|| bad("it is not UTF-8".to_owned()))?;
    // Trailing slash and all: the table's root as a folder, so that relative paths join below it.
    let url = deltalake::ensure_table_uri(text).map_err(|source| bad(source.to_string()))?;
    let staging = Staging::default();
    let store = Arc::new(DurableFileSystem::new(staging.clone()));
    let table = DeltaTableBuilder::from_url(url.clone())
        .map_err(|source| bad(source.to_string()))?
        .with_storage_backend(store, url)
        .build()
        .map_err(|source| bad(source.to_string()))?;
    Ok((table, path, staging))
}

fn summaries(version: u64, entry: &[u8]) -> Result<Vec<Summary>, LakeError> {
    let bad = |reason: String| LakeError::Log { version, reason };
    let text = std::str::from_utf8(entry).map_err(|source| bad(source.to_string()))?;
    for line in text.lines().filter(|line| line.contains("\"commitInfo\"")) {
        let mut action: HashMap<String, HashMap<String, Value>> =
            serde_json::from_str(line).map_err(|source| bad(source.to_string()))?;
        let held = action.get_mut("commitInfo").and_then(|info| info.remove(SUMMARIES_KEY));
        if let Some(held) = held {
            return serde_json::from_value(held).map_err(|source| bad(source.to_string()));
        }
    }
    // Another writer's commit: a compaction, for one, adds no batches.
    Ok(Vec::new())
}
