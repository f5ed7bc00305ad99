//! What the batch format costs: bytes and CPU time a flow, beside other formats that hold the same fields of the same
//! records. In: made records (see [`mix`]), or those of a capture. Out: a table, or JSON.
//!
//! **Method.** All batches go through one format, then through the next, in rounds, on one thread; what is shown is the
//! median over all batches and rounds of the CPU time of that thread. What else the machine does counts less so, but it
//! does: a core's other half and the caches are shared. Bytes are the mean of all batches.
//!
//! **What is compared.** Every format has the same fields of a record. Of ours everything counts: header,
//! columns, compression, BLAKE3 checksum, Ed25519 signature, and at reading the signature's check. The others
//! have neither header nor signature. Reading ends with records (`spanwatch`), with columns in memory (Arrow),
//! with typed fields of each line (JSON), with the numbers of each record (IPFIX).

mod arrow;
mod formats;
mod ipfix;
mod json;
pub(crate) mod mix;
mod table;

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use flow::Record;
use rustix::time::{ClockId, clock_gettime};
use sensor::{AggregatorSettings, Replay, replay_all};
use uplink::RECORDS_MAX;

use formats::Format;
use mix::Mix;
use table::{Figure, Parts};

/// What `codec` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Print JSON: `{"rows": [{"name", "bytes_per_flow", "encode_ns", "decode_ns"}]}`.
    #[arg(long)]
    json: bool,
    /// Records in a batch.
    #[arg(long, default_value_t = 8_192, value_parser = clap::value_parser!(u32).range(1..=i64::from(RECORDS_MAX)))]
    records: u32,
    /// Batches.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    batches: u16,
    /// How often each goes through each format.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=999))]
    runs: u16,
    /// Seed of the records.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Records of this capture in place of made ones; --batches and --seed count for nothing then.
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Only the row of this name; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let batches = if let Some(file) = &options.capture {
        captured(file, options.records as usize)?
    } else {
        let mut mix = Mix::new(options.seed);
        (0..options.batches).map(|_| mix.records(options.records as usize)).collect()
    };
    let names = formats::NAMES
        .iter()
        .filter(|name| options.only.is_empty() || options.only.iter().any(|only| only == *name));
    let mut rows = Vec::new();
    for name in names {
        rows.push((*name, formats::made(name)?, Samples::default()));
    }
    ensure!(!rows.is_empty(), "no row is called so; there are {}", formats::NAMES.join(", "));
    for _ in 0..options.runs {
        for (name, format, samples) in &mut rows {
            for batch in &batches {
                samples.take(format.as_mut(), batch).with_context(|| format!("row {name}"))?;
            }
        }
    }
    let figures: Vec<_> = rows.into_iter().map(|(name, _, samples)| samples.figure(name)).collect();
    let text = if options.json {
        table::json(&figures)?
    } else {
        let parts = parts(&batches, options.runs)?;
        let about = match &options.capture {
            Some(file) => format!("records of {}", file.display()),
            None => format!("made records, seed {}", options.seed),
        };
        table::text(&about, &batches, &figures, &parts)
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

/// The records of a capture, in whole batches; less than one batch is one.
fn captured(file: &Path, records: usize) -> Result<Vec<Vec<Record>>> {
    let named = || file.display().to_string();
    let mut replay = Replay::new(AggregatorSettings::default(), 250);
    let mut all = Vec::new();
    let source = BufReader::new(File::open(file).with_context(named)?);
    replay_all(&mut replay, source, &mut |record| all.push(record)).with_context(named)?;
    replay.finish(&mut |record| all.push(record));
    ensure!(!all.is_empty(), "{} has no flows", file.display());
    let whole = all.len() / records * records;
    all.truncate(if whole == 0 { all.len() } else { whole });
    Ok(all.chunks(records).map(<[Record]>::to_vec).collect())
}

/// CPU time of this thread, nanoseconds.
fn cpu_ns() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "a difference of two of them is small")]
    let (seconds, nanoseconds) = (now.tv_sec as f64, now.tv_nsec as f64);
    seconds * 1e9 + nanoseconds
}

/// How long it takes, nanoseconds, and what it gives.
fn timed<T>(act: impl FnOnce() -> T) -> (f64, T) {
    let before = cpu_ns();
    let given = act();
    (cpu_ns() - before, given)
}

/// Of one row.
#[derive(Default)]
struct Samples {
    bytes: Vec<f64>,
    encode_ns: Vec<f64>,
    decode_ns: Vec<f64>,
}

impl Samples {
    fn take(&mut self, format: &mut dyn Format, records: &[Record]) -> Result<()> {
        let (encode_ns, bytes) = timed(|| format.encode(records));
        let bytes = bytes?;
        let (decode_ns, read) = timed(|| format.decode(&bytes));
        let read = read?;
        ensure!(read == records.len(), "{read} records are read, not {}", records.len());
        let count = count(records.len());
        self.bytes.push(count_of(&bytes) / count);
        self.encode_ns.push(encode_ns / count);
        self.decode_ns.push(decode_ns / count);
        Ok(())
    }

    fn figure(self, name: &'static str) -> Figure {
        let mean = self.bytes.iter().sum::<f64>() / count(self.bytes.len());
        let (encode_ns, decode_ns) = (median(self.encode_ns), median(self.decode_ns));
        Figure { name, bytes_per_flow: mean, encode_ns, decode_ns }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 of anything")]
fn count(count: usize) -> f64 {
    count as f64
}

fn count_of(bytes: &[u8]) -> f64 {
    count(bytes.len())
}

/// What sealing and opening are made of, nanoseconds a flow.
fn parts(batches: &[Vec<Record>], runs: u16) -> Result<Parts> {
    let mut whole = formats::Spanwatch::new(true)?;
    let mut plain = formats::Spanwatch::new(false)?;
    let mut samples: [Vec<f64>; 7] = std::array::from_fn(|_| Vec::new());
    for _ in 0..runs {
        for records in batches {
            let flows = count(records.len());
            let mut note = |at: usize, ns: f64| samples[at].push(ns / flows);
            let (ns, sealed) = timed(|| whole.encode(records));
            let sealed = sealed?;
            note(0, ns);
            let (ns, unpacked) = timed(|| plain.encode(records));
            let unpacked = unpacked?;
            note(1, ns);
            note(2, timed(|| blake3::hash(&unpacked)).0);
            note(3, timed(|| blake3::hash(&sealed)).0);
            note(4, timed(|| whole.encode(&[])).0);
            note(5, timed(|| whole.decode(&sealed)).0);
            note(6, timed(|| whole.verify(&sealed)).0);
        }
    }
    let [seal, plain_seal, plain_hash, hash, empty_seal, open, verify] = samples.map(median);
    Ok(Parts {
        columns: plain_seal - plain_hash - empty_seal,
        compression: (seal - hash) - (plain_seal - plain_hash),
        checksum: hash,
        signature: empty_seal,
        seal,
        verify: verify - hash,
        unpack: open - verify,
        open,
    })
}

#[cfg(test)]
mod tests;
