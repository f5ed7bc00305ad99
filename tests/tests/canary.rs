//! 64 KiB of random payload, of which every eight bytes occur once, go over a wire to a running sensor, in every
//! encapsulation there is. Then no eight bytes of it are in anything that the sensor holds or has written: the
//! kernel's tables, the memory of the process (what a core file would have), records, batches as sealed and
//! decompressed, the summary, the log.
//!
//! That the search can find is shown with the sender's own memory, and with the addresses of each frame's innermost
//! header, which are everywhere.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::frames::{SAMPLES, Sample, samples};
use tests::{
    Needles, PIECE_BYTES, Process, Random, VethPair, contains, enrol_alone, memory, program, tables,
};

const FRAMES: usize = 64;
const PAYLOAD_BYTES: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(30);

/// The frames, and their payloads.
fn canary() -> (Vec<Sample>, Vec<Vec<u8>>) {
    let mut random = Random::new(0x00ca_4a17);
    let mut payloads = Vec::new();
    let mut frames = Vec::new();
    while frames.len() < FRAMES {
        frames.extend(samples(&mut || random.bytes(PAYLOAD_BYTES)));
    }
    frames.truncate(FRAMES);
    for one in &frames {
        payloads.push(one.frame.get(one.payload_start..).unwrap_or_default().to_vec());
    }
    (frames, payloads)
}

/// A running sensor and where it writes.
struct Sensor {
    process: Process,
    folder: PathBuf,
}

