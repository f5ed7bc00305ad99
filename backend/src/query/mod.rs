//! Takes one SQL text; gives rows, at most as many as were asked for. Never changes anything: whatever is not a
//! query is refused before it runs.

mod functions;
mod print;

use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{DataFrame, SQLOptions};
use thiserror::Error;

use crate::lake::{Lake, LakeError, SessionLimits};

pub use print::{Format, Printed};

/// Longest query. The engine works on nested terms by recursion, so this bounds its stack.
const SQL_BYTES_MAX: usize = 16 << 10;

/// Why a query gave no rows, or not all.
#[derive(Debug, Error)]
pub enum QueryError {
    /// Not a query. Remedy: ask with SELECT; the lake is written by sensors only.
    #[error("only queries are allowed here: {0}")]
    Refused(String),
    /// More text than a question needs. Remedy: fewer terms, for one with BETWEEN or a join.
    #[error("the query has {0} bytes, allowed are {SQL_BYTES_MAX}")]
    TooLong(usize),
    /// SQL that means nothing, or a failure while it ran.
    #[error("{}", .0.strip_backtrace())]
    Engine(Box<DataFusionError>),
    /// The lake.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The rows could not be written out.
    #[error("the answer could not be written: {0}")]
    Output(String),
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        Self::Engine(Box::new(error))
    }
}

/// Rows as they are found.
pub struct Rows {
    pub(super) stream: SendableRecordBatchStream,
}

/// Plans and starts one query over the lake's table `flows`, with `ip(binary)` and `ip_bin(text)` beside the
/// engine's own functions.
///
/// # Errors
///
/// Says why the text is no query, or what it got wrong.
pub async fn start(lake: &Lake, limits: &SessionLimits, sql: &str) -> Result<Rows, QueryError> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(QueryError::TooLong(sql.len()));
    }
    let session = lake.session(limits).await?;
    functions::register(&session);
    let state = session.state();
    let plan = state.create_logical_plan(sql).await?;
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(&plan)
        .map_err(|error| QueryError::Refused(error.strip_backtrace()))?;
    let stream = DataFrame::new(state, plan).execute_stream().await?;
    Ok(Rows { stream })
}
