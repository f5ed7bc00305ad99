//! Takes rows; writes them for people or programs, up to a limit, and says whether there were more.

use std::io::Write;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::csv;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::writer::{JsonArray, WriterBuilder};
use datafusion::arrow::util::pretty::pretty_format_batches;
use futures::StreamExt;

use super::{QueryError, Rows};

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A drawn table.
    Table,
    /// One JSON array of objects.
    Json,
    /// Comma-separated, with a header line.
    Csv,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Printed {
    /// Rows written.
    pub rows: usize,
    /// Whether there were more.
    pub cut: bool,
}

fn output(error: impl Into<Box<dyn std::error::Error>>) -> QueryError {
    QueryError::Output(error.into().to_string())
}

impl Rows {
    /// Writes at most `limit` rows; `None` is no limit.
    ///
    /// # Errors
    ///
    /// When the query fails on the way, or the output is closed.
    pub async fn print(
        self,
        format: Format,
        limit: Option<usize>,
        out: &mut (impl Write + Send),
    ) -> Result<Printed, QueryError> {
        match format {
            Format::Table => self.print_table(limit, out).await,
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
                let empty = RecordBatch::new_empty(self.stream.schema());
                writer.write(&empty).map_err(output)?;
                self.each(limit, |rows| writer.write(rows)).await
            }
            Format::Json => {
                let mut writer =
                    WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut *out);
                let printed = self.each(limit, |rows| writer.write(rows)).await?;
                writer.finish().map_err(output)?;
                writeln!(out).map_err(output)?;
                Ok(printed)
            }
        }
    }

    async fn print_table(
        self,
        limit: Option<usize>,
        out: &mut (impl Write + Send),
    ) -> Result<Printed, QueryError> {
        let mut all = vec![RecordBatch::new_empty(self.stream.schema())];
        let printed = self
            .each(limit, |rows| {
                all.push(rows.clone());
                Ok(())
            })
            .await?;
        let table = pretty_format_batches(&all).map_err(output)?;
        writeln!(out, "{table}").map_err(output)?;
        Ok(printed)
    }

    async fn each(
        mut self,
        limit: Option<usize>,
        mut take: impl FnMut(&RecordBatch) -> Result<(), ArrowError> + Send,
    ) -> Result<Printed, QueryError> {
        let mut printed = Printed { rows: 0, cut: false };
        while let Some(rows) = self.stream.next().await {
            let rows = rows?;
            let room = limit.map_or(usize::MAX, |limit| limit - printed.rows);
            let some = rows.slice(0, rows.num_rows().min(room));
            take(&some).map_err(output)?;
            printed.rows += some.num_rows();
            if rows.num_rows() > room {
                printed.cut = true;
                break;
            }
        }
        Ok(printed)
    }
}
