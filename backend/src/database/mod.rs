//! Takes members, codes, sensors, batch summaries and findings; gives them back by question. One SQLite file.
//! Never holds a flow record, a code's secret or a key.
//!
//! What the lake's commit log also says (`batches`) is copied in the order of that log together with the
//! version it was copied from, in one transaction: after a crash the copy goes on where it stopped.

mod batches;
mod findings;
mod members;

use std::path::Path;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use thiserror::Error;

pub use batches::{BatchRow, SensorState};
pub use findings::StoredFinding;
pub use members::{Member, Redeemed, Sensor};

/// How long a statement waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of one process: the ingest task, the link's questions and the detection task.
const CONNECTIONS_MAX: u32 = 4;

/// Why the database gave no answer.
#[derive(Debug, Error)]
pub enum DatabaseError {
    /// SQLite refused. Remedy: the source says why; often the disk is full or the file is not there.
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    /// The file is of another version of this program. Remedy: use that version, or a newer one.
    #[error("database tables: {0}")]
    Migrate(#[from] MigrateError),
    /// A stored value that this program would not have written. Remedy: restore the file from a backup.
    #[error("database holds {what} {value:?}, which is not one")]
    Corrupt {
        /// What it should be.
        what: &'static str,
        /// What it is.
        value: String,
    },
    /// No such member. Remedy: `spanwatch-backend status` lists them.
    #[error("there is no member {0:?}")]
    UnknownMember(String),
    /// No such sensor. Remedy: `spanwatch-backend status` lists them.
    #[error("there is no sensor {0:?}")]
    UnknownSensor(String),
    /// The name gives no identifier. Remedy: use a name with at least one letter or digit of ASCII.
    #[error("member name {0:?} has no letter a-z and no digit")]
    MemberName(String),
}

/// The open file.
#[derive(Clone, Debug)]
pub struct Database {
    pool: SqlitePool,
}

impl Database {
    /// Makes the file and its tables.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub async fn create(path: &Path) -> Result<Self, DatabaseError> {
        Self::connect(path, true).await
    }

    /// Opens the file, and brings its tables to this program's version.
    ///
    /// # Errors
    ///
    /// When there is none, or it is of a newer version.
    pub async fn open(path: &Path) -> Result<Self, DatabaseError> {
        Self::connect(path, false).await
    }

    async fn connect(path: &Path, create: bool) -> Result<Self, DatabaseError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        let pool =
            SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).connect_with(options).await?;
        sqlx::migrate!("./migrations").run(&pool).await?;
        Ok(Self { pool })
    }

    /// Closes all connections; what was written is in the file.
    pub async fn close(self) {
        self.pool.close().await;
    }
}

/// SQLite's integers are signed. Every number that comes from a sensor was checked against that before it was
/// stored, and times and counts of this program do not get there.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(what: &'static str, value: i64) -> Result<u64, DatabaseError> {
    u64::try_from(value).map_err(|_negative| DatabaseError::Corrupt { what, value: value.to_string() })
}
