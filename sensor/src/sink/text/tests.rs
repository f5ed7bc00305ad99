//! What each form makes of each kind of record, and how files turn.

use std::fs;

use expect_test::{ExpectFile, expect_file};
use flow::{Books, EndReason, Handshake, Record, tcp_flag};
use tempfile::TempDir;

use super::super::records::{all, backscatter, folded, rest, tunnelled, web};
use super::super::{Files, Rotation, Sink, SinkError};
use super::csv::{Csv, HEADER};
use super::ecs::Ecs;
use super::native::Native;
use super::zeek::{COLUMNS, Zeek};
use super::{Format, TextSink};

/// 2026-05-28T20:26:40Z.
const NOW_MS: u64 = 1_780_000_000_000;

fn written(mut format: impl Format, records: &[Record]) -> String {
    let mut out = Vec::new();
    format.begin(NOW_MS, &mut out);
    format.write(records, &mut out);
    format.end(NOW_MS + 1_000, &mut out);
    String::from_utf8(out).expect("it is UTF-8")
}

fn check(format: impl Format, expected: &ExpectFile) {
    expected.assert_eq(&written(format, &all()));
}

#[test]
fn native() {
    check(Native::new(), &expect_file!["golden/native.json"]);
}

#[test]
fn ecs() {
    let interfaces = ["span0".to_owned(), "of \"quotes\"".to_owned()];
    check(Ecs::new(&interfaces), &expect_file!["golden/ecs.json"]);
}

#[test]
fn zeek() {
    check(Zeek::new(), &expect_file!["golden/conn.log"]);
}

#[test]
fn csv() {
    check(Csv::new(), &expect_file!["golden/flows.csv"]);
}

#[test]
fn every_json_line_is_json_and_nothing_unknown_is_null() {
    for text in [written(Native::new(), &all()), written(Ecs::new(&[]), &all())] {
        assert_eq!(text.lines().count(), all().len());
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
            assert!(value.is_object(), "{line}");
        }
    }
    let text = written(Native::new(), &[rest()]);
    let value: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    for absent in ["protocol", "community_id", "initiator_port", "responder_port", "handshake"] {
        assert!(value.get(absent).is_none(), "{absent} of nothing is not known: {text}");
    }
}

#[test]
fn the_columns_of_csv_are_read_back_by_the_library() {
    let text = written(Csv::new(), &all());
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let header: Vec<String> =
        reader.headers().expect("there is one").iter().map(str::to_owned).collect();
    assert_eq!(header, HEADER);
    let rows: Vec<::csv::StringRecord> =
        reader.records().collect::<Result<_, _>>().expect("every row has every column");
    assert_eq!(rows.len(), all().len());
    let at = |name: &str| header.iter().position(|column| column == name).expect("a column");
    let tunnelled = &rows[2];
    assert_eq!(&tunnelled[at("tunnels")], "gre,vxlan:5001");
    assert_eq!(&tunnelled[at("vlan_outer")], "");
    assert_eq!(&rows[7][at("initiator_prefix_bits")], "8");
}

/// As `zeek-cut` does: by the names in the header.
#[test]
fn zeek_is_read_back_by_the_names_in_its_header() {
    let text = written(Zeek::new(), &all());
    let mut names = Vec::new();
    let mut types = Vec::new();
    let mut rows = Vec::new();
    for line in text.lines() {
        let values = || line.split('\t').skip(1).map(str::to_owned).collect::<Vec<_>>();
        if line.starts_with("#fields\t") {
            names = values();
        } else if line.starts_with("#types\t") {
            types = values();
        } else if !line.starts_with('#') {
            rows.push(line.split('\t').map(str::to_owned).collect::<Vec<_>>());
        }
    }
    assert!(text.starts_with("#separator \\x09\n"), "zeek-cut reads it first");
    assert!(text.ends_with("#close\t2026-05-28-20-26-41\n"), "{text}");
    assert_eq!((names.len(), types.len()), (COLUMNS.len(), COLUMNS.len()));
    let at = |name: &str| names.iter().position(|column| column == name).expect("a column");
    for row in &rows {
        assert_eq!(row.len(), names.len());
        for (value, kind) in row.iter().zip(&types).filter(|(value, _)| *value != "-") {
            let fits = match kind.as_str() {
                "time" | "interval" => value.parse::<f64>().is_ok(),
                "addr" => value.parse::<std::net::IpAddr>().is_ok(),
                "port" => value.parse::<u16>().is_ok(),
                "count" | "int" => value.parse::<u64>().is_ok(),
                "set[string]" => value == "(empty)",
                _ => !value.is_empty(),
            };
            assert!(fits, "`{value}` is no {kind}");
        }
    }
    let first = &rows[0];
    assert_eq!(
        (first[at("id.orig_p")].as_str(), first[at("conn_state")].as_str()),
        ("40000", "SF")
    );
    let mut identifiers: Vec<&str> = rows.iter().map(|row| row[at("uid")].as_str()).collect();
    identifiers.sort_unstable();
    identifiers.dedup();
    assert_eq!(identifiers.len(), rows.len(), "each record has its own");
    assert!(identifiers.iter().all(|id| id.len() == 18 && id.starts_with('C')));
}

