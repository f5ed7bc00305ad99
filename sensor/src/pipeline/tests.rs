//! The stages wired together: a capture made here, and a source that pretends to be the kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::bounded;
use flow::{Address, Books, FlowKey, Kind, Observation, OpeningTime, Outer, TcpSeen, protocol};
use tempfile::TempDir;

use super::drain::Drain;
use super::live::{Counts, Source, SourceError, SourceFacts, run_source};
use super::{Options, Outcome, PipelineError, replay};
use crate::capture::{Folded, LogFill};
use crate::config::{Config, Cpu, OutputKind};
use crate::summary::Summary;

/// An Ethernet frame with an IPv4 header and a TCP one.
fn frame(host: u8, port: u16, flags: u8) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol::TCP, 0, 0]);
    frame.extend([10, 0, 0, host, 192, 0, 2, 1]);
    frame.extend(port.to_be_bytes());
    frame.extend(443_u16.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    frame
}

fn capture(frames: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let words =
        |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    let mut bytes = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    for (time_s, frame) in frames {
        let length = u32::try_from(frame.len()).expect("a short frame");
        bytes.extend(words(&[*time_s, 0, length, length]));
        bytes.extend(frame);
    }
    bytes
}

/// A folder with a capture of 300 flows, an ARP frame and a broken one.
fn prepared() -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a temporary folder");
    let mut frames: Vec<(u32, Vec<u8>)> = (0..300_u16)
        .map(|at| (1_000 + u32::from(at), frame(u8::try_from(at % 7).unwrap_or(0), at, 2)))
        .collect();
    let mut arp = vec![0; 42];
    (arp[12], arp[13]) = (0x08, 0x06);
    frames.push((1_300, arp));
    frames.push((1_300, frame(1, 1, 2)[..20].to_vec()));
    let file = folder.path().join("made.pcap");
    fs::write(&file, capture(&frames)).expect("the folder takes a file");
    (folder, file)
}

fn json_to(file: PathBuf) -> Config {
    let mut config = Config::default();
    config.output.kinds = vec![OutputKind::Json, OutputKind::Null];
    config.output.json_file = Some(file);
    config
}

fn summary_to(file: PathBuf) -> Options {
    Options { summary_file: Some(file), ..Options::default() }
}

fn read_summary(file: &Path) -> serde_json::Value {
    let text = fs::read_to_string(file).expect("the summary was written");
    serde_json::from_str(&text).expect("the summary is JSON")
}

#[test]
fn a_replay_gives_the_same_bytes_each_time_and_closes_its_books() {
    let (folder, file) = prepared();
    let outputs = ["a", "b"].map(|name| {
        let out = folder.path().join(name);
        let summary_file = folder.path().join(format!("{name}.json"));
        let outcome = replay(
            &json_to(out.clone()),
            &summary_to(summary_file.clone()),
            std::slice::from_ref(&file),
        )
        .expect("a replay can begin");
        assert_eq!(outcome.faults, Vec::<String>::new());
        let summary = read_summary(&summary_file);
        let number = |key: &str| summary[key].as_u64().unwrap_or(u64::MAX);
        assert_eq!(number("frames_seen"), 302);
        assert_eq!(number("packets_in_flows"), 300);
        assert_eq!(number("packets_in_records"), 300);
        assert_eq!(number("packets_not_ip"), 1);
        assert_eq!(summary["not_ip"]["arp"], 1);
        assert_eq!(number("packets_malformed"), 1);
        assert_eq!(summary["malformed"]["ip_header_cut"], 1);
        assert_eq!(number("records_out"), 300);
        assert_eq!(summary["balanced"], true);
        assert_eq!(summary["finished"], true);
        assert_eq!(summary["xdp_mode"], serde_json::Value::Null);
        fs::read_to_string(out).expect("the records were written")
    });
    assert_eq!(outputs[0].lines().count(), 300);
    assert!(outputs[0] == outputs[1], "the same input gives the same bytes");
}

