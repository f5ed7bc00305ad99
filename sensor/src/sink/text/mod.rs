//! Takes records; writes them as lines of text, in one of four forms, to a file, a series of files or
//! standard output. A line is written whole or not at all, unless the disk is full.

mod csv;
mod ecs;
mod native;
#[cfg(test)]
mod tests;
mod write;
mod zeek;

use std::io::Write as _;

use flow::{Books, Record};

use self::csv::Csv;
#[cfg(test)]
pub(super) use self::csv::HEADER as CSV_HEADER;
use super::files::Files;
use super::known::Known;
use super::{Sink, SinkError, SinkTotals};
use ecs::Ecs;
use native::Native;
use zeek::Zeek;

/// Text that is collected before it is written, bytes: so much that a system call costs nothing beside it.
const BUFFER_BYTES: usize = 256 << 10;
/// Records between two looks whether a file is full: it gets longer than it may by as many lines at most.
const RECORDS_PER_LOOK: usize = 16;

/// A form of text.
trait Format: Send {
    /// The output's name.
    fn name(&self) -> &'static str;

    /// What a file begins with.
    fn begin(&mut self, _opened_ms: u64, _out: &mut Vec<u8>) {}

    /// Records, in order.
    fn write(&mut self, records: &[Record], out: &mut Vec<u8>);

    /// What a file ends with.
    fn end(&mut self, _now_ms: u64, _out: &mut Vec<u8>) {}
}

/// Lines of the native schema in memory, for whoever compares formats.
pub struct JsonLines(Native);

impl JsonLines {
    /// With the Community ID as the output has it, or without, since it follows from the other fields.
    #[must_use]
    pub const fn new(community_ids: bool) -> Self {
        Self(if community_ids { Native::new() } else { Native::without_community_ids() })
    }

    /// Appends a line for each record.
    pub fn write(&mut self, records: &[Record], out: &mut Vec<u8>) {
        self.0.write(records, out);
    }
}

/// Writes records as text.
pub struct TextSink {
    format: Box<dyn Format>,
    files: Files,
    buffer: Vec<u8>,
    /// Records whose lines are in the buffer.
    records_held: u64,
    /// Records of earlier calls that were in the buffer when it could not be written.
    records_unwritten: u64,
    begun: bool,
}

impl TextSink {
    /// JSON lines with our own names.
    #[must_use]
    pub fn native(files: Files) -> Self {
        Self::new(Box::new(Native::new()), files)
    }

    /// JSON lines with the names of the Elastic Common Schema; `interfaces` are the names of those
    /// that are listened on, in the order of the configuration.
    #[must_use]
    pub fn ecs(files: Files, interfaces: &[String]) -> Self {
        Self::new(Box::new(Ecs::new(interfaces)), files)
    }

    /// Zeek's `conn.log`.
    #[must_use]
    pub fn zeek(files: Files) -> Self {
        Self::new(Box::new(Zeek::new()), files)
    }

    /// CSV with a header.
    #[must_use]
    pub fn csv(files: Files) -> Self {
        Self::new(Box::new(Csv::new()), files)
    }

    fn new(format: Box<dyn Format>, files: Files) -> Self {
        let buffer = Vec::with_capacity(2 * BUFFER_BYTES);
        Self { format, files, buffer, records_held: 0, records_unwritten: 0, begun: false }
    }

    fn begin(&mut self) {
        if !self.begun {
            self.format.begin(self.files.opened_ms(), &mut self.buffer);
            self.begun = true;
        }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let written = self.files.write_all(&self.buffer).and_then(|()| self.files.flush());
        self.buffer.clear();
        written.map_err(|source| SinkError::Write { to: self.files.to_string(), source })?;
        self.records_held = 0;
        Ok(())
    }

    /// Ends the file in hand, and begins the next one when there is more to come.
    fn turn(&mut self, now_ms: u64, goes_on: bool) -> Result<(), SinkError> {
        self.begin();
        self.format.end(now_ms.max(self.files.opened_ms()), &mut self.buffer);
        self.flush()?;
        let turned = if goes_on { self.files.next(now_ms) } else { self.files.complete() };
        turned.map_err(|source| SinkError::Write { to: self.files.to_string(), source })?;
        self.begun = false;
        if goes_on {
            self.begin();
        }
        Ok(())
    }

    fn write(&mut self, records: &[Record], now_ms: u64) -> Result<(), SinkError> {
        self.begin();
        for some in records.chunks(RECORDS_PER_LOOK) {
            if self.files.is_due(self.buffer.len(), now_ms) {
                self.turn(now_ms, true)?;
            }
            self.format.write(some, &mut self.buffer);
            self.records_held += some.len() as u64;
            if self.buffer.len() >= BUFFER_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Does something that writes out what is held; when that fails, what earlier calls left is counted as
    /// not written (what this call brought, whoever called counts).
    fn counting(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        let held = self.records_held;
        let done = act(self);
        if done.is_err() {
            self.records_unwritten += held;
            self.records_held = 0;
        }
        done
    }
}

impl Sink for TextSink {
    fn name(&self) -> &'static str {
        self.format.name()
    }

    fn handle_records(
        &mut self,
        records: &[Record],
        _books: &Books,
        now_ms: u64,
    ) -> Result<(), SinkError> {
        self.counting(|sink| sink.write(records, now_ms))
    }

    fn advance(&mut self, _books: &Books, now_ms: u64) -> Result<(), SinkError> {
        self.counting(|sink| {
            sink.begin();
            if sink.files.is_due(sink.buffer.len(), now_ms) {
                sink.turn(now_ms, true)
            } else {
                sink.flush()
            }
        })
    }

    fn finish(&mut self, _books: &Books, now_ms: u64) -> Result<(), SinkError> {
        self.counting(|sink| sink.turn(now_ms, false))
    }

    fn totals(&self) -> SinkTotals {
        SinkTotals {
            records_unwritten: self.records_unwritten,
            files_deleted: self.files.deleted(),
            ..SinkTotals::default()
        }
    }
}

/// Appends the tunnels as a JSON list, outermost first, when there are any.
fn tunnels(out: &mut Vec<u8>, before: &str, known: &Known) {
    let mut any = false;
    for tunnel in known.outer.tunnels() {
        out.extend_from_slice(if any { b"," } else { before.as_bytes() });
        if !any {
            out.push(b'[');
        }
        write!(out, "\"{tunnel}\"").expect("memory takes everything");
        any = true;
    }
    if any {
        out.push(b']');
    }
}
