//! Takes members, codes, sensors, their audit, batch summaries and findings; gives them back by question. One SQLite
//! file. Never holds a flow record, a code's secret or a key.
//!
//! What the lake's commit log also says (`batches`) is copied in the order of that log together with the
//! version it was copied from, in one transaction: after a crash the copy goes on where it stopped.

mod audit;
mod batches;
mod findings;
mod health;
mod members;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, SqliteConnection, SqlitePool};
use thiserror::Error;

pub use audit::AuditLine;
pub(crate) use audit::{Event, Note};
pub use batches::{BatchRow, Forgotten, SensorState, StoredBatch};
pub use findings::StoredFinding;
pub use health::HeardHealth;
pub(crate) use members::told;
pub use members::{Member, NAME_LENGTH_MAX, Redeemed, Sensor};

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
    /// The file is missing, unreadable or no database. Remedy: restore it from a backup.
    #[error("{path} cannot be opened as a database: {source}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
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
    /// No such member. Remedy: `spanwatch-backend member list`.
    #[error("there is no member {0:?}")]
    UnknownMember(String),
    /// No such sensor. Remedy: `spanwatch-backend sensor list`.
    #[error("there is no sensor {0:?}")]
    UnknownSensor(String),
    /// Not a name that can stand in a report. Remedy: the message says what one is.
    #[error(
        "member name {name:?} {fault}; allowed are 1 to {NAME_LENGTH_MAX} printable characters, a letter or \
         digit among them"
    )]
    MemberName {
        /// Its beginning.
        name: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A range that makes everybody's addresses the member's own, so that nothing ever comes from outside.
    #[error("own address range {0:?} is every address there is; give the member's own ranges")]
    OwnPrefix(String),
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
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .after_release(|connection, _about| Box::pin(is_reusable(connection)))
            .connect_with(options)
            .await
            .map_err(|source| DatabaseError::Open { path: path.to_owned(), source })?;
        sqlx::migrate!("./migrations").run(&pool).await?;
        Ok(Self { pool })
    }

    /// Closes all connections; what was written is in the file.
    pub async fn close(self) {
        self.pool.close().await;
    }
}

/// On a full disk SQLite ends a transaction by itself. The driver does not notice, and would refuse every later
/// transaction of that connection: it is thrown away.
async fn is_reusable(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // The driver's own attempt to roll back is queued before this, so its result is known afterwards.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// SQLite's integers are signed. Every number that comes from a sensor was checked against that before it was
/// stored, and times and counts of this program do not get there.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(what: &'static str, value: i64) -> Result<u64, DatabaseError> {
    u64::try_from(value)
        .map_err(|_negative| DatabaseError::Corrupt { what, value: value.to_string() })
}

#[cfg(test)]
mod tests;