/// A capture of 60,000 frames of conversations that open, go on, close, and open again.
fn busy_capture() -> Vec<u8> {
    let frames: Vec<(u32, Vec<u8>)> = (0..60_000_u32)
        .map(|number| {
            let random = number.wrapping_mul(0x9e37_79b9) >> 8;
            let port = u16::try_from(random % 4_001).unwrap_or(0);
            let flags = [0x02, 0x10, 0x18, 0x10, 0x11, 0x04][(random / 7) as usize % 6];
            (1_000 + number / 200, frame(u8::try_from(random % 11).unwrap_or(0), port, flags))
        })
        .collect();
    capture(&frames)
}

#[test]
fn shards_give_the_records_of_one_aggregator() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("busy.pcap");
    fs::write(&file, busy_capture()).expect("the folder takes a file");
    let records = [vec![], vec![0], vec![0, 1, 0, 1], vec![1; 7]].map(|cpus: Vec<u64>| {
        let out = folder.path().join("out");
        let mut config = json_to(out.clone());
        let cpu = |number: u64| number.to_string().parse::<Cpu>().expect("a small number");
        config.flows.cpus = cpus.into_iter().map(cpu).collect();
        let outcome = replay(&config, &Options::default(), std::slice::from_ref(&file))
            .expect("a replay can begin");
        assert_eq!(outcome.faults, Vec::<String>::new());
        assert!(outcome.summary.balanced, "{:?}", outcome.summary);
        assert_eq!(outcome.summary.packets_in_flows, 60_000);
        let text = fs::read_to_string(out).expect("the records were written");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    });
    assert!(records[0].len() > 10_000, "{} records", records[0].len());
    for others in &records[1..] {
        assert!(*others == records[0], "{} and {} records", others.len(), records[0].len());
    }
}

#[test]
fn a_faulty_file_is_named_and_its_good_frames_are_kept() {
    let (folder, good) = prepared();
    let cut = folder.path().join("cut.pcap");
    let bytes = fs::read(&good).expect("it was just written");
    fs::write(&cut, &bytes[..24 + 70 + 30]).expect("the folder takes a file");
    let missing = folder.path().join("missing.pcap");
    let out = folder.path().join("out");
    let outcome = replay(&json_to(out), &Options::default(), &[cut, missing, good])
        .expect("a replay can begin");
    assert_eq!(outcome.summary.frames_seen, 303);
    assert!(outcome.summary.balanced, "{:?}", outcome.summary);
    let faults = outcome.faults.join("\n");
    assert!(
        faults.contains("cut.pcap: the file ends inside the packet record at byte 94"),
        "{faults}"
    );
    assert!(faults.contains("missing.pcap: cannot open the file: No such file"), "{faults}");
    assert_eq!(outcome.summary.files.len(), 3);
}

#[test]
fn a_full_disk_is_an_error_and_no_panic() {
    let (_folder, file) = prepared();
    let outcome = replay(&json_to("/dev/full".into()), &Options::default(), &[file])
        .expect("a replay can begin");
    assert_eq!(
        outcome.faults,
        [
            "output `json`: cannot write /dev/full: No space left on device (os error 28)",
            "300 records did not get to an output that had failed",
        ]
    );
    assert_eq!(outcome.summary.frames_seen, 302);
    assert!(outcome.summary.balanced, "the frames were counted all the same");
}

