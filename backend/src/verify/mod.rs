//! Takes the evidence, and what the database knows of sensors and batches; says of each sensor whether every
//! batch is there, whole, signed by its key and in its place in the chain, and names the first break. Changes
//! nothing, and needs no lock: a `serve` may run beside it.

mod chain;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;
use uplink::{OpenError, batch_blake3, open_header, open_signed};

pub use chain::{Break, Findings};
use chain::{Link, Place, Stored, walk};

use crate::database::Database;
use crate::evidence::{self, Evidence};

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Only this sensor.
    pub sensor: Option<String>,
    /// These files in place of the folder's evidence: files of it, or single batches as a sensor keeps them.
    pub files: Vec<PathBuf>,
}

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// By sensor.
    pub sensors: BTreeMap<String, Findings>,
    /// Breaks in bytes that do not say whose they are: file and reason.
    pub damaged: Vec<(String, String)>,
}

impl Verdict {
    /// How many breaks there are.
    #[must_use]
    pub fn breaks(&self) -> u64 {
        self.sensors.values().map(|findings| findings.breaks).sum::<u64>()
            + self.damaged.len() as u64
    }
}

/// Checks the evidence.
///
/// # Errors
///
/// When evidence or database cannot be read.
pub async fn verify(database: &Database, evidence: &Evidence, asked: &Asked) -> Result<Verdict> {
    let keys = database.public_keys().await?;
    if let Some(sensor) = &asked.sensor {
        anyhow::ensure!(keys.contains_key(sensor), "there is no sensor {sensor}");
    }
    // Before the files: what is stored meanwhile is in a file, and not yet among these.
    let stored = if asked.files.is_empty() { database.stored_batches().await? } else { Vec::new() };
    let days: BTreeSet<String> = evidence.days()?.into_iter().collect();
    let mut known = BTreeMap::<String, BTreeMap<Place, Stored>>::new();
    for batch in stored {
        let day_is_kept = days.contains(&evidence::day(batch.received_ms));
        let place = (batch.boot_epoch, batch.sequence);
        let stored = Stored { records: batch.records, day_is_kept };
        known.entry(batch.sensor).or_default().insert(place, stored);
    }
    let files = if asked.files.is_empty() { evidence.files()? } else { asked.files.clone() };
    let mut judge = Judge { keys, ..Judge::default() };
    for file in files {
        let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
        judge.handle_file(&file, &bytes);
    }
    Ok(judge.verdict(&known, asked.sensor.as_deref()))
}

/// Collects what the files say.
#[derive(Default)]
struct Judge {
    keys: BTreeMap<String, [u8; 32]>,
    links: BTreeMap<String, BTreeMap<Place, Link>>,
    verdict: Verdict,
}

impl Judge {
    fn handle_file(&mut self, file: &Path, bytes: &[u8]) {
        if open_header(bytes).is_ok() {
            return self.handle_batch(file, bytes);
        }
        let (batches, has_rest) = evidence::batches(bytes);
        for batch in batches {
            self.handle_batch(file, batch);
        }
        if has_rest {
            self.damaged(file, "bytes that are no batch".to_owned());
        }
    }

    fn damaged(&mut self, file: &Path, reason: String) {
        self.verdict.damaged.push((file.display().to_string(), reason));
    }

    fn handle_batch(&mut self, file: &Path, bytes: &[u8]) {
        // Without a right checksum nothing that it says of itself can be believed.
        let (header, blake3) = match open_header(bytes).and_then(|h| Ok((h, batch_blake3(bytes)?)))
        {
            Ok(both) => both,
            Err(error) => return self.damaged(file, error.to_string()),
        };
        let sensor = header.sensor.to_string();
        let place = (header.boot_epoch, header.sequence);
        let findings = self.verdict.sensors.entry(sensor.clone()).or_default();
        let Some(key) = self.keys.get(&sensor) else {
            findings.note(Some(place), "its sensor was never enrolled here".to_owned());
            return;
        };
        match open_signed(bytes, key) {
            Ok(_) => {}
            Err(OpenError::Signature { .. }) => {
                findings.note(Some(place), "it is not signed by its sensor's key".to_owned());
                return;
            }
            Err(error) => {
                findings.note(Some(place), error.to_string());
                return;
            }
        }
        let link = Link {
            blake3,
            previous_blake3: header.previous_blake3,
            records: u64::from(header.records),
            records_sealed: header.books.records_sealed,
            records_evicted: header.books.records_evicted,
        };
        let links = self.links.entry(sensor).or_default();
        // The same bytes may be there twice: kept, and then not committed to the lake before a crash.
        if links.insert(place, link.clone()).is_some_and(|before| before != link) {
            findings.note(Some(place), "there are two different ones of this number".to_owned());
        }
    }

    fn verdict(
        mut self,
        known: &BTreeMap<String, BTreeMap<Place, Stored>>,
        only: Option<&str>,
    ) -> Verdict {
        for sensor in known.keys() {
            self.verdict.sensors.entry(sensor.clone()).or_default();
        }
        let (no_links, none_stored) = (BTreeMap::new(), BTreeMap::new());
        for (sensor, findings) in &mut self.verdict.sensors {
            let links = self.links.get(sensor).unwrap_or(&no_links);
            walk(links, known.get(sensor).unwrap_or(&none_stored), findings);
        }
        if let Some(only) = only {
            self.verdict.sensors.retain(|sensor, _| sensor == only);
        }
        self.verdict
    }
}

/// Writes a verdict for people.
///
/// # Errors
///
/// When nobody reads it.
pub fn print(verdict: &Verdict, out: &mut impl Write) -> std::io::Result<()> {
    for (sensor, findings) in &verdict.sensors {
        let Findings { batches, records, records_evicted, batches_not_kept, .. } = findings;
        writeln!(out, "sensor {sensor}: {batches} batches with {records} records")?;
        if *records_evicted > 0 {
            writeln!(out, "  {records_evicted} records were given up by the sensor, as it says")?;
        }
        if *batches_not_kept > 0 {
            writeln!(out, "  {batches_not_kept} batches are of days that are not kept any more")?;
        }
        if let Some(Break { batch, reason }) = &findings.first_break {
            let more = match findings.breaks - 1 {
                0 => String::new(),
                more => format!(" ({more} more breaks)"),
            };
            match batch {
                Some((epoch, sequence)) => {
                    writeln!(out, "  BROKEN at batch {epoch}-{sequence}: {reason}{more}")?;
                }
                None => writeln!(out, "  BROKEN: {reason}{more}")?,
            }
        }
    }
    for (file, reason) in &verdict.damaged {
        writeln!(out, "BROKEN: {file}: {reason}")?;
    }
    match verdict.breaks() {
        0 => writeln!(out, "every batch that is kept is whole, signed and in its place"),
        breaks => writeln!(out, "breaks: {breaks}"),
    }
}