#[test]
fn the_state_of_a_connection_is_what_flags_decide() {
    const FIN: u8 = tcp_flag::FIN;
    const RST: u8 = tcp_flag::RST;
    let state = |handshake, ours: u8, theirs: u8, seen: bool| {
        let mut record = Record { handshake, ..web() };
        record.from_initiator.tcp_flags = ours;
        record.from_responder.tcp_flags = theirs;
        if !seen {
            record.from_initiator = flow::Direction::default();
        }
        let text = written(Zeek::new(), &[record]);
        let line = text.lines().find(|line| !line.starts_with('#')).expect("there is one");
        line.split('\t').nth(11).expect("a column").to_owned()
    };
    for (handshake, ours, theirs, seen, expected) in [
        (Handshake::Syn, 2, 0, true, "S0"),
        (Handshake::Syn, 2 | FIN, 0, true, "SH"),
        (Handshake::Syn, 2 | RST, 0, true, "RSTOS0"),
        (Handshake::Rejected, 2, RST, true, "REJ"),
        (Handshake::SynAck, 2, 18, true, "S1"),
        (Handshake::SynAck, 0, 18, false, "OTH"),
        (Handshake::SynAck, 0, 0x12 | FIN, false, "SHR"),
        (Handshake::SynAck, 0, 0x12 | RST, false, "RSTRH"),
        (Handshake::Established, 2, 18, true, "S1"),
        (Handshake::Established, FIN, 18, true, "S2"),
        (Handshake::Established, 2, FIN, true, "S3"),
        (Handshake::Established, FIN, FIN, true, "SF"),
        (Handshake::Established, RST, FIN, true, "RSTO"),
        (Handshake::Established, FIN, RST, true, "RSTR"),
        (Handshake::Established, RST, RST, true, "-"),
        (Handshake::OneWay, 16, 0, true, "OTH"),
        (Handshake::None, 16, 16, true, "OTH"),
    ] {
        assert_eq!(state(handshake, ours, theirs, seen), expected, "{handshake:?} {ours} {theirs}");
    }
}

#[test]
fn parts_of_a_flow_have_different_identifiers_and_the_same_record_the_same() {
    let id = |record: Record| {
        let text = written(Zeek::new(), &[record]);
        let line = text.lines().find(|line| !line.starts_with('#')).expect("there is one");
        line.split('\t').nth(1).expect("a column").to_owned()
    };
    let later = Record { start_ms: NOW_MS + 60_000, end_reason: EndReason::ActiveTimeout, ..web() };
    assert_eq!(id(web()), id(web()));
    assert_ne!(id(web()), id(later));
    assert_ne!(id(web()), id(Record { outer: tunnelled().outer, ..web() }));
}

fn sink(folder: &TempDir, rotation: Rotation) -> TextSink {
    let path = folder.path().join("conn.log");
    TextSink::zeek(Files::open(Some(&path), rotation, false, NOW_MS).expect("room"))
}

fn read(folder: &TempDir) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = folder
        .path()
        .read_dir()
        .expect("the folder is there")
        .map(|entry| {
            let path = entry.expect("it can be listed").path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            (name.unwrap_or_default(), fs::read_to_string(&path).expect("it is text"))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_file_of_a_series_has_a_head_and_an_end_and_no_line_is_lost() {
    let folder = TempDir::new().expect("a temporary folder");
    let rotation = Rotation { file_bytes_max: Some(20_000), ..Rotation::default() };
    let mut sink = sink(&folder, rotation);
    let records = vec![web(); 500];
    for step in 0..3 {
        sink.handle_records(&records, &Books::default(), NOW_MS + step).expect("room");
    }
    sink.finish(&Books::default(), NOW_MS + 3).expect("room");
    let files = read(&folder);
    assert!(files.len() > 5, "{}", files.len());
    let mut lines = 0;
    for (name, text) in &files {
        assert!(!name.contains("partial"), "{name} is complete");
        assert!(text.starts_with("#separator") && text.contains("\n#close\t"), "{name}");
        assert!(text.len() < 40_000, "{name}: {} bytes", text.len());
        lines += text.lines().filter(|line| !line.starts_with('#')).count();
    }
    assert_eq!(lines, 1_500);
}

#[test]
fn time_alone_ends_a_file_that_has_something_in_it() {
    let folder = TempDir::new().expect("a temporary folder");
    let rotation = Rotation { file_period_ms: Some(1_000), ..Rotation::default() };
    let mut sink = sink(&folder, rotation);
    let books = Books::default();
    sink.handle_records(&[web()], &books, NOW_MS).expect("room");
    sink.advance(&books, NOW_MS + 999).expect("room");
    assert_eq!(read(&folder).len(), 1);
    sink.advance(&books, NOW_MS + 1_000).expect("room");
    assert_eq!(read(&folder).len(), 2);
    sink.finish(&books, NOW_MS + 1_001).expect("room");
    let with_lines = read(&folder).iter().filter(|(_, text)| text.contains("\ttcp\t")).count();
    assert_eq!(with_lines, 1);
}

#[test]
fn what_is_held_when_the_disk_is_full_is_counted() {
    let path = std::path::Path::new("/dev/full");
    let files = Files::open(Some(path), Rotation::default(), false, NOW_MS).expect("it is there");
    let mut sink = TextSink::native(files);
    let books = Books::default();
    sink.handle_records(&[web(), folded(), backscatter()], &books, NOW_MS).expect("it is held");
    let error = sink.advance(&books, NOW_MS).expect_err("nothing fits");
    assert_eq!(error.to_string(), "cannot write /dev/full");
    assert!(matches!(error, SinkError::Write { .. }));
    assert_eq!(sink.totals().records_unwritten, 3);
}