#[test]
fn a_summary_never_takes_the_place_of_a_device_and_leaves_nothing_half_written() {
    let (folder, file) = prepared();
    let pipe = folder.path().join("pipe");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, rustix::fs::Mode::RWXU, 0)
        .expect("the folder takes a pipe");
    let reader = fs::File::options().read(true).write(true).open(&pipe).expect("an own pipe");
    let mut summary = Summary::default();
    summary.write(&pipe).expect("a pipe takes a few bytes");
    assert!(!pipe.metadata().expect("still there").is_file());
    drop(reader);
    let nowhere = folder.path().join("folder");
    fs::create_dir(&nowhere).expect("the folder is writable");
    summary.write(&nowhere).expect_err("a folder is no file");
    let (link, behind) = (folder.path().join("link"), folder.path().join("behind"));
    std::os::unix::fs::symlink(&behind, &link).expect("the folder is writable");
    summary.write(&link).expect("the folder takes a file");
    assert!(link.is_symlink() && read_summary(&behind)["balanced"] == false);
    let out = folder.path().join("out");
    replay(&json_to(out), &summary_to("/dev/null".into()), &[file]).expect("a replay can begin");
    let names = fs::read_dir(folder.path()).expect("it is there").count();
    assert_eq!(names, 6, "the capture, the records, the four from above, and nothing else");
    assert!(!Path::new("/dev/null").metadata().expect("it is there").is_file());
}

#[test]
fn an_uplink_without_an_identity_cannot_begin() {
    let (folder, file) = prepared();
    let mut config = Config::default();
    config.output.kinds = vec![OutputKind::Uplink];
    config.uplink.state_dir = folder.path().join("state");
    let error = replay(&config, &Options::default(), &[file]).expect_err("nobody has enrolled");
    assert!(matches!(error, PipelineError::Uplink { .. }), "{error:?}");
}

/// Gives the same observations at each drain until it is stopped, and keeps a few for after that.
struct Pretended {
    drains_left: u64,
    late: u64,
    counts: Books,
    /// Stops the run when the drains are used up.
    stop: crossbeam_channel::Sender<()>,
    fails: bool,
    folds: bool,
    panics: bool,
    /// Set when it is dropped, which is when a real one detaches.
    detached: Arc<AtomicBool>,
}

impl Source for Pretended {
    fn facts(&self) -> SourceFacts {
        SourceFacts { interfaces: vec!["span0".to_owned()], ..SourceFacts::default() }
    }

    fn drain(&mut self, visit: &mut dyn FnMut(Observation)) -> Result<Vec<Folded>, SourceError> {
        let observations = if self.drains_left > 0 { 5_000 } else { self.late };
        if self.drains_left == 0 {
            self.late = 0;
            assert!(!self.panics, "a fault of the pretended kernel");
            if self.fails {
                return Err("the pretended kernel is gone".into());
            }
        }
        self.drains_left = self.drains_left.saturating_sub(1);
        for at in 0..observations {
            let port = u16::try_from(at % 1_000).unwrap_or(0);
            let [from, to] = [[10, 0, 0, 1], [192, 0, 2, 1]].map(Address::from_v4);
            visit(Observation {
                key: FlowKey::new(from, to, [port, 53], protocol::UDP, Kind::V4, 0),
                outer: Outer::default(),
                packets: 2,
                bytes: 120,
                first_ms: 5,
                last_ms: 5,
                tcp: TcpSeen::default(),
                opening: OpeningTime::Unknown,
                first_flags: 0,
                ttl: 1,
                dscp: 0,
                fragmented: false,
                interface: 1,
                length_min: 60,
                length_max: 60,
            });
            self.counts.packets_ip += 2;
            self.counts.frames_seen += 2;
        }
        if self.drains_left == 0 {
            let _already_stopped = self.stop.try_send(());
        }
        self.counts.frames_seen += u64::from(self.folds);
        self.counts.packets_ip += u64::from(self.folds);
        let rest =
            Folded { key: None, outer: None, packets: 1, bytes: 60, syns: 1, times_ms: None };
        Ok(if self.folds { vec![rest] } else { Vec::new() })
    }

    fn counts(&mut self) -> Result<Counts, SourceError> {
        Ok(Counts { books: self.counts, ..Counts::default() })
    }

    fn log_fill(&self) -> LogFill {
        LogFill { used: 1, slots: 1 }
    }

    fn grace(&self) -> Duration {
        Duration::ZERO
    }

    fn stop(&mut self) -> Result<(), SourceError> {
        Ok(())
    }
}