impl Sensor {
    fn start(pair: &VethPair, folder: &Path) -> Result<Self> {
        let path = |name: &str| folder.join(name);
        enrol_alone(&path("state"))?;
        // Flows end at once, batches are sealed at once, and a stop does not wait for a backend.
        let config = "[flows]\nidle_timeout_ms = 100\n\
                      [uplink]\nbatch_interval_ms = 10\nshutdown_grace_ms = 0\n\
                      [privacy]\nown_prefixes = []\n";
        fs::write(path("sensor.toml"), config)?;
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", pair.span_namespace()])
            .arg(program("spanwatch-sensor")?)
            .args(["run", "--interface", &VethPair::span_end(0)])
            .args(["--output", "json", "--output", "uplink"])
            .arg("--config")
            .arg(path("sensor.toml"))
            .arg("--state-dir")
            .arg(path("state"))
            .arg("--out")
            .arg(path("records.json"))
            .arg("--summary")
            .arg(path("summary.json"))
            .env("RUST_LOG", "trace");
        let mut process = Process::start(&mut command, &path("sensor.log"))?;
        process.wait_until("attached", PATIENCE, |_| pair.is_attached(0).unwrap_or(false))?;
        Ok(Self { process, folder: folder.to_owned() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Waits until all frames were seen, and records of them written and sealed.
    fn wait_for(&mut self, frames: u64) -> Result<()> {
        let (summary, state) = (self.path("summary.json"), self.path("state"));
        self.process.wait_until("done with the frames", PATIENCE, |_| {
            let text = fs::read(&summary).unwrap_or_default();
            let now: Value = serde_json::from_slice(&text).unwrap_or_default();
            let reached = |key: &str, least: u64| now[key].as_u64().is_some_and(|is| is >= least);
            reached("frames_seen", frames)
                && reached("records_sealed", 1)
                && files(&state).is_ok_and(|files| files.iter().any(|file| is_batch(file)))
        })
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

fn is_batch(file: &Path) -> bool {
    file.parent().is_some_and(|folder| folder.ends_with("spool"))
        && fs::read(file).is_ok_and(|bytes| uplink::open(&bytes).is_ok())
}

/// What is in a batch: each column that is compressed as it was before, and all that reading it gives.
fn opened(batch: &[u8]) -> Result<Vec<Vec<u8>>> {
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let opened = uplink::open(batch)?;
    let mut parts = vec![serde_json::to_vec(&opened.records)?, format!("{opened:?}").into_bytes()];
    let starts = batch.windows(ZSTD.len()).enumerate().filter(|(_, bytes)| *bytes == ZSTD);
    for (at, _) in starts {
        let mut column = Vec::new();
        zstd::Decoder::new(batch.get(at..).unwrap_or_default())?
            .single_frame()
            .read_to_end(&mut column)
            .context("decompressing a column")?;
        parts.push(column);
    }
    Ok(parts)
}

/// Collects what was searched, and where a piece was found.
struct Search<'a> {
    needles: &'a Needles,
    found: Vec<String>,
    bytes: u64,
}

impl Search<'_> {
    fn look(&mut self, what: &str, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        for at in self.needles.find(bytes) {
            self.found.push(format!("{what}, byte {at}"));
        }
    }
}

#[test]
fn no_byte_of_payload_is_anywhere() -> Result<()> {
    let Some(pair) = VethPair::new(1)? else { return Ok(()) };
    let (frames, payloads) = canary();
    let needles = Needles::new(payloads.iter().map(Vec::as_slice))?;
    assert_eq!(needles.len(), FRAMES * (PAYLOAD_BYTES - PIECE_BYTES + 1));
    for one in &frames {
        let found = needles.find(&one.frame);
        assert_eq!(found.first(), Some(&one.payload_start), "{}: the search finds", one.name);
    }
    // This process holds the frames: a look into its memory as a core file would have it finds them.
    let mut found = 0;
    memory(std::process::id(), PIECE_BYTES, &mut |_, bytes| found += needles.find(bytes).len())?;
    ensure!(found > 0, "the search finds what a process holds");

    let folder = tempfile::tempdir()?;
    let mut sensor = Sensor::start(&pair, folder.path())?;
    pair.send(0, frames.iter().map(|one| one.frame.as_slice()))?;
    sensor.wait_for(FRAMES as u64)?;

    // While it runs: the kernel's tables and the memory of the process.
    let pid = sensor.process.id();
    let mut search = Search { needles: &needles, found: Vec::new(), bytes: 0 };
    let tables = tables(pid)?;
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    ensure!(names.contains(&"SETS") && names.contains(&"LOG"), "all its tables: {names:?}");
    for table in &tables {
        search.look(&format!("table {}", table.name), &table.bytes);
    }
    let in_tables = search.bytes;
    let mut addresses = 0;
    let first = frames.first().context("there are frames")?;
    memory(pid, PIECE_BYTES, &mut |mapping, bytes| {
        addresses += u32::from(contains(bytes, &first.source_octets()));
        search.look(mapping, bytes);
    })?;
    let in_memory = search.bytes - in_tables;

    // When it has ended: everything that it has written.
    let (records, summary) = (sensor.path("records.json"), sensor.path("summary.json"));
    let (log, state) = (sensor.path("sensor.log"), sensor.path("state"));
    sensor.process.terminate(PATIENCE)?;
    let told = fs::read_to_string(&log)? + &fs::read_to_string(&summary)?;
    let records_text = fs::read_to_string(&records)?;
    let mut batches = 0;
    let mut batch_records = 0;
    for file in files(&state)?.into_iter().chain([records, summary.clone(), log]) {
        let name = file.display().to_string();
        let bytes = fs::read(&file)?;
        search.look(&name, &bytes);
        if is_batch(&file) {
            batches += 1;
            batch_records += uplink::open(&bytes)?.records.len();
            for (part, bytes) in opened(&bytes)?.iter().enumerate() {
                search.look(&format!("{name}, opened, part {part}"), bytes);
            }
        }
    }
    println!(
        "{} pieces; {in_tables} bytes of tables, {in_memory} of memory, {} of files, {batches} batches",
        needles.len(),
        search.bytes - in_tables - in_memory
    );
    assert_eq!(search.found, Vec::<String>::new(), "payload left the frame");

    // What was searched is what the frames went through.
    let summary: Value = serde_json::from_slice(&fs::read(&summary)?)?;
    assert_eq!(summary["frames_seen"].as_u64(), Some(FRAMES as u64));
    assert_eq!(batch_records as u64, summary["records_out"].as_u64().unwrap_or_default());
    ensure!(addresses > 0, "the memory that was read is the sensor's");
    let unseen = frames.iter().take(SAMPLES).filter(|one| {
        let in_tables = tables.iter().any(|table| contains(&table.bytes, &one.source_octets()));
        !in_tables || !records_text.contains(&format!("\"{}\"", one.source))
    });
    let unseen: Vec<&str> = unseen.map(|one| one.name).collect();
    for one in &frames {
        let address = one.source.to_string();
        ensure!(!told.contains(&address), "{}: its address is in log or summary", one.name);
    }
    assert_eq!(unseen, Vec::<&str>::new(), "the flow of each frame is in tables and records");
    Ok(())
}
