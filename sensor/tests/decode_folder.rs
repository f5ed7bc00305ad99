//! Replays every capture of the shared decode folder: each frame is counted once, or the file's
//! fault is named.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sensor::{AggregatorSettings, Replay, replay_all};

/// Files that are not read to their end, with the frames that are and the fault. Each is broken on
/// purpose or of a link type that no mirror port has.
const FAULTS: &[(&str, u64, &str)] = &[
    (
        "decode/tcpdump/tests/ospf6_print_lshdr-oobr.pcap",
        5,
        "captured length of the packet at byte 554: 94 is out of range, at most 92",
    ),
    ("decode/tcpdump/tests/q933-heapoverflow-2.pcap", 0, "unknown link type 107 at byte 20"),
];

/// The shared captures: `SPANWATCH_PCAPS`, else beside the workspace.
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("SPANWATCH_PCAPS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps"),
        PathBuf::from,
    );
    folder.join("index.csv").is_file().then_some(folder)
}

#[test]
fn every_file_is_counted_or_its_fault_is_named() {
    let Some(folder) = folder() else {
        let _nobody = writeln!(
            io::stderr(),
            "skipped: no shared captures; set SPANWATCH_PCAPS to the folder that holds index.csv"
        );
        return;
    };
    let index = fs::read_to_string(folder.join("index.csv")).expect("index.csv can be read");
    let faults: BTreeMap<&str, (u64, &str)> =
        FAULTS.iter().map(|(path, frames, fault)| (*path, (*frames, *fault))).collect();
    let mut met = 0;
    let mut differences = Vec::new();
    for line in index.lines().skip(1) {
        let columns: Vec<&str> = line.split(',').collect();
        let (path, packets) = (columns[0], columns[2]);
        let packets: u64 = packets.parse().expect("the packets column is a number");
        let file = File::open(folder.join(path)).expect("a listed capture is there");
        let mut replay = Replay::new(AggregatorSettings::default(), 250);
        let mut in_records = 0;
        let mut emit = |record: flow::Record| {
            in_records += record.from_initiator.packets + record.from_responder.packets;
        };
        let result = replay_all(&mut replay, file, &mut emit);
        replay.finish(&mut emit);

        let books = replay.books();
        assert!(books.balanced(), "{path}: {books:?}");
        assert_eq!(in_records, books.packets_ip, "{path}: every IP packet is in one record");
        let found =
            (books.frames_seen, result.map_or_else(|fault| fault.to_string(), |()| String::new()));
        let expected = faults.get(path).map_or((packets, ""), |expected| *expected);
        met += u64::from(faults.contains_key(path));
        if (found.0, found.1.as_str()) != expected {
            differences
                .push(format!("(\"{path}\", {}, \"{}\"), index: {packets}", found.0, found.1));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(met, FAULTS.len() as u64, "the table has a line for a file that is not there");
}