impl Drop for Pretended {
    fn drop(&mut self) {
        self.detached.store(true, Ordering::Relaxed);
    }
}

/// Runs it to its end; gives the outcome, and whether it has let the source go.
fn run_pretended(change: impl FnOnce(&mut Pretended), config: &Config) -> (Outcome, bool) {
    let (tell, stop) = bounded(1);
    let detached = Arc::new(AtomicBool::new(false));
    let mut source = Pretended {
        drains_left: 10,
        late: 0,
        counts: Books::default(),
        stop: tell,
        fails: false,
        folds: false,
        panics: false,
        detached: Arc::clone(&detached),
    };
    change(&mut source);
    let outcome =
        run_source(config, &Options::default(), Box::new(source), &stop).expect("a run can begin");
    (outcome, detached.load(Ordering::Relaxed))
}

fn counting_only() -> Config {
    let mut config = Config::default();
    config.output.kinds = vec![OutputKind::Null];
    config
}

#[test]
fn a_stopped_run_leaves_nothing_behind() {
    for fails in [false, true] {
        let late = if fails { 0 } else { 7 };
        let (outcome, detached) = run_pretended(
            |source| {
                source.late = late;
                source.fails = fails;
            },
            &counting_only(),
        );
        let summary = &outcome.summary;
        assert_eq!(summary.packets_in_records, 2 * (50_000 + late));
        assert!(summary.balanced && summary.finished && detached, "{summary:?}");
        assert_eq!(summary.interfaces, ["span0"]);
        assert_eq!(outcome.faults.len(), usize::from(fails), "{:?}", outcome.faults);
    }
}

#[test]
fn what_the_source_folded_is_in_marked_records_and_the_books_close() {
    let place = TempDir::new().expect("a temporary folder");
    let out = place.path().join("records");
    let (outcome, _) = run_pretended(|source| source.folds = true, &json_to(out.clone()));
    let summary = &outcome.summary;
    assert!(summary.balanced, "{summary:?}");
    let folded = summary.packets_folded;
    assert!(folded >= 10, "one a drain");
    assert_eq!(summary.packets_in_records, summary.packets_in_flows + folded);
    assert_eq!((summary.bytes_folded, summary.syns_folded), (60 * folded, folded));
    assert_eq!((summary.packets_folded_rest, summary.records_folded), (folded, 1));
    let text = fs::read_to_string(out).expect("the records were written");
    let line = text.lines().find(|line| line.contains("folded")).expect("one says so");
    let record: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
    assert_eq!(record["folded"], true);
    assert_eq!((&record["initiator"], &record["responder"]), (&"::".into(), &"::".into()));
    assert_eq!(record["initiator_packets"], folded);
    assert!(record.get("community_id").is_none() && record.get("initiator_port").is_none());
}

#[test]
fn a_source_that_panics_is_let_go_and_told() {
    let (outcome, detached) = run_pretended(|source| source.panics = true, &counting_only());
    assert!(detached, "nothing stays attached");
    assert_eq!(outcome.faults, ["the drain stopped by a fault of its own"]);
    assert!(outcome.summary.balanced, "what had come over was counted: {:?}", outcome.summary);
}

#[test]
fn an_aggregator_that_panics_ends_the_run() {
    let (received, gone) = bounded(1);
    drop(gone);
    let (_stay, stop) = bounded(1);
    let (tell, _told) = bounded(1);
    let detached = Arc::new(AtomicBool::new(false));
    let mut source = Pretended {
        drains_left: u64::MAX,
        late: 0,
        counts: Books::default(),
        stop: tell,
        fails: false,
        folds: false,
        panics: false,
        detached,
    };
    let (_empties, spare) = bounded(1);
    // Nobody receives: it returns, where it would else drain for ever.
    Drain::new(received, spare).run(&mut source, Duration::ZERO, Duration::ZERO, &stop);
    assert_eq!(source.counts.packets_ip % 10_000, 0);
}
