//! Takes a state folder; writes what has left this box for the backend, or waits for it: batch by batch, and
//! every record if asked. Changes nothing, and needs no sensor, root or backend; one may run meanwhile.

use std::io::{self, Write};
use std::path::Path;

use flow::Books;
use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;
use uplink::{
    Batch, KeptBatch, KeptBatches, OpenError, SpoolError, Whereabouts, batch_blake3, open,
};

use crate::privacy::{RevealError, Revealer};
use crate::sink::JsonLines;

/// What is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct SentOptions {
    /// A JSON object a batch in place of a table.
    pub json: bool,
    /// After each batch its records, as JSON lines of the native schema.
    pub records: bool,
    /// The addresses in the place of the pseudonyms in them, as far as their keys are kept here.
    pub reveal: bool,
    /// Only this batch: boot epoch and sequence.
    pub only: Option<(u64, u64)>,
}

/// Why it cannot be told what was sent.
#[derive(Debug, Error)]
pub enum SentError {
    /// A folder or file of the state cannot be read. Remedy: run it as the sensor's user.
    #[error(transparent)]
    Unreadable(#[from] SpoolError),
    /// There is no such folder. Remedy: `--state-dir`.
    #[error("{0} is no folder; name the sensor's with --state-dir")]
    NoFolder(String),
    /// There is no such batch.
    #[error("batch {0}-{1} is not kept here")]
    NoBatch(u64, u64),
    /// The keys of the pseudonyms cannot be used.
    #[error("pseudonyms cannot be revealed: {0}")]
    Reveal(#[from] RevealError),
    /// Whoever reads has gone.
    #[error("cannot write")]
    Write(#[from] io::Error),
}

/// A batch as a JSON line.
#[derive(Serialize)]
struct Line<'a> {
    boot_epoch: u64,
    sequence: u64,
    whereabouts: &'static str,
    bytes: usize,
    #[serde(flatten)]
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Whole {
        member: &'a str,
        sensor: &'a str,
        records: u32,
        start_ms: u64,
        end_ms: u64,
        sealed_ms: u64,
        sensor_version: &'a str,
        blake3: String,
        previous_blake3: String,
        object_sha256: String,
        /// Of the pseudonyms in it; `null` when there are none.
        key_epoch: Option<u32>,
        books: &'a Books,
    },
    Damaged {
        fault: String,
    },
}

/// Writes what is kept; gives how many batches are damaged.
///
/// # Errors
/// When the folder cannot be read or nobody reads what is written.
pub fn sent(
    state_dir: &Path,
    options: &SentOptions,
    out: &mut impl Write,
) -> Result<u64, SentError> {
    if !state_dir.is_dir() {
        return Err(SentError::NoFolder(state_dir.display().to_string()));
    }
    let kept = KeptBatches::list(state_dir)?;
    let mut totals = Totals::default();
    let mut revealer = if options.reveal { Some(Revealer::open(state_dir)?) } else { None };
    if !options.json {
        writeln!(
            out,
            "{:<31} {:<8} {:>8} {:>9} {:>6}  {:<19}  {:<19}  KEY EPOCH",
            "BATCH", "STATE", "RECORDS", "BYTES", "B/FLOW", "FROM (UTC)", "TO"
        )?;
    }
    let is_asked = |batch: &&KeptBatch| {
        options.only.is_none_or(|only| only == (batch.boot_epoch, batch.sequence))
    };
    for batch in kept.batches.iter().filter(is_asked) {
        // One that has gone meanwhile was sent and is not kept any more.
        let Some(bytes) = batch.read()? else { continue };
        let opened = open(&bytes);
        totals.count(batch, &bytes, opened.as_ref().ok());
        if options.json {
            serde_json::to_writer(&mut *out, &line(batch, &bytes, &opened))
                .map_err(io::Error::from)?;
            out.write_all(b"\n")?;
        } else {
            row(batch, &bytes, &opened, out)?;
        }
        if options.records
            && let Ok(Batch { header, mut records }) = opened
        {
            if let Some((revealer, number)) = revealer.as_mut().zip(header.key_epoch) {
                for record in &mut records {
                    revealer.reveal(number, record)?;
                }
            }
            let mut lines = Vec::new();
            JsonLines::new(true).write(&records, &mut lines);
            out.write_all(&lines)?;
        }
    }
    if let Some((boot_epoch, sequence)) = options.only.filter(|_| totals.batches() == 0) {
        return Err(SentError::NoBatch(boot_epoch, sequence));
    }
    if !options.json {
        totals.write(kept.removed, out)?;
    }
    out.flush()?;
    Ok(totals.damaged)
}

#[derive(Default)]
struct Totals {
    /// Batches, records and bytes that wait, were refused, were sent.
    each: [(u64, u64, u64); 3],
    damaged: u64,
}

impl Totals {
    fn count(&mut self, batch: &KeptBatch, bytes: &[u8], opened: Option<&Batch>) {
        let (batches, records, total) = &mut self.each[batch.whereabouts as usize];
        *batches += 1;
        *records += opened.map_or(0, |batch| u64::from(batch.header.records));
        *total += bytes.len() as u64;
        self.damaged += u64::from(opened.is_none());
    }

    fn batches(&self) -> u64 {
        self.each.iter().map(|(batches, ..)| batches).sum()
    }

    fn write(&self, removed: u64, out: &mut impl Write) -> io::Result<()> {
        let states = ["wait", "were refused", "were sent"];
        for ((batches, records, bytes), state) in self.each.iter().zip(states) {
            if *batches > 0 {
                writeln!(out, "{batches} batches {state}: {records} records in {bytes} bytes")?;
            }
        }
        if self.batches() == 0 {
            writeln!(out, "no batch is kept here")?;
        }
        if removed > 0 {
            writeln!(out, "{removed} more were sent and are not kept any more")?;
        }
        if self.damaged > 0 {
            writeln!(out, "{} of them are damaged on this disk", self.damaged)?;
        }
        Ok(())
    }
}

fn name(whereabouts: Whereabouts) -> &'static str {
    match whereabouts {
        Whereabouts::Waiting => "waiting",
        Whereabouts::Refused => "refused",
        Whereabouts::Sent => "sent",
    }
}

fn row(
    batch: &KeptBatch,
    bytes: &[u8],
    opened: &Result<Batch, OpenError>,
    out: &mut impl Write,
) -> io::Result<()> {
    let id = format!("{}-{}", batch.boot_epoch, batch.sequence);
    let state = name(batch.whereabouts);
    let length = bytes.len();
    match opened {
        Ok(Batch { header, .. }) => {
            let each = length as u64 * 10 / u64::from(header.records.max(1));
            writeln!(
                out,
                "{id:<31} {state:<8} {:>8} {length:>9} {:>6}  {:<19}  {:<19}  {}",
                header.records,
                format!("{}.{}", each / 10, each % 10),
                moment(header.start_ms),
                moment(header.end_ms),
                header.key_epoch.map_or_else(|| "none".to_owned(), |epoch| epoch.to_string())
            )
        }
        Err(error) => writeln!(out, "{id:<31} {state:<8} {:>8} {length:>9}  damaged: {error}", "?"),
    }
}

/// A time to the second, for people; the number where no calendar has it.
fn moment(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| ms.to_string(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn line<'a>(batch: &KeptBatch, bytes: &[u8], opened: &'a Result<Batch, OpenError>) -> Line<'a> {
    let content = match opened {
        Ok(Batch { header, .. }) => Content::Whole {
            member: header.member.as_str(),
            sensor: header.sensor.as_str(),
            records: header.records,
            start_ms: header.start_ms,
            end_ms: header.end_ms,
            sealed_ms: header.sealed_ms,
            sensor_version: &header.sensor_version,
            // It was opened, so it is whole.
            blake3: batch_blake3(bytes).map(|hash| hex(&hash)).unwrap_or_default(),
            previous_blake3: hex(&header.previous_blake3),
            object_sha256: hex(&header.object_sha256),
            key_epoch: header.key_epoch,
            books: &header.books,
        },
        Err(error) => Content::Damaged { fault: error.to_string() },
    };
    Line {
        boot_epoch: batch.boot_epoch,
        sequence: batch.sequence,
        whereabouts: name(batch.whereabouts),
        bytes: bytes.len(),
        content,
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble| char::from_digit(u32::from(nibble), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect()
}
